/** Save images as `virsh save` and `managedsave` leave them: takes the header and the domain's XML off. */

import type { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, bounded, corrupt, readExact, unsupported } from '../byte-source.js';
import type { WrapperFormat } from '../format.js';
import {
  HEADER_BYTES,
  HEADER_WORDS,
  HEADER_WORDS_AT,
  MAX_VERSION,
  MAX_XML_BYTES,
  SAVE_FORMATS,
  SAVE_MAGIC,
} from './layout.js';

const MAGIC = Buffer.from(SAVE_MAGIC, 'latin1');

export const libvirtSaveFormat: WrapperFormat = {
  kind: 'wrapper',
  name: 'libvirt-save',
  title: 'libvirt save image (`virsh save`, `managedsave`)',
  scope: 'versions 1 and 2, of little- and big-endian hosts; raw and sparse read in place, packed unpacked once',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  unwrap: (source) => tailOf(source, streamOffset(source)),
};

/** @throws UNSUPPORTED for other versions and formats, CORRUPT, TRUNCATED */
function streamOffset(source: ByteSource): number {
  const header = readExact(source, 0, HEADER_BYTES, 'the header of the save image');
  const view = new DataView(header.buffer);
  // Of a host with the other order of bytes the version is a large number.
  const isLittle = view.getUint32(HEADER_WORDS_AT, true) <= view.getUint32(HEADER_WORDS_AT, false);
  const words = Array.from({ length: HEADER_WORDS }, (_, i) => view.getUint32(HEADER_WORDS_AT + 4 * i, isLittle));
  const [version = 0, xmlBytes = 0, , formatNumber = 0] = words;
  if (version < 1 || version > MAX_VERSION) {
    throw unknown(source, `version ${version}`, HEADER_WORDS_AT, `1 to ${MAX_VERSION}`);
  }
  bounded(source, xmlBytes, 0, MAX_XML_BYTES, 'the length of the XML in the save image', HEADER_WORDS_AT + 4);
  // Version 1 had no formats: libvirt does not look at the field.
  const format = SAVE_FORMATS[version === 1 ? 0 : formatNumber];
  if (format === undefined) {
    throw unknown(source, `format ${formatNumber}`, HEADER_WORDS_AT + 12, `0 to ${SAVE_FORMATS.length - 1}`);
  }
  const offset = HEADER_BYTES + xmlBytes;
  const start = readExact(source, offset, format.magic.length, 'the stream behind the XML of the save image');
  if (format.magic.some((byte, i) => start[i] !== byte)) {
    throw corrupt(source, `behind its XML is no ${format.name} stream`, {
      offset,
      expected: Buffer.from(format.magic).toString('hex'),
      found: Buffer.from(start).toString('hex'),
    });
  }
  return offset;
}

function unknown(source: ByteSource, what: string, offset: number, expected: string): VmcorralError {
  const hint = 'it comes from a newer libvirt; capture the guest with `virsh dump --memory-only`';
  return unsupported(source, `is a libvirt save image of ${what}, which is not known`, hint, { offset, expected });
}

function tailOf(source: ByteSource, offset: number): ByteSource {
  return {
    path: source.path,
    sizeBytes: source.sizeBytes - offset,
    read: (position, into, at, length) => source.read(offset + position, into, at, length),
    close: () => source.close(),
  };
}
