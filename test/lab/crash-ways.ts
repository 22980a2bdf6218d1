/** Ways to crash a guest, and what has to be read out of its memory then. */

import type { PanicKind } from '#src/engine/linux/panic-patterns.js';

export interface Way {
  readonly kind: PanicKind;
  /** What crash-me.ko is to do; its pid, CPU and command are known then. */
  readonly how?: string;
  /** The CPU to do it on where it can't be any. */
  readonly cpu?: 0;
  /** Before that. */
  readonly sysctl?: string;
  /** A command of the guest's that fails instead. */
  readonly run?: string;
  /** Given to virsh from outside, again and again, once the guest does what it has to. */
  readonly inject?: (guest: string, cpu: number) => readonly string[];
  /** More words for the kernel. */
  readonly cmdline?: string;
  /** The kernel fails before there is an init. */
  readonly noInit?: true;
  /** Needs the kernel of usual machines. */
  readonly generic?: true;
  /** How the right line begins, after the time. */
  readonly line: RegExp;
  /** Another line that belongs to it. */
  readonly also?: RegExp;
  readonly verdict?: 'oopsed' | 'degraded';
  /** In an NMI, or what the kernel treats like one, the console is printed to after the panic's notifiers. */
  readonly isLate?: true;
  /** Innermost. */
  readonly inFunction?: string | RegExp;
  readonly task?: string;
  readonly pid?: 1;
  readonly taint?: string;
}

const OOPS = { sysctl: 'kernel.panic_on_oops=1', task: 'insmod', taint: 'GOE' } as const;
const MODULE = { task: 'insmod', taint: 'GOE' } as const;
const nmi = (guest: string) => ['inject-nmi', guest];
/** CPU, bank, status (VAL UC EN MISCV ADDRV PCC: fatal), MCG_STATUS, address, misc. */
const machineCheck = (guest: string, cpu: number) => {
  return ['qemu-monitor-command', guest, '--hmp', `mce ${cpu} 9 0xbe00000000000134 0x5 0x12345000 0x8c`];
};

