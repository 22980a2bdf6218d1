/**
 * VMware's files out of a listing, one line a thing; written from what crash and volatility read, sharing nothing with
 * src/.
 *
 *     magic 0xbed2bed2             default
 *     narrow                       32-bit block sizes (with magic 0xbed2bed0)
 *     product VMware ESX           ProductName; and `product-version 7.0.3`
 *     memsize 8                    Checkpoint/memSize in MiB
 *     cpus 2                       cpu:numVCPUs
 *     value rip 0 =8 0xffff        a tag of the cpu group: name, indices, =bytes, value
 *     block gpregs 0 16 32         a block of the cpu group: name, index, 64-bit words; `block10`: 2 + 8 bytes
 *     regions 2                    regionsCount; left out: no such tag
 *     region 0 0x100 0 4           number, guest page, page in the memory, pages
 *     memory-value NAME 4 7        a further value of the memory group: name, bytes, value
 *     pages 0 Ab.c                 memory's contents by letter, from that page of the memory on
 *     inside                       memory in the state file; default: in the .vmem
 *     compressed                   the memory's block says that it is compressed
 *     pad 100                      padding before the memory (0)
 *     behind                       groups Checkpoint and cpu stand behind the memory
 *     group NAME                   a further group with nothing in it; twice the same name: two of them
 *     # a remark
 */

import { pageOf } from './page-content.js';

export interface BuiltVmware {
  readonly state: Buffer;
  /** Empty where memory is inside. */
  readonly vmem: Buffer;
  /** File offsets of the state that a cut may fall on, and where to damage it: name → offset. */
  readonly borders: Readonly<Record<string, number>>;
}

interface Listing {
  readonly values: Map<string, string>;
  readonly cpuTags: Buffer[];
  readonly memoryTags: Buffer[];
  readonly pages: { readonly page: number; readonly letters: string }[];
  readonly groups: string[];
}

export function buildVmware(text: string): BuiltVmware {
  const { values, cpuTags, memoryTags, pages, groups: more } = parse(text);
  const isNarrow = values.has('narrow');
  const memory = memoryOf(pages);
  const checkpoint = Buffer.concat([
    ...(values.has('product') ? [textBlock('ProductName', values.get('product')!, isNarrow)] : []),
    ...(values.has('product-version') ? [textBlock('VersionNumber', values.get('product-version')!, isNarrow)] : []),
    ...(values.has('memsize') ? [valueTag('memSize', [], 4, BigInt(values.get('memsize')!))] : []),
    END,
  ]);
  const cpus = values.get('cpus');
  const cpuCount = cpus === undefined ? [] : [valueTag('cpu:numVCPUs', [], 4, BigInt(cpus))];
  const cpu = Buffer.concat([...cpuCount, ...cpuTags, END]);
  const memoryHead = Buffer.concat(memoryTags);
  const block = values.has('inside')
    ? blockHead('Memory', [0, 0], memory.length, Number(values.get('pad') ?? 0), isNarrow, values.has('compressed'))
    : Buffer.alloc(0);
  const memoryGroup = [memoryHead, block, ...(values.has('inside') ? [memory] : []), END];

  const first = [
    { name: 'Checkpoint', bytes: checkpoint },
    { name: 'cpu', bytes: cpu },
  ];
  const ours = { name: 'memory', bytes: Buffer.concat(memoryGroup) };
  const order = values.has('behind') ? [ours, ...first] : [...first, ours];
  const all = [...order, ...more.map((name) => ({ name, bytes: END }))];
  const table = Buffer.alloc(12 + 80 * all.length);
  table.writeUInt32LE(Number(values.get('magic') ?? 0xbed2bed2), 0);
  table.writeUInt32LE(8, 4);
  table.writeUInt32LE(all.length, 8);
  const borders: Record<string, number> = { header: 12, table: table.length };
  let at = table.length;
  for (const [i, { name, bytes }] of all.entries()) {
    table.write(name, 12 + 80 * i, 'latin1');
    table.writeBigUInt64LE(BigInt(at), 12 + 80 * i + 64);
    table.writeBigUInt64LE(BigInt(bytes.length), 12 + 80 * i + 72);
    borders[`entry:${name}`] ??= 12 + 80 * i;
    borders[name] ??= at;
    if (name === 'memory') {
      borders.block = at + memoryHead.length;
      borders.data = borders.block + block.length;
    }
    at += bytes.length;
  }
  borders.all = at;
  const state = Buffer.concat([table, ...all.map(({ bytes }) => bytes)]);
  return { state, vmem: values.has('inside') ? Buffer.alloc(0) : memory, borders };
}

