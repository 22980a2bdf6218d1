import type { Command } from 'commander';
import { ImageSession, MAX_READ_BYTES, type MemoryPiece, type MemorySpace } from '../engine/convert/examine.js';
import { VmcorralError } from '../model/errors.js';
import { parseAmount } from './amount.js';
import type { CliDeps } from './deps.js';
import { formatBytes } from './format.js';
import { addInputOptions, type InputFlags, openChoices, unpackProgress } from './input-options.js';
import { Interrupt } from './interrupt.js';
import { Progress } from './progress.js';

interface ReadFlags extends InputFlags {
  readonly virtual?: boolean;
  readonly raw?: boolean;
  readonly zeroFill?: boolean;
}

const DEFAULT_LENGTH = 256n;
const MAX_JSON_BYTES = 16n * 1024n * 1024n;
const BYTES_A_LINE = 16;

export function registerRead(program: Command, deps: CliDeps): void {
  const verb = program
    .command('read')
    .argument('<file>', 'an image or dump of any readable format')
    .argument('<address>', 'first byte: 0x… or decimal, K, M, G, T may follow')
    .argument('[length]', 'number of bytes, written the same way (default: 256)')
    .description('write guest memory as a hex dump or as it is')
    .option('--virtual', 'the address is a kernel virtual one: the guest’s page tables translate it')
    .option('--raw', 'the bytes themselves')
    .option('--zero-fill', 'what is not in the image reads as zero instead of failing')
    .action((file: string, address: string, length: string | undefined, flags: ReadFlags) =>
      runRead(file, address, length, flags, deps),
    )
    .addHelpText('after', HELP);
  addInputOptions(verb);
}

const HELP = `
Examples:
  $ vmcorral read web01.vmcore 0x100000 64
  $ vmcorral read web01.vmcore 0xffffffff81000000 4K --virtual
  $ vmcorral read core.elf 0 1M --raw --zero-fill > low.bin
`;

async function runRead(
  file: string,
  addressText: string,
  lengthText: string | undefined,
  flags: ReadFlags,
  deps: CliDeps,
): Promise<void> {
  const space: MemorySpace = flags.virtual === true ? 'virtual' : 'physical';
  const address = parseAmount(addressText, 'address');
  const length = lengthText === undefined ? DEFAULT_LENGTH : parseAmount(lengthText, 'length');
  checkRange(address, length, space);
  if (flags.raw === true && deps.io.json) throw new VmcorralError('USAGE', '--raw and --json exclude each other');
  if (flags.raw === true && deps.io.stdoutIsTerminal) {
    throw new VmcorralError('USAGE', '--raw would write guest memory to the terminal', {
      hint: 'redirect it to a file, or leave --raw out for a hex dump',
    });
  }
  const open = openChoices(flags);
  const interrupt = new Interrupt(deps.signals);
  const progress = new Progress(deps.io);
  const onUnpack = unpackProgress(progress, file);
  const session = new ImageSession(file, { signal: interrupt.first, open, onUnpack });
  try {
    const pieces = readPieces(session, { address, length, space, zeroFill: flags.zeroFill === true });
    if (deps.io.json) await printJson(pieces, { address, length, space }, deps);
    else await printPieces(pieces, flags.raw === true, space, deps);
  } finally {
    progress.close();
    interrupt.dispose();
    await session.close();
  }
}

function checkRange(address: bigint, length: bigint, space: MemorySpace): void {
  const limit = space === 'virtual' ? 1n << 64n : 1n << 52n;
  if (length === 0n) throw new VmcorralError('USAGE', 'a length of 0 reads nothing');
  if (address + length > limit) {
    throw new VmcorralError('USAGE', `${hex(address)} and ${length} bytes pass the end of ${space} memory`, {
      hint: space === 'physical' ? 'a kernel address needs --virtual' : 'shorten the length',
    });
  }
}

