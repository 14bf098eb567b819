/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: what the rest of the kernel calls
 *
 * A task that waits in a system call may give its kernel stack back ("park"), and
 * gets another one when it is woken. Every hook below is empty without
 * CONFIG_STACKMUX, and behind a static key until the first process asks for
 * parking. See Documentation/core-api/stackmux.rst.
 *
 * The hooks of single calls are declared in the private header of the subsystem
 * that calls them, for example kernel/futex/futex.h.
 */
#ifndef _LINUX_STACKMUX_H
#define _LINUX_STACKMUX_H

#include <linux/errno.h>
#include <linux/instruction_pointer.h>
#include <linux/jump_label.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include <uapi/linux/stackmux.h>

struct file;
struct pt_regs;
struct seq_file;
struct wait_queue_entry;
struct wait_queue_head;

/*
 * What a call that armed returns through its C frames. Nobody sees it: the
 * exit work parks before the value could reach user mode. A file system may return
 * the same value, so ask stackmux_armed().
 */
#define STACKMUX_ARMED		(-ERESTARTNOINTR)

/* Both are described in kernel/stackmux/switch.c. */
enum stackmux_stack_state {
	STACKMUX_OWN,
	STACKMUX_LINGERING,
	STACKMUX_IN_PLACE,
	STACKMUX_PINNED,
	STACKMUX_PARKED,
};

enum stackmux_leave {
	STACKMUX_STAY,
	STACKMUX_LEAVE,
	STACKMUX_LEAVE_NOW,
	STACKMUX_LEAVE_RESERVE,
	STACKMUX_WAIT_IN_PLACE,
};

/* How stackmux_io_wait() waits */
#define STACKMUX_IO_EXCLUSIVE	0x1	/* as an exclusive waiter */
#define STACKMUX_IO_LOCKED	0x2	/* the lock of the queue is held */
#define STACKMUX_IO_ATOMIC	0x4	/* some other spinlock is held */
#define STACKMUX_IO_WOKEN	0x8	/* the classic call sleeps in wait_woken() */

/*
 * Functions and data that kernel/stackmux/ shares with the file that they belong to:
 * static if there is nobody to share them with.
 */
#ifdef CONFIG_STACKMUX
#define VISIBLE_IF_STACKMUX
#else
#define VISIBLE_IF_STACKMUX	static
#endif

#ifdef CONFIG_STACKMUX

DECLARE_STATIC_KEY_FALSE(stackmux_key);

bool __stackmux_may_park(void);
void stackmux_syscall_exit(struct pt_regs *regs);
void __stackmux_attach(struct task_struct *next);
void __stackmux_detach(struct task_struct *prev);
int stackmux_alloc_stack(struct task_struct *tsk, int node);
void stackmux_free_stack(struct task_struct *tsk);
void stackmux_new_task(struct task_struct *tsk, u64 clone_flags);
void __stackmux_newborn(struct task_struct *tsk);
void __stackmux_preempt(struct pt_regs *regs);
void __stackmux_stop(struct pt_regs *regs);
void __stackmux_free_task(struct task_struct *tsk);
void __stackmux_hurry(struct task_struct *tsk);
void __stackmux_set_policy(struct task_struct *tsk);
bool __stackmux_exceeds_threads_max(u64 clone_flags);
void stackmux_exec(bool secure);
long stackmux_prctl(unsigned long op, unsigned long flags, unsigned long arg4,
		    unsigned long arg5);
struct pt_regs *stackmux_parked_regs(struct task_struct *tsk);
void stackmux_kstk(struct task_struct *tsk, unsigned long *ip, unsigned long *sp);
unsigned long stackmux_wchan(struct task_struct *tsk);
unsigned int stackmux_stack_trace(struct task_struct *tsk,
				  unsigned long *entries, unsigned int size);
unsigned long __stackmux_oom_pages(struct task_struct *tsk);
void stackmux_show_task(struct task_struct *tsk);
void stackmux_proc_status(struct seq_file *m, struct task_struct *tsk);
bool __stackmux_io_wait(struct file *file, struct wait_queue_head *wq, unsigned int how,
			long *timeo, unsigned long wchan);
void stackmux_io_cancel(void);

/* Of kernel/sched/core.c, for starve.c */
void sched_wait_for_stack(struct task_struct *p);
void sched_has_stack(struct task_struct *p);

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
	return static_branch_unlikely(&stackmux_key) && __stackmux_may_park();
}