const END = Buffer.alloc(2);

function parse(text: string): Listing {
  const listing: Listing = { values: new Map(), cpuTags: [], memoryTags: [], pages: [], groups: [] };
  let isNarrow = false;
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    const [word = '', ...rest] = line.split(' ').filter((part) => part !== '');
    if (word === '' || word.startsWith('#')) continue;
    const numbers = rest.map((part) => Number(part));
    if (word === 'narrow') isNarrow = true;
    if (word === 'value') listing.cpuTags.push(cpuValue(rest));
    else if (word === 'block' || word === 'block10') listing.cpuTags.push(cpuBlock(word, rest, isNarrow));
    else if (word === 'regions') listing.memoryTags.push(valueTag('regionsCount', [], 4, BigInt(rest[0]!)));
    else if (word === 'region') {
      const [index = 0, ppn = 0, page = 0, pages = 0] = numbers;
      listing.memoryTags.push(valueTag('regionPageNum', [index], 4, BigInt(page)));
      listing.memoryTags.push(valueTag('regionPPN', [index], 4, BigInt(ppn)));
      listing.memoryTags.push(valueTag('regionSize', [index], 4, BigInt(pages)));
    } else if (word === 'memory-value') {
      listing.memoryTags.push(valueTag(rest[0]!, [], numbers[1]!, BigInt(rest[2]!)));
    } else if (word === 'pages') listing.pages.push({ page: numbers[0]!, letters: rest[1]! });
    else if (word === 'group') listing.groups.push(rest[0]!);
    else listing.values.set(word, rest.join(' '));
  }
  return listing;
}

function memoryOf(pieces: Listing['pages']): Buffer {
  const count = Math.max(0, ...pieces.map(({ page, letters }) => page + letters.length));
  const memory = Buffer.alloc(count * 4096);
  for (const { page, letters } of pieces) {
    for (const [i, letter] of [...letters].entries()) pageOf(letter).copy(memory, (page + i) * 4096);
  }
  return memory;
}

function cpuValue([name = '', ...rest]: string[]): Buffer {
  const at = rest.findIndex((part) => part.startsWith('='));
  return valueTag(name, rest.slice(0, at).map(Number), Number(rest[at]!.slice(1)), BigInt(rest[at + 1]!));
}

function cpuBlock(word: string, [name = '', index = '0', ...words]: string[], isNarrow: boolean): Buffer {
  const data = Buffer.alloc(word === 'block10' ? 10 : 8 * words.length);
  if (word === 'block10') data.writeUInt16LE(Number(words[0]), 0);
  for (const [i, value] of (word === 'block10' ? words.slice(1) : words).entries()) {
    data.writeBigUInt64LE(BigInt(value), (word === 'block10' ? 2 : 0) + 8 * i);
  }
  return Buffer.concat([blockHead(name, [Number(index)], data.length, 3, isNarrow), data]);
}

function textBlock(name: string, text: string, isNarrow: boolean): Buffer {
  const data = Buffer.alloc(256);
  data.write(text, 'latin1');
  return Buffer.concat([blockHead(name, [], data.length, 0, isNarrow), data]);
}

export function tagHead(name: string, indices: readonly number[], size: number): Buffer {
  const head = Buffer.alloc(2 + name.length + 4 * indices.length);
  head[0] = (indices.length << 6) | size;
  head[1] = name.length;
  head.write(name, 2, 'latin1');
  for (const [i, index] of indices.entries()) head.writeUInt32LE(index, 2 + name.length + 4 * i);
  return head;
}

function valueTag(name: string, indices: readonly number[], size: number, value: bigint): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return Buffer.concat([tagHead(name, indices, size), bytes]);
}

function blockHead(
  name: string,
  indices: readonly number[],
  size: number,
  padding: number,
  isNarrow: boolean,
  isCompressed = false,
): Buffer {
  const sizes = Buffer.alloc((isNarrow ? 10 : 18) + padding, 0xaa);
  if (isNarrow) {
    sizes.writeUInt32LE(size, 0);
    sizes.writeUInt32LE(size, 4);
  } else {
    sizes.writeBigUInt64LE(BigInt(size), 0);
    sizes.writeBigUInt64LE(BigInt(size), 8);
  }
  sizes.writeUInt16LE(padding, isNarrow ? 8 : 16);
  return Buffer.concat([tagHead(name, indices, isCompressed ? 62 : 63), sizes]);
}

