/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: private to kernel/stackmux/
 *
 * Documentation/core-api/stackmux.rst says which file does what. A call that parks
 * is one file, which this header and the core know nothing of: see struct
 * stackmux_op.
 *
 * Locks, outermost first: run-queue lock, node list lock.
 */
#ifndef _KERNEL_STACKMUX_H
#define _KERNEL_STACKMUX_H

#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/rt.h>
#include <linux/sched/signal.h>
#include <linux/stackmux.h>
#include <asm/stackmux.h>

#include "pool.h"

struct stackmux_record;

/**
 * struct stackmux_op - how one kind of wait parks
 * @name: for humans
 * @fired: has a wake source fired? Called by the parking task itself with its
 *	   state set, preemption off; the full barrier of set_current_state()
 *	   lies before it. Whatever makes it true must wake the task afterwards.
 *	   NULL: this is no wait, and the task is in no system call.
 * @resume: the task runs again, on a stack, with its state TASK_RUNNING.
 *	    Either ends the wait, takes every wake source down and returns the
 *	    result of the system call; or arms again and returns STACKMUX_REARMED.
 *	    Whether that wait parks or keeps the stack is not its business. The
 *	    registers are those of current_pt_regs(). NULL: this is no wait, and the
 *	    task goes on to user mode.
 * @woken: without @resume: the task runs again, on a stack that was not its last
 * @cancel: the task runs again, and user mode is going to see what has happened.
 *	    If a wake source has fired that is no timer, takes every one of them
 *	    down and returns true. NULL: user mode never can.
 */
struct stackmux_op {
	const char *name;
	bool (*fired)(struct stackmux_record *rec);
	long (*resume)(struct stackmux_record *rec);
	void (*woken)(void);
	bool (*cancel)(struct stackmux_record *rec);
};

/*
 * What a call may keep while it waits. The record is to stay small: there is one for
 * each thread. PREEMPT_RT has a bigger futex_q.
 */
#define STACKMUX_PRIVATE_LONGS	(IS_ENABLED(CONFIG_PREEMPT_RT) ? 35 : 27)
#define STACKMUX_RECORD_MAX	(IS_ENABLED(CONFIG_PREEMPT_RT) ? 512 : 448)

/**
 * struct stackmux_record - all that is left of a parked task's stack
 * @regs: its user registers
 * @op: what it waits in
 * @task: whose record this is
 * @mm_id: the address space whose threads have used the task's stack; that of the task
 *	   itself while it is parked
 * @starving: entry in the queue of those that wait for a stack; its prev is NULL if
 *	      the task is not there
 * @granted: the stack that the task was given when it was taken from there;
 *	     otherwise NULL
 * @retry: user code that re-checks the condition itself, or NULL
 * @wchan: where the classic call would sleep
 * @cpu: where the task parked last, while its stack lingers there, or waits in
 *	 place
 * @since: since when it waits in place, in jiffies; or starves, in microseconds
 * @backoff: waits that have to be short before one is in place
 * @rearms: times this wait was armed again after a wake that brought nothing
 * @on_reserve: switched in on a reserve stack, only to ask for a real one
 * @starved: has waited for its stack, or does so
 * @keep_until_user: had to wait for its stack, and keeps it until it gets to user
 *		     mode
 * @reexecuting: io.c executes the call again
 * @rearmed: ... which waits again
 * @private: what the call keeps, see stackmux_private()
 *
 * Allocated when the task parks for the first time, which may be before it runs,
 * freed with the task. The task itself writes it, and the CPUs that switch from and to
 * the task; whoever grants a stack writes @granted while nothing else can wake the task,
 * and wake sources write to @private.
 */
struct stackmux_record {
	struct pt_regs regs;
	const struct stackmux_op *op;
	struct task_struct *task;
	u64 mm_id;
	union {
		struct list_head starving;
		struct stackmux_stack *granted;
	};
	const struct stackmux_retry *retry;
	unsigned long wchan;
	u32 since;
	u16 cpu;
	u8 backoff;
	u8 rearms:3;
	bool on_reserve:1;
	bool starved:1;
	bool keep_until_user:1;
	bool reexecuting:1;
	bool rearmed:1;
	unsigned long private[STACKMUX_PRIVATE_LONGS];
};

