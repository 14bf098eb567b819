/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: private to kernel/stackmux/
 *
 * One file per idea:
 *	control.c	who may park: prctl, sysctl, boot parameter, first start
 *	pool.c		the stacks: per-CPU caches over per-node lists
 *	refill.c	the worker that allocates and frees stacks
 *	park.c		leaving a stack and coming back to one
 *	newborn.c	threads that are cloned without a stack
 *	preempt.c	tasks that are preempted on their way to user mode
 *	ops.c		the table of calls that can park, and the files of these calls:
 *	futex.c		futex(), futex_wait(), futex_waitv()
 *	poll.c		poll(), select() and relatives
 *	epoll.c		epoll_wait() and relatives; compiled with fs/eventpoll.c
 *	sleep.c		nanosleep(), clock_nanosleep()
 *	signal.c	pause(), rt_sigsuspend(), rt_sigtimedwait()
 *	wait.c		wait4(), waitid()
 *	uring.c		io_uring_enter(); compiled with io_uring/io_uring.c
 *	aio.c		io_getevents(); compiled with fs/aio.c
 *	msg.c		msgrcv(); compiled with ipc/msg.c
 *	sem.c		semop() and relatives; compiled with ipc/sem.c
 *	locks.c		flock(), fcntl(F_SETLKW); compiled with fs/locks.c
 *	mqueue.c	mq_receive(), mq_send(); compiled with ipc/mqueue.c
 *	io.c		read(), recvmsg(), accept(), write(), sendmsg() and relatives
 *	socket.c	... what is particular to sockets; compiled with net/socket.c
 *	retry.c		threads that look themselves at what they waited for
 *	inspect.c	what /proc and SysRq say of a parked task
 *	stats.c		counters and knobs in debugfs
 *
 * Locks, outermost first: run-queue lock, node list lock. The per-CPU caches
 * are used with interrupts off by their own CPU only. Nothing called under
 * the run-queue lock may wake a task: a worker is poked by irq_work there.
 */
#ifndef _KERNEL_STACKMUX_H
#define _KERNEL_STACKMUX_H

#include <linux/compat.h>
#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/kasan.h>
#include <linux/llist.h>
#include <linux/lockdep.h>
#include <linux/percpu.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/rt.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/stackmux.h>
#include <asm/ptrace.h>

#include "../exit.h"
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
 *	   NULL: this is no wait, and the task is in no system call.
 * @resume: the task runs again, on a stack, with its state TASK_RUNNING.
 *	    Either ends the wait, takes every wake source down and returns the
 *	    result of the system call; or arms again and returns STACKMUX_ARMED.
 *	    Whether that wait parks or keeps the stack is not its business. The
 *	    registers are those of current_pt_regs(). NULL: this is no wait, and the
 *	    task goes on to user mode.
 * @give_up: the task runs again, and wants to see itself what has happened. If a
 *	     wake source has fired that is no timer, takes every one of them down
 *	     and returns true. NULL: the task can never see it.
 * @wchan: the function in which the classic call would be seen sleeping
 */
struct stackmux_op {
	const char *name;
	bool (*fired)(struct stackmux_record *rec);
	long (*resume)(struct stackmux_record *rec);
	bool (*give_up)(struct stackmux_record *rec);
	void *wchan;
};

enum stackmux_op_nr {
	STACKMUX_OP_NEWBORN,
	STACKMUX_OP_PREEMPTED,
	STACKMUX_OP_FUTEX,
	STACKMUX_OP_FUTEXV,
	STACKMUX_OP_POLL,
	STACKMUX_OP_SELECT,
	STACKMUX_OP_EPOLL,
	STACKMUX_OP_SLEEP,
	STACKMUX_OP_PAUSE,
	STACKMUX_OP_SIGSUSPEND,
	STACKMUX_OP_SIGTIMEDWAIT,
	STACKMUX_OP_WAIT,
	STACKMUX_OP_URING,
	STACKMUX_OP_AIO,
	STACKMUX_OP_MSG,
	STACKMUX_OP_SEM,
	STACKMUX_OP_MQUEUE,
	STACKMUX_OP_LOCK,
	STACKMUX_OP_READ,
	STACKMUX_OP_READV,
	STACKMUX_OP_WRITE,
	STACKMUX_OP_WRITEV,
	STACKMUX_OP_RECV,
	STACKMUX_OP_SEND,
	STACKMUX_OP_ACCEPT,
	STACKMUX_NR_OPS,
};

