/** Everything that vmcorral says about a guest's kernel, out of one image. */

import type { KernelFacts, PanicFacts } from '../../model/manifest.js';
import type { MemoryImage } from '../image/memory-image.js';
import { type FoundVmcoreinfo, findVmcoreinfo, type VmcoreinfoSource } from './find-kernel.js';
import { readKernelLog } from './kernel-log.js';
import type { ProvenKernel } from './kernel-proof.js';
import { type KernelState, readKernelState } from './kernel-state.js';
import { formatLog, type LogReading } from './log-text.js';
import { findPanic, type PanicDetails } from './panic.js';
import { tolerant } from './tolerant-image.js';

/** Plain data: it crosses threads. */
export interface KernelExamination {
  readonly kernel: KernelFacts;
  readonly panic: PanicFacts;
  readonly panicDetails: PanicDetails;
  /** The kernel log as dmesg prints it; empty where it could not be read. */
  readonly log: string;
  readonly vmcoreinfo?: { readonly text: string; readonly source: VmcoreinfoSource };
  /** How kernel addresses become physical ones. */
  readonly paging?: {
    readonly machine: ProvenKernel['machine'];
    readonly root: number;
    readonly levels: number;
    readonly physBase?: string;
  };
  readonly warnings: readonly string[];
}

const NO_LOG: LogReading = { records: [], warnings: [] };

/**
 * Never throws for what the memory holds: an image that isn't understood gives warnings and empty facts.
 * Damaged parts of the image count as absent, with a warning.
 * Takes seconds where guest memory has to be searched for VMCOREINFO: belongs in a worker thread.
 */
export function examineImage(damagedOrNot: MemoryImage): KernelExamination {
  const image = tolerant(damagedOrNot);
  const { found, warnings } = findVmcoreinfo(image);
  const { kernel, info } = found ?? {};
  const log = kernel === undefined || info === undefined ? NO_LOG : readKernelLog(kernel.space, info);
  const { facts, details } = findPanic(log.records);
  const last = (log.records.findLast(({ microseconds }) => microseconds !== undefined)?.microseconds ?? 0) / 1e6;
  const state: KernelState =
    kernel === undefined || info === undefined ? {} : readKernelState(kernel.space, info, last);
  const doubts = doubtsAbout(details, state);
  const faults = image.firstFault === undefined ? [] : [`parts of the image can't be read: ${image.firstFault}`];
  return {
    kernel: found === undefined ? {} : kernelFacts(found, { uptimeSeconds: last, ...state }),
    panic: { ...facts, ...placeOf(details) },
    panicDetails: details,
    log: formatLog(log.records),
    ...(info === undefined || found === undefined ? {} : { vmcoreinfo: { text: info.text, source: found.source } }),
    ...(kernel === undefined ? {} : { paging: pagingFacts(kernel) }),
    warnings: [...faults, ...warnings, ...log.warnings, ...doubts],
  };
}

/** The kernel knows that it is in panic() before it has said so, and also where its log is lost. */
function doubtsAbout({ verdict }: PanicDetails, { panicCpu }: KernelState): string[] {
  if (panicCpu === undefined || verdict === 'panicked') return [];
  return [`CPU ${panicCpu} was in panic(), but the kernel log has no panic line`];
}

/** Where it happened, for those who keep only the facts. */
function placeOf({ cpu, task, pid, taint }: PanicDetails): Pick<PanicFacts, 'cpu' | 'task' | 'pid' | 'taint'> {
  return {
    ...(cpu === undefined ? {} : { cpu }),
    ...(task === undefined ? {} : { task }),
    ...(pid === undefined ? {} : { pid }),
    ...(taint === undefined ? {} : { taint }),
  };
}

function kernelFacts({ info, kernel }: FoundVmcoreinfo, { uptimeSeconds = 0, clockSeconds }: KernelState): KernelFacts {
  const facts: { -readonly [K in keyof KernelFacts]: KernelFacts[K] } = {};
  if (info.release !== undefined) facts.release = info.release;
  if (info.buildId !== undefined) facts.buildId = info.buildId;
  if (kernel !== undefined) {
    facts.version = kernel.uts.version;
    // "(none)" is what a kernel has that nobody gave a name.
    if (kernel.uts.nodename !== '(none)') facts.hostname = kernel.uts.nodename;
  }
  const offset = info.kernelOffset;
  if (offset !== undefined) facts.kaslrOffset = `0x${offset.toString(16)}`;
  if (uptimeSeconds > 0) facts.uptimeSeconds = uptimeSeconds;
  if (clockSeconds !== undefined) facts.clock = new Date(clockSeconds * 1000).toISOString();
  // A number of seconds that the guest wrote: what is no time of this age is none.
  if (info.crashTime !== undefined && info.crashTime > 0 && info.crashTime < 2 ** 32) {
    facts.crashTime = new Date(info.crashTime * 1000).toISOString();
  }
  return facts;
}

function pagingFacts({ machine, space, physBase }: ProvenKernel): NonNullable<KernelExamination['paging']> {
  const where = { machine, root: space.root, levels: space.levels };
  return physBase === undefined ? where : { ...where, physBase: String(physBase) };
}
