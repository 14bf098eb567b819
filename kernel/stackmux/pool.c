// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the pool of kernel stacks
 *
 * Per-CPU caches over per-node lists. A CPU takes from and gives to its cache
 * with interrupts off, under a run-queue lock as a rule; batches go between the
 * cache and the list of the CPU's node, so stacks that pile up where threads
 * park flow to where threads are cloned. So nothing here may wake a task: an irq_work
 * looks at those who wait for a stack, and wakes a worker, which allocates and frees.
 */
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/topology.h>

#include "stackmux.h"

DEFINE_PER_CPU(struct stackmux_cpu, stackmux_cpu);
struct stackmux_node *stackmux_nodes;

/* In stacks; writable in sysfs. */
unsigned int stackmux_percpu_max __read_mostly = 2 * STACKMUX_BATCH;
unsigned int stackmux_node_max __read_mostly;
unsigned int stackmux_node_low __read_mostly = STACKMUX_BATCH;

/* Tasks wait for a stack, so CPUs cache none; percpu_max otherwise. Set by starve.c. */
bool stackmux_wanting __read_mostly;
unsigned int stackmux_cache_max __read_mostly = 2 * STACKMUX_BATCH;

static int __init stackmux_pool_tune(void)
{
	stackmux_node_max = min(4 * STACKMUX_BATCH * num_possible_cpus(), 65536U);
	return 0;
}
core_initcall(stackmux_pool_tune);

/* Moves up to @nr stacks from a node's list to @head; returns how many. */
static unsigned int stackmux_node_get(struct stackmux_node *node, unsigned int nr,
				      struct stackmux_stack **head)
{
	struct stackmux_stack *s;
	unsigned int got = 0;

	/* A hint: a stack that comes this moment is found the next time. */
	if (!READ_ONCE(node->nr_idle))
		return 0;

	raw_spin_lock(&node->lock);
	while (got < nr && (s = node->idle)) {
		node->idle = s->next;
		s->next = *head;
		*head = s;
		got++;
	}
	WRITE_ONCE(node->nr_idle, node->nr_idle - got);
	raw_spin_unlock(&node->lock);
	return got;
}

/* Gives a chain of @nr stacks to a node's list; returns its new length. */
static unsigned int stackmux_node_put(struct stackmux_node *node, unsigned int nr,
				      struct stackmux_stack *first,
				      struct stackmux_stack *last)
{
	unsigned int total;

	raw_spin_lock(&node->lock);
	last->next = node->idle;
	node->idle = first;
	total = node->nr_idle + nr;
	WRITE_ONCE(node->nr_idle, total);
	raw_spin_unlock(&node->lock);
	return total;
}

/* The cache is empty: take a batch from this node's list, or from any. */
struct stackmux_stack *stackmux_pool_get_slow(struct stackmux_cpu *sc)
{
	unsigned int batch = max(1U, min(STACKMUX_BATCH, READ_ONCE(stackmux_cache_max)));
	struct stackmux_node *node = &stackmux_nodes[stackmux_this_node()];
	struct stackmux_stack *s;
	int nid;

	sc->nr_idle = stackmux_node_get(node, batch, &sc->idle);
	if (!sc->nr_idle) {
		for_each_online_node(nid) {
			sc->nr_idle = stackmux_node_get(&stackmux_nodes[nid], batch,
							&sc->idle);
			if (sc->nr_idle)
				break;
		}
	}
	if (READ_ONCE(node->nr_idle) < READ_ONCE(stackmux_node_low))
		stackmux_poke();

	s = sc->idle;
	if (s) {
		sc->idle = s->next;
		sc->nr_idle--;
	}
	return s;
}

/*
 * The first stack of the cache does not fit: move one that does to the front, if
 * there is one among the next few; or else the last of these, since those who used it
 * are less likely to want it back soon than those who used the first.
 */
noinline void stackmux_pool_prefer(struct stackmux_cpu *sc, u64 mm_id)
{
	struct stackmux_stack *prev = sc->idle, *s = prev->next;
	int i;

	if (!s)
		return;
	for (i = 2; i < STACKMUX_LOOK; i++) {
		if (stackmux_stack_fits(s, mm_id) || !s->next)
			break;
		prev = s;
		s = s->next;
	}
	prev->next = s->next;
	s->next = sc->idle;
	sc->idle = s;
}

/* The cache is full: give a batch to the node. */
void stackmux_pool_put_slow(struct stackmux_cpu *sc)
{
	struct stackmux_node *node = &stackmux_nodes[stackmux_this_node()];
	struct stackmux_stack *first = sc->idle, *last = first;
	unsigned int nr = 1;

	while (nr < STACKMUX_BATCH && last->next) {
		last = last->next;
		nr++;
	}
	sc->idle = last->next;
	sc->nr_idle -= nr;
	if (stackmux_node_put(node, nr, first, last) > READ_ONCE(stackmux_node_max) ||
	    READ_ONCE(stackmux_wanting))
		stackmux_poke();
}

/**
 * stackmux_node_take - take one idle stack from a node's list
 * @nid: the node
 *
 * Context: any.
 * Return: a stack or NULL.
 */
struct stackmux_stack *stackmux_node_take(int nid)
{
	struct stackmux_stack *s = NULL;
	unsigned long flags;

