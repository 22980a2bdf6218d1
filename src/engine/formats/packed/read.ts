/** Files packed as a whole: unpacked once into a nameless copy, which is then read at random. */

import type { ByteSource } from '../byte-source.js';
import type { OpenContext, WrapperFormat } from '../format.js';
import { UnpackedCopy } from './copy.js';
import { PACKED_KINDS, type PackedKind } from './layout.js';
import { LzopUnpacker } from './lzop.js';
import { MemberUnpacker, type Unpacker } from './members.js';

export const packedFormats: readonly WrapperFormat[] = PACKED_KINDS.map((kind) => ({
  kind: 'wrapper',
  name: kind.name,
  title: kind.title,
  scope: `unpacked once into a temporary file${kind.name === 'zlib' ? '' : '; concatenated members too'}`,
  sniff: kind.sniff,
  unwrap: (source, context) => unwrap(kind, source, context),
}));

/** @throws CORRUPT, TRUNCATED with the offset in the packed file; NO_SPACE; UNSUPPORTED; CANCELLED */
function unwrap(kind: PackedKind, source: ByteSource, context: OpenContext): ByteSource {
  const unpacker = unpackerOf(kind, source, context.cancelled);
  try {
    const unpacked = unpackAll(unpacker, source, context);
    source.close();
    return unpacked;
  } finally {
    unpacker.free();
  }
}

function unpackerOf(kind: PackedKind, source: ByteSource, cancelled: () => boolean): Unpacker {
  const { name } = kind;
  return name === 'lzop'
    ? new LzopUnpacker(source, cancelled)
    : new MemberUnpacker({ ...kind, name }, source, cancelled);
}

function unpackAll(unpacker: Unpacker, source: ByteSource, { scratch, onUnpack }: OpenContext): ByteSource {
  const copy = new UnpackedCopy(scratch, source.path);
  try {
    for (;;) {
      const bytes = unpacker.next();
      if (bytes.length === 0) break;
      copy.append(bytes);
      onUnpack(unpacker.position, source.sizeBytes);
    }
    onUnpack(source.sizeBytes, source.sizeBytes);
    return copy.finish();
  } catch (error) {
    copy.discard();
    throw error;
  }
}
