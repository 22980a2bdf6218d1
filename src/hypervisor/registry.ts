import { VmcorralError } from '../model/errors.js';
import type { HypervisorDriver } from './hypervisor.js';

/** The adapters this build has, by `kind`. Filled by main.ts, nowhere else. */
export class HypervisorRegistry {
  readonly #drivers = new Map<string, HypervisorDriver>();

  register(driver: HypervisorDriver): void {
    this.#drivers.set(driver.kind, driver);
  }

  /** @throws UNSUPPORTED, naming the kinds there are */
  get(kind: string): HypervisorDriver {
    const driver = this.#drivers.get(kind);
    if (driver) return driver;
    throw new VmcorralError('UNSUPPORTED', `no adapter for hypervisor type "${kind}"`, {
      hint: `this build has: ${[...this.#drivers.keys()].join(', ')}`,
    });
  }
}
