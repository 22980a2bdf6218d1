/**
 * What a Linux kernel writes when something went badly wrong, by kind.
 *
 * References: kernel kernel/panic.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c, arch/arm64/mm/fault.c,
 * kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c, mm/oom_kill.c, arch/x86/kernel/cpu/mce/core.c.
 */

export const PANIC_KINDS = [
  'panic',
  'sysrq',
  'null-pointer',
  'page-fault',
  'general-protection',
  'invalid-opcode',
  'divide-error',
  'double-fault',
  'bug',
  'oops',
  'sanitizer',
  'stack-overflow',
  'stack-corruption',
  'init-killed',
  'no-root',
  'nmi',
  'soft-lockup',
  'hard-lockup',
  'rcu-stall',
  'workqueue-lockup',
  'hung-task',
  'oom',
  'mce',
  'warning',
  /** The log says nothing of the kind. */
  'none',
  /** The log could not be read. */
  'unknown',
] as const;
export type PanicKind = (typeof PANIC_KINDS)[number];

/**
 * How bad: an oops without a panic kills a task, the others leave the kernel running somehow. A complaint says that
 * something is wrong, and is made by who goes on working.
 */
export type Severity = 'oops' | 'stuck' | 'shortage' | 'complaint' | 'mark';

export interface EventPattern {
  readonly kind: PanicKind;
  readonly severity: Severity;
  /** On the line without its time. */
  readonly pattern: RegExp;
  /** Part of the report that an earlier line began, if one did: says less than that line. */
  readonly follows?: true;
}

