/**
 * Streams of any length, unpacked piece by piece and synchronously (node:zlib only does that asynchronously): zlib, lzma,
 * bzip2 and zstd of the system, through koffi.
 *
 * References: zlib.h 1.2.13 (z_stream), bzlib.h 1.0.8 (bz_stream), lzma/base.h 5.4 (lzma_stream), zstd.h 1.5
 * (ZSTD_inBuffer, ZSTD_outBuffer). Layouts are those of the x86-64 and aarch64 ABIs.
 */

import koffi from 'koffi';
import { VmcorralError } from '../../model/errors.js';

export type StreamKind = 'gzip' | 'zlib' | 'xz' | 'bzip2' | 'zstd';

type Native = (...args: (bigint | number | string | null)[]) => number | bigint;

interface Library {
  readonly soname: string;
  readonly debianPackage: string;
}

const LIBZ: Library = { soname: 'libz.so.1', debianPackage: 'zlib1g' };
const LIBRARIES: Readonly<Record<StreamKind, Library>> = {
  gzip: LIBZ,
  zlib: LIBZ,
  xz: { soname: 'liblzma.so.5', debianPackage: 'liblzma5' },
  bzip2: { soname: 'libbz2.so.1.0', debianPackage: 'libbz2-1.0' },
  zstd: { soname: 'libzstd.so.1', debianPackage: 'libzstd1' },
};

/** What `xz -9` needs is 65 MiB; more than this only comes from a dictionary chosen by hand. */
const XZ_MEMORY_LIMIT = 256 << 20;

/**
 * One step of a decoder. `end`: a member ended, `reset` makes ready for the next one. A text: the stream is damaged;
 * it says how. `memory`: it asks for more memory than we give.
 */
export type StepResult = 'more' | 'end' | 'memory' | { readonly damage: string };

export interface StreamDecoder {
  /** The caller puts packed bytes here, and gets unpacked ones there. */
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** Bytes of `input` that the last step used, and of `output` that it filled, both from where it was told to begin. */
  readonly consumed: number;
  readonly produced: number;
  step(inputAt: number, inputSize: number, outputAt: number): StepResult;
  reset(): void;
  free(): void;
}

const BUFFER_BYTES = 1 << 20;

/** @throws UNSUPPORTED, with the line that installs it, where the system lacks the library */
export function streamDecoder(kind: StreamKind): StreamDecoder {
  switch (kind) {
    case 'gzip':
      // 15: the largest window; 16: a gzip header, its CRC and length are checked.
      return new ZlibDecoder(15 + 16);
    case 'zlib':
      return new ZlibDecoder(15);
    case 'xz':
      return new XzDecoder();
    case 'bzip2':
      return new Bzip2Decoder();
    case 'zstd':
      return new ZstdDecoder();
  }
}

function declare(kind: StreamKind, prototype: string): Native {
  const { soname, debianPackage } = LIBRARIES[kind];
  let library: ReturnType<typeof koffi.load>;
  try {
    // Deep: Node's binary exports a zlib (from 22.15 on a zstd) of its own, and the library's calls of itself would go
    // there, to structures of another shape.
    library = koffi.load(soname, { deep: true });
  } catch (cause) {
    throw new VmcorralError('UNSUPPORTED', `${kind} files need ${soname}, which is not on this system`, {
      hint: `apt-get install ${debianPackage}, or unpack the file first`,
      facts: { library: soname },
      cause,
    });
  }
  // koffi's own type knows no bigint for pointers, which is what it wants.
  return library.func(prototype) as unknown as Native;
}

