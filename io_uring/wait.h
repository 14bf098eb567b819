/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What io_cqring_wait() shares with kernel/stackmux/uring.c
 */
#ifndef IOU_WAIT_H
#define IOU_WAIT_H

#include <linux/hrtimer.h>
#include <linux/percpu_counter.h>
#include <linux/sched.h>
#include <linux/sched/rt.h>
#include <linux/stackmux.h>

#include "io_uring.h"

/*
 * No waiters. It's larger than any valid value of the tw counter
 * so that tests against ->cq_wait_nr would fail and skip wake_up().
 */
#define IO_CQ_WAKE_INIT		(-1U)

static inline bool current_pending_io(void)
{
	struct io_uring_task *tctx = current->io_uring;

	if (!tctx)
		return false;
	return percpu_counter_read_positive(&tctx->inflight);
}

/* Same policy as for hrtimer sleepers, see __hrtimer_setup_sleeper(). */
static inline enum hrtimer_mode io_cqring_timer_mode(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT) && rt_or_dl_task_policy(current))
		return HRTIMER_MODE_ABS_HARD;
	return HRTIMER_MODE_ABS;
}

#ifdef CONFIG_STACKMUX
int io_run_local_work(struct io_ring_ctx *ctx, int min_events);
void io_cqring_do_overflow_flush(struct io_ring_ctx *ctx);
enum hrtimer_restart io_cqring_timer_wakeup(struct hrtimer *timer);
enum hrtimer_restart io_cqring_min_timer_wakeup(struct hrtimer *timer);
#endif

/* kernel/stackmux/uring.c; called only where stackmux_may_park(), or after it */
int stackmux_uring_wait(struct io_wait_queue *iowq, ktime_t start_time);
long stackmux_uring_armed(struct file *file, long submitted);

#endif
