/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: what the rest of the kernel calls
 *
 * A task that waits in one of the calls stackmux knows gives its kernel stack
 * back ("parks") and gets another one when it is woken. Every hook below is
 * empty without CONFIG_STACKMUX, and behind a static key until the first
 * process asks for parking. See Documentation/core-api/stackmux.rst.
 */
#ifndef _LINUX_STACKMUX_H
#define _LINUX_STACKMUX_H

#include <linux/errno.h>
#include <linux/gfp_types.h>
#include <linux/jump_label.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include <uapi/linux/stackmux.h>

struct epoll_event;
struct eventpoll;
struct file;
struct file_lock;
struct io_event;
struct io_wait_queue;
struct kioctx;
struct msg_msg;
struct msg_queue;
struct pollfd;
struct pt_regs;
struct restart_block;
struct sem_array;
struct sem_queue;
struct seq_file;
struct timespec64;
struct wait_opts;
struct wait_queue_entry;
struct wait_queue_head;

/*
 * What a call that armed returns through its C frames. Nobody sees it: the
 * exit work parks before the value could reach user mode.
 */
#define STACKMUX_ARMED		(-ERESTARTNOINTR)

/**
 * enum stackmux_state - whose the kernel stack of a task is
 * @STACKMUX_OWN: the task's, as ever
 * @STACKMUX_LINGERS: parked, and the stack is for the CPU to take at which it
 *		      parked last; or for the task, if that is switched in first
 * @STACKMUX_KEPT: parked, but with a stack that cannot be taken
 * @STACKMUX_GONE: parked, without a stack
 * @STACKMUX_STAYS: not parked, but in a wait that could park and is likely to be
 *		    short; sleeps on the stack
 * @STACKMUX_LEAVING: the task's until its next switch, which is a park; set by
 *		      the task with preemption off
 * @STACKMUX_YIELDING: likewise, but the task does not wait for anything
 * @STACKMUX_STARVING: likewise, but the stack is a CPU's reserve
 * @STACKMUX_STAYING: likewise, but the switch is that of a task that stays
 *
 * The CPU that switches away from or to the task, or takes its stack, writes it.
 */
enum stackmux_state {
	STACKMUX_OWN,
	STACKMUX_LINGERS,
	STACKMUX_KEPT,
	STACKMUX_GONE,
	STACKMUX_STAYS,
	STACKMUX_LEAVING,
	STACKMUX_YIELDING,
	STACKMUX_STARVING,
	STACKMUX_STAYING,
};

/* How stackmux_wait() waits */
#define STACKMUX_WAIT_EXCLUSIVE	0x1
#define STACKMUX_WAIT_LOCKED	0x2
#define STACKMUX_WAIT_ROOM	0x4
#define STACKMUX_WAIT_WOKEN	0x8
#define STACKMUX_WAIT_MAY_STAY	0x10

/**
 * enum stackmux_wait_result - what a caller of stackmux_wait() is to do
 * @STACKMUX_WAIT_ON_STACK: sleep as ever
 * @STACKMUX_WAIT_PARK: return STACKMUX_ARMED
 * @STACKMUX_WAIT_STAY: release its locks and call stackmux_stay()
 */
enum stackmux_wait_result {
	STACKMUX_WAIT_ON_STACK,
	STACKMUX_WAIT_PARK,
	STACKMUX_WAIT_STAY,
};

/* No result of stackmux_epoll_wait(), but: there are events to be looked for */
#define STACKMUX_EPOLL_EVENTS	INT_MIN

/*
 * The waits of calls, each in its file of kernel/stackmux/; to be called only
 * where stackmux_may_park(), or after it. Those of futexes are in
 * kernel/futex/futex.h.
 */
bool stackmux_poll(struct pollfd __user *ufds, unsigned int nfds,
		   struct timespec64 *end_time, int *ret);
bool stackmux_select(int n, fd_set __user *inp, fd_set __user *outp,
		     fd_set __user *exp, struct timespec64 *end_time, void *wchan,
		     int *ret);
int stackmux_epoll_wait(struct eventpoll *ep, struct epoll_event __user *events,
			int maxevents, ktime_t *to, u64 slack);
int stackmux_epoll_masked(void);
int stackmux_poll_finish_later(void __user *p, int type);
long stackmux_nanosleep(ktime_t rqtp, int mode, clockid_t clockid);
long stackmux_nanosleep_restart(struct restart_block *restart);
long stackmux_pause(void);
long stackmux_sigsuspend(void *wchan);
int stackmux_sigtimedwait(const sigset_t *mask, ktime_t *timeout);
int stackmux_sigtimedwait_end(sigset_t *mask, kernel_siginfo_t *info);
long stackmux_do_wait(struct wait_opts *wo, void *wchan);
void stackmux_msgrcv(struct msg_queue *msq, void __user *buf, size_t bufsz,
		     long type, int mode, long maxsize);
