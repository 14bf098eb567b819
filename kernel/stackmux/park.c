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
 * A stack is up for taking from __stackmux_detach() on, when the CPU that ran the
 * task has left it, before it publishes on_cpu = 0 and so before any other CPU can
 * switch to the task; and only after the switch that the park itself asked for:
 * preemption is off from the moment the task is LEAVING to that switch.
 *
 * It is not taken there and then, but at the next park on this CPU, or when the
 * CPU has no other stack to give. So a thread that is woken soon goes on where
 * it stood, at the cost of a switch. (One that parks runnable, see preempt.c, is not
 * going to be back soon: its stack is taken there and then.) Each CPU has one place for
 * such a task, and who takes it out of there decides what becomes of its stack:
 *
 *	CPU that it parked on			CPU that switches to it
 *	last = xchg(&sc->last, prev)		cmpxchg(&sc->last, next, NULL)
 *	  the stack is the CPU's		  the stack is the task's
 *	take it
 *	smp_store_release(state)		otherwise wait for the state
 *
 *	CPU that takes the stack		reader, e.g. of /proc/PID/stack
 *	refcount_dec_if_one(): 1 -> 0		refcount_inc_not_zero(): 1 -> 2
 *	  the stack is gone			  the stack is the reader's, too
 *
 * If the reader comes first the task keeps its stack and later goes on where
 * it stood. When a stack is attached its count is set to 1 last.
 *
 * A task whose waits are short does not return first, but stays: it sleeps in its
 * call, in the same place of the CPU. Its stack cannot be taken. Whoever wants the
 * place wakes it, and it parks:
 *
 *	CPU that it stays on			CPU that switches to it
 *	last = xchg(&sc->last, prev)		cmpxchg(&sc->last, next, NULL)
 *	  evict the task			  goes on, whatever the result
 *	irq_work: evicted = true, wake it
 *
 * So it may be running when it is evicted. Then it sees that at its next sleep at
 * the latest, where it clears @evicted first: a wake-up for nothing.
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

#define CREATE_TRACE_POINTS
#include <trace/events/stackmux.h>

/* Off: stacks are taken at once. Writable in debugfs. */
bool stackmux_linger __read_mostly = true;

/* In waits; 0: always stay. Writable in debugfs. */
u8 stackmux_patience __read_mostly = 8;

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
	BUILD_BUG_ON(CONFIG_NR_CPUS > U16_MAX);	/* rec->cpu */
	if (!stackmux_record_cache)
		stackmux_record_cache = KMEM_CACHE(stackmux_record, SLAB_ACCOUNT |
						   SLAB_HWCACHE_ALIGN);
	return stackmux_record_cache ? 0 : -ENOMEM;
}

/* Park records in existence. */
long stackmux_nr_records(void)
{
	return atomic_long_read(&stackmux_records);
}

/**
 * stackmux_record_new - allocate a record
 * @tsk: whose it is going to be; it is for the caller to publish it there
 * @gfp: how to allocate it
 *
 * Return: the record, or NULL.
 */
struct stackmux_record *stackmux_record_new(struct task_struct *tsk, gfp_t gfp)
{
	struct stackmux_record *rec;

	rec = kmem_cache_zalloc(stackmux_record_cache,
				gfp | __GFP_NORETRY | __GFP_NOWARN);
	if (unlikely(!rec))
		return NULL;
	atomic_long_inc(&stackmux_records);
	rec->task = tsk;
	rec->patience = READ_ONCE(stackmux_patience);
	return rec;
}

/**
 * stackmux_record_alloc - give current a record, as its first park does
 * @gfp: how to allocate it
 *
 * Return: false if there is none; the task blocks on its stack then.
 */
noinline bool stackmux_record_alloc(gfp_t gfp)
{
	struct stackmux_record *rec;

	if (!task_stack_vm_area(current))
		return false;
	/* Some calls find out that they have to wait under a lock. */
	if (irqs_disabled())
		gfp = GFP_NOWAIT;
	rec = stackmux_record_new(current, gfp);
	if (!rec)
		return false;
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
	stackmux_drop_retry(tsk->stackmux);
	kmem_cache_free(stackmux_record_cache, tsk->stackmux);
	tsk->stackmux = NULL;
}

bool __stackmux_may_park(gfp_t gfp)
{
	return stackmux_task_may_park(current) &&
	       (likely(current->stackmux) || stackmux_record_alloc(gfp));
}

