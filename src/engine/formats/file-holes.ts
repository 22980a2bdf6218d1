/** Holes of sparse files: zeros that need no reading. Images in the spool are mostly holes. */

import koffi from 'koffi';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;

type Seek = (fd: number, offset: number, whence: number) => number | bigint;
let seek: Seek | undefined;

function lseek(fd: number, offset: number, whence: number): number {
  seek ??= koffi.load('libc.so.6').func('int64_t lseek(int fd, int64_t offset, int whence)') as unknown as Seek;
  return Number(seek(fd, offset, whence));
}

/** Where data and holes alternate; remembers the extent of the last question, so that neighbours cost nothing. */
export class FileHoles {
  readonly #fd: number;
  readonly #sizeBytes: number;
  #start = 0;
  #limit = 0;
  #isHole = false;

  /** Moves the descriptor's own offset: it must be read with explicit positions only. */
  constructor(fd: number, sizeBytes: number) {
    this.#fd = fd;
    this.#sizeBytes = sizeBytes;
  }

  /** Bytes from `position`, up to `length`, that are all hole, or all not: positive for hole, negative for data. */
  extentAt(position: number, length: number): number {
    if (position < this.#start || position >= this.#limit) this.#look(position);
    const size = Math.min(length, this.#limit - position);
    return this.#isHole ? size : -size;
  }

  #look(position: number): void {
    this.#start = position;
    const data = lseek(this.#fd, position, SEEK_DATA);
    this.#isHole = data > position || (data < 0 && koffi.errno() === ENXIO);
    if (this.#isHole) {
      this.#limit = data < 0 ? this.#sizeBytes : data;
      return;
    }
    // A file system without holes gives the end of the file.
    const hole = lseek(this.#fd, position, SEEK_HOLE);
    this.#limit = hole > position ? hole : this.#sizeBytes;
  }
}
