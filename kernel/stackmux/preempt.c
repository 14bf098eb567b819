// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that are preempted on their way to user mode
 */
#include <linux/entry-common.h>
#include <linux/percpu.h>

#include "stackmux.h"

/**
 * DOC: preempted without a stack
 *
 * A task that is preempted on its way to user mode needs only its user registers until
 * it goes on. The first few of each CPU (``preempted_max``) keep their stack, which costs
 * nothing. The others park; otherwise each task of a woken herd would hold a stack from
 * its first turn to its second. They are runnable, so there is nothing to be armed and
 * nothing to be missed. A task that is preempted inside the kernel keeps its stack.
 *
 * A task that had to wait for its stack keeps that until it is in user mode. If it could
 * park on the way, it might wait for a stack again and again.
 */

/* Tasks of each CPU that keep their stack. Writable in sysfs. */
unsigned int stackmux_preempted_max __read_mostly = STACKMUX_BATCH;

/* Tasks that were preempted on this CPU and have kept their stack */
static DEFINE_PER_CPU(atomic_t, stackmux_preempted);

static void stackmux_preempted_woken(void)
{
	stackmux_count(STACKMUX_PREEMPTED);
}

/* Not a wait: it goes on to user mode. */
static const struct stackmux_op stackmux_preempted_op = {
	.name	= "preempted",
	.woken	= stackmux_preempted_woken,
};

/**
 * __stackmux_preempt - schedule() on the way to user mode
 * @regs: user registers
 *
 * Context: exit to user mode, interrupts on, by a task that has a record. May not
 * return, but continue in stackmux_ret_from_park().
 */
void __stackmux_preempt(struct pt_regs *regs)
{
	atomic_t *kept = raw_cpu_ptr(&stackmux_preempted);

	if (likely(atomic_read(kept) < READ_ONCE(stackmux_preempted_max)) ||
	    current->stackmux->keep_until_user || !stackmux_task_may_park(current)) {
		atomic_inc(kept);
		schedule();
		atomic_dec(kept);
		return;
	}
	WARN_ON_ONCE(IS_ENABLED(CONFIG_STACKMUX_DEBUG) && regs != current_pt_regs());
	stackmux_park_on_exit(current->stackmux, &stackmux_preempted_op,
			      (unsigned long)irqentry_exit_to_user_mode);
}
