// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: msgrcv() that parks
 *
 * Part of ipc/msg.c. The msg_receiver is in the park record; senders find it in
 * the queue of the message queue and hand it a message, or an error.
 *
 * As in do_msgrcv() no reference on the queue is held: as long as r_msg is
 * -EAGAIN it exists, since it is not destroyed before each receiver has got
 * something else, and not freed before an RCU grace period after that.
 */
#include "../kernel/stackmux/stackmux.h"
#include "../kernel/stackmux/ops.h"

struct stackmux_msg {
	struct msg_receiver receiver;
	struct msg_queue *msq;
	void __user *buf;
	size_t bufsz;
};

/**
 * stackmux_msgrcv - wait for a message without a stack
 * @msq: the queue
 * @buf: user address that the message goes to
 * @bufsz: size of its text at most
 * @type: which messages, with @mode
 * @mode: SEARCH_*
 * @maxsize: longer ones end the wait with -E2BIG
 *
 * Context: stackmux_may_park_atomic(); the lock of the queue is held. The caller
 * returns STACKMUX_ARMED.
 */
noinline void stackmux_msgrcv(struct msg_queue *msq, void __user *buf, size_t bufsz,
		     long type, int mode, long maxsize)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_msg *m = stackmux_private(rec, struct stackmux_msg);

	m->msq = msq;
	m->buf = buf;
	m->bufsz = bufsz;
	m->receiver.r_tsk = current;
	m->receiver.r_msgtype = type;
	m->receiver.r_mode = mode;
	m->receiver.r_maxsize = maxsize;
	WRITE_ONCE(m->receiver.r_msg, ERR_PTR(-EAGAIN));
	list_add_tail(&m->receiver.r_list, &msq->q_receivers);
	stackmux_arm_at(rec, STACKMUX_OP_MSG, _RET_IP_);
}

/* Pairs with smp_store_release() in pipelined_send() and expunge_all(). */
bool stackmux_msg_fired(struct stackmux_record *rec)
{
	struct stackmux_msg *m = stackmux_private(rec, struct stackmux_msg);

	return READ_ONCE(m->receiver.r_msg) != ERR_PTR(-EAGAIN);
}

/* What was received: -EAGAIN if the wait goes on */
static struct msg_msg *stackmux_msg_received(struct stackmux_msg *m)
{
	struct msg_msg *msg;

	guard(rcu)();
	msg = READ_ONCE(m->receiver.r_msg);
	if (msg != ERR_PTR(-EAGAIN)) {
		/* see MSG_BARRIER for purpose/pairing */
		smp_acquire__after_ctrl_dep();
		return msg;
	}

	ipc_lock_object(&m->msq->q_perm);
	msg = READ_ONCE(m->receiver.r_msg);
	if (msg == ERR_PTR(-EAGAIN) && signal_pending(current)) {
		list_del(&m->receiver.r_list);
		msg = ERR_PTR(-ERESTARTNOHAND);
	}
	ipc_unlock_object(&m->msq->q_perm);
	return msg;
}

long stackmux_msg_resume(struct stackmux_record *rec)
{
	struct stackmux_msg *m = stackmux_private(rec, struct stackmux_msg);
	struct msg_msg *msg = stackmux_msg_received(m);
	long ret;

	/* Still in the queue, so no sender has passed it by. */
	if (msg == ERR_PTR(-EAGAIN))
		return STACKMUX_ARMED;
	if (IS_ERR(msg))
		return PTR_ERR(msg);
	ret = do_msg_fill(m->buf, msg, m->bufsz);
	free_msg(msg);
	return ret;
}
