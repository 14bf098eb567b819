// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the refill workers
 *
 * The only place, beside clone(), where pool stacks are allocated and freed: a
 * kernel thread on each CPU, with a stack of its own, so it can always run. It
 *
 *  - grants stacks to tasks that were woken when this CPU had none;
 *  - fills the node lists up to node_low, and trims them down to node_max.
 *
 * It has to run at once: a CPU without stacks can only put off the parked tasks that
 * it switches to. So each CPU has a worker, of a real-time class.
 */
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/smpboot.h>

#include <trace/events/stackmux.h>

#include "stackmux.h"

/**
 * DOC: no stack at a wake-up
 *
 * Each CPU has two reserve stacks. If its cache and the node lists are empty, a woken
 * task is switched in on a reserve, queues itself for the refill worker of the CPU and
 * switches away again. There are two, since the switch from one starving task to the
 * next is complete only after the second has got its stack. Preemption is off until the
 * task has left the reserve::
 *
 *	task					worker of this CPU
 *	set_special_state(TASK_PARKED)
 *	stackmux_leave = LEAVE_RESERVE
 *	llist_add(starving)			llist_del_all(starving)
 *	wake_up_process(worker)			wait until on_cpu == 0
 *	schedule(): off the reserve		  (pairs with finish_task())
 *	finish_task(): on_cpu = 0		granted = stack
 *						wake_up_state(TASK_PARKED)
 *	context_switch(): takes granted
 *
 * Nothing but a worker wakes ``TASK_PARKED`` of a user task, so a second wake
 * source, a signal or the freezer cannot bring it back before its stack is
 * there. The special state is set under pi_lock, so a wake-up that is still
 * under way for the earlier state cannot overwrite it.
 *
 * The worker grants only a few stacks at a time. Otherwise each task of a woken herd
 * would get a stack before the first of them has run.
 */

/* Of stacks that tasks have not yet gone on with: see @grants. */
#define STACKMUX_MAX_GRANTS	4

/**
 * struct stackmux_refill - what a CPU's worker works with
 * @worker: the thread
 * @starving: tasks that starve, latest first
 * @todo: those that the worker has taken from there, oldest first; its own, or
 *	  nobody's while it is parked
 * @grants: stacks granted to tasks that have not run yet. Bounded: a herd of
 *	    woken tasks would otherwise be given a stack each before the first of
 *	    them has run
 * @work: somebody called for the worker since it last looked
 */
struct stackmux_refill {
	struct task_struct *worker;
	struct llist_head starving;
	struct llist_node *todo;
	atomic_t grants;
	bool work;
};

static DEFINE_PER_CPU(struct stackmux_refill, stackmux_refill);

static void stackmux_refill_wake_cpu(unsigned int cpu)
{
	struct stackmux_refill *r = per_cpu_ptr(&stackmux_refill, cpu);
	struct task_struct *worker = READ_ONCE(r->worker);

	/* Pairs with the worker's setting its state before it looks. */
	WRITE_ONCE(r->work, true);
	if (worker)
		wake_up_process(worker);
}

/**
 * stackmux_refill_wake - there is something to do for this CPU's worker
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_refill_wake(void)
{
	stackmux_refill_wake_cpu(raw_smp_processor_id());
}

static void stackmux_add_starving(struct stackmux_record *rec)
{
	llist_add(&rec->starving, &this_cpu_ptr(&stackmux_refill)->starving);
	stackmux_refill_wake();
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
	stackmux_count(STACKMUX_STARVATIONS);
	trace_stackmux_starve(current);
	set_special_state(TASK_PARKED);
	current->stackmux_leave = STACKMUX_LEAVE_RESERVE;
	stackmux_add_starving(rec);
	for (;;) {
		schedule_park();
		if (!WARN_ON_ONCE(rec->on_reserve))
			break;
		set_special_state(TASK_PARKED);
		current->stackmux_leave = STACKMUX_LEAVE_RESERVE;
	}
}

/**
 * stackmux_grant_used - a granted stack is in use now
 * @rec: record of the task that it was granted to
 *
 * Context: process context.
 */
void stackmux_grant_used(struct stackmux_record *rec)
{
	unsigned int cpu = rec->cpu;

	atomic_dec(&per_cpu_ptr(&stackmux_refill, cpu)->grants);
	stackmux_refill_wake_cpu(cpu);
}

static void stackmux_hand_over(struct llist_node *list)
{
	struct stackmux_record *rec, *next;

	llist_for_each_entry_safe(rec, next, list, starving)
		stackmux_add_starving(rec);
}

/**
 * stackmux_refill_dead - a CPU is gone, those who starve there are this one's
 * @cpu: the CPU, whose worker is parked
 *
 * Context: process context.
 */
void stackmux_refill_dead(unsigned int cpu)
{
	struct stackmux_refill *r = per_cpu_ptr(&stackmux_refill, cpu);

	preempt_disable();
	stackmux_hand_over(r->todo);
	stackmux_hand_over(llist_reverse_order(llist_del_all(&r->starving)));
	preempt_enable();
	r->todo = NULL;
}

/* Idle stacks first, the stock of this CPU included; then new ones. */
static struct stackmux_stack *stackmux_find_stack(void)
{
	struct stackmux_stack *s;
	unsigned int noreclaim;

