// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: io_getevents() and io_pgetevents() that park
 *
 * Part of fs/aio.c. The aio_waiter and the timer of read_events() are in the park
 * record, with a reference on the context.
 */
#include "../kernel/stackmux/stackmux.h"
#include "../kernel/stackmux/ops.h"

struct stackmux_aio {
	struct aio_waiter wait;
	struct stackmux_timer timeout;
	struct kioctx *ctx;
	struct io_event __user *events;
	long min_nr;
	long nr;
	long got;
	unsigned int tail;
	bool masked;
};

/*
 * Queue, then look: an event that comes later moves the tail away from where it
 * was, and finds the waiter in the queue.
 */
static bool stackmux_aio_done(struct stackmux_aio *a)
{
	struct kioctx *ctx = a->ctx;

	a->wait.min_nr = a->min_nr - a->got;
	spin_lock_irq(&ctx->wait.lock);
	if (list_empty(&a->wait.w.entry))
		__add_wait_queue(&ctx->wait, &a->wait.w);
	spin_unlock_irq(&ctx->wait.lock);
	a->tail = READ_ONCE(ctx->tail);
	/* Pairs with smp_mb() in aio_complete(). */
	smp_mb();
	return aio_read_events(ctx, a->min_nr, a->nr, a->events, &a->got);
}

/**
 * stackmux_aio_wait - wait for completions without a stack
 * @ctx: their context; the caller holds a reference
 * @min_nr: how many to wait for
 * @nr: how many there is room for
 * @events: user address that they go to
 * @until: how long at most, KTIME_MAX: for ever
 * @got: how many are there already
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: what read_events() returns, or STACKMUX_ARMED.
 */
noinline long stackmux_aio_wait(struct kioctx *ctx, long min_nr, long nr,
		       struct io_event __user *events, ktime_t until, long got)
{
	struct stackmux_record *rec = stackmux_claim(STACKMUX_OP_AIO);
	struct stackmux_aio *a = stackmux_private(rec, struct stackmux_aio);

	a->ctx = ctx;
	a->events = events;
	a->min_nr = min_nr;
	a->nr = nr;
	a->got = got;
	a->masked = false;
	init_wait(&a->wait.w);
	if (stackmux_aio_done(a)) {
		finish_wait(&ctx->wait, &a->wait.w);
		return a->got;
	}

	percpu_ref_get(&ctx->users);
	a->timeout.set = false;
	if (until != KTIME_MAX)
		stackmux_timer_start(&a->timeout, CLOCK_MONOTONIC, until,
				     current->timer_slack_ns, HRTIMER_MODE_REL);
	stackmux_arm_at(rec, STACKMUX_OP_AIO, _RET_IP_);
	return STACKMUX_ARMED;
}

/**
 * stackmux_aio_masked - restore the signal mask at the end of the wait
 *
 * For io_pgetevents(), after it has armed.
 *
 * Return: STACKMUX_ARMED.
 */
int stackmux_aio_masked(void)
{
	struct stackmux_record *rec = current->stackmux;

	stackmux_private(rec, struct stackmux_aio)->masked = true;
	return STACKMUX_ARMED;
}

bool stackmux_aio_fired(struct stackmux_record *rec)
{
	struct stackmux_aio *a = stackmux_private(rec, struct stackmux_aio);

	return READ_ONCE(a->ctx->tail) != a->tail || atomic_read(&a->ctx->dead) ||
	       stackmux_timer_fired(&a->timeout);
}

/* The end of io_getevents() or io_pgetevents() */
static long stackmux_aio_result(struct stackmux_aio *a)
{
	bool interrupted = signal_pending(current);

	if (a->masked)
		restore_saved_sigmask_unless(interrupted);
	if (!a->got && interrupted)
		return a->masked ? -ERESTARTNOHAND : -EINTR;
	return a->got;
}

long stackmux_aio_resume(struct stackmux_record *rec)
{
	struct stackmux_aio *a = stackmux_private(rec, struct stackmux_aio);
	bool timed_out = stackmux_timer_fired(&a->timeout);

	if (!stackmux_aio_done(a) && !timed_out && !signal_pending(current))
		return STACKMUX_ARMED;

	finish_wait(&a->ctx->wait, &a->wait.w);
	stackmux_timer_cancel(&a->timeout);
	percpu_ref_put(&a->ctx->users);
	return stackmux_aio_result(a);
}
