// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the refill workers
 *
 * The only place, beside clone(), where pool stacks are allocated and freed: a
 * kernel thread on each CPU, with a stack of its own, so it can always run. It
 *
 *  - makes stacks for tasks that must have one (see starve.c);
 *  - fills the node lists up to node_low, and trims them down to node_max; while tasks
 *    starve it fills them in any case.
 */
#include <linux/kthread.h>
#include <linux/mmzone.h>
#include <linux/sched/mm.h>
#include <linux/smpboot.h>
#include <linux/workqueue.h>

#include <trace/events/stackmux.h>

#include "stackmux.h"

/**
 * DOC: when memory is short
 *
 * Threads that block inside the kernel in calls that do not park (disk I/O, a mutex) hold
 * a stack each, as without stackmux. If there is no memory for more stacks, woken threads
 * wait in the queue until some come back.
 *
 * A worker never reclaims, for reclaim may wait for a file system or a block device that
 * a process serves, and that process may starve. It looks at the low watermark before it
 * allocates. Below that only dying threads get new stacks, of the memory reserves, and at
 * most 16 for each node. A work item reclaims in place of the workers, and calls the OOM
 * killer if it must; that one sees the stacks and records of a process.
 *
 * The workers have a low real-time priority: beside 20,000 runnable tasks one of nice -20
 * has a right to 0.4 per cent of its CPU. Each CPU has one, since a worker that is woken on
 * another CPU may have to queue there behind its waker. A real-time task may keep a worker
 * off its CPU for ever. So if tasks starve for longer than a tick the work item helps; it
 * is of the fair class, and so gets what the fair server gives.
 */

/* Stacks for tasks that die may come from the memory reserves: on each node */
#define STACKMUX_FROM_RESERVES	16

/**
 * struct stackmux_refill - what a CPU's worker works with
 * @worker: the thread
 * @work: somebody called for the worker since it last looked
 */
struct stackmux_refill {
	struct task_struct *worker;
	bool work;
};

static DEFINE_PER_CPU(struct stackmux_refill, stackmux_refills);

/* Taken from the reserves since memory was last not low */
static atomic_t stackmux_from_reserves = ATOMIC_INIT(0);

/**
 * stackmux_refill_wake - there is something to do for a worker
 * @cpu: whose worker
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_refill_wake(unsigned int cpu)
{
	struct stackmux_refill *r = per_cpu_ptr(&stackmux_refills, cpu);
	struct task_struct *worker = READ_ONCE(r->worker);

	/* Pairs with the worker's setting its state before it looks. */
	WRITE_ONCE(r->work, true);
	if (worker)
		wake_up_process(worker);
}

/* Would a stack have to come from the memory that is kept for those who reclaim? */
static bool stackmux_memory_is_low(void)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		if (zone_idx(zone) <= ZONE_NORMAL &&
		    zone_watermark_ok(zone, 0, low_wmark_pages(zone) + STACKMUX_PAGES,
				      ZONE_NORMAL, 0))
			return false;
	}
	return true;
}

/* How many stacks are to be on the list of a node: enough for those who starve, too */
static unsigned int stackmux_node_want(void)
{
	unsigned int low = READ_ONCE(stackmux_node_low);

	return READ_ONCE(stackmux_wanting) ? max(low, STACKMUX_BATCH) : low;
}

static unsigned int stackmux_node_most(void)
{
	return READ_ONCE(stackmux_wanting) ? UINT_MAX : READ_ONCE(stackmux_node_max);
}

static void stackmux_help(struct work_struct *work);
static DECLARE_WORK(stackmux_help_work, stackmux_help);
static struct workqueue_struct *stackmux_help_wq;

/**
 * stackmux_refill_help - tasks starve for longer than a tick, or memory is short
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_refill_help(void)
{
	queue_work(stackmux_help_wq, &stackmux_help_work);
}

/* Never reclaims, not for page tables either. */
static struct stackmux_stack *stackmux_new_stack(int nid, bool dying)
{
	struct stackmux_stack *s;
	unsigned int flags;

	if (!stackmux_memory_is_low())
		atomic_set(&stackmux_from_reserves, 0);
	else if (!dying || atomic_inc_return(&stackmux_from_reserves) >
			   STACKMUX_FROM_RESERVES * num_online_nodes())
		return NULL;

