/** What a job of the convert queue does: image to dump, and what the guest's kernel says about itself. */

import { existsSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { convertWithDigest } from '../../engine/convert/convert.js';
import { examineFile } from '../../engine/convert/examine.js';
import type { KernelExamination } from '../../engine/linux/examine.js';
import { formatReport, type ReportInput } from '../../engine/linux/report.js';
import { isVmcorralError, toVmcorralError, VmcorralError } from '../../model/errors.js';
import { DUMP_FILE } from '../../model/manifest.js';
import type { JobPayload } from '../queue/payload.js';
import { type CapturedFacts, type ConvertedFacts, type Journal, readJournal, writeJournal } from '../spool/journal.js';
import { SpoolFile } from '../spool/spool.js';
import type { StepControl } from './capture.js';
import type { CollectorContext } from './context.js';
import { convertedFacts } from './converted-facts.js';
import { describeDump } from './describe-dump.js';

/** May run again at any point: it starts from the image, and removes that only when the dump stands. */
export async function runConvert(context: CollectorContext, payload: JobPayload, control: StepControl): Promise<void> {
  const folder = context.spool.folder(payload.id);
  const journal = await readJournal(folder);
  if (journal?.stage === 'converted') return;
  if (!journal?.captured || journal.stage !== 'captured') throw nothingToConvert(payload.id, journal);
  try {
    const converted =
      journal.converted === undefined
        ? await convert(context, folder, payload, control)
        : await filterDump(context, folder, payload, control, journal, journal.converted);
    const examination = await examineFile(join(folder, SpoolFile.dump));
    const examined = { kernel: examination.kernel, panic: panicOf(examination, journal.captured) };
    const foldedEvents = await context.marks.foldedEvents(payload.id).catch(() => 0);
    await writeEvidence(folder, examination, {
      ...describeDump({
        journal,
        captured: journal.captured,
        converted,
        examined,
        foldedEvents,
        files: [],
        version: context.version,
      }),
      dumpBytes: converted.dumpBytes,
      dumpFile: DUMP_FILE,
      examination: { ...examination, panic: examined.panic },
    });
    await writeJournal(folder, {
      ...journal,
      stage: 'converted',
      converted: withWarnings(converted, examination),
      examined,
    });
  } catch (error) {
    if (
      isVmcorralError(error) &&
      (error.code === 'CORRUPT' || error.code === 'TRUNCATED' || error.code === 'UNSUPPORTED')
    ) {
      await writeJournal(folder, { ...journal, stage: 'failed', error: error.toRecord() });
      throw keptImage(error, folder);
    }
    throw error;
  }
  await rm(join(folder, SpoolFile.image), { force: true });
}

async function convert(
  context: CollectorContext,
  folder: string,
  payload: JobPayload,
  control: StepControl,
): Promise<ConvertedFacts> {
  const output = join(folder, SpoolFile.dump);
  // What an earlier try left: whole or not, it is made again.
  await rm(output, { force: true });
  await rm(`${output}.partial`, { force: true });
  return convertedFacts(
    await convertWithDigest(conversion(context, payload, control, join(folder, SpoolFile.image), output)),
  );
}

/**
 * A dump that was written while its image arrived holds all pages: nothing was known of the kernel yet. It is filtered now. Where there
 * is no room for that it stays as it is: a dump too large is better than none, and its manifest says so. The journal knows the
 * filtered dump before that takes the other's place: a try after one that died must not tell of one what is true of the other.
 */
async function filterDump(
  context: CollectorContext,
  folder: string,
  payload: JobPayload,
  control: StepControl,
  journal: Journal,
  unfiltered: ConvertedFacts,
): Promise<ConvertedFacts> {
  if (payload.level <= 1) return unfiltered;
  const dump = join(folder, SpoolFile.dump);
  const output = join(folder, SpoolFile.filtered);
  let { filtered } = journal;
  if (filtered === undefined) {
    await rm(output, { force: true });
    await rm(`${output}.partial`, { force: true });
    try {
      const again = await convertWithDigest(conversion(context, payload, control, dump, output));
      filtered = convertedFacts(again, unfiltered);
      await writeJournal(folder, { ...journal, filtered });
    } catch (error) {
      if (toVmcorralError(error).code !== 'NO_SPACE') throw error;
      await rm(output, { force: true });
      return unfiltered;
    }
  }
  // Not there: the try before came so far, too.
  if (existsSync(output)) await rename(output, dump);
  return filtered;
}

function conversion(
  { config }: CollectorContext,
  { compression, level }: JobPayload,
  control: StepControl,
  path: string,
  output: string,
): Parameters<typeof convertWithDigest>[0] {
  const workers = config.convert.workers > 0 ? { workers: config.convert.workers } : {};
  return { ...control, ...workers, input: { kind: 'file', path }, output, compression, level };
}

async function writeEvidence(folder: string, { log }: KernelExamination, report: ReportInput): Promise<void> {
  if (log !== '') await writeFile(join(folder, 'vmcore-dmesg.txt'), log, { mode: 0o600 });
  await writeFile(join(folder, 'report.txt'), formatReport(report), { mode: 0o600 });
}

function withWarnings(converted: ConvertedFacts, { warnings }: KernelExamination): ConvertedFacts {
  return { ...converted, warnings: [...converted.warnings, ...warnings] };
}

/** The hypervisor's word counts where the kernel left none: a guest that crashed is no "running or hung" one. */
function panicOf({ panic }: KernelExamination, captured: CapturedFacts): KernelExamination['panic'] {
  if (panic.kind !== 'none' || !captured.stateBefore.startsWith('crashed')) return panic;
  return { kind: 'panic', message: 'the hypervisor says the guest panicked; its kernel log has no panic line' };
}

function nothingToConvert(id: string, journal: Journal | undefined): VmcorralError {
  if (journal?.error) return VmcorralError.fromRecord(journal.error);
  return new VmcorralError('CAPTURE_FAILED', `the spool holds no image of capture ${id}`, {
    hint: 'its folder was removed by hand, or this host is not the one that captured',
  });
}

function keptImage(error: VmcorralError, folder: string): VmcorralError {
  return new VmcorralError(error.code, `the image could not be converted: ${error.message}`, {
    hint: `it is kept in ${folder}; the guest is back, a new capture may do better`,
    facts: { ...error.facts, folder },
    cause: error,
  });
}
