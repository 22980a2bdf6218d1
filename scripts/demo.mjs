// The demo behind `npm run demo`: one real guest, three ways to capture its memory (command line, HTTP, watchdog), a summary.
// Everything lies in folders of its own and is removed at the end; --keep keeps the dumps.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { startLab } from '../dist/test/lab/harness/lab.js';
import { until } from '../dist/test/lab/harness/until.js';
import { printSummary } from './demo-summary.mjs';

const { values: flags } = parseArgs({ options: { keep: { type: 'boolean', default: false } } });
const root = resolve(import.meta.dirname, '..');
const started = performance.now();
const seconds = () => `${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s`;
const bold = (text) => (process.stdout.isTTY && !process.env.NO_COLOR ? `\x1b[1m${text}\x1b[0m` : text);
const chapter = (text) => console.log(`\n${bold(`== ${text}`)}`);
const say = (text) => console.log(`${seconds()}  ${text}`);

/** Runs a verb of vmcorral as a user would, its output on our terminal; throws when it fails. */
async function vmcorral(args, { capture = false } = {}) {
  if (!capture) say(`$ vmcorral ${args.map((arg) => (/[^\w./-]/.test(arg) ? `'${arg}'` : arg)).join(' ')}`);
  const stdio = ['ignore', capture ? 'pipe' : 'inherit', 'inherit'];
  const child = spawn(process.execPath, [join(root, 'bin/vmcorral.mjs'), ...args], { stdio, env: demo.env });
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`vmcorral ${args[0]} ended with exit code ${code}`);
  return output;
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** All that has to be undone, last first. */
const undo = [];
const demo = { env: { ...process.env }, api: '', token: '', storePath: '' };

async function startVmcorral(lab) {
  const port = await freePort();
  const folder = join(lab.directory, 'vmcorral');
  demo.storePath = join(folder, 'store');
  demo.api = `http://127.0.0.1:${port}`;
  demo.env.VMCORRAL_CONFIG = join(folder, 'vmcorral.yaml');
  await mkdir(folder, { mode: 0o700 });
  const config = {
    dataDir: join(folder, 'data'),
    hosts: [{ name: 'demo', type: 'kvm', uri: lab.uri }],
    spool: { path: join(folder, 'spool'), minFreeBytes: '64MiB' },
    stores: [{ name: 'local', type: 'file', path: demo.storePath }],
    watch: { coolDownSeconds: 0 }, // three captures of one guest within a minute are this demo's purpose
    policy: { apiCoolDownSeconds: 0 },
    api: { listen: { host: '127.0.0.1', port } },
  };
  await writeFile(demo.env.VMCORRAL_CONFIG, JSON.stringify(config, null, 2), { mode: 0o600 }); // JSON is YAML too
  const made = await vmcorral(['token', 'add', 'demo', '--scope', 'request,read', '--json'], { capture: true });
  demo.token = JSON.parse(made).token;

  const logPath = join(folder, 'up.log');
  const log = openSync(logPath, 'a', 0o600);
  say('$ vmcorral up');
  const up = spawn(process.execPath, [join(root, 'bin/vmcorral.mjs'), 'up'], {
    stdio: ['ignore', log, log],
    env: demo.env,
  });
  const ended = once(up, 'close');
  undo.push(async () => {
    up.kill('SIGTERM');
    await ended;
  });
  const running = () => up.exitCode === null && up.signalCode === null;
  demo.log = () => readFileSync(logPath, 'utf8');
  const healthy = () => fetch(`${demo.api}/healthz`).then((answer) => answer.ok && 'yes');
  const ready = await until('vmcorral up to answer', () => (running() ? healthy() : 'ended'), 60_000);
  if (ready !== 'yes') throw new Error('vmcorral up ended by itself');
  say(`embedded Redis, worker, watchdog and HTTP on ${demo.api} are up`);
}

