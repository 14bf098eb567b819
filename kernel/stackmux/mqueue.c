// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: mq_timedreceive() and mq_timedsend() that park
 *
 * The place among the waiters and the timer are in the park record, with a reference
 * on the file. A receiver is handed a message, a sender gets rid of its own.
 *
 * Copied from ipc/mqueue.c: the loop of wq_sleep(), and the ends of do_mq_timedsend()
 * and do_mq_timedreceive().
 */
#include <linux/file.h>
#include <linux/msg.h>
#include <linux/sched/signal.h>

#include "../../ipc/mqueue.h"
#include "../../ipc/util.h"
#include "stackmux.h"

struct stackmux_mq {
	struct ext_wait_queue wait;
	struct stackmux_timer timeout;
	struct file *file;
	int sr;
	char __user *buf;
	unsigned int __user *prio;
};

/* Pairs with smp_store_release() in __pipelined_op(). */
static bool stackmux_mq_fired(struct stackmux_record *rec)
{
	struct stackmux_mq *q = stackmux_private(rec, struct stackmux_mq);

	return READ_ONCE(q->wait.state) == STATE_READY ||
	       stackmux_timer_fired(&q->timeout);
}

/* What wq_sleep() does after its sleep */
static long stackmux_mq_status(struct stackmux_mq *q)
{
	struct mqueue_inode_info *info = MQUEUE_I(file_inode(q->file));
	bool timed_out = stackmux_timer_fired(&q->timeout);

	if (READ_ONCE(q->wait.state) == STATE_READY) {
		/* see MQ_BARRIER for purpose/pairing */
		smp_acquire__after_ctrl_dep();
		return 0;
	}

	guard(spinlock)(&info->lock);
	if (READ_ONCE(q->wait.state) == STATE_READY)
		return 0;
	if (!signal_pending(current) && !timed_out)
		return STACKMUX_REARMED;
	list_del(&q->wait.list);
	return signal_pending(current) ? -ERESTARTSYS : -ETIMEDOUT;
}

static long stackmux_mq_received(struct stackmux_mq *q)
{
	struct msg_msg *msg = q->wait.msg;
	long ret = msg->m_ts;

	if ((q->prio && put_user(msg->m_type, q->prio)) ||
	    store_msg(q->buf, msg, msg->m_ts))
		ret = -EFAULT;
	free_msg(msg);
	return ret;
}

static long stackmux_mq_resume(struct stackmux_record *rec)
{
	struct stackmux_mq *q = stackmux_private(rec, struct stackmux_mq);
	long ret = stackmux_mq_status(q);

	if (ret == STACKMUX_REARMED)
		return ret;
	stackmux_timer_cancel(&q->timeout);
	if (q->sr == RECV) {
		if (!ret)
			ret = stackmux_mq_received(q);
	} else if (ret) {
		free_msg(q->wait.msg);
	}
	fput(q->file);
	return ret;
}

static const struct stackmux_op stackmux_mq_op = {
	.name	= "mqueue",
	.fired	= stackmux_mq_fired,
	.resume	= stackmux_mq_resume,
};

static int stackmux_mq_wait(struct file *file, int sr, ktime_t *expires,
			    struct msg_msg *msg)
{
	struct mqueue_inode_info *info = MQUEUE_I(file_inode(file));
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_mq *q = stackmux_private(rec, struct stackmux_mq);

	q->file = get_file(file);
	q->sr = sr;
	q->wait.task = current;
	q->wait.msg = msg;
	/* memory barrier not required, info->lock is held */
	WRITE_ONCE(q->wait.state, STATE_NONE);
	wq_add(info, sr, &q->wait);
	spin_unlock(&info->lock);

	stackmux_timer_none(&q->timeout);
	if (expires)
		stackmux_timer_start(&q->timeout, CLOCK_REALTIME, *expires, 0,
				     HRTIMER_MODE_ABS);
	stackmux_arm(rec, &stackmux_mq_op, (unsigned long)wq_sleep);
	return STACKMUX_ARMED;
}

/**
 * stackmux_mq_receive - wait for a message without a stack
 * @file: the message queue
 * @expires: absolute deadline of CLOCK_REALTIME, or NULL
 * @buf: user address that the message goes to
 * @prio: user address that its priority goes to, or NULL
 *
 * Context: stackmux_may_park_atomic(); the lock of the queue is held, and is
 * released.
 * Return: STACKMUX_ARMED.
 */
int stackmux_mq_receive(struct file *file, ktime_t *expires, char __user *buf,
			unsigned int __user *prio)
{
	struct stackmux_mq *q = stackmux_private(current->stackmux, struct stackmux_mq);

	q->buf = buf;
	q->prio = prio;
	return stackmux_mq_wait(file, RECV, expires, NULL);
}

/**
 * stackmux_mq_send - wait for space for a message without a stack
 * @file: the message queue
 * @expires: absolute deadline of CLOCK_REALTIME, or NULL
 * @msg: the message, which belongs to the record from now on
 *
 * Context, Return: as stackmux_mq_receive().
 */
int stackmux_mq_send(struct file *file, ktime_t *expires, struct msg_msg *msg)
{
	return stackmux_mq_wait(file, SEND, expires, msg);
}
