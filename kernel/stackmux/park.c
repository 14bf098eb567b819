// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: a task leaves its stack, and comes back to one
 *
 * A call that waits arms its wake sources in the task's record and returns.
 * Its last C frames are the syscall exit work, where the task parks: it switches
 * away, and the CPU takes the stack (see switch.c). When the task is switched to
 * again, the CPU gives it a stack with a fresh frame on top, which "returns" to
 * stackmux_ret_from_park(); there the operation goes on.
 */
#include <linux/entry-common.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/lockdep.h>
#include <linux/rethook.h>
#include <linux/sched/task_stack.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "../entry/common.h"
#include "stackmux.h"

#define CREATE_TRACE_POINTS
#include <trace/events/stackmux.h>

/**
 * DOC: park against wake
 *
 * While the call is armed, the task runs and a wake-up finds ``TASK_RUNNING``. So a
 * source first marks itself in the record and then wakes the task, and the task first
 * sets its state and then looks::
 *
 *	parking task				waker
 *	set_current_state(INTERRUPTIBLE)	source fires, say q->lock_ptr = NULL
 *	  smp_mb()				try_to_wake_up():
 *	if (op->fired(rec))			  smp_mb__after_spinlock()
 *		resume at once			  if (state & INTERRUPTIBLE)
 *	schedule()					wake
 *
 * One of the two sees the other's store.
 */

/* Nothing on the stack may matter to anybody once it is gone. */
static void stackmux_assert_parkable(void)
{
	if (!IS_ENABLED(CONFIG_STACKMUX_DEBUG))
		return;
	/* Not might_sleep(): the state may be set already. */
	__might_resched(__FILE__, __LINE__, 0);
	lockdep_assert_none_held_once();
	WARN_ON_ONCE(current->plug);
	WARN_ON_ONCE(current->journal_info);
	WARN_ON_ONCE(current->bio_list);
	WARN_ON_ONCE(pagefault_disabled());
	WARN_ON_ONCE(rcu_preempt_depth());
}

/*
 * schedule(), and leave the stack on the way. Preemption is off. Returns if the task
 * has kept it; false if the scheduler found nothing else to run.
 */
static __always_inline bool stackmux_switch(struct task_struct *tsk, enum stackmux_leave leave)
{
	tsk->stackmux_leave = leave;
	schedule_park();
	if (likely(!tsk->stackmux_leave))
		return true;
	tsk->stackmux_leave = STACKMUX_STAY;
	return false;
}

/*
 * Switch away, on no stack if possible. Returns if the task kept its stack:
 * a source had fired, it was picked to run again at once, or something held a
 * reference. Otherwise the task goes on in stackmux_ret_from_park().
 */
static __always_inline void stackmux_park(struct stackmux_record *rec)
{
	stackmux_assert_parkable();
	trace_stackmux_park(rec);

	preempt_disable();
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	/* Pairs with synchronize_rcu() in stackmux_unpark(). */
	if (rec->op->fired(rec) || unlikely(READ_ONCE(stackmux_mode) == STACKMUX_NEVER) ||
	    !stackmux_switch(current, STACKMUX_LEAVE))
		stackmux_count(STACKMUX_NOSWITCH);
	else if (rec->backoff)
		rec->backoff--;
	__set_current_state(TASK_RUNNING);
	preempt_enable();
}

/**
 * stackmux_park_on_exit - have current switch away with no stack, in no call
 * @rec: record of current
 * @op: an operation that has nothing to resume
 * @wchan: where the task would be seen
 *
 * The state is the caller's; a task may be runnable. Returns if the task kept its stack,
 * or nothing else was to run.
 *
 * Context: on the way to user mode, interrupts on.
 */
void stackmux_park_on_exit(struct stackmux_record *rec, const struct stackmux_op *op,
			   unsigned long wchan)
{
	stackmux_assert_parkable();

	/* If it is to be preempted, it would be in any function that is called now. */
	preempt_disable();
	WRITE_ONCE(rec->op, op);
	rec->wchan = wchan;
	rec->rearms = 0;
	trace_stackmux_park(rec);
	stackmux_switch(current, STACKMUX_LEAVE_NOW);
	preempt_enable();
}

/*
 * May a wait that woke for nothing park again? A source that keeps waking
 * without progress would make each round as dear as a park, so after a few of
 * them the wait keeps its stack.
 */
static bool stackmux_may_rearm(struct stackmux_record *rec)
{
	if (rec->rearms >= STACKMUX_MAX_REARMS || !stackmux_task_may_park(current))
		return false;
	rec->rearms++;
	stackmux_count(STACKMUX_REARMS);
	return true;
}

