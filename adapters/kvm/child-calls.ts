/** What the child does for each call of calls.ts. */

import type { Calls, RawGuest } from './calls.js';
import type { DumpRunner } from './child-dump.js';
import { ownFault } from './fault.js';
import type { Lanes } from './lanes.js';
import type { Connection, Domain, Libvirt } from './libvirt.js';

type Handlers = {
  [K in Exclude<keyof Calls, 'connect' | 'ping'>]: (
    args: Calls[K]['args'],
    progress: (done: number, total: number) => void,
  ) => Promise<Calls[K]['result']>;
};

export function childCalls(libvirt: Libvirt, lanes: Lanes, dumps: DumpRunner): Handlers {
  const withDomain = <T>(
    call: string,
    uuid: string,
    body: (conn: Connection, domain: Domain) => Promise<T>,
  ): Promise<T> =>
    lanes.use(call, 'short', async (conn) => {
      const domain = await libvirt.byUuid(conn, cString(call, uuid));
      try {
        return await body(conn, domain);
      } finally {
        libvirt.freeDomain(domain);
      }
    });
  const describe = async (conn: Connection, domain: Domain): Promise<RawGuest> => ({
    name: libvirt.name(domain),
    uuid: libvirt.uuid(domain),
    id: libvirt.id(domain),
    ...(await libvirt.info(conn, domain)),
    ...(await libvirt.state(conn, domain)),
  });

  return {
    list: () =>
      lanes.use('list', 'short', async (conn) => {
        const guests: RawGuest[] = [];
        for (const domain of await libvirt.listAll(conn)) {
          // A guest that goes away between the list and the question is left out.
          const guest = await describe(conn, domain).catch((error: unknown) => goneOrThrow(error));
          libvirt.freeDomain(domain);
          if (guest) guests.push(guest);
        }
        return guests;
      }),
    lookup: ({ by, value }) =>
      lanes.use('lookup', 'short', async (conn) => {
        const key = cString('lookup', value);
        const domain =
          by === 'name'
            ? await libvirt.byName(conn, key)
            : by === 'uuid'
              ? await libvirt.byUuid(conn, key)
              : await libvirt.byId(conn, Number(key));
        try {
          return await describe(conn, domain);
        } finally {
          libvirt.freeDomain(domain);
        }
      }),
    state: ({ uuid }) => withDomain('state', uuid, (conn, domain) => libvirt.state(conn, domain)),
    job: ({ uuid, patienceMs }) => {
      const job = withDomain('job', uuid, (conn, domain) => libvirt.jobStats(conn, domain));
      return patienceMs === undefined ? job : within(patienceMs, job);
    },
    abortJob: ({ uuid }) =>
      withDomain('abortJob', uuid, async (conn, domain) => {
        await libvirt.abortJob(conn, domain);
        return null;
      }),
    xml: ({ uuid }) => withDomain('xml', uuid, (conn, domain) => libvirt.xml(conn, domain)),
    act: ({ uuid, action }) =>
      withDomain(action, uuid, async (conn, domain) => {
        await libvirt.act(conn, domain, action);
        return null;
      }),
    monitor: ({ uuid, command, human }) =>
      withDomain('monitor', uuid, (conn, domain) => libvirt.monitor(conn, domain, cString('monitor', command), human)),
    versions: () => lanes.use('versions', 'short', (conn) => libvirt.versions(conn)),
    dump: (args, progress) => dumps.run({ ...args, path: cString('dump', args.path) }, progress),
  };
}

/** A text that C would cut at a NUL could name another guest or file. */
function cString(call: string, text: string): string {
  if (!text.includes('\0')) return text;
  throw ownFault('bad-argument', call, 'a name with a NUL byte');
}

/** VIR_ERR_NO_DOMAIN */
function goneOrThrow(error: unknown): undefined {
  if (error instanceof Error && 'fault' in error && (error.fault as { code: number }).code === 42) return undefined;
  throw error;
}

/** The call goes on and keeps its lane; only the answer no longer waits for it. */
async function within<T>(ms: number, call: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(ownFault('guest-locked', 'job', `the guest's lock is held for more than ${ms} ms`)),
      ms,
    );
  });
  return Promise.race([call, patience]).finally(() => clearTimeout(timer));
}
