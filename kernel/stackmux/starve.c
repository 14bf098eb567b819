// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that were woken and wait for a stack
 *
 * One queue for the machine. Idle stacks are granted here, in hard interrupt context: on
 * the CPU where a task begins to starve or a stack comes back, and, while anybody starves,
 * once a tick on each CPU that has some. Nothing here waits or allocates; new stacks are
 * the business of refill.c.
 */
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/sched/sysctl.h>
#include <linux/seq_file.h>

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
 *	  on_cpu = 0				granted = stack
 *						wake_up_state(STACKMUX_STARVING)
 *						  waits until on_cpu == 0
 *	context_switch(): takes granted
 *
 * Nothing but a grant wakes this state, so a second wake source, a signal or the freezer
 * cannot bring the task back before its stack is there. It is set under pi_lock, so a
 * wake-up that is still under way for the earlier state cannot overwrite it. /proc shows
 * it as R, and the task counts as running in the load and for PSI.
 *
 * Tasks that die come first, then those of a real-time priority, then the oldest. A task
 * that has been granted a stack waits for its turn on the run queue with it, while tasks
 * whose turn it is find none. So only a few grants are under way at a time; otherwise all
 * tasks of a woken herd would go through the queue. But it may be that those tasks cannot
 * run, since their group is throttled, say. So each tick in which no grant is used allows
 * for twice as many, and for whatever is idle.
 */

/* Grants under way, for each CPU */
#define STACKMUX_GRANTS		4U

/* Granted in one interrupt */
#define STACKMUX_GRANT_BATCH	32

/* Log2 of microseconds */
#define STACKMUX_WAITS		32

static DEFINE_RAW_SPINLOCK(stackmux_starving_lock);
static LIST_HEAD(stackmux_dying);
static LIST_HEAD(stackmux_starving);
static unsigned int stackmux_nr_starving;
static u64 stackmux_waits[STACKMUX_WAITS];
static bool stackmux_timer_on;
static bool stackmux_reported;

/* Grants to tasks that have not gone on yet, and how many the last tick has allowed for */
static unsigned int stackmux_grants, stackmux_grants_max;

/* Tasks that starve: a snapshot. */
unsigned int stackmux_nr_starving_tasks(void)
{
	return READ_ONCE(stackmux_nr_starving);
}

/* In units that last for an hour */
static u32 stackmux_now_us(void)
{
	return div_u64(local_clock(), NSEC_PER_USEC);
}

/*
 * While the next in the queue is to be granted a stack CPUs cache none, so each stack that
 * comes back takes the slow path, which pokes.
 */
static void stackmux_update(void)
{
	bool wanting = !list_empty(&stackmux_dying) ||
		       (stackmux_nr_starving &&
			stackmux_grants < max(STACKMUX_GRANTS * num_online_cpus(),
					      stackmux_grants_max));

	WRITE_ONCE(stackmux_wanting, wanting);
	WRITE_ONCE(stackmux_cache_max, wanting ? 0 : READ_ONCE(stackmux_percpu_max));
}

/**
 * stackmux_limits_changed - percpu_max has been written
 *
 * Context: any.
 */
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

/* Under the lock. Does it have to be among the first? */
static bool stackmux_list_first(struct stackmux_record *rec)
{
	if (unlikely(__fatal_signal_pending(rec->task)))
		list_add_tail(&rec->starving, &stackmux_dying);
	else if (unlikely(rt_or_dl_prio(READ_ONCE(rec->task->prio))))
		list_add(&rec->starving, &stackmux_starving);
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

	sched_wait_for_stack(tsk);
	rec->since = stackmux_now_us();

	raw_spin_lock(&stackmux_starving_lock);
	/* The task shows that it is parked, then looks for SIGKILL: see stackmux_kill(). */
	smp_mb__after_spinlock();
	if (!stackmux_list_first(rec))
		list_add_tail(&rec->starving, &stackmux_starving);
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
		if (!stackmux_list_first(rec))
			list_add_tail(&rec->starving, next);
	}
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
}

static struct stackmux_record *stackmux_first_starving(void)
{
	return list_first_entry_or_null(&stackmux_dying, struct stackmux_record, starving) ?:
	       list_first_entry_or_null(&stackmux_starving, struct stackmux_record, starving);
}

/**
 * stackmux_grant - give a stack to the first task in the queue
 * @s: the stack, in no cache and no list
 *
 * Context: any but under a run-queue lock.
 * Return: false if nobody is to be granted one now.
 */
bool stackmux_grant(struct stackmux_stack *s)
{
	struct stackmux_record *rec;
	struct task_struct *tsk;
	unsigned long flags;
	u32 waited;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	rec = stackmux_wanting ? stackmux_first_starving() : NULL;
	if (!rec) {
		raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
		return false;
	}
	__list_del_entry(&rec->starving);
	rec->starving.prev = NULL;
	waited = stackmux_now_us() - rec->since;
	stackmux_waits[min(fls(waited), STACKMUX_WAITS - 1)]++;
	stackmux_nr_starving--;
	stackmux_grants++;
	stackmux_update();
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);

	tsk = rec->task;
	trace_stackmux_grant(tsk, waited);
	rec->granted = s;
	sched_has_stack(tsk);
	/* The task cannot exit before it is woken; a full barrier lies within. */
	wake_up_state(tsk, STACKMUX_STARVING);
	return true;
}

