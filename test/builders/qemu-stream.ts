/**
 * QEMU migration streams out of a listing; written from QEMU's migration/savevm.c and migration/ram.c, sharing nothing
 * with src/.
 *
 *     version 3                     default 3
 *     machine pc-q35-7.2            default pc-i440fx-7.2; `machine -`: no configuration, as before 2.4
 *     capability mapped-ram         in the configuration; with mapped-ram, pages go to their places in the file
 *     configuration NAME 0000000c   another part of the configuration, body in hex
 *     prefix 100                    mapped-ram: what the offsets count too much (a libvirt header before the stream)
 *     low 0x4000                    memory below 4 GiB; default: all
 *     block vga.vram 0x4000         a RAM block; default: pc.ram, as large as the pages need
 *     pages 0x1000 AB.-c            by letter from a physical address on; `.` zero page, `-` nothing
 *     packed 0x1000 AB              the same, as COMPRESS_PAGE
 *     fill 0x1000 7f                a page of one byte
 *     stale 0x1000 A                mapped-ram: bytes in the file, bit not set
 *     in vga.vram                   pages from here on belong to that block; addresses are offsets then; `in -`: no more
 *     part                          a new part of the RAM section from here on
 *     word 40 00ff                  a word of the RAM section with these flags and offset 0, then these bytes
 *     command 11 00                 behind the RAM
 *     start block 1 00              an iterable section with its body, before the RAM
 *     early virtio-mem 0 1 0011     a device before the RAM: name, instance, version, body
 *     device timer 0 2 00112233     behind the RAM
 *     cpu 0 regs=1,2,3 rip=0xffff…  x86-64's "cpu" section, version 12: fields of CPU_FIELDS by their last word
 *     arm-cpu 0 xregs=1,2 pc=5 cpsr=0x3c5
 *     cmos 0x34=0xff                the clock's 128 bytes of CMOS
 *     vmcoreinfo 0x1000 3262        where the guest says its note is
 *     nojson                        no description behind it
 *     json devices=1 …              that text instead of the description
 *     lie cpu 8                     the description says that many bytes more of that device
 *     noend                         no end part of the RAM section
 *     tail 00                       bytes behind all
 */

import zlib from 'node:zlib';
import { pageOf } from './page-content.js';

const PAGE = 4096;
const FOUR_GIB = 2 ** 32;

export interface BuiltStream {
  readonly bytes: Buffer;
  /** File offsets that a cut may fall on: name → offset. */
  readonly borders: Readonly<Record<string, number>>;
}

interface PageRecord {
  readonly block: string;
  readonly offset: number;
  readonly letter: string;
  readonly kind: 'pages' | 'packed' | 'fill' | 'stale';
}

type RamRecord = PageRecord | { readonly raw: Buffer } | 'part';

interface DeviceField {
  readonly name: string;
  readonly size: number;
  readonly count: number;
  readonly bytes: Buffer;
}

interface Device {
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  readonly fields: readonly DeviceField[];
}

interface Listing {
  version: number;
  machine: string;
  prefix: number;
  low: number;
  readonly capabilities: string[];
  readonly configuration: Buffer[];
  readonly blocks: Map<string, number>;
  readonly ram: RamRecord[];
  readonly early: Device[];
  readonly starts: Buffer[];
  readonly commands: Buffer[];
  readonly devices: Device[];
  readonly lies: Map<string, number>;
  json: string | undefined;
  hasJson: boolean;
  hasEnd: boolean;
  tail: Buffer;
}

const u8 = (value: number) => Buffer.of(value & 0xff);
const u16 = (value: number) => numberOf(BigInt(value), 2);
const u32 = (value: number) => numberOf(BigInt(value), 4);
const u64 = (value: number | bigint) => numberOf(BigInt(value), 8);
const string = (text: string) => Buffer.concat([u8(text.length), Buffer.from(text, 'latin1')]);

function numberOf(value: bigint, size: number): Buffer {
  const hex = BigInt.asUintN(size * 8, value).toString(16);
  return Buffer.from(hex.padStart(size * 2, '0'), 'hex');
}