static_assert(sizeof(struct stackmux_record) <= STACKMUX_RECORD_MAX);

/* What a call keeps in @private: its type, checked for size */
#define stackmux_private(rec, type)					\
({									\
	static_assert(sizeof(type) <= sizeof_field(struct stackmux_record, private)); \
	(type *)(rec)->private;						\
})

/* The record that a @ptr of such a type is in */
#define stackmux_record_of(ptr)						\
	container_of((unsigned long (*)[STACKMUX_PRIVATE_LONGS])(ptr),	\
		     struct stackmux_record, private)

/*
 * What op->resume() returns if the wait goes on. No file system, driver or BPF program
 * returns this: they return an int, or a number of bytes.
 */
#define STACKMUX_REARMED	LONG_MIN

/* Waits that wake for nothing this many times keep their stack. */
#define STACKMUX_MAX_REARMS	4

/**
 * stackmux_arm - the wake sources of current's wait are armed: park on the way out
 * @rec: record of current
 * @op: the operation
 * @wchan: where the classic call would be seen sleeping
 *
 * Context: process context. The caller returns STACKMUX_ARMED to the outermost
 * frame of the system call without any further effect.
 */
static inline void stackmux_arm(struct stackmux_record *rec, const struct stackmux_op *op,
				unsigned long wchan)
{
	WRITE_ONCE(rec->op, op);
	rec->wchan = wchan;
	rec->rearms = 0;
	set_syscall_work(STACKMUX);
}

/**
 * stackmux_disarm - the call is not going to wait after all
 *
 * After stackmux_arm(), when the wake sources have been taken down.
 */
static inline void stackmux_disarm(void)
{
	clear_syscall_work(STACKMUX);
}

/**
 * struct stackmux_timer - the deadline of a wait
 * @sleeper: wakes the task when it has passed; without a function there is no deadline
 */
struct stackmux_timer {
	struct hrtimer_sleeper sleeper;
};

static inline bool stackmux_timer_is_set(const struct stackmux_timer *t)
{
	return t->sleeper.timer.function;
}

static inline void stackmux_timer_none(struct stackmux_timer *t)
{
	t->sleeper.timer.function = NULL;
}

static inline void stackmux_timer_start(struct stackmux_timer *t, clockid_t clock,
					ktime_t expires, u64 slack_ns,
					enum hrtimer_mode mode)
{
	hrtimer_init_sleeper(&t->sleeper, clock, mode);
	hrtimer_set_expires_range_ns(&t->sleeper.timer, expires, slack_ns);
	hrtimer_sleeper_start_expires(&t->sleeper, mode);
}

static inline bool stackmux_timer_fired(struct stackmux_timer *t)
{
	return stackmux_timer_is_set(t) && !READ_ONCE(t->sleeper.task);
}

static inline void stackmux_timer_cancel(struct stackmux_timer *t)
{
	if (stackmux_timer_is_set(t))
		hrtimer_cancel(&t->sleeper.timer);
}

/* control.c: who may park */
enum stackmux_mode {
	STACKMUX_NEVER,
	STACKMUX_OPTIN,
	STACKMUX_ALWAYS,
};

extern int stackmux_mode;
extern unsigned int stackmux_threads_unlimited;
int stackmux_start(void);
void stackmux_flush(void);

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
 * Tasks that are excluded although their process parks:
 * - kernel threads and the workers of io_uring and vhost: nothing to return to;
 * - those that reclaim or write back memory: they must not need any to go on;
 * - those that are exiting, or traced: a tracer looks at the stack's registers;
 * - those that opted out: PR_STACKMUX_THREAD;
 * - real-time and deadline tasks: no wait for a stack after a wake-up;
 * - 32-bit system calls, whose entry has other work to do on the way out.
 */
#define STACKMUX_PF_EXCLUDED	(PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER | \
				 PF_WQ_WORKER | PF_EXITING | PF_MEMALLOC |     \
				 PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS |	      \
				 PF_LOCAL_THROTTLE)

/**
 * stackmux_task_may_park - may a task that has a record park?
 * @tsk: current
 */
