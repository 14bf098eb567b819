// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: leaving a stack, and coming back to one
 *
 * A call that waits arms its wake sources in the task's record and returns.
 * Its last C frames are the syscall exit work, where the task parks: it copies
 * its user registers and switches away, and the CPU takes the stack. When the
 * task is switched to again, the CPU gives it a stack with a fresh frame on
 * top, which "returns" to stackmux_ret_from_park(); there the operation goes on.
 *
 * Park against wake: while the call is armed, the task runs and a wake-up finds
 * TASK_RUNNING, so the record itself has to say that its source has fired.
 *
 *	parking task				waker
 *	set_current_state(INTERRUPTIBLE)	source fires, say q->lock_ptr = NULL
 *	  smp_mb()				try_to_wake_up():
 *	if (op->fired(rec))			  smp_mb__after_spinlock()
 *		resume at once			  if (state & INTERRUPTIBLE)
 *	schedule()					wake
 *
 * One of the two sees the other's store.
 *
 * The stack is taken in exactly one place, __stackmux_detach(), by the CPU that
 * ran the task, before it publishes on_cpu = 0 and so before any other CPU can
 * switch to the task; and only for the switch that the park itself asked for:
 * preemption is off from the moment stackmux_detach is set to that switch.
 *
 *	parking CPU				reader, e.g. of /proc/PID/stack
 *	refcount_dec_if_one(): 1 -> 0		refcount_inc_not_zero(): 1 -> 2
 *	  the stack is gone			  the stack is the reader's, too
 *
 * If the reader comes first the task keeps its stack and later goes on where
 * it stood. When a stack is attached its count is set to 1 last.
 */
#include <linux/compat.h>
#include <linux/entry-common.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/lockdep.h>
#include <linux/magic.h>
#include <linux/rethook.h>
#include <linux/sched/rt.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/stackleak.h>
#include <linux/thread_info.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "stackmux.h"

static struct kmem_cache *stackmux_record_cache;
static atomic_long_t stackmux_records = ATOMIC_LONG_INIT(0);

/**
 * stackmux_park_init - make the cache of park records
 *
 * Context: process context, under the start mutex.
 * Return: 0 or -ENOMEM.
 */
int stackmux_park_init(void)
{
	if (!stackmux_record_cache)
		stackmux_record_cache = KMEM_CACHE(stackmux_record, SLAB_ACCOUNT);
	return stackmux_record_cache ? 0 : -ENOMEM;
}

/* Park records in existence. */
long stackmux_nr_records(void)
{
	return atomic_long_read(&stackmux_records);
}

/* First park of current: without a record it blocks on its stack. */
static noinline bool stackmux_record_alloc(void)
{
	gfp_t gfp = GFP_KERNEL | __GFP_NORETRY;
	struct stackmux_record *rec;

	if (!task_stack_vm_area(current))
		return false;
	/* Some calls find out that they have to wait under a lock. */
	if (irqs_disabled())
		gfp = GFP_NOWAIT;
	rec = kmem_cache_zalloc(stackmux_record_cache, gfp | __GFP_NOWARN);
	if (!rec)
		return false;
	atomic_long_inc(&stackmux_records);
	rec->task = current;
	/* It may exit before it ever parks, and its stack is anything but clean. */
	rec->mm_id = STACKMUX_MM_UNKNOWN;
	stackmux_stack_adopt(current);
	/* Readers of /proc find a record that is complete. */
	smp_store_release(&current->stackmux, rec);
	return true;
}

/* The task is no more, so no wake source and no reader knows the record. */
void __stackmux_free_task(struct task_struct *tsk)
{
	atomic_long_dec(&stackmux_records);
	kmem_cache_free(stackmux_record_cache, tsk->stackmux);
	tsk->stackmux = NULL;
}

/*
 * Tasks that block on their stack although their process parks:
 * - kernel threads and the workers of io_uring and vhost: nothing to return to;
 * - those that reclaim or write back memory: they must not need any to go on;
 * - those that are exiting, or traced: a tracer looks at the stack's registers;
 * - real-time and deadline tasks: no wait for a stack after a wake-up;
 * - 32-bit system calls, whose entry has other work to do on the way out.
 */
#define STACKMUX_PF_KEEP	(PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER | \
				 PF_WQ_WORKER | PF_EXITING | PF_MEMALLOC |     \
				 PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS |	      \
				 PF_LOCAL_THROTTLE)