/** What all of them share: two buffers, and a C structure that says how far each is used. */
abstract class Decoder implements StreamDecoder {
  readonly input = new Uint8Array(BUFFER_BYTES);
  readonly output = new Uint8Array(BUFFER_BYTES);
  consumed = 0;
  produced = 0;
  protected readonly inputAddress = koffi.address(this.input);
  protected readonly outputAddress = koffi.address(this.output);
  // 256 bytes: smaller typed arrays live in V8's heap, where they move.
  readonly #bytes = new Uint8Array(256);
  protected readonly view = new DataView(this.#bytes.buffer);
  protected readonly state = koffi.address(this.#bytes);

  abstract step(inputAt: number, inputSize: number, outputAt: number): StepResult;
  abstract reset(): void;
  abstract free(): void;
}

/** z_stream, bz_stream and lzma_stream begin alike: next_in, avail_in … next_out, avail_out; a size_t in lzma only. */
abstract class ZlibLike extends Decoder {
  protected prepare(inputAt: number, inputSize: number, outputAt: number): void {
    this.view.setBigUint64(0, this.inputAddress + BigInt(inputAt), true);
    this.view.setUint32(8, inputSize, true);
    this.view.setBigUint64(24, this.outputAddress + BigInt(outputAt), true);
    this.view.setUint32(32, this.output.length - outputAt, true);
  }

  protected account(inputSize: number, outputAt: number): void {
    this.consumed = inputSize - this.view.getUint32(8, true);
    this.produced = this.output.length - outputAt - this.view.getUint32(32, true);
  }
}

/** sizeof(z_stream); the library compares it. */
const Z_STREAM_BYTES = 112;
const Z_STREAM_END = 1;
const Z_OK = 0;
const Z_MEM_ERROR = -4;
/** Nothing could be done: it lacks input or room. No damage. */
const Z_BUF_ERROR = -5;

class ZlibDecoder extends ZlibLike {
  readonly #inflate = declare('zlib', 'int inflate(void *stream, int flush)');
  readonly #reset = declare('zlib', 'int inflateReset(void *stream)');
  readonly #end = declare('zlib', 'int inflateEnd(void *stream)');

  constructor(windowBits: number) {
    super();
    const init = declare('zlib', 'int inflateInit2_(void *stream, int windowBits, const char *version, int size)');
    assertStarted(init(this.state, windowBits, '1.2.11', Z_STREAM_BYTES), 'zlib');
  }

  step(inputAt: number, inputSize: number, outputAt: number): StepResult {
    this.prepare(inputAt, inputSize, outputAt);
    const result = Number(this.#inflate(this.state, 0));
    this.account(inputSize, outputAt);
    if (result === Z_OK || result === Z_BUF_ERROR) return 'more';
    if (result === Z_STREAM_END) return 'end';
    return result === Z_MEM_ERROR ? 'memory' : { damage: `zlib error ${result}` };
  }

  reset(): void {
    this.#reset(this.state);
  }

  free(): void {
    this.#end(this.state);
  }
}

const BZ_STREAM_END = 4;
const BZ_MEM_ERROR = -3;

class Bzip2Decoder extends ZlibLike {
  readonly #init = declare('bzip2', 'int BZ2_bzDecompressInit(void *stream, int verbosity, int small)');
  readonly #decompress = declare('bzip2', 'int BZ2_bzDecompress(void *stream)');
  readonly #end = declare('bzip2', 'int BZ2_bzDecompressEnd(void *stream)');

  constructor() {
    super();
    assertStarted(this.#init(this.state, 0, 0), 'bzip2');
  }

  step(inputAt: number, inputSize: number, outputAt: number): StepResult {
    this.prepare(inputAt, inputSize, outputAt);
    const result = Number(this.#decompress(this.state));
    this.account(inputSize, outputAt);
    if (result === 0) return 'more';
    if (result === BZ_STREAM_END) return 'end';
    return result === BZ_MEM_ERROR ? 'memory' : { damage: `bzip2 error ${result}` };
  }

  reset(): void {
    this.#end(this.state);
    assertStarted(this.#init(this.state, 0, 0), 'bzip2');
  }

  free(): void {
    this.#end(this.state);
  }
}

const LZMA_STREAM_END = 1;
const LZMA_MEM_ERROR = 5;
const LZMA_MEMLIMIT_ERROR = 6;
const LZMA_BUF_ERROR = 10;

class XzDecoder extends ZlibLike {
  readonly #init = declare('xz', 'int lzma_stream_decoder(void *stream, uint64_t memoryLimit, uint32_t flags)');
  readonly #code = declare('xz', 'int lzma_code(void *stream, int action)');
  readonly #end = declare('xz', 'void lzma_end(void *stream)');

  constructor() {
    super();
    this.reset();
  }

  step(inputAt: number, inputSize: number, outputAt: number): StepResult {
    this.prepare(inputAt, inputSize, outputAt);
    const result = Number(this.#code(this.state, 0));
    this.account(inputSize, outputAt);
    if (result === 0 || result === LZMA_BUF_ERROR) return 'more';
    if (result === LZMA_STREAM_END) return 'end';
    return result === LZMA_MEM_ERROR || result === LZMA_MEMLIMIT_ERROR
      ? 'memory'
      : { damage: `liblzma error ${result}` };
  }

  /** Of a stream in use it keeps the memory. */
  reset(): void {
    assertStarted(this.#init(this.state, XZ_MEMORY_LIMIT, 0), 'xz');
  }

  free(): void {
    this.#end(this.state);
  }
}

/** ZSTD_error_memory_allocation, ZSTD_error_frameParameter_windowTooLarge. */
const ZSTD_MEMORY_ERRORS = [64, 16];
/** Where the two structures stand in the state: each is a pointer, its size, and how far it is used. */
const ZSTD_OUT = 0;
const ZSTD_IN = 32;

/** Its window is bounded by zstd's own default, 128 MiB, as in the tool. */
class ZstdDecoder extends Decoder {
  readonly #decompress = declare('zstd', 'size_t ZSTD_decompressStream(void *context, void *out, void *in)');
  readonly #errorCode = declare('zstd', 'int ZSTD_getErrorCode(size_t result)');
  readonly #isError = declare('zstd', 'unsigned int ZSTD_isError(size_t result)');
  readonly #free = declare('zstd', 'size_t ZSTD_freeDCtx(void *context)');
  readonly #initStream = declare('zstd', 'size_t ZSTD_initDStream(void *context)');
  readonly #context: bigint;

  constructor() {
    super();
    this.#context = BigInt(declare('zstd', 'void *ZSTD_createDCtx()')());
    assertStarted(this.#context === 0n ? 1 : 0, 'zstd');
    this.reset();
  }

  step(inputAt: number, inputSize: number, outputAt: number): StepResult {
    this.#put(ZSTD_OUT, this.outputAddress + BigInt(outputAt), this.output.length - outputAt);
    this.#put(ZSTD_IN, this.inputAddress + BigInt(inputAt), inputSize);
    const result = this.#decompress(this.#context, this.state + BigInt(ZSTD_OUT), this.state + BigInt(ZSTD_IN));
    this.consumed = this.view.getUint32(ZSTD_IN + 16, true);
    this.produced = this.view.getUint32(ZSTD_OUT + 16, true);
    if (Number(this.#isError(result)) !== 0) {
      const code = Number(this.#errorCode(result));
      return ZSTD_MEMORY_ERRORS.includes(code) ? 'memory' : { damage: `zstd error ${code}` };
    }
    return Number(result) === 0 ? 'end' : 'more';
  }

  #put(at: number, address: bigint, size: number): void {
    this.view.setBigUint64(at, address, true);
    this.view.setBigUint64(at + 8, BigInt(size), true);
    this.view.setBigUint64(at + 16, 0n, true);
  }

  reset(): void {
    this.#initStream(this.#context);
  }

  free(): void {
    this.#free(this.#context);
  }
}

function assertStarted(result: number | bigint, kind: StreamKind): void {
  if (Number(result) === 0) return;
  throw new VmcorralError('INTERNAL', `${LIBRARIES[kind].soname} could not start (${result})`, {
    hint: 'this machine may be out of memory',
  });
}