extern const struct stackmux_op stackmux_ops[STACKMUX_NR_OPS];

/**
 * struct stackmux_timer - the deadline of a wait
 * @sleeper: wakes the task when it has passed
 * @set: there is a deadline
 */
struct stackmux_timer {
	struct hrtimer_sleeper sleeper;
	bool set;
};

static inline void stackmux_timer_start(struct stackmux_timer *t, clockid_t clock,
					ktime_t expires, u64 slack_ns,
					enum hrtimer_mode mode)
{
	t->set = true;
	hrtimer_init_sleeper(&t->sleeper, clock, mode);
	hrtimer_set_expires_range_ns(&t->sleeper.timer, expires, slack_ns);
	hrtimer_sleeper_start_expires(&t->sleeper, mode);
}

static inline bool stackmux_timer_fired(struct stackmux_timer *t)
{
	return t->set && !READ_ONCE(t->sleeper.task);
}

static inline void stackmux_timer_cancel(struct stackmux_timer *t)
{
	if (t->set)
		hrtimer_cancel(&t->sleeper.timer);
}

/* futex.c: FUTEX_WAIT, FUTEX_WAIT_BITSET, futex_wait() */
struct stackmux_futex {
	struct futex_q q;
	struct stackmux_timer timeout;
	u32 __user *uaddr;
	u32 val;
	u16 flags;
	bool restartable;	/* a signal makes it go on with what time is left */
};

/* futex.c: futex_waitv() */
struct stackmux_futexv {
	struct futex_vector *v;
	unsigned int count;
	struct stackmux_timer timeout;
};

/**
 * struct stackmux_poll_entry - poll.c: a place in a wait queue
 * @wait: the entry
 * @wq: the queue
 * @file: what keeps the queue in existence
 * @key: events to wake for
 */
struct stackmux_poll_entry {
	wait_queue_entry_t wait;
	struct wait_queue_head *wq;
	struct file *file;
	__poll_t key;
};

/**
 * struct stackmux_poll_more - poll.c: places in further wait queues
 * @next: those that were allocated before
 * @nr: places in use
 * @max: places there are
 * @entries: the places
 */
struct stackmux_poll_more {
	struct stackmux_poll_more *next;
	unsigned int nr;
	unsigned int max;
	struct stackmux_poll_entry entries[] __counted_by(max);
};

/**
 * struct stackmux_poll - poll.c: poll(), select() and relatives
 * @pt: what ->poll() of files gets
 * @timeout: the deadline
 * @end_time: the same, as the call computed it
 * @one: a set of not more than one element
 * @set: a bigger one, from kvmalloc()
 * @entry: the first place in a wait queue
 * @more: further places
 * @nfds: elements of the set
 * @nr_entries: places in wait queues that are in use
 * @n: select: bits of a bitmap
 * @nomem: a place could not be allocated
 * @triggered: a file has called
 * @finish: ends as poll_select_finish() does
 * @time_type: ... with this
 * @user_time: as @time_type
 * @ufds: poll: where results go
 * @bits: select: three bitmaps
 */
struct stackmux_poll {
	poll_table pt;
	struct stackmux_timer timeout;
	struct timespec64 end_time;
	union {
		struct pollfd one;
		struct pollfd *set;
	};
	struct stackmux_poll_entry entry;
	struct stackmux_poll_more *more;
	unsigned int nfds;
	unsigned int nr_entries;
	int n;
	bool nomem;
	bool triggered;
	bool finish;
	u8 time_type;
	void __user *user_time;
	union {
		struct pollfd __user *ufds;
		unsigned long *bits;
	};
};

