// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: parked tasks as /proc, SysRq and prctl() show them
 *
 * The same as of a task that blocks in the same call, as far as there is
 * something to say: its registers and where it waits are in its record.
 *
 * The caller holds a reference on the task, so the record stays; that the task
 * stays parked meanwhile is for the caller to make sure, as for any look at a
 * sleeping task.
 */
#include <linux/sched/debug.h>
#include <linux/sched/rt.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "stackmux.h"

static struct stackmux_record *stackmux_parked(struct task_struct *tsk)
{
	/* Pairs with smp_store_release() in stackmux_record_alloc(). */
	struct stackmux_record *rec = smp_load_acquire(&tsk->stackmux);

	if (!rec || !READ_ONCE(rec->op))
		return NULL;
	/* Pairs with smp_store_release() in stackmux_take(). */
	switch (smp_load_acquire(&tsk->stackmux_stack)) {
	case STACKMUX_LINGERING:
	case STACKMUX_PINNED:
	case STACKMUX_PARKED:
		return rec;
	default:
		return NULL;
	}
}

/* It may not even have run yet, or have been preempted in user mode. */
static bool stackmux_in_syscall(struct stackmux_record *rec)
{
	return READ_ONCE(rec->op)->fired;
}

static bool stackmux_has_stack(struct task_struct *tsk)
{
	return READ_ONCE(tsk->stackmux_stack) != STACKMUX_PARKED;
}

/**
 * stackmux_parked_regs - user registers of a parked task
 * @tsk: the task, which the caller holds a reference on
 *
 * Return: the registers, or NULL if the task is not parked, or has its stack
 *	   still: then they are where they always are.
 */
struct pt_regs *stackmux_parked_regs(struct task_struct *tsk)
{
	/* As in stackmux_parked() */
	struct stackmux_record *rec = smp_load_acquire(&tsk->stackmux);

	/* Something may wake it for a moment, while another task reads them for the dump. */
	if (rec && READ_ONCE(tsk->flags) & PF_POSTCOREDUMP && rec->op == &stackmux_dump_op)
		return &rec->regs;
	rec = stackmux_parked(tsk);
	return rec && !stackmux_has_stack(tsk) ? &rec->regs : NULL;
}

/**
 * stackmux_kstk - where a task without a stack is in user mode
 * @tsk: the task, which the caller holds a reference on
 * @ip: its program counter goes here
 * @sp: its stack pointer
 *
 * Stores nothing if the task is not parked, or has its stack still.
 */
void stackmux_kstk(struct task_struct *tsk, unsigned long *ip, unsigned long *sp)
{
	struct pt_regs *regs = stackmux_parked_regs(tsk);

	if (regs) {
		*ip = instruction_pointer(regs);
		*sp = user_stack_pointer(regs);
	}
}

/**
 * stackmux_wchan - where a parked task sleeps
 * @tsk: the task, which the caller holds a reference on
 *
 * Return: an address in the function in which the classic call would sleep, or
 *	   0 if the task is not parked.
 */
unsigned long stackmux_wchan(struct task_struct *tsk)
{
	struct stackmux_record *rec = stackmux_parked(tsk);

	/* Like a return address, not the entry of the function */
	return rec ? READ_ONCE(rec->wchan) + 1 : 0;
}

/**
 * stackmux_stack_trace - what stands for the stack trace of a parked task
 * @tsk: the task, which the caller holds a reference on
 * @entries: return addresses go here
 * @size: number of entries there is room for
 *
 * Return: the number of entries stored; 0 if the task is not parked, or with a
 *	   stack that cannot be taken.
 */
unsigned int stackmux_stack_trace(struct task_struct *tsk, unsigned long *entries,
				  unsigned int size)
{
	unsigned long wchan = stackmux_wchan(tsk);

	if (!wchan || !size || READ_ONCE(tsk->stackmux_stack) == STACKMUX_PINNED)
		return 0;
	entries[0] = wchan;
	if (size == 1 || !stackmux_in_syscall(tsk->stackmux))
		return 1;
	entries[1] = (unsigned long)stackmux_syscall_exit + 1;
	return 2;
}

/**
 * stackmux_show_task - sched_show_task() for a task that has no stack
 * @tsk: the task
 */
void stackmux_show_task(struct task_struct *tsk)
{
	struct stackmux_record *rec = stackmux_parked(tsk);
	int ppid = 0;

	if (!rec || stackmux_has_stack(tsk))
		return;

	rcu_read_lock();
	if (pid_alive(tsk))
		ppid = task_pid_nr(rcu_dereference(tsk->real_parent));
	rcu_read_unlock();
	pr_info("task:%-15.15s state:%c stack:%-5lu pid:%-5d tgid:%-5d ppid:%-6d flags:0x%08lx\n",
		tsk->comm, task_state_to_char(tsk), 0UL, task_pid_nr(tsk),
		task_tgid_nr(tsk), ppid, read_task_thread_flags(tsk));
	pr_info("Call Trace:\n");
	pr_info(" <TASK>\n");
	pr_info(" %pS\n", (void *)stackmux_wchan(tsk));
	if (stackmux_in_syscall(rec))
		pr_info(" %pS\n", (void *)stackmux_syscall_exit);
	pr_info(" (parked)\n");
	arch_stackmux_show_regs(&rec->regs);
	pr_info(" </TASK>\n");
}

