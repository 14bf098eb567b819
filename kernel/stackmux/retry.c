// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: user code that re-checks the condition itself
 *
 * When a wait is over, the kernel looks at its condition on behalf of the
 * thread. A thread that does so anyway can register code for it with
 * prctl(PR_STACKMUX_RETRY). The wait is only taken down then, and the thread
 * goes on there; it enters the kernel again only when it has to.
 *
 * Whatever is not a plain wake-up (a time-out, a signal, a tracer of the exits of
 * system calls) is left to the kernel, so that its result is right.
 */
#include <linux/entry-common.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "stackmux.h"

static bool stackmux_retry_valid(const struct stackmux_retry *r)
{
	u64 end;

	return !r->flags && r->length && r->address < TASK_SIZE_MAX &&
	       !check_add_overflow(r->start, r->length, &end) && end <= TASK_SIZE_MAX;
}

/**
 * stackmux_drop_retry - forget the range of a thread
 * @rec: its record; the thread is current, or is no more
 */
void stackmux_drop_retry(struct stackmux_record *rec)
{
	kfree(rec->retry);
	rec->retry = NULL;
}

/**
 * stackmux_set_retry - prctl(PR_STACKMUX_RETRY)
 * @from: user address of a struct stackmux_retry, or NULL for none
 * @size: of the structure that the user knows
 *
 * Context: process context.
 * Return: as documented in include/uapi/linux/stackmux.h.
 */
long stackmux_set_retry(const void __user *from, size_t size)
{
	struct stackmux_retry r, *copy;
	int ret;

	if (!from && !size) {
		if (current->stackmux)
			stackmux_drop_retry(current->stackmux);
		return 0;
	}
	if (READ_ONCE(stackmux_mode) == STACKMUX_NEVER)
		return -EOPNOTSUPP;
	if (size < STACKMUX_RETRY_SIZE_VER0)
		return -EINVAL;
	ret = copy_struct_from_user(&r, sizeof(r), from, size);
	if (ret)
		return ret;
	if (!stackmux_retry_valid(&r))
		return -EINVAL;

	ret = stackmux_start();
	if (ret)
		return ret;
	if (!current->stackmux && !stackmux_record_alloc(GFP_KERNEL_ACCOUNT))
		return -ENOMEM;
	copy = kmemdup(&r, sizeof(r), GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;
	stackmux_drop_retry(current->stackmux);
	current->stackmux->retry = copy;
	return 0;
}

/**
 * __stackmux_retry - end a wait by sending the thread to its own code
 * @rec: record of current, which has been woken
 * @regs: its user registers
 *
 * Context: as op->resume().
 * Return: false if the kernel has to go on with the call; nothing has happened.
 */
bool __stackmux_retry(struct stackmux_record *rec, struct pt_regs *regs)
{
	const struct stackmux_retry *r = rec->retry;

	if (instruction_pointer(regs) - r->start >= r->length || !rec->op->cancel)
		return false;
	if (signal_pending(current) ||
	    READ_ONCE(current_thread_info()->syscall_work) & SYSCALL_WORK_EXIT)
		return false;
	if (!rec->op->cancel(rec))
		return false;
	stackmux_count(STACKMUX_RETRIES);
	syscall_set_return_value(current, regs, 0, STACKMUX_RETRY_WOKEN);
	arch_stackmux_jump(regs, r->address);
	return true;
}