export const WAYS: Readonly<Record<string, Way>> = {
  'panic()': {
    ...MODULE,
    kind: 'panic',
    how: 'panic',
    line: /^Kernel panic - not syncing: crash-me /,
    inFunction: 'crash_panic',
  },
  'BUG()': { ...OOPS, kind: 'bug', how: 'bug', line: /^kernel BUG at crash-me\.c:\d+!/, inFunction: 'crash_bug' },
  'a null pointer': {
    ...OOPS,
    kind: 'null-pointer',
    how: 'null',
    line: /^BUG: kernel NULL pointer dereference, address: 0{14}10$/,
    inFunction: 'crash_null',
  },
  'a bad address': {
    ...OOPS,
    kind: 'page-fault',
    how: 'fault',
    line: /^BUG: unable to handle page fault for address: ffff8/,
    inFunction: 'crash_fault',
  },
  'a general protection fault': {
    ...OOPS,
    kind: 'general-protection',
    how: 'protection',
    line: /^(?:Oops: )?general protection fault/,
    inFunction: 'crash_protection',
  },
  'a division by zero': {
    ...OOPS,
    kind: 'divide-error',
    how: 'divide',
    line: /^(?:Oops: )?divide error: /,
    inFunction: 'crash_divide',
  },
  'an invalid opcode': {
    ...OOPS,
    kind: 'invalid-opcode',
    how: 'opcode',
    line: /^(?:Oops: )?invalid opcode: /,
    inFunction: 'crash_opcode',
  },
  'a stack overflow': {
    ...MODULE,
    kind: 'stack-overflow',
    how: 'overflow',
    isLate: true,
    line: /^BUG: TASK stack guard page was hit/,
    also: /^Kernel panic - not syncing: /m,
    inFunction: 'crash_overflow',
  },
  'a canary that died': {
    ...MODULE,
    kind: 'stack-corruption',
    how: 'canary',
    line: /^Kernel panic - not syncing: stack-protector: /,
    inFunction: 'crash_canary',
  },
  'a double fault': {
    ...MODULE,
    kind: 'double-fault',
    how: 'double',
    isLate: true,
    line: /^traps: PANIC: double fault/,
    inFunction: 'crash_double',
  },
  panic_on_warn: {
    ...MODULE,
    kind: 'warning',
    how: 'warn',
    sysctl: 'kernel.panic_on_warn=1',
    line: /^WARNING: .*crash-me\.c/,
    inFunction: 'crash_warn',
  },
  'a soft lock-up': {
    kind: 'soft-lockup',
    how: 'soft-lockup',
    sysctl: 'kernel.watchdog_thresh=1 kernel.softlockup_panic=1',
    line: /^Kernel panic - not syncing: softlockup: /,
    also: /^watchdog: BUG: soft lockup - CPU#\d stuck for \d+s! \[insmod:\d+\]$/m,
    inFunction: 'crash_soft_lockup',
    task: 'insmod',
    taint: 'GOEL',
  },
  'a hard lock-up': {
    ...MODULE,
    kind: 'hard-lockup',
    how: 'hard-lockup',
    isLate: true,
    cpu: 0,
    sysctl: 'kernel.watchdog_thresh=1 kernel.hardlockup_panic=1',
    inject: nmi,
    line: /^Kernel panic - not syncing: Hard LOCKUP/,
    also: /Watchdog detected hard LOCKUP on cpu 0$/m,
    inFunction: 'crash_irqs_off',
  },
  'an RCU stall': {
    ...MODULE,
    kind: 'rcu-stall',
    how: 'rcu-stall',
    cmdline: 'rcupdate.rcu_cpu_stall_timeout=3',
    sysctl: 'kernel.watchdog=0 kernel.panic_on_rcu_stall=1',
    line: /^Kernel panic - not syncing: RCU Stall/,
    also: /^rcu: INFO: rcu_\w+ self-detected stall on CPU$/m,
    inFunction: 'crash_rcu_stall',
  },
  'a hung task': {
    ...MODULE,
    kind: 'hung-task',
    how: 'hang',
    sysctl: 'kernel.hung_task_timeout_secs=1 kernel.hung_task_panic=1',
    line: /^Kernel panic - not syncing: hung_task: /,
    also: /^INFO: task insmod:\d+ blocked for more than 1 seconds\.$/m,
    inFunction: 'crash_hang',
  },
  'an NMI to a guest that hangs': {
    ...MODULE,
    kind: 'nmi',
    how: 'irqs-off',
    isLate: true,
    cpu: 0,
    sysctl: 'kernel.watchdog=0 kernel.unknown_nmi_panic=1',
    inject: nmi,
    line: /^Kernel panic - not syncing: NMI: /,
    inFunction: 'crash_irqs_off',
  },
  'a machine check': {
    kind: 'mce',
    generic: true,
    isLate: true,
    inject: machineCheck,
    line: /^Kernel panic - not syncing: Fatal local machine check/,
    also: /CPU \d: Machine Check/,
  },
  'no memory left': {
    kind: 'oom',
    sysctl: 'vm.panic_on_oom=1',
    run: 'tail /dev/zero',
    line: /^Kernel panic - not syncing: Out of memory: /,
    inFunction: 'out_of_memory',
    task: 'tail',
    taint: '',
  },
  sysrq: {
    kind: 'sysrq',
    run: 'sh -c "echo c >/proc/sysrq-trigger"',
    line: /^Kernel panic - not syncing: sysrq triggered crash/,
    inFunction: 'sysrq_handle_crash',
    task: 'sh',
    taint: '',
  },
  'the end of init': {
    kind: 'init-killed',
    run: 'kill 1',
    line: /^Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700/,
    inFunction: 'do_exit',
    task: 'init',
    pid: 1,
    taint: '',
  },
  'no root': {
    kind: 'no-root',
    cmdline: 'rdinit=/none',
    noInit: true,
    line: /^Kernel panic - not syncing: VFS: Unable to mount root/,
    // Its name since 6.6 is the second one.
    inFunction: /^mount_(?:block_root|root_generic)$/,
    task: 'swapper/0',
    pid: 1,
    taint: '',
  },
  'an oops that the guest survives': {
    ...MODULE,
    kind: 'null-pointer',
    how: 'null',
    verdict: 'oopsed',
    line: /^BUG: kernel NULL pointer dereference/,
    inFunction: 'crash_null',
  },
  'a task killed for memory': {
    kind: 'oom',
    run: 'tail /dev/zero',
    verdict: 'degraded',
    line: /^Out of memory: Killed process /,
    task: 'tail',
  },
};
