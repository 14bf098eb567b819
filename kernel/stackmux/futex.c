// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: futex waits that park
 *
 * The futex_q and the timer live in the park record instead of on the stack;
 * wakers, requeue and the timer find them there and never learn the difference.
 */
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../futex/futex.h"
#include "stackmux.h"

/* FUTEX_WAIT, FUTEX_WAIT_BITSET, futex_wait() */
struct stackmux_futex {
	struct futex_q q;
	struct stackmux_timer timeout;
	u32 __user *uaddr;
	u32 val;
	u16 flags;
	bool restartable;	/* a signal makes it go on with what time is left */
};

/* futex_waitv() */
struct stackmux_futexv {
	struct futex_vector *v;
	unsigned int count;
	struct stackmux_timer timeout;
};

/* Pairs with the release of lock_ptr in __futex_wake_mark(). */
static bool stackmux_futex_fired(struct stackmux_record *rec)
{
	struct stackmux_futex *f = stackmux_private(rec, struct stackmux_futex);

	return !READ_ONCE(f->q.lock_ptr) ||
	       stackmux_timer_fired(&f->timeout);
}

/* The loop of __futex_wait(), entered where that one comes back from its sleep */
static long __stackmux_futex_resume(struct stackmux_record *rec)
{
	struct stackmux_futex *f = stackmux_private(rec, struct stackmux_futex);
	struct futex_hash_bucket *hb;
	int ret;

	/* A waker has unqueued it: woken, whatever else happened. */
	if (!futex_unqueue(&f->q))
		return 0;
	if (stackmux_timer_fired(&f->timeout))
		return -ETIMEDOUT;
	if (signal_pending(current))
		return -ERESTARTSYS;

	ret = futex_wait_setup(f->uaddr, f->val, f->flags, &f->q, &hb);
	if (ret)
		return ret;
	futex_queue(&f->q, hb, current);
	return STACKMUX_REARMED;
}

static long stackmux_futex_set_restart(struct stackmux_futex *f)
{
	struct restart_block *restart = &current->restart_block;

	restart->futex.uaddr = f->uaddr;
	restart->futex.val = f->val;
	restart->futex.time = hrtimer_get_softexpires(&f->timeout.sleeper.timer);
	restart->futex.bitset = f->q.bitset;
	restart->futex.flags = f->flags | FLAGS_HAS_TIMEOUT;
	return set_restart_fn(restart, futex_wait_restart);
}

static long stackmux_futex_resume(struct stackmux_record *rec)
{
	struct stackmux_futex *f = stackmux_private(rec, struct stackmux_futex);
	long ret = __stackmux_futex_resume(rec);

	if (ret == STACKMUX_REARMED || !stackmux_timer_is_set(&f->timeout))
		return ret;

	stackmux_timer_cancel(&f->timeout);
	if (ret == -ERESTARTSYS && f->restartable)
		ret = stackmux_futex_set_restart(f);
	return ret;
}

/* Woken: nothing but the timer is left to take down. */
static bool stackmux_futex_cancel(struct stackmux_record *rec)
{
	struct stackmux_futex *f = stackmux_private(rec, struct stackmux_futex);

	/* Pairs with the release in __futex_wake_mark(). */
	if (smp_load_acquire(&f->q.lock_ptr))
		return false;
	stackmux_timer_cancel(&f->timeout);
	return true;
}

static const struct stackmux_op stackmux_futex_op = {
	.name	= "futex",
	.fired	= stackmux_futex_fired,
	.resume	= stackmux_futex_resume,
	.cancel	= stackmux_futex_cancel,
};

/**
 * stackmux_futex_wait - wait for a futex without a stack
 * @uaddr: user address of the futex
 * @flags: FLAGS_*
 * @val: value that it is expected to have
 * @abs_time: absolute deadline, or NULL; FLAGS_CLOCKRT names its clock
 * @range_ns: by how much the timer may be late
 * @bitset: for FUTEX_WAIT_BITSET
 * @restartable: go on with the same deadline after a signal, as futex() does,
 *		 by a restart block
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: the result, or STACKMUX_ARMED.
 */
