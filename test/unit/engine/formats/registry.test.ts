import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';
import { KNOWN_MAGICS } from '#src/engine/formats/refused.js';
import { formatCapabilities, openImage, readableFormats, sniffHead, sniffImage } from '#src/engine/formats/registry.js';
import { errorOf, fileOf, imageOf, testFolder } from '../../../builders/engine-files.js';

/** First bytes as the formats' own sources have them, by hand: the table of src/ is held against these. */
const SAMPLES: readonly (readonly [magic: string, name: string, at?: number])[] = [
  ['LibvirtQemudPart', 'libvirt-save-unfinished'],
  ['libvirt-xml\n \0 \r', 'libxl-save'],
  ['Xen saved domain, xl format\n \0 \r', 'xl-save'],
  ['\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\x02', 'xl-save'],
  ['\xd0\xbe\xd0\xbe', 'vmware-old'],
  ['\x9e\xdd\x43\x89', 'vmware-encrypted'],
  ['\xee\xbe\x0f\xf0', 'xc-core'],
  ['\xed\x23\x8f\x61\x73\x01\x19\xa8', 'lkcd'],
  ['\xa8\x19\x01\x73\x61\x8f\x23\xfd', 's390-dump'],
  ['sadump\0\0', 'sadump'],
  ['sadump\0\0', 'sadump-media', 4096],
  ['PAGEDU64', 'windows-crash'],
  ['MDMP', 'windows-minidump'],
  ['HIBR', 'windows-hibernation'],
  ['\x14\x20\x28\x01', 'hyper-v'],
  ['\x7fVirtualBox SavedState V2.0', 'virtualbox'],
  ['vhdxfile', 'vhdx'],
  ['QFI\xfb', 'qcow2'],
  ['KDMV', 'vmdk'],
  ['<<< Oracle VM VirtualBox Disk Image >>>\n', 'vdi'],
];

/** Bytes that no format begins with, and a magic among them. */
function fileWith(magic: Uint8Array, at: number): Buffer {
  return Buffer.concat([Buffer.alloc(at, 0xab), magic, Buffer.alloc(200)]);
}

function expectRefusedAs(bytes: Buffer, name: string): void {
  const error = errorOf(() => imageOf(bytes));
  expect(error).toMatchObject({ code: 'UNSUPPORTED', facts: { format: name } });
  expect(error.hint).toBeTruthy();
  expect(sniffHead(bytes)).toMatchObject({ name, kind: 'refused' });
}

test.each(SAMPLES.map(([magic, name, at = 0]) => ({ magic, name, at })))(
  '$name is refused by its name',
  ({ magic, name, at }) => {
    expectRefusedAs(fileWith(Buffer.from(magic, 'latin1'), at), name);
  },
);

test('each refused format has a sample, and each of its magics is found', () => {
  const names = formatCapabilities()
    .filter(({ kind }) => kind === 'refused')
    .map(({ name }) => name);
  expect([...new Set(SAMPLES.map(([, name]) => name))].sort()).toEqual([...names].sort());
  for (const { name, magics, at = 0 } of KNOWN_MAGICS) {
    for (const magic of magics) {
      const bytes = typeof magic === 'string' ? Buffer.from(magic, 'latin1') : Buffer.from(magic);
      expectRefusedAs(fileWith(bytes, at), name);
    }
  }
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
