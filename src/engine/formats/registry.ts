/** All formats, and how a file finds its own: by content, never by name. */

import type { MemoryImage } from '../image/memory-image.js';
import { avmlFormat } from './avml/read.js';
import { type ByteSource, openFileSource, truncated, unsupported } from './byte-source.js';
import { elfFormat } from './elf/read.js';
import { flattenedFormat } from './flattened/read.js';
import { type Format, HEAD_BYTES, type OpenContext } from './format.js';
import { kdumpFormat } from './kdump/read.js';
import { libvirtSaveFormat } from './libvirt-save/read.js';
import { limeFormat } from './lime/read.js';
import { packedFormats } from './packed/read.js';
import { qemuStreamFormat } from './qemu-stream/read.js';
import { rawFormat } from './raw/read.js';
import { refusedFormats } from './refused.js';
import { vmwareFormat, vmwareGuestFormat } from './vmware/read.js';
import { stateOfVmem, vmemHint } from './vmware/vmem.js';
import { xenFormat } from './xen/read.js';

/** In the order of asking. */
const FORMATS: readonly Format[] = [
  xenFormat,
  elfFormat,
  kdumpFormat,
  flattenedFormat,
  vmwareFormat,
  vmwareGuestFormat,
  qemuStreamFormat,
  libvirtSaveFormat,
  limeFormat,
  avmlFormat,
  rawFormat,
  ...packedFormats,
  ...refusedFormats,
];

/** A flattened dump inside of a flattened one is nobody's work. */
const MAX_WRAPPERS = 4;

/** All of it may be left out. */
export type OpenOptions = Partial<OpenContext>;

/** /var/tmp, not /tmp: that is often in memory. */
const DEFAULT_CONTEXT: OpenContext = {
  companions: [],
  map: undefined,
  scratch: process.env.TMPDIR ?? '/var/tmp',
  cancelled: () => false,
  onUnpack: () => undefined,
};

/** What a file is, as far as its first bytes tell. */
export interface Sniffed {
  readonly name: string;
  readonly title: string;
  readonly kind: Format['kind'];
}

/** Undefined: nothing that we know. */
export function sniffHead(head: Uint8Array): Sniffed | undefined {
  const format = recognise(head);
  return format === undefined ? undefined : { name: format.name, title: format.title, kind: format.kind };
}

/** Reads the first bytes of a file. @throws NOT_FOUND, REFUSED, UNSUPPORTED (not a regular file) */
export function sniffImage(path: string): Sniffed | undefined {
  const source = openFileSource(path);
  try {
    return sniffHead(headOf(source));
  } finally {
    source.close();
  }
}

/** All formats, in the order of asking, with what of them is read. For the README's table. */
export function formatCapabilities(): { name: string; title: string; kind: Format['kind']; scope: string }[] {
  return FORMATS.map((format) => ({
    name: format.name,
    title: format.title,
    kind: format.kind,
    scope: format.kind === 'refused' ? '' : format.scope,
  }));
}

/** All formats that can be read. */
export function readableFormats(): Sniffed[] {
  return FORMATS.filter((format) => format.kind !== 'refused').map(({ name, title, kind }) => ({ name, title, kind }));
}

/**
 * Opens a file of any readable format.
 * @throws NOT_FOUND, REFUSED, UNSUPPORTED by name, CORRUPT, TRUNCATED
 */
export function openImage(path: string, options: OpenOptions = {}): MemoryImage {
  return openSource(openFileSource(path), options);
}

/** The same for bytes from elsewhere. Owns `source`: closes it when it throws. */
export function openSource(source: ByteSource, options: OpenOptions = {}): MemoryImage {
  const context = { ...DEFAULT_CONTEXT, ...options };
  let current = source;
  try {
    for (let depth = 0; depth < MAX_WRAPPERS; depth++) {
      const head = headOf(current);
      const isMapped = context.map !== undefined;
      // The memory of a VMware guest starts with the guest's first bytes: only the file beside it tells what it is.
      const state = isMapped || recognise(head) !== undefined ? undefined : stateOfVmem(current.path, context);
      if (state !== undefined) return openStateOf(current, state, context);
      const format = isMapped ? rawUnlessWrapped(head) : recogniseOrThrow(current, head);
      if (format.kind === 'image') return format.open(current, context);
      current = format.unwrap(current, context);
    }
    throw unsupported(source, 'is packed or wrapped again and again', 'unpack it first', {
      offset: 0,
      expected: `${MAX_WRAPPERS - 1} times at most`,
    });
  } catch (error) {
    current.close();
    throw error;
  }
}

function openStateOf(vmem: ByteSource, statePath: string, context: OpenContext): MemoryImage {
  vmem.close();
  return openImage(statePath, { ...context, companions: [vmem.path] });
}

function headOf(source: ByteSource): Uint8Array {
  const head = new Uint8Array(HEAD_BYTES);
  return head.subarray(0, source.read(0, head, 0, HEAD_BYTES));
}

function recognise(head: Uint8Array): Format | undefined {
  return (
    FORMATS.find((format) => format.sniff(head) === 'certain') ??
    FORMATS.find((format) => format.sniff(head) === 'possible')
  );
}

/** With a map a file is raw, whatever its first bytes say: they are the guest's. But who packed it, packed a file. */
function rawUnlessWrapped(head: Uint8Array): Exclude<Format, { kind: 'refused' }> {
  const wrapper = FORMATS.find((format) => format.kind === 'wrapper' && format.sniff(head) === 'certain');
  return wrapper?.kind === 'wrapper' ? wrapper : rawFormat;
}

function recogniseOrThrow(source: ByteSource, head: Uint8Array): Exclude<Format, { kind: 'refused' }> {
  const format = recognise(head);
  const facts = {
    offset: 0,
    expected: 'the first bytes of one',
    firstBytes: Buffer.from(head.subarray(0, 16)).toString('hex'),
  };
  if (format === undefined) {
    if (head.length === 0) throw truncated(source, 0, 1, 'a memory image');
    const names = readableFormats().map(({ name }) => name);
    const hint =
      vmemHint(source.path) ??
      `readable are: ${names.join(', ')}; memory as it is needs --map, which says what stands where`;
    throw unsupported(source, 'is not a memory image of a known kind', hint, facts);
  }
  if (format.kind === 'refused') {
    throw unsupported(source, `is a ${format.title}, which is not supported`, format.hint, {
      ...facts,
      expected: 'a readable format',
      format: format.name,
    });
  }
  return format;
}
