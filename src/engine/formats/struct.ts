/** Structures as tables of fields with explicit offsets: what a layout.ts is made of. */

type Kind = 'u16' | 'u32' | 'i32' | 'u64' | 'i64' | 'text';

export interface Field<K extends Kind = Kind> {
  readonly kind: K;
  readonly offset: number;
  /** Bytes; of text only. */
  readonly length: number;
}

const field =
  <K extends Kind>(kind: K) =>
  (offset: number): Field<K> => ({ kind, offset, length: 0 });

export const u16 = field('u16');
export const u32 = field('u32');
export const i32 = field('i32');
/** As a number: inexact from 2^53 on, and by that beyond every limit that it is then checked against. */
export const u64 = field('u64');
/** As a bigint: values that are carried over, not reckoned with. */
export const i64 = field('i64');
/** NUL-padded Latin-1. */
export const text = (offset: number, length: number): Field<'text'> => ({ kind: 'text', offset, length });

type ValueOf<F> = F extends Field<'text'> ? string : F extends Field<'i64'> ? bigint : number;
type Values<T> = { -readonly [K in keyof T]: ValueOf<T[K]> };

export interface Struct<T extends Record<string, Field>> {
  readonly size: number;
  readonly fields: T;
  read(view: DataView, at: number): Values<T>;
  /** Fields that are not given stay as they are. */
  write(view: DataView, at: number, values: Partial<Values<T>>): void;
}

/** Little-endian, as all that we read and write so far. */
export function struct<T extends Record<string, Field>>(size: number, fields: T): Struct<T> {
  return {
    size,
    fields,
    read(view, at) {
      const values: Record<string, number | bigint | string> = {};
      for (const [name, shape] of Object.entries(fields)) values[name] = readField(view, at + shape.offset, shape);
      // The loop above visits each key of T once: that is what Values<T> says.
      return values as Values<T>;
    },
    write(view, at, values) {
      for (const [name, value] of Object.entries(values)) {
        const shape = fields[name];
        if (shape !== undefined) writeField(view, at + shape.offset, shape, value as number | bigint | string);
      }
    },
  };
}

function readField(view: DataView, at: number, { kind, length }: Field): number | bigint | string {
  switch (kind) {
    case 'u16':
      return view.getUint16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 'i32':
      return view.getInt32(at, true);
    case 'u64':
      return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    case 'i64':
      return view.getBigInt64(at, true);
    case 'text': {
      const bytes = Buffer.from(view.buffer, view.byteOffset + at, length);
      const nul = bytes.indexOf(0);
      return bytes.toString('latin1', 0, nul < 0 ? length : nul);
    }
  }
}

function writeField(view: DataView, at: number, { kind, length }: Field, value: number | bigint | string): void {
  if (kind === 'text') {
    const bytes = Buffer.from(view.buffer, view.byteOffset + at, length);
    bytes.fill(0);
    // The last byte stays NUL.
    bytes.write(String(value), 0, length - 1, 'latin1');
  } else if (kind === 'u16') {
    view.setUint16(at, Number(value), true);
  } else if (kind === 'u32') {
    view.setUint32(at, Number(value), true);
  } else if (kind === 'i32') {
    view.setInt32(at, Number(value), true);
  } else {
    view.setBigInt64(at, BigInt.asIntN(64, BigInt(value)), true);
  }
}
