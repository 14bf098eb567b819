// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: threads that wait while another one dumps core
 *
 * The thread that dumps kills all others, and each of them waits in do_exit() until the
 * dump is done. Here it joins them earlier, and parks. What do_exit() keeps on the stack,
 * for the list of threads to dump, is in the record. The registers are there, too: see
 * stackmux_task_regs().
 */
#include <linux/cgroup.h>
#include <linux/completion.h>
#include <linux/sched/signal.h>

#include "stackmux.h"

const struct stackmux_op stackmux_dump_op = {
	.name	= "dump",
	.woken	= stackmux_stop_woken,
};

/**
 * stackmux_dump_join - become one of the threads that wait for a core dump
 * @rec: record of current
 *
 * To be followed by stackmux_dump_wait().
 *
 * Context: siglock held, which is released; signal->core_state is set.
 */
void stackmux_dump_join(struct stackmux_record *rec)
	__releases(&current->sighand->siglock)
{
	struct core_thread *self = stackmux_private(rec, struct core_thread);
	struct core_state *core_state = current->signal->core_state;

	/* As get_signal() and coredump_task_exit(), which does not wait again */
	sigdelset(&current->pending.signal, SIGKILL);
	current->flags |= PF_SIGNALED | PF_POSTCOREDUMP;
	spin_unlock_irq(&current->sighand->siglock);
	if (unlikely(cgroup_task_frozen(current)))
		cgroup_leave_frozen(true);
	/* From now on readers find the registers here, whether there is a stack or not. */
	rec->regs = *current_pt_regs();
	WRITE_ONCE(rec->op, &stackmux_dump_op);
	self->task = current;
	self->next = xchg(&core_state->dumper.next, self);
	/* The result of xchg() is visible to the one that dumps. */
	if (atomic_dec_and_test(&core_state->nr_threads))
		complete(&core_state->startup);
}

/**
 * stackmux_dump_wait - wait until the core dump is done
 * @rec: record of current
 *
 * To be called once more whenever the task runs again: it must not go on before.
 */
void stackmux_dump_wait(struct stackmux_record *rec)
{
	struct core_thread *self = stackmux_private(rec, struct core_thread);

	for (;;) {
		set_current_state(TASK_IDLE | TASK_FREEZABLE);
		/* Pairs with the barrier in coredump_finish(). */
		if (!READ_ONCE(self->task))
			break;
		stackmux_park_on_exit(rec, &stackmux_dump_op, (unsigned long)do_exit);
	}
	__set_current_state(TASK_RUNNING);
}