/* epoll.c: epoll_wait() and relatives */
struct stackmux_epoll {
	wait_queue_entry_t wait;
	struct file *file;
	struct epoll_event __user *events;
	int maxevents;
	bool woken;
	bool masked;		/* epoll_pwait(): the signal mask is to be restored */
	struct stackmux_timer timeout;
};

/* sleep.c: nanosleep(), clock_nanosleep() */
struct stackmux_sleep {
	struct stackmux_timer timer;
	bool absolute;
	bool restarted;
};

/* signal.c: rt_sigtimedwait() */
struct stackmux_sigwait {
	sigset_t mask;
	struct stackmux_timer timeout;
};

/* wait.c: wait4(), waitid() */
struct stackmux_wait {
	struct wait_opts wo;
	bool woken;
};

/**
 * struct stackmux_io - io.c: a call that is executed again when it is woken
 * @wait: entry in @wq
 * @wq: where the call would sleep; @file keeps it in existence
 * @file: what it reads, receives or accepts from
 * @timeout: SO_RCVTIMEO
 * @deadline: the same, in jiffies
 * @how: STACKMUX_WAIT_*
 * @woken: it was woken there
 * @newfd: accept(): the descriptor that it is going to return
 * @newfile: ... and its file
 */
struct stackmux_io {
	wait_queue_entry_t wait;
	struct wait_queue_head *wq;
	struct file *file;
	struct stackmux_timer timeout;
	unsigned long deadline;
	unsigned int how;
	bool woken;
	int newfd;
	struct file *newfile;
};

#define STACKMUX_PRIVATE_LONGS	28

/**
 * struct stackmux_record - all that is left of a parked task's stack
 * @regs: its user registers
 * @op: what it waits in
 * @task: whose record this is
 * @mm_id: the address space that the task lived in when it last parked
 * @starving: entry in the list of a refill worker
 * @granted: the stack that a worker gave to the task when it took it from
 *	     there; otherwise NULL
 * @retry: code that looks itself at what it waited for, or NULL
 * @wchan: where the classic call would sleep
 * @cpu: where the task parked last, while its stack lingers there; whose worker
 *	 granted the stack
 * @rearms: times this wait was armed again after a wake that brought nothing
 * @patience: waits that still have to turn out short before the task stays
 * @evicted: the task stays, but its stack is wanted
 * @on_reserve: switched in on a reserve stack, only to ask for a real one
 * @was_granted: took a granted stack, the worker is to be told
 * @to_user: had to wait for its stack, and keeps it until it gets to user mode
 * @again: io.c executes the call again
 * @futex: of futex.c
 * @futexv: likewise
 * @poll: of poll.c
 * @epoll: of epoll.c
 * @sleep: of sleep.c
 * @sigwait: of signal.c
 * @wait: of wait.c
 * @io: of io.c
 * @private: of calls whose structures nobody else knows
 *
 * Allocated when the task parks for the first time, which may be before it runs,
 * freed with the task. Once it is published only the task itself writes it, but for
 * @granted and @cpu (a worker, while the task is off its CPU and cannot be woken by
 * anybody else) and what a wake source writes to its own part of the union.
 */
struct stackmux_record {
	struct pt_regs regs;
	const struct stackmux_op *op;
	struct task_struct *task;
	u64 mm_id;
	union {
		struct llist_node starving;
		struct stackmux_stack *granted;
	};
	const struct stackmux_retry *retry;
	unsigned long wchan;
	u16 cpu;
	u8 rearms;
	u8 patience;
	bool evicted;		/* by others, so no bit */
	bool on_reserve:1;
	bool was_granted:1;
	bool to_user:1;
	bool again:1;
	union {
		struct stackmux_futex futex;
		struct stackmux_futexv futexv;
		struct stackmux_poll poll;
		struct stackmux_epoll epoll;
		struct stackmux_sleep sleep;
		struct stackmux_sigwait sigwait;
		struct stackmux_wait wait;
		struct stackmux_io io;
		unsigned long private[STACKMUX_PRIVATE_LONGS];
	};
};

