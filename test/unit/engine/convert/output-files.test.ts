/** Names and files of a conversion's output. */

import fs from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { OutputFiles } from '#src/engine/convert/output-files.js';
import { errorOf, testFolder } from '../../../builders/engine-files.js';

function opened(paths: readonly string[], replace = false): OutputFiles {
  const files = new OutputFiles(paths, replace);
  onTestFinished(() => files.close());
  return files;
}

function filled(paths: readonly string[], text: string): OutputFiles {
  const files = opened(paths, true);
  for (const fd of files.fds) fs.writeSync(fd, text);
  return files;
}

test('of two conversions to the same name the second is told, and the first ends well', () => {
  const output = path.join(testFolder(), 'vmcore');
  const first = filled([output], 'first');
  expect(errorOf(() => opened([output])).code).toBe('BUSY');
  first.publish();
  expect(fs.readFileSync(output, 'utf8')).toBe('first');
  expect(fs.readdirSync(path.dirname(output))).toEqual(['vmcore']);
});

test('what a conversion that was killed left makes way', () => {
  const output = path.join(testFolder(), 'vmcore');
  fs.writeFileSync(`${output}.partial`, 'half of it');
  filled([output], 'whole').publish();
  expect(fs.readFileSync(output, 'utf8')).toBe('whole');
});

test('a link in the place of what is being written is not followed', () => {
  const folder = testFolder();
  const output = path.join(folder, 'vmcore');
  fs.writeFileSync(path.join(folder, 'other'), 'mine');
  fs.symlinkSync(path.join(folder, 'other'), `${output}.partial`);
  filled([output], 'dump').publish();
  expect(fs.readFileSync(path.join(folder, 'other'), 'utf8')).toBe('mine');
  expect(fs.readFileSync(output, 'utf8')).toBe('dump');
});

test('a file that somebody else put there is not taken away', () => {
  const output = path.join(testFolder(), 'vmcore');
  const files = filled([output], 'dump');
  fs.rmSync(`${output}.partial`);
  fs.writeFileSync(`${output}.partial`, 'theirs');
  expect(errorOf(() => files.publish()).code).toBe('BUSY');
  files.discard(new Error('any'));
  expect(fs.readFileSync(`${output}.partial`, 'utf8')).toBe('theirs');
});

test('parts that replace others: all or none', () => {
  const folder = testFolder();
  const outputs = [1, 2, 3].map((part) => path.join(folder, `vmcore-${part}`));
  for (const output of outputs.slice(0, 2)) fs.writeFileSync(output, 'old');
  const files = filled(outputs, 'new');
  // A folder can not be replaced by a file.
  fs.mkdirSync(outputs[2]!);
  expect(() => files.publish()).toThrow(/EISDIR|ENOTEMPTY|EEXIST|EPERM/);
  files.discard(new Error('any'));
  expect(outputs.slice(0, 2).map((output) => fs.readFileSync(output, 'utf8'))).toEqual(['old', 'old']);
  expect(fs.readdirSync(folder).sort()).toEqual(['vmcore-1', 'vmcore-2', 'vmcore-3']);
  fs.rmdirSync(outputs[2]!);
  filled(outputs, 'new').publish();
  expect(outputs.map((output) => fs.readFileSync(output, 'utf8'))).toEqual(['new', 'new', 'new']);
  expect(fs.readdirSync(folder).sort()).toEqual(['vmcore-1', 'vmcore-2', 'vmcore-3']);
});
