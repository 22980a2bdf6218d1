import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';
import { openImage, readableFormats, sniffHead, sniffImage } from '#src/engine/formats/registry.js';
import { errorOf, fileOf, imageOf, testFolder } from '../../../builders/engine-files.js';

test.each([
  ['LibvirtQemudPart', 'libvirt-save-unfinished'],
  ['\xd0\xbe\xd0\xbe', 'vmware-old'],
  ['\xee\xbe\x0f\xf0', 'xc-core'],
  ['\xed\x23\x8f\x61\x73\x01\x19\xa8', 'lkcd'],
  ['sadump\0\0', 'sadump'],
  ['PAGEDU64', 'windows-crash'],
  ['MDMP', 'windows-minidump'],
  ['HIBR', 'windows-hibernation'],
  ['\x14\x20\x28\x01', 'hyper-v'],
  ['\x7fVirtualBox SavedState V2.0', 'virtualbox'],
  ['QFI\xfb', 'qcow2'],
  ['KDMV', 'vmdk'],
])('%j is refused by its name, %s', (magic, name) => {
  const bytes = Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.alloc(200)]);
  const error = errorOf(() => imageOf(bytes));
  expect(error).toMatchObject({ code: 'UNSUPPORTED', facts: { format: name } });
  expect(error.hint).toBeTruthy();
  expect(sniffHead(bytes)).toMatchObject({ name, kind: 'refused' });
});

test('what nobody knows is UNSUPPORTED with the first bytes and what can be read', () => {
  const error = errorOf(() => imageOf(Buffer.from('hello, this is no dump')));
  expect(error).toMatchObject({
    code: 'UNSUPPORTED',
    facts: { firstBytes: Buffer.from('hello, this is n').toString('hex') },
  });
  expect(error.hint).toContain('kdump-compressed');
  expect(readableFormats().map(({ name }) => name)).toEqual(
    expect.arrayContaining(['xen-core', 'elf', 'kdump-compressed', 'flattened', 'gzip']),
  );
});

test('an empty file is TRUNCATED, no file NOT_FOUND, a folder or FIFO UNSUPPORTED without blocking', () => {
  expect(errorOf(() => imageOf(Buffer.alloc(0))).code).toBe('TRUNCATED');
  const folder = testFolder();
  expect(errorOf(() => openImage(path.join(folder, 'nothing'))).code).toBe('NOT_FOUND');
  expect(errorOf(() => openImage(folder)).code).toBe('UNSUPPORTED');
  execFileSync('mkfifo', [path.join(folder, 'fifo')]);
  expect(errorOf(() => openImage(path.join(folder, 'fifo'))).code).toBe('UNSUPPORTED');
});

test('sniffing a file opens nothing', () => {
  expect(sniffImage(fileOf(Buffer.from('KDUMP   ')))).toMatchObject({ name: 'kdump-compressed', kind: 'image' });
  expect(sniffImage(fileOf(Buffer.from('?')))).toBeUndefined();
});
