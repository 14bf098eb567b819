/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: stacks, one (stack.c) and many (pool.c)
 */
#ifndef _KERNEL_STACKMUX_POOL_H
#define _KERNEL_STACKMUX_POOL_H

#include <linux/irq_work.h>
#include <linux/kasan.h>
#include <linux/lockdep.h>
#include <linux/nodemask.h>
#include <linux/percpu.h>
#include <linux/spinlock.h>
#include <linux/topology.h>
#include <linux/vmalloc.h>

struct task_struct;

/**
 * struct stackmux_stack - lies at the lowest address of each pool stack
 * @end_magic: STACK_END_MAGIC, as in any stack
 * @vm: the vmalloc area that the stack is
 * @next: the next idle stack of a cache or list
 * @mm_id: the address space whose threads used the stack last;
 *	   STACKMUX_MM_CLEAN or STACKMUX_MM_UNKNOWN
 *
 * Valid while the stack is idle, and up to the resume prologue of the task
 * that gets it; then the stack may grow over it.
 */
struct stackmux_stack {
	unsigned long end_magic;
	struct vm_struct *vm;
	struct stackmux_stack *next;
	u64 mm_id;
};

#define STACKMUX_MM_CLEAN	0ULL	/* nothing on it but zeroes */
#define STACKMUX_MM_UNKNOWN	(~0ULL)

#define STACKMUX_PAGES		(THREAD_SIZE / PAGE_SIZE)
#define STACKMUX_RESERVES	2
#define STACKMUX_BATCH		8U	/* stacks moved between CPU and node at once */
#define STACKMUX_LOOK		16	/* stacks looked at for one that fits */

enum stackmux_stat {
	STACKMUX_PARKS,
	STACKMUX_RESUMES,
	STACKMUX_NOSWITCH,
	STACKMUX_LINGERED,
	STACKMUX_WAITED_IN_PLACE,
	STACKMUX_PINS,
	STACKMUX_RESERVE,
	STACKMUX_STARVATIONS,
	STACKMUX_REFILLS,
	STACKMUX_TRIMS,
	STACKMUX_CLONES,
	STACKMUX_NEWBORNS,
	STACKMUX_REARMS,
	STACKMUX_RETRIES,
	STACKMUX_PREEMPTED,
	STACKMUX_STOPPED,
	STACKMUX_NR_STATS,
};

/**
 * struct stackmux_cpu - what a CPU owns, touched with interrupts off only
 * @idle: its cache of idle stacks
 * @nr_idle: how many
 * @reserve: stacks that are never lent past the resume prologue. Two, since
 *	     the task that leaves one may be followed by another that needs one
 *	     before the switch is finished.
 * @poke: has starve.c look at those who wait for a stack, and at the lists
 * @stats: counters of this CPU
 */
struct stackmux_cpu {
	struct stackmux_stack *idle;
	unsigned int nr_idle;
	struct stackmux_stack *reserve[STACKMUX_RESERVES];
	struct irq_work poke;
	u64 stats[STACKMUX_NR_STATS];
};

DECLARE_PER_CPU(struct stackmux_cpu, stackmux_cpu);

static inline void stackmux_count(enum stackmux_stat stat)
{
	this_cpu_inc(stackmux_cpu.stats[stat]);
}

/* From under a run-queue lock: as soon as interrupts are enabled */
static inline void stackmux_poke(void)
{
	irq_work_queue(this_cpu_ptr(&stackmux_cpu.poke));
}

/**
 * struct stackmux_node - idle stacks of a memory node that no CPU caches
 * @lock: protects the list; interrupts off
 * @idle: the list
 * @nr_idle: its length; read without the lock as a hint
 */
struct stackmux_node {
	raw_spinlock_t lock;
	struct stackmux_stack *idle;
	unsigned int nr_idle;
};

extern struct stackmux_node *stackmux_nodes;

/* The node whose list this CPU uses. Workers look after those that have memory. */
static inline int stackmux_this_node(void)
{
	int nid = numa_mem_id();

	return likely(node_state(nid, N_MEMORY)) ? nid : first_memory_node;
}

extern unsigned int stackmux_percpu_max, stackmux_node_max, stackmux_node_low;
extern unsigned int stackmux_cache_max;
extern bool stackmux_wanting;
extern atomic_long_t stackmux_nr_stacks, stackmux_max_stacks;

