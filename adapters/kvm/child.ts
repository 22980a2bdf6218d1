/**
 * Entry of the child process that holds libvirt for one host: requests come and replies go over IPC. It ends with its
 * parent, by SIGKILL on itself: Node's orderly exit would wait for pool threads, and those may hang in libvirt for ever.
 */

import type { Calls, Reply, Request } from './calls.js';
import { childCalls } from './child-calls.js';
import { DumpRunner } from './child-dump.js';
import { EventOutbox } from './event-outbox.js';
import { LibvirtFault, ownFault } from './fault.js';
import { Lanes } from './lanes.js';
import { Libvirt } from './libvirt.js';

interface Link {
  readonly lanes: Lanes;
  readonly dumps: DumpRunner;
  readonly calls: ReturnType<typeof childCalls>;
}

let libvirt: Libvirt | undefined;
let link: Link | undefined;

function send(reply: Reply, onSent?: () => void): void {
  if (!process.connected) return;
  process.send?.(reply, undefined, undefined, () => onSent?.());
}

const outbox = new EventOutbox(
  (events, lost) => new Promise((resolve) => send({ kind: 'events', events, lost }, () => resolve())),
);

/** Opens the connection for events, and drops the one before with all its lanes. */
async function connect(uri: string): Promise<null> {
  if (!libvirt) {
    const loaded = new Libvirt();
    loaded.startEventLoop(
      () => {},
      (error) => die(`event loop ended: ${String(error)}`),
    );
    libvirt = loaded;
  }
  const native = libvirt;
  const before = link;
  link = undefined;
  if (before) {
    void before.lanes.close().catch(() => {});
    await native.unsubscribe();
  }
  const events = await native.open(uri);
  const lanes = new Lanes(native, uri);
  const dumps = new DumpRunner(native, lanes);
  await native.subscribe(
    events,
    (event) => {
      dumps.onEvent(event);
      outbox.push(event);
    },
    (reason) => send({ kind: 'closed', reason }),
  );
  link = { lanes, dumps, calls: childCalls(native, lanes, dumps) };
  return null;
}

async function answer(request: Request): Promise<Calls[keyof Calls]['result']> {
  if (request.call === 'ping') return null;
  if (request.call === 'connect') return connect(request.args.uri);
  if (!link) throw ownFault('not-connected', request.call, 'no connection to libvirt');
  const progress = (done: number, total: number) => send({ kind: 'progress', id: request.id, done, total });
  // One signature for all: the table of handlers and the request have the same key.
  const handler = link.calls[request.call] as (
    args: unknown,
    progress: unknown,
  ) => Promise<Calls[keyof Calls]['result']>;
  return handler(request.args, progress);
}

function faultOf(error: unknown, call: string): LibvirtFault['fault'] {
  if (error instanceof LibvirtFault) return error.fault;
  return { call, code: 0, domain: 0, errno: 0, message: error instanceof Error ? error.message : String(error) };
}

function die(message: string): void {
  process.stderr.write(`${message}\n`);
  process.kill(process.pid, 'SIGKILL');
}

process.on('message', (request: Request) => {
  answer(request).then(
    (value) => send({ kind: 'result', id: request.id, value }),
    (error: unknown) => send({ kind: 'fault', id: request.id, fault: faultOf(error, request.call) }),
  );
});
// A terminal's Ctrl-C and a service manager's stop reach the whole group; this process ends when its parent does.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
process.on('disconnect', async () => {
  await link?.dumps.released();
  process.kill(process.pid, 'SIGKILL');
});
