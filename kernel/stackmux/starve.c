// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that were woken and wait for a stack
 *
 * One queue for the machine. It is served in hard interrupt context: on the CPU where a
 * task begins to starve or a stack comes back, and, while anybody starves, once a tick on
 * each CPU that has idle stacks. Nothing here waits or allocates; new stacks are the
 * business of refill.c.
 */
#include <linux/cpumask.h>
#include <linux/hash.h>
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/sched/signal.h>
#include <linux/sched/sysctl.h>
#include <linux/timekeeping.h>

#include <trace/events/stackmux.h>

#include "stackmux.h"

/**
 * DOC: no stack at a wake-up
 *
 * Each CPU has two reserve stacks. If its cache and the node lists are empty, a woken
 * task is switched in on a reserve, and switches away again. There are two, since the
 * switch from one starving task to the next is complete only after the second has got
 * its stack. Preemption is off until the task has left the reserve::
 *
 *	task					any CPU
 *	__state = STACKMUX_STARVING
 *	stackmux_leave = LEAVE_RESERVE
 *	schedule(): off the reserve
 *	finish_task_switch():
 *	  state of the stack: PARKED
 *	  into the queue			out of the queue
 *	  on_cpu = 0				wake_up_state(STACKMUX_STARVING)
 *						  waits until on_cpu == 0
 *	context_switch(): takes a stack
 *
 * Nothing but the queue wakes this state, so a second wake source, a signal or the freezer
 * cannot bring the task back too early. It is set under pi_lock, so a wake-up that is
 * still under way for the earlier state cannot overwrite it. /proc shows it as R, and the
 * task counts as running in the load and for PSI.
 *
 * For each stack that comes back, or is made, the oldest task is woken. No stack is kept
 * for it until its turn comes: others could make use of that meanwhile, and it might not
 * run for long, since its group is throttled, say. So it may find none again. Then it goes
 * to the front of the queue, and a worker makes some; after a second it is granted one. The
 * first few tasks of a process that starve take turns with all others, so nobody waits for
 * the end of another process's herd.
 *
 * Tasks that die and those of a real-time priority come before all others, and are granted
 * a stack, too, which is theirs from then on.
 */

/* Woken in one interrupt, for each node */
#define STACKMUX_WAKE_BATCH	32U

/* Who has found none for so long is granted the next one. */
#define STACKMUX_PATIENCE_US	USEC_PER_SEC

/* Tasks of a process that starve before the others of it are thought to be a herd */
#define STACKMUX_FEW		4

/* Processes are told apart by a hash of so many bits. */
#define STACKMUX_HASH_BITS	8

/**
 * struct stackmux_queue - tasks that starve, oldest first
 * @few: those that are among the first few of their process
 * @herd: the others
 * @from_herd: whose turn it is next
 * @nr_of: how many of a process there are in both
 */
struct stackmux_queue {
	struct list_head few, herd;
	bool from_herd;
	unsigned int nr_of[1 << STACKMUX_HASH_BITS];
};

static DEFINE_RAW_SPINLOCK(stackmux_starving_lock);
/* Dying tasks, then real-time ones */
static LIST_HEAD(stackmux_urgent);
static struct stackmux_queue stackmux_starving = {
	.few = LIST_HEAD_INIT(stackmux_starving.few),
	.herd = LIST_HEAD_INIT(stackmux_starving.herd),
};

static unsigned int stackmux_nr_starving;
static bool stackmux_timer_on;
static bool stackmux_reported;

/* Tasks that starve: a snapshot. */
unsigned int stackmux_nr_starving_tasks(void)
{
	return READ_ONCE(stackmux_nr_starving);
}

/* In units that last for an hour */
static u32 stackmux_now_us(void)
{
	return div_u64(ktime_get_mono_fast_ns(), NSEC_PER_USEC);
}

/*
 * While tasks starve CPUs cache no stacks, so each one that comes back takes the slow
 * path, which pokes.
 */
static void stackmux_update(void)
{
	WRITE_ONCE(stackmux_wanting, stackmux_nr_starving);
	WRITE_ONCE(stackmux_cache_max,
		   stackmux_nr_starving ? 0 : READ_ONCE(stackmux_percpu_max));
}

/* percpu_max has been written. Context: any. */
void stackmux_limits_changed(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	stackmux_update();
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
}

/**
 * stackmux_starve - go off a reserve stack and wait for a real one
 * @rec: record of current
 *
 * Context: on a reserve stack, preemption off. Does not return, since the CPU
 * always takes the reserve back: the task goes on in stackmux_ret_from_park().
 */
void stackmux_starve(struct stackmux_record *rec)
{
	struct task_struct *tsk = current;
	unsigned long flags;

	stackmux_count(STACKMUX_STARVATIONS);
	trace_stackmux_starve(tsk);
	do {
		/* As set_special_state() */
		raw_spin_lock_irqsave(&tsk->pi_lock, flags);
		WRITE_ONCE(tsk->__state, STACKMUX_STARVING);
		raw_spin_unlock_irqrestore(&tsk->pi_lock, flags);
		tsk->stackmux_leave = STACKMUX_LEAVE_RESERVE;
		schedule_park();
	} while (WARN_ON_ONCE(rec->on_reserve));
}

