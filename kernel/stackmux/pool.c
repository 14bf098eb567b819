// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the pool of kernel stacks
 *
 * Per-CPU caches over per-node lists. A CPU takes from and gives to its cache
 * with interrupts off, under a run-queue lock as a rule; batches go between the
 * cache and the list of the CPU's node, so stacks that pile up where threads
 * park flow to where threads are cloned. Allocating and freeing is the refill
 * workers' business, and clone()'s.
 *
 * A stack that the pool owns carries VM_STACKMUX in its vm_struct. It counts
 * as KernelStack from its creation to its end, idle or not. It stays charged to
 * the memory cgroup of the task that used it last, through an obj_cgroup, which
 * does not keep a dead cgroup alive; when it changes address space the next user
 * re-charges it.
 */
#include <linux/cpuhotplug.h>
#include <linux/kasan.h>
#include <linux/magic.h>
#include <linux/memcontrol.h>
#include <linux/sched/task_stack.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/topology.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <asm/stackmux.h>

#include "stackmux.h"

#define STACKMUX_PAGES		(THREAD_SIZE / PAGE_SIZE)

DEFINE_PER_CPU(struct stackmux_cpu, stackmux_cpu);
struct stackmux_node *stackmux_nodes;

/* In stacks; writable in debugfs. */
unsigned int stackmux_percpu_max __read_mostly = 2 * STACKMUX_BATCH;
unsigned int stackmux_node_max __read_mostly;
unsigned int stackmux_node_low __read_mostly = STACKMUX_BATCH;

static int __init stackmux_pool_tune(void)
{
	stackmux_node_max = 4 * STACKMUX_BATCH * num_possible_cpus();
	return 0;
}
core_initcall(stackmux_pool_tune);

atomic_long_t stackmux_nr_stacks = ATOMIC_LONG_INIT(0);
atomic_long_t stackmux_max_stacks = ATOMIC_LONG_INIT(0);

static void stackmux_account(struct vm_struct *vm, int sign)
{
	unsigned int i;

	for (i = 0; i < STACKMUX_PAGES; i++)
		mod_lruvec_page_state(vm->pages[i], NR_KERNEL_STACK_KB,
				      sign * (int)(PAGE_SIZE / 1024));
}

static void stackmux_count_stack(void)
{
	long nr = atomic_long_inc_return(&stackmux_nr_stacks);
	long max = atomic_long_read(&stackmux_max_stacks);

	while (nr > max && !atomic_long_try_cmpxchg(&stackmux_max_stacks, &max, nr))
		;
}

#ifdef CONFIG_MEMCG
/**
 * stackmux_charged_to_current - is the stack charged to whom it should be?
 * @vm: a pool stack that current owns
 *
 * Context: process context.
 */
bool stackmux_charged_to_current(struct vm_struct *vm)
{
	struct folio *folio = page_folio(vm->pages[0]);
	struct obj_cgroup *objcg = NULL;

	if (!memcg_kmem_online())
		return true;
	if (folio_memcg_kmem(folio))
		objcg = __folio_objcg(folio);
	return objcg == current_obj_cgroup();
}
#else
bool stackmux_charged_to_current(struct vm_struct *vm)
{
	return true;
}
#endif

/**
 * stackmux_recharge - charge a stack to the memory cgroup of current
 * @vm: a pool stack that current owns
 * @gfp: how hard to try
 *
 * Context: process context.
 * Return: 0, or -ENOMEM with the stack charged to nobody.
 */
int stackmux_recharge(struct vm_struct *vm, gfp_t gfp)
{
	unsigned int i;
	int ret = 0;

	stackmux_account(vm, -1);
	for (i = 0; i < STACKMUX_PAGES; i++)
		memcg_kmem_uncharge_page(vm->pages[i], 0);

	for (i = 0; i < STACKMUX_PAGES; i++) {
		ret = memcg_kmem_charge_page(vm->pages[i], gfp, 0);
		if (ret)
			break;
	}
	if (ret)
		while (i--)
			memcg_kmem_uncharge_page(vm->pages[i], 0);
	stackmux_account(vm, 1);
	return ret;
}

#ifdef CONFIG_STACKMUX_DEBUG
#define STACKMUX_POISON		0x5a

/* Nothing on an idle stack may matter to anybody: make a mess of it. */
void stackmux_stack_poison(struct stackmux_stack *s)
{
	WARN_ON_ONCE(s->end_magic != STACK_END_MAGIC);
	memset(s + 1, STACKMUX_POISON, THREAD_SIZE - sizeof(*s));
}

/* Has anybody written to it since? It is about to be handed out. */
void stackmux_stack_check(struct stackmux_stack *s)
{
	int fill = s->mm_id == STACKMUX_MM_CLEAN ? 0 : STACKMUX_POISON;

	WARN_ONCE(s->end_magic != STACK_END_MAGIC,
		  "stackmux: end of stack overwritten\n");
	WARN_ONCE(memchr_inv(s + 1, fill, THREAD_SIZE - sizeof(*s)),
		  "stackmux: somebody wrote to an idle stack\n");
}
#endif

