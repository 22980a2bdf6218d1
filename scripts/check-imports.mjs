#!/usr/bin/env node
/** Checks who imports whom (DESIGN.md §4) and that there is no import cycle. Prints each breach; exit 1 if any. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** Folder → folders it may import beside itself. The longest matching folder counts. */
const MAY_IMPORT = {
  'src/model': [],
  'src/config': ['src/model'],
  'src/store': ['src/model'],
  'src/engine/image': ['src/model'],
  'src/engine/codec': ['src/model'],
  'src/engine/formats': ['src/engine/image', 'src/engine/codec', 'src/model'],
  'src/engine/linux': ['src/engine/image', 'src/model'],
  'src/engine/convert': ['src/engine', 'src/model'],
  'src/hypervisor': ['src/engine/image', 'src/model'],
  adapters: ['src/hypervisor', 'src/engine/image', 'src/engine/formats', 'src/model'],
  'src/collector/guard': ['src/collector/spool', 'src/hypervisor', 'src/store', 'src/model'],
  'src/collector/spool': ['src/hypervisor', 'src/store', 'src/model'],
  'src/collector/catalogue': ['src/hypervisor', 'src/store', 'src/model'],
  'src/collector/queue': ['src/config', 'src/model'],
  'src/collector/steps': ['src/collector', 'src/engine', 'src/store', 'src/hypervisor', 'src/config', 'src/model'],
  'src/collector/service': ['src/collector', 'src/engine', 'src/store', 'src/hypervisor', 'src/config', 'src/model'],
  'src/collector/watch': ['src/collector/service', 'src/hypervisor', 'src/config', 'src/model'],
  'src/cli': ['src/collector/service', 'src/engine/convert', 'src/config', 'src/model'],
  'src/api': ['src/collector/service', 'src/engine/convert', 'src/config', 'src/model'],
  'src/log.ts': ['src/model'],
  'src/daemon.ts': ['src'],
  'src/main.ts': ['src', 'adapters'],
};

const files = ['src', 'adapters'].flatMap((top) =>
  readdirSync(join(root, top), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(top, name)),
);

const inside = (file, folder) => file === folder || file.startsWith(`${folder}/`);
const ruleOf = (file) =>
  Object.keys(MAY_IMPORT)
    .filter((folder) => inside(file, folder))
    .sort((a, b) => b.length - a.length)[0];

/** Each adapter is an island: adapters/kvm never sees adapters/xen. */
const homeOf = (file, rule) => (rule === 'adapters' ? file.split('/').slice(0, 2).join('/') : rule);

const IMPORT = /(?:(?:import|export)\b[^;']*?from\s*|import\(|new URL\()'(\.{1,2}\/[^']+)'/g;

const graph = new Map();
const breaches = [];
for (const file of files) {
  const text = readFileSync(join(root, file), 'utf8');
  const rule = ruleOf(file);
  if (rule === undefined) breaches.push(`${file}: no rule for this folder`);
  const targets = [];
  // `import type` and `new URL` (a thread's or process's file) must obey the table, but make no cycle at run time.
  for (const [whole, specifier] of text.matchAll(IMPORT)) {
    const target = relative(root, resolve(root, dirname(file), specifier)).replace(/\.js$/, '.ts');
    if (!target.endsWith('.ts')) continue;
    if (!files.includes(target)) breaches.push(`${file}: imports ${target}, which does not exist`);
    const allowed = rule === undefined ? [] : [homeOf(file, rule), ...MAY_IMPORT[rule]];
    if (!allowed.some((folder) => inside(target, folder))) breaches.push(`${file}: may not import ${target}`);
    if (!/^(import|export) type|^new URL/.test(whole)) targets.push(target);
  }
  graph.set(file, targets);
}

const done = new Set();
function visit(file, path) {
  const at = path.indexOf(file);
  if (at >= 0) breaches.push(`import cycle: ${[...path.slice(at), file].join(' -> ')}`);
  if (at >= 0 || done.has(file)) return;
  for (const target of graph.get(file) ?? []) visit(target, [...path, file]);
  done.add(file);
}
for (const file of files) visit(file, []);

for (const breach of breaches) console.error(breach);
const edges = [...graph.values()].reduce((sum, targets) => sum + targets.length, 0);
console.log(`imports: ${files.length} files, ${edges} imports, ${breaches.length} breaches`);
process.exit(breaches.length > 0 || edges === 0 ? 1 : 0);
