/** Runs one command line in this process, with streams that are kept. No configuration, no service. */

import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { CliIo, type IoStreams } from '#src/cli/io.js';
import { runCli } from '#src/cli/run.js';
import type { Service } from '#src/collector/service/service.js';
import { VmcorralError } from '#src/model/errors.js';

export interface VerbRun {
  readonly exit: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface VerbOptions {
  readonly service?: Partial<Service>;
  readonly signals?: EventEmitter;
  readonly isTTY?: boolean;
}

export async function runVerb(argv: readonly string[], options: VerbOptions = {}): Promise<VerbRun> {
  const kept: { out: Buffer[]; err: Buffer[] } = { out: [], err: [] };
  const sink = (chunks: Buffer[]) =>
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        chunks.push(Buffer.from(chunk));
        done();
      },
    });
  const stdout = Object.assign(sink(kept.out), { isTTY: options.isTTY === true });
  const streams: IoStreams = { stdin: process.stdin, stdout, stderr: sink(kept.err), env: {} };
  const unused = () => Promise.reject(new VmcorralError('INTERNAL', 'not for the verbs on files'));
  const exit = await runCli(argv, {
    io: new CliIo(streams),
    version: '0.0.0',
    signals: options.signals ?? new EventEmitter(),
    loadConfig: async () => ({ config: {} }) as never,
    openService: async () => ({ close: async () => {}, ...options.service }) as Service,
    openTokens: unused,
    runUp: unused,
    runWorker: unused,
    runWatch: unused,
    runServe: unused,
  });
  return { exit, stdout: Buffer.concat(kept.out), stderr: Buffer.concat(kept.err).toString('utf8') };
}

/** A folder for one test file, and how to remove it. */
export function scratchFolder(): { readonly path: (name: string) => string; readonly remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'vmcorral-test-'));
  return { path: (name) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
