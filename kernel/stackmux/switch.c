// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: stacks come and go as the CPU switches between tasks
 *
 * All of this runs with interrupts off, and under the run-queue lock as a rule. Nothing
 * in this file may wake a task, sleep or allocate.
 */
#include <linux/jiffies.h>
#include <linux/rcupdate.h>
#include <linux/sched/task_stack.h>
#include <linux/stackleak.h>
#include <asm/stackmux.h>

#include "stackmux.h"

#include <trace/events/stackmux.h>

/**
 * DOC: states of a stack
 *
 * Two bytes of the task say where its stack is and what happens to it next. Any
 * reader may look at ``stackmux_stack``; /proc/PID/status shows it in lower case.
 * Only the task itself sets ``stackmux_leave``; to leave, with preemption off until the
 * switch.
 *
 * =================  ==========================================================
 * ``stackmux_stack``
 * =================  ==========================================================
 * ``OWN``            The stack is the task's, as without stackmux.
 * ``LINGERING``      The task is parked, and its stack is still in the slot of the
 *                    CPU that it parked on. The CPU may take it.
 * ``IN_PLACE``       The task waits on its stack, in the code of the call, since its
 *                    waits are short.
 * ``PINNED``         The task is parked, but something holds a reference on its
 *                    stack, so nothing can take it. A wait that has been armed too
 *                    often keeps its stack like this, too.
 * ``PARKED``         The task has no stack. Its user registers are in the record.
 * =================  ==========================================================
 *
 * ==================  =========================================================
 * ``stackmux_leave``
 * ==================  =========================================================
 * ``STAY``            The next switch is like any other.
 * ``LEAVE``           The task waits: the stack is to linger.
 * ``LEAVE_NOW``       The task is runnable, so it is not going to be back soon: the
 *                     stack is taken at once.
 * ``LEAVE_RESERVE``   The same for a reserve stack, which its CPU gets back.
 * ``WAIT_IN_PLACE``   If it is an interruptible sleep, the task keeps its stack and takes
 *                     one of its CPU's places. Other switches do not count. This holds
 *                     until the task is to leave.
 * ==================  =========================================================
 *
 * Each arrow has one writer:
 *
 * ======================  ==========================  ==========================
 * arrow                   function                    runs on
 * ======================  ==========================  ==========================
 * OWN to LINGERING        __stackmux_detach()         the CPU that leaves the task
 * OWN to IN_PLACE         __stackmux_detach()         the same
 * OWN to PARKED           __stackmux_detach(),        the same
 *                         stackmux_leave_reserve()
 * OWN to PARKED           __stackmux_newborn()        the parent, before the task
 *                                                     has run
 * OWN to PINNED,          stackmux_block()            the task
 * and back
 * OWN to PINNED           stackmux_take()             the CPU that leaves the task
 * LINGERING to PARKED     stackmux_take()             the CPU with the slot
 * LINGERING to PINNED     stackmux_take()             the same
 * LINGERING to OWN        __stackmux_attach()         the CPU that switches to it
 * PINNED to OWN           __stackmux_attach()         the same
 * IN_PLACE to OWN         __stackmux_attach()         the same
 * PARKED to OWN           stackmux_give()             the same
 * any to LEAVE,           stackmux_switch()           the task
 * LEAVE_NOW
 * STAY to LEAVE_RESERVE   stackmux_starve()           the task
 * any to WAIT_IN_PLACE    stackmux_wait_in_place()    the task
 * any LEAVE to STAY       __stackmux_detach()         the CPU that leaves the task
 * LEAVE, LEAVE_NOW to     stackmux_switch()           the task, if the scheduler
 * STAY                                                found nothing else to run
 * ======================  ==========================  ==========================
 */

/**
 * DOC: taking a lingering stack
 *
 * A stack is up for taking from __stackmux_detach() on. The CPU that ran the task
 * has left it by then, and has not published ``on_cpu = 0`` yet, so no other CPU can
 * switch to the task. The switch is the one that the park asked for: preemption is
 * off from the moment a task that leaves sets ``stackmux_leave``.
 *
 * The stack lingers until the next task parks on this CPU, or until the CPU has no
 * other stack to give. Each CPU has one slot for such a task. Removing the task from
 * the slot decides what becomes of its stack::
 *
 *	CPU that it parked on			CPU that switches to it
 *	old = xchg(&slot, prev)			cmpxchg(&slot, next, NULL)
 *	  the stack is the CPU's		  the stack is the task's
 *	take it
 *	smp_store_release(stackmux_stack)	otherwise wait for the state
 *
 * The wait is short: interrupts are off on the CPU that takes. A task in a slot cannot
 * exit, since something has to switch to it first.
 *
 * Readers of the stack, for example of /proc/PID/stack, hold a reference::
 *
 *	CPU that takes the stack		reader
 *	refcount_dec_if_one(): 1 -> 0		refcount_inc_not_zero(): 1 -> 2
 *	  the stack is gone			  the stack is pinned
 *
 * If the reader comes first the task keeps its stack and goes on where it stood. An
 * attached stack gets its count of 1 last.
 */

