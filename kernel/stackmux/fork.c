// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: clone() takes a stack from the pool, and starts a thread without one
 */
#include <linux/magic.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/stackmux.h>

#include "stackmux.h"

/**
 * DOC: born without a stack
 *
 * A thread that a parking process clones begins its life parked. copy_process() builds its
 * first frame on a stack of the pool. Before the thread is woken for the first time, its
 * registers go to its record and the stack goes back, so a loop that clones threads uses
 * one stack again and again. Other tasks can see the thread, but only wake_up_new_task()
 * matches its state, ``TASK_NEW``, so nothing switches to it meanwhile. A reader of its
 * stack either gets a reference first, then the thread keeps it; or finds none.
 *
 * The thread also keeps it if it is not going to park (it is real-time or traced, or a
 * 32-bit call cloned it), or if there is no memory for its record. Children of fork() and
 * vfork(), kernel threads and the workers of io_uring and vhost start on a stack, as
 * without stackmux.
 */

/**
 * stackmux_alloc_stack - give a new task of a parking process a pool stack
 * @tsk: the new task
 * @node: where its memory should be
 *
 * A parking process clones threads that are going to park, so stacks that the
 * earlier ones gave back serve the later ones and vmalloc() is not called.
 * What the address space's other threads left on a stack stays; see
 * stackmux_new_task() for the rest.
 *
 * Return: 0; -ENOMEM; or -EAGAIN if current is no parking process: the caller
 *	   goes on in the classic way.
 */
int stackmux_alloc_stack(struct task_struct *tsk, int node)
{
	struct stackmux_stack *s;
	unsigned long flags;

	if (!static_branch_unlikely(&stackmux_key) || !stackmux_wanted(current))
		return -EAGAIN;

	local_irq_save(flags);
	s = stackmux_pool_get_for(arch_stackmux_mm_id(current->mm));
	local_irq_restore(flags);
	if (!s)
		s = stackmux_stack_create(node, GFP_KERNEL);
	if (!s)
		return -ENOMEM;

	if (!stackmux_charged_to_current(s->vm) &&
	    stackmux_recharge(s->vm, GFP_KERNEL)) {
		local_irq_save(flags);
		stackmux_pool_put(s);
		local_irq_restore(flags);
		return -ENOMEM;
	}
	stackmux_count(STACKMUX_CLONES);
	tsk->stack_vm_area = s->vm;
	tsk->stack = s;
	return 0;
}

/**
 * stackmux_new_task - make a new task's stack fit for it
 * @tsk: the task, not yet visible to anybody
 * @clone_flags: of its clone()
 *
 * What the threads of one address space leave on a stack may meet another
 * thread of it, but nobody else: not even a child that got a copy.
 */
void stackmux_new_task(struct task_struct *tsk, u64 clone_flags)
{
	struct stackmux_stack *s;

	if (!static_branch_unlikely(&stackmux_key) || !stackmux_owns_stack(tsk))
		return;
	s = tsk->stack;
	if (s->mm_id == STACKMUX_MM_CLEAN)
		return;
	if (!(clone_flags & CLONE_VM) ||
	    s->mm_id != arch_stackmux_mm_id(current->mm))
		memset(s + 1, 0, THREAD_SIZE - sizeof(*s));
}

/**
 * stackmux_free_stack - take the stack of a dead task into the pool
 * @tsk: the task, whose stack stackmux_owns_stack()
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_free_stack(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	struct stackmux_stack *s;
	unsigned long flags;

	local_irq_save(flags);
	s = stackmux_stack_idle(tsk->stack_vm_area,
				rec ? rec->mm_id : STACKMUX_MM_UNKNOWN);
	stackmux_pool_put(s);
	local_irq_restore(flags);
}

/*
 * The thread runs for the first time, on a stack, and the switch to it is
 * finished: what remains of schedule_tail(). It returns from clone() with 0.
 */
static long stackmux_newborn_resume(struct stackmux_record *rec)
{
	if (current->set_child_tid)
		put_user(task_pid_vnr(current), current->set_child_tid);
	calculate_sigpending();
	return 0;
}

/* Not a wait: its end is the start of a new task. */
static const struct stackmux_op stackmux_newborn_op = {
	.name	= "clone",
	.resume	= stackmux_newborn_resume,
};

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

	if (unlikely((tsk->flags & STACKMUX_PF_EXCLUDED) | READ_ONCE(tsk->ptrace)) ||
	    unlikely(rt_or_dl_prio(tsk->normal_prio)) || unlikely(arch_stackmux_compat_call()))
		return;
	rec = stackmux_record_new(tsk, GFP_KERNEL);
	if (unlikely(!rec))
		return;
	rec->regs = *task_pt_regs(tsk);
	/* What stackmux_new_task() made sure of */
	rec->mm_id = arch_stackmux_mm_id(tsk->mm);
	rec->op = &stackmux_newborn_op;
	rec->wchan = (unsigned long)ARCH_STACKMUX_NEW_TASK;
	/* Readers of /proc find a record that is complete. */
	smp_store_release(&tsk->stackmux, rec);

	if (unlikely(!refcount_dec_if_one(&tsk->stack_refcount)))
		return;
	stackmux_no_stack(tsk);
	local_irq_disable();
	stackmux_count(STACKMUX_NEWBORNS);
	stackmux_pool_put(stackmux_stack_idle(vm, rec->mm_id));
	local_irq_enable();
	/* As in stackmux_take() */
	smp_store_release(&tsk->stackmux_stack, STACKMUX_PARKED);
}