/**
 * stackmux_stack_create - allocate a stack
 * @nid: preferred memory node
 * @gfp: how hard to try
 *
 * Context: process context.
 * Return: a stack full of zeroes, charged to nobody, or NULL.
 */
struct stackmux_stack *stackmux_stack_create(int nid, gfp_t gfp)
{
	struct stackmux_stack *s;
	struct vm_struct *vm;
	void *addr;

	addr = __vmalloc_node_range(THREAD_SIZE, THREAD_ALIGN,
				    VMALLOC_START, VMALLOC_END,
				    gfp | __GFP_ZERO, PAGE_KERNEL, 0, nid,
				    __builtin_return_address(0));
	if (!addr)
		return NULL;

	vm = find_vm_area(addr);
	vm->flags |= VM_STACKMUX;
	stackmux_account(vm, 1);
	stackmux_count_stack();

	s = kasan_reset_tag(addr);
	s->end_magic = STACK_END_MAGIC;
	s->vm = vm;
	s->mm_id = STACKMUX_MM_CLEAN;
	return s;
}

/**
 * stackmux_stack_destroy - free an idle stack
 * @s: the stack, in no cache and no list
 *
 * Context: process context.
 */
void stackmux_stack_destroy(struct stackmux_stack *s)
{
	struct vm_struct *vm = s->vm;
	unsigned int i;

	stackmux_stack_check(s);
	stackmux_account(vm, -1);
	for (i = 0; i < STACKMUX_PAGES; i++)
		memcg_kmem_uncharge_page(vm->pages[i], 0);
	atomic_long_dec(&stackmux_nr_stacks);
	vfree(vm->addr);
}

/**
 * stackmux_stack_adopt - make the pool the owner of a task's classic stack
 * @tsk: current
 *
 * Such a stack is accounted and charged exactly as the pool does it.
 */
void stackmux_stack_adopt(struct task_struct *tsk)
{
	struct vm_struct *vm = task_stack_vm_area(tsk);

	if (vm->flags & VM_STACKMUX)
		return;
	vm->flags |= VM_STACKMUX;
	stackmux_count_stack();
}

/* Wakes this CPU's worker as soon as interrupts are enabled. */
static void stackmux_poke(struct stackmux_cpu *sc)
{
	irq_work_queue(&sc->poke);
}

static void stackmux_poke_fn(struct irq_work *work)
{
	stackmux_refill_wake();
}

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
	unsigned int batch = max(1U, min(STACKMUX_BATCH, READ_ONCE(stackmux_percpu_max)));
	struct stackmux_node *node = &stackmux_nodes[numa_mem_id()];
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
		stackmux_poke(sc);

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
	struct stackmux_node *node = &stackmux_nodes[numa_mem_id()];
	struct stackmux_stack *first = sc->idle, *last = first;
	unsigned int nr = 1;

	while (nr < STACKMUX_BATCH && last->next) {
		last = last->next;
		nr++;
	}
	sc->idle = last->next;
	sc->nr_idle -= nr;
	if (stackmux_node_put(node, nr, first, last) > READ_ONCE(stackmux_node_max))
		stackmux_poke(sc);
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

static void stackmux_flush_cpu(void *unused)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	struct stackmux_stack *s;

	stackmux_take_last(sc);
	while ((s = sc->idle)) {
		sc->idle = s->next;
		sc->nr_idle--;
		stackmux_node_put(&stackmux_nodes[numa_mem_id()], 1, s, s);
	}
}

/**
 * stackmux_flush - give the stacks that CPUs cache, or that linger there, to the
 *		    node lists
 *
 * Context: process context.
 */
void stackmux_flush(void)
{
	on_each_cpu(stackmux_flush_cpu, NULL, 1);
}

static unsigned long stackmux_shrinker_count(struct shrinker *shrinker,
					     struct shrink_control *sc)
{
	return READ_ONCE(stackmux_nodes[sc->nid].nr_idle) ?: SHRINK_EMPTY;
}

static unsigned long stackmux_shrinker_scan(struct shrinker *shrinker,
					    struct shrink_control *sc)
{
	return stackmux_shrink_node(sc->nid, sc->nr_to_scan) ?: SHRINK_STOP;
}

/**
 * stackmux_alloc_stack - give a new task of a parking process a pool stack
 * @tsk: the new task
 * @node: where its memory should be
 *
 * A parking process clones threads that are going to park, so stacks that the
 * earlier ones gave back serve the later ones and vmalloc() is not called.
 * What the address space's other threads left on a stack stays; see
 * stackmux_new_task() for the rest.
 *
 * Return: 0; -ENOMEM; or -EAGAIN if current is no parking process: the caller
 *	   goes on in the classic way.
 */