/* The task whose stack lingers here. Other CPUs only ever set it to NULL. */
static DEFINE_PER_CPU(struct task_struct *, stackmux_slot);

/* Off: stacks are taken at once. Writable in debugfs. */
bool stackmux_linger __read_mostly = true;

/* What those see as the stack of a task that do not ask for a reference on it */
static const unsigned long stackmux_no_frame[16];

/**
 * stackmux_no_stack - a task gives its stack away
 * @tsk: the task, which is off its CPU
 */
void stackmux_no_stack(struct task_struct *tsk)
{
	tsk->stack = NULL;
	tsk->stack_vm_area = NULL;
	arch_stackmux_no_stack(tsk, stackmux_no_frame);
}

/*
 * Take the stack of a parked task, unless something holds a reference on it. The
 * task is off its CPU, and a CPU that switches to it waits for its state to change.
 */
static void stackmux_take(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	struct vm_struct *vm = tsk->stack_vm_area;
	u64 mm_id = rec->mm_id;

	if (unlikely(!refcount_dec_if_one(&tsk->stack_refcount))) {
		stackmux_count(STACKMUX_PINS);
		trace_stackmux_pin(tsk);
		/* Pairs with smp_load_acquire() in __stackmux_attach(). */
		smp_store_release(&tsk->stackmux_stack, STACKMUX_PINNED);
		return;
	}
	trace_stackmux_take(tsk);
	/* A wait that is not over yet is no short one. */
	if (READ_ONCE(tsk->__state) & TASK_INTERRUPTIBLE)
		rec->backoff = READ_ONCE(stackmux_backoff);
	rec->regs = *task_pt_regs(tsk);
	rec->mm_id = arch_stackmux_mm_id(tsk->mm);
	stackmux_no_stack(tsk);
	stackmux_count(STACKMUX_PARKS);
	/* Not that of tsk->mm: the task may have called execve() on this stack. */
	stackmux_pool_put(stackmux_stack_idle(vm, mm_id));
	/*
	 * The record is complete: pairs with smp_load_acquire() in
	 * __stackmux_attach(), and in stackmux_parked() for readers.
	 */
	smp_store_release(&tsk->stackmux_stack, STACKMUX_PARKED);
}

/**
 * stackmux_slot_clear - take the stack that lingers at a CPU, if there is one
 * @cpu: this CPU, or one that is offline
 *
 * The stack is put into the cache of this CPU.
 *
 * Context: interrupts off.
 */
void stackmux_slot_clear(unsigned int cpu)
{
	struct task_struct *tsk;

	lockdep_assert_irqs_disabled();
	tsk = xchg(per_cpu_ptr(&stackmux_slot, cpu), NULL);
	if (tsk)
		stackmux_take(tsk);
}

/* The task has left a reserve stack, which nobody else can have a reference on. */
static void stackmux_leave_reserve(struct task_struct *prev)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	struct stackmux_record *rec = prev->stackmux;
	int i = sc->reserve[0] ? 1 : 0;

	rec->on_reserve = false;
	sc->reserve[i] = stackmux_stack_idle(prev->stack_vm_area, rec->mm_id);
	stackmux_no_stack(prev);
	/* As in stackmux_take() */
	smp_store_release(&prev->stackmux_stack, STACKMUX_PARKED);
}

/* A task has switched away to wait in place. */
static __always_inline void stackmux_begin_in_place(struct task_struct *prev)
{
	struct stackmux_record *rec = prev->stackmux;

	stackmux_count(STACKMUX_WAITED_IN_PLACE);
	/* The flag stays: the loop of the call may sleep again. */
	prev->stackmux_stack = STACKMUX_IN_PLACE;
	rec->cpu = smp_processor_id();
	rec->since = (u32)jiffies;
	atomic_inc(this_cpu_ptr(&stackmux_in_place));
}

/* It is about to run. If that took long, it was no short wait. */
static __always_inline void stackmux_end_in_place(struct stackmux_record *rec)
{
	atomic_dec(per_cpu_ptr(&stackmux_in_place, rec->cpu));
	if (unlikely((u32)jiffies - rec->since > 1))
		rec->backoff = READ_ONCE(stackmux_backoff);
}

/**
 * __stackmux_detach - a task has switched away to park, or to wait in place
 * @prev: the task
 *
 * If it parks its stack lingers, and that of the task in the slot is taken.
 *
 * Context: finish_task_switch(), on the stack of the next task; run-queue lock
 * held, interrupts off, on_cpu of @prev still set.
 */
