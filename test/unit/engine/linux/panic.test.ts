import { describe, expect, test } from 'vitest';
import type { LogRecord } from '#src/engine/linux/log-text.js';
import { findPanic } from '#src/engine/linux/panic.js';

/** A log out of its text: all of it by the kernel, except lines that start with `user:`. */
function log(text: string): LogRecord[] {
  const lines = text
    .split('\n')
    .map((line) => line.replace(/^ {4}/, ''))
    .filter((line) => line !== '');
  return lines.map((line, index) => ({
    microseconds: index * 1000,
    level: 6,
    facility: line.startsWith('user:') ? 1 : 0,
    text: line.replace(/^user:/, ''),
  }));
}

const BOOT = 'Linux version 6.1.0-test\n';

const NULL_POINTER = `${BOOT}
    BUG: kernel NULL pointer dereference, address: 0000000000000010
    #PF: supervisor write access in kernel mode
    #PF: error_code(0x0002) - not-present page
    PGD 0 P4D 0
    Oops: 0002 [#1] PREEMPT SMP PTI
    CPU: 3 PID: 4711 Comm: kworker/3:1 Tainted: G        W  OE      6.1.0-18-amd64 #1  Debian 6.1.76-1
    Hardware name: QEMU Standard PC (Q35 + ICH9, 2009)
    RIP: 0010:ext4_fill_super+0x16/0x20 [ext4]
    Code: 0f 1f 44
    Call Trace:
     <TASK>
     ? __die_body.cold+0x1a/0x1f
     ? page_fault_oops+0xd2/0x2b0
     get_tree_bdev+0x170/0x260
     vfs_get_tree.isra.0+0x25/0xb0
     path_mount+0x454/0xa20
     </TASK>
    Kernel panic - not syncing: Fatal exception
    ---[ end Kernel panic - not syncing: Fatal exception ]---`;

/** As a real guest printed it, shortened. */
const SOFT_LOCKUP = `${BOOT}
    watchdog: BUG: soft lockup - CPU#1 stuck for 3s! [insmod:115]
    Modules linked in: crash_me(OE+) pvpanic_pci
    CPU: 1 PID: 115 Comm: insmod Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    RIP: 0010:crash_soft_lockup+0xe/0x10 [crash_me]
    Code: 00 48 8b 05
    Call Trace:
     <TASK>
     crash_me_init+0x2b/0x1000 [crash_me]
     ? 0xffffffffc025d000
     do_one_initcall+0x59/0x220
     entry_SYSCALL_64_after_hwframe+0x6e/0xd8
    RIP: 0033:0x47fbe9
    Code: 08 89 e8
     </TASK>
    Kernel panic - not syncing: softlockup: hung tasks
    CPU: 1 PID: 115 Comm: insmod Tainted: G           OEL     6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    Call Trace:
     <IRQ>
     dump_stack_lvl+0x44/0x5c
     panic+0x118/0x2f4
     watchdog_timer_fn.cold+0xc/0x16
     __hrtimer_run_queues+0x10d/0x250
     </IRQ>
     <TASK>
     asm_sysvec_apic_timer_interrupt+0x16/0x20
    RIP: 0010:crash_soft_lockup+0xe/0x10 [crash_me]`;

const HUNG_TASK = `${BOOT}
    INFO: task insmod:115 blocked for more than 1 seconds.
          Tainted: G           OE      6.1.0-56-cloud-amd64 #1 Debian 6.1.192-2
    task:insmod          state:D stack:0     pid:115   ppid:1      flags:0x00000002
    Call Trace:
     <TASK>
     __schedule+0x34d/0xa00
     schedule+0x5a/0xd0
     crash_hang+0x1c/0x20 [crash_me]
     crash_me_init+0x2b/0x1000 [crash_me]
     </TASK>
    Kernel panic - not syncing: hung_task: blocked tasks
    CPU: 1 PID: 28 Comm: khungtaskd Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    Call Trace:
     <TASK>
     panic+0x118/0x2f4
     watchdog.cold+0xc/0xbb
     kthread+0xda/0x100
     </TASK>`;

