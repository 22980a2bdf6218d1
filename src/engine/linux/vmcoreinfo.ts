/**
 * The text by which a Linux kernel describes itself to dump tools.
 *
 * References: kernel kernel/vmcore_info.c (crash_core.c before 6.9), Documentation/admin-guide/kdump/vmcoreinfo.rst;
 * makedumpfile read_vmcoreinfo (NUMBER: decimal first, then hexadecimal).
 */

/** VMCOREINFO_BYTES is one page, at most 64 KiB. */
export const MAX_VMCOREINFO_BYTES = 65536;
const MAX_UINT64 = (1n << 64n) - 1n;
const LATIN1 = new TextDecoder('latin1');

export class Vmcoreinfo {
  /** As the kernel wrote it, without what follows the last whole line. */
  readonly text: string;
  readonly #values: ReadonlyMap<string, string>;

  private constructor(text: string, values: ReadonlyMap<string, string>) {
    this.text = text;
    this.#values = values;
  }

  /**
   * Never throws: lines that are no `KEY=VALUE` are passed over, of two equal keys the last counts, and a last line
   * without its newline was cut off and is left out.
   */
  static parse(bytes: Uint8Array): Vmcoreinfo {
    const bounded = bytes.subarray(0, MAX_VMCOREINFO_BYTES);
    const nul = bounded.indexOf(0);
    const whole = LATIN1.decode(nul < 0 ? bounded : bounded.subarray(0, nul));
    const text = whole.slice(0, whole.lastIndexOf('\n') + 1);
    const values = new Map<string, string>();
    for (const line of text.split('\n')) {
      const equals = line.indexOf('=');
      if (equals > 0) values.set(line.slice(0, equals), line.slice(equals + 1));
    }
    return new Vmcoreinfo(text, values);
  }

  get keys(): number {
    return this.#values.size;
  }

  value(key: string): string | undefined {
    return this.#values.get(key);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get release(): string | undefined {
    return this.#values.get('OSRELEASE');
  }

  get buildId(): string | undefined {
    const id = this.#values.get('BUILD-ID');
    return id !== undefined && /^[0-9a-f]{8,64}$/.test(id) ? id : undefined;
  }

  /** Bytes of the kernel's pages; undefined for what is no page size. */
  get pageSize(): number | undefined {
    const size = decimal(this.#values.get('PAGESIZE'));
    return size === 4096 || size === 16384 || size === 65536 ? size : undefined;
  }

  /** How far KASLR moved the kernel's image: hexadecimal without 0x. */
  get kernelOffset(): bigint | undefined {
    return hexadecimal(this.#values.get('KERNELOFFSET'));
  }

  /** Seconds since 1970, where a crash kernel was loaded. */
  get crashTime(): number | undefined {
    return decimal(this.#values.get('CRASHTIME'));
  }

  symbol(name: string): bigint | undefined {
    return hexadecimal(this.#values.get(`SYMBOL(${name})`));
  }

  /** Signed. Decimal; where that doesn't use up the text, hexadecimal with or without 0x. */
  number(name: string): bigint | undefined {
    const text = this.#values.get(`NUMBER(${name})`)?.trim();
    if (text === undefined) return undefined;
    if (/^[+-]?\d{1,20}$/.test(text)) return BigInt(text.replace(/^\+/, ''));
    return hexadecimal(text);
  }

  /** Offset of `structure.member` in bytes; undefined for what can't be one. */
  offset(member: string): number | undefined {
    return decimal(this.#values.get(`OFFSET(${member})`));
  }

  size(structure: string): number | undefined {
    return decimal(this.#values.get(`SIZE(${structure})`));
  }

  length(array: string): number | undefined {
    return decimal(this.#values.get(`LENGTH(${array})`));
  }
}

function decimal(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function hexadecimal(text: string | undefined): bigint | undefined {
  const digits = /^(?:0[xX])?([0-9a-fA-F]{1,16})$/.exec(text ?? '')?.[1];
  const value = digits === undefined ? undefined : BigInt(`0x${digits}`);
  return value !== undefined && value <= MAX_UINT64 ? value : undefined;
}
