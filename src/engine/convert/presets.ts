/**
 * Which version of a program opens which output, and the choice of an output for them. Measured with what Debian 12 and
 * 13 have, with dumps of a guest of the same Debian, kernels 6.1 and 6.12; test/lab/writers.test.ts does it again with
 * whatever is installed.
 */

import { COMPRESSIONS, type Compression } from '../../model/capture.js';
import { VmcorralError } from '../../model/errors.js';
import { assertCompression, OUTPUT_FORMATS, type OutputFormat, writerOf } from '../formats/writers.js';

export { OUTPUT_FORMATS, type OutputFormat } from '../formats/writers.js';

type Opens = Readonly<Partial<Record<OutputFormat, readonly Compression[]>>>;

interface Preset {
  readonly program: string;
  readonly version: string;
  readonly opens: Opens;
  /** Opens nothing without it. */
  readonly needsVmcoreinfo: boolean;
  /** Opens the parts of a split dump. */
  readonly opensParts: boolean;
  /** What it filters wrongly, without an error. */
  readonly misfilters?: readonly Misfilter[];
}

interface Misfilter {
  /** Major and minor number of the first kernel. */
  readonly from: readonly [number, number];
  readonly what: string;
}

const ALONE = { needsVmcoreinfo: false, opensParts: false };
const WITH_VMCOREINFO = { needsVmcoreinfo: true, opensParts: false };
const IN_PARTS = { needsVmcoreinfo: false, opensParts: true };
const KDUMP_AND_ELF: Opens = { kdump: COMPRESSIONS, elf: ['none'] };
const WITH_FLATTENED: Opens = { ...KDUMP_AND_ELF, flattened: COMPRESSIONS };

/** The kernel's own memory is lost then; it goes with user data (8). */
const SLAB_GOES = 'slab memory goes as user data';

/** In the order of versions. */
const PRESETS: readonly Preset[] = [
  { program: 'crash', version: '8.0.2', opens: WITH_FLATTENED, ...IN_PARTS },
  { program: 'crash', version: '8.0.6', opens: WITH_FLATTENED, ...IN_PARTS },
  {
    program: 'makedumpfile',
    version: '1.7.2',
    opens: { kdump: ['zlib', 'lzo', 'none'], elf: ['none'] },
    ...WITH_VMCOREINFO,
    // makedumpfile's commit 5f17bdd (1.7.3)
    misfilters: [{ from: [6, 2], what: SLAB_GOES }],
  },
  {
    program: 'makedumpfile',
    version: '1.7.6',
    opens: { kdump: ['zlib', 'lzo', 'zstd', 'none'], elf: ['none'] },
    ...WITH_VMCOREINFO,
    // makedumpfile's commits 72c3414 (1.7.7) and f50c015 (after 1.7.9)
    misfilters: [
      { from: [6, 12], what: 'free pages stay' },
      { from: [7, 1], what: SLAB_GOES },
    ],
  },
  { program: 'drgn', version: '0.0.22', opens: KDUMP_AND_ELF, ...WITH_VMCOREINFO },
  { program: 'drgn', version: '0.0.31', opens: WITH_FLATTENED, ...WITH_VMCOREINFO },
  { program: 'libkdumpfile', version: '0.5.1', opens: KDUMP_AND_ELF, ...ALONE },
  { program: 'libkdumpfile', version: '0.5.4', opens: WITH_FLATTENED, ...ALONE },
  { program: 'gdb', version: '13.1', opens: { elf: ['none'] }, ...ALONE },
  { program: 'gdb', version: '16.3', opens: { elf: ['none'] }, ...ALONE },
];

/** For help texts and the README: `crash-8.0.2`. Without its version a name means all versions of it that are known. */
export const PRESET_NAMES: readonly string[] = PRESETS.map(nameOf);

export interface OutputChoice {
  readonly format: OutputFormat;
  readonly compression: Compression;
}

export interface OutputWish {
  readonly format: OutputFormat | undefined;
  readonly compression: Compression | undefined;
  /** Names of readers that must all open it. */
  readonly readers: readonly string[];
  readonly isPipe: boolean;
  /** Files that it is written to. */
  readonly parts: number;
}

/**
 * The most useful output that fits the wish.
 * @throws USAGE for an unknown reader, and where the wish contradicts itself: by name
 */