bool __stackmux_may_park(void)
{
	struct task_struct *tsk = current;

	if (!stackmux_wanted(tsk))
		return false;
	if (unlikely(tsk->flags & STACKMUX_PF_KEEP) || unlikely(tsk->ptrace))
		return false;
	if (unlikely(rt_or_dl_task_policy(tsk)) || unlikely(in_compat_syscall()))
		return false;
	return likely(tsk->stackmux) || stackmux_record_alloc();
}

/**
 * stackmux_arm - the wake sources of current's wait are armed: park on the way out
 * @nr: the operation
 *
 * Context: process context. The caller returns STACKMUX_ARMED to the outermost
 * frame of the system call without any further effect.
 * Return: the record.
 */
struct stackmux_record *stackmux_arm(enum stackmux_op_nr nr)
{
	struct stackmux_record *rec = current->stackmux;

	WRITE_ONCE(rec->op, &stackmux_ops[nr]);
	rec->wchan = (unsigned long)stackmux_ops[nr].wchan;
	rec->rearms = 0;
	set_syscall_work(STACKMUX);
	return rec;
}

/**
 * stackmux_disarm - the call is not going to wait after all
 *
 * After stackmux_arm(), when the wake sources have been taken down.
 */
void stackmux_disarm(void)
{
	clear_syscall_work(STACKMUX);
}

/* Nothing on the stack may matter to anybody once it is gone. */
static void stackmux_assert_parkable(void)
{
	if (!IS_ENABLED(CONFIG_STACKMUX_DEBUG))
		return;
	might_sleep();
	lockdep_assert_none_held_once();
	WARN_ON_ONCE(current->plug);
	WARN_ON_ONCE(current->journal_info);
	WARN_ON_ONCE(current->bio_list);
	WARN_ON_ONCE(pagefault_disabled());
	WARN_ON_ONCE(rcu_preempt_depth());
}

/*
 * Switch away, on no stack if possible. Returns if the task kept its stack:
 * a source had fired, it was picked to run again at once, or somebody held a
 * reference. Otherwise the task goes on in stackmux_ret_from_park().
 */
static void stackmux_park(struct stackmux_record *rec, struct pt_regs *regs)
{
	struct task_struct *tsk = current;

	stackmux_assert_parkable();

	preempt_disable();
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (rec->op->fired(rec)) {
		stackmux_count(STACKMUX_NOSWITCH);
	} else {
		rec->regs = *regs;
		rec->mm_id = arch_stackmux_mm_id(tsk->mm);
		tsk->stackmux_detach = true;
		schedule_park();
		/* Still set if the scheduler found nobody else to run. */
		if (tsk->stackmux_detach) {
			tsk->stackmux_detach = false;
			stackmux_count(STACKMUX_NOSWITCH);
		}
	}
	__set_current_state(TASK_RUNNING);
	preempt_enable();
}

/*
 * May a wait that woke for nothing park again? A source that keeps waking
 * without progress would make each round as dear as a park, so after a few of
 * them the wait keeps its stack.
 */
static bool stackmux_may_rearm(struct stackmux_record *rec)
{
	if (rec->rearms >= STACKMUX_MAX_REARMS || !__stackmux_may_park())
		return false;
	rec->rearms++;
	stackmux_count(STACKMUX_REARMS);
	return true;
}

/* The wait of a task that keeps its stack from now on */
static void stackmux_block(struct stackmux_record *rec)
{
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (!rec->op->fired(rec))
		schedule();
	__set_current_state(TASK_RUNNING);
}

/*
 * The task has a stack and something has woken it: goes on with its call until
 * that ends, and stores the result. May not return, but park again.
 */
static void stackmux_resume(struct stackmux_record *rec, struct pt_regs *regs)
{
	long ret;

	while (!rec->op->resume(rec, &ret)) {
		if (stackmux_may_rearm(rec))
			stackmux_park(rec, regs);
		else
			stackmux_block(rec);
	}
	syscall_set_return_value(current, regs, 0, ret);
}

/**
 * stackmux_syscall_exit - park, as the first of the exit work of a system call
 * @regs: user registers
 *
 * Context: called with interrupts on by a task for which stackmux_arm() was
 * called. May return, or continue in stackmux_ret_from_park().
 * Return: the syscall work flags that are valid now.
 */
