// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: epoll_wait(), epoll_pwait() and epoll_pwait2() that park
 *
 * Part of fs/eventpoll.c, since it looks into struct eventpoll. The wait queue
 * entry and the timer of ep_poll() are in the park record; the entry leaves the
 * queue when it is woken, as there, so that the next event wakes the next waiter.
 */
#include <asm/syscall.h>
#include "stackmux.h"
#include "ops.h"

static int stackmux_epoll_wake(struct wait_queue_entry *wait, unsigned int mode,
			       int sync, void *key)
{
	struct task_struct *tsk = wait->private;
	int ret;

	/*
	 * A waiter that is awake already does not count: if it is being killed
	 * it does not look for events, so the next one is woken, too.
	 */
	WRITE_ONCE(tsk->stackmux->epoll.woken, true);
	ret = default_wake_function(wait, mode, sync, key);
	/* Pairs with list_empty_careful() in __stackmux_epoll_resume(). */
	list_del_init_careful(&wait->entry);
	return ret;
}

/* Queues the entry, unless there are events: then false. */
static __always_inline bool stackmux_epoll_queue(struct eventpoll *ep, struct stackmux_record *rec)
{
	struct stackmux_epoll *e = &rec->epoll;
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

/**
 * stackmux_epoll_masked - restore the signal mask at the end of the wait
 *
 * For epoll_pwait() and epoll_pwait2(), after they have armed.
 * Return: STACKMUX_ARMED.
 */
int stackmux_epoll_masked(void)
{
	current->stackmux->epoll.masked = true;
	return STACKMUX_ARMED;
}

bool stackmux_epoll_fired(struct stackmux_record *rec)
{
	return READ_ONCE(rec->epoll.woken) ||
	       stackmux_timer_fired(&rec->epoll.timeout);
}

/* The loop of ep_poll(), entered after its sleep */
static bool __stackmux_epoll_resume(struct eventpoll *ep, struct stackmux_record *rec,
				    int *res)
{
	struct stackmux_epoll *e = &rec->epoll;
	bool timed_out = stackmux_timer_fired(&e->timeout);
	bool eavail = true;

	if (!list_empty_careful(&e->wait.entry)) {
		spin_lock_irq(&ep->lock);
		/* Woken after the deadline: the event is this waiter's. */
		if (timed_out)
			eavail = list_empty(&e->wait.entry);
		__remove_wait_queue(&ep->wq, &e->wait);
		spin_unlock_irq(&ep->lock);
	}

	do {
		if (eavail) {
			*res = ep_send_events(ep, e->events, e->maxevents);
			if (*res)
				return true;
		}
		*res = 0;
		if (timed_out)
			return true;
		eavail = ep_busy_loop(ep, false);
		if (eavail)
			continue;
		*res = -EINTR;
		if (signal_pending(current))
			return true;
		eavail = !stackmux_epoll_queue(ep, rec);
	} while (eavail);
	return false;
}

/**
 * stackmux_epoll_wait - wait for events without a stack
 * @ep: where from; the caller holds a reference on its file
 * @events: user address that they go to
 * @maxevents: how many there is room for
 * @to: absolute deadline of CLOCK_MONOTONIC, or NULL
 * @slack: by how many ns the wake-up may be late
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: the result; STACKMUX_ARMED; or STACKMUX_EPOLL_EVENTS.
 */
noinline int stackmux_epoll_wait(struct eventpoll *ep, struct epoll_event __user *events,
				 int maxevents, ktime_t *to, u64 slack)
{
	struct stackmux_record *rec = stackmux_claim(STACKMUX_OP_EPOLL);
	struct stackmux_epoll *e = &rec->epoll;
	int res;

	if (!stackmux_epoll_queue(ep, rec))
		return STACKMUX_EPOLL_EVENTS;

	e->file = ep->file;
	e->events = events;
	e->maxevents = maxevents;
	e->masked = false;
	e->timeout.set = false;
	if (to)
		stackmux_timer_start(&e->timeout, CLOCK_MONOTONIC, *to, slack,
				     HRTIMER_MODE_ABS);
	stackmux_arm_at(rec, STACKMUX_OP_EPOLL, _RET_IP_);

	while (stackmux_stay_armed(rec)) {
		/* Woken, and nothing else */
		if (list_empty_careful(&e->wait.entry) && !stackmux_timer_fired(&e->timeout))
			res = STACKMUX_EPOLL_EVENTS;
		else if (!__stackmux_epoll_resume(ep, rec, &res))
			continue;
		stackmux_timer_cancel(&e->timeout);
		return res;
	}
	/* The call is about to give up its own reference. */
	get_file(ep->file);
	return STACKMUX_ARMED;
}

long stackmux_epoll_resume(struct stackmux_record *rec)
{
	struct stackmux_epoll *e = &rec->epoll;
	int res;

	if (!__stackmux_epoll_resume(e->file->private_data, rec, &res))
		return STACKMUX_ARMED;

	stackmux_timer_cancel(&e->timeout);
	fput(e->file);
	if (e->masked)
		restore_saved_sigmask_unless(res == -EINTR);
	return res;
}