/** vmstate_x86_cpu's fields up to kernelgsbase: name, bytes of one, how many. */
const CPU_FIELDS: readonly (readonly [string, number, number])[] = [
  ['env.regs', 8, 16],
  ['env.eip', 8, 1],
  ['env.eflags', 8, 1],
  ['env.hflags', 4, 1],
  ['env.fpuc', 2, 1],
  ['env.fpus_vmstate', 2, 1],
  ['env.fptag_vmstate', 2, 1],
  ['env.fpregs_format_vmstate', 2, 1],
  ['env.fpregs', 10, 8],
  ['env.segs', 20, 6],
  ['env.ldt', 20, 1],
  ['env.tr', 20, 1],
  ['env.gdt', 20, 1],
  ['env.idt', 20, 1],
  ['env.sysenter_cs', 4, 1],
  ['env.sysenter_esp', 8, 1],
  ['env.sysenter_eip', 8, 1],
  ['env.cr[0]', 8, 1],
  ['env.cr[2]', 8, 1],
  ['env.cr[3]', 8, 1],
  ['env.cr[4]', 8, 1],
  ['env.dr', 8, 8],
  ['env.a20_mask', 4, 1],
  ['env.mxcsr', 4, 1],
  ['env.xmm_regs[0]', 16, 16],
  ['env.efer', 8, 1],
  ['env.star', 8, 1],
  ['env.lstar', 8, 1],
  ['env.cstar', 8, 1],
  ['env.fmask', 8, 1],
  ['env.kernelgsbase', 8, 1],
  ['env.smbase', 4, 1],
  ['env.pat', 8, 1],
  ['env.hflags2', 4, 1],
];

const ARM_FIELDS: readonly (readonly [string, number, number])[] = [
  ['env.regs', 4, 16],
  ['env.xregs', 8, 32],
  ['env.pc', 8, 1],
  ['cpsr', 4, 1],
  ['env.spsr', 4, 1],
];

export function buildStream(text: string): BuiltStream {
  const listing = parse(text);
  const parts: Buffer[] = [];
  const borders: Record<string, number> = {};
  const at = () => parts.reduce((sum, part) => sum + part.length, 0);
  parts.push(Buffer.from('QEVM'), u32(listing.version));
  if (listing.machine !== '-') parts.push(configurationOf(listing));
  borders.configuration = at();
  let id = 10;
  for (const device of listing.early) parts.push(sectionOf(id++, device));
  for (const start of listing.starts) parts.push(u8(1), u32(id++), start);
  writeRam(listing, parts, borders, at);
  parts.push(...listing.commands);
  borders.devices = at();
  for (const device of listing.devices) parts.push(sectionOf(id++, device));
  borders.eof = at();
  parts.push(u8(0));
  borders.description = at();
  if (listing.hasJson) {
    const json = Buffer.from(listing.json ?? jsonOf(listing), 'latin1');
    parts.push(u8(6), u32(json.length), json);
  }
  borders.all = at();
  parts.push(listing.tail);
  return { bytes: Buffer.concat(parts), borders };
}

function configurationOf({ machine, capabilities, configuration }: Listing): Buffer {
  const list = [u32(capabilities.length), ...capabilities.map(string)];
  return Buffer.concat([
    u8(7),
    u32(machine.length),
    Buffer.from(machine, 'latin1'),
    ...(capabilities.length === 0 ? [] : [u8(5), string('configuration/capabilities'), u32(1), ...list]),
    ...configuration,
  ]);
}

const sectionOf = (id: number, { name, instance, version, fields }: Device) =>
  Buffer.concat([
    u8(4),
    u32(id),
    string(name),
    u32(instance),
    u32(version),
    ...fields.map(({ bytes }) => bytes),
    u8(0x7e),
    u32(id),
  ]);

/** The RAM section's id is 2, as QEMU's usually is. */
function writeRam(listing: Listing, parts: Buffer[], borders: Record<string, number>, at: () => number): void {
  const footer = Buffer.concat([u8(0x7e), u32(2)]);
  const end = Buffer.concat([u64(0x10), footer]);
  const total = [...listing.blocks.values()].reduce((sum, size) => sum + size, 0);
  parts.push(u8(1), u32(2), string('ram'), u32(0), u32(4), u64(BigInt(total) | 4n));
  const isMapped = listing.capabilities.includes('mapped-ram');
  for (const [name, size] of listing.blocks) {
    parts.push(string(name), u64(size));
    if (isMapped) parts.push(mappedBlock(listing, name, size, at()));
  }
  parts.push(end);
  borders.blocks = at();
  parts.push(u8(2), u32(2));
  let block = '';
  for (const record of listing.ram) {
    if (record === 'part') parts.push(end, u8(2), u32(2));
    else if ('raw' in record) parts.push(record.raw);
    else if (!isMapped) {
      parts.push(pageRecord(record, record.block === block));
      block = record.block;
    }
  }
  borders.pages = at();
  parts.push(end);
  if (listing.hasEnd) parts.push(u8(3), u32(2), end);
}