bool stackmux_semop(struct sem_array *sma, struct sem_queue *queue, ktime_t *expires);
int stackmux_mq_receive(struct file *file, ktime_t *expires, char __user *buf,
			unsigned int __user *prio);
int stackmux_mq_send(struct file *file, ktime_t *expires, struct msg_msg *msg);
long stackmux_aio_wait(struct kioctx *ctx, long min_nr, long nr,
		       struct io_event __user *events, ktime_t until, long got);
int stackmux_aio_masked(void);
int stackmux_flock(struct file *file, struct file_lock *fl);
int stackmux_setlkw(struct file *file, struct file_lock *fl, unsigned int fd);
int stackmux_uring_wait(struct io_wait_queue *iowq, ktime_t start_time);
long stackmux_uring_armed(struct file *file, long submitted);
void stackmux_wait_cancel(void);
struct file *stackmux_accept_file(struct file *newfile);
int stackmux_accept_fd(int newfd);

/* kernel/entry/common.c, fs/select.c, kernel/time/hrtimer.c: theirs of a wait */
void syscall_exit_work_parked(struct pt_regs *regs);
int stackmux_poll_select_finish(struct timespec64 *end_time, void __user *p,
				int type, int ret);
long stackmux_poll_restart(struct restart_block *restart);
long stackmux_nanosleep_set_restart(struct restart_block *restart);

#ifdef CONFIG_STACKMUX

/* Had one caller, and so was inlined, before kernel/stackmux/ became another one */
#define stackmux_inline	__always_inline

DECLARE_STATIC_KEY_FALSE(stackmux_key);

bool __stackmux_may_park(gfp_t gfp);
bool __stackmux_may_park_or_stay(void);
void stackmux_syscall_exit(struct pt_regs *regs);
void __stackmux_attach(struct task_struct *next);
void __stackmux_detach(struct task_struct *prev);
int stackmux_alloc_stack(struct task_struct *tsk, int node);
void stackmux_free_stack(struct task_struct *tsk);
void stackmux_new_task(struct task_struct *tsk, u64 clone_flags);
void __stackmux_newborn(struct task_struct *tsk);
void __stackmux_preempt(struct pt_regs *regs);
void __stackmux_free_task(struct task_struct *tsk);
bool __stackmux_threads_unlimited(void);
void stackmux_exec(void);
long stackmux_prctl(unsigned long op, unsigned long flags, unsigned long arg4,
		    unsigned long arg5);
struct pt_regs *stackmux_parked_regs(struct task_struct *tsk);
unsigned long stackmux_wchan(struct task_struct *tsk);
unsigned int stackmux_stack_trace(struct task_struct *tsk,
				  unsigned long *entries, unsigned int size);
void stackmux_show_task(struct task_struct *tsk);
void stackmux_proc_status(struct seq_file *m, struct task_struct *tsk);
enum stackmux_wait_result __stackmux_wait(struct file *file, struct wait_queue_head *wq,
					  unsigned int how, long *timeo,
					  unsigned long wchan);
bool __stackmux_stay(void);

/* Where some of the classic waits are seen sleeping, of kernel/sched/wait.c */
int do_wait_intr_irq(struct wait_queue_head *wq, struct wait_queue_entry *wait);
long wait_woken(struct wait_queue_entry *wait, unsigned int mode, long timeout);

/**
 * stackmux_may_park - may the current system call give up its stack?
 *
 * To be asked by a system call that is about to wait, at its outermost level,
 * with no lock held. True promises a park record, so arming cannot fail.
 *
 * Context: process context, may allocate.
 */
static inline bool stackmux_may_park(void)
{
	return static_branch_unlikely(&stackmux_key) && __stackmux_may_park(GFP_KERNEL);
}

/*
 * The same for a call that calls stackmux_stay_armed(): a thread that is going to stay
 * is asked no further before it has to leave.
 */
static inline bool stackmux_may_park_or_stay(void)
{
	return static_branch_unlikely(&stackmux_key) && __stackmux_may_park_or_stay();
}

/* The same for a call that finds out under a spinlock that it has to wait */
static inline bool stackmux_may_park_atomic(void)
{
	return static_branch_unlikely(&stackmux_key) && __stackmux_may_park(GFP_NOWAIT);
}

/* See __stackmux_wait(). No call of stackmux_may_park() is needed before. */
static __always_inline enum stackmux_wait_result
stackmux_wait(struct file *file, struct wait_queue_head *wq, unsigned int how, long *timeo)
{
	if (!static_branch_unlikely(&stackmux_key))
		return STACKMUX_WAIT_ON_STACK;
	return __stackmux_wait(file, wq, how, timeo,
			       how & STACKMUX_WAIT_LOCKED ? (unsigned long)do_wait_intr_irq :
			       how & STACKMUX_WAIT_WOKEN ? (unsigned long)wait_woken :
			       _THIS_IP_);
}