void __stackmux_detach(struct task_struct *prev)
{
	enum stackmux_leave leave = prev->stackmux_leave;
	struct task_struct *old;

	if (leave == STACKMUX_WAIT_IN_PLACE) {
		/* Preempted, blocked by something else, or dead: this is not the wait. */
		if (likely(READ_ONCE(prev->__state) & TASK_INTERRUPTIBLE))
			stackmux_begin_in_place(prev);
		return;
	}
	prev->stackmux_leave = STACKMUX_STAY;
	if (unlikely(leave == STACKMUX_LEAVE_RESERVE)) {
		stackmux_leave_reserve(prev);
		stackmux_queue_starving(prev);
		return;
	}
	if (unlikely(leave == STACKMUX_LEAVE_NOW || !READ_ONCE(stackmux_linger))) {
		stackmux_take(prev);
		return;
	}
	prev->stackmux_stack = STACKMUX_LINGERING;
	prev->stackmux->cpu = smp_processor_id();
	/* Other CPUs only ever remove a task. */
	if (!this_cpu_read(stackmux_slot)) {
		this_cpu_write(stackmux_slot, prev);
		return;
	}
	/* Not this_cpu_xchg(): that is no atomic operation for other CPUs. */
	old = xchg(this_cpu_ptr(&stackmux_slot), prev);
	if (old)
		stackmux_take(old);
}

/* Does a parked task that is about to run still have its stack? */
static bool stackmux_still_there(struct task_struct *next)
{
	int cpu = next->stackmux->cpu;

	if (likely(cpu == smp_processor_id())) {
		/* With interrupts off nobody else takes a task from here. */
		this_cpu_write(stackmux_slot, NULL);
	} else if (cmpxchg(per_cpu_ptr(&stackmux_slot, cpu), next, NULL) != next) {
		/* Its stack is just being taken. */
		return smp_cond_load_acquire(&next->stackmux_stack,
					     VAL != STACKMUX_LINGERING) == STACKMUX_PINNED;
	}
	stackmux_count(STACKMUX_LINGERED);
	return true;
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

/* Does @cpu have a stack that no task uses? A snapshot. */
bool stackmux_cpu_has_stacks(unsigned int cpu)
{
	return READ_ONCE(per_cpu(stackmux_cpu.nr_idle, cpu)) ||
	       READ_ONCE(per_cpu(stackmux_slot, cpu));
}

/**
 * stackmux_get_stack - a stack from the pool, or else the one that lingers here
 * @mm_id: the address space that is going to use it
 *
 * Context: interrupts off; neither waits for anything nor allocates.
 * Return: a stack or NULL.
 */
struct stackmux_stack *stackmux_get_stack(u64 mm_id)
{
	struct stackmux_stack *s = stackmux_pool_get_for(mm_id);

	if (unlikely(!s)) {
		stackmux_slot_clear(smp_processor_id());
		s = stackmux_pool_get();
	}
	return s;
}

/* The first stack of the pool, and on it a frame to come back with */
static noinline void stackmux_give(struct task_struct *next)
{
	struct stackmux_record *rec = next->stackmux;
	struct stackmux_stack *s;

	s = rec->granted;
	if (unlikely(s)) {
		rec->granted = NULL;
	} else {
		s = stackmux_get_stack(rec->mm_id);
		if (unlikely(!s)) {
			s = stackmux_take_reserve();
			rec->on_reserve = true;
		}
	}
	next->stack_vm_area = s->vm;
	next->stack = s;
	next->stackmux_stack = STACKMUX_OWN;
	arch_stackmux_frame(next, &rec->regs, rec->on_reserve);

	/* What the frames that were abandoned at the park left behind */
#ifdef CONFIG_FUNCTION_GRAPH_TRACER
	next->curr_ret_stack = 0;
	next->curr_ret_depth = -1;
#endif
	stackleak_task_init(next);

	if (rec->on_reserve) {
		stackmux_count(STACKMUX_RESERVE);
		trace_stackmux_lend(next);
		return;
	}
	stackmux_count(STACKMUX_RESUMES);
	/* try_get_task_stack() must not find the count before the stack. */
	smp_wmb();
	refcount_set(&next->stack_refcount, 1);
}

/**
 * __stackmux_attach - a task that has parked, or waited in place, is about to run
 * @next: the task
 *
 * It must have a stack.
 *
 * Context: context_switch(), run-queue lock held, interrupts off. Cannot fail:
 * a task that gets the reserve only uses it to ask for another stack.
 */
void __stackmux_attach(struct task_struct *next)
{
	/* Pairs with smp_store_release() in stackmux_take(). */
	enum stackmux_stack_state state = smp_load_acquire(&next->stackmux_stack);

	if (state == STACKMUX_IN_PLACE) {
		stackmux_end_in_place(next->stackmux);
	} else if (unlikely(state == STACKMUX_PARKED) ||
		   (state == STACKMUX_LINGERING && !stackmux_still_there(next))) {
		stackmux_give(next);
		return;
	}
	next->stackmux_stack = STACKMUX_OWN;
}
