// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: what /proc and SysRq say of a parked task
 *
 * The same as of a task that blocks in the same call, as far as there is
 * something to say: its registers and where it waits are in its record.
 *
 * The caller holds a reference on the task, so the record stays; that the task
 * stays parked meanwhile is for the caller to make sure, as for any look at a
 * sleeping task.
 */
#include <linux/sched/debug.h>
#include <linux/sched/task_stack.h>
#include <asm/syscall.h>

#include "stackmux.h"

static struct stackmux_record *stackmux_parked(struct task_struct *tsk)
{
	/* Pairs with smp_store_release() in stackmux_record_alloc(). */
	struct stackmux_record *rec = smp_load_acquire(&tsk->stackmux);

	if (!rec || !READ_ONCE(rec->op))
		return NULL;
	/* Pairs with smp_store_release() in stackmux_take(). */
	switch (smp_load_acquire(&tsk->stackmux_state)) {
	case STACKMUX_LINGERS:
	case STACKMUX_KEPT:
	case STACKMUX_GONE:
		return rec;
	default:
		return NULL;
	}
}

static bool stackmux_has_stack(struct task_struct *tsk)
{
	return READ_ONCE(tsk->stackmux_state) != STACKMUX_GONE;
}

/**
 * stackmux_parked_regs - user registers of a parked task
 * @tsk: the task, which the caller holds a reference on
 *
 * Return: the registers, or NULL if the task is not parked, or has its stack
 *	   still: then they are where they always are.
 */
struct pt_regs *stackmux_parked_regs(struct task_struct *tsk)
{
	struct stackmux_record *rec = stackmux_parked(tsk);

	return rec && !stackmux_has_stack(tsk) ? &rec->regs : NULL;
}

/**
 * stackmux_wchan - where a parked task sleeps
 * @tsk: the task, which the caller holds a reference on
 *
 * Return: an address in the function in which the classic call would sleep, or
 *	   0 if the task is not parked.
 */
unsigned long stackmux_wchan(struct task_struct *tsk)
{
	struct stackmux_record *rec = stackmux_parked(tsk);

	/* Like a return address, not the entry of the function */
	return rec ? READ_ONCE(rec->wchan) + 1 : 0;
}

/**
 * stackmux_stack_trace - what stands for the stack trace of a parked task
 * @tsk: the task, which the caller holds a reference on
 * @entries: return addresses go here
 * @size: number of entries there is room for
 *
 * Return: the number of entries stored; 0 if the task is not parked, or with a
 *	   stack that cannot be taken.
 */
unsigned int stackmux_stack_trace(struct task_struct *tsk, unsigned long *entries,
				  unsigned int size)
{
	unsigned long wchan = stackmux_wchan(tsk);

	if (!wchan || !size || READ_ONCE(tsk->stackmux_state) == STACKMUX_KEPT)
		return 0;
	entries[0] = wchan;
	if (size == 1)
		return 1;
	entries[1] = (unsigned long)stackmux_syscall_exit + 1;
	return 2;
}

/**
 * stackmux_show_task - sched_show_task() for a task that has no stack
 * @tsk: the task
 */
void stackmux_show_task(struct task_struct *tsk)
{
	struct stackmux_record *rec = stackmux_parked(tsk);
	int ppid = 0;

	if (!rec || stackmux_has_stack(tsk))
		return;

	rcu_read_lock();
	if (pid_alive(tsk))
		ppid = task_pid_nr(rcu_dereference(tsk->real_parent));
	rcu_read_unlock();
	pr_info("task:%-15.15s state:%c stack:%-5lu pid:%-5d tgid:%-5d ppid:%-6d flags:0x%08lx\n",
		tsk->comm, task_state_to_char(tsk), 0UL, task_pid_nr(tsk),
		task_tgid_nr(tsk), ppid, read_task_thread_flags(tsk));
	pr_info("Call Trace:\n");
	pr_info(" <TASK>\n");
	pr_info(" %pS\n", (void *)stackmux_wchan(tsk));
	pr_info(" %pS\n", (void *)stackmux_syscall_exit);
	pr_info(" (parked: syscall %d, RIP: %pS RSP: %#lx)\n",
		syscall_get_nr(tsk, &rec->regs),
		(void *)instruction_pointer(&rec->regs),
		user_stack_pointer(&rec->regs));
	pr_info(" </TASK>\n");
}