/**
 * debug.guest out of a listing; its memory is built with `pages` as above.
 *
 *     version 4                    1 and 3 to 7
 *     last 0xffff                  last address; default: what pages and holes add up to
 *     hole 2 5                     first guest page of a hole, pages
 *     cpu cr0=0x80050033 cr3=0x1000 rip=0xffff   a vCPU; what is left out is zero
 *     apart                        the reserved page stands behind each vCPU, not behind all of them
 *     arm                          version 7's architecture
 */
export function buildGuestDump(text: string): BuiltVmware {
  const lines = text
    .split('\n')
    .map((line) => line.trim().split(' '))
    .filter(([word = '']) => word !== '' && !word.startsWith('#'));
  const one = (word: string) => lines.find(([first]) => first === word);
  const all = (word: string) => lines.filter(([first]) => first === word).map(([, ...rest]) => rest);
  const version = Number(one('version')?.[1] ?? 4);
  const vmem = memoryOf(all('pages').map(([page, letters]) => ({ page: Number(page), letters: letters! })));
  const holes = all('hole').map((pair) => pair.map(Number));
  const pages = vmem.length / 4096;
  const last = Number(one('last')?.[1] ?? (pages + holes.reduce((sum, [, size = 0]) => sum + size, 0)) * 4096 - 1);
  const cpus = all('cpu').map((fields) =>
    guestCpu(version, new Map(fields.map((f) => f.split('=') as [string, string]))),
  );
  const head = Buffer.concat([
    words(4, version, cpus.length),
    Buffer.alloc({ 1: 13, 6: 15, 7: 8 }[version] ?? 14, 1).fill(0, 1),
    version === 1 ? memoryOfGuestV1(last, pages, holes) : memoryOfGuest(last, pages, holes),
    version === 7 ? Buffer.concat([words(4, one('arm') === undefined ? 1 : 0), Buffer.alloc(7)]) : Buffer.alloc(0),
  ]);
  const reserved = Buffer.alloc(4096);
  const states =
    one('apart') === undefined ? [...cpus, ...cpus.map(() => reserved)] : cpus.flatMap((c) => [c, reserved]);
  const state = Buffer.concat([head, ...states]);
  return {
    state,
    vmem,
    borders: { header: 8, cpus: head.length, cpu1: head.length + (cpus[0]?.length ?? 0), all: state.length },
  };
}

function memoryOfGuest(last: number, pages: number, holes: readonly number[][]): Buffer {
  const pairs = [0, 1].flatMap((i) => holes[i] ?? [0, 0]);
  return Buffer.concat([words(8, last, pages), words(4, 0, holes.length), words(8, ...pairs)]);
}

function memoryOfGuestV1(last: number, pages: number, holes: readonly number[][]): Buffer {
  const pairs = [0, 1].flatMap((i) => holes[i] ?? [0, 0]);
  return Buffer.concat([
    words(8, last),
    words(4, pages, 0, holes.length, ...pairs),
    Buffer.alloc(4 + 8 * holes.length),
  ]);
}

function words(size: 4 | 8, ...values: readonly (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(size * values.length);
  for (const [i, value] of values.entries()) {
    if (size === 4) bytes.writeUInt32LE(Number(value), 4 * i);
    else bytes.writeBigUInt64LE(BigInt(value), 8 * i);
  }
  return bytes;
}

const PT_REGS =
  'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig rip cs rflags rsp ss fs_base gs_base ds es fs gs';

function guestCpu(version: number, fields: ReadonlyMap<string, string>): Buffer {
  const value = (name: string) => BigInt(fields.get(name) ?? 0);
  return Buffer.concat([
    words(4, value('cr0')),
    words(8, value('cr2'), value('cr3'), value('cr4')),
    Buffer.alloc(80, 0xbb),
    words(8, value('idt')),
    Buffer.alloc(version < 4 ? 45 : 42, 0xcc),
    words(8, ...PT_REGS.split(' ').map(value)),
    Buffer.alloc(17, 0xdd),
  ]);
}
