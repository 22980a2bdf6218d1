/** Libvirt's errors as VmcorralErrors. Texts are looked at only where libvirt gives no number. */

import { type ErrorCode, VmcorralError } from '../../src/model/errors.js';
import type { Fault } from './calls.js';
import { ERR, FROM_RPC } from './constants.js';

/** What the error is about: goes into hints and facts. */
export interface FaultContext {
  readonly uri: string;
  readonly guest?: string;
}

const CODE_OF: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [ERR.NO_SUPPORT, 'UNSUPPORTED'],
  [ERR.CONFIG_UNSUPPORTED, 'UNSUPPORTED'],
  [ERR.ARGUMENT_UNSUPPORTED, 'UNSUPPORTED'],
  [ERR.OPERATION_UNSUPPORTED, 'UNSUPPORTED'],
  [ERR.UNKNOWN_HOST, 'UNREACHABLE'],
  [ERR.NO_CONNECT, 'UNREACHABLE'],
  [ERR.INVALID_CONN, 'UNREACHABLE'],
  [ERR.RPC, 'UNREACHABLE'],
  [ERR.GNUTLS_ERROR, 'UNREACHABLE'],
  [ERR.SSH, 'UNREACHABLE'],
  [ERR.LIBSSH, 'UNREACHABLE'],
  [ERR.OPERATION_DENIED, 'FORBIDDEN'],
  [ERR.AUTH_FAILED, 'FORBIDDEN'],
  [ERR.AUTH_CANCELLED, 'FORBIDDEN'],
  [ERR.AUTH_UNAVAILABLE, 'FORBIDDEN'],
  [ERR.ACCESS_DENIED, 'FORBIDDEN'],
  [ERR.NO_DOMAIN, 'NOT_FOUND'],
  [ERR.OPERATION_INVALID, 'REFUSED'],
  [ERR.OPERATION_ABORTED, 'CANCELLED'],
  [ERR.OPERATION_TIMEOUT, 'BUSY'],
  [ERR.RESOURCE_BUSY, 'BUSY'],
]);

/** Linux errno values; koffi-free modules have os.constants, but the numbers come from the host of libvirtd. */
const EPERM = 1;
const ENOENT = 2;
const EACCES = 13;
const ENOSPC = 28;
const EDQUOT = 122;

export function codeOf(fault: Fault): ErrorCode {
  switch (fault.own) {
    case 'library-missing':
      return 'UNSUPPORTED';
    case 'too-many-calls':
    case 'guest-locked':
      return 'BUSY';
    case 'not-connected':
      return 'UNREACHABLE';
    case 'no-reader':
    case 'not-a-fifo':
      return 'CAPTURE_FAILED';
    case 'bad-argument':
      return 'NOT_FOUND';
    case undefined:
  }
  if (
    fault.errno === ENOSPC ||
    fault.errno === EDQUOT ||
    /No space left on device|Disk quota exceeded/.test(fault.message)
  ) {
    return 'NO_SPACE';
  }
  if (fault.domain === FROM_RPC) {
    return fault.errno === EACCES || fault.errno === EPERM ? 'FORBIDDEN' : 'UNREACHABLE';
  }
  return CODE_OF.get(fault.code) ?? 'INTERNAL';
}

/** True for faults that mean: the connection is gone, whatever the call was. */
export function isConnectionFault(fault: Fault): boolean {
  return codeOf(fault) === 'UNREACHABLE';
}

export function faultToError(fault: Fault, context: FaultContext): VmcorralError {
  const code = codeOf(fault);
  const about = context.guest === undefined ? '' : ` (guest ${context.guest})`;
  const hint = hintOf(code, fault, context);
  const whose = fault.own === undefined ? 'libvirt: ' : '';
  return new VmcorralError(code, `${whose}${fault.message.trimEnd()}${about}`, {
    ...(hint === undefined ? {} : { hint }),
    facts: {
      call: fault.call,
      uri: context.uri,
      libvirtCode: fault.code,
      libvirtDomain: fault.domain,
      ...(fault.errno ? { errno: fault.errno } : {}),
    },
    retryable: code === 'UNREACHABLE' || code === 'BUSY',
  });
}

function hintOf(code: ErrorCode, fault: Fault, { uri }: FaultContext): string | undefined {
  if (fault.own === 'library-missing') return 'install the client library: `apt-get install libvirt0 libvirt-clients`';
  if (fault.own === 'no-reader') return 'open its reading end first; the guest was not touched';
  switch (code) {
    case 'UNREACHABLE':
      return `is libvirtd running? \`systemctl status libvirtd\`; the URI is ${uri}; try \`virsh -c '${uri}' list\``;
    case 'FORBIDDEN':
      return `run as root or join the group libvirt; try \`virsh -c '${uri}' list\` as the same user`;
    case 'BUSY':
      return 'another operation holds this guest; `virsh domjobinfo GUEST` shows it';
    case 'NO_SPACE':
      return 'make room on the file system of the spool';
    case 'UNSUPPORTED':
      return 'this libvirt or QEMU cannot do it';
    default:
      return fault.errno === ENOENT || fault.errno === EACCES
        ? 'libvirtd must be able to reach that folder'
        : undefined;
  }
}