/* stack.c */
struct stackmux_stack *stackmux_stack_create(int nid, gfp_t gfp);
void stackmux_stack_destroy(struct stackmux_stack *s);
void stackmux_stack_adopt(struct task_struct *tsk);
bool stackmux_charged_to_current(struct vm_struct *vm);
int stackmux_recharge(struct vm_struct *vm, gfp_t gfp);
bool stackmux_over_limit(void);
void stackmux_make_up(void);

/* pool.c */
int stackmux_pool_init(void (*poke)(struct irq_work *work));
struct stackmux_stack *stackmux_pool_get_slow(struct stackmux_cpu *sc);
void stackmux_pool_put_slow(struct stackmux_cpu *sc);
void stackmux_pool_prefer(struct stackmux_cpu *sc, u64 mm_id);
struct stackmux_stack *stackmux_node_take(int nid);
void stackmux_node_give(int nid, struct stackmux_stack *s);
unsigned long stackmux_nr_idle(void);
unsigned long stackmux_shrink(unsigned long nr);
void stackmux_pool_flush_cpu(struct stackmux_cpu *sc);
int stackmux_reserve_fill(unsigned int cpu);
void stackmux_pool_drain_cpu(unsigned int cpu);

#ifdef CONFIG_STACKMUX_DEBUG
void stackmux_stack_poison(struct stackmux_stack *s);
void stackmux_stack_check(struct stackmux_stack *s);
#else
static inline void stackmux_stack_poison(struct stackmux_stack *s) { }
static inline void stackmux_stack_check(struct stackmux_stack *s) { }
#endif

/**
 * stackmux_stack_idle - make a stack that nobody uses any more ready to pool
 * @vm: its vmalloc area
 * @mm_id: the address space whose threads used it
 *
 * Context: any, run-queue lock held as a rule.
 * Return: what pool functions take.
 */
static inline struct stackmux_stack *stackmux_stack_idle(struct vm_struct *vm, u64 mm_id)
{
	struct stackmux_stack *s = kasan_reset_tag(vm->addr);

	/* The frames that its last user left behind for good */
	kasan_unpoison_range(vm->addr, THREAD_SIZE);
	stackmux_stack_poison(s);

	s->vm = vm;
	s->next = NULL;
	s->mm_id = mm_id;
	return s;
}

/**
 * stackmux_pool_get - take an idle stack
 *
 * Context: interrupts off; run-queue lock held or not.
 * Return: a stack, or NULL if there is none; never waits.
 */
static inline struct stackmux_stack *stackmux_pool_get(void)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);
	struct stackmux_stack *s = sc->idle;

	lockdep_assert_irqs_disabled();

	if (unlikely(!s)) {
		s = stackmux_pool_get_slow(sc);
		if (!s)
			return NULL;
	} else {
		sc->idle = s->next;
		sc->nr_idle--;
	}
	stackmux_stack_check(s);
	return s;
}

/* Can the threads of an address space use the stack as it is? */
static inline bool stackmux_stack_fits(const struct stackmux_stack *s, u64 mm_id)
{
	return s->mm_id == mm_id || s->mm_id == STACKMUX_MM_CLEAN;
}

/**
 * stackmux_pool_get_for - take an idle stack, one that fits if possible
 * @mm_id: the address space that is going to use it
 *
 * Clearing a stack costs more than a look at a few of them.
 *
 * Context, Return: as stackmux_pool_get().
 */
static inline struct stackmux_stack *stackmux_pool_get_for(u64 mm_id)
{
	struct stackmux_stack *s = this_cpu_read(stackmux_cpu.idle);

	if (s && unlikely(!stackmux_stack_fits(s, mm_id)))
		stackmux_pool_prefer(this_cpu_ptr(&stackmux_cpu), mm_id);
	return stackmux_pool_get();
}

/**
 * stackmux_pool_put - give an idle stack to this CPU
 * @s: a stack that stackmux_stack_idle() prepared
 *
 * Context: interrupts off; run-queue lock held or not.
 */
static inline void stackmux_pool_put(struct stackmux_stack *s)
{
	struct stackmux_cpu *sc = this_cpu_ptr(&stackmux_cpu);

	lockdep_assert_irqs_disabled();

	s->next = sc->idle;
	sc->idle = s;
	if (unlikely(++sc->nr_idle > READ_ONCE(stackmux_cache_max)))
		stackmux_pool_put_slow(sc);
}

#endif /* _KERNEL_STACKMUX_POOL_H */
