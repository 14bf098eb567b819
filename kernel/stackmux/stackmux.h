/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: private to kernel/stackmux/
 *
 * One file per idea:
 *	control.c	who may park: prctl, sysctl, boot parameter, first start
 *	pool.c		the stacks: per-CPU caches over per-node lists
 *	refill.c	the worker that allocates and frees stacks
 *	park.c		leaving a stack and coming back to one
 *	ops.c		the table of calls that can park; futex.c and others: a file each
 *	inspect.c	what /proc and SysRq say of a parked task
 *	stats.c		counters and knobs in debugfs
 *
 * Locks, outermost first: run-queue lock, node list lock. The per-CPU caches
 * are used with interrupts off by their own CPU only. Nothing called under
 * the run-queue lock may wake a task: the worker is poked by irq_work there.
 */
#ifndef _KERNEL_STACKMUX_H
#define _KERNEL_STACKMUX_H

#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/kasan.h>
#include <linux/llist.h>
#include <linux/lockdep.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/stackmux.h>
#include <asm/ptrace.h>

#include "../futex/futex.h"

struct stackmux_record;

/*
 * Operations: one row per call that can park
 */

/**
 * struct stackmux_op - how one kind of wait parks
 * @name: for humans
 * @fired: has a wake source fired? Called by the parking task itself with its
 *	   state set, preemption off; the full barrier of set_current_state()
 *	   lies before it. Whoever makes it true must wake the task afterwards.
 * @resume: the task runs again, on a stack, with its state TASK_RUNNING.
 *	    Either ends the wait, takes every wake source down, stores the
 *	    result of the system call and returns true; or arms again and
 *	    returns false (asks stackmux_may_rearm() first).
 * @wchan: the function in which the classic call would be seen sleeping
 */
struct stackmux_op {
	const char *name;
	bool (*fired)(struct stackmux_record *rec);
	bool (*resume)(struct stackmux_record *rec, long *ret);
	void *wchan;
};

enum stackmux_op_nr {
	STACKMUX_OP_FUTEX,
	STACKMUX_OP_FUTEXV,
	STACKMUX_NR_OPS,
};

extern const struct stackmux_op stackmux_ops[STACKMUX_NR_OPS];

/* futex.c: FUTEX_WAIT, FUTEX_WAIT_BITSET, futex_wait() */
struct stackmux_futex {
	struct futex_q q;
	struct hrtimer_sleeper timeout;
	u32 __user *uaddr;
	u32 val;
	unsigned int flags;
	bool timed;
	bool restartable;	/* a signal makes it go on with what time is left */
};

/* futex.c: futex_waitv() */
struct stackmux_futexv {
	struct futex_vector *v;
	unsigned int count;
	bool timed;
	struct hrtimer_sleeper timeout;
};

/**
 * struct stackmux_record - all that is left of a parked task's stack
 * @regs: its user registers
 * @op: what it waits in
 * @task: whose record this is
 * @granted: the stack that the refill worker gave to a starving task
 * @mm_id: the address space that the task lived in when it last parked
 * @starving: entry in the worker's list
 * @rearms: times this wait was armed again after a wake that brought nothing
 * @on_reserve: switched in on a reserve stack, only to ask for a real one
 * @was_granted: took a granted stack, the worker is to be told
 *
 * Allocated when the task parks for the first time, freed with the task. Only
 * the task itself writes it, but for @granted (the worker, while the task is
 * off its CPU and cannot be woken by anybody else) and what a wake source
 * writes to its own part of the union.
 */
struct stackmux_record {
	struct pt_regs regs;
	const struct stackmux_op *op;
	struct task_struct *task;
	struct stackmux_stack *granted;
	u64 mm_id;
	struct llist_node starving;
	u8 rearms;
	bool on_reserve;
	bool was_granted;
	union {
		struct stackmux_futex futex;
		struct stackmux_futexv futexv;
	};
};

/*
 * What the call that armed returns through its C frames. Nobody sees it: the
 * exit work parks before the value could reach user mode.
 */