/* See __stackmux_io_wait(). No call of stackmux_may_park() is needed before. */
static __always_inline bool
stackmux_io_wait(struct file *file, struct wait_queue_head *wq, unsigned int how, long *timeo)
{
	return static_branch_unlikely(&stackmux_key) &&
	       __stackmux_io_wait(file, wq, how, timeo,
				  how & STACKMUX_IO_LOCKED ? (unsigned long)do_wait_intr_irq :
				  how & STACKMUX_IO_WOKEN ? (unsigned long)wait_woken :
				  _THIS_IP_);
}

/* Does the call return @ret because it is going to park? */
static inline bool stackmux_armed(long ret)
{
	return unlikely(ret == STACKMUX_ARMED) && test_syscall_work(STACKMUX);
}

/* From context_switch(), run-queue lock held: @next must have a stack. */
static inline void stackmux_attach(struct task_struct *next)
{
	if (static_branch_unlikely(&stackmux_key) &&
	    unlikely(next->stackmux_stack != STACKMUX_OWN))
		__stackmux_attach(next);
}

/* From finish_task_switch(), before on_cpu of @prev is cleared. */
static inline void stackmux_detach(struct task_struct *prev)
{
	if (static_branch_unlikely(&stackmux_key) && unlikely(prev->stackmux_leave))
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

/* @tsk has been killed, or its priority has changed; and it may wait for a stack. */
static inline void stackmux_hurry(struct task_struct *tsk)
{
	if (static_branch_unlikely(&stackmux_key) &&
	    READ_ONCE(tsk->stackmux_stack) == STACKMUX_PARKED)
		__stackmux_hurry(tsk);
}

/* From __sched_setscheduler(): @tsk may be real-time now, which must not park. */
static inline void stackmux_set_policy(struct task_struct *tsk)
{
	if (static_branch_unlikely(&stackmux_key) && READ_ONCE(tsk->stackmux))
		__stackmux_set_policy(tsk);
}

/* From exit_to_user_mode_loop(), with a signal pending: current may have to stop. */
static __always_inline void stackmux_stop(struct pt_regs *regs)
{
	if (static_branch_unlikely(&stackmux_key))
		__stackmux_stop(regs);
}

static inline void stackmux_free_task(struct task_struct *tsk)
{
	if (tsk->stackmux)
		__stackmux_free_task(tsk);
}

/* From oom_badness(): what the threads of the process of @tsk have, in pages */
static inline unsigned long stackmux_oom_pages(struct task_struct *tsk)
{
	return static_branch_unlikely(&stackmux_key) ? __stackmux_oom_pages(tsk) : 0;
}

/* May clone() exceed threads-max, which is derived from stacks? */
static inline bool stackmux_exceeds_threads_max(u64 clone_flags)
{
	return static_branch_unlikely(&stackmux_key) &&
	       __stackmux_exceeds_threads_max(clone_flags);
}

#else /* !CONFIG_STACKMUX */

static inline bool stackmux_may_park(void) { return false; }

/* No function: arguments that nobody uses could still change the code around. */
#define stackmux_io_wait(file, wq, how, timeo)	false

static inline void stackmux_io_cancel(void) { }

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
static inline void stackmux_hurry(struct task_struct *tsk) { }
static inline void stackmux_set_policy(struct task_struct *tsk) { }
static __always_inline void stackmux_stop(struct pt_regs *regs) { }
static inline void stackmux_free_task(struct task_struct *tsk) { }
static inline bool stackmux_exceeds_threads_max(u64 clone_flags) { return false; }
static inline void stackmux_exec(bool secure) { }

static inline long stackmux_prctl(unsigned long op, unsigned long flags,
				  unsigned long arg4, unsigned long arg5)
{
	return -EINVAL;
}

static inline struct pt_regs *stackmux_parked_regs(struct task_struct *tsk)
{
	return NULL;
}

/* No function, as above */
#define stackmux_kstk(tsk, ip, sp)	do { } while (0)

static inline unsigned long stackmux_wchan(struct task_struct *tsk) { return 0; }

static inline unsigned int stackmux_stack_trace(struct task_struct *tsk,
						unsigned long *entries,
						unsigned int size)
{
	return 0;
}

static inline unsigned long stackmux_oom_pages(struct task_struct *tsk) { return 0; }
static inline void stackmux_show_task(struct task_struct *tsk) { }

static inline void stackmux_proc_status(struct seq_file *m, struct task_struct *tsk)
{
}

#endif /* CONFIG_STACKMUX */

/* The user registers of a task that is not running, for readers */
#define stackmux_task_regs(tsk)	(stackmux_parked_regs(tsk) ?: task_pt_regs(tsk))

#endif /* _LINUX_STACKMUX_H */
