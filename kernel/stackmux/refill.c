// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the refill worker
 *
 * The only place, beside clone(), where pool stacks are allocated and freed: a
 * kernel thread with a stack of its own, so it can always run. It
 *
 *  - grants stacks to tasks that were woken when their CPU had none;
 *  - fills the node lists up to node_low, and trims them down to node_max.
 *
 * A starving task in two columns. It came in on a reserve stack of its CPU, so
 * preemption is off until it has left it again:
 *
 *	task					worker
 *	set_special_state(TASK_PARKED)
 *	stackmux_state = STARVING
 *	llist_add(starving)			llist_del_all(starving)
 *	wake_up_process(worker)			wait until on_cpu == 0
 *	schedule(): off the reserve		  (pairs with finish_task())
 *	finish_task(): on_cpu = 0		granted = stack
 *						wake_up_state(TASK_PARKED)
 *	context_switch(): takes granted
 *
 * Nothing but the worker wakes TASK_PARKED of a user task, so a second wake
 * source, a signal or the freezer cannot bring it back before its stack is
 * there. The special state is set under pi_lock, so a wake-up that is still
 * under way for the earlier state cannot overwrite it.
 */
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include <trace/events/stackmux.h>

#include "stackmux.h"

static struct task_struct *stackmux_worker;
static LLIST_HEAD(stackmux_starving);
/* Somebody called stackmux_refill_wake() since the worker last looked. */
static bool stackmux_work;

/*
 * Stacks granted to tasks that have not run yet. Bounded: a herd of woken tasks
 * would otherwise be given a stack each before the first of them has run.
 */
static atomic_t stackmux_grants = ATOMIC_INIT(0);

static int stackmux_max_grants(void)
{
	return 4 * num_online_cpus();
}

/**
 * stackmux_refill_wake - there is something to do for the worker
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_refill_wake(void)
{
	struct task_struct *worker = READ_ONCE(stackmux_worker);

	/* Pairs with xchg() in the worker, after it has set its state. */
	WRITE_ONCE(stackmux_work, true);
	if (worker)
		wake_up_process(worker);
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
	current->stackmux_state = STACKMUX_STARVING;
	llist_add(&rec->starving, &stackmux_starving);
	stackmux_refill_wake();
	for (;;) {
		schedule_park();
		if (!WARN_ON_ONCE(READ_ONCE(rec->on_reserve)))
			break;
		set_special_state(TASK_PARKED);
		current->stackmux_state = STACKMUX_STARVING;
	}
}

/**
 * stackmux_grant_used - a granted stack is in use now
 *
 * Context: process context.
 */
void stackmux_grant_used(void)
{
	atomic_dec(&stackmux_grants);
	stackmux_refill_wake();
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

static void stackmux_grant(struct stackmux_record *rec)
{
	struct task_struct *task = rec->task;
	struct stackmux_stack *s;

	/* No memory: stacks come back from tasks that park or exit meanwhile. */
	while (!(s = stackmux_find_stack())) {
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
	atomic_inc(&stackmux_grants);
	/* The task cannot exit before it is woken; a full barrier lies within. */
	wake_up_state(task, TASK_PARKED);
}

/* Oldest first. Returns what is left over when enough are under way. */
static struct llist_node *stackmux_grant_list(struct llist_node *list)
{
	while (list && atomic_read(&stackmux_grants) < stackmux_max_grants()) {
		struct stackmux_record *rec;

		rec = llist_entry(list, struct stackmux_record, starving);
		list = list->next;
		stackmux_grant(rec);
	}
	return list;
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

static int stackmux_refilld(void *unused)
{
	struct llist_node *todo = NULL;
	int nid;

	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!xchg(&stackmux_work, false))
			schedule();
		__set_current_state(TASK_RUNNING);

		if (!todo)
			todo = llist_reverse_order(llist_del_all(&stackmux_starving));
		todo = stackmux_grant_list(todo);

		for_each_node_state(nid, N_MEMORY)
			stackmux_balance(nid);
	}
	return 0;
}

#if IS_ENABLED(CONFIG_STACKMUX_KUNIT_TEST)
/**
 * stackmux_refill_settle - wait until the worker sleeps
 *
 * It may be allocating a stack by limits that were changed meanwhile.
 *
 * Context: process context; may sleep.
 */
void stackmux_refill_settle(void)
{
	/* TASK_IDLE matches a wait for a lock of the allocator, too. */
	while (!wait_task_inactive(stackmux_worker, TASK_IDLE) ||
	       READ_ONCE(stackmux_worker->__state) != TASK_IDLE)
		schedule_timeout_idle(1);
}
#endif

/**
 * stackmux_refill_init - start the worker
 *
 * Context: process context, under the start mutex.
 * Return: 0 or an error.
 */
int stackmux_refill_init(void)
{
	struct task_struct *worker;

	if (stackmux_worker)
		return 0;
	worker = kthread_create(stackmux_refilld, NULL, "kstackmux");
	if (IS_ERR(worker))
		return PTR_ERR(worker);
	/* Woken tasks wait for it. */
	set_user_nice(worker, MIN_NICE);
	WRITE_ONCE(stackmux_worker, worker);
	stackmux_refill_wake();		/* fill the node lists */
	return 0;
}
