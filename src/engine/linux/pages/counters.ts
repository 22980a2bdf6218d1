/**
 * How many pages of a kind the guest's kernel itself counts: what a classification is held against.
 *
 * References: kernel include/linux/mmzone.h (`struct zone`, `enum node_stat_item`), mm/vmstat.c (`vmstat_text`);
 * LINUX-MEMORY 6. The counters are summed over CPUs only now and then: each CPU holds back up to 125 pages a zone.
 */

import { findSymbols } from '../kallsyms.js';
import { KernelMemory } from '../kernel-memory.js';
import type { ProvenKernel } from '../kernel-proof.js';
import type { AddressSpace } from '../paging.js';
import type { Vmcoreinfo } from '../vmcoreinfo.js';

/** In pages; undefined where the kernel doesn't tell. */
export interface KernelCounters {
  readonly free: number | undefined;
  /** Anonymous pages that are mapped. */
  readonly anonymous: number | undefined;
  /** Page cache, shared memory and swap cache included. */
  readonly file: number | undefined;
  /** Pages that have a copy in the swap area: anonymous ones mostly, mapped or not. 0 before 5.12, which doesn't count. */
  readonly swapCached: number;
}

const MAX_NODES = 1024;
const MAX_ZONES = 8;
const MAX_STAT_NAMES = 512;
const MAX_NAME_BYTES = 48;
/** The first of `enum node_stat_item`: from its name on, vmstat_text names the node's counters. */
const FIRST_NODE_STAT = 'nr_inactive_anon';
export const COUNTER_SYMBOLS = ['vm_zone_stat', 'vm_node_stat', 'vmstat_text'] as const;

/** What the kernel counts of its own memory, in pages; undefined where it doesn't tell. */
export interface KernelUse {
  readonly stacks: number | undefined;
  /** Of processes. */
  readonly pageTables: number | undefined;
  readonly perCpu: number | undefined;
}

const USE_SYMBOLS = new Set(['vm_node_stat', 'vmstat_text']);
/** mm/percpu.c, `pcpu_nr_pages`: populated pages of one unit, and how many units there are. */
const USE_STATICS = new Set(['pcpu_nr_populated', 'pcpu_nr_units']);
const MAX_UNITS = 8192;

/** The same that /proc/meminfo calls KernelStack, PageTables and Percpu. Empty for kernels before 6.0. */
export function readKernelUse(kernel: ProvenKernel, info: Vmcoreinfo): KernelUse {
  const hasSymbols = info.has('SYMBOL(kallsyms_names)');
  const symbols = hasSymbols ? findSymbols(kernel.space, info, USE_SYMBOLS, USE_STATICS) : new Map<string, bigint>();
  const memory = new KernelMemory(kernel.space);
  const count = counterReader(memory);
  const names = nodeStatNames(memory, symbols.get('vmstat_text'));
  const stackKib = count(symbols.get('vm_node_stat'), names.get('nr_kernel_stack'));
  const unitPages = count(symbols.get('pcpu_nr_populated'), 0);
  const unitsAt = symbols.get('pcpu_nr_units');
  const units = unitsAt === undefined ? undefined : memory.u32(unitsAt);
  return {
    stacks: stackKib === undefined ? undefined : Math.round((stackKib * 1024) / (info.pageSize ?? 4096)),
    pageTables: count(symbols.get('vm_node_stat'), names.get('nr_page_table_pages')),
    perCpu: unitPages === undefined || units === undefined || units > MAX_UNITS ? undefined : unitPages * units,
  };
}

/** @param symbols COUNTER_SYMBOLS, as far as they were found */
export function readCounters(
  space: AddressSpace,
  info: Vmcoreinfo,
  symbols: ReadonlyMap<string, bigint>,
): KernelCounters {
  const memory = new KernelMemory(space);
  const counter = counterReader(memory);
  const names = nodeStatNames(memory, symbols.get('vmstat_text'));
  const nodeStat = symbols.get('vm_node_stat');
  return {
    free: freePagesOfZones(space, info) ?? counter(symbols.get('vm_zone_stat'), 0),
    anonymous: counter(nodeStat, names.get('nr_anon_pages')),
    file: counter(nodeStat, names.get('nr_file_pages')),
    swapCached: counter(nodeStat, names.get('nr_swapcached')) ?? 0,
  };
}

/** Reads one of an array of counters. */
function counterReader(memory: KernelMemory) {
  return (at: bigint | undefined, index: number | undefined): number | undefined => {
    const value = at === undefined || index === undefined ? undefined : memory.u64(at + BigInt(index * 8));
    // Signed, and negative for a moment when CPUs hold back.
    return value === undefined ? undefined : Math.max(0, Number(BigInt.asIntN(64, value)));
  };
}

/** Index of each node counter by its name. */
function nodeStatNames(memory: KernelMemory, table: bigint | undefined): Map<string, number> {
  const names = new Map<string, number>();
  if (table === undefined) return names;
  let first: number | undefined;
  for (let i = 0; i < MAX_STAT_NAMES; i++) {
    const pointer = memory.u64(table + BigInt(i * 8));
    const name = pointer === undefined || pointer === 0n ? undefined : memory.string(pointer, MAX_NAME_BYTES);
    if (name === undefined || !/^[a-z0-9_]+$/.test(name)) break;
    if (name === FIRST_NODE_STAT) first = i;
    if (first !== undefined) names.set(name, i - first);
  }
  return names;
}

/** Over all zones of all nodes; needs no symbol table, so that kernels before 6.0 tell, too. */
function freePagesOfZones(space: AddressSpace, info: Vmcoreinfo): number | undefined {
  const zones = info.offset('pglist_data.node_zones');
  const count = info.offset('pglist_data.nr_zones');
  const zoneBytes = info.size('zone');
  const stat = info.offset('zone.vm_stat');
  const index = info.number('NR_FREE_PAGES');
  if (zones === undefined || count === undefined || zoneBytes === undefined || stat === undefined) return undefined;
  if (index === undefined || index < 0n || index > 64n) return undefined;
  const memory = new KernelMemory(space);
  let sum: number | undefined;
  for (const node of nodes(memory, info)) {
    const zoneCount = memory.u32(node + BigInt(count)) ?? 0;
    if (zoneCount > MAX_ZONES) return undefined;
    for (let zone = 0; zone < zoneCount; zone++) {
      const at = node + BigInt(zones + zone * zoneBytes + stat + Number(index) * 8);
      const pages = memory.u64(at);
      if (pages === undefined) return undefined;
      sum = (sum ?? 0) + Math.max(0, Number(BigInt.asIntN(64, pages)));
    }
  }
  return sum;
}

function nodes(memory: KernelMemory, info: Vmcoreinfo): bigint[] {
  const only = info.symbol('contig_page_data');
  if (only !== undefined) return [only];
  const table = info.symbol('node_data');
  const length = Math.min(info.length('node_data') ?? 0, MAX_NODES);
  const bytes = table === undefined ? undefined : memory.bytes(table, length * 8);
  if (bytes === undefined) return [];
  const view = new DataView(bytes.buffer);
  return Array.from({ length }, (_, i) => view.getBigUint64(i * 8, true)).filter((pointer) => pointer !== 0n);
}
