import type { Fault } from './calls.js';

/** A failed libvirt call, thrown inside the child process. */
export class LibvirtFault extends Error {
  readonly fault: Fault;

  constructor(fault: Fault) {
    super(fault.message);
    this.name = 'LibvirtFault';
    this.fault = fault;
  }
}

/** A fault of the child itself. */
export function ownFault(own: NonNullable<Fault['own']>, call: string, message: string): LibvirtFault {
  return new LibvirtFault({ call, code: 0, domain: 0, errno: 0, message, own });
}