	flags = memalloc_noreclaim_save();
	s = stackmux_stack_create(nid, GFP_KERNEL | __GFP_NOWARN);
	memalloc_noreclaim_restore(flags);
	if (s)
		stackmux_count(STACKMUX_REFILLS);
	return s;
}

/* Stacks come back from tasks that park or exit meanwhile, too. */
static void stackmux_memory_short(void)
{
	if (READ_ONCE(stackmux_wanting))
		stackmux_refill_help();
}

static void stackmux_feed(void)
{
	struct stackmux_stack *s;
	bool dying;

	while (stackmux_wants_grant(&dying)) {
		s = stackmux_new_stack(NUMA_NO_NODE, dying);
		if (!s) {
			stackmux_memory_short();
			break;
		}
		if (!stackmux_grant(s))
			stackmux_node_give(stackmux_this_node(), s);
		cond_resched();
	}
}

static void stackmux_balance(int nid)
{
	struct stackmux_node *node = &stackmux_nodes[nid];
	struct stackmux_stack *s;

	while (READ_ONCE(node->nr_idle) > stackmux_node_most()) {
		s = stackmux_node_take(nid);
		if (!s)
			break;
		trace_stackmux_trim(nid, READ_ONCE(node->nr_idle));
		stackmux_stack_destroy(s);
		stackmux_count(STACKMUX_TRIMS);
		cond_resched();
	}
	while (READ_ONCE(node->nr_idle) < stackmux_node_want()) {
		s = stackmux_new_stack(nid, false);
		if (!s) {
			stackmux_memory_short();
			break;
		}
		trace_stackmux_refill(nid, READ_ONCE(node->nr_idle));
		stackmux_node_give(nid, s);
		stackmux_wake_starving(1);
		cond_resched();
	}
}

/**
 * stackmux_refill_needed - is there anything to do for a worker?
 *
 * Context: any.
 */
bool stackmux_refill_needed(void)
{
	int nid;

	for_each_node_state(nid, N_MEMORY) {
		unsigned int nr = READ_ONCE(stackmux_nodes[nid].nr_idle);

		if (nr > stackmux_node_most() || nr < stackmux_node_want())
			return true;
	}
	return false;
}

static int stackmux_refill_should_run(unsigned int cpu)
{
	return READ_ONCE(this_cpu_ptr(&stackmux_refills)->work);
}

static void stackmux_refill(void)
{
	int nid;

	stackmux_feed();
	for_each_node_state(nid, N_MEMORY)
		stackmux_balance(nid);
}

static void stackmux_refill_run(unsigned int cpu)
{
	/* A barrier, too: what is asked for from now on sets it again. */
	xchg(&this_cpu_ptr(&stackmux_refills)->work, false);
	stackmux_refill();
}

/* In place of the workers: reclaims, and runs when a real-time task keeps them off a CPU. */
static void stackmux_help(struct work_struct *work)
{
	struct stackmux_stack *s;

	stackmux_refill();
	if (!READ_ONCE(stackmux_wanting) || !stackmux_memory_is_low())
		return;
	s = stackmux_stack_create(NUMA_NO_NODE, GFP_KERNEL | __GFP_NOWARN);
	if (!s)
		return;
	stackmux_count(STACKMUX_REFILLS);
	if (stackmux_grant(s))
		return;
	stackmux_node_give(stackmux_this_node(), s);
	stackmux_wake_starving(1);
}

static void stackmux_refill_setup(unsigned int cpu)
{
	sched_set_fifo_low(current);
}

static struct smp_hotplug_thread stackmux_refill_threads = {
	.store			= &stackmux_refills.worker,
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
		while (!wait_task_inactive(per_cpu(stackmux_refills.worker, cpu),
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
	if (!stackmux_help_wq)
		stackmux_help_wq = alloc_workqueue("stackmux", WQ_UNBOUND | WQ_HIGHPRI |
						   WQ_MEM_RECLAIM, 1);
	if (!stackmux_help_wq)
		return -ENOMEM;
	ret = smpboot_register_percpu_thread(&stackmux_refill_threads);
	if (ret)
		return ret;
	started = true;
	stackmux_refill_wake(raw_smp_processor_id());	/* fill the node lists */
	return 0;
}