function pageRecord({ block, offset, letter, kind }: PageRecord, sameBlock: boolean): Buffer {
  const page = pageOf(letter);
  const flag = kind === 'packed' ? 0x100 : kind === 'fill' || letter === '.' ? 2 : 8;
  const head = [u64(BigInt(offset) | BigInt(flag | (sameBlock ? 0x20 : 0))), ...(sameBlock ? [] : [string(block)])];
  if (flag === 2) return Buffer.concat([...head, u8(letter === '.' ? 0 : Number.parseInt(letter, 16))]);
  if (flag === 8) return Buffer.concat([...head, page]);
  const packed = zlib.deflateSync(page);
  return Buffer.concat([...head, u32(packed.length), packed]);
}

/** Header, bitmap, hole up to the next MiB, pages. */
function mappedBlock({ ram, prefix }: Listing, name: string, size: number, at: number): Buffer {
  const bitmap = Buffer.alloc(Math.ceil(size / PAGE / 64) * 8);
  const bitmapAt = prefix + at + 28;
  const pagesAt = Math.ceil((bitmapAt + bitmap.length) / 2 ** 20) * 2 ** 20;
  const pages = Buffer.alloc(size);
  for (const record of ram) {
    if (record === 'part' || 'raw' in record || record.block !== name) continue;
    const number = record.offset / PAGE;
    const isSet = record.letter !== '.' && record.kind !== 'stale';
    if (record.letter !== '.') pageOf(record.letter).copy(pages, record.offset);
    const byte = bitmap[number >> 3]!;
    bitmap[number >> 3] = isSet ? byte | (1 << (number & 7)) : byte & ~(1 << (number & 7));
  }
  const header = Buffer.concat([u32(1), u64(PAGE), u64(bitmapAt), u64(pagesAt)]);
  return Buffer.concat([header, bitmap, Buffer.alloc(pagesAt - bitmapAt - bitmap.length), pages]);
}

function jsonOf({ early, devices, lies }: Listing): string {
  const described = [...early, ...devices].map(({ name, instance, version, fields }) => {
    const lie = lies.get(name) ?? 0;
    const list = fields.map((field) => ({
      name: field.name,
      ...(field.count === 1 ? {} : { array_len: field.count }),
      type: 'buffer',
      size: field.size,
    }));
    if (lie > 0) list.push({ name: 'lie', type: 'buffer', size: lie });
    return { name, instance_id: instance, vmsd_name: name, version, fields: list };
  });
  return JSON.stringify({ page_size: PAGE, devices: described });
}

function parse(text: string): Listing {
  const listing: Listing = {
    version: 3,
    machine: 'pc-i440fx-7.2',
    prefix: 0,
    low: FOUR_GIB,
    capabilities: [],
    configuration: [],
    blocks: new Map(),
    ram: [],
    early: [],
    starts: [],
    commands: [],
    devices: [],
    lies: new Map(),
    json: undefined,
    hasJson: true,
    hasEnd: true,
    tail: Buffer.alloc(0),
  };
  let block: string | undefined;
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [word = '', ...rest] = line.split(' ').filter((part) => part !== '');
    if (word === '' || word.startsWith('#')) continue;
    if (word === 'in') block = rest[0] === '-' ? undefined : rest[0]!;
    else if (['pages', 'packed', 'fill', 'stale'].includes(word)) addPages(listing, word, rest, block);
    else applyLine(listing, word, rest);
  }
  if (listing.blocks.size === 0) listing.blocks.set('pc.ram', neededBytes(listing));
  return listing;
}

function neededBytes({ ram }: Listing): number {
  return ram.reduce((most, one) => (one !== 'part' && 'offset' in one ? Math.max(most, one.offset + PAGE) : most), 0);
}

function addPages(listing: Listing, word: string, [address = '0', letters = '']: string[], block?: string): void {
  const kind = word as PageRecord['kind'];
  let at = Number(address);
  const place = () => (block !== undefined || at < FOUR_GIB ? at : listing.low + at - FOUR_GIB);
  const [first = 'pc.ram'] = listing.blocks.keys();
  const name = block ?? (listing.blocks.has('pc.ram') ? 'pc.ram' : first);
  for (const letter of kind === 'fill' ? [letters] : letters) {
    if (letter !== '-') listing.ram.push({ block: name, offset: place(), letter, kind });
    at += PAGE;
  }
}

