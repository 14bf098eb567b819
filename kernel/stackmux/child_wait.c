// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: wait4() and waitid() that park
 *
 * With the parts of do_wait() that were made for io_uring's waitid: the entry
 * in the queue of waiting parents is in the park record.
 */
#include <linux/pid.h>
#include <linux/resource.h>
#include <linux/sched/signal.h>
#include <linux/ptrace.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "../exit.h"
#include "stackmux.h"

struct stackmux_child_wait {
	struct wait_opts wo;
	bool woken;
};

static int stackmux_child_wake(wait_queue_entry_t *wait, unsigned int mode,
			       int sync, void *key)
{
	struct wait_opts *wo = container_of(wait, struct wait_opts, child_wait);
	struct stackmux_child_wait *w = container_of(wo, struct stackmux_child_wait, wo);
	struct task_struct *child = key;

	if (!pid_child_should_wake(wo, child))
		return 0;
	WRITE_ONCE(w->woken, true);
	return default_wake_function(wait, mode, sync, NULL);
}

static void stackmux_child_unqueue(struct stackmux_child_wait *w)
{
	remove_wait_queue(&current->signal->wait_chldexit, &w->wo.child_wait);
}

static bool stackmux_child_fired(struct stackmux_record *rec)
{
	return READ_ONCE(stackmux_private(rec, struct stackmux_child_wait)->woken);
}

/* As the end of wait4() */
static long stackmux_wait4_result(const unsigned long *args, int stat,
				  struct rusage *ru, long ret)
{
	int __user *ustat = (int __user *)args[1];
	void __user *uru = (void __user *)args[3];

	if (ret > 0 && ustat && put_user(stat, ustat))
		ret = -EFAULT;
	if (ret > 0 && uru && copy_to_user(uru, ru, sizeof(*ru)))
		ret = -EFAULT;
	return ret;
}

/* As the end of waitid() */
static long stackmux_waitid_result(const unsigned long *args,
				   struct waitid_info *info,
				   struct rusage *ru, long ret)
{
	struct siginfo __user *infop = (struct siginfo __user *)args[2];
	void __user *uru = (void __user *)args[4];
	int signo = 0;

	if (ret > 0) {
		signo = SIGCHLD;
		ret = 0;
		if (uru && copy_to_user(uru, ru, sizeof(*ru)))
			return -EFAULT;
	}
	if (!infop)
		return ret;
	if (!user_write_access_begin(infop, sizeof(*infop)))
		return -EFAULT;

	unsafe_put_user(signo, &infop->si_signo, efault);
	unsafe_put_user(0, &infop->si_errno, efault);
	unsafe_put_user(info->cause, &infop->si_code, efault);
	unsafe_put_user(info->pid, &infop->si_pid, efault);
	unsafe_put_user(info->uid, &infop->si_uid, efault);
	unsafe_put_user(info->status, &infop->si_status, efault);
	user_write_access_end();
	return ret;
efault:
	user_write_access_end();
	return -EFAULT;
}

static long stackmux_child_resume(struct stackmux_record *rec)
{
	struct stackmux_child_wait *w = stackmux_private(rec, struct stackmux_child_wait);
	struct waitid_info info = { };
	unsigned long args[6];
	struct rusage ru;
	long ret;

	/* Pairs with the barrier of the wake-up: children that changed are seen. */
	smp_store_mb(w->woken, false);
	if (w->wo.wo_info)
		w->wo.wo_info = &info;
	if (w->wo.wo_rusage)
		w->wo.wo_rusage = &ru;
	ret = __do_wait(&w->wo);
	if (ret == -ERESTARTSYS && !signal_pending(current))
		return STACKMUX_REARMED;

	stackmux_child_unqueue(w);
	put_pid(w->wo.wo_pid);
	syscall_get_arguments(current, current_pt_regs(), args);
	if (w->wo.wo_info)
		return stackmux_waitid_result(args, &info, &ru, ret);
	return stackmux_wait4_result(args, w->wo.wo_stat, &ru, ret);
}

static const struct stackmux_op stackmux_child_op = {
	.name	= "wait",
	.fired	= stackmux_child_fired,
	.resume	= stackmux_child_resume,
};

/**
 * stackmux_do_wait - do_wait() without a stack
 * @wo: what is waited for; the caller puts its pid
 * @wchan: the function in which the classic call would be seen sleeping
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: what do_wait() returns, or STACKMUX_ARMED.
 */
long stackmux_do_wait(struct wait_opts *wo, void *wchan)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_child_wait *w = stackmux_private(rec, struct stackmux_child_wait);
	long ret;

	w->wo = *wo;
	w->woken = false;
	init_waitqueue_func_entry(&w->wo.child_wait, stackmux_child_wake);
	w->wo.child_wait.private = current;
	add_wait_queue(&current->signal->wait_chldexit, &w->wo.child_wait);

	ret = __do_wait(&w->wo);
	if (ret != -ERESTARTSYS || signal_pending(current)) {
		stackmux_child_unqueue(w);
		wo->wo_stat = w->wo.wo_stat;
		return ret;
	}
	get_pid(w->wo.wo_pid);
	stackmux_arm(rec, &stackmux_child_op, (unsigned long)wchan);
	return STACKMUX_ARMED;
}