/**
 * stackmux_starved - current had to wait for its stack, and has one
 * @rec: its record
 *
 * Context: process context.
 */
void stackmux_starved(struct stackmux_record *rec)
{
	u32 waited = stackmux_now_us() - rec->since;

	rec->starved = false;
	rec->keep_until_user = true;
	trace_stackmux_grant(current, waited);
	stackmux_count_wait(waited);
}

static unsigned int *stackmux_nr_of(struct stackmux_record *rec)
{
	return &stackmux_starving.nr_of[hash_ptr(rec->task->signal, STACKMUX_HASH_BITS)];
}

/* Also one that has waited for a core dump: it gives memory back when it exits. */
static bool stackmux_is_dying(struct task_struct *tsk)
{
	return __fatal_signal_pending(tsk) || READ_ONCE(tsk->signal->flags) & SIGNAL_GROUP_EXIT;
}

/* Under the lock. Does it have to be among the first? */
static bool stackmux_list_urgent(struct stackmux_record *rec, bool again)
{
	if (unlikely(stackmux_is_dying(rec->task)))
		list_add(&rec->starving, &stackmux_urgent);
	else if (unlikely(rt_or_dl_prio(READ_ONCE(rec->task->prio))) ||
		 (again && stackmux_now_us() - rec->since > STACKMUX_PATIENCE_US))
		list_add_tail(&rec->starving, &stackmux_urgent);
	else
		return false;
	return true;
}

/**
 * stackmux_queue_starving - a task that starves has left the reserve
 * @tsk: the task
 *
 * Context: finish_task_switch(), run-queue lock held, interrupts off.
 */
void stackmux_queue_starving(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	bool again = rec->starved;

	sched_wait_for_stack(tsk);
	if (!again)
		rec->since = stackmux_now_us();
	rec->starved = true;

	raw_spin_lock(&stackmux_starving_lock);
	/* The task shows that it is parked, then looks for SIGKILL: see stackmux_hurry(). */
	smp_mb__after_spinlock();
	if (!stackmux_list_urgent(rec, again)) {
		struct list_head *list = *stackmux_nr_of(rec) < STACKMUX_FEW ?
					 &stackmux_starving.few : &stackmux_starving.herd;

		list_add(&rec->starving, again ? list : list->prev);
	}
	++*stackmux_nr_of(rec);
	stackmux_nr_starving++;
	stackmux_update();
	raw_spin_unlock(&stackmux_starving_lock);

	stackmux_poke();
}

/**
 * __stackmux_hurry - a parked task has been killed, or its priority has changed
 * @tsk: the task
 *
 * If it is in the queue it goes to the front.
 *
 * Context: any but under a run-queue lock. There is a full barrier after the change.
 */
void __stackmux_hurry(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	struct list_head *next;
	unsigned long flags;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	if (rec->starving.prev) {
		next = rec->starving.next;
		__list_del_entry(&rec->starving);
		if (stackmux_list_urgent(rec, false))
			stackmux_poke();
		else
			list_add_tail(&rec->starving, next);
	}
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
}

static struct stackmux_record *stackmux_first(struct list_head *list)
{
	return list_first_entry_or_null(list, struct stackmux_record, starving);
}

/* The next but those that are urgent */
static struct stackmux_record *stackmux_next_starving(void)
{
	struct stackmux_queue *q = &stackmux_starving;

	q->from_herd = !q->from_herd;
	return q->from_herd ? stackmux_first(&q->herd) ?: stackmux_first(&q->few) :
			      stackmux_first(&q->few) ?: stackmux_first(&q->herd);
}

/* The next one leaves the queue: with the stack @s, if it is urgent; or to look for one. */
static bool stackmux_dequeue(struct stackmux_stack *s)
{
	struct stackmux_record *rec;
	unsigned long flags;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	rec = s ? stackmux_first(&stackmux_urgent) : stackmux_next_starving();
	if (rec) {
		__list_del_entry(&rec->starving);
		rec->starving.prev = NULL;
		rec->granted = s;
		--*stackmux_nr_of(rec);
		stackmux_nr_starving--;
		stackmux_update();
	}
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
	if (!rec)
		return false;
	sched_has_stack(rec->task);
	/* The task cannot exit before it is woken; a full barrier lies within. */
	wake_up_state(rec->task, STACKMUX_STARVING);
	return true;
}

/**
 * stackmux_grant - give a stack to the first task that is not to look for one itself
 * @s: the stack, in no cache and no list
 *
 * Context: any but under a run-queue lock.
 * Return: false if there is no such task.
 */
bool stackmux_grant(struct stackmux_stack *s)
{
	return stackmux_dequeue(s);
}

