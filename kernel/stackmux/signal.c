// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: rt_sigsuspend() and rt_sigtimedwait() that park
 */
#include <linux/sched/signal.h>
#include <linux/signal.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "../signal.h"
#include "stackmux.h"

struct stackmux_sigwait {
	sigset_t mask;
	struct stackmux_timer timeout;
};

/* A signal wakes, and no task goes to sleep to which one is pending. */
static bool stackmux_sigsuspend_fired(struct stackmux_record *rec)
{
	return false;
}

static long stackmux_sigsuspend_resume(struct stackmux_record *rec)
{
	if (!signal_pending(current))
		return STACKMUX_REARMED;
	set_restore_sigmask();
	return -ERESTARTNOHAND;
}

static const struct stackmux_op stackmux_sigsuspend_op = {
	.name	= "sigsuspend",
	.fired	= stackmux_sigsuspend_fired,
	.resume	= stackmux_sigsuspend_resume,
};

/**
 * stackmux_sigsuspend - wait for a signal without a stack, and restore the mask
 * @wchan: where the classic call would be seen sleeping
 *
 * The mask of the wait is in force, the other one in current->saved_sigmask.
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
long stackmux_sigsuspend(unsigned long wchan)
{
	stackmux_arm(current->stackmux, &stackmux_sigsuspend_op, wchan);
	return STACKMUX_ARMED;
}

static bool stackmux_sigtimedwait_fired(struct stackmux_record *rec)
{
	return stackmux_timer_fired(&stackmux_private(rec, struct stackmux_sigwait)->timeout);
}

/* The end of do_sigtimedwait() */
static int stackmux_sigtimedwait_end(sigset_t *mask, kernel_siginfo_t *info)
{
	struct task_struct *tsk = current;
	enum pid_type type;
	int sig;

	spin_lock_irq(&tsk->sighand->siglock);
	__set_task_blocked(tsk, &tsk->real_blocked);
	sigemptyset(&tsk->real_blocked);
	sig = dequeue_signal(mask, info, &type);
	spin_unlock_irq(&tsk->sighand->siglock);
	return sig;
}

static long stackmux_sigtimedwait_resume(struct stackmux_record *rec)
{
	struct stackmux_sigwait *w = stackmux_private(rec, struct stackmux_sigwait);
	bool timed_out = stackmux_timer_fired(&w->timeout);
	unsigned long args[6];
	kernel_siginfo_t info;
	int ret;

	/* A signal that another thread was faster to take leaves signal_pending(). */
	if (!timed_out && !signal_pending(current))
		return STACKMUX_REARMED;
	stackmux_timer_cancel(&w->timeout);

	ret = stackmux_sigtimedwait_end(&w->mask, &info);
	if (!ret)
		return timed_out ? -EAGAIN : -EINTR;
	syscall_get_arguments(current, current_pt_regs(), args);
	if (args[1] && copy_siginfo_to_user((siginfo_t __user *)args[1], &info))
		return -EFAULT;
	return ret;
}

static const struct stackmux_op stackmux_sigtimedwait_op = {
	.name	= "sigtimedwait",
	.fired	= stackmux_sigtimedwait_fired,
	.resume	= stackmux_sigtimedwait_resume,
};

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
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_sigwait *w = stackmux_private(rec, struct stackmux_sigwait);

	w->mask = *mask;
	stackmux_timer_none(&w->timeout);
	if (timeout)
		stackmux_timer_start(&w->timeout, CLOCK_MONOTONIC, *timeout,
				     current->timer_slack_ns, HRTIMER_MODE_REL);
	stackmux_arm(rec, &stackmux_sigtimedwait_op, _RET_IP_);
	return STACKMUX_ARMED;
}