const NMI = `${BOOT}
    Kernel panic - not syncing: NMI: Not continuing
    CPU: 0 PID: 114 Comm: insmod Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    Call Trace:
     <NMI>
     panic+0x118/0x2f4
     nmi_panic.cold+0xc/0xc
     unknown_nmi_error.cold+0x8/0x30
     exc_nmi+0x15e/0x180
     end_repeat_nmi+0x16/0x50
    RIP: 0010:crash_soft_lockup+0xe/0x10 [crash_me]
    Code: 00 48 8b 05
    RSP: 0018:ffffcc3e003b3bf0 EFLAGS: 00000282
     </NMI>
     <TASK>
     crash_me_init+0x2b/0x1000 [crash_me]
    RIP: 0033:0x47fbe9
     do_not_take_me+0x1/0x2`;

const MACHINE_CHECK = `${BOOT}
    mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 9: be00000000000134
    mce: [Hardware Error]: RIP !INEXACT! 10:<ffffffffadc592eb> {native_safe_halt+0xb/0x10}
    mce: [Hardware Error]: Machine check: Processor Context Corrupt
    Kernel panic - not syncing: Fatal local machine check`;

describe('the panic of a guest', () => {
  test('by a soft lock-up: the stack is that of the program that held the CPU, the taint that of the panic', () => {
    const { facts, details } = findPanic(log(SOFT_LOCKUP));
    expect(facts).toMatchObject({ kind: 'soft-lockup', message: 'Kernel panic - not syncing: softlockup: hung tasks' });
    expect(details).toMatchObject({ cpu: 1, task: 'insmod', pid: 115, taint: 'GOEL' });
    expect(details.stack.slice(0, 2)).toEqual(['crash_soft_lockup', 'crash_me_init']);
    expect(details.alsoSeen).toEqual(['watchdog: BUG: soft lockup - CPU#1 stuck for 3s! [insmod:115]']);
  });

  test('by a hung task names that one, not who found it', () => {
    const { facts, details } = findPanic(log(HUNG_TASK));
    expect(facts).toMatchObject({ kind: 'hung-task', message: 'Kernel panic - not syncing: hung_task: blocked tasks' });
    expect(details).toMatchObject({ task: 'insmod', pid: 115, taint: 'GOE', stack: ['crash_hang', 'crash_me_init'] });
    expect(details.cpu).toBeUndefined();
  });

  test('by an NMI tells what the CPU was doing', () => {
    const { facts, details } = findPanic(log(NMI));
    expect(facts.kind).toBe('nmi');
    expect(details).toMatchObject({ cpu: 0, pid: 114, stack: ['crash_soft_lockup', 'crash_me_init'] });
  });

  test('by a machine check names its CPU', () => {
    const { facts, details } = findPanic(log(MACHINE_CHECK));
    expect(facts).toMatchObject({ kind: 'mce', message: 'Kernel panic - not syncing: Fatal local machine check' });
    expect(details).toMatchObject({ verdict: 'panicked', cpu: 1 });
    expect(details.alsoSeen).toHaveLength(1);
  });

  test('by panic_on_warn is the warning', () => {
    const warning = 'WARNING: CPU: 0 PID: 113 at crash-me.c:34 crash_warn+0x11/0x20 [crash_me]';
    const { facts, details } = findPanic(
      log(`${BOOT}
    ${warning}
    CPU: 0 PID: 113 Comm: insmod Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    RIP: 0010:crash_warn+0x11/0x20 [crash_me]
    Call Trace:
     <TASK>
     crash_me_init+0x2b/0x1000 [crash_me]
     </TASK>
    Kernel panic - not syncing: kernel: panic_on_warn set ...
    CPU: 0 PID: 113 Comm: insmod Tainted: G           OE      6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    Call Trace:
     <TASK>
     panic+0x118/0x2f4
     check_panic_on_warn.cold+0xf/0x1e
     __warn+0x89/0xc0`),
    );
    expect(facts).toMatchObject({ kind: 'warning', message: warning });
    expect(details).toMatchObject({ verdict: 'panicked', stack: ['crash_warn', 'crash_me_init'] });
    expect(details.alsoSeen).toEqual(['Kernel panic - not syncing: kernel: panic_on_warn set ...']);
  });

  test.each([
    'BUG: TASK stack guard page was hit at (____ptrval____) (stack is (____ptrval____)..(____ptrval____))',
    'BUG: stack guard page was hit at 0000000012345678 (stack is 0000000012345670..0000000012345690)',
    'Insufficient stack space to handle exception!',
  ])('by a stack overflow: %s', (line) => {
    const { facts } = findPanic(
      log(`${BOOT}${line}\nstack guard page: 0000 [#1] SMP\nKernel panic - not syncing: Fatal exception in interrupt`),
    );
    expect(facts).toMatchObject({ kind: 'stack-overflow', message: line });
  });

  test('by a double fault is the line that began it', () => {
    const text = `${BOOT}traps: PANIC: double fault, error_code: 0x0\ndouble fault: 0000 [#1] PREEMPT SMP NOPTI
    Kernel panic - not syncing: Fatal exception in interrupt`;
    const { facts, details } = findPanic(log(text));
    expect(facts).toMatchObject({ kind: 'double-fault', message: 'traps: PANIC: double fault, error_code: 0x0' });
    expect(details.alsoSeen).toEqual(['Kernel panic - not syncing: Fatal exception in interrupt']);
  });

  test('after an oops is the line that began the oops, with place, taint and stack', () => {
    const { facts, details } = findPanic(log(NULL_POINTER));
    expect(facts.kind).toBe('null-pointer');
    expect(facts.message).toBe('BUG: kernel NULL pointer dereference, address: 0000000000000010');
    expect(details).toMatchObject({ verdict: 'panicked', cpu: 3, pid: 4711, task: 'kworker/3:1', taint: 'GWOE' });
    expect(details.stack).toEqual(['ext4_fill_super', 'get_tree_bdev', 'vfs_get_tree', 'path_mount']);
    expect(details.logLine).toBe(1);
    expect(details.alsoSeen).toContain('Kernel panic - not syncing: Fatal exception');
  });

  test('has no function that nothing returns to: what stands behind a call that does not return', () => {
    const { details } = findPanic(
      log(`${BOOT}
    sysrq: Trigger a crash
    Kernel panic - not syncing: sysrq triggered crash
    CPU: 0 PID: 164 Comm: sh Not tainted 6.1.0-50-cloud-arm64 #1  Debian 6.1.176-1
    Hardware name: linux,dummy-virt (DT)
    Call trace:
     dump_backtrace+0xe4/0x140
     show_stack+0x20/0x30
     dump_stack_lvl+0x64/0x80
     dump_stack+0x18/0x34
     panic+0x184/0x364
     sysrq_reset_seq_param_set+0x0/0xa0
     __handle_sysrq+0x90/0x19c
     write_sysrq_trigger+0x7c/0xc0`),
    );
    expect(details.stack).toEqual(['__handle_sysrq', 'write_sysrq_trigger']);
  });

  test('by sysrq is told apart from others', () => {
    const { facts, details } = findPanic(
      log(`${BOOT}
    sysrq: Trigger a crash
    Kernel panic - not syncing: sysrq triggered crash
    CPU: 1 PID: 1 Comm: init Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
    Call Trace:
     <TASK>
     dump_stack_lvl+0x44/0x5c
     panic+0x118/0x2ed
     sysrq_handle_crash+0x16/0x20
     __handle_sysrq.cold+0x45/0x119
     </TASK>`),
    );
    expect(facts).toMatchObject({ kind: 'sysrq', message: 'Kernel panic - not syncing: sysrq triggered crash' });
    expect(details).toMatchObject({
      cpu: 1,
      task: 'init',
      pid: 1,
      taint: '',
      stack: ['sysrq_handle_crash', '__handle_sysrq'],
    });
  });

  test('reads the CPU line of 6.12 kernels and of guests with kdump', () => {
    const line = (cpu: string) => findPanic(log(`${BOOT}Kernel panic - not syncing: x y z\n${cpu}`)).details;
    expect(line('CPU: 1 UID: 0 PID: 1 Comm: init Tainted: G        W  O       6.12.5 #1')).toMatchObject({
      cpu: 1,
      pid: 1,
      taint: 'GWO',
    });
    expect(line('CPU: 12 PID: 77 Comm: a b:c Kdump: loaded Not tainted 5.14.0-1.el9.x86_64 #1')).toMatchObject({
      cpu: 12,
      task: 'a b:c',
      taint: '',
    });
  });

  test.each([
    ['Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b', 'init-killed'],
    ['Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)', 'no-root'],
    ['Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled', 'oom'],
    ['Kernel panic - not syncing: memory cgroup: panic_on_oom', 'oom'],
    ['Kernel panic - not syncing: no room for the boot parameters', 'panic'],
    ['Kernel panic - not syncing: boom', 'panic'],
    ['Kernel panic - not syncing: hung_task: blocked tasks', 'hung-task'],
    ['Kernel panic - not syncing: softlockup: hung tasks', 'soft-lockup'],
    ['Kernel panic - not syncing: Hard LOCKUP', 'hard-lockup'],
    ['Kernel panic - not syncing: RCU Stall', 'rcu-stall'],
    ['Kernel panic - not syncing: NMI: Not continuing', 'nmi'],
    ['Kernel panic - not syncing: Fatal machine check', 'mce'],
    ['Kernel panic - not syncing: kernel stack overflow', 'stack-overflow'],
    ['Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: foo+0x1', 'stack-corruption'],
    ['Kernel panic - not syncing: kernel: panic_on_warn set ...', 'warning'],
    ['Kernel panic - not syncing: something new', 'panic'],
    ['Kernel panic - not syncing: Fatal exception in interrupt', 'oops'],
  ])('%s is of kind %s', (line, kind) => {
    const { facts, details } = findPanic(log(`${BOOT}${line}`));
    expect(facts).toMatchObject({ kind, message: line });
    expect(details.verdict).toBe('panicked');
  });

  test.each([
    ['BUG: unable to handle page fault for address: ffffdead00000000', 'page-fault', 'oopsed'],
    ['BUG: unable to handle kernel NULL pointer dereference at 0000000000000008', 'null-pointer', 'oopsed'],
    ['Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000', 'null-pointer', 'oopsed'],
    [
      'general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP',
      'general-protection',
      'oopsed',
    ],
    [
      'Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP',
      'general-protection',
      'oopsed',
    ],
    ['kernel BUG at mm/slub.c:305!', 'bug', 'oopsed'],
    ['BUG: Bad page state in process cc1  pfn:12345', 'bug', 'degraded'],
    ['BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580', 'bug', 'degraded'],
    ['BUG: scheduling while atomic: cat/313/0x00000002', 'bug', 'degraded'],
    ['BUG: using smp_processor_id() in preemptible [00000000] code: cat/313', 'bug', 'degraded'],
    ['INFO: task cat:313 blocked in I/O wait for more than 120 seconds.', 'hung-task', 'degraded'],
    ['divide error: 0000 [#1] SMP', 'divide-error', 'oopsed'],
    ['traps: PANIC: double fault, error_code: 0x0', 'double-fault', 'oopsed'],
    ['watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [cat:313]', 'soft-lockup', 'degraded'],
    ['NMI watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [cat:313]', 'soft-lockup', 'degraded'],
    ['watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0', 'hard-lockup', 'degraded'],
    ['NMI watchdog: Watchdog detected hard LOCKUP on cpu 2', 'hard-lockup', 'degraded'],
    ['rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:', 'rcu-stall', 'degraded'],
    ['INFO: rcu_sched self-detected stall on CPU', 'rcu-stall', 'degraded'],
    ['INFO: task jbd2/vda1-8:212 blocked for more than 120 seconds.', 'hung-task', 'degraded'],
    ['BUG: KASAN: use-after-free in foo+0x1/0x2', 'sanitizer', 'degraded'],
    ['Out of memory: Killed process 1234 (java) total-vm:1kB', 'oom', 'degraded'],
    ['mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 0', 'mce', 'degraded'],
  ])('without a panic, %s is of kind %s: %s', (line, kind, verdict) => {
    const { facts, details } = findPanic(log(`${BOOT}${line}`));
    expect(facts).toMatchObject({ kind, message: line });
    expect(details.verdict).toBe(verdict);
  });

  test.each([
    ['before', (complaint: string, lockup: string) => `${complaint}\n${lockup}`],
    ['after', (complaint: string, lockup: string) => `${lockup}\n${complaint}`],
  ])('a complaint %s a lock-up is not what the guest hangs of', (_, order) => {
    const lockup = 'watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [cat:313]';
    const { facts } = findPanic(log(`${BOOT}${order('BUG: scheduling while atomic: cat/313/0x00000002', lockup)}`));
    expect(facts).toMatchObject({ kind: 'soft-lockup', message: lockup });
  });

  test('of a lockup names the CPU and the task of the line itself', () => {
    const { details } = findPanic(log(`${BOOT}watchdog: BUG: soft lockup - CPU#7 stuck for 22s! [my task:313]`));
    expect(details).toMatchObject({ cpu: 7, task: 'my task', pid: 313 });
    const hung = findPanic(log(`${BOOT}INFO: task kworker/u8:2:99 blocked for more than 120 seconds.`)).details;
    expect(hung).toMatchObject({ task: 'kworker/u8:2', pid: 99 });
    expect(hung.cpu).toBeUndefined();
    const killed = findPanic(log(`${BOOT}Out of memory: Killed process 1234 (my task) total-vm:1kB`)).details;
    expect(killed).toMatchObject({ task: 'my task', pid: 1234 });
  });

  test('is none where a process only wrote that there was one', () => {
    const { facts, details } = findPanic(log(`${BOOT}user:Kernel panic - not syncing: sysrq triggered crash`));
    expect(facts).toEqual({ kind: 'none', message: 'no panic: the guest was running or hung' });
    expect(details.verdict).toBe('no-evidence');
  });

  test('is none for a healthy guest with warnings and killed control groups', () => {
    const text = `${BOOT}WARNING: CPU: 0 PID: 1 at kernel/x.c:1 foo+0x1/0x2
    Memory cgroup out of memory: Killed process 9 (x)
    watchdog: hard lockup detector not available
    rcu: Hierarchical RCU implementation.`;
    expect(findPanic(log(text)).facts.kind).toBe('none');
  });

  test('is unknown where there is no log', () => {
    expect(findPanic([]).facts).toMatchObject({ kind: 'unknown' });
  });

  test('prefers the oops to the shortage that followed', () => {
    const text = `${BOOT}kernel BUG at mm/slub.c:305!\ninvalid opcode: 0000 [#1] SMP\nOut of memory: Killed process 9 (x)`;
    expect(findPanic(log(text)).facts).toMatchObject({ kind: 'bug', message: 'kernel BUG at mm/slub.c:305!' });
  });

  test('is found in the middle of a record and keeps its line in the log', () => {
    const records = [
      ...log(BOOT),
      { microseconds: 5, level: 0, facility: 0, text: 'a\nKernel panic - not syncing: x' },
    ];
    expect(findPanic(records).details.logLine).toBe(2);
  });
});

