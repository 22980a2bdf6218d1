/** A conversion with the options that most tests want. */

import path from 'node:path';
import { type ConvertOptions, type ConvertResult, convertImage } from '#src/engine/convert/convert.js';
import type { VmcorralError } from '#src/model/errors.js';
import { fileOf, testFolder } from './engine-files.js';

export function runConvert(options: Partial<ConvertOptions> & Pick<ConvertOptions, 'input'>): Promise<ConvertResult> {
  return convertImage({
    output: path.join(testFolder(), 'vmcore'),
    compression: 'zlib',
    workers: 2,
    signal: new AbortController().signal,
    onProgress: () => undefined,
    ...options,
  });
}

export async function convertBytes(
  bytes: Uint8Array,
  options: Partial<Omit<ConvertOptions, 'output'>> & { readonly output?: string } = {},
): Promise<ConvertResult & { readonly output: string }> {
  const output = options.output ?? path.join(testFolder(), 'vmcore');
  const result = await runConvert({ input: { kind: 'file', path: fileOf(bytes) }, ...options, output });
  return { ...result, output };
}

export async function rejection(promise: Promise<unknown>): Promise<VmcorralError> {
  try {
    await promise;
  } catch (error) {
    return error as VmcorralError;
  }
  throw new Error('it did not fail');
}
