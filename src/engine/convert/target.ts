/** Where the coordinator of a conversion writes to, made of what convertImage opened. */

import type { Compression } from '../../model/capture.js';
import { FileOutput, type Output, StreamOutput } from '../formats/output.js';
import type { DumpFacts, DumpWriter } from '../formats/writer.js';
import { type OutputFormat, writerOf } from '../formats/writers.js';
import { startWriteback } from './libc.js';
import type { CoordinatorOutput } from './messages.js';
import { PipeSink } from './pipe-sink.js';

export interface Target {
  open(facts: DumpFacts, compression: Compression): DumpWriter;
  /** After `finish` of the writer. @returns SHA-256 of what went through a pipe */
  close(): string | undefined;
}

export function openTarget(output: CoordinatorOutput, format: OutputFormat, aborted: () => boolean): Target {
  return output.kind === 'pipe'
    ? new PipeTarget(new PipeSink(output.fd, output.name, aborted), format)
    : new FilesTarget(output.fds, format);
}

class FilesTarget implements Target {
  readonly #fds: readonly number[];
  readonly #format: OutputFormat;

  constructor(fds: readonly number[], format: OutputFormat) {
    this.#fds = fds;
    this.#format = format;
  }

  open(facts: DumpFacts, compression: Compression): DumpWriter {
    const outputs = this.#fds.map((fd) => new FileOutput(fd, startWriteback));
    return writerOf(this.#format).open(outputs, facts, compression);
  }

  close(): undefined {
    // On the disk they are when they were checked.
  }
}

class PipeTarget implements Target {
  readonly #sink: PipeSink;
  readonly #format: OutputFormat;

  constructor(sink: PipeSink, format: OutputFormat) {
    this.#sink = sink;
    this.#format = format;
  }

  open(facts: DumpFacts, compression: Compression): DumpWriter {
    const output: Output = new StreamOutput(this.#sink);
    return writerOf(this.#format).open([output], facts, compression);
  }

  close(): string {
    return this.#sink.digest();
  }
}