interface Wanted {
  readonly address: bigint;
  readonly length: bigint;
  readonly space: MemorySpace;
  readonly zeroFill: boolean;
}

interface Part {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** In pieces that end at multiples of their size, so that hex dump lines don't break. */
async function* readPieces(session: ImageSession, { address, length, space, zeroFill }: Wanted): AsyncGenerator<Part> {
  const end = address + length;
  for (let at = address; at < end; ) {
    const pieceEnd = (at / BigInt(MAX_READ_BYTES) + 1n) * BigInt(MAX_READ_BYTES);
    const piece = await session.read({ address: at, length: Number((pieceEnd < end ? pieceEnd : end) - at), space });
    if (!zeroFill) assertWhole(piece, space);
    yield { address: at, bytes: piece.bytes };
    at += BigInt(piece.bytes.length);
  }
}

function assertWhole({ missing }: MemoryPiece, space: MemorySpace): void {
  if (missing === undefined) return;
  const what = {
    absent: 'is not in the image',
    excluded: 'was left out of the dump on purpose',
    unmapped: 'is not mapped by the guest’s page tables',
  }[missing.why];
  throw new VmcorralError('NOT_FOUND', `${space} address ${hex(missing.address)} ${what}`, {
    hint: '--zero-fill reads it as zeros',
    facts: { address: hex(missing.address), why: missing.why },
  });
}

async function printPieces(
  parts: AsyncGenerator<Part>,
  raw: boolean,
  space: MemorySpace,
  { io }: CliDeps,
): Promise<void> {
  try {
    for await (const { address, bytes } of parts) {
      if (io.closed.aborted) return;
      await io.write(raw ? bytes : Buffer.from(hexDump(address, bytes, space)));
    }
  } catch (error) {
    // The reader has seen enough.
    if (!io.closed.aborted && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

async function printJson(
  parts: AsyncGenerator<Part>,
  { address, length, space }: Omit<Wanted, 'zeroFill'>,
  { io }: CliDeps,
): Promise<void> {
  if (length > MAX_JSON_BYTES) {
    throw new VmcorralError('USAGE', `${length} bytes are too many for one JSON document`, {
      hint: `at most ${formatBytes(Number(MAX_JSON_BYTES))}; --raw has no limit`,
    });
  }
  const chunks: Uint8Array[] = [];
  for await (const { bytes } of parts) chunks.push(bytes);
  const base64 = Buffer.concat(chunks).toString('base64');
  io.result({ address: hex(address), length: Number(length), space, encoding: 'base64', bytes: base64 }, () => '');
}

/**
 * Lines of sixteen bytes: address, hexadecimal, printable ASCII. Each ends with a newline.
 * @param address of the first byte; lines start at multiples of 16 behind it
 */
export function hexDump(address: bigint, bytes: Uint8Array, space: MemorySpace): string {
  const lines: string[] = [];
  const digits = space === 'virtual' ? 16 : 12;
  for (let at = 0; at < bytes.length; ) {
    const skipped = Number((address + BigInt(at)) % BigInt(BYTES_A_LINE));
    const line = bytes.subarray(at, at + BYTES_A_LINE - skipped);
    const start = address + BigInt(at - skipped);
    lines.push(
      `${start.toString(16).padStart(digits, '0')}  ${hexColumns(line, skipped)}  |${asciiOf(line, skipped)}|\n`,
    );
    at += line.length;
  }
  return lines.join('');
}

function hexColumns(line: Uint8Array, skipped: number): string {
  const cells: string[] = Array(BYTES_A_LINE).fill('  ');
  for (const [index, byte] of line.entries()) cells[skipped + index] = byte.toString(16).padStart(2, '0');
  return `${cells.slice(0, 8).join(' ')}  ${cells.slice(8).join(' ')}`;
}

function asciiOf(line: Uint8Array, skipped: number): string {
  const shown = Array.from(line, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
  return ' '.repeat(skipped) + shown.join('');
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}
