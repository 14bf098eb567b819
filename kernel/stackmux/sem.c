// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: semop() and semtimedop() that park
 *
 * The sem_queue and the timer are in the park record, and the operations, too, if they
 * are few.
 *
 * As in __do_semtimedop() no reference on the array is held: as long as the
 * status is -EINTR it exists, since it is not destroyed before each sleeper has
 * got another one, and not freed before an RCU grace period after that.
 *
 * Copied from ipc/sem.c: the loop and the end of __do_semtimedop().
 */
#include <linux/msg.h>
#include <linux/sched/signal.h>
#include <linux/sem.h>
#include <linux/slab.h>

#include "../../ipc/sem.h"
#include "../../ipc/util.h"
#include "stackmux.h"

struct stackmux_sem {
	struct sem_queue queue;
	struct sem_array *sma;
	struct stackmux_timer timeout;
	struct sembuf few[2];
};

/* Pairs with smp_store_release() in wake_up_sem_queue_prepare(). */
static bool stackmux_sem_fired(struct stackmux_record *rec)
{
	struct stackmux_sem *s = stackmux_private(rec, struct stackmux_sem);

	return READ_ONCE(s->queue.status) != -EINTR ||
	       stackmux_timer_fired(&s->timeout);
}

/* How the wait has ended: STACKMUX_REARMED if it goes on */
static long stackmux_sem_status(struct stackmux_sem *s)
{
	bool timed_out = stackmux_timer_fired(&s->timeout);
	struct sem_queue *queue = &s->queue;
	int locknum;
	long error;

	guard(rcu)();
	error = READ_ONCE(queue->status);
	if (error != -EINTR) {
		/* see SEM_BARRIER_2 for purpose/pairing */
		smp_acquire__after_ctrl_dep();
		return error;
	}

	locknum = sem_lock(s->sma, queue->sops, queue->nsops);
	error = READ_ONCE(queue->status);
	if (error == -EINTR && ipc_valid_object(&s->sma->sem_perm)) {
		if (timed_out)
			error = -EAGAIN;
		if (timed_out || signal_pending(current))
			unlink_queue(s->sma, queue);
		else
			error = STACKMUX_REARMED;
	}
	sem_unlock(s->sma, locknum);
	return error;
}

static long stackmux_sem_resume(struct stackmux_record *rec)
{
	struct stackmux_sem *s = stackmux_private(rec, struct stackmux_sem);
	long ret = stackmux_sem_status(s);

	if (ret == STACKMUX_REARMED)
		return ret;
	stackmux_timer_cancel(&s->timeout);
	if (s->queue.sops != s->few)
		kfree(s->queue.sops);
	return ret;
}

static const struct stackmux_op stackmux_sem_op = {
	.name	= "semop",
	.fired	= stackmux_sem_fired,
	.resume	= stackmux_sem_resume,
};

/**
 * stackmux_semop - wait for semaphores without a stack
 * @sma: the array
 * @queue: what the caller has put into a queue of the array
 * @expires: absolute deadline of CLOCK_MONOTONIC, or NULL
 *
 * Context: stackmux_may_park_atomic(); sem_lock() is held for the operations.
 * Return: false if there is no memory; or true: @queue is in no queue any more,
 *	   and the caller is to return STACKMUX_ARMED.
 */
bool stackmux_semop(struct sem_array *sma, struct sem_queue *queue, ktime_t *expires)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_sem *s = stackmux_private(rec, struct stackmux_sem);
	struct sembuf *sops = s->few;

	if (queue->nsops > ARRAY_SIZE(s->few)) {
		sops = kmalloc_array(queue->nsops, sizeof(*sops),
				     GFP_NOWAIT | __GFP_NOWARN);
		if (!sops)
			return false;
	}
	memcpy(sops, queue->sops, queue->nsops * sizeof(*sops));

	s->sma = sma;
	s->queue = *queue;
	s->queue.blocking = sops + (queue->blocking - queue->sops);
	s->queue.sops = sops;
	s->queue.sleeper = current;
	WRITE_ONCE(s->queue.status, -EINTR);
	list_replace(&queue->list, &s->queue.list);

	stackmux_timer_none(&s->timeout);
	if (expires)
		stackmux_timer_start(&s->timeout, CLOCK_MONOTONIC, *expires,
				     current->timer_slack_ns, HRTIMER_MODE_ABS);
	stackmux_arm(rec, &stackmux_sem_op, _RET_IP_);
	return true;
}
