/** One report of the kernel, from the line that began it on: on which CPU and in which task it happened, and the stack. */

const CPU_LINE =
  /CPU: (\d{1,6}) (?:UID: \d+ )?PID: (\d{1,10}) Comm: (.{1,64}?) (?:Kdump: loaded )?(Not tainted|Tainted: ([A-Z ]{1,40}?)(?= +\S*\d|$))/;
const STUCK_CPU = /(?:CPU#|on cpu |on CPU |^CPU |\[Hardware Error\]: CPU )(\d{1,6})/;
const STUCK_TASK = /\[(.{1,64}):(\d{1,10})\]|^INFO: task (.{1,64}):(\d{1,10}) /;
const KILLED_TASK = /Killed? process (\d{1,10}) \((.{1,64}?)\)/;

export interface Place {
  readonly cpu?: number;
  readonly task?: string;
  readonly pid?: number;
  readonly taint?: string;
}

/** The first line of the report names CPU and task for lockups; all reports have the "CPU: … PID: …" line. */
export function placeOf(report: readonly string[]): Place {
  const first = report[0] ?? '';
  const stuckCpu = STUCK_CPU.exec(first)?.[1];
  const [, locked, lockedPid, hung, hungPid] = STUCK_TASK.exec(first) ?? [];
  const [, killedPid, killed] = KILLED_TASK.exec(first) ?? [];
  const task = locked ?? hung ?? killed;
  const pid = lockedPid ?? hungPid ?? killedPid;
  const context = report.map((line) => CPU_LINE.exec(line)).find((match) => match !== null);
  const [, cpu, contextPid, comm, , letters] = context ?? [];
  // A hung task is seen by khungtaskd, and a killed one was on no CPU: a "CPU:" line that may follow is of another task.
  const isOther = hung !== undefined || killed !== undefined;
  return {
    ...numberField('cpu', stuckCpu ?? (isOther ? undefined : cpu)),
    ...numberField('pid', pid ?? contextPid),
    ...((task ?? comm) === undefined ? {} : { task: task ?? comm ?? '' }),
    ...(context === undefined ? {} : { taint: (letters ?? '').replaceAll(' ', '') }),
  };
}

function numberField<K extends string>(key: K, digits: string | undefined): { [P in K]?: number } {
  return (digits === undefined ? {} : { [key]: Number(digits) }) as { [P in K]?: number };
}

const INSTRUCTION_POINTER = /^\s*(?:RIP: (?:0010|e030):|pc : |RIP: \[<[0-9a-f]+>\] )([A-Za-z_][\w.]*)\+0x/;
/** Nothing returns to the start of a function: the last call of the one before, a panic() for instance, doesn't return. */
const FRAME = /^\s*(?:\[<[0-9a-fx]+>\]\s*)?([A-Za-z_][\w.]*)\+0x(?!0\/)[0-9a-f]+\/0x[0-9a-f]+/;
/** How the kernel gets to printing, to sleep, or into an NMI: the same whatever went wrong. */
const PLUMBING = [
  /^(?:dump_stack|show_stack|show_regs|dump_backtrace|panic|vpanic|nmi_panic|__die|die|oops_end)(?:_lvl|_body)?$/,
  /^(?:__stack_chk_fail|__switch_to|__schedule|schedule)$/,
  /^(?:unknown_nmi_error|default_do_nmi|do_nmi|exc_nmi|asm_exc_nmi|end_repeat_nmi|nmi)$/,
];
const MAX_STACK = 24;

/** Function names, innermost first. One that calls itself stands there once: how often it did says nothing. */
export function stackOf(report: readonly string[]): string[] {
  const stack: string[] = [];
  const push = (full: string) => {
    const name = functionName(full);
    if (stack.at(-1) !== name && !PLUMBING.some((pattern) => pattern.test(name))) stack.push(name);
  };
  const begin = report.findIndex((line) => /^\s*Call [Tt]race:/.test(line));
  const pointers = report.map((line) => INSTRUCTION_POINTER.exec(line)?.[1]);
  const at = pointers.findIndex((name) => name !== undefined);
  if (at >= 0 && (begin < 0 || at < begin)) push(pointers[at] ?? '');
  let isInterrupted = false;
  for (let i = begin + 1; begin >= 0 && i < report.length && stack.length < MAX_STACK; i++) {
    const line = report[i] ?? '';
    // In the middle of a trace: what the CPU was doing when the interrupt or exception came. The trace goes on there,
    // unless it was a user program.
    if (pointers[i] !== undefined) {
      isInterrupted = true;
      push(pointers[i] ?? '');
    } else if (/^---\[|^Modules linked in|^RIP: |^Kernel Offset|^\s*<\/TASK>/.test(line)) break;
    else if (/^Code: /.test(line) && !isInterrupted) break;
    const name = FRAME.exec(line)?.[1];
    if (name !== undefined) push(name);
  }
  return stack;
}

/** Without what the compiler appends to a name: `.cold`, `.isra.0`, `.constprop.0`, `.part.3`. */
function functionName(name: string): string {
  return name.replace(/\.(?:cold|isra|constprop|part|llvm|lto_priv)\b.*$/, '');
}
