#!/usr/bin/env node
/**
 * The README's tables of formats, out of the code's own: `npm run docs:formats` writes them between their marks,
 * `--check` only compares (a unit test does).
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { formatCapabilities } from '../dist/src/engine/formats/registry.js';
import { writerFormats } from '../dist/src/engine/formats/writers.js';

const BEGIN = '<!-- formats: made by `npm run docs:formats` -->';
const END = '<!-- /formats -->';
const readme = fileURLToPath(new URL('../README.md', import.meta.url));

const cell = (text) => text.replaceAll('|', '\\|');
const row = (...cells) => `| ${cells.map(cell).join(' | ')} |`;

function tables() {
  const all = formatCapabilities();
  const readable = all.filter(({ kind }) => kind !== 'refused').map(({ title, scope }) => row(title, scope));
  const refused = all.filter(({ kind }) => kind === 'refused').map(({ title }) => title);
  const written = writerFormats().map(({ name, title, scope, keeps, compressions, isStream, canSplit }) =>
    row(
      `\`${name}\`: ${title}`,
      scope,
      compressions.join(' '),
      keeps,
      [isStream && 'pipe', canSplit && '--split'].filter(Boolean).join(', ') || '–',
    ),
  );
  return [
    row('read', 'what of it'),
    row('---', '---'),
    ...readable,
    '',
    `Refused by name: ${refused.join(', ')}.`,
    '',
    row('written (`--format`)', 'who opens it', 'compression', 'page states', 'also'),
    row('---', '---', '---', '---', '---'),
    ...written,
  ].join('\n');
}

const text = readFileSync(readme, 'utf8');
const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
if (from < 0 || to < from) throw new Error(`README.md has no marks ${BEGIN} … ${END}`);
const wanted = `${text.slice(0, from)}${BEGIN}\n${tables()}\n${text.slice(to)}`;
if (process.argv.includes('--check')) {
  if (wanted !== text) {
    console.error('the tables of formats in README.md are not what the code says: npm run docs:formats');
    process.exit(1);
  }
} else writeFileSync(readme, wanted);
