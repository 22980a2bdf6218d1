/** The JSON text behind a stream that says which fields each device's section has. */

import { type ByteSource, readExact } from '../byte-source.js';
import { MAX_DESCRIPTION_BYTES, Record as RecordType } from './layout.js';

/** Bytes [offset, offset + size × count) of a section's body. */
export interface FieldPlace {
  readonly offset: number;
  readonly size: number;
  readonly count: number;
}

export interface DescribedDevice {
  readonly name: string;
  readonly instance: number;
  /** Of the body, subsections included. */
  readonly sizeBytes: number;
  readonly fields: ReadonlyMap<string, FieldPlace>;
}

export interface Description {
  /** Where its record starts in the source. */
  readonly offset: number;
  find(name: string, instance: number): DescribedDevice | undefined;
}

/** Type byte, u32 length. */
const HEADER_BYTES = 5;
const FIRST_TAIL_BYTES = 256 << 10;
/** Structures in structures: QEMU nests three or four deep. */
const MAX_DEPTH = 32;

type Json = { readonly [key: string]: unknown };
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null;

/**
 * Looks for it at the end of the source. Undefined where there is none, or none that makes sense: old machine types
 * have none, and RAM can be read without.
 */
export function findDescription(source: ByteSource): Description | undefined {
  const most = Math.min(source.sizeBytes, MAX_DESCRIPTION_BYTES);
  for (let size = Math.min(most, FIRST_TAIL_BYTES); ; size = Math.min(most, size * 8)) {
    const base = source.sizeBytes - size;
    const tail = Buffer.from(readExact(source, base, size, 'the end of the stream').buffer);
    const at = recordIn(tail);
    if (at !== undefined) return parse(tail, at, base);
    if (size === most) return undefined;
  }
}

/** Place of the last record of this kind. The JSON text has no zero byte, so nothing in it looks like one. */
function recordIn(tail: Buffer): number | undefined {
  const mark = Buffer.of(RecordType.eof, RecordType.description);
  for (let at = tail.lastIndexOf(mark); at >= 0; at = at === 0 ? -1 : tail.lastIndexOf(mark, at - 1)) {
    const text = at + 1 + HEADER_BYTES;
    if (text < tail.length && tail[text] === 0x7b && text + tail.readUInt32BE(text - 4) <= tail.length) return at + 1;
  }
  return undefined;
}

function parse(tail: Buffer, at: number, base: number): Description | undefined {
  const text = at + HEADER_BYTES;
  const value = parsedJson(tail.toString('latin1', text, text + tail.readUInt32BE(at + 1)));
  if (!isObject(value) || !Array.isArray(value.devices)) return undefined;
  const devices = new Map<string, DescribedDevice>();
  for (const entry of value.devices) {
    const device = describedDevice(entry);
    if (device === undefined) return undefined;
    devices.set(`${device.instance} ${device.name}`, device);
  }
  return { offset: base + at, find: (name, instance) => devices.get(`${instance} ${name}`) };
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function describedDevice(entry: unknown): DescribedDevice | undefined {
  if (!isObject(entry) || typeof entry.name !== 'string' || typeof entry.instance_id !== 'number') return undefined;
  const fields = new Map<string, FieldPlace>();
  const sizeBytes = sizeOf(entry, 0, fields);
  if (!Number.isSafeInteger(sizeBytes)) return undefined;
  return { name: entry.name, instance: entry.instance_id, sizeBytes, fields };
}

/**
 * Bytes of a structure: its fields, then its subsections, each with type byte, name and u32 version before it. NaN where
 * the description makes no sense.
 * @param places gets the outermost fields
 */
function sizeOf(structure: Json, depth: number, places?: Map<string, FieldPlace>): number {
  if (depth > MAX_DEPTH) return Number.NaN;
  let total = 0;
  for (const field of listOf(structure.fields)) {
    const size = fieldSize(field, depth);
    const count = isObject(field) && field.array_len !== undefined ? count32(field.array_len) : 1;
    if (isObject(field) && typeof field.name === 'string') places?.set(field.name, { offset: total, size, count });
    total += size * count;
  }
  for (const subsection of listOf(structure.subsections)) {
    if (!isObject(subsection) || typeof subsection.vmsd_name !== 'string') return Number.NaN;
    total += 1 + 1 + subsection.vmsd_name.length + 4 + sizeOf(subsection, depth + 1);
  }
  return total;
}

function fieldSize(field: unknown, depth: number): number {
  if (!isObject(field)) return Number.NaN;
  if (field.size !== undefined) return count32(field.size);
  return isObject(field.struct) ? sizeOf(field.struct, depth + 1) : Number.NaN;
}

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

const count32 = (value: unknown): number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 32 ? value : Number.NaN;