/**
 * stackmux_wake_starving - let those who wait longest look for a stack
 * @nr: how many, at most
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_wake_starving(unsigned long nr)
{
	while (nr-- && READ_ONCE(stackmux_nr_starving))
		if (!stackmux_dequeue(NULL))
			return;
}

/**
 * stackmux_wants_grant - is a new stack to be made for a task that must have one?
 * @dying: set if it is for one that dies
 *
 * Context: any but under a run-queue lock.
 */
bool stackmux_wants_grant(bool *dying)
{
	struct stackmux_record *rec;
	unsigned long flags;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	rec = stackmux_first(&stackmux_urgent);
	*dying = rec && stackmux_is_dying(rec->task);
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
	return rec;
}

/* A task waits for very long: say so once, until nobody starves. */
static void stackmux_report(void)
{
	unsigned long limit = sysctl_hung_task_timeout_secs;	/* 0: never */
	struct task_struct *tsk = NULL;
	struct stackmux_record *rec;
	unsigned int nr = 0;

	raw_spin_lock(&stackmux_starving_lock);
	/* One that has been woken in vain is among the urgent ones by then. */
	rec = stackmux_first(&stackmux_urgent) ?: stackmux_first(&stackmux_starving.herd) ?:
	      stackmux_first(&stackmux_starving.few);
	if (rec && limit && !stackmux_reported &&
	    (stackmux_now_us() - rec->since) / USEC_PER_SEC >= limit) {
		stackmux_reported = true;
		tsk = get_task_struct(rec->task);
		nr = stackmux_nr_starving;
	}
	raw_spin_unlock(&stackmux_starving_lock);
	if (!tsk)
		return;
	pr_err("stackmux: %s/%d has waited for a kernel stack for more than %lu seconds, with %u others; %ld stacks, %lu idle\n",
	       tsk->comm, task_pid_nr(tsk), limit, nr - 1,
	       atomic_long_read(&stackmux_nr_stacks), stackmux_nr_idle());
	put_task_struct(tsk);
}

/* Each tick while anybody starves */
static enum hrtimer_restart stackmux_starving_tick(struct hrtimer *timer)
{
	unsigned int cpu;
	bool on;

	raw_spin_lock(&stackmux_starving_lock);
	on = stackmux_nr_starving;
	stackmux_timer_on = on;
	stackmux_reported &= on;
	raw_spin_unlock(&stackmux_starving_lock);
	if (!on)
		return HRTIMER_NORESTART;

	stackmux_report();
	/* No CPU goes offline meanwhile: interrupts are off. */
	for_each_online_cpu(cpu)
		if (stackmux_cpu_has_stacks(cpu))
			irq_work_queue_on(per_cpu_ptr(&stackmux_cpu.poke, cpu), cpu);
	/* The worker of this CPU may not get to run. */
	stackmux_refill_help();
	stackmux_poke();
	hrtimer_forward_now(timer, TICK_NSEC);
	return HRTIMER_RESTART;
}

static struct hrtimer stackmux_starving_timer;

static void stackmux_start_timer(void)
{
	bool start;

	raw_spin_lock(&stackmux_starving_lock);
	start = stackmux_nr_starving && !stackmux_timer_on;
	if (start)
		stackmux_timer_on = true;
	raw_spin_unlock(&stackmux_starving_lock);
	if (start)
		hrtimer_start(&stackmux_starving_timer, TICK_NSEC, HRTIMER_MODE_REL_HARD);
}

/* For each idle stack one task, interrupts off */
static void stackmux_serve(void)
{
	unsigned int granted = 0;
	struct stackmux_stack *s;
	bool dying;
	int nid;

	/* What this CPU has is for all from now on. */
	stackmux_slot_clear(smp_processor_id());
	stackmux_pool_flush_cpu(this_cpu_ptr(&stackmux_cpu));

	for_each_node_state(nid, N_MEMORY) {
		while (stackmux_wants_grant(&dying) && (s = stackmux_node_take(nid))) {
			if (!stackmux_grant(s))
				stackmux_node_give(nid, s);
			if (++granted == STACKMUX_WAKE_BATCH) {
				/* The rest in the next interrupt */
				stackmux_poke();
				return;
			}
		}
		stackmux_wake_starving(min(READ_ONCE(stackmux_nodes[nid].nr_idle),
					   STACKMUX_WAKE_BATCH));
	}
	stackmux_start_timer();
}

/**
 * stackmux_poked - somebody starves, or a list of the pool is too long or too short
 * @work: of this CPU
 *
 * Context: hard interrupt, in PREEMPT_RT, too.
 */
void stackmux_poked(struct irq_work *work)
{
	if (READ_ONCE(stackmux_wanting))
		stackmux_serve();
	if (stackmux_refill_needed())
		stackmux_refill_wake(raw_smp_processor_id());
}

void stackmux_starve_init(void)
{
	hrtimer_init(&stackmux_starving_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	stackmux_starving_timer.function = stackmux_starving_tick;
}
