// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: epoll_wait(), epoll_pwait() and epoll_pwait2() that park
 *
 * The wait queue entry and the timer of ep_poll() are in the park record. The entry
 * leaves the queue when it is woken, as there, so that the next event wakes the next
 * waiter. When the wait has ended ep_poll() itself goes on.
 *
 * Copied from fs/eventpoll.c: how ep_poll() queues its entry and removes it after the
 * sleep, and ep_autoremove_wake_function().
 */
#include <linux/file.h>
#include <linux/sched/signal.h>

#include "../../fs/eventpoll.h"
#include "stackmux.h"

struct stackmux_epoll {
	wait_queue_entry_t wait;
	struct eventpoll *ep;
	struct epoll_event __user *events;
	int maxevents;
	bool woken;
	bool masked;		/* epoll_pwait(): the signal mask is to be restored */
	struct stackmux_timer timeout;
};

static int stackmux_epoll_wake(struct wait_queue_entry *wait, unsigned int mode,
			       int sync, void *key)
{
	struct stackmux_epoll *e = container_of(wait, struct stackmux_epoll, wait);
	int ret;

	/*
	 * A waiter that is awake already does not count: if it is being killed
	 * it does not look for events, so the next one is woken, too. The store
	 * pairs with stackmux_epoll_fired(), by the barriers of a wake-up.
	 */
	WRITE_ONCE(e->woken, true);
	ret = default_wake_function(wait, mode, sync, key);
	/* Pairs with list_empty_careful() in stackmux_epoll_resume(). */
	list_del_init_careful(&wait->entry);
	return ret;
}

static bool stackmux_epoll_fired(struct stackmux_record *rec)
{
	struct stackmux_epoll *e = stackmux_private(rec, struct stackmux_epoll);

	return READ_ONCE(e->woken) || stackmux_timer_fired(&e->timeout);
}

/* Queues the entry, unless there are events: then false. */
static __always_inline bool stackmux_epoll_queue(struct stackmux_epoll *e,
						 struct eventpoll *ep)
{
	bool eavail;

	init_waitqueue_func_entry(&e->wait, stackmux_epoll_wake);
	INIT_LIST_HEAD(&e->wait.entry);
	e->wait.private = current;
	e->woken = false;

	spin_lock_irq(&ep->lock);
	eavail = ep_events_available(ep);
	if (!eavail)
		__add_wait_queue_exclusive(&ep->wq, &e->wait);
	spin_unlock_irq(&ep->lock);
	return !eavail;
}

/* Removes the entry: false if the wait is over, and no event is this waiter's. */
static noinline bool stackmux_epoll_dequeue(struct stackmux_epoll *e, bool timed_out)
{
	struct eventpoll *ep = e->ep;
	bool eavail = true;

	spin_lock_irq(&ep->lock);
	/* Woken after the deadline: the event is this waiter's. */
	if (timed_out)
		eavail = list_empty(&e->wait.entry);
	__remove_wait_queue(&ep->wq, &e->wait);
	spin_unlock_irq(&ep->lock);
	return eavail;
}

/* There was no event after all: waits again, or has the result. */
static noinline int stackmux_epoll_again(struct stackmux_epoll *e)
{
	int res = STACKMUX_ARMED;

	while (res == STACKMUX_ARMED && !stackmux_epoll_queue(e, e->ep))
		res = ep_poll_parked(e->ep, e->events, e->maxevents, false);
	return res;
}

static long stackmux_epoll_resume(struct stackmux_record *rec)
{
	struct stackmux_epoll *e = stackmux_private(rec, struct stackmux_epoll);
	bool timed_out = stackmux_timer_fired(&e->timeout);
	int res = 0;

	/* Pairs with list_del_init_careful() in stackmux_epoll_wake(). */
	if (likely(list_empty_careful(&e->wait.entry)) ||
	    stackmux_epoll_dequeue(e, timed_out))
		res = ep_poll_parked(e->ep, e->events, e->maxevents, timed_out);
	if (unlikely(res == STACKMUX_ARMED)) {
		res = stackmux_epoll_again(e);
		if (res == STACKMUX_ARMED)
			return STACKMUX_REARMED;
	}
	stackmux_timer_cancel(&e->timeout);
	fput(e->ep->file);
	if (e->masked)
		restore_saved_sigmask_unless(res == -EINTR);
	return res;
}

static const struct stackmux_op stackmux_epoll_op = {
	.name	= "epoll",
	.fired	= stackmux_epoll_fired,
	.resume	= stackmux_epoll_resume,
};

/* No inline function, so that a wait without a deadline has fewer registers to save */
static noinline void stackmux_epoll_timeout(struct stackmux_epoll *e, ktime_t to, u64 slack)
{
	stackmux_timer_start(&e->timeout, CLOCK_MONOTONIC, to, slack, HRTIMER_MODE_ABS);
}

/**
 * stackmux_epoll_wait - wait for events without a stack
 * @ep: where from; the caller holds a reference on its file
 * @events: user address that they go to
 * @maxevents: how many there is space for
 * @to: absolute deadline of CLOCK_MONOTONIC, or NULL
 * @slack: by how many ns the wake-up may be late
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: true: armed; false: there are events to be looked for.
 */
bool stackmux_epoll_wait(struct eventpoll *ep, struct epoll_event __user *events,
			 int maxevents, ktime_t *to, u64 slack)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_epoll *e = stackmux_private(rec, struct stackmux_epoll);

	e->ep = ep;
	e->events = events;
	e->maxevents = maxevents;
	e->masked = false;
	stackmux_timer_none(&e->timeout);
	if (to)
		stackmux_epoll_timeout(e, *to, slack);
	if (unlikely(!stackmux_epoll_queue(e, ep))) {
		stackmux_timer_cancel(&e->timeout);
		return false;
	}
	/* The call is about to give up its own reference. */
	get_file(ep->file);
	stackmux_arm(rec, &stackmux_epoll_op, _RET_IP_);
	return true;
}

/**
 * stackmux_epoll_masked - restore the signal mask at the end of the wait
 *
 * For epoll_pwait() and epoll_pwait2(), after they have armed.
 *
 * Context: as stackmux_epoll_wait().
 * Return: STACKMUX_ARMED.
 */
int stackmux_epoll_masked(void)
{
	stackmux_private(current->stackmux, struct stackmux_epoll)->masked = true;
	return STACKMUX_ARMED;
}
