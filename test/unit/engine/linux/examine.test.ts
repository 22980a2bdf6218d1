import { describe, expect, test } from 'vitest';
import { SparseImage } from '#src/engine/image/sparse-image.js';
import { examineImage } from '#src/engine/linux/examine.js';
import { VmcorralError } from '#src/model/errors.js';
import { buildGuest, PLACES } from '../../../builders/linux-guest.js';

const PANIC_LOG = `
  F 0.5 0.000000 Linux version 6.1.0-test
  F 0.6 7.500000 sysrq: Trigger a crash
  F 0.0 7.600000 Kernel panic - not syncing: sysrq triggered crash
  F 0.0 7.600000 CPU: 1 PID: 42 Comm: sh Not tainted 6.1.0-test #1
`;

describe('the examination of an image', () => {
  test('tells kernel, log, panic and how long the guest had run', () => {
    const examination = examineImage(buildGuest({ log: PANIC_LOG, hasNote: false, notePhysical: 0x11d_4000 }).image);
    expect(examination.kernel).toEqual({
      release: '6.1.0-test',
      version: '#1 SMP test',
      buildId: '0123456789abcdef0123456789abcdef01234567',
      hostname: 'testguest',
      kaslrOffset: '0x2000000',
      uptimeSeconds: 7.6,
    });
    expect(examination.panic).toMatchObject({
      kind: 'sysrq',
      message: 'Kernel panic - not syncing: sysrq triggered crash',
      cpu: 1,
      pid: 42,
      task: 'sh',
      taint: '',
    });
    expect(examination.panicDetails).toMatchObject({ cpu: 1, pid: 42, task: 'sh', logLine: 2 });
    expect(examination.log.split('\n')).toHaveLength(5);
    expect(examination.vmcoreinfo?.source).toBe('memory');
    expect(examination.paging).toMatchObject({ levels: 4, physBase: '-16777216' });
    expect(examination.warnings).toEqual([]);
  });

  test.each([
    ['1700000000', '2023-11-14T22:13:20.000Z'],
    ['0', undefined],
    ['99999999999999999999', undefined],
  ])('says when the kernel began to crash, where it wrote %s down', (CRASHTIME, expected) => {
    expect(examineImage(buildGuest({ log: PANIC_LOG, keys: { CRASHTIME } }).image).kernel.crashTime).toBe(expected);
  });

  test('can cross threads', () => {
    const examination = examineImage(buildGuest({ log: PANIC_LOG }).image);
    expect(structuredClone(examination)).toEqual(examination);
  });

  test('of memory that is no Linux gives a warning and empty facts', () => {
    const image = new SparseImage({ ranges: [{ start: 0, size: 1 << 22 }] });
    const { kernel, panic, log, warnings } = examineImage(image);
    expect(kernel).toEqual({});
    expect(panic.kind).toBe('unknown');
    expect(log).toBe('');
    expect(warnings).toHaveLength(1);
  });

  test('of an image without any memory gives a warning, too', () => {
    expect(examineImage(new SparseImage()).warnings).toHaveLength(1);
  });

  test('goes around what can’t be read, and says what the first fault was', () => {
    const guest = buildGuest({ log: PANIC_LOG, hasNote: false, notePhysical: 0x11d_4000 });
    const broken = guest.physicalOf(PLACES.logText) + 8192;
    const read = guest.image.read.bind(guest.image);
    guest.image.read = (address, into) => {
      if (address <= broken && address + into.length > broken) throw new VmcorralError('CORRUPT', 'page 0x123 is torn');
      return read(address, into);
    };
    const { panic, warnings } = examineImage(guest.image);
    expect(panic.kind).toBe('sysrq');
    expect(warnings).toEqual(["parts of the image can't be read: page 0x123 is torn"]);
  });
});