/* Why a task does not park though its process does; NULL: it does */
static const char *stackmux_excluded(struct task_struct *tsk)
{
	if (READ_ONCE(tsk->stackmux_optout))
		return "optout";
	if (READ_ONCE(tsk->ptrace))
		return "traced";
	if (rt_or_dl_prio(tsk->normal_prio))
		return "realtime";
	if (arch_stackmux_compat(tsk))
		return "compat";
	if (READ_ONCE(tsk->flags) & STACKMUX_PF_EXCLUDED)
		return "kernel";
	return NULL;
}

/**
 * stackmux_proc_status - the line "Stackmux:" of /proc/PID/status
 * @m: what to print to
 * @tsk: the task, which the caller holds a reference on
 */
void stackmux_proc_status(struct seq_file *m, struct task_struct *tsk)
{
	const char *why;

	seq_puts(m, "Stackmux:\t");
	switch (READ_ONCE(tsk->stackmux_stack)) {
	case STACKMUX_PARKED:
		seq_puts(m, "parked\n");
		return;
	case STACKMUX_LINGERING:
		seq_puts(m, "lingering\n");
		return;
	case STACKMUX_PINNED:
		seq_puts(m, "pinned\n");
		return;
	}
	if (!stackmux_wanted(tsk)) {
		seq_puts(m, "off\n");
		return;
	}
	why = stackmux_excluded(tsk);
	if (why)
		seq_printf(m, "excluded %s\n", why);
	else if (READ_ONCE(tsk->stackmux_stack) == STACKMUX_IN_PLACE)
		seq_puts(m, "in place\n");
	else
		seq_puts(m, "ready\n");
}

/* Threads looked at, under task_lock() */
#define STACKMUX_OOM_SAMPLE	4096

/*
 * The OOM killer is to see what a herd of threads costs, or it would choose a bystander
 * with more memory than the herd has in its address space. The others of a large herd are
 * taken to be like the first ones.
 */
unsigned long __stackmux_oom_pages(struct task_struct *tsk)
{
	unsigned long bytes = 0, nr = 0;
	struct task_struct *t;

	rcu_read_lock();
	for_each_thread(tsk, t) {
		if (READ_ONCE(t->stackmux))
			bytes += sizeof(struct stackmux_record);
		if (stackmux_has_stack(t))
			bytes += THREAD_SIZE;
		if (++nr == STACKMUX_OOM_SAMPLE) {
			bytes = bytes / nr * max_t(unsigned long, nr, get_nr_threads(tsk));
			break;
		}
	}
	rcu_read_unlock();
	return bytes / PAGE_SIZE;
}

static void stackmux_add_stats(struct stackmux_stats *stats, struct task_struct *tsk)
{
	stats->threads++;
	if (READ_ONCE(tsk->stackmux))
		stats->records++;
	switch (READ_ONCE(tsk->stackmux_stack)) {
	case STACKMUX_PARKED:
		stats->parked++;
		break;
	case STACKMUX_LINGERING:
		stats->lingering++;
		break;
	case STACKMUX_PINNED:
		stats->pinned++;
		break;
	default:
		if (stackmux_wanted(tsk) && stackmux_excluded(tsk))
			stats->excluded++;
	}
}

/*
 * Let others run, in the middle of a list of threads. False: @tsk has left the list
 * meanwhile, and those that came after it there may be gone, too.
 */
static bool stackmux_stats_yield(struct task_struct *tsk)
{
	bool alive;

	get_task_struct(tsk);
	rcu_read_unlock();
	cond_resched();
	rcu_read_lock();
	/* A task leaves its pid first, and then the list. */
	alive = pid_alive(tsk);
	put_task_struct(tsk);
	return alive;
}

/*
 * There may be millions of threads. They are listed in the order in which they were
 * cloned: if the one where this let others run is gone, the first that is younger comes
 * next. Those that are cloned meanwhile do not count, or this might have no end.
 */
static int stackmux_collect_stats(struct stackmux_stats *stats)
{
	const u64 now = ktime_get_ns();
	struct task_struct *t;
	u64 last = 0, skip = 0;

	guard(rcu)();
again:
	for_each_thread(current, t) {
		if (t->start_time > now)
			break;
		if (t->start_time > skip) {
			stackmux_add_stats(stats, t);
			last = t->start_time;
			skip = 0;
		}
		if (likely(!need_resched()))
			continue;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!stackmux_stats_yield(t)) {
			skip = last;
			goto again;
		}
	}
	return 0;
}

/**
 * stackmux_process_stats - prctl(PR_STACKMUX_STATS)
 * @to: user address of the result
 * @size: of the structure that the user knows
 *
 * Context: process context, may sleep.
 * Return: size of the structure that the kernel knows, or an error.
 */
long stackmux_process_stats(struct stackmux_stats __user *to, size_t size)
{
	struct stackmux_stats stats = {
		.stack_size	= THREAD_SIZE,
		.record_size	= sizeof(struct stackmux_record),
	};
	int ret;

	BUILD_BUG_ON(sizeof(stats) < STACKMUX_STATS_SIZE_VER0);
	if (size < STACKMUX_STATS_SIZE_VER0)
		return -EINVAL;

	ret = stackmux_collect_stats(&stats);
	if (ret)
		return ret;
	if (copy_to_user(to, &stats, min(size, sizeof(stats))))
		return -EFAULT;
	if (size > sizeof(stats) &&
	    clear_user((void __user *)to + sizeof(stats), size - sizeof(stats)))
		return -EFAULT;
	return sizeof(stats);
}