/* The wait of a task that keeps its stack from now on */
static void stackmux_block(struct stackmux_record *rec)
{
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (!rec->op->fired(rec)) {
		/* For readers this wait is like any other of the call. */
		current->stackmux_stack = STACKMUX_PINNED;
		schedule();
		current->stackmux_stack = STACKMUX_OWN;
	}
	__set_current_state(TASK_RUNNING);
}

/* The call waits again, until there is a result. May not return, but park. */
static noinline long stackmux_wait_on(struct stackmux_record *rec)
{
	long ret;

	do {
		if (stackmux_may_rearm(rec))
			stackmux_park(rec);
		else
			stackmux_block(rec);
		ret = rec->op->resume(rec);
	} while (ret == STACKMUX_REARMED);
	return ret;
}

/*
 * The task has a stack and something has woken it: goes on with its call until
 * that ends, and stores the result.
 */
static __always_inline void stackmux_resume(struct stackmux_record *rec,
					    struct pt_regs *regs)
{
	long ret;

	if (stackmux_retry(rec, regs))
		return;
	ret = rec->op->resume(rec);
	if (unlikely(ret == STACKMUX_REARMED))
		ret = stackmux_wait_on(rec);
	syscall_set_return_value(current, regs, 0, ret);
}

/**
 * stackmux_syscall_exit - park, as the first of the exit work of a system call
 * @regs: user registers
 *
 * Context: called with interrupts on by a task for which stackmux_arm() was
 * called. May return, or continue in stackmux_ret_from_park(); both do the rest
 * of the exit work when there is a result.
 */
void stackmux_syscall_exit(struct pt_regs *regs)
{
	struct stackmux_record *rec = current->stackmux;
	unsigned long work;

	clear_syscall_work(STACKMUX);
	stackmux_park(rec);
	stackmux_resume(rec, regs);
	/* The work that is there now: a tracer may have come. */
	work = READ_ONCE(current_thread_info()->syscall_work);
	if (unlikely(work & SYSCALL_WORK_EXIT))
		syscall_exit_work(regs, work);
}

/*
 * kretprobes of the abandoned frames will never return. No probed function is
 * on the stack at this point.
 */
static void stackmux_drop_rethooks(void)
{
#ifdef CONFIG_RETHOOK
	if (unlikely(!llist_empty(&current->rethooks)))
		rethook_flush_task(current);
#endif
}
NOKPROBE_SYMBOL(stackmux_drop_rethooks);

/* As syscall_exit_to_user_mode(), or irqentry_exit_to_user_mode() */
static noinstr void stackmux_to_user_mode(struct stackmux_record *rec,
					  struct pt_regs *regs, bool make_up)
{
	instrumentation_begin();
	if (likely(rec->op->resume)) {
		stackmux_resume(rec, regs);
		if (unlikely(make_up))
			stackmux_make_up();
		syscall_exit_to_user_mode_work(regs);
	} else {
		/* Any call that it has made is over. */
		rec->op->woken();
		if (unlikely(make_up))
			stackmux_make_up();
		local_irq_disable();
		exit_to_user_mode_prepare(regs);
	}
	rec->keep_until_user = false;
	instrumentation_end();
	exit_to_user_mode();
}

/**
 * stackmux_ret_from_park - first thing that a task does on its new stack
 * @prev: the task that ran before it on this CPU
 * @regs: its user registers, at the top of the stack
 * @starving: it is on a reserve stack, which it must leave at once
 *
 * Called by ret_from_park_asm, which returns to user mode afterwards.
 */
__visible notrace void stackmux_ret_from_park(struct task_struct *prev,
					      struct pt_regs *regs,
					      unsigned long starving)
{
	struct stackmux_record *rec = current->stackmux;
	struct vm_struct *vm = task_stack_vm_area(current);
	struct stackmux_stack *s;
	bool other_mm, make_up = false;

	schedule_tail_parked(prev);
	if (unlikely(starving))
		stackmux_starve(rec);

	s = task_stack_page(current);
	other_mm = s->mm_id != rec->mm_id;
	if (unlikely(other_mm) && s->mm_id != STACKMUX_MM_CLEAN)
		arch_stackmux_clear_below(s + 1);
	stackmux_drop_rethooks();
	preempt_enable();

	if (unlikely(rec->starved))
		stackmux_starved(rec);
	/*
	 * By force, since a wake-up can neither fail nor wait for memory. If that is too
	 * much for its group the task makes up for it when the call is over.
	 */
	if (unlikely(!stackmux_charged_to_current(vm))) {
		stackmux_recharge(vm, GFP_ATOMIC);
		make_up = stackmux_over_limit();
	}

	trace_stackmux_resume(rec, other_mm);
	stackmux_to_user_mode(rec, regs, make_up);
}
NOKPROBE_SYMBOL(stackmux_ret_from_park);