	local_irq_save(flags);
	stackmux_node_get(&stackmux_nodes[nid], 1, &s);
	local_irq_restore(flags);
	return s;
}

/**
 * stackmux_node_give - put one idle stack on a node's list
 * @nid: the node
 * @s: the stack
 *
 * Context: any.
 */
void stackmux_node_give(int nid, struct stackmux_stack *s)
{
	unsigned long flags;

	local_irq_save(flags);
	stackmux_node_put(&stackmux_nodes[nid], 1, s, s);
	local_irq_restore(flags);
}

/* Idle stacks, caches and lists together: a snapshot. */
unsigned long stackmux_nr_idle(void)
{
	unsigned long nr = 0;
	int i;

	if (!stackmux_nodes)
		return 0;
	for_each_possible_cpu(i)
		nr += READ_ONCE(per_cpu(stackmux_cpu.nr_idle, i));
	for_each_node(i)
		nr += READ_ONCE(stackmux_nodes[i].nr_idle);
	return nr;
}

static unsigned long stackmux_shrink_node(int nid, unsigned long nr)
{
	struct stackmux_stack *s;
	unsigned long freed = 0;

	while (freed < nr && (s = stackmux_node_take(nid))) {
		stackmux_stack_destroy(s);
		stackmux_count(STACKMUX_TRIMS);
		freed++;
	}
	return freed;
}

/**
 * stackmux_shrink - free idle stacks of the node lists
 * @nr: how many, at most
 *
 * Context: process context.
 * Return: how many were freed.
 */
unsigned long stackmux_shrink(unsigned long nr)
{
	unsigned long freed = 0;
	int nid;

	for_each_node(nid)
		freed += stackmux_shrink_node(nid, nr - freed);
	return freed;
}

/* Gives all stacks of a CPU's cache to the node list. Interrupts off. */
void stackmux_pool_flush_cpu(struct stackmux_cpu *sc)
{
	struct stackmux_stack *s;

	while ((s = sc->idle)) {
		sc->idle = s->next;
		sc->nr_idle--;
		stackmux_node_put(&stackmux_nodes[stackmux_this_node()], 1, s, s);
	}
}

static unsigned long stackmux_shrinker_count(struct shrinker *shrinker,
					     struct shrink_control *sc)
{
	return READ_ONCE(stackmux_nodes[sc->nid].nr_idle) ?: SHRINK_EMPTY;
}

static unsigned long stackmux_shrinker_scan(struct shrinker *shrinker,
					    struct shrink_control *sc)
{
	/* Tasks have been woken for those that idle now. */
	if (READ_ONCE(stackmux_wanting))
		return SHRINK_STOP;
	return stackmux_shrink_node(sc->nid, sc->nr_to_scan) ?: SHRINK_STOP;
}

/**
 * stackmux_reserve_fill - give a CPU its reserve stacks
 * @cpu: the CPU, which is not online yet
 *
 * Context: process context.
 * Return: 0 or -ENOMEM; the CPU must not come online then.
 */
int stackmux_reserve_fill(unsigned int cpu)
{
	struct stackmux_cpu *sc = per_cpu_ptr(&stackmux_cpu, cpu);
	int i;

	for (i = 0; i < STACKMUX_RESERVES; i++) {
		if (sc->reserve[i])
			continue;
		sc->reserve[i] = stackmux_stack_create(cpu_to_node(cpu), GFP_KERNEL);
		if (!sc->reserve[i])
			return -ENOMEM;
	}
	return 0;
}

/**
 * stackmux_pool_drain_cpu - take away the stacks of a CPU
 * @cpu: the CPU, which is offline, so nothing else uses its cache
 *
 * Context: process context.
 */
void stackmux_pool_drain_cpu(unsigned int cpu)
{
	struct stackmux_cpu *sc = per_cpu_ptr(&stackmux_cpu, cpu);
	int i;

	local_irq_disable();
	stackmux_pool_flush_cpu(sc);
	local_irq_enable();
	for (i = 0; i < STACKMUX_RESERVES; i++) {
		if (sc->reserve[i])
			stackmux_stack_destroy(sc->reserve[i]);
		sc->reserve[i] = NULL;
	}
}

/**
 * stackmux_pool_init - make the pool ready, when the first process asks for it
 * @poke: called in interrupt context when a list is too long or too short
 *
 * Context: process context, under the start mutex.
 * Return: 0 or an error; may be called again after an error.
 */
int stackmux_pool_init(void (*poke)(struct irq_work *work))
{
	static struct shrinker *shrinker;
	int cpu, nid;

	if (!stackmux_nodes) {
		struct stackmux_node *nodes;

		nodes = kcalloc(nr_node_ids, sizeof(*nodes), GFP_KERNEL);
		if (!nodes)
			return -ENOMEM;
		for_each_node(nid)
			raw_spin_lock_init(&nodes[nid].lock);
		for_each_possible_cpu(cpu)
			per_cpu(stackmux_cpu.poke, cpu) = IRQ_WORK_INIT_HARD(poke);
		stackmux_nodes = nodes;
	}
	if (!shrinker) {
		shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE, "stackmux");
		if (!shrinker)
			return -ENOMEM;
		shrinker->count_objects = stackmux_shrinker_count;
		shrinker->scan_objects = stackmux_shrinker_scan;
		shrinker_register(shrinker);
	}
	return 0;
}
