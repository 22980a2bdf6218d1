/** Unpacking with a streaming library: members of the file one after the other, as the tools do it. */

import { type StreamDecoder, type StreamKind, streamDecoder } from '../../codec/stream-codec.js';
import { type ByteSource, corrupt, truncated, unsupported } from '../byte-source.js';
import { HEAD_BYTES } from '../format.js';
import { PackedInput, unpackCancelled } from './input.js';
import type { PackedKind } from './layout.js';

/** Gives the unpacked bytes from front to end. */
export interface Unpacker {
  /** Bytes of the packed file that are done. */
  readonly position: number;
  /** The next bytes, borrowed until the next call; none at the end. Whole MiB but for the last ones. */
  next(): Uint8Array;
  free(): void;
}

export class MemberUnpacker implements Unpacker {
  readonly #kind: PackedKind & { readonly name: StreamKind };
  readonly #input: PackedInput;
  readonly #decoder: StreamDecoder;
  readonly #cancelled: () => boolean;
  /** Bytes of the decoder's input from `#at` on that are not used yet. */
  #at = 0;
  #have = 0;
  #inMember = true;
  #ended = false;

  constructor(kind: PackedKind & { readonly name: StreamKind }, source: ByteSource, cancelled: () => boolean) {
    this.#kind = kind;
    this.#input = new PackedInput(source);
    this.#decoder = streamDecoder(kind.name);
    this.#cancelled = cancelled;
  }

  get position(): number {
    return this.#input.position - this.#have;
  }

  next(): Uint8Array {
    const { output } = this.#decoder;
    let filled = 0;
    while (filled < output.length && !this.#ended) {
      if (this.#cancelled()) throw unpackCancelled(this.#input.source.path);
      if (!this.#inMember && !this.#startMember()) break;
      if (this.#have === 0) this.#refill();
      filled += this.#step(filled);
    }
    return output.subarray(0, filled);
  }

  #refill(): void {
    this.#at = 0;
    this.#have = this.#input.peek(this.#decoder.input);
    this.#input.position += this.#have;
  }

  #step(filled: number): number {
    const { source } = this.#input;
    const { name } = this.#kind;
    const result = this.#decoder.step(this.#at, this.#have, filled);
    const { consumed, produced } = this.#decoder;
    this.#at += consumed;
    this.#have -= consumed;
    if (result === 'end') this.#inMember = false;
    else if (result === 'memory') {
      const hint = `unpack it first, with ${name} -d and its option for large windows`;
      throw unsupported(source, 'needs more memory to be unpacked than is given to it', hint, {
        offset: this.position,
        expected: 'a window as the tool makes it by default',
      });
    } else if (result !== 'more') {
      throw corrupt(source, `this can't be unpacked (${result.damage})`, {
        offset: this.position,
        expected: `${name} data`,
      });
    } else if (consumed === 0 && produced === 0) {
      const expected = `${name} data`;
      if (this.#have > 0) throw corrupt(source, 'unpacking stands still', { offset: this.position, expected });
      throw truncated(source, this.position, 1, `the ${name} stream`);
    }
    return produced;
  }

  /** Looks at what follows a member. @returns false at the end of the file */
  #startMember(): boolean {
    this.#input.position -= this.#have;
    this.#have = 0;
    if (this.#input.skipZeros(this.#cancelled)) {
      this.#ended = true;
      return false;
    }
    const head = new Uint8Array(Math.min(HEAD_BYTES, 16));
    const got = this.#input.peek(head);
    // A lone zlib stream has no members; its two bytes would be found by chance.
    if (this.#kind.name === 'zlib' || this.#kind.sniff(head.subarray(0, got)) === 'no') {
      throw corrupt(this.#input.source, `bytes that are not ${this.#kind.name} follow the packed data`, {
        offset: this.#input.position,
        expected: this.#kind.name === 'zlib' ? 'the end of the file' : 'its end, or another member',
      });
    }
    this.#decoder.reset();
    this.#inMember = true;
    return true;
  }

  free(): void {
    this.#decoder.free();
  }
}