/** A request to the API; the answer and its body. Throws for every status but `expected`. */
async function http(method, path, { expected = 200, headers = {}, body } = {}) {
  const answer = await fetch(new URL(path, demo.api), {
    method,
    headers: {
      authorization: `Bearer ${demo.token}`,
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...headers,
    },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await answer.text();
  if (answer.status !== expected) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return { answer, body: JSON.parse(text) };
}

async function captureOverHttp() {
  const key = randomUUID();
  const request = { target: 'demo/web01', reason: 'asked for over HTTP' };
  const post = { expected: 202, headers: { 'idempotency-key': key }, body: request };
  say(`POST /v1/captures   Idempotency-Key: ${key}   ${JSON.stringify(request)}`);
  const { answer } = await http('POST', '/v1/captures', post);
  const location = answer.headers.get('location');
  say(`202 Accepted   Location: ${location}`);
  const again = await http('POST', '/v1/captures', post);
  if (again.answer.headers.get('location') !== location) throw new Error('the same key made a second capture');
  say('the same request with the same key: the same capture');
  await followOverHttp(location);
}

/** Prints each change of phase until the capture is done. */
async function followOverHttp(location) {
  let phase = '';
  await until(
    `${location} to end`,
    async () => {
      const { body } = await http('GET', location);
      if (body.phase !== phase) say(`GET ${location}   ${body.phase}`);
      phase = body.phase;
      return ['done', 'failed', 'cancelled'].includes(phase);
    },
    600_000,
  );
  if (phase !== 'done') throw new Error(`the capture over HTTP ended as ${phase}`);
}

async function captureByWatchdog(guest) {
  say('in the guest: echo c > /proc/sysrq-trigger');
  await guest.panic();
  say(`libvirt: ${await guest.waitState(/^crashed/)}; nobody asks for anything now`);
  let phase = '';
  await until(
    "the watchdog's dump",
    async () => {
      const capture = (await http('GET', '/v1/captures')).body.captures.find((one) => one.trigger === 'watch');
      if (capture !== undefined && capture.phase !== phase) say(`watchdog: capture ${capture.id}   ${capture.phase}`);
      phase = capture?.phase ?? '';
      return ['done', 'failed', 'cancelled'].includes(phase);
    },
    600_000,
  );
  if (phase !== 'done') throw new Error(`the watchdog's capture ended as ${phase}`);
}

async function run() {
  chapter('A real guest');
  say('preparing kernel, initrd and a libvirtd of its own (the first time downloads some 40 MB)');
  const lab = await startLab();
  undo.push(() => lab.stop());
  const guest = await lab.guest('web01', { memoryMiB: 512, onCrash: 'preserve', cmdline: 'fill=64' });
  await guest.waitReady('FILLED');
  say(`guest web01 runs Linux ${lab.kernelRelease}, 512 MiB, 2 CPUs; libvirt: ${await guest.state()}`);
  await startVmcorral(lab);

  chapter('1. An administrator, on the command line');
  await vmcorral(['capture', 'demo/web01', '--reason', 'slow since this morning']);
  chapter('2. A program, over HTTP');
  await captureOverHttp();
  chapter('3. The watchdog, by itself');
  await captureByWatchdog(guest);

  chapter('What lies in the store');
  const { dumps } = (await http('GET', '/v1/dumps')).body;
  for (const { manifest } of dumps) await vmcorral(['verify', manifest.id]);
  let kept;
  if (flags.keep) {
    kept = join(root, '.lab', `demo-${new Date().toISOString().replace(/[:.]/g, '-')}`);
    await mkdir(join(root, '.lab'), { recursive: true });
    await cp(demo.storePath, kept, { recursive: true, errorOnExist: true, force: false });
  }
  printSummary(dumps, {
    bold,
    storePath: demo.storePath,
    kept,
    kernelRelease: lab.kernelRelease,
    vmlinux: lab.vmlinux,
  });
  say('done; cleaning up');
}

async function cleanUp() {
  while (undo.length > 0)
    await undo
      .pop()()
      .catch((error) => console.error(`demo: ${error.message}`));
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  process.once(signal, () => {
    console.error('\ndemo: stopping, and cleaning up');
    cleanUp().then(() => process.exit(code));
  });
}
try {
  await run();
} catch (error) {
  console.error(`\ndemo: ${error.message}${error.cause ? ` (${error.cause.message})` : ''}`);
  if (demo.log) console.error(`The last lines of vmcorral up:\n${demo.log().split('\n').slice(-30).join('\n')}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}
