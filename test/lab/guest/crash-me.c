// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the guest's kernel fail in the way that is asked for: insmod crash-me.ko how=bug. For throw-away guests only.
 * One function for each way, so that its name stands innermost in the kernel's own backtrace.
 */
#include <linux/bug.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/perf_event.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <asm/nmi.h>

static char *how = "";
module_param(how, charp, 0);
MODULE_PARM_DESC(how, "the way to fail; see the table at the end");

/* Behind the compiler's back: it would refuse, or leave out, what can't end well. */
static void *volatile nowhere = (void *)0x10;
static void *volatile unmapped = (void *)0xffff800000001000ul; /* kept free for hypervisors: mm.rst, "guard hole" */
static void *volatile uncanonical = (void *)0xdead000000000100ul;
static volatile int zero;
static volatile int deepest = 1 << 30;

static noinline void crash_panic(void) { panic("crash-me says %px", &how); }
static noinline void crash_bug(void) { BUG(); }
static noinline void crash_null(void) { *(volatile int *)nowhere = 1; }
static noinline void crash_fault(void) { *(volatile int *)unmapped = 1; }
static noinline void crash_protection(void) { *(volatile int *)uncanonical = 1; }
static noinline void crash_divide(void) { asm volatile("xor %%edx, %%edx; divl %0" : : "m"(zero) : "eax", "edx"); }
static noinline void crash_opcode(void) { asm volatile("ud2"); }
static noinline void crash_warn(void) { WARN(1, "crash-me warns\n"); }

static noinline int crash_overflow(int level)
{
	volatile char frame[256];

	frame[level & 255] = (char)level;
	return level == deepest ? 0 : crash_overflow(level + 1) + frame[(level + 1) & 255];
}

static noinline void crash_overflow_begin(void) { zero = crash_overflow(0); }

/* Over the canary and the return address. */
static noinline void crash_canary(void)
{
	char frame[16];
	volatile char *at = frame;
	int i;

	for (i = 0; i < 96; i++)
		at[i] = 0x5a;
}

/* The CPU can't store the exception's frame on a stack that isn't there: a double fault. */
static noinline void crash_double(void) { asm volatile("mov %0, %%rsp; push %%rax" : : "r"(unmapped) : "memory"); }
STACK_FRAME_NON_STANDARD(crash_double);

static noinline void crash_soft_lockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void crash_irqs_off(void)
{
	local_irq_disable();
	pr_info("crash-me: interrupts are off\n");
	for (;;)
		cpu_relax();
}

/*
 * The kernel's detector of hard lock-ups counts a CPU's cycles, and QEMU without KVM has no such counter. This one
 * overflows whenever an NMI comes in from outside (virsh inject-nmi, which goes to CPU 0). All else is the kernel's own:
 * it makes an event on this counter, is called by its overflow, and finds out that the CPU takes no timer interrupts.
 */
static struct perf_event *counting;

static int counter_init(struct perf_event *event) { return 0; }
static int counter_add(struct perf_event *event, int flags)
{
	counting = event;
	return 0;
}
static void counter_del(struct perf_event *event, int flags) { counting = NULL; }
static void counter_start(struct perf_event *event, int flags) { }
static void counter_read(struct perf_event *event) { }

static struct pmu counter = {
	.module = THIS_MODULE,
	.task_ctx_nr = perf_invalid_context,
	.event_init = counter_init,
	.add = counter_add,
	.del = counter_del,
	.start = counter_start,
	.stop = counter_start,
	.read = counter_read,
};

static int counter_overflow(unsigned int type, struct pt_regs *regs)
{
	struct perf_sample_data data = {};
	struct perf_event *event = counting;

	if (event == NULL || smp_processor_id() != 0)
		return NMI_DONE;
	event->overflow_handler(event, &data, regs);
	return NMI_HANDLED;
}

/* Not exported; the second is its name since 6.5, and it wants the CPU's number. */
static void (*find_enable(void))(unsigned int)
{
	static const char *const names[] = { "hardlockup_detector_perf_enable", "watchdog_hardlockup_enable" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct kprobe probe = { .symbol_name = names[i] };

		if (register_kprobe(&probe) == 0) {
			unregister_kprobe(&probe);
			return (void *)probe.addr;
		}
	}
	return NULL;
}

static noinline void crash_hard_lockup(void)
{
	void (*enable)(unsigned int) = find_enable();

	/* Where the machine has counters of its own, they are registered by this number, and the detector is on. */
	if (enable != NULL && perf_pmu_register(&counter, "crash_me", PERF_TYPE_RAW) == 0) {
		register_nmi_handler(NMI_LOCAL, counter_overflow, 0, "crash_me");
		current->flags |= PF_NO_SETAFFINITY; /* Else it warns that this is no thread of one CPU. */
		enable(smp_processor_id());
	}
	crash_irqs_off();
}

static struct rcu_head waiting;
static void waited(struct rcu_head *head) { }

/* Lets the scheduler's tick in, so that only RCU complains: where somebody waits for it. */
static noinline void crash_rcu_stall(void)
{
	rcu_read_lock();
	call_rcu(&waiting, waited);
	for (;;)
		cpu_relax();
}

static noinline void crash_hang(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

static const struct {
	const char *how;
	void (*fail)(void);
} ways[] = {
	{ "panic", crash_panic },
	{ "bug", crash_bug },
	{ "null", crash_null },
	{ "fault", crash_fault },
	{ "protection", crash_protection },
	{ "divide", crash_divide },
	{ "opcode", crash_opcode },
	{ "warn", crash_warn },
	{ "overflow", crash_overflow_begin },
	{ "canary", crash_canary },
	{ "double", crash_double },
	{ "soft-lockup", crash_soft_lockup },
	{ "irqs-off", crash_irqs_off },
	{ "hard-lockup", crash_hard_lockup },
	{ "rcu-stall", crash_rcu_stall },
	{ "hang", crash_hang },
};

static int __init crash_me_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		if (strcmp(how, ways[i].how) == 0)
			ways[i].fail();
	}
	return -EINVAL; /* Not loaded then: can be tried again. */
}
module_init(crash_me_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("fails on purpose; test only");
