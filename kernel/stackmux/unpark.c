// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: bring all parked tasks back onto stacks
 *
 * An administrator who has set kernel.stackmux to 0 wakes those that are parked. Each
 * gets a stack, finds that its wait goes on, and may not park: so it blocks there. Tasks
 * that are stopped or frozen get theirs when they go on.
 */
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>

#include "stackmux.h"

/* Is the task parked in a call? Then wake it. A wait that is over does not mind. */
static bool stackmux_unpark_task(struct task_struct *tsk)
{
	/* Pairs with smp_store_release() in stackmux_take(). */
	enum stackmux_stack_state state = smp_load_acquire(&tsk->stackmux_stack);

	if ((state != STACKMUX_PARKED && state != STACKMUX_LINGERING) ||
	    !READ_ONCE(tsk->stackmux->op)->fired)
		return false;
	wake_up_state(tsk, TASK_INTERRUPTIBLE);
	return !(READ_ONCE(tsk->__state) & TASK_FROZEN);
}

/* Returns how many tasks were parked, or -EINTR. */
static long stackmux_unpark_all(void)
{
	struct task_struct *tsk;
	struct pid *pid;
	long nr = 0;
	int i;

	/* By number: nothing has to be held from one task to the next. */
	for (i = 1; !signal_pending(current); i++) {
		rcu_read_lock();
		pid = find_ge_pid(i, &init_pid_ns);
		if (!pid) {
			rcu_read_unlock();
			return nr;
		}
		i = pid_nr(pid);
		tsk = pid_task(pid, PIDTYPE_PID);
		if (tsk && stackmux_unpark_task(tsk))
			nr++;
		rcu_read_unlock();
		cond_resched();
	}
	return -EINTR;
}

/**
 * stackmux_unpark - wake parked tasks until there is none
 *
 * Context: process context, may sleep.
 * Return: 0; -EBUSY if tasks may park; -EINTR.
 */
int stackmux_unpark(void)
{
	long nr;

	if (READ_ONCE(stackmux_mode) != STACKMUX_NEVER)
		return -EBUSY;
	if (!static_branch_unlikely(&stackmux_key))
		return 0;
	/*
	 * A task that saw an earlier mode leaves its stack without being preempted
	 * after that, and with interrupts off from schedule() on.
	 */
	synchronize_rcu();
	stackmux_flush();
	do {
		if (READ_ONCE(stackmux_mode) != STACKMUX_NEVER)
			return -EBUSY;
		nr = stackmux_unpark_all();
		/* They need time to run, and some may have to wait for a stack. */
		if (nr > 0)
			schedule_timeout_interruptible(1);
	} while (nr > 0);
	return nr;
}
