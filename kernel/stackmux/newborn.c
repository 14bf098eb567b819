// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: threads that are cloned without a stack
 *
 * copy_process() builds the first frame of a thread on a stack of the pool, as
 * ever. Before the thread is woken for the first time the registers go to its
 * record, and the stack goes back: the next clone() finds it in the cache of the
 * CPU. From there on the thread is parked, in an operation whose end is the
 * start of a new task, and is given a stack when it is switched to. So a loop
 * that clones threads needs one stack, however many of them have not run yet.
 *
 * The thread can be seen by others (TASK_NEW), but nobody can run it yet: no
 * wake-up but wake_up_new_task() matches its state, not even one by SIGKILL. A
 * reader of its stack either gets a reference first, then the thread keeps it;
 * or finds none.
 */
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/uaccess.h>
#include <asm/stackmux.h>

#include "stackmux.h"
#include "ops.h"

/**
 * __stackmux_newborn - park a thread that has not run yet
 * @tsk: the thread, on a stack of the pool, just before wake_up_new_task()
 *
 * If there is no record for it, or if it is not to park, it keeps its stack.
 *
 * Context: process context of its parent, may sleep.
 */
void __stackmux_newborn(struct task_struct *tsk)
{
	struct vm_struct *vm = tsk->stack_vm_area;
	struct stackmux_record *rec;

	if (unlikely((tsk->flags & STACKMUX_PF_KEEP) | READ_ONCE(tsk->ptrace)) ||
	    unlikely(rt_or_dl_prio(tsk->normal_prio)) || unlikely(in_compat_syscall()))
		return;
	rec = stackmux_record_new(tsk, GFP_KERNEL);
	if (unlikely(!rec))
		return;
	rec->regs = *task_pt_regs(tsk);
	/* What stackmux_new_task() made sure of */
	rec->mm_id = arch_stackmux_mm_id(tsk->mm);
	rec->op = &stackmux_ops[STACKMUX_OP_NEWBORN];
	rec->wchan = (unsigned long)ARCH_STACKMUX_NEW_TASK;
	/* Readers of /proc find a record that is complete. */
	smp_store_release(&tsk->stackmux, rec);

	if (unlikely(!refcount_dec_if_one(&tsk->stack_refcount)))
		return;
	tsk->stack = NULL;
	tsk->stack_vm_area = NULL;
	local_irq_disable();
	stackmux_count(STACKMUX_NEWBORNS);
	stackmux_pool_put(stackmux_stack_idle(vm, rec->mm_id));
	local_irq_enable();
	/* As in stackmux_take() */
	smp_store_release(&tsk->stackmux_state, STACKMUX_GONE);
}

/*
 * The thread runs for the first time, on a stack, and the switch to it is
 * finished: what remains of schedule_tail(). It returns from clone() with 0.
 */
long stackmux_newborn_resume(struct stackmux_record *rec)
{
	if (current->set_child_tid)
		put_user(task_pid_vnr(current), current->set_child_tid);
	calculate_sigpending();
	return 0;
}
