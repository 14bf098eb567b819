// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that are to stop, or to be frozen, on their way to user mode
 *
 * Or to wait for a core dump: what is special about that is in dump.c.
 *
 * All that they need is in their user registers, so they park. Tasks that are traced
 * do not: they go to get_signal() with their stack, as do those whose stop has been
 * cancelled.
 */
#include <linux/cgroup.h>
#include <linux/freezer.h>
#include <linux/sched/signal.h>
#include <linux/signal.h>
#include <linux/task_work.h>
#include <linux/uprobes.h>

#include "../signal.h"
#include "stackmux.h"

/**
 * DOC: stopped without a stack
 *
 * The place is exit_to_user_mode_loop(), just before get_signal(), which is not entered:
 * the restart of an interrupted call, and the mask to be put back, are for the time
 * after the stop. What get_signal() would do first is done in its order: task work,
 * uprobes, siglock, and then the task takes part in the stop and parks::
 *
 *	stopping task				SIGCONT, SIGKILL, ptrace
 *	spin_lock(siglock)			spin_lock(siglock)
 *	jobctl |= JOBCTL_STOPPED		jobctl &= ~JOBCTL_STOPPED
 *	set_special_state(TASK_STOPPED)		wake_up_state(__TASK_STOPPED)
 *	spin_unlock(siglock)			spin_unlock(siglock)
 *	schedule(): off the stack
 *
 * When it runs again it comes back to the loop with ``TIF_SIGPENDING`` set, and so to
 * get_signal(). That sees what it would have seen after a classic stop: the first to
 * come tells the parent with ``CLD_CONTINUED``, signals that have come meanwhile are
 * dequeued, and a call that was interrupted is restarted or ends with ``EINTR``.
 *
 * The task that dequeues the signal is in get_signal() already. It starts the stop for
 * the others, and keeps its stack.
 *
 * The freezer of version 2 cgroups is a trap of get_signal(), too. A frozen task sleeps
 * interruptibly, with ``TIF_SIGPENDING`` cleared; a signal that is not fatal, or task
 * work, wakes it, and it is frozen again. That of version 1, and suspend, come before
 * siglock: refrigerator_prepare() has the protocol of __refrigerator(). Waits that are
 * parked are not even woken for them.
 */

/**
 * stackmux_stop_woken - current has been stopped, and goes on to get_signal()
 */
void stackmux_stop_woken(void)
{
	stackmux_count(STACKMUX_STOPPED);
	set_thread_flag(TIF_SIGPENDING);
}

static const struct stackmux_op stackmux_stopped_op = {
	.name	= "stopped",
	.woken	= stackmux_stop_woken,
};

static const struct stackmux_op stackmux_frozen_op = {
	.name	= "frozen",
	.woken	= stackmux_stop_woken,
};

/* Without a lock: whoever asks current to stop sets TIF_SIGPENDING afterwards. */
static bool stackmux_stop_pending(void)
{
	return (READ_ONCE(current->jobctl) & (JOBCTL_STOP_PENDING | JOBCTL_TRAP_FREEZE)) ||
	       READ_ONCE(current->signal->core_state) || freezing(current);
}

/* True if it has stopped; false if get_signal() has something else to do first. */
static bool stackmux_stop_here(struct stackmux_record *rec)
{
	struct signal_struct *sig = current->signal;
	unsigned long pending;

	if (unlikely(freezing(current))) {
		if (!refrigerator_prepare())
			return false;
		stackmux_park_on_exit(rec, &stackmux_frozen_op, (unsigned long)__refrigerator);
		return true;
	}
	spin_lock_irq(&current->sighand->siglock);
	if (current->ptrace || sig->group_exec_task || (sig->flags & SIGNAL_CLD_MASK))
		goto unlock;
	if (sig->flags & SIGNAL_GROUP_EXIT) {
		if (!sig->core_state)
			goto unlock;
		stackmux_dump_join(rec);
		stackmux_dump_wait(rec);
		return true;
	}
	pending = current->jobctl & (JOBCTL_PENDING_MASK | JOBCTL_TRAP_FREEZE);
	if (pending & JOBCTL_STOP_PENDING) {
		signal_stop_prepare();
		stackmux_park_on_exit(rec, &stackmux_stopped_op, (unsigned long)do_signal_stop);
		return true;
	}
	if (pending == JOBCTL_TRAP_FREEZE) {
		/* As do_freezer_trap() */
		__set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
		clear_thread_flag(TIF_SIGPENDING);
		spin_unlock_irq(&current->sighand->siglock);
		cgroup_enter_frozen();
		stackmux_park_on_exit(rec, &stackmux_frozen_op, (unsigned long)get_signal);
		return true;
	}

unlock:
	spin_unlock_irq(&current->sighand->siglock);
	return false;
}

/**
 * __stackmux_stop - stop without a stack
 * @regs: user registers
 *
 * Context: exit to user mode, interrupts on, before signals are looked at. May not
 * return, but continue in stackmux_ret_from_park().
 */
void __stackmux_stop(struct pt_regs *regs)
{
	WARN_ON_ONCE(IS_ENABLED(CONFIG_STACKMUX_DEBUG) && regs != current_pt_regs());
	if (unlikely(current->flags & PF_POSTCOREDUMP)) {
		stackmux_dump_wait(current->stackmux);
		return;
	}
	while (stackmux_stop_pending() && stackmux_task_may_park(current) &&
	       (current->stackmux || stackmux_record_alloc(GFP_KERNEL))) {
		/* As in get_signal() */
		clear_notify_signal();
		if (unlikely(task_work_pending(current)))
			task_work_run();
		if (!task_sigpending(current) || uprobe_deny_signal())
			return;
		if (!stackmux_stop_here(current->stackmux))
			return;
		/* It has kept its stack. */
		set_thread_flag(TIF_SIGPENDING);
	}
}
