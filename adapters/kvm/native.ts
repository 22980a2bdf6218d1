/**
 * The C functions of libvirt that the adapter calls: the only module with native code, loaded in the child process
 * only. What they mean and how errors come out of them is in libvirt.ts.
 *
 * References: libvirt's C API reference; koffi 3.3 documentation.
 */

import { createRequire } from 'node:module';

type Koffi = typeof import('koffi');
export type Native = ReturnType<typeof loadNative>;
export type AsyncFunction = { async: (...args: unknown[]) => void };
/** A pointer type made by koffi. */
export type PointerType = ReturnType<Koffi['pointer']>;

/** @throws an Error of koffi's when libvirt.so.0 (or koffi's own binary) can't be loaded */
export function loadNative() {
  const koffi = createRequire(import.meta.url)('koffi') as Koffi;
  // koffi's default of 128 KiB is too little for libvirt's RPC and TLS paths; can be set before the first load only.
  koffi.config({ async_stack_size: 1 << 20, async_heap_size: 1 << 20 });
  const lib = koffi.load('libvirt.so.0');
  const libc = koffi.load('libc.so.6');
  const f = (definition: string) => lib.func(definition);
  return {
    koffi,
    virError: koffi.struct({
      code: 'int',
      domain: 'int',
      message: 'char *',
      level: 'int',
      conn: 'void *',
      dom: 'void *',
      str1: 'char *',
      str2: 'char *',
      str3: 'char *',
      int1: 'int',
      int2: 'int',
      net: 'void *',
    }),
    protos: {
      error: koffi.pointer(koffi.proto('void VmcErrorFunc(void *data, void *error)')),
      lifecycle: koffi.pointer(koffi.proto('int VmcLifecycle(void *c, void *d, int event, int detail, void *data)')),
      plain: koffi.pointer(koffi.proto('void VmcPlain(void *c, void *d, void *data)')),
      watchdog: koffi.pointer(koffi.proto('void VmcWatchdog(void *c, void *d, int action, void *data)')),
      ioError: koffi.pointer(
        koffi.proto('void VmcIoError(void *c, void *d, const char *s, const char *a, int action, void *data)'),
      ),
      close: koffi.pointer(koffi.proto('void VmcClose(void *c, int reason, void *data)')),
      timer: koffi.pointer(koffi.proto('void VmcTimer(int timer, void *data)')),
    },
    free: libc.func('void free(void *p)'),
    setErrorFunc: f('void virSetErrorFunc(void *data, void *handler)'),
    connSetErrorFunc: f('void virConnSetErrorFunc(void *c, void *data, void *handler)'),
    connError: f('void *virConnGetLastError(void *c)'),
    connResetError: f('void virConnResetLastError(void *c)'),
    registerLoop: f('int virEventRegisterDefaultImpl()'),
    runLoop: f('int virEventRunDefaultImpl()'),
    addTimeout: f('int virEventAddTimeout(int ms, void *cb, void *data, void *ff)'),
    open: f('void *virConnectOpen(const char *uri)'),
    close: f('int virConnectClose(void *c)'),
    setKeepAlive: f('int virConnectSetKeepAlive(void *c, int interval, unsigned int count)'),
    onClose: f('int virConnectRegisterCloseCallback(void *c, void *cb, void *data, void *ff)'),
    onEvent: f('int virConnectDomainEventRegisterAny(void *c, void *d, int id, void *cb, void *data, void *ff)'),
    offEvent: f('int virConnectDomainEventDeregisterAny(void *c, int id)'),
    offClose: f('int virConnectUnregisterCloseCallback(void *c, void *cb)'),
    driver: f('const char *virConnectGetType(void *c)'),
    clientVersion: f('int virGetVersion(void *version, const char *type, void *typeVersion)'),
    daemonVersion: f('int virConnectGetLibVersion(void *c, void *version)'),
    hypervisorVersion: f('int virConnectGetVersion(void *c, void *version)'),
    listAll: f('int virConnectListAllDomains(void *c, void *doms, unsigned int flags)'),
    byName: f('void *virDomainLookupByName(void *c, const char *name)'),
    byUuid: f('void *virDomainLookupByUUIDString(void *c, const char *uuid)'),
    byId: f('void *virDomainLookupByID(void *c, int id)'),
    freeDomain: f('int virDomainFree(void *d)'),
    name: f('const char *virDomainGetName(void *d)'),
    id: f('unsigned int virDomainGetID(void *d)'),
    uuid: f('int virDomainGetUUIDString(void *d, void *buffer)'),
    state: f('int virDomainGetState(void *d, void *state, void *reason, unsigned int flags)'),
    info: f('int virDomainGetInfo(void *d, void *info)'),
    xml: f('void *virDomainGetXMLDesc(void *d, unsigned int flags)'),
    suspend: f('int virDomainSuspend(void *d)'),
    resume: f('int virDomainResume(void *d)'),
    reset: f('int virDomainReset(void *d, unsigned int flags)'),
    destroy: f('int virDomainDestroy(void *d)'),
    nmi: f('int virDomainInjectNMI(void *d, unsigned int flags)'),
    dump: f('int virDomainCoreDumpWithFormat(void *d, const char *to, unsigned int format, unsigned int flags)'),
    jobStats: f('int virDomainGetJobStats(void *d, void *type, void *params, void *n, unsigned int flags)'),
    abortJob: f('int virDomainAbortJob(void *d)'),
    freeParams: f('void virTypedParamsFree(void *params, int n)'),
  };
}

/** Runs a call on a pool thread. Buffers among `args` are passed by address: keep them until the promise settles. */
export function run(fn: AsyncFunction, ...args: unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    fn.async(...args, (error: unknown, result: unknown) => (error ? reject(error) : resolve(result)));
  });
}