static inline bool stackmux_task_may_park(struct task_struct *tsk)
{
	if (!stackmux_wanted(tsk))
		return false;
	if (unlikely((tsk->flags & STACKMUX_PF_EXCLUDED) | tsk->ptrace | tsk->stackmux_optout))
		return false;
	/* By policy, not by a priority that it inherits from a waiter */
	return likely(!rt_or_dl_prio(tsk->normal_prio)) && likely(!arch_stackmux_compat_call());
}

/* record.c */
int stackmux_record_init(void);
struct stackmux_record *stackmux_record_new(struct task_struct *tsk, gfp_t gfp);
bool stackmux_record_alloc(gfp_t gfp);
long stackmux_nr_records(void);

/* park.c */
void stackmux_park_on_exit(struct stackmux_record *rec, const struct stackmux_op *op,
			   unsigned long wchan);
void stackmux_ret_from_park(struct task_struct *prev, struct pt_regs *regs,
			    unsigned long starving);

/* switch.c */
extern bool stackmux_linger;
void stackmux_slot_clear(unsigned int cpu);
void stackmux_no_stack(struct task_struct *tsk);
bool stackmux_cpu_has_stacks(unsigned int cpu);
struct stackmux_stack *stackmux_get_stack(u64 mm_id);

/* in_place.c */
extern u8 stackmux_backoff;
extern unsigned int stackmux_in_place_max;
DECLARE_PER_CPU(atomic_t, stackmux_in_place);
long stackmux_nr_in_place(void);

/**
 * stackmux_wait_in_place - is current to wait on its stack, although it may park?
 * @rec: record of current
 *
 * If the call does not sleep after all, the next interruptible sleep takes the place.
 *
 * Context: the call is about to wait; true: it does so in the classic way.
 */
static __always_inline bool stackmux_wait_in_place(struct stackmux_record *rec)
{
	if (rec->backoff || raw_cpu_read(stackmux_in_place.counter) >=
			    (int)READ_ONCE(stackmux_in_place_max))
		return false;
	current->stackmux_leave = STACKMUX_WAIT_IN_PLACE;
	return true;
}

/* preempt.c */
extern unsigned int stackmux_preempted_max;

/* stop.c */
void stackmux_stop_woken(void);

/* dump.c */
extern const struct stackmux_op stackmux_dump_op;
void stackmux_dump_join(struct stackmux_record *rec);
void stackmux_dump_wait(struct stackmux_record *rec);

/* starve.c */

/*
 * The state of a task that waits for a stack. No wake-up but a grant matches it, and it
 * is none of those that /proc tells apart from R.
 */
#define STACKMUX_STARVING	TASK_NOLOAD

void stackmux_starve_init(void);
void stackmux_starve(struct stackmux_record *rec);
void stackmux_queue_starving(struct task_struct *tsk);
void stackmux_starved(struct stackmux_record *rec);
bool stackmux_grant(struct stackmux_stack *s);
bool stackmux_wants_grant(bool *dying);
void stackmux_wake_starving(unsigned long nr);
unsigned int stackmux_nr_starving_tasks(void);
void stackmux_limits_changed(void);
void stackmux_poked(struct irq_work *work);

/* refill.c */
int stackmux_refill_init(void);
bool stackmux_refill_needed(void);
void stackmux_refill_wake(unsigned int cpu);
void stackmux_refill_help(void);
void stackmux_refill_settle(void);

/* unpark.c */
int stackmux_unpark(void);

/* retry.c */
long stackmux_set_retry(const void __user *from, size_t size);
void stackmux_drop_retry(struct stackmux_record *rec);
bool __stackmux_retry(struct stackmux_record *rec, struct pt_regs *regs);

static __always_inline bool stackmux_retry(struct stackmux_record *rec,
					   struct pt_regs *regs)
{
	return unlikely(rec->retry) && __stackmux_retry(rec, regs);
}

/* stats.c */
void stackmux_count_wait(u32 us);

/* inspect.c */
long stackmux_process_stats(struct stackmux_stats __user *to, size_t size);

#endif /* _KERNEL_STACKMUX_H */