/* What a call keeps in @private: its type, checked for size */
#define stackmux_private(rec, type)					\
({									\
	static_assert(sizeof(type) <= sizeof_field(struct stackmux_record, private)); \
	(type *)(rec)->private;						\
})

/* Waits that wake for nothing this many times keep their stack. */
#define STACKMUX_MAX_REARMS	4

/*
 * A task stays where it waits, on its stack, after stackmux_patience waits that were
 * over while its stack lingered; after many more if the last guess was wrong. Being
 * wrong costs a wake-up, being right saves to leave the call and to enter it again.
 */
extern u8 stackmux_patience;

static inline void stackmux_guessed_wrong(struct stackmux_record *rec)
{
	rec->patience = min(32U * READ_ONCE(stackmux_patience), 255U);
}

static inline bool stackmux_may_stay(struct stackmux_record *rec)
{
	return !rec->patience;
}

/**
 * stackmux_arm_at - the wake sources of current's wait are armed: park on the
 *		     way out
 * @rec: current's record
 * @nr: the operation
 * @wchan: where the classic call would be seen sleeping
 *
 * Context: process context. The caller returns STACKMUX_ARMED to the outermost
 * frame of the system call without any further effect.
 */
static inline void stackmux_arm_at(struct stackmux_record *rec,
				   enum stackmux_op_nr nr, unsigned long wchan)
{
	WRITE_ONCE(rec->op, &stackmux_ops[nr]);
	rec->wchan = wchan;
	rec->rearms = 0;
	set_syscall_work(STACKMUX);
}

/* The same for calls that always sleep in one place */
static inline struct stackmux_record *stackmux_arm(enum stackmux_op_nr nr)
{
	struct stackmux_record *rec = current->stackmux;

	stackmux_arm_at(rec, nr, (unsigned long)stackmux_ops[nr].wchan);
	return rec;
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

/*
 * The call is going to use its part of the record, whether it will arm or not:
 * futex waits must not take what it leaves there for their own.
 */
static inline struct stackmux_record *stackmux_claim(enum stackmux_op_nr nr)
{
	struct stackmux_record *rec = current->stackmux;

	WRITE_ONCE(rec->op, &stackmux_ops[nr]);
	return rec;
}

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
 * Tasks that block on their stack although their process parks:
 * - kernel threads and the workers of io_uring and vhost: nothing to return to;
 * - those that reclaim or write back memory: they must not need any to go on;
 * - those that are exiting, or traced: a tracer looks at the stack's registers;
 * - those that asked for it: PR_STACKMUX_THREAD;
 * - real-time and deadline tasks: no wait for a stack after a wake-up;
 * - 32-bit system calls, whose entry has other work to do on the way out.
 */
#define STACKMUX_PF_KEEP	(PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER | \
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
	if (unlikely((tsk->flags & STACKMUX_PF_KEEP) | tsk->ptrace | tsk->stackmux_keep))
		return false;
	/* By policy, not by a priority that it inherits from a waiter */
	return likely(!rt_or_dl_prio(tsk->normal_prio)) && likely(!in_compat_syscall());
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
#define STACKMUX_LOOK		16	/* stacks looked at for one that fits */

enum stackmux_stat {
	STACKMUX_PARKS,
	STACKMUX_RESUMES,
	STACKMUX_NOSWITCH,
	STACKMUX_LINGERED,
	STACKMUX_KEEPS,
	STACKMUX_RESERVE,
	STACKMUX_STARVATIONS,
	STACKMUX_REFILLS,
	STACKMUX_TRIMS,
	STACKMUX_CLONES,
	STACKMUX_NEWBORNS,
	STACKMUX_REARMS,
	STACKMUX_RETRIES,
	STACKMUX_STAYED,
	STACKMUX_EVICTIONS,
	STACKMUX_PREEMPTED,
	STACKMUX_NR_STATS,
};

/**
 * struct stackmux_cpu - what a CPU owns, touched with interrupts off only; by
 *			 others just @last, which they may set to NULL
 * @idle: its cache of idle stacks
 * @nr_idle: how many
 * @last: the task that parked here last, if it still has its stack, or that stays;
 *	  then with STACKMUX_LAST_STAYS
 * @evict: a task that stays and is to leave
 * @reserve: stacks that are never lent past the resume prologue. Two, since
 *	     the task that leaves one may be followed by another that needs one
 *	     before the switch is finished.
 * @poke: wakes the CPU's refill worker from under a run-queue lock
 * @eviction: likewise @evict
 * @stats: counters of this CPU
 */
struct stackmux_cpu {
	struct stackmux_stack *idle;
	unsigned int nr_idle;
	unsigned long last;
	struct task_struct *evict;
	struct stackmux_stack *reserve[STACKMUX_RESERVES];
	struct irq_work poke;
	struct irq_work eviction;
	u64 stats[STACKMUX_NR_STATS];
};

#define STACKMUX_LAST_STAYS	1UL

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
extern unsigned int stackmux_preempted_max;
extern bool stackmux_linger;
extern atomic_long_t stackmux_nr_stacks, stackmux_max_stacks;

int stackmux_pool_init(void);
struct stackmux_stack *stackmux_pool_get_slow(struct stackmux_cpu *sc);
void stackmux_pool_put_slow(struct stackmux_cpu *sc);
void stackmux_pool_prefer(struct stackmux_cpu *sc, u64 mm_id);
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
	if (unlikely(++sc->nr_idle > READ_ONCE(stackmux_percpu_max)))
		stackmux_pool_put_slow(sc);
}