int stackmux_futex_wait(u32 __user *uaddr, unsigned int flags, u32 val,
			ktime_t *abs_time, u64 range_ns, u32 bitset,
			bool restartable)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_futex *f = stackmux_private(rec, struct stackmux_futex);
	struct futex_hash_bucket *hb;
	int ret;

	if (!bitset)
		return -EINVAL;

	/* As futex_q_init; futex_wait_setup() and futex_queue() set the rest. */
	f->q.wake = futex_wake_mark;
	f->q.pi_state = NULL;
	f->q.rt_waiter = NULL;
	f->q.requeue_pi_key = NULL;
	f->q.bitset = bitset;
	atomic_set(&f->q.requeue_state, 0);	/* Q_REQUEUE_PI_NONE */
	f->uaddr = uaddr;
	f->val = val;
	f->flags = flags;
	stackmux_timer_none(&f->timeout);
	f->restartable = restartable;

	ret = futex_wait_setup(uaddr, val, flags, &f->q, &hb);
	if (ret)
		return ret;

	futex_queue(&f->q, hb, current);
	if (abs_time)
		stackmux_timer_start(&f->timeout, flags & FLAGS_CLOCKRT ?
				     CLOCK_REALTIME : CLOCK_MONOTONIC,
				     *abs_time, range_ns, HRTIMER_MODE_ABS);
	stackmux_arm(rec, &stackmux_futex_op, (unsigned long)futex_wait_queue);
	return STACKMUX_ARMED;
}

static bool stackmux_futexv_fired(struct stackmux_record *rec)
{
	struct stackmux_futexv *f = stackmux_private(rec, struct stackmux_futexv);
	unsigned int i;

	if (stackmux_timer_fired(&f->timeout))
		return true;
	for (i = 0; i < f->count; i++)
		if (!READ_ONCE(f->v[i].q.lock_ptr))
			return true;
	return false;
}

/* The loop of futex_wait_multiple(), entered after its sleep */
static long __stackmux_futexv_resume(struct stackmux_record *rec)
{
	struct stackmux_futexv *f = stackmux_private(rec, struct stackmux_futexv);
	int ret, hint = 0;

	ret = futex_unqueue_multiple(f->v, f->count);
	if (ret >= 0)
		return ret;
	if (stackmux_timer_fired(&f->timeout))
		return -ETIMEDOUT;
	if (signal_pending(current))
		return -ERESTARTSYS;
	ret = futex_wait_multiple_setup(f->v, f->count, &hint);
	if (ret)
		return ret > 0 ? hint : ret;
	__set_current_state(TASK_RUNNING);
	return STACKMUX_REARMED;
}

static long stackmux_futexv_resume(struct stackmux_record *rec)
{
	struct stackmux_futexv *f = stackmux_private(rec, struct stackmux_futexv);
	long ret = __stackmux_futexv_resume(rec);

	if (ret != STACKMUX_REARMED) {
		stackmux_timer_cancel(&f->timeout);
		kfree(f->v);
	}
	return ret;
}

static const struct stackmux_op stackmux_futexv_op = {
	.name	= "futex_waitv",
	.fired	= stackmux_futexv_fired,
	.resume	= stackmux_futexv_resume,
};

/**
 * stackmux_futex_waitv - wait for several futexes without a stack
 * @v: the vector; set to NULL when the record has taken it over
 * @count: its length
 * @timeout: what the caller prepared on its stack, not started; or NULL
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: what futex_wait_multiple() returns, or STACKMUX_ARMED.
 */
int stackmux_futex_waitv(struct futex_vector **v, unsigned int count,
			 struct hrtimer_sleeper *timeout)
{
	struct stackmux_futexv *f = stackmux_private(current->stackmux, struct stackmux_futexv);
	int ret, hint = 0;

	ret = futex_wait_multiple_setup(*v, count, &hint);
	if (ret)
		return ret > 0 ? hint : ret;
	/* The setup prepared for a sleep on the spot; this one comes later. */
	__set_current_state(TASK_RUNNING);

	f->v = *v;
	f->count = count;
	stackmux_timer_none(&f->timeout);
	if (timeout)
		stackmux_timer_start(&f->timeout, timeout->timer.base->clockid,
				     hrtimer_get_softexpires(&timeout->timer), 0,
				     HRTIMER_MODE_ABS);
	*v = NULL;
	stackmux_arm(current->stackmux, &stackmux_futexv_op,
		     (unsigned long)futex_wait_multiple);
	return STACKMUX_ARMED;
}