/** The first that fits counts. */
export const EVENTS: readonly EventPattern[] = [
  { kind: 'sysrq', severity: 'mark', pattern: /^(?:sysrq: |SysRq : )Trigger a crash/i },
  { kind: 'null-pointer', severity: 'oops', pattern: /^BUG: (?:unable to handle )?kernel NULL pointer dereference/ },
  { kind: 'null-pointer', severity: 'oops', pattern: /^Unable to handle kernel NULL pointer dereference/ },
  { kind: 'page-fault', severity: 'oops', pattern: /^BUG: unable to handle (?:page fault|kernel)/ },
  { kind: 'page-fault', severity: 'oops', pattern: /^Unable to handle kernel / },
  { kind: 'page-fault', severity: 'mark', pattern: /^kernel tried to execute NX-protected page/ },
  { kind: 'general-protection', severity: 'oops', pattern: /^(?:Oops: )?general protection fault/ },
  { kind: 'divide-error', severity: 'oops', pattern: /^(?:Oops: )?divide error/ },
  { kind: 'stack-overflow', severity: 'oops', pattern: /^BUG: .*stack guard page was hit|^BUG: stack overflow/ },
  { kind: 'stack-overflow', severity: 'oops', pattern: /^Insufficient stack space to handle exception/ },
  {
    kind: 'stack-overflow',
    severity: 'oops',
    pattern: /^(?:Oops: )?stack guard page: |^kernel stack overflow \(/,
    follows: true,
  },
  { kind: 'double-fault', severity: 'oops', pattern: /^(?:traps: )?PANIC: double fault/ },
  { kind: 'double-fault', severity: 'oops', pattern: /^(?:Oops: )?double fault/, follows: true },
  { kind: 'sanitizer', severity: 'stuck', pattern: /^BUG: (?:KASAN|KCSAN|KFENCE|KMSAN): |^UBSAN: / },
  { kind: 'soft-lockup', severity: 'stuck', pattern: /^(?:NMI )?(?:watchdog: )?BUG: soft lockup/ },
  {
    kind: 'hard-lockup',
    severity: 'stuck',
    pattern: /^(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP/,
  },
  { kind: 'workqueue-lockup', severity: 'stuck', pattern: /^BUG: workqueue lockup/ },
  { kind: 'bug', severity: 'oops', pattern: /^kernel BUG at / },
  // "sleeping function called", "scheduling while atomic", "using smp_processor_id() in preemptible", "Bad page state":
  // of those that kill, the kinds above know the line, or an "Oops" follows.
  { kind: 'bug', severity: 'complaint', pattern: /^BUG: / },
  { kind: 'mce', severity: 'oops', pattern: /^SError Interrupt on CPU|^Internal error: synchronous external abort/ },
  { kind: 'invalid-opcode', severity: 'oops', pattern: /^(?:Oops: )?invalid opcode/, follows: true },
  {
    kind: 'oops',
    severity: 'oops',
    pattern: /^(?:Oops|Internal error|stack segment|Bad mode|Unhandled )/,
    follows: true,
  },
  {
    kind: 'rcu-stall',
    severity: 'stuck',
    pattern: /^(?:rcu: )?INFO: rcu\S* (?:self-)?detected (?:expedited )?stalls?/,
  },
  {
    kind: 'hung-task',
    severity: 'stuck',
    // "in I/O wait" since 7.1.
    pattern: /^INFO: task .+:\d+ (?:is )?blocked (?:in .{1,20} )?for more than/,
  },
  { kind: 'mce', severity: 'shortage', pattern: /\[Hardware Error\]: CPU \d+: Machine [Cc]heck/ },
  { kind: 'mce', severity: 'shortage', pattern: /\[Hardware Error\]: Machine [Cc]heck/, follows: true },
  { kind: 'oom', severity: 'shortage', pattern: /^Out of memory: Kill/ },
  { kind: 'warning', severity: 'mark', pattern: /^WARNING: / },
];

interface Reason {
  readonly pattern: RegExp;
  /** Where nothing before the panic says it better. */
  readonly kind: PanicKind;
  /** Events whose report tells what led to the panic: those of the same kind unless others are named. */
  readonly causes?: readonly PanicKind[] | 'oops';
  /** The line that began the cause is the one to show, and its kind counts. */
  readonly saysLittle?: true;
}

/** What `panic()` was called with. The first that fits counts. */
const REASONS: readonly Reason[] = [
  {
    pattern: /^(?:Fatal exception|Oops|Fatal exception in interrupt|panic_on_oops)/i,
    kind: 'oops',
    causes: 'oops',
    saysLittle: true,
  },
  { pattern: /panic_on_warn/, kind: 'warning', causes: ['warning', 'sanitizer', 'bug'], saysLittle: true },
  { pattern: /^sysrq triggered crash/, kind: 'sysrq', causes: [] },
  { pattern: /^Attempted to kill (?:init|the idle task)/, kind: 'init-killed' },
  { pattern: /^VFS: Unable to mount root|^No working init found|^Requested init .* failed/, kind: 'no-root' },
  { pattern: /^hung_task: /, kind: 'hung-task' },
  { pattern: /^softlockup: /, kind: 'soft-lockup' },
  { pattern: /^(?:Watchdog detected )?hard lockup/i, kind: 'hard-lockup' },
  { pattern: /^RCU Stall/i, kind: 'rcu-stall' },
  { pattern: /^Out of memory|^System is deadlocked on memory|(?<![a-z])oom(?![a-z])/i, kind: 'oom', causes: [] },
  { pattern: /machine check|^MCE|^Uncorrected hardware|^Asynchronous SError|^Fatal hardware error/i, kind: 'mce' },
  { pattern: /^kernel stack overflow|stack guard hit/i, kind: 'stack-overflow' },
  { pattern: /^stack-protector|^corrupted stack end/i, kind: 'stack-corruption' },
  { pattern: /^NMI|^An NMI occurred/, kind: 'nmi' },
  { pattern: /^kernel: panic_on_.*bug|^BUG/i, kind: 'bug' },
];

export const PANIC_LINE = /^Kernel panic - not syncing(?:: (.*))?$/;

export interface PanicReason {
  readonly kind: PanicKind;
  readonly saysLittle: boolean;
  isCause(event: { readonly kind: PanicKind; readonly severity: Severity }): boolean;
}

export function reasonOf(text: string): PanicReason {
  const known: Omit<Reason, 'pattern'> = REASONS.find(({ pattern }) => pattern.test(text)) ?? { kind: 'panic' };
  const causes = known.causes ?? [known.kind];
  return {
    kind: known.kind,
    saysLittle: known.saysLittle ?? false,
    isCause: ({ kind, severity }) => (causes === 'oops' ? severity === 'oops' : causes.includes(kind)),
  };
}
