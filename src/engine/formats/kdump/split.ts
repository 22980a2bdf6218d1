/** Finds the parts of a split dump (makedumpfile --split): by content, in the folder of the one that was given. */

import fs from 'node:fs';
import path from 'node:path';
import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, openFileSource, unsupported } from '../byte-source.js';
import type { OpenContext } from '../format.js';
import { type KdumpHeader, type PageWindow, readKdumpHeader } from './header.js';
import { KDUMP_SIGNATURE } from './layout.js';

/** makedumpfile makes one for each of its processes. Bounds memory: 8 MiB each at most, 3 MiB for a usual guest. */
const MAX_PARTS = 64;
/** Files of a folder whose first bytes are looked at. */
const MAX_FILES_LOOKED_AT = 65536;

export interface KdumpFile {
  readonly source: ByteSource;
  readonly header: KdumpHeader;
}

interface Part extends KdumpFile {
  readonly window: PageWindow;
}

/** Files of other dumps that lay beside it, in a sentence each. */
type Strangers = string[];

/**
 * All parts, in the order of their pages, without gap; the given file among them. Sources that it opened are the
 * caller's; when it throws, they are closed.
 * @throws NOT_FOUND (a part is missing: which pages), REFUSED (parts of different dumps, overlapping parts)
 */
export function findParts(given: KdumpFile, window: PageWindow, { companions }: OpenContext): KdumpFile[] {
  const opened: ByteSource[] = [];
  const strangers: Strangers = [];
  try {
    const others =
      companions.length > 0
        ? companions.map((file) => companionPart(file, given, opened))
        : neighbours(given.source.path).flatMap((file) => neighbourPart(file, given, opened, strangers) ?? []);
    const parts = inOrder([{ ...given, window }, ...others], given, strangers);
    for (const source of opened) if (!parts.some((part) => part.source === source)) source.close();
    return parts;
  } catch (error) {
    for (const source of opened) source.close();
    throw error;
  }
}

/** Files beside it, by name; not the file itself. */
function neighbours(file: string): string[] {
  const folder = path.dirname(file);
  const self = fs.statSync(file, { throwIfNoEntry: false });
  const isOther = (other: string): boolean => {
    const stat = fs.statSync(other, { throwIfNoEntry: false });
    return stat?.isFile() === true && (stat.ino !== self?.ino || stat.dev !== self.dev);
  };
  return fs
    .readdirSync(folder)
    .sort()
    .slice(0, MAX_FILES_LOOKED_AT)
    .map((name) => path.join(folder, name))
    .filter((other) => isOther(other) && beginsAsKdump(other));
}

function beginsAsKdump(file: string): boolean {
  const head = Buffer.alloc(KDUMP_SIGNATURE.length);
  try {
    const fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      fs.readSync(fd, head, 0, head.length, 0);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return false; // gone or not readable: then it is no part that can be used
  }
  return head.toString('latin1') === KDUMP_SIGNATURE;
}

/** Undefined for what is not a part of this dump: other dumps may lie in the same folder. */
function neighbourPart(file: string, given: KdumpFile, opened: ByteSource[], strangers: Strangers): Part | undefined {
  const source = openFileSource(file);
  try {
    const header = readKdumpHeader(source);
    const difference = header.window === undefined ? 'is a whole dump' : differenceOf(given.header, header);
    if (header.window !== undefined && difference === undefined) {
      opened.push(source);
      return { source, header, window: header.window };
    }
    if (header.window !== undefined) strangers.push(`${file} ${difference}`);
  } catch (error) {
    if (!(error instanceof VmcorralError)) throw error;
    strangers.push(error.message);
  }
  source.close();
  return undefined;
}

/** What the user names has to be a part. */
function companionPart(file: string, given: KdumpFile, opened: ByteSource[]): Part {
  const source = openFileSource(file);
  opened.push(source);
  const header = readKdumpHeader(source);
  const difference = differenceOf(given.header, header);
  if (header.window !== undefined && difference === undefined) return { source, header, window: header.window };
  throw new VmcorralError('REFUSED', `${file} ${difference ?? 'is no part of a split dump'}`, {
    hint: `give the files that one run of makedumpfile --split made, with ${given.source.path}`,
    facts: { path: file },
  });
}

function differenceOf(one: KdumpHeader, other: KdumpHeader): string | undefined {
  const name = Object.keys(one.identity).find((key) => one.identity[key] !== other.identity[key]);
  if (name === undefined) return undefined;
  if (name === 'notes') return 'is of another dump: its notes differ';
  return `is of another dump: its ${name} is ${other.identity[name]}, expected ${one.identity[name]}`;
}

function inOrder(parts: readonly Part[], given: KdumpFile, strangers: Strangers): Part[] {
  const sorted = parts
    .filter((part) => part.window.limit > part.window.first || part.source === given.source)
    .sort((a, b) => a.window.first - b.window.first || a.window.limit - b.window.limit);
  const chosen: Part[] = [];
  let page = 0;
  for (const part of sorted) {
    const { first, limit } = part.window;
    const previous = chosen.at(-1);
    // A copy of a part is as good as the part.
    if (previous !== undefined && previous.window.first === first && previous.window.limit === limit) {
      if (part.source === given.source) chosen[chosen.length - 1] = part;
      continue;
    }
    if (first > page) throw missing(given, page, first, strangers);
    if (first < page && limit > first) throw overlapping(given, previous ?? part, part);
    chosen.push(part);
    page = Math.max(page, limit);
  }
  const { pageLimit } = given.header;
  if (page < pageLimit) throw missing(given, page, pageLimit, strangers);
  if (chosen.length > MAX_PARTS) {
    throw unsupported(given.source, `is one of ${chosen.length} parts`, 'join them with `makedumpfile --reassemble`', {
      offset: 0,
      expected: `${MAX_PARTS} at most`,
      parts: chosen.length,
    });
  }
  return chosen;
}

function missing({ source }: KdumpFile, first: number, limit: number, strangers: Strangers): VmcorralError {
  const beside = strangers.length === 0 ? '' : ` (${strangers.slice(0, 3).join('; ')})`;
  return new VmcorralError(
    'NOT_FOUND',
    `${source.path} is one part of a split dump, and the part with pages 0x${first.toString(16)} to 0x${limit.toString(16)} is not there${beside}`,
    {
      hint: 'put all parts into one folder, or name them',
      facts: { path: source.path, firstPage: first, pageLimit: limit },
    },
  );
}

function overlapping({ source }: KdumpFile, one: KdumpFile, other: KdumpFile): VmcorralError {
  return new VmcorralError(
    'REFUSED',
    `two parts of the split dump have the same pages: ${one.source.path} and ${other.source.path}`,
    {
      hint: 'the dump was split more than once: name the parts that belong together',
      facts: { path: source.path, one: one.source.path, other: other.source.path },
    },
  );
}
