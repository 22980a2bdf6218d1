/** Big-endian reading from front to back, through a window: for streams that have no index. */

import { VmcorralError } from '../../../model/errors.js';
import { type ByteSource, truncated } from '../byte-source.js';

const WINDOW_BYTES = 1 << 20;

export class StreamCursor {
  readonly source: ByteSource;
  readonly #cancelled: () => boolean;
  readonly #window: Uint8Array;
  readonly #view: DataView;
  /** Where the window starts in the source, and how much of it is filled. */
  #start = 0;
  #filled = 0;
  /** Next byte, from the start of the window; beyond it after a skip. */
  #at = 0;

  constructor(source: ByteSource, cancelled: () => boolean) {
    this.source = source;
    this.#cancelled = cancelled;
    this.#window = new Uint8Array(Math.min(WINDOW_BYTES, source.sizeBytes));
    this.#view = new DataView(this.#window.buffer);
  }

  /** Offset of the next byte in the source. */
  get position(): number {
    return this.#start + this.#at;
  }

  /** Goes anywhere; what lies there is looked at by the next read only. */
  moveTo(position: number): void {
    this.#at = position - this.#start;
    if (this.#at >= 0) return;
    this.#start = position;
    this.#at = 0;
    this.#filled = 0;
  }

  skip(length: number): void {
    this.#at += length;
  }

  u8(what: string): number {
    return this.#window[this.#take(1, what)]!;
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#take(2, what));
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what));
  }

  /** Inexact from 2^53 on, and by that beyond every limit that it is then checked against. */
  u64(what: string): number {
    const at = this.#take(8, what);
    return this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
  }

  /** u8 length, then as many bytes. */
  string(what: string): string {
    return this.text(this.u8(what), what);
  }

  /** Latin-1. @param length bounded by the caller: at most WINDOW_BYTES */
  text(length: number, what: string): string {
    const at = this.#take(length, what);
    return Buffer.from(this.#window.buffer, at, length).toString('latin1');
  }

  /** @returns place of the bytes in the window */
  #take(length: number, what: string): number {
    if (this.#at + length > this.#filled) this.#fill(length, what);
    const at = this.#at;
    this.#at += length;
    return at;
  }

  #fill(length: number, what: string): void {
    if (this.#cancelled()) throw new VmcorralError('CANCELLED', `reading ${this.source.path} was cancelled`);
    const { position } = this;
    if (position + length > this.source.sizeBytes) throw truncated(this.source, position, length, what);
    this.#filled = this.source.read(position, this.#window, 0, this.#window.length);
    this.#start = position;
    this.#at = 0;
    if (this.#filled < length) throw truncated(this.source, position, length, what);
  }
}
