import { EventEmitter } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { CaptureUpdate, Service } from '#src/collector/service/service.js';
import type { CapturePhase, CaptureRequest, CaptureStatus } from '#src/model/capture.js';
import { VmcorralError } from '#src/model/errors.js';
import { jsonLines, run, updates } from './harness.js';
import { dump, HOSTILE, HOSTILE_SHOWN, manifest, status } from './samples.js';

const GIB = 1024 ** 3;

function at(phase: CapturePhase, bytesDone = 0, bytesTotal = 0, facts: Partial<CaptureStatus> = {}): CaptureStatus {
  return status({ phase, progress: { phase, bytesDone, bytesTotal }, ...facts });
}

/** One guest's way through all phases. */
function succeeding(requests: CaptureRequest[] = []): Partial<Service> {
  return {
    requestCapture: async (request) => {
      requests.push(request);
      return status();
    },
    followCapture: () =>
      updates(
        at('waiting'),
        at('capturing', GIB / 2, 2 * GIB),
        at('converting', GIB, 2 * GIB),
        at('shipping', 0, 1000),
        at('done', 0, 0, { dumpId: status().id }),
      ),
    getDump: async () => dump(),
  };
}

describe('capture', () => {
  it('waits until the dump is in the store and prints what became of it', async () => {
    const { code, out, err, closed } = await run(['capture', 'web01'], { service: succeeding() });
    expect(code).toBe(0);
    expect(closed).toBe(1);
    expect(out.split('\n')).toEqual([
      '2026-11-21T031502Z-PANIC-7f3a',
      '  guest    kvm1/web01',
      '  pause    0.412 s',
      '  size     2.0 GiB of memory in 143 MiB (zlib)',
      '  where    /var/lib/vmcorral/store/kvm1/web01/x/vmcore',
      '  panic    sysrq: Kernel panic - not syncing: sysrq triggered crash',
      '  warning  no console log: the guest has no serial port',
      '  open     crash /usr/lib/debug/boot/vmlinux-6.1.0-31-amd64 /var/lib/vmcorral/store/kvm1/web01/x/vmcore',
      '',
    ]);
    // Without a terminal: one line for each change of phase.
    expect(err.split('\n')).toEqual([
      'kvm1/web01: waiting',
      'kvm1/web01: capturing 25 %, 512 MiB of 2.0 GiB',
      'kvm1/web01: converting 50 %, 1.0 GiB of 2.0 GiB',
      'kvm1/web01: shipping 0 %, 0 B of 1000 B',
      'kvm1/web01: done',
      '',
    ]);
  });

  it('hands on every flag', async () => {
    const requests: CaptureRequest[] = [];
    const flags = [
      '--reason',
      'hangs',
      '--compression',
      'lzo',
      '--live',
      '--max-pause',
      '2.5',
      '--after',
      'reset',
      '--yes',
    ];
    await run(['capture', 'web01', ...flags], { service: succeeding(requests) });
    expect(requests).toMatchObject([
      {
        target: 'web01',
        trigger: 'cli',
        reason: 'hangs',
        compression: 'lzo',
        live: true,
        maxPauseSeconds: 2.5,
        after: 'reset',
      },
    ]);
    expect(requests[0]?.requestedBy).not.toBe('');
    await run(['capture', 'web01'], { service: succeeding(requests) });
    expect(Object.keys(requests[1] ?? {}).sort()).toEqual(['requestedBy', 'target', 'trigger']);
  });

  it('draws a bar on a terminal and takes it away again', async () => {
    const { out, err } = await run(['capture', 'web01'], { service: succeeding(), terminal: true });
    expect(err).toContain('[######..................] capturing 25 %');
    expect(err.match(/\n/g)?.length).toBe(err.match(/\x1b\[1A\r\x1b\[J/g)?.length);
    expect(out).not.toContain('\x1b[1A');
  });

  it('gives one JSON document on stdout and JSON lines on stderr with --json', async () => {
    const { out, err } = await run(['capture', 'web01', '--json'], { service: succeeding() });
    const document = JSON.parse(out);
    expect(document).toMatchObject({ captures: [{ target: 'web01', capture: { phase: 'done' } }] });
    expect(document.captures[0].dump.manifest).toEqual(manifest());
    expect(jsonLines(err)[1]).toEqual({
      progress: { subject: 'kvm1/web01', phase: 'capturing', bytesDone: GIB / 2, bytesTotal: 2 * GIB },
    });
  });

  it('--no-wait prints the ids and returns', async () => {
    const service = { requestCapture: async () => status() };
    const human = await run(['capture', 'web01', '--no-wait'], { service });
    expect(human.code).toBe(0);
    expect(human.out).toContain(`${status().id}  kvm1/web01`);
    const json = await run(['capture', 'web01', '--no-wait', '--json'], { service });
    expect(JSON.parse(json.out)).toEqual({ captures: [{ target: 'web01', capture: status() }] });
  });

  it('asks for all targets, and the worst failure decides the exit code', async () => {
    const service: Partial<Service> = {
      ...succeeding(),
      requestCapture: async ({ target }) => {
        if (target === 'busy') throw new VmcorralError('BUSY', 'a capture runs');
        return status({ id: target, guest: { name: target, uuid: '' } });
      },
      followCapture: (id) => {
        const error = { code: 'NOT_RESUMED', message: 'the guest still stands' } as const;
        return updates(id === 'stuck' ? at('failed', 0, 0, { error }) : at('done'));
      },
    };
    const { code, out, err } = await run(['capture', 'busy', 'stuck', 'fine'], { service });
    expect(code).toBe(9);
    expect(err).toContain('vmcorral: busy: a capture runs');
    expect(err).toContain('vmcorral: kvm1/stuck (stuck): the guest still stands');
    expect(out.match(/crash \/usr/g)).toHaveLength(1);
    const json = await run(['capture', 'busy', 'fine', '--json'], { service });
    expect(json.code).toBe(5);
    expect(JSON.parse(json.out).captures).toMatchObject([
      { target: 'busy', error: { code: 'BUSY' } },
      { target: 'fine', capture: { phase: 'done' } },
    ]);
  });

  it.each([
    ['failed', { code: 'CAPTURE_FAILED', message: 'm' }, 8],
    ['failed', { code: 'TIMEOUT', message: 'm' }, 8],
    ['failed', { code: 'STORE', message: 'm' }, 11],
    ['failed', undefined, 8],
    ['cancelled', undefined, 130],
  ] as const)('a capture that ends as %s with %j exits accordingly', async (phase, error, expected) => {
    const last = at(phase, 0, 0, error ? { error } : {});
    const { code, out } = await run(['capture', 'web01'], {
      service: { ...succeeding(), followCapture: () => updates(last) },
    });
    expect(code).toBe(expected);
    expect(out).toBe('');
  });

  it('says that the capture goes on when nothing more is heard of it', async () => {
    const service = { ...succeeding(), followCapture: () => updates(at('capturing')) };
    const { code, err } = await run(['capture', 'web01'], { service });
    expect(code).toBe(6);
    expect(err).toContain('the capture itself goes on');
  });

  it('escapes hostile names in progress, result and errors', async () => {
    const hostile = { guest: { name: HOSTILE, uuid: '' } };
    const service: Partial<Service> = {
      requestCapture: async () => status(hostile),
      followCapture: () => updates(at('capturing', 1, 2, hostile), at('done', 0, 0, hostile)),
      getDump: async () =>
        dump({
          guest: { ...manifest().guest, name: HOSTILE },
          panic: { kind: 'panic', message: HOSTILE },
          kernel: { release: "$(reboot)' \x1b" },
        }),
    };
    const { out, err } = await run(['capture', HOSTILE], { service });
    expect(out + err).not.toMatch(/[\x1b\u202e\u009b]/);
    expect(out).toContain(`kvm1/${HOSTILE_SHOWN}`);
    expect(err).toContain(`kvm1/${HOSTILE_SHOWN}: capturing`);
    // What comes out of guest memory never becomes part of a command line.
    expect(out).toContain('open     crash VMLINUX /var');
  });
});

describe('the command that opens a dump', () => {
  it.each([
    ['6.1.0-31-amd64', '/srv/a b/vmcore', "crash /usr/lib/debug/boot/vmlinux-6.1.0-31-amd64 '/srv/a b/vmcore'"],
    ['5.14.0-427.el9.x86_64', '/s/vmcore', 'crash /usr/lib/debug/lib/modules/5.14.0-427.el9.x86_64/vmlinux /s/vmcore'],
    ['../../x', '/s/vmcore', 'crash VMLINUX /s/vmcore'],
    ['6.1', "/s/it's", "crash /usr/lib/debug/boot/vmlinux-6.1 '/s/it'\\''s'"],
    ['6.1', '/s/a\nb', 'crash /usr/lib/debug/boot/vmlinux-6.1 VMCORE'],
    ['6.1', 's3://bucket/x/vmcore', `vmcorral fetch ${status().id} --to ./${status().id}.vmcore && crash `],
  ])('for release %j at %j', async (release, location, expected) => {
    const service = { ...succeeding(), getDump: async () => dump({ kernel: { release } }, location) };
    const { out } = await run(['capture', 'web01'], { service });
    expect(out).toContain(`open     ${expected}`);
  });
});

describe('capture --after reset or destroy', () => {
  it('is refused where nobody can be asked and --yes is missing', async () => {
    const { code, err, opened } = await run(['capture', 'web01', '--after', 'destroy'], { service: succeeding() });
    expect(code).toBe(2);
    expect(err).toContain('--yes');
    expect(opened).toBe(0);
  });

  it('asks on a terminal, and does nothing on a no', async () => {
    const no = await run(['capture', 'web01', '--after', 'reset'], {
      service: succeeding(),
      terminal: true,
      typed: 'n\n',
    });
    expect(no).toMatchObject({ code: 130, opened: 0 });
    expect(no.err).toContain('reset web01 once the memory is taken? [y/N]');
    const yes = await run(['capture', 'web01', '--after', 'reset'], {
      service: succeeding(),
      terminal: true,
      typed: 'y\n',
    });
    expect(yes).toMatchObject({ code: 0, opened: 1 });
  });

  it('doesn’t ask for leave and resume', async () => {
    expect((await run(['capture', 'web01', '--after', 'resume'], { service: succeeding() })).code).toBe(0);
  });
});

describe('capture, interrupted', () => {
  /** A capture that runs until it is cancelled, and then takes a turn until the guest is back. */
  function cancellable(
    signals: EventEmitter,
    onCancel: (end: (last: CaptureStatus) => void) => void,
  ): Partial<Service> {
    let end: (last: CaptureStatus) => void = () => {};
    const ended = new Promise<CaptureStatus>((resolve) => {
      end = resolve;
    });
    return {
      requestCapture: async () => status(),
      cancelCapture: async () => {
        onCancel(end);
        return at('capturing');
      },
      async *followCapture(): AsyncGenerator<CaptureUpdate> {
        yield { kind: 'status', status: at('capturing', 1, 10) };
        setImmediate(() => signals.emit('SIGINT'));
        yield { kind: 'status', status: await ended };
      },
      getDump: async () => dump(),
    };
  }

  it('the first Ctrl-C cancels and waits until the guest is back', async () => {
    const signals = new EventEmitter();
    let cancels = 0;
    const service = cancellable(signals, (end) => {
      cancels += 1;
      setTimeout(() => end(at('cancelled')), 30);
    });
    const { code, err, closed } = await run(['capture', 'web01'], { service, signals });
    expect(code).toBe(130);
    expect(cancels).toBe(1);
    expect(closed).toBe(1);
    expect(err).toContain('waiting until the guest is back');
    expect(err).toContain('the capture was cancelled');
    expect(signals.listenerCount('SIGINT')).toBe(0);
  });

  it('a cancel that came too late leaves a dump and exit 0', async () => {
    const signals = new EventEmitter();
    const { code, out } = await run(['capture', 'web01'], {
      service: cancellable(signals, (end) => end(at('done'))),
      signals,
    });
    expect(code).toBe(0);
    expect(out).toContain('crash /usr');
  });

  it('a guest that could not be brought back is exit 9, interrupted or not', async () => {
    const signals = new EventEmitter();
    const error = { code: 'NOT_RESUMED', message: 'still stands' } as const;
    const service = cancellable(signals, (end) => end(at('failed', 0, 0, { error })));
    expect((await run(['capture', 'web01'], { service, signals })).code).toBe(9);
  });

  it('the second Ctrl-C ends at once, also where the service hangs', async () => {
    const signals = new EventEmitter();
    const service = cancellable(signals, () => setImmediate(() => signals.emit('SIGINT')));
    service.cancelCapture = async () => {
      setImmediate(() => signals.emit('SIGINT'));
      return new Promise(() => {});
    };
    const { code, closed } = await run(['capture', 'web01'], { service, signals });
    expect(code).toBe(130);
    expect(closed).toBe(0);
  });

  it('stops asking for further targets', async () => {
    const signals = new EventEmitter();
    const asked: string[] = [];
    const service: Partial<Service> = {
      requestCapture: async ({ target }) => {
        asked.push(target);
        signals.emit('SIGTERM');
        return status();
      },
      cancelCapture: async () => at('capturing'),
      followCapture: () => updates(at('cancelled')),
    };
    const { code } = await run(['capture', 'a', 'b'], { service, signals });
    expect(code).toBe(130);
    expect(asked).toEqual(['a']);
  });
});

describe('capture --to', () => {
  const toFile: Partial<Service> = {
    captureToFile: async (_request, path, { onProgress }) => {
      onProgress({ phase: 'capturing', bytesDone: 1, bytesTotal: 2 });
      return { path, manifest: manifest() };
    },
  };

  it('asks for a file and prints it', async () => {
    const { code, out, err } = await run(['capture', 'web01', '--to', '/nowhere/x.vmcore'], { service: toFile });
    expect(code).toBe(0);
    expect(out).toContain('/nowhere/x.vmcore\n');
    expect(out).toContain('vmlinux-6.1.0-31-amd64 /nowhere/x.vmcore');
    expect(err).toContain('web01: capturing 50 %');
    const json = await run(['capture', 'web01', '--to', '/nowhere/x', '--json'], { service: toFile });
    expect(JSON.parse(json.out)).toEqual({ path: '/nowhere/x', manifest: manifest() });
  });

  it('refuses several targets, --no-wait, and a file that is there', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vmcorral-cli-'));
    try {
      const path = join(folder, 'there');
      await writeFile(path, '');
      for (const argv of [
        ['a', 'b', '--to', '/nowhere/x'],
        ['a', '--no-wait', '--to', '/nowhere/x'],
        ['a', '--to', path],
      ]) {
        expect(await run(['capture', ...argv], { service: toFile })).toMatchObject({ code: 2, opened: 0 });
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('Ctrl-C aborts the signal and waits for the service', async () => {
    const signals = new EventEmitter();
    let isBack = false;
    const service: Partial<Service> = {
      captureToFile: async (_request, _path, { signal }) => {
        setImmediate(() => signals.emit('SIGINT'));
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        await new Promise((resolve) => setTimeout(resolve, 20));
        isBack = true;
        throw new VmcorralError('CANCELLED', 'capture cancelled');
      },
    };
    const { code } = await run(['capture', 'web01', '--to', '/nowhere/x'], { service, signals });
    expect(code).toBe(130);
    expect(isBack).toBe(true);
  });
});