bool __stackmux_may_park_or_stay(void)
{
	struct stackmux_record *rec = current->stackmux;

	/* With code of its own for the end of a wait it may not stay: see poll.c. */
	if (likely(rec) && stackmux_may_stay(rec) && !rec->retry)
		return true;
	return __stackmux_may_park(GFP_KERNEL);
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
static __always_inline void stackmux_park(struct stackmux_record *rec)
{
	struct task_struct *tsk = current;

	stackmux_assert_parkable();
	trace_stackmux_park(rec);

	preempt_disable();
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (rec->op->fired(rec)) {
		stackmux_count(STACKMUX_NOSWITCH);
	} else {
		tsk->stackmux_state = STACKMUX_LEAVING;
		schedule_park();
		/* Still so if the scheduler found nobody else to run. */
		if (unlikely(tsk->stackmux_state != STACKMUX_OWN)) {
			tsk->stackmux_state = STACKMUX_OWN;
			stackmux_count(STACKMUX_NOSWITCH);
		} else if (rec->patience) {
			rec->patience--;
		}
	}
	__set_current_state(TASK_RUNNING);
	preempt_enable();
}

/**
 * stackmux_park_runnable - have current switch away with no stack, but runnable
 * @rec: record of current
 * @nr: an operation that has nothing to resume
 * @wchan: where the task would be seen
 *
 * Returns if the task kept its stack, or nobody else was to run.
 *
 * Context: on the way to user mode, interrupts on.
 */
void stackmux_park_runnable(struct stackmux_record *rec, enum stackmux_op_nr nr,
			    unsigned long wchan)
{
	struct task_struct *tsk = current;

	stackmux_assert_parkable();

	/* It is to be preempted, and so would be in any function that is called now. */
	preempt_disable();
	WRITE_ONCE(rec->op, &stackmux_ops[nr]);
	rec->wchan = wchan;
	rec->rearms = 0;
	trace_stackmux_park(rec);
	tsk->stackmux_state = STACKMUX_YIELDING;
	schedule_park();
	tsk->stackmux_state = STACKMUX_OWN;
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

/**
 * stackmux_stay_armed - stay in a wait that is armed, if it is likely to be short
 * @rec: record of current, armed
 *
 * Return: true after a sleep: the operation is to be resumed, and if it is armed
 *	   still, this to be called again; false if the call is to return
 *	   STACKMUX_ARMED.
 */
bool stackmux_stay_armed(struct stackmux_record *rec)
{
	if (likely(!stackmux_may_stay(rec)))
		return false;
	clear_syscall_work(STACKMUX);
	if (likely(stackmux_sit(rec, rec->op->fired)) || !stackmux_task_may_park(current))
		return true;
	stackmux_count(STACKMUX_EVICTIONS);
	stackmux_guessed_wrong(rec);
	set_syscall_work(STACKMUX);
	return false;
}

/* The wait of a task that keeps its stack from now on */
static void stackmux_block(struct stackmux_record *rec)
{
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (!rec->op->fired(rec)) {
		/* For those who look at it, this wait is no different. */
		current->stackmux_state = STACKMUX_KEPT;
		schedule();
		current->stackmux_state = STACKMUX_OWN;
	}
	__set_current_state(TASK_RUNNING);
}

/* The call waits again, until there is a result. May not return, but park. */
static noinline long stackmux_wait_again(struct stackmux_record *rec)
{
	long ret;

	do {
		if (stackmux_may_rearm(rec))
			stackmux_park(rec);
		else
			stackmux_block(rec);
		ret = rec->op->resume(rec);
	} while (ret == STACKMUX_ARMED);
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
	if (unlikely(ret == STACKMUX_ARMED))
		ret = stackmux_wait_again(rec);
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

	clear_syscall_work(STACKMUX);
	stackmux_park(rec);
	stackmux_resume(rec, regs);
	/* The work that is there now: a tracer may have come. */
	if (unlikely(READ_ONCE(current_thread_info()->syscall_work) & SYSCALL_WORK_EXIT))
		syscall_exit_work_parked(regs);
}

/*
 * Take the stack of a parked task, unless somebody holds a reference on it. The
 * task is off its CPU, and whoever switches to it waits for its state to change.
 */
static void stackmux_take(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	struct vm_struct *vm = tsk->stack_vm_area;

	if (unlikely(!refcount_dec_if_one(&tsk->stack_refcount))) {
		stackmux_count(STACKMUX_KEEPS);
		trace_stackmux_keep(tsk);
		/* Pairs with smp_load_acquire() in __stackmux_attach(). */
		smp_store_release(&tsk->stackmux_state, STACKMUX_KEPT);
		return;
	}
	trace_stackmux_take(tsk);
	rec->regs = *task_pt_regs(tsk);
	rec->mm_id = arch_stackmux_mm_id(tsk->mm);
	tsk->stack = NULL;
	tsk->stack_vm_area = NULL;
	stackmux_count(STACKMUX_PARKS);
	stackmux_pool_put(stackmux_stack_idle(vm, rec->mm_id));
	/*
	 * The record is complete: pairs with smp_load_acquire() of who switches
	 * to the task, in __stackmux_attach(), and of who looks at it, in
	 * stackmux_parked().
	 */
	smp_store_release(&tsk->stackmux_state, STACKMUX_GONE);
}

/* Has nobody woken it yet? */
static bool stackmux_asleep(struct task_struct *tsk)
{
	return READ_ONCE(tsk->__state) & (TASK_INTERRUPTIBLE | TASK_FROZEN);
}

/*
 * Have a task leave that stays, as soon as interrupts are enabled. It may be
 * running again, and even be dead: since its last switch happened after it was
 * removed from the CPU's place, and interrupts are off here, the grace period has
 * not ended that its last reference is dropped after.
 */
static void stackmux_evict(struct task_struct *tsk)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);

	/* One at a time: the second one keeps its stack until something wakes it. */
	if (unlikely(sc->evict))
		return;
	sc->evict = get_task_struct(tsk);
	irq_work_queue(&sc->eviction);
}