function applyLine(listing: Listing, word: string, rest: string[]): void {
  const [first = '', second = '', third = '', fourth = ''] = rest;
  const hex = (value: string) => Buffer.from(value, 'hex');
  if (word === 'version') listing.version = Number(first);
  else if (word === 'machine') listing.machine = first;
  else if (word === 'prefix') listing.prefix = Number(first);
  else if (word === 'low') listing.low = Number(first);
  else if (word === 'capability') listing.capabilities.push(first);
  else if (word === 'configuration')
    listing.configuration.push(Buffer.concat([u8(5), string(first), u32(1), hex(second)]));
  else if (word === 'block') listing.blocks.set(first, Number(second));
  else if (word === 'part') listing.ram.push('part');
  else if (word === 'word') listing.ram.push({ raw: Buffer.concat([u64(BigInt(`0x${first}`)), hex(second)]) });
  else if (word === 'command')
    listing.commands.push(Buffer.concat([u8(8), u16(Number(first)), u16(second.length / 2), hex(second)]));
  else if (word === 'start')
    listing.starts.push(Buffer.concat([string(first), u32(0), u32(Number(second)), hex(third)]));
  else if (word === 'early' || word === 'device') {
    const bytes = hex(fourth);
    const fields = [{ name: 'all', size: bytes.length, count: 1, bytes }];
    const device = { name: first, instance: Number(second), version: Number(third), fields };
    (word === 'early' ? listing.early : listing.devices).push(device);
  } else if (word === 'vmcoreinfo') listing.devices.push(vmcoreinfoOf(Number(first), Number(second)));
  else if (word === 'cpu') listing.devices.push(cpuOf(CPU_FIELDS, 12, rest));
  else if (word === 'arm-cpu') listing.devices.push(cpuOf(ARM_FIELDS, 22, rest));
  else if (word === 'cmos') listing.devices.push(cmosOf(rest));
  else if (word === 'nojson') listing.hasJson = false;
  else if (word === 'json') listing.json = rest.join(' ');
  else if (word === 'lie') listing.lies.set(first, Number(second));
  else if (word === 'noend') listing.hasEnd = false;
  else if (word === 'tail') listing.tail = hex(first);
  else throw new Error(`unknown word in listing: ${word}`);
}

/** `NAME=a,b,c`: values of a field, by the last word of its name; segments as selector:base:limit:flags. */
function cpuOf(shape: readonly (readonly [string, number, number])[], version: number, rest: string[]): Device {
  const values = new Map(rest.slice(1).map((text) => text.split('=') as [string, string]));
  const fields = shape.map(([name, size, count]) => {
    const given = (values.get(name.replace('env.', '')) ?? '').split(',');
    const bytes = Array.from({ length: count }, (_, i) => fieldValue(given[i] ?? '', size));
    return { name, size, count, bytes: Buffer.concat(bytes) };
  });
  return { name: 'cpu', instance: Number(rest[0]), version, fields };
}

function fieldValue(text: string, size: number): Buffer {
  if (!text.includes(':')) return numberOf(BigInt(text || 0), size);
  const [selector = '0', base = '0', limit = '0', flags = '0'] = text.split(':');
  return Buffer.concat([u32(Number(selector)), u64(BigInt(base)), u32(Number(limit)), u32(Number(flags))]);
}

function cmosOf(rest: string[]): Device {
  const bytes = Buffer.alloc(128);
  for (const text of rest) {
    const [place = '0', value = '0'] = text.split('=');
    bytes[Number(place)] = Number(value);
  }
  const index = { name: 'cmos_index', size: 1, count: 1, bytes: u8(0) };
  const data = { name: 'cmos_data', size: 128, count: 1, bytes };
  return { name: 'mc146818rtc', instance: 0, version: 3, fields: [data, index] };
}

/** The guest's note: address and size. */
function vmcoreinfoOf(address: number, size: number): Device {
  const field = (name: string, bytes: Buffer) => ({ name, size: bytes.length, count: 1, bytes });
  return {
    name: 'vmcoreinfo',
    instance: 0,
    version: 1,
    fields: [
      field('has_vmcoreinfo', u8(1)),
      field('vmcoreinfo.host_format', u16(1)),
      field('vmcoreinfo.guest_format', u16(1)),
      field('vmcoreinfo.size', u32(size)),
      field('vmcoreinfo.paddr', u64(address)),
    ],
  };
}
