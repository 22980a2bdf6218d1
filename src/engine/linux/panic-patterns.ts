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

/** How bad: an oops without a panic kills a task, the others leave the kernel running somehow. */
export type Severity = 'oops' | 'stuck' | 'shortage' | 'mark';

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
  { kind: 'double-fault', severity: 'oops', pattern: /^(?:traps: )?PANIC: double fault|^(?:Oops: )?double fault/ },
  { kind: 'sanitizer', severity: 'stuck', pattern: /^BUG: (?:KASAN|KCSAN|KFENCE|KMSAN): |^UBSAN: / },
  { kind: 'soft-lockup', severity: 'stuck', pattern: /^(?:NMI )?(?:watchdog: )?BUG: soft lockup/ },
  {
    kind: 'hard-lockup',
    severity: 'stuck',
    pattern: /^(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP/,
  },
  { kind: 'workqueue-lockup', severity: 'stuck', pattern: /^BUG: workqueue lockup/ },
  { kind: 'bug', severity: 'oops', pattern: /^kernel BUG at |^BUG: / },
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
    pattern: /^INFO: task .+:\d+ (?:is )?blocked (?:in \w+ state )?for more than/,
  },
  { kind: 'mce', severity: 'shortage', pattern: /\[Hardware Error\]: (?:CPU \d+: )?Machine [Cc]heck/ },
  { kind: 'oom', severity: 'shortage', pattern: /^Out of memory: Kill/ },
  { kind: 'warning', severity: 'mark', pattern: /^WARNING: / },
];

/** What `panic()` was called with, by kind. `undefined`: the reason says nothing, what went before it does. */
const REASONS: readonly (readonly [RegExp, PanicKind | undefined])[] = [
  [/^(?:Fatal exception|Oops|Fatal exception in interrupt|panic_on_oops)/i, undefined],
  [/^sysrq triggered crash/, 'sysrq'],
  [/^Attempted to kill (?:init|the idle task)/, 'init-killed'],
  [/^VFS: Unable to mount root|^No working init found|^Requested init .* failed/, 'no-root'],
  [/^hung_task: /, 'hung-task'],
  [/^softlockup: /, 'soft-lockup'],
  [/^(?:Watchdog detected )?hard lockup/i, 'hard-lockup'],
  [/^RCU Stall/i, 'rcu-stall'],
  [/^Out of memory|^System is deadlocked on memory|oom/i, 'oom'],
  [/machine check|^MCE|^Uncorrected hardware|^Asynchronous SError|^Fatal hardware error/i, 'mce'],
  [/^stack-protector|^corrupted stack end|^kernel stack overflow/i, 'stack-corruption'],
  [/^NMI|^An NMI occurred/, 'nmi'],
  [/panic_on_warn/, 'warning'],
  [/^kernel: panic_on_.*bug|^BUG/i, 'bug'],
];

export const PANIC_LINE = /^Kernel panic - not syncing(?:: (.*))?$/;

/** The kind of a panic by its reason; undefined where only what went before it tells. */
export function kindOfReason(reason: string): PanicKind | undefined {
  const known = REASONS.find(([pattern]) => pattern.test(reason));
  return known === undefined ? 'panic' : known[1];
}