void stackmux_evict_fn(struct irq_work *work)
{
	struct stackmux_cpu *sc = container_of(work, struct stackmux_cpu, eviction);
	struct task_struct *tsk = sc->evict;

	sc->evict = NULL;
	/*
	 * One that has been woken is about to go on anyway. If it goes to sleep anew
	 * meanwhile it is woken for nothing.
	 */
	if (READ_ONCE(tsk->stackmux_state) == STACKMUX_STAYS && stackmux_asleep(tsk)) {
		WRITE_ONCE(tsk->stackmux->evicted, true);
		wake_up_state(tsk, TASK_INTERRUPTIBLE);
	}
	put_task_struct(tsk);
}

/* What was removed from a CPU's place: its stack is wanted. */
static void stackmux_take_or_evict(unsigned long last)
{
	struct task_struct *tsk = (void *)(last & ~STACKMUX_LAST_STAYS);

	if (unlikely(last & STACKMUX_LAST_STAYS)) {
		stackmux_evict(tsk);
		return;
	}
	/* A wait that is not over yet is no short one. */
	if (stackmux_asleep(tsk))
		tsk->stackmux->patience = max(tsk->stackmux->patience,
					      READ_ONCE(stackmux_patience));
	stackmux_take(tsk);
}

/**
 * stackmux_take_last - take the stack that lingers at a CPU, if there is one
 * @sc: this CPU's, or that of one that is offline
 *
 * The stack is put into the cache of this CPU. A task that stays is made to leave.
 *
 * Context: interrupts off.
 */
void stackmux_take_last(struct stackmux_cpu *sc)
{
	unsigned long last;

	lockdep_assert_irqs_disabled();
	last = xchg(&sc->last, 0);
	if (last)
		stackmux_take_or_evict(last);
}

/* The task has left a reserve stack, which nobody else can have a reference on. */
static void stackmux_leave_reserve(struct task_struct *prev)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	struct stackmux_record *rec = prev->stackmux;
	int i = sc->reserve[0] ? 1 : 0;

	rec->on_reserve = false;
	sc->reserve[i] = stackmux_stack_idle(prev->stack_vm_area, rec->mm_id);
	prev->stack = NULL;
	prev->stack_vm_area = NULL;
	/* As in stackmux_take() */
	smp_store_release(&prev->stackmux_state, STACKMUX_GONE);
}

/**
 * __stackmux_detach - a task has switched away to park
 * @prev: the task
 *
 * Its stack lingers, if it waits; that of the task that parked here before it is
 * taken.
 *
 * Context: finish_task_switch(), on the stack of the next task; run-queue lock
 * held, interrupts off, on_cpu of @prev still set.
 */
