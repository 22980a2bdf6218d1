/** Page tables in an image, made by hand: the other end of what engine/linux/paging.ts walks. */

import type { SparseImage } from '#src/engine/image/sparse-image.js';

/** The x86-64 form: present and writable; PS in leaves above the last level. */
const X86_TABLE = 0x63n;
const X86_LARGE = 0x80n;

export class X86PageTables {
  readonly image: SparseImage;
  readonly root: number;
  readonly #shifts: readonly number[];
  #next: number;

  /**
   * @param root   physical address of the top table
   * @param spare  physical address from which tables are taken, page by page
   */
  constructor(image: SparseImage, levels: 4 | 5, root: number, spare: number) {
    this.image = image;
    this.root = root;
    this.#shifts = levels === 5 ? [48, 39, 30, 21, 12] : [39, 30, 21, 12];
    this.#next = spare;
    image.write(root, new Uint8Array(4096));
  }

  /** Maps one leaf of 2^`shift` bytes; `flags` are added to its entry. */
  map(virtual: bigint, physical: number, shift: 12 | 21 | 30 = 12, flags = 0n): void {
    let table = this.root;
    for (const level of this.#shifts) {
      const at = table + Number((virtual >> BigInt(level)) & 511n) * 8;
      if (level === shift) {
        const large = shift === 12 ? 0n : X86_LARGE;
        writeU64(this.image, at, BigInt(physical) | X86_TABLE | large | flags);
        return;
      }
      table = this.#tableBelow(at);
    }
  }

  #tableBelow(at: number): number {
    const entry = readU64(this.image, at);
    if (entry !== 0n) return Number(entry & 0x000f_ffff_ffff_f000n);
    const table = this.#next;
    this.#next += 4096;
    this.image.write(table, new Uint8Array(4096));
    writeU64(this.image, at, BigInt(table) | X86_TABLE);
    return table;
  }
}

export function writeU64(image: SparseImage, at: number, value: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  image.write(at, bytes);
}

export function readU64(image: SparseImage, at: number): bigint {
  const bytes = new Uint8Array(8);
  image.read(at, bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}