describe('the signature', () => {
  const signature = (text: string) => findPanic(log(text)).facts.signature;

  test('is equal for the same panic at another address, on another CPU, in another process', () => {
    const other = NULL_POINTER.replace('0000000000000010', '0000000000000abc')
      .replace('CPU: 3 PID: 4711', 'CPU: 0 PID: 9')
      .replaceAll('+0x16/0x20', '+0x99/0x120');
    expect(other).not.toBe(NULL_POINTER);
    expect(signature(other)).toBe(signature(NULL_POINTER));
  });

  test('differs where the fault is in another function', () => {
    expect(signature(NULL_POINTER.replace('ext4_fill_super', 'xfs_fill_super'))).not.toBe(signature(NULL_POINTER));
  });

  test('is equal for soft lockups of one program on other CPUs', () => {
    const line = (cpu: number, pid: number) =>
      `${BOOT}watchdog: BUG: soft lockup - CPU#${cpu} stuck for 2${cpu}s! [cat:${pid}]`;
    expect(signature(line(1, 313))).toBe(signature(line(5, 7)));
  });

  test.each([
    ['soft lock-ups', SOFT_LOCKUP, 'crash_soft_lockup'],
    ['hung tasks', HUNG_TASK, 'crash_hang'],
    ['NMIs', NMI, 'crash_soft_lockup'],
  ])('of %s differs with what hung, and only with that', (_, text, culprit) => {
    expect(signature(text.replaceAll(culprit, 'another'))).not.toBe(signature(text));
    expect(signature(text.replaceAll('115', '4711').replaceAll(/CPU#1|CPU: 1/g, 'CPU: 7'))).toBe(signature(text));
  });

  test('of a stack overflow is the same with and without addresses', () => {
    const line = (address: string) => `${BOOT}BUG: TASK stack guard page was hit at ${address}\ncrash+0x1/0x2`;
    expect(signature(line('00000000deadbeef'))).toBe(signature(line('(____ptrval____)')));
  });

  test('of a guest without memory does not depend on who asked for some', () => {
    const text = (
      name: string,
    ) => `${BOOT}Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled
    Call Trace:
     out_of_memory+0x1/0x2
     ${name}+0x1/0x2`;
    expect(signature(text('pipe_write'))).toBe(signature(text('shmem_alloc_folio')));
  });

  test('is missing where there was no panic', () => {
    expect(signature(BOOT)).toBeUndefined();
  });
});
