// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: pause(), rt_sigsuspend() and rt_sigtimedwait() that park
 *
 * A signal wakes, and the scheduler does not let a task sleep to which one is
 * pending, so there is nothing to ask before the park.
 */
#include <linux/sched/signal.h>
#include <linux/signal.h>
#include <linux/ptrace.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "stackmux.h"
#include "ops.h"

/**
 * stackmux_pause - wait for a signal without a stack
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
long stackmux_pause(void)
{
	stackmux_arm(STACKMUX_OP_PAUSE);
	return STACKMUX_ARMED;
}

/**
 * stackmux_sigsuspend - the same, with a signal mask that is to be restored
 *
 * @wchan: the function in which the classic call would be seen sleeping
 *
 * The mask of the wait is in force, the other one in current->saved_sigmask.
 */
long stackmux_sigsuspend(void *wchan)
{
	stackmux_arm_at(current->stackmux, STACKMUX_OP_SIGSUSPEND, (unsigned long)wchan);
	return STACKMUX_ARMED;
}

bool stackmux_signal_fired(struct stackmux_record *rec)
{
	return false;
}

long stackmux_pause_resume(struct stackmux_record *rec)
{
	return signal_pending(current) ? -ERESTARTNOHAND : STACKMUX_ARMED;
}

long stackmux_sigsuspend_resume(struct stackmux_record *rec)
{
	if (!signal_pending(current))
		return STACKMUX_ARMED;
	set_restore_sigmask();
	return -ERESTARTNOHAND;
}

/**
 * stackmux_sigtimedwait - wait for signals without a stack
 * @mask: those that are not waited for; the others are unblocked by now, and
 *	  what was blocked before is in current->real_blocked
 * @timeout: how long, or NULL
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
int stackmux_sigtimedwait(const sigset_t *mask, ktime_t *timeout)
{
	struct stackmux_sigwait *w = &current->stackmux->sigwait;

	w->mask = *mask;
	w->timeout.set = false;
	if (timeout)
		stackmux_timer_start(&w->timeout, CLOCK_MONOTONIC, *timeout,
				     current->timer_slack_ns, HRTIMER_MODE_REL);
	stackmux_arm_at(current->stackmux, STACKMUX_OP_SIGTIMEDWAIT, _RET_IP_);
	return STACKMUX_ARMED;
}

bool stackmux_sigtimedwait_fired(struct stackmux_record *rec)
{
	return stackmux_timer_fired(&rec->sigwait.timeout);
}

long stackmux_sigtimedwait_resume(struct stackmux_record *rec)
{
	struct stackmux_sigwait *w = &rec->sigwait;
	bool timed_out = stackmux_timer_fired(&w->timeout);
	unsigned long args[6];
	kernel_siginfo_t info;
	int ret;

	/*
	 * The classic call ends with any wake-up, -EINTR if no signal is there.
	 * A wake-up without cause cannot be told from one by a signal that
	 * another thread was faster to take.
	 */
	stackmux_timer_cancel(&w->timeout);

	ret = stackmux_sigtimedwait_end(&w->mask, &info);
	if (!ret)
		return timed_out ? -EAGAIN : -EINTR;
	syscall_get_arguments(current, current_pt_regs(), args);
	if (args[1] && copy_siginfo_to_user((siginfo_t __user *)args[1], &info))
		return -EFAULT;
	return ret;
}