void __stackmux_detach(struct task_struct *prev)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	struct stackmux_record *rec = prev->stackmux;
	unsigned long last = (unsigned long)prev;

	if (likely(prev->stackmux_state == STACKMUX_STAYING)) {
		last |= STACKMUX_LAST_STAYS;
		prev->stackmux_state = STACKMUX_STAYS;
	} else if (unlikely(prev->stackmux_state == STACKMUX_STARVING)) {
		stackmux_leave_reserve(prev);
		return;
	} else if (likely(prev->stackmux_state == STACKMUX_LEAVING &&
			  READ_ONCE(stackmux_linger))) {
		prev->stackmux_state = STACKMUX_LINGERS;
	} else {
		/* One that is runnable is not going to be back soon. */
		stackmux_take(prev);
		return;
	}
	rec->cpu = smp_processor_id();
	/* Others only ever remove a task. */
	if (!READ_ONCE(sc->last)) {
		WRITE_ONCE(sc->last, last);
		return;
	}
	last = xchg(&sc->last, last);
	if (last)
		stackmux_take_or_evict(last);
}

/* A task that stays is about to run. Whoever removed it before me evicts it. */
static void stackmux_stays_no_more(struct task_struct *next)
{
	unsigned long last = (unsigned long)next | STACKMUX_LAST_STAYS;
	int cpu = next->stackmux->cpu;

	if (unlikely(cpu != smp_processor_id()))
		cmpxchg(per_cpu_ptr(&stackmux_cpu.last, cpu), last, 0);
	else if (this_cpu_read(stackmux_cpu.last) == last)
		this_cpu_write(stackmux_cpu.last, 0);
}

/* Does a parked task that is about to run still have its stack? */
static bool stackmux_still_there(struct task_struct *next)
{
	unsigned long last = (unsigned long)next;
	int cpu = next->stackmux->cpu;

	if (unlikely(next->stackmux_state == STACKMUX_KEPT))
		return true;
	if (likely(cpu == smp_processor_id())) {
		/* With interrupts off nobody else takes a task from here. */
		this_cpu_write(stackmux_cpu.last, 0);
	} else if (cmpxchg(per_cpu_ptr(&stackmux_cpu.last, cpu), last, 0) != last) {
		/* Its stack is just being taken. */
		return smp_cond_load_acquire(&next->stackmux_state,
					     VAL != STACKMUX_LINGERS) == STACKMUX_KEPT;
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

/*
 * From the pool, or else the one that lingers here. Neither waits for anything
 * nor allocates.
 */
static struct stackmux_stack *stackmux_get_stack(u64 mm_id)
{
	struct stackmux_stack *s = stackmux_pool_get_for(mm_id);

	if (unlikely(!s)) {
		stackmux_take_last(this_cpu_ptr(&stackmux_cpu));
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
		rec->was_granted = true;
	} else {
		s = stackmux_get_stack(rec->mm_id);
		if (unlikely(!s)) {
			s = stackmux_take_reserve();
			rec->on_reserve = true;
		}
	}
	next->stack_vm_area = s->vm;
	next->stack = s;
	next->stackmux_state = STACKMUX_OWN;
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
 * __stackmux_attach - a parked task is about to run: it must have a stack
 * @next: the task
 *
 * Context: context_switch(), run-queue lock held, interrupts off. Cannot fail:
 * a task that gets the reserve only uses it to ask for another stack.
 */
void __stackmux_attach(struct task_struct *next)
{
	/* Pairs with smp_store_release() in stackmux_take(). */
	int state = smp_load_acquire(&next->stackmux_state);

	if (likely(state == STACKMUX_STAYS)) {
		stackmux_stays_no_more(next);
	} else if (state == STACKMUX_GONE || !stackmux_still_there(next)) {
		stackmux_give(next);
		return;
	}
	next->stackmux_state = STACKMUX_OWN;
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
					  struct pt_regs *regs)
{
	instrumentation_begin();
	if (likely(rec->op->resume)) {
		stackmux_resume(rec, regs);
		syscall_exit_to_user_mode_work(regs);
	} else {
		/* Any call that it has made is over. */
		stackmux_count(STACKMUX_PREEMPTED);
		local_irq_disable();
		exit_to_user_mode_prepare(regs);
	}
	rec->to_user = false;
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
		rec->to_user = true;
		stackmux_grant_used(rec);
	}
	/*
	 * The threads of an address space are in one memory cgroup. On failure
	 * the stack is charged to nobody: a wake-up cannot fail.
	 */
	if (unlikely(foreign) && !stackmux_charged_to_current(vm))
		stackmux_recharge(vm, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);

	trace_stackmux_resume(rec, foreign);
	stackmux_to_user_mode(rec, regs);
}

NOKPROBE_SYMBOL(stackmux_ret_from_park);