int stackmux_alloc_stack(struct task_struct *tsk, int node)
{
	struct stackmux_stack *s;
	unsigned long flags;

	if (!static_branch_unlikely(&stackmux_key) || !stackmux_wanted(current))
		return -EAGAIN;

	local_irq_save(flags);
	s = stackmux_pool_get_for(arch_stackmux_mm_id(current->mm));
	local_irq_restore(flags);
	if (!s)
		s = stackmux_stack_create(node, GFP_KERNEL);
	if (!s)
		return -ENOMEM;

	if (!stackmux_charged_to_current(s->vm) &&
	    stackmux_recharge(s->vm, GFP_KERNEL)) {
		local_irq_save(flags);
		stackmux_pool_put(s);
		local_irq_restore(flags);
		return -ENOMEM;
	}
	stackmux_count(STACKMUX_CLONES);
	tsk->stack_vm_area = s->vm;
	tsk->stack = s;
	return 0;
}

/**
 * stackmux_new_task - make a new task's stack fit for it
 * @tsk: the task, not yet visible to anybody
 * @clone_flags: of its clone()
 *
 * What the threads of one address space leave on a stack may meet another
 * thread of it, but nobody else: not even a child that got a copy.
 */
void stackmux_new_task(struct task_struct *tsk, u64 clone_flags)
{
	struct stackmux_stack *s;

	if (!static_branch_unlikely(&stackmux_key) || !stackmux_owns_stack(tsk))
		return;
	s = tsk->stack;
	if (s->mm_id == STACKMUX_MM_CLEAN)
		return;
	if (!(clone_flags & CLONE_VM) ||
	    s->mm_id != arch_stackmux_mm_id(current->mm))
		memset(s + 1, 0, THREAD_SIZE - sizeof(*s));
}

/**
 * stackmux_free_stack - take the stack of a dead task into the pool
 * @tsk: the task, whose stack stackmux_owns_stack()
 *
 * Context: any but under a run-queue lock.
 */
void stackmux_free_stack(struct task_struct *tsk)
{
	struct stackmux_record *rec = tsk->stackmux;
	struct stackmux_stack *s;
	unsigned long flags;

	local_irq_save(flags);
	s = stackmux_stack_idle(tsk->stack_vm_area,
				rec ? rec->mm_id : STACKMUX_MM_UNKNOWN);
	stackmux_pool_put(s);
	local_irq_restore(flags);
}

/* A CPU without its reserves must not come online: a wake could not be served. */
static int stackmux_cpu_prepare(unsigned int cpu)
{
	struct stackmux_cpu *sc = per_cpu_ptr(&stackmux_cpu, cpu);
	int i;

	for (i = 0; i < STACKMUX_RESERVES; i++) {
		if (sc->reserve[i])
			continue;
		sc->reserve[i] = stackmux_stack_create(cpu_to_node(cpu), GFP_KERNEL);
		if (!sc->reserve[i]) {
			pr_err("stackmux: no memory for the reserve stacks of CPU %u\n",
			       cpu);
			return -ENOMEM;
		}
	}
	return 0;
}

/* The CPU is gone: nobody else uses its cache. */
static int stackmux_cpu_dead(unsigned int cpu)
{
	struct stackmux_cpu *sc = per_cpu_ptr(&stackmux_cpu, cpu);
	struct stackmux_stack *s;
	int i;

	local_irq_disable();
	stackmux_take_last(sc);
	local_irq_enable();
	stackmux_refill_dead(cpu);
	while ((s = sc->idle)) {
		sc->idle = s->next;
		sc->nr_idle--;
		stackmux_stack_destroy(s);
	}
	for (i = 0; i < STACKMUX_RESERVES; i++) {
		if (sc->reserve[i])
			stackmux_stack_destroy(sc->reserve[i]);
		sc->reserve[i] = NULL;
	}
	return 0;
}

/**
 * stackmux_pool_init - make the pool ready, when the first process asks for it
 *
 * Context: process context, under the start mutex.
 * Return: 0 or an error; may be called again after an error.
 */
int stackmux_pool_init(void)
{
	static struct shrinker *shrinker;
	static int hotplug_state;
	int cpu, nid;

	if (!stackmux_nodes) {
		struct stackmux_node *nodes;

		nodes = kcalloc(nr_node_ids, sizeof(*nodes), GFP_KERNEL);
		if (!nodes)
			return -ENOMEM;
		for_each_node(nid)
			raw_spin_lock_init(&nodes[nid].lock);
		for_each_possible_cpu(cpu) {
			init_irq_work(&per_cpu(stackmux_cpu.poke, cpu),
				      stackmux_poke_fn);
			init_irq_work(&per_cpu(stackmux_cpu.eviction, cpu),
				      stackmux_evict_fn);
		}
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
	if (hotplug_state <= 0)
		hotplug_state = cpuhp_setup_state(CPUHP_BP_PREPARE_DYN,
						  "stackmux:prepare",
						  stackmux_cpu_prepare,
						  stackmux_cpu_dead);
	return min(hotplug_state, 0);
}