/**
 * stackmux_grant_used - the task that a stack was granted to goes on
 *
 * Context: process context.
 */
void stackmux_grant_used(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&stackmux_starving_lock, flags);
	stackmux_grants--;
	stackmux_grants_max = 0;
	stackmux_update();
	if (stackmux_wanting)
		stackmux_poke();
	raw_spin_unlock_irqrestore(&stackmux_starving_lock, flags);
}

/**
 * stackmux_wants_stack - is a new stack to be made for a task that starves?
 * @dying: set if it is for one that dies
 *
 * Context: any but under a run-queue lock.
 */
bool stackmux_wants_stack(bool *dying)
{
	*dying = !list_empty_careful(&stackmux_dying);
	return READ_ONCE(stackmux_wanting);
}

static unsigned long stackmux_hung_secs(void)
{
#ifdef CONFIG_DETECT_HUNG_TASK
	return READ_ONCE(sysctl_hung_task_timeout_secs);
#else
	return 120;
#endif
}

/* A task waits for very long: say so once, until nobody starves. */
static void stackmux_report(void)
{
	unsigned long limit = stackmux_hung_secs();
	struct task_struct *tsk = NULL;
	unsigned int nr = 0;

	raw_spin_lock(&stackmux_starving_lock);
	if (limit && !stackmux_reported && stackmux_nr_starving) {
		struct stackmux_record *rec = stackmux_first_starving();

		if ((stackmux_now_us() - rec->since) / USEC_PER_SEC >= limit) {
			stackmux_reported = true;
			tsk = rec->task;
			nr = stackmux_nr_starving;
			get_task_struct(tsk);
		}
	}
	raw_spin_unlock(&stackmux_starving_lock);
	if (!tsk)
		return;
	pr_err("stackmux: %s/%d waits for a kernel stack for more than %lu seconds, with %u others; %ld stacks, %lu idle, %d granted\n",
	       tsk->comm, task_pid_nr(tsk), limit, nr - 1,
	       atomic_long_read(&stackmux_nr_stacks), stackmux_nr_idle(),
	       READ_ONCE(stackmux_grants));
	put_task_struct(tsk);
}

static void stackmux_grant_idle(void)
{
	struct stackmux_stack *s;
	int i;

	for (i = 0; READ_ONCE(stackmux_wanting); i++) {
		if (i == STACKMUX_GRANT_BATCH) {
			/* The rest in the next interrupt */
			stackmux_poke();
			return;
		}
		s = stackmux_get_stack(STACKMUX_MM_UNKNOWN);
		if (!s)
			return;
		if (!stackmux_grant(s)) {
			stackmux_pool_put(s);
			return;
		}
	}
}

/* Each tick while anybody starves */
static enum hrtimer_restart stackmux_starving_tick(struct hrtimer *timer)
{
	unsigned long idle = stackmux_nr_idle();
	static unsigned int helper;
	unsigned int cpu;
	bool on;

	raw_spin_lock(&stackmux_starving_lock);
	on = stackmux_nr_starving;
	stackmux_timer_on = on;
	if (!on)
		stackmux_reported = false;
	stackmux_grants_max = on ? stackmux_grants + max(stackmux_grants, (unsigned int)idle) : 0;
	stackmux_update();
	raw_spin_unlock(&stackmux_starving_lock);
	if (!on)
		return HRTIMER_NORESTART;

	stackmux_report();
	/* No CPU goes offline meanwhile: interrupts are off. */
	for_each_online_cpu(cpu)
		if (stackmux_cpu_has_stacks(cpu))
			irq_work_queue_on(per_cpu_ptr(&stackmux_cpu.poke, cpu), cpu);
	/* The worker of this CPU may not get to run, so another one helps. */
	helper = cpumask_next_wrap(helper, cpu_online_mask, nr_cpu_ids, false);
	if (helper < nr_cpu_ids)
		stackmux_refill_wake(helper);
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

/**
 * stackmux_poked - somebody starves, or a list of the pool is too long or too short
 * @work: of this CPU
 *
 * Context: hard interrupt, in PREEMPT_RT, too.
 */
void stackmux_poked(struct irq_work *work)
{
	stackmux_grant_idle();
	if (READ_ONCE(stackmux_nr_starving))
		stackmux_start_timer();
	if (stackmux_refill_needed())
		stackmux_refill_wake(raw_smp_processor_id());
}

void stackmux_starve_init(void)
{
	hrtimer_init(&stackmux_starving_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	stackmux_starving_timer.function = stackmux_starving_tick;
}

/* For each power of two of microseconds, how many tasks waited less for a stack */
int stackmux_waits_show(struct seq_file *m, void *unused)
{
	int i;

	for (i = 0; i < STACKMUX_WAITS; i++)
		if (READ_ONCE(stackmux_waits[i]))
			seq_printf(m, "%lu %llu\n", BIT(i), READ_ONCE(stackmux_waits[i]));
	return 0;
}