#define STACKMUX_ARMED		(-ERESTARTNOINTR)

/* Waits that wake for nothing this many times keep their stack. */
#define STACKMUX_MAX_REARMS	4

struct stackmux_record *stackmux_arm(enum stackmux_op_nr nr);

/*
 * Who may park
 */

enum stackmux_mode {
	STACKMUX_NEVER,
	STACKMUX_OPTIN,
	STACKMUX_ALWAYS,
};

extern int stackmux_mode;
int stackmux_start(void);

/* Bits of signal_struct.stackmux */
#define STACKMUX_SIG_ENABLED	PR_STACKMUX_ENABLED
#define STACKMUX_SIG_EXEC	PR_STACKMUX_EXEC

/**
 * stackmux_wanted - are the threads of this process to park?
 * @tsk: a task of the process, current as a rule
 */
static inline bool stackmux_wanted(struct task_struct *tsk)
{
	switch (READ_ONCE(stackmux_mode)) {
	case STACKMUX_ALWAYS:
		return tsk->mm;
	case STACKMUX_OPTIN:
		return READ_ONCE(tsk->signal->stackmux) & STACKMUX_SIG_ENABLED;
	default:
		return false;
	}
}

/*
 * The pool
 */

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

#define STACKMUX_RESERVES	2
#define STACKMUX_BATCH		8U	/* stacks moved between CPU and node at once */

enum stackmux_stat {
	STACKMUX_PARKS,
	STACKMUX_RESUMES,
	STACKMUX_NOSWITCH,
	STACKMUX_KEEPS,
	STACKMUX_RESERVE,
	STACKMUX_STARVATIONS,
	STACKMUX_REFILLS,
	STACKMUX_TRIMS,
	STACKMUX_CLONES,
	STACKMUX_REARMS,
	STACKMUX_NR_STATS,
};

/**
 * struct stackmux_cpu - what a CPU owns, touched with interrupts off only
 * @idle: its cache of idle stacks
 * @nr_idle: how many
 * @reserve: stacks that are never lent past the resume prologue. Two, since
 *	     the task that leaves one may be followed by another that needs one
 *	     before the switch is finished.
 * @poke: wakes the refill worker from under a run-queue lock
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
extern unsigned int stackmux_percpu_max, stackmux_node_max, stackmux_node_low;
extern atomic_long_t stackmux_nr_stacks, stackmux_max_stacks;

int stackmux_pool_init(void);
struct stackmux_stack *stackmux_pool_get_slow(struct stackmux_cpu *sc);
void stackmux_pool_put_slow(struct stackmux_cpu *sc);
struct stackmux_stack *stackmux_node_take(int nid);
void stackmux_node_give(int nid, struct stackmux_stack *s);
struct stackmux_stack *stackmux_stack_create(int nid, gfp_t gfp);
void stackmux_stack_destroy(struct stackmux_stack *s);
void stackmux_stack_adopt(struct task_struct *tsk);
bool stackmux_charged_to_current(struct vm_struct *vm);
int stackmux_recharge(struct vm_struct *vm, gfp_t gfp);
unsigned long stackmux_nr_idle(void);
unsigned long stackmux_shrink(unsigned long nr);
void stackmux_flush(void);

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
	if (unlikely(++sc->nr_idle > READ_ONCE(stackmux_percpu_max)))
		stackmux_pool_put_slow(sc);
}

/*
 * The refill worker
 */
int stackmux_refill_init(void);
void stackmux_refill_wake(void);
void stackmux_starve(struct stackmux_record *rec);
void stackmux_grant_used(void);

/*
 * Parking
 */
int stackmux_park_init(void);
bool stackmux_record_get(void);
bool stackmux_may_rearm(struct stackmux_record *rec);
long stackmux_nr_records(void);
void stackmux_ret_from_park(struct task_struct *prev, struct pt_regs *regs,
			    unsigned long starving);

#endif /* _KERNEL_STACKMUX_H */