/*
 * The refill workers
 */
int stackmux_refill_init(void);
void stackmux_refill_dead(unsigned int cpu);
void stackmux_refill_wake(void);
void stackmux_refill_settle(void);
void stackmux_starve(struct stackmux_record *rec);
void stackmux_grant_used(struct stackmux_record *rec);

/*
 * Threads that look themselves at what they waited for
 */
long stackmux_set_retry(const void __user *from, size_t size);
void stackmux_drop_retry(struct stackmux_record *rec);
bool __stackmux_retry(struct stackmux_record *rec, struct pt_regs *regs);

static __always_inline bool stackmux_retry(struct stackmux_record *rec,
					   struct pt_regs *regs)
{
	return unlikely(rec->retry) && __stackmux_retry(rec, regs);
}

/*
 * Looking at parked tasks
 */
long stackmux_process_stats(struct stackmux_stats __user *to, size_t size);

/*
 * Parking
 */
int stackmux_park_init(void);
struct stackmux_record *stackmux_record_new(struct task_struct *tsk, gfp_t gfp);
bool stackmux_record_alloc(gfp_t gfp);
void stackmux_take_last(struct stackmux_cpu *sc);
void stackmux_evict_fn(struct irq_work *work);
bool stackmux_stay_armed(struct stackmux_record *rec);
void stackmux_park_runnable(struct stackmux_record *rec, enum stackmux_op_nr nr,
			    unsigned long wchan);

/**
 * stackmux_sit - sleep in an armed wait, where the call is
 * @rec: record of current
 * @fired: as op->fired() of its operation
 *
 * As stackmux_park(), but for a wait that is likely to be short: the call does not
 * return first. If the stack turns out to be wanted the task is woken, and parks.
 *
 * Context: any depth of a system call, no locks held.
 * Return: false if the stack is wanted.
 */
static __always_inline bool stackmux_sit(struct stackmux_record *rec,
					 bool (*fired)(struct stackmux_record *rec))
{
	struct task_struct *tsk = current;

	WRITE_ONCE(rec->evicted, false);
	preempt_disable();
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (likely(!fired(rec))) {
		stackmux_count(STACKMUX_STAYED);
		tsk->stackmux_state = STACKMUX_STAYING;
		schedule_park();
		tsk->stackmux_state = STACKMUX_OWN;
	}
	__set_current_state(TASK_RUNNING);
	preempt_enable();
	return likely(!READ_ONCE(rec->evicted));
}

long stackmux_nr_records(void);
void stackmux_ret_from_park(struct task_struct *prev, struct pt_regs *regs,
			    unsigned long starving);

#endif /* _KERNEL_STACKMUX_H */
