/** Unpacked bytes of frames, at random: the frames that a read touches are unpacked then, the last ones kept. */

import { addressOf, type NativeDecompressor, nativeDecompressor } from '../../codec/native.js';
import { type ByteSource, corrupt, readExactInto } from '../byte-source.js';
import { maskedCrc32c } from './crc32c.js';
import { FrameKind, type FrameList } from './frames.js';
import { CHECKSUM_BYTES, MAX_CHUNK_BYTES, MAX_PACKED_BYTES } from './layout.js';

/** Frames kept; one read of a batch touches each once, small reads stay near each other. */
const KEPT = 8;

export class FrameSource implements ByteSource {
  readonly path: string;
  readonly sizeBytes: number;
  readonly #source: ByteSource;
  readonly #frames: FrameList;
  readonly #packed = new Uint8Array(CHECKSUM_BYTES + MAX_PACKED_BYTES);
  readonly #packedAddress = addressOf(this.#packed);
  readonly #kept = Array.from({ length: KEPT }, () => new Uint8Array(MAX_CHUNK_BYTES));
  readonly #keptAddresses = this.#kept.map((bytes) => addressOf(bytes));
  /** Numbers of the frames kept. */
  readonly #held = new Float64Array(KEPT).fill(-1);
  #snappy: NativeDecompressor | undefined;

  constructor(source: ByteSource, frames: FrameList) {
    this.path = source.path;
    this.#source = source;
    this.#frames = frames;
    this.sizeBytes = frames.size;
  }

  /** @throws CORRUPT (checksum), TRUNCATED */
  read(position: number, into: Uint8Array, at: number, length: number): number {
    const { count, start, position: place, kind } = this.#frames;
    const limit = Math.min(position + length, this.sizeBytes);
    let done = position;
    for (let i = this.#frameAt(position); i < count && done < limit; i++) {
      const from = done - start[i]!;
      const part = Math.min(limit, this.#endOf(i)) - done;
      if (kind[i] === FrameKind.stored) {
        readExactInto(this.#source, place[i]! + from, into, at + done - position, part, 'guest memory');
      } else {
        into.set(this.#unpacked(i).subarray(from, from + part), at + done - position);
      }
      done += part;
    }
    return Math.max(0, done - position);
  }

  /** The number of the frame that holds a byte. */
  #frameAt(position: number): number {
    const { count, start } = this.#frames;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (start[middle]! <= position) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  #endOf(frame: number): number {
    const { count, start, size } = this.#frames;
    return frame + 1 < count ? start[frame + 1]! : size;
  }

  #unpacked(frame: number): Uint8Array {
    const slot = frame % KEPT;
    const bytes = this.#kept[slot]!;
    if (this.#held[slot] === frame) return bytes;
    this.#held[slot] = -1;
    const { position, length, kind, start } = this.#frames;
    const size = this.#endOf(frame) - start[frame]!;
    readExactInto(this.#source, position[frame]!, this.#packed, 0, length[frame]!, 'a snappy chunk');
    if (kind[frame] === FrameKind.plain) {
      bytes.set(this.#packed.subarray(CHECKSUM_BYTES, CHECKSUM_BYTES + size));
    } else if (!this.#unpack(length[frame]! - CHECKSUM_BYTES, slot, size)) {
      throw corrupt(this.#source, "a snappy chunk can't be unpacked", {
        offset: position[frame]!,
        expected: `${size} bytes`,
      });
    }
    const said = new DataView(this.#packed.buffer).getUint32(0, true);
    const found = maskedCrc32c(bytes, size);
    if (found !== said) {
      const what = `the checksum of a snappy chunk is ${found}`;
      throw corrupt(this.#source, what, { offset: position[frame]!, expected: said, found });
    }
    this.#held[slot] = frame;
    return bytes;
  }

  #unpack(packedSize: number, slot: number, size: number): boolean {
    this.#snappy ??= nativeDecompressor('snappy');
    const from = this.#packedAddress + BigInt(CHECKSUM_BYTES);
    return this.#snappy.run(from, packedSize, this.#keptAddresses[slot]!, size);
  }

  close(): void {
    this.#snappy?.free();
    this.#snappy = undefined;
    this.#source.close();
  }
}
