// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that are preempted on their way to user mode
 *
 * A task that is woken parked is given a stack when it runs. If it is preempted
 * before it waits again, it would keep that stack until it runs the next time; in a
 * herd of woken tasks, which the scheduler does not come back to before most of the
 * others have had their turn, such tasks and their stacks grow in number with the
 * herd. But all that they need is in their user registers. So the first few of each
 * CPU keep their stack, which costs nothing, and the others park.
 *
 * One that had to wait for its stack goes to user mode with it: what it does on the
 * way may wake the worker that it got it from, and so have it preempted every time.
 *
 * They are runnable, that is, they wait for nothing, so there is nothing to be armed
 * and nothing to be missed. Whoever switches to them gives them a stack.
 */
#include <linux/entry-common.h>
#include <linux/percpu.h>

#include "stackmux.h"

/* Tasks for each CPU that keep their stack. Writable in sysfs. */
unsigned int stackmux_preempted_max __read_mostly = STACKMUX_BATCH;

/* Tasks that were preempted on this CPU and have kept their stack */
static DEFINE_PER_CPU(atomic_t, stackmux_preempted);

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
	    current->stackmux->to_user || !stackmux_task_may_park(current)) {
		atomic_inc(kept);
		schedule();
		atomic_dec(kept);
		return;
	}
	WARN_ON_ONCE(IS_ENABLED(CONFIG_STACKMUX_DEBUG) && regs != current_pt_regs());
	stackmux_park_runnable(current->stackmux, STACKMUX_OP_PREEMPTED,
			       (unsigned long)irqentry_exit_to_user_mode);
}
