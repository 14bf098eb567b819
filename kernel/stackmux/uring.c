// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: io_uring_enter() that parks while it waits for completions
 *
 * The io_wait_queue of io_cqring_wait() is in the park record. Completions wake it
 * there, or by ctx->cq_wait_nr if the waiter itself runs the work, and what they leave
 * (work, events, flags) is what is asked before the park.
 *
 * Copied from io_uring/io_uring.c: the loop and the end of io_cqring_wait(), what
 * io_cqring_wait_schedule(), __io_cqring_wait_schedule() and
 * io_cqring_schedule_timeout() do before and after they sleep, and the end of
 * io_uring_enter().
 */
#include <linux/file.h>
#include <linux/io_uring.h>

#include "../../io_uring/wait.h"
#include "stackmux.h"

/**
 * struct stackmux_uring - io_uring_enter()
 * @iowq: as in io_cqring_wait()
 * @file: the ring
 * @submitted: result of the call, if not 0
 * @nr_wait: how many completions it takes
 * @timed: the timer of @iowq is in use
 */
struct stackmux_uring {
	struct io_wait_queue iowq;
	struct file *file;
	long submitted;
	int nr_wait;
	bool timed;
};

/* Everything that io_cqring_wait_schedule() looks at before it sleeps */
static bool stackmux_uring_fired(struct stackmux_record *rec)
{
	struct io_wait_queue *iowq = &stackmux_private(rec, struct stackmux_uring)->iowq;
	struct io_ring_ctx *ctx = iowq->ctx;

	return READ_ONCE(ctx->check_cq) || !llist_empty(&ctx->work_llist) ||
	       task_work_pending(current) || io_should_wake(iowq) ||
	       READ_ONCE(iowq->hit_timeout);
}

/* From now on completions wake the task. */
static int stackmux_uring_queue(struct stackmux_uring *u)
{
	struct io_wait_queue *iowq = &u->iowq;
	struct io_ring_ctx *ctx = iowq->ctx;
	int nr_wait = 1;

	/* Once the minimum time is over anything will do. */
	if (!READ_ONCE(iowq->hit_timeout))
		nr_wait = (int)iowq->cq_tail - READ_ONCE(ctx->rings->cq.tail);

	if (ctx->flags & IORING_SETUP_DEFER_TASKRUN)
		atomic_set(&ctx->cq_wait_nr, nr_wait);
	else if (list_empty_careful(&iowq->wq.entry))
		add_wait_queue_exclusive(&ctx->cq_wait, &iowq->wq);
	return nr_wait;
}

/* The loop of io_cqring_wait(), entered after its sleep. False: wait again. */
static bool __stackmux_uring_resume(struct stackmux_record *rec, int *ret)
{
	struct stackmux_uring *u = stackmux_private(rec, struct stackmux_uring);
	struct io_wait_queue *iowq = &u->iowq;
	struct io_ring_ctx *ctx = iowq->ctx;

	for (;;) {
		*ret = READ_ONCE(iowq->hit_timeout) ? -ETIME : 0;

		atomic_set(&ctx->cq_wait_nr, IO_CQ_WAKE_INIT);
		if (!llist_empty(&ctx->work_llist))
			io_run_local_work(ctx, u->nr_wait);
		io_run_task_work();
		if (*ret)
			return true;

		if (test_bit(IO_CHECK_CQ_OVERFLOW_BIT, &ctx->check_cq)) {
			io_cqring_do_overflow_flush(ctx);
			/* It takes the application to free space. */
			if (test_bit(IO_CHECK_CQ_OVERFLOW_BIT, &ctx->check_cq))
				return true;
		}
		if (test_bit(IO_CHECK_CQ_DROPPED_BIT, &ctx->check_cq)) {
			*ret = -EBADR;
			return true;
		}
		if (io_should_wake(iowq))
			return true;

		u->nr_wait = stackmux_uring_queue(u);
		/*
		 * Pairs with the cmpxchg in io_req_local_work_add(), and with
		 * smp_mb() in wq_has_sleeper(), which io_cqring_wake() calls.
		 */
		smp_mb();
		if (!stackmux_uring_fired(rec)) {
			if (!task_sigpending(current))
				return false;
			*ret = -EINTR;
			atomic_set(&ctx->cq_wait_nr, IO_CQ_WAKE_INIT);
			return true;
		}
		cond_resched();
	}
}

static long stackmux_uring_resume(struct stackmux_record *rec)
{
	struct stackmux_uring *u = stackmux_private(rec, struct stackmux_uring);
	struct io_ring_ctx *ctx = u->iowq.ctx;
	long ret;
	int res;

	if (!__stackmux_uring_resume(rec, &res))
		return STACKMUX_REARMED;

	current->in_iowait = 0;
	if (u->timed)
		hrtimer_cancel(&u->iowq.t);
	if (!(ctx->flags & IORING_SETUP_DEFER_TASKRUN))
		finish_wait(&ctx->cq_wait, &u->iowq.wq);
	restore_saved_sigmask_unless(res == -EINTR);
	if (READ_ONCE(ctx->rings->cq.head) != READ_ONCE(ctx->rings->cq.tail))
		res = 0;

	ret = u->submitted;
	if (!ret) {
		ret = res;
		if (res == -EBADR)
			clear_bit(IO_CHECK_CQ_DROPPED_BIT, &ctx->check_cq);
	}
	fput(u->file);
	return ret;
}

static const struct stackmux_op stackmux_uring_op = {
	.name	= "io_uring",
	.fired	= stackmux_uring_fired,
	.resume	= stackmux_uring_resume,
};

/**
 * stackmux_uring_wait - wait for completions without a stack
 * @iowq: what io_cqring_wait() has prepared
 * @start_time: when the wait began, by the clock of the ring
 *
 * Context: outermost level of io_uring_enter(), for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
int stackmux_uring_wait(struct io_wait_queue *iowq, ktime_t start_time)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_uring *u = stackmux_private(rec, struct stackmux_uring);
	struct io_ring_ctx *ctx = iowq->ctx;
	bool minimum = iowq->min_timeout;

	u->iowq = *iowq;
	INIT_LIST_HEAD(&u->iowq.wq.entry);
	u->timed = minimum || iowq->timeout != KTIME_MAX;
	u->nr_wait = stackmux_uring_queue(u);
	if (u->timed) {
		hrtimer_init(&u->iowq.t, ctx->clockid, io_cqring_timer_mode());
		u->iowq.t.function = minimum ? io_cqring_min_timer_wakeup :
					       io_cqring_timer_wakeup;
		hrtimer_start(&u->iowq.t, minimum ?
			      ktime_add_ns(iowq->min_timeout, start_time) :
			      iowq->timeout, io_cqring_timer_mode());
	}
	if (current_pending_io())
		current->in_iowait = 1;
	stackmux_arm(rec, &stackmux_uring_op, _RET_IP_);
	return STACKMUX_ARMED;
}

/**
 * stackmux_uring_armed - the end of io_uring_enter() comes later
 * @file: the ring
 * @submitted: what the call returns, if not 0, whatever the wait returns
 *
 * Context: as stackmux_uring_wait().
 * Return: STACKMUX_ARMED.
 */
long stackmux_uring_armed(struct file *file, long submitted)
{
	struct stackmux_uring *u = stackmux_private(current->stackmux, struct stackmux_uring);

	u->file = get_file(file);
	u->submitted = submitted;
	return STACKMUX_ARMED;
}