export function chooseOutput(wish: OutputWish): OutputChoice {
  const readers = wish.readers.flatMap(presetsOf);
  const possible = choices().filter(
    ({ format, compression }) =>
      (wish.format ?? format) === format &&
      (wish.compression ?? compression) === compression &&
      (writerOf(format).isStream || !wish.isPipe) &&
      // To a file it is only the detour for pipes.
      (format !== 'flattened' || wish.isPipe || wish.format === format),
  );
  if (possible.length === 0) throw contradiction(wish);
  const fits = (choice: OutputChoice, { opens, opensParts }: Preset) =>
    opens[choice.format]?.includes(choice.compression) === true && (wish.parts === 1 || opensParts);
  const chosen = possible.find((choice) => readers.every((reader) => fits(choice, reader)));
  if (chosen !== undefined) return chosen;
  const refusing = readers.find((reader) => !possible.some((choice) => fits(choice, reader)));
  const names = (refusing === undefined ? readers : [refusing]).map(nameOf);
  throw new VmcorralError(
    'USAGE',
    `${names.join(' and ')}: ${describe(wish)} is not opened by ${names.length === 1 ? 'it' : 'all of them'}`,
    {
      hint: readers.map(hintOf).join('; '),
    },
  );
}

/** Those of the readers that open nothing without VMCOREINFO. */
export function needingVmcoreinfo(readers: readonly string[]): readonly string[] {
  return readers.filter((name) => presetsOf(name).some(({ needsVmcoreinfo }) => needsVmcoreinfo));
}

/**
 * Who of the readers filters dumps of this kernel wrongly, one sentence each.
 * @param release as in `6.12.117+deb13-cloud-amd64`
 */
export function misfiltering(readers: readonly string[], release = ''): readonly string[] {
  const [major = 0, minor = 0] = release.split('.', 2).map((part) => Number.parseInt(part, 10));
  return readers.flatMap(presetsOf).flatMap((preset) => {
    const wrong = (preset.misfilters ?? []).filter(
      ({ from }) => major > from[0] || (major === from[0] && minor >= from[1]),
    );
    const what = wrong.map((misfilter) => misfilter.what).join(', ');
    return wrong.length === 0
      ? []
      : [`${nameOf(preset)} filters kernel ${release} wrongly: ${what}; \`-d\` of this command does not`];
  });
}

/** zlib first: it opens everywhere. */
function choices(): OutputChoice[] {
  return OUTPUT_FORMATS.flatMap((format) =>
    writerOf(format).compressions.map((compression) => ({ format, compression })),
  );
}

function nameOf({ program, version }: Preset): string {
  return `${program}-${version}`;
}

function presetsOf(name: string): Preset[] {
  const found = PRESETS.filter((preset) => name === preset.program || name === nameOf(preset));
  if (found.length > 0) return found;
  throw new VmcorralError('USAGE', `nothing is known of a reader "${name.slice(0, 40)}"`, {
    hint: `known are ${PRESET_NAMES.join(', ')}`,
  });
}

function contradiction({ format, compression, isPipe }: OutputWish): VmcorralError {
  if (format !== undefined && compression !== undefined) assertCompression(format, compression);
  const what =
    format === undefined ? `a dump compressed with ${compression}` : `a dump in ${writerOf(format).title} format`;
  return new VmcorralError('USAGE', `${what} can't go to ${isPipe ? 'a pipe' : 'a file'}`, {
    hint: isPipe ? '`--format flattened` can, and is the default for pipes' : 'leave --format out',
  });
}

function describe({ format, compression, isPipe, parts }: OutputWish): string {
  const what = format === undefined ? 'a dump' : `the format ${format}`;
  return `${what}${compression === undefined ? '' : ` compressed with ${compression}`}${isPipe ? ' through a pipe' : ''}${parts > 1 ? ` in ${parts} parts` : ''}`;
}

function hintOf(preset: Preset): string {
  const { opens, opensParts } = preset;
  const kinds = Object.entries(opens).map(([format, compressions]) => `${format} (${compressions.join(', ')})`);
  return `${nameOf(preset)} opens ${kinds.join(', ')}${opensParts ? '' : ', in one file'}`;
}