/**
 * stackmux_stay - sleep where the call waits, if it is to
 * @wait: what stackmux_wait() said; not STACKMUX_WAIT_ON_STACK
 *
 * To be called without locks. What is waited for has to be looked at again after
 * a sleep, and stackmux_wait() to be called again, as if for the first time, if it
 * is not there.
 *
 * Return: false if the caller is to return STACKMUX_ARMED: at once, or since the
 * stack turned out to be wanted.
 */
static inline bool stackmux_stay(enum stackmux_wait_result wait)
{
	return wait == STACKMUX_WAIT_STAY && __stackmux_stay();
}

/* Has anybody opted in? For what is to be done before stackmux_wait() */
static inline bool stackmux_enabled(void)
{
	return static_branch_unlikely(&stackmux_key);
}

/* Is @ret what a call returns that is going to park? */
static inline bool stackmux_armed(long ret)
{
	return unlikely(ret == STACKMUX_ARMED);
}

/* From context_switch(), run-queue lock held: @next must have a stack. */
static inline void stackmux_attach(struct task_struct *next)
{
	if (static_branch_unlikely(&stackmux_key) &&
	    unlikely(next->stackmux_state != STACKMUX_OWN))
		__stackmux_attach(next);
}

/* From finish_task_switch(), before on_cpu of @prev is cleared. */
static inline void stackmux_detach(struct task_struct *prev)
{
	if (static_branch_unlikely(&stackmux_key) &&
	    unlikely(prev->stackmux_state >= STACKMUX_LEAVING))
		__stackmux_detach(prev);
}

/* Does the pool own the stack of @tsk? Then it also accounts and charges it. */
static inline bool stackmux_owns_stack(struct task_struct *tsk)
{
	return tsk->stack_vm_area->flags & VM_STACKMUX;
}

/*
 * From kernel_clone(), when nothing is left to be done but to wake the new task:
 * another thread of a process whose threads park needs no stack yet.
 */
static inline void stackmux_newborn(struct task_struct *tsk, u64 clone_flags)
{
	if (static_branch_unlikely(&stackmux_key) && (clone_flags & CLONE_THREAD) &&
	    stackmux_owns_stack(tsk))
		__stackmux_newborn(tsk);
}

/* From exit_to_user_mode_loop(): all that current needs is in its user registers. */
static __always_inline void stackmux_preempt(struct pt_regs *regs)
{
	if (static_branch_unlikely(&stackmux_key) && current->stackmux)
		__stackmux_preempt(regs);
	else
		schedule();
}

static inline void stackmux_free_task(struct task_struct *tsk)
{
	if (tsk->stackmux)
		__stackmux_free_task(tsk);
}

/* May a parking process exceed threads-max, which is derived from stacks? */
static inline bool stackmux_threads_unlimited(void)
{
	return static_branch_unlikely(&stackmux_key) &&
	       __stackmux_threads_unlimited();
}

#else /* !CONFIG_STACKMUX */

#define stackmux_inline

static inline bool stackmux_may_park(void) { return false; }
static inline bool stackmux_may_park_or_stay(void) { return false; }
static inline bool stackmux_may_park_atomic(void) { return false; }

static inline bool stackmux_enabled(void) { return false; }

/* No function: arguments that nobody uses could still change the code around. */
#define stackmux_wait(file, wq, how, timeo)	stackmux_enabled()

static inline bool stackmux_stay(enum stackmux_wait_result wait) { return false; }

static inline bool stackmux_armed(long ret) { return false; }

static inline void stackmux_syscall_exit(struct pt_regs *regs) { }
static inline void stackmux_attach(struct task_struct *next) { }
static inline void stackmux_detach(struct task_struct *prev) { }

static inline int stackmux_alloc_stack(struct task_struct *tsk, int node)
{
	return -EAGAIN;
}

static inline bool stackmux_owns_stack(struct task_struct *tsk) { return false; }
static inline void stackmux_free_stack(struct task_struct *tsk) { }
static inline void stackmux_new_task(struct task_struct *tsk, u64 clone_flags) { }
static inline void stackmux_newborn(struct task_struct *tsk, u64 clone_flags) { }
static __always_inline void stackmux_preempt(struct pt_regs *regs) { schedule(); }
static inline void stackmux_free_task(struct task_struct *tsk) { }
static inline bool stackmux_threads_unlimited(void) { return false; }
static inline void stackmux_exec(void) { }

static inline long stackmux_prctl(unsigned long op, unsigned long flags,
				  unsigned long arg4, unsigned long arg5)
{
	return -EINVAL;
}

static inline struct pt_regs *stackmux_parked_regs(struct task_struct *tsk)
{
	return NULL;
}

static inline unsigned long stackmux_wchan(struct task_struct *tsk) { return 0; }

static inline unsigned int stackmux_stack_trace(struct task_struct *tsk,
						unsigned long *entries,
						unsigned int size)
{
	return 0;
}

static inline void stackmux_show_task(struct task_struct *tsk) { }

static inline void stackmux_proc_status(struct seq_file *m, struct task_struct *tsk)
{
}

#endif /* CONFIG_STACKMUX */

#endif /* _LINUX_STACKMUX_H */