unsigned long stackmux_syscall_exit(struct pt_regs *regs)
{
	struct stackmux_record *rec = current->stackmux;

	clear_syscall_work(STACKMUX);
	stackmux_park(rec, regs);
	stackmux_resume(rec, regs);

	return READ_ONCE(current_thread_info()->syscall_work);
}

/**
 * __stackmux_detach - take the stack of a task that just switched away to park
 * @prev: the task
 *
 * Context: finish_task_switch(), on the stack of the next task; run-queue lock
 * held, interrupts off, on_cpu of @prev still set.
 */
void __stackmux_detach(struct task_struct *prev)
{
	struct stackmux_record *rec = prev->stackmux;
	struct vm_struct *vm = prev->stack_vm_area;
	struct stackmux_stack *s;

	prev->stackmux_detach = false;
	if (rec->on_reserve) {
		/* Its reference count stayed 0, so nobody else has it. */
		struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
		int i = sc->reserve[0] ? 1 : 0;

		rec->on_reserve = false;
		sc->reserve[i] = stackmux_stack_idle(vm, rec->mm_id);
		prev->stack = NULL;
		prev->stack_vm_area = NULL;
		return;
	}

	if (unlikely(!refcount_dec_if_one(&prev->stack_refcount))) {
		stackmux_count(STACKMUX_KEEPS);
		return;
	}
	prev->stack = NULL;
	prev->stack_vm_area = NULL;
	s = stackmux_stack_idle(vm, rec->mm_id);
	stackmux_pool_put(s);
	stackmux_count(STACKMUX_PARKS);
}

/* The reserve that is free: the other one may just be being left. */
static struct stackmux_stack *stackmux_take_reserve(void)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	int i = sc->reserve[0] ? 0 : 1;
	struct stackmux_stack *s = sc->reserve[i];

	sc->reserve[i] = NULL;
	stackmux_stack_check(s);
	return s;
}

/**
 * __stackmux_attach - give a task that is about to run a stack
 * @next: a task without a stack
 *
 * Context: context_switch(), run-queue lock held, interrupts off. Cannot fail:
 * a task that gets the reserve only uses it to ask for another stack.
 */
void __stackmux_attach(struct task_struct *next)
{
	struct stackmux_record *rec = next->stackmux;
	struct stackmux_stack *s = rec->granted;

	if (unlikely(s)) {
		rec->granted = NULL;
		rec->was_granted = true;
	} else {
		s = stackmux_pool_get();
		if (unlikely(!s)) {
			s = stackmux_take_reserve();
			rec->on_reserve = true;
		}
	}
	next->stack_vm_area = s->vm;
	WRITE_ONCE(next->stack, s);
	arch_stackmux_frame(next, &rec->regs, rec->on_reserve);

	/* What the frames that were abandoned at the park left behind */
#ifdef CONFIG_FUNCTION_GRAPH_TRACER
	next->curr_ret_stack = 0;
	next->curr_ret_depth = -1;
#endif
	stackleak_task_init(next);

	if (rec->on_reserve) {
		stackmux_count(STACKMUX_RESERVE);
		return;
	}
	stackmux_count(STACKMUX_RESUMES);
	/* try_get_task_stack() must not find the count before the stack. */
	smp_wmb();
	refcount_set(&next->stack_refcount, 1);
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
	bool foreign;

	schedule_tail_parked(prev);
	if (unlikely(starving))
		stackmux_starve(rec);

	s = task_stack_page(current);
	foreign = s->mm_id != rec->mm_id;
	if (unlikely(foreign) && s->mm_id != STACKMUX_MM_CLEAN)
		arch_stackmux_clear_below(s + 1);
	stackmux_drop_rethooks();
	preempt_enable();

	if (unlikely(rec->was_granted)) {
		rec->was_granted = false;
		stackmux_grant_used();
	}
	/*
	 * The threads of an address space are in one memory cgroup. On failure
	 * the stack is charged to nobody: a wake-up cannot fail.
	 */
	if (unlikely(foreign) && !stackmux_charged_to_current(vm))
		stackmux_recharge(vm, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);

	stackmux_resume(rec, regs);
	syscall_exit_to_user_mode(regs);
}

NOKPROBE_SYMBOL(stackmux_ret_from_park);
