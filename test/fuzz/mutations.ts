/**
 * Damage that knows where structures are: fields of every width and byte order around the borders of a file, counts in text, cuts, splices.
 * Each damaged file follows from its seed and number alone.
 */

import { pageOf } from '../builders/page-content.js';

export type Random = (below: number) => number;

/** xorshift32, started apart for each number. */
export function randomOf(seed: number, run: number): Random {
  let state = (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(run + 1, 0xc2b2ae35)) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % Math.max(1, below);
  };
}

/** What a file looks like to the mutations. */
export interface Anatomy {
  readonly bytes: Buffer;
  /** Where parts begin. */
  readonly borders: readonly number[];
  /** Offsets of bytes that are neither zero nor of a page: headers, tables, text. */
  readonly structure: Uint32Array;
}

const LETTERS = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'];

export function anatomyOf(bytes: Buffer, known: readonly number[]): Anatomy {
  const isPage = new Uint8Array(bytes.length);
  const borders = new Set([0, bytes.length, ...known.filter((at) => at >= 0 && at <= bytes.length)]);
  for (const letter of LETTERS) {
    const page = pageOf(letter);
    for (let at = bytes.indexOf(page); at >= 0; at = bytes.indexOf(page, at + page.length)) {
      isPage.fill(1, at, at + page.length);
      borders.add(at).add(at + page.length);
    }
  }
  const structure: number[] = [];
  for (let at = 0; at < bytes.length; at++) if (bytes[at] !== 0 && isPage[at] === 0) structure.push(at);
  return { bytes, borders: [...borders].sort((a, b) => a - b), structure: Uint32Array.from(structure) };
}

const EDGES = [
  0n,
  1n,
  2n,
  7n,
  8n,
  12n,
  0x7fn,
  0x80n,
  0xffn,
  0xfffn,
  0x1000n,
  0xffffn,
  0x10000n,
  0x7fffffffn,
  0x80000000n,
];
const LARGE = [
  0xffffffffn,
  1n << 32n,
  (1n << 40n) + 0x1000n,
  (1n << 52n) - 1n,
  1n << 53n,
  (1n << 62n) - 4096n,
  1n << 63n,
  (1n << 64n) - 1n,
];

/** One to four damages. `others`: bytes to splice in. */
export function damaged(file: Anatomy, others: readonly Buffer[], random: Random): Buffer {
  let bytes: Buffer = Buffer.from(file.bytes);
  const edits = random(3) === 0 ? 2 + random(3) : 1;
  for (let i = 0; i < edits && bytes.length > 0; i++) bytes = damageOnce(bytes, file, others, random);
  return bytes;
}

function damageOnce(bytes: Buffer, file: Anatomy, others: readonly Buffer[], random: Random): Buffer {
  switch (random(14)) {
    case 0:
      return bytes.subarray(0, cutOf(bytes, file, random));
    case 1:
      return spliced(bytes, others, placeOf(bytes, file, random), random);
    case 2:
      return shifted(bytes, placeOf(bytes, file, random), random);
    case 3:
      bytes.copy(bytes, placeOf(bytes, file, random), placeOf(bytes, file, random), bytes.length);
      return bytes;
    case 4:
    case 5: {
      const at = Math.min(placeOf(bytes, file, random), bytes.length - 1);
      bytes[at] = bytes[at]! ^ (1 << random(8));
      return bytes;
    }
    case 6:
      return withOtherNumber(bytes, placeOf(bytes, file, random), random);
    default:
      setField(bytes, placeOf(bytes, file, random), random);
      return bytes;
  }
}

/** Mostly near a border or where something stands. */
function placeOf(bytes: Buffer, { borders, structure }: Anatomy, random: Random): number {
  const kind = random(8);
  const at =
    kind < 3
      ? borders[random(borders.length)]! + 4 * random(32)
      : kind < 7 && structure.length > 0
        ? structure[random(structure.length)]!
        : random(bytes.length);
  return Math.min(at, bytes.length);
}

function cutOf(bytes: Buffer, { borders }: Anatomy, random: Random): number {
  if (random(3) === 0) return random(bytes.length);
  return Math.min(bytes.length, Math.max(0, borders[random(borders.length)]! + random(3) - 1));
}

function setField(bytes: Buffer, place: number, random: Random): void {
  const width = [1, 2, 4, 4, 8, 8][random(6)]!;
  const aligned = random(4) === 0 ? place : place - (place % width);
  const at = Math.min(aligned, bytes.length - width);
  if (at < 0) return;
  const littleEndian = random(4) !== 0;
  const present = readField(bytes, at, width, littleEndian);
  writeField(bytes, at, width, littleEndian, valueFor(bytes, present, random));
}

function valueFor(bytes: Buffer, present: bigint, random: Random): bigint {
  switch (random(6)) {
    case 0:
      return LARGE[random(LARGE.length)]!;
    case 1:
      return present + BigInt(random(3) - 1 || 2);
    case 2:
      return present << BigInt(1 + random(40));
    case 3:
      return BigInt(bytes.length) + BigInt(random(17) - 8);
    case 4:
      return -present - BigInt(random(2));
    default:
      return EDGES[random(EDGES.length)]!;
  }
}

function readField(bytes: Buffer, at: number, width: number, littleEndian: boolean): bigint {
  const part = Buffer.from(bytes.subarray(at, at + width));
  return BigInt(`0x${(littleEndian ? part.reverse() : part).toString('hex')}`);
}

function writeField(bytes: Buffer, at: number, width: number, littleEndian: boolean, value: bigint): void {
  const hex = BigInt.asUintN(8 * width, value)
    .toString(16)
    .padStart(2 * width, '0');
  const part = Buffer.from(hex, 'hex');
  bytes.set(littleEndian ? part.reverse() : part, at);
}

/** A piece of this or another file over or between what is there. */
function spliced(bytes: Buffer, others: readonly Buffer[], at: number, random: Random): Buffer {
  const source = random(2) === 0 ? bytes : others[random(others.length)]!;
  const from = random(source.length);
  const piece = source.subarray(from, from + 1 + random([16, 300, 5000][random(3)]!));
  if (random(2) === 0) return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + piece.length)]);
}

/** All that follows moves up or down. */
function shifted(bytes: Buffer, at: number, random: Random): Buffer {
  const by = 1 + random([8, 64, 4096][random(3)]!);
  if (random(2) === 0) return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + by)]);
  return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(by, random(2) === 0 ? 0 : 0xff), bytes.subarray(at)]);
}

const NUMBERS = [
  '',
  '0',
  '-1',
  '4294967296',
  '9007199254740993',
  '99999999999999999999',
  '1e308',
  'x',
  '[[[[',
  '{"a":',
  '</a>',
];

/** Of a number written in digits (JSON, XML, notes) some other one. */
function withOtherNumber(bytes: Buffer, place: number, random: Random): Buffer {
  const isDigit = (at: number) => (bytes[at] ?? 0) >= 0x30 && (bytes[at] ?? 0) <= 0x39;
  let first = place;
  while (first < bytes.length && first < place + 400 && !isDigit(first)) first++;
  let end = first;
  while (isDigit(end)) end++;
  const text = Buffer.from(NUMBERS[random(NUMBERS.length)]!, 'latin1');
  return Buffer.concat([bytes.subarray(0, first), text, bytes.subarray(end)]);
}
