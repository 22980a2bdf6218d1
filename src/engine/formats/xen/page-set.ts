/** A set of pages, one bit each. */
export class PageSet {
  readonly #bits: Uint8Array;

  constructor(pageCount: number) {
    this.#bits = new Uint8Array(Math.ceil(pageCount / 8));
  }

  has(page: number): boolean {
    return ((this.#bits[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
  }

  add(page: number): void {
    this.#bits[page >>> 3]! |= 1 << (page & 7);
  }
}
