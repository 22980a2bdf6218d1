import { VmcorralError } from '../model/errors.js';
import type { Store, StoreConfig, StoreDriver } from './store.js';

/** The store drivers this build has, by `type`. Filled by main.ts, nowhere else. */
export class StoreRegistry {
  readonly #drivers = new Map<string, StoreDriver>();

  register(driver: StoreDriver): void {
    this.#drivers.set(driver.type, driver);
  }

  /** @throws UNSUPPORTED, naming the types there are */
  open(config: StoreConfig): Store {
    const driver = this.#drivers.get(config.type);
    if (driver) return driver.open(config);
    throw new VmcorralError('UNSUPPORTED', `no store driver for type "${config.type}" (store ${config.name})`, {
      hint: `this build has: ${[...this.#drivers.keys()].join(', ')}`,
    });
  }
}
