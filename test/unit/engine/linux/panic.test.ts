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

describe('the panic of a guest', () => {
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
    ['Kernel panic - not syncing: hung_task: blocked tasks', 'hung-task'],
    ['Kernel panic - not syncing: softlockup: hung tasks', 'soft-lockup'],
    ['Kernel panic - not syncing: Hard LOCKUP', 'hard-lockup'],
    ['Kernel panic - not syncing: RCU Stall', 'rcu-stall'],
    ['Kernel panic - not syncing: NMI: Not continuing', 'nmi'],
    ['Kernel panic - not syncing: Fatal machine check', 'mce'],
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
    ['BUG: Bad page state in process cc1  pfn:12345', 'bug', 'oopsed'],
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

  test('of a lockup names the CPU and the task of the line itself', () => {
    const { details } = findPanic(log(`${BOOT}watchdog: BUG: soft lockup - CPU#7 stuck for 22s! [my task:313]`));
    expect(details).toMatchObject({ cpu: 7, task: 'my task', pid: 313 });
    const hung = findPanic(log(`${BOOT}INFO: task kworker/u8:2:99 blocked for more than 120 seconds.`)).details;
    expect(hung).toMatchObject({ task: 'kworker/u8:2', pid: 99 });
    expect(hung.cpu).toBeUndefined();
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

  test('is missing where there was no panic', () => {
    expect(signature(BOOT)).toBeUndefined();
  });
});
