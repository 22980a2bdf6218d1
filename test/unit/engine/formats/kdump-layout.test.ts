/** The offsets of layout.ts against a C compiler, from the structures as makedumpfile and crash declare them. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { Ehdr, Ehdr32, Phdr, Phdr32, Shdr, Shdr32 } from '#src/engine/formats/elf/layout.js';
import {
  DiskDumpHeader,
  DiskDumpHeader32,
  KdumpSubHeader,
  KdumpSubHeaderArm,
  KdumpSubHeaderI386,
} from '#src/engine/formats/kdump/layout.js';
import { testFolder } from '../../../builders/engine-files.js';

const MAIN_HEADER = {
  signature: 'signature',
  headerVersion: 'header_version',
  sysname: 'u.sysname',
  nodename: 'u.nodename',
  release: 'u.release',
  version: 'u.version',
  machine: 'u.machine',
  domainname: 'u.__domainname',
  timestampSeconds: 'ts.tv_sec',
  timestampMicroseconds: 'ts.tv_usec',
  status: 'status',
  blockSize: 'block_size',
  subHeaderSize: 'sub_hdr_size',
  bitmapBlocks: 'bitmap_blocks',
  maxMapnr: 'max_mapnr',
  totalRamBlocks: 'total_ram_blocks',
  deviceBlocks: 'device_blocks',
  writtenBlocks: 'written_blocks',
  currentCpu: 'current_cpu',
  nrCpus: 'nr_cpus',
};
const SUB_HEADER = {
  physBase: 'phys_base',
  dumpLevel: 'dump_level',
  split: 'split',
  startPfn: 'start_pfn',
  endPfn: 'end_pfn',
  offsetVmcoreinfo: 'offset_vmcoreinfo',
  sizeVmcoreinfo: 'size_vmcoreinfo',
  offsetNote: 'offset_note',
  sizeNote: 'size_note',
  offsetEraseinfo: 'offset_eraseinfo',
  sizeEraseinfo: 'size_eraseinfo',
  startPfn64: 'start_pfn_64',
  endPfn64: 'end_pfn_64',
  maxMapnr64: 'max_mapnr_64',
};

/** Ours: [structure in C, field in C] by table and name. */
const TABLES = [
  { c: 'struct disk_dump_header', table: DiskDumpHeader, names: MAIN_HEADER },
  { c: 'struct kdump_sub_header', table: KdumpSubHeader, names: SUB_HEADER },
  { c: 'struct disk_dump_header_32', table: DiskDumpHeader32, names: MAIN_HEADER },
  { c: 'struct kdump_sub_header_i386', table: KdumpSubHeaderI386, names: SUB_HEADER },
  { c: 'struct kdump_sub_header_arm', table: KdumpSubHeaderArm, names: SUB_HEADER },
  { c: 'Elf64_Ehdr', table: Ehdr, names: prefixed('e_', Object.keys(Ehdr.fields)) },
  { c: 'Elf64_Phdr', table: Phdr, names: prefixed('p_', Object.keys(Phdr.fields)) },
  { c: 'Elf64_Shdr', table: Shdr, names: prefixed('sh_', Object.keys(Shdr.fields)) },
  { c: 'Elf32_Ehdr', table: Ehdr32, names: prefixed('e_', Object.keys(Ehdr32.fields)) },
  { c: 'Elf32_Phdr', table: Phdr32, names: prefixed('p_', Object.keys(Phdr32.fields)) },
  { c: 'Elf32_Shdr', table: Shdr32, names: prefixed('sh_', Object.keys(Shdr32.fields)) },
] as const;

function prefixed(prefix: string, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, prefix + name]));
}

const DECLARATIONS = `
#define _GNU_SOURCE
#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/utsname.h>
#define __domainname domainname
#define HEADER(NAME, TIME) struct NAME { \\
  char signature[8]; int header_version; struct utsname u; struct { TIME tv_sec, tv_usec; } ts; unsigned status; \\
  int block_size; int sub_hdr_size; unsigned bitmap_blocks; unsigned max_mapnr; unsigned total_ram_blocks; \\
  unsigned device_blocks; unsigned written_blocks; unsigned current_cpu; int nr_cpus; };
#define SUB_HEADER(NAME, LONG, WIDE) struct NAME { \\
  LONG phys_base; int dump_level; int split; LONG start_pfn, end_pfn; WIDE offset_vmcoreinfo; LONG size_vmcoreinfo; \\
  WIDE offset_note; LONG size_note; WIDE offset_eraseinfo; LONG size_eraseinfo; WIDE start_pfn_64, end_pfn_64, \\
  max_mapnr_64; };
/* i386 aligns 64-bit fields to 4 bytes, arm to 8. */
typedef uint64_t __attribute__((aligned(4))) u64_i386;
HEADER(disk_dump_header, uint64_t)
HEADER(disk_dump_header_32, uint32_t)
SUB_HEADER(kdump_sub_header, uint64_t, uint64_t)
SUB_HEADER(kdump_sub_header_i386, uint32_t, u64_i386)
SUB_HEADER(kdump_sub_header_arm, uint32_t, uint64_t)`;

test('structures have the sizes and offsets that a C compiler gives them', () => {
  const lines = TABLES.flatMap(({ c, names }) => [
    `printf("%zu\\n", sizeof(${c}));`,
    ...Object.values(names).map((name) => `printf("%zu\\n", offsetof(${c}, ${name}));`),
  ]);
  const folder = testFolder();
  const program = path.join(folder, 'layout');
  fs.writeFileSync(`${program}.c`, `${DECLARATIONS}\nint main(void) {\n${lines.join('\n')}\n}\n`);
  execFileSync('gcc', ['-o', program, `${program}.c`]);
  const compiled = execFileSync(program, { encoding: 'utf8' }).trim().split('\n').map(Number);
  const ours = TABLES.flatMap(({ table, names }) => {
    const fields: Readonly<Record<string, { readonly offset: number }>> = table.fields;
    expect(Object.keys(names).sort()).toEqual(Object.keys(fields).sort());
    return [table.size, ...Object.keys(names).map((name) => fields[name]!.offset)];
  });
  expect(ours).toEqual(compiled);
});