	local_irq_disable();
	s = stackmux_pool_get();
	local_irq_enable();
	if (s)
		return s;

	s = stackmux_stack_create(NUMA_NO_NODE,
				  GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!s) {
		/*
		 * The task may be the one whose exit gives memory back: use
		 * what is kept for such cases, as reclaim itself does.
		 */
		noreclaim = memalloc_noreclaim_save();
		s = stackmux_stack_create(NUMA_NO_NODE, GFP_KERNEL | __GFP_NOWARN);
		memalloc_noreclaim_restore(noreclaim);
	}
	if (s)
		stackmux_count(STACKMUX_REFILLS);
	return s;
}

/* False if the CPU is about to go offline, and there is no memory. */
static bool stackmux_grant(struct stackmux_record *rec)
{
	struct task_struct *task = rec->task;
	struct stackmux_stack *s;

	/* No memory: stacks come back from tasks that park or exit meanwhile. */
	while (!(s = stackmux_find_stack())) {
		if (kthread_should_park())
			return false;
		stackmux_flush();
		schedule_timeout_idle(msecs_to_jiffies(10));
	}

	/*
	 * Pairs with the release in finish_task(): the task is off the reserve
	 * stack. It got here with preemption off, so this is short.
	 */
	smp_cond_load_acquire(&task->on_cpu, !VAL);
	trace_stackmux_grant(task);
	rec->granted = s;
	/* Whose grant this is, for stackmux_grant_used() */
	rec->cpu = smp_processor_id();
	atomic_inc(&this_cpu_ptr(&stackmux_refill)->grants);
	/* The task cannot exit before it is woken; a full barrier lies within. */
	wake_up_state(task, TASK_PARKED);
	return true;
}

/* Oldest first, until enough are under way */
static void stackmux_grant_all(struct stackmux_refill *r)
{
	if (!r->todo)
		r->todo = llist_reverse_order(llist_del_all(&r->starving));

	while (r->todo && atomic_read(&r->grants) < STACKMUX_MAX_GRANTS) {
		struct stackmux_record *rec;
		struct llist_node *next = r->todo->next;

		rec = llist_entry(r->todo, struct stackmux_record, starving);
		if (!stackmux_grant(rec)) {
			/* For the case that the CPU stays after all. */
			WRITE_ONCE(r->work, true);
			break;
		}
		r->todo = next;
	}
}

static void stackmux_balance(int nid)
{
	struct stackmux_node *node = &stackmux_nodes[nid];
	struct stackmux_stack *s;

	while (READ_ONCE(node->nr_idle) > READ_ONCE(stackmux_node_max)) {
		s = stackmux_node_take(nid);
		if (!s)
			break;
		trace_stackmux_trim(nid, READ_ONCE(node->nr_idle));
		stackmux_stack_destroy(s);
		stackmux_count(STACKMUX_TRIMS);
		cond_resched();
	}
	while (READ_ONCE(node->nr_idle) < READ_ONCE(stackmux_node_low)) {
		s = stackmux_stack_create(nid, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (!s)
			break;
		stackmux_count(STACKMUX_REFILLS);
		trace_stackmux_refill(nid, READ_ONCE(node->nr_idle));
		stackmux_node_give(nid, s);
		cond_resched();
	}
}

static int stackmux_refill_should_run(unsigned int cpu)
{
	return READ_ONCE(this_cpu_ptr(&stackmux_refill)->work);
}

static void stackmux_refill_run(unsigned int cpu)
{
	struct stackmux_refill *r = this_cpu_ptr(&stackmux_refill);
	int nid;

	/* A barrier, too: what is asked for from now on sets it again. */
	xchg(&r->work, false);
	stackmux_grant_all(r);
	for_each_node_state(nid, N_MEMORY)
		stackmux_balance(nid);
}

static void stackmux_refill_setup(unsigned int cpu)
{
	sched_set_fifo_low(current);
}

static struct smp_hotplug_thread stackmux_refill_threads = {
	.store			= &stackmux_refill.worker,
	.thread_should_run	= stackmux_refill_should_run,
	.thread_fn		= stackmux_refill_run,
	.setup			= stackmux_refill_setup,
	.thread_comm		= "kstackmux/%u",
};

#if IS_ENABLED(CONFIG_STACKMUX_KUNIT_TEST)
/**
 * stackmux_refill_settle - wait until the workers sleep
 *
 * They may be allocating stacks by limits that were changed meanwhile.
 *
 * Context: process context; may sleep.
 */
void stackmux_refill_settle(void)
{
	unsigned int cpu;

	cpus_read_lock();
	for_each_online_cpu(cpu)
		while (!wait_task_inactive(per_cpu(stackmux_refill.worker, cpu),
					   TASK_INTERRUPTIBLE))
			schedule_timeout_idle(1);
	cpus_read_unlock();
}
#endif

/**
 * stackmux_refill_init - start the workers
 *
 * Context: process context, under the start mutex.
 * Return: 0 or an error.
 */
int stackmux_refill_init(void)
{
	static bool started;
	int ret;

	if (started)
		return 0;
	ret = smpboot_register_percpu_thread(&stackmux_refill_threads);
	if (ret)
		return ret;
	started = true;
	stackmux_refill_wake();		/* fill the node lists */
	return 0;
}
