/**
 * The .vmem beside a state file. It has neither header nor magic: names bring the two together, sizes and the guest's
 * page tables (pairing.ts) say whether they belong together.
 */

import fs from 'node:fs';
import path from 'node:path';
import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, openFileSource, unsupported } from '../byte-source.js';
import type { OpenContext } from '../format.js';
import { PACKED_KINDS } from '../packed/layout.js';
import { isGuestDump } from './guest-dump.js';
import { CheckpointHeader, ENCRYPTED_MAGIC, PAGE_BYTES } from './layout.js';
import { isCheckpoint, readState } from './state.js';

/** Endings of packed files, which may stand behind the file's own. */
const PACKED = /\.(?:gz|zst|xz|bz2|lzo)$/i;

/**
 * Opens the memory of a state file.
 * @param needed bytes that the state's regions reach to; undefined where the file has none
 * @throws NOT_FOUND, USAGE (more than one could be meant), UNSUPPORTED (encrypted, compressed), TRUNCATED
 */
export function openVmem(state: ByteSource, needed: number | undefined, context: OpenContext): ByteSource {
  const vmem = openFileSource(vmemOf(state, needed, context));
  try {
    assertPlain(vmem, needed);
    assertSize(state, vmem, needed);
    return vmem;
  } catch (error) {
    vmem.close();
    throw error;
  }
}

function vmemOf(state: ByteSource, needed: number | undefined, { companions }: OpenContext): string {
  const given = companions.filter((companion) => path.resolve(companion) !== path.resolve(state.path));
  const byName = vmemNames(state.path);
  if (given.length > 1) {
    const named = given.filter((companion) => byName.some((name) => path.basename(name) === path.basename(companion)));
    if (named.length === 1) return named[0]!;
    throw new VmcorralError('USAGE', `${given.length} files were given as the memory of ${state.path}`, {
      hint: 'give the one .vmem that was written together with it',
      facts: { path: state.path, given: given.length },
    });
  }
  const found = given[0] ?? byName.find((name) => fs.existsSync(name));
  if (found !== undefined) return found;
  throw noVmem(state, needed, byName[0]!);
}

/** As VMware names it: as the state, with another ending. Also for a state whose ending was taken off. */
function vmemNames(statePath: string): string[] {
  const plain = statePath.replace(PACKED, '');
  const stem = path.join(path.dirname(plain), path.parse(plain).name);
  return [`${stem}.vmem`, `${stem}.VMEM`, `${plain}.vmem`];
}

function noVmem(state: ByteSource, needed: number | undefined, name: string): VmcorralError {
  const packed = ['.gz', '.zst', '.xz', '.bz2', '.lzo'].map((ending) => `${name}${ending}`).find(fs.existsSync);
  const facts = { path: state.path, missing: name, ...(needed === undefined ? {} : { needed }) };
  if (packed !== undefined) {
    return new VmcorralError('NOT_FOUND', `the memory of ${state.path} is packed: ${packed}`, {
      hint: `unpack ${packed}, so that ${path.basename(name)} stands beside the state`,
      facts,
    });
  }
  if (needed === undefined) {
    return new VmcorralError('NOT_FOUND', `${state.path} has no memory in it, and there is no ${name} beside it`, {
      hint: 'a snapshot taken without memory has none: take it again with memory; else copy the .vmem beside this file',
      facts,
    });
  }
  return new VmcorralError('NOT_FOUND', `the memory of ${state.path} is missing: ${name}, ${needed} bytes`, {
    hint: 'copy it from where this file came from, or say where it is; a snapshot without memory has none',
    facts,
  });
}

/** What products write in place of a plain .vmem (VMWARE-FORMATS 4a and 9). */
function assertPlain(vmem: ByteSource, needed: number | undefined): void {
  const head = new Uint8Array(16);
  if (vmem.read(0, head, 0, 16) < 16) return;
  const [first = 0, second, packed = 0, fourth] = new Uint32Array(head.buffer);
  // Memory of the right size may begin with anything.
  const isTooSmall = needed === undefined || vmem.sizeBytes < needed;
  const plain = { offset: 0, expected: 'guest memory as it is' };
  if (first === ENCRYPTED_MAGIC) {
    const hint = 'on ESXi, `crypto-util encobj decrypt` decrypts it for one who holds the key';
    throw unsupported(vmem, 'is encrypted', hint, plain);
  }
  const kind = PACKED_KINDS.find(({ sniff }) => sniff(head) === 'certain');
  if (kind !== undefined && isTooSmall) throw unsupported(vmem, `is a ${kind.title}`, 'unpack it first', plain);
  const isPacked = first === 4 << 20 && second === 0 && fourth === 0 && packed > 0 && packed <= first;
  if (isPacked && isTooSmall) {
    const hint = 'suspend or snapshot the guest on a product that writes it plain';
    throw unsupported(vmem, 'is a compressed .vmem, which is not supported', hint, plain);
  }
}

function assertSize(state: ByteSource, vmem: ByteSource, needed: number | undefined): void {
  const { sizeBytes } = vmem;
  const expected = needed ?? Math.max(PAGE_BYTES, Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES);
  if (sizeBytes >= expected) return;
  const says = needed === undefined ? 'whole pages are' : `${path.basename(state.path)} says`;
  throw new VmcorralError(
    'TRUNCATED',
    `${vmem.path} is cut short: ${says} ${expected} bytes of memory, the file has ${sizeBytes}`,
    {
      hint: 'the copy may still be running, or the datastore was full; compare the size with the source',
      facts: { path: vmem.path, state: state.path, offset: sizeBytes, expected, size: sizeBytes },
    },
  );
}

/**
 * The state file that a .vmem is the memory of, among `companions` or, with the same name, beside it. What it is is
 * asked of its content; one that has its memory inside is not it.
 */
export function stateOfVmem(vmemPath: string, { companions }: OpenContext): string | undefined {
  if (!isVmemName(vmemPath)) return undefined;
  const stem = vmemPath.slice(0, -'.vmem'.length);
  const beside = ['.vmss', '.vmsn', '.guest'].map((ending) => `${stem}${ending}`);
  return [...companions, ...beside].find((name) => fs.existsSync(name) && wantsVmem(name));
}

const isVmemName = (name: string): boolean => /\.vmem$/i.test(name);

/** What somebody should know who gives a .vmem without its state. */
export function vmemHint(name: string): string | undefined {
  return isVmemName(name)
    ? 'a .vmem is memory without a map: put the .vmss or .vmsn that was written with it beside it, or give both'
    : undefined;
}

function wantsVmem(name: string): boolean {
  let source: ByteSource | undefined;
  try {
    source = openFileSource(name);
    const head = new Uint8Array(512);
    const bytes = head.subarray(0, source.read(0, head, 0, head.length));
    return isGuestDump(bytes) || (isCheckpoint(bytes) && readState(source).memory === undefined);
  } catch (error) {
    // A damaged state says so itself, in its own words, when it is opened.
    if (error instanceof VmcorralError) return source !== undefined && source.sizeBytes >= CheckpointHeader.size;
    throw error;
  } finally {
    source?.close();
  }
}
