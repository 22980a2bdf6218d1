/** What crash and drgn answer about a dump of some kernel, and the same asked of our own reader. */

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { convertImage } from '#src/engine/convert/convert.js';
import { ImageSession } from '#src/engine/convert/examine.js';
import { openImage } from '#src/engine/formats/registry.js';
import { findVmcoreinfo } from '#src/engine/linux/find-kernel.js';
import { command } from './harness/command.js';
import { labFile } from './harness/lab-file.js';

export async function convert(
  path: string,
  output: string,
  level: number,
  format: 'kdump' | 'elf' = 'kdump',
): Promise<void> {
  const signal = new AbortController().signal;
  const compression = format === 'elf' ? 'none' : 'lzo';
  const input = { kind: 'file', path } as const;
  await convertImage({ input, output, format, level, compression, signal, onProgress: () => {} });
}

const QUESTIONS = ['sys -t', 'log', 'ps', 'bt', 'foreach kernel bt', 'mount', 'kmem -s', 'quit'];

export async function crashSays(crash: string, vmlinux: string, file: string): Promise<string> {
  fs.writeFileSync(`${file}.questions`, `${QUESTIONS.join('\n')}\n`);
  const answer = await command(crash, ['-s', '-i', `${file}.questions`, vmlinux, file], 240_000);
  return answer.replaceAll(file, 'FILE').replace('  [PARTIAL DUMP]', '');
}

/** Memory at a kernel virtual address. */
export interface Piece {
  readonly what: string;
  readonly address: string;
  readonly length: number;
  /** Where the page tables lead; null: nowhere. */
  readonly physical: string | null;
  /** SHA-256; null where not all of it is there. */
  readonly digest: string | null;
}

export interface DrgnKernel {
  readonly release: string;
  readonly log: string;
  /** Name of the task that panicked, and its stack. */
  readonly crashed: string;
  readonly stack: string;
  /** Process id, name, and stack of those that are the kernel's own. */
  readonly tasks: readonly (readonly [number, string, string | null])[];
  readonly pieces: readonly Piece[];
}

export async function drgnKernel(program: string, vmlinux: string, file: string): Promise<DrgnKernel> {
  const script = labFile('judges/drgn-kernel.py');
  return JSON.parse(await command(program, ['-q', '-c', file, '-s', vmlinux, script])) as DrgnKernel;
}

/** Like drgn, which prints the time once for a message of several lines. */
export function stampOnce(log: string, theirs: string): string {
  const stamped = theirs.split('\n').map((line) => line.startsWith('['));
  const lines = log.split('\n');
  return lines.map((line, i) => (stamped[i] === false ? line.replace(/^\[[ \d.]+\] /, '') : line)).join('\n');
}

/** The same pieces as our page tables and `vmcorral read --virtual` have them. */
export async function ourPieces(file: string, pieces: readonly Piece[]): Promise<Piece[]> {
  const image = openImage(file);
  const session = new ImageSession(file);
  try {
    const space = findVmcoreinfo(image).found?.kernel?.space;
    if (space === undefined) throw new Error(`no kernel in ${file}`);
    const found: Piece[] = [];
    for (const { what, address, length } of pieces) {
      const physical = space.translate(BigInt(address));
      const { bytes, missing } = await session.read({ address: BigInt(address), length, space: 'virtual' });
      found.push({
        what,
        address,
        length,
        physical: physical === undefined ? null : `0x${physical.toString(16)}`,
        digest: missing === undefined ? createHash('sha256').update(bytes).digest('hex') : null,
      });
    }
    return found;
  } finally {
    image.close();
    await session.close();
  }
}
