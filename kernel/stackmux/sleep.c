// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: nanosleep() and clock_nanosleep() that park
 */
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>
#include <linux/time64.h>

#include "../time/nanosleep.h"
#include "stackmux.h"

struct stackmux_sleep {
	struct stackmux_timer timer;
	bool absolute;
	bool restarted;
};

static bool stackmux_sleep_fired(struct stackmux_record *rec)
{
	return stackmux_timer_fired(&stackmux_private(rec, struct stackmux_sleep)->timer);
}

/* What do_nanosleep() returns to a sleep that a signal has ended early */
static long stackmux_sleep_left(struct stackmux_sleep *s)
{
	struct restart_block *restart = &current->restart_block;
	struct timespec64 left;
	ktime_t rem;

	if (restart->nanosleep.type == TT_NONE)
		return -ERESTART_RESTARTBLOCK;
	rem = hrtimer_expires_remaining(&s->timer.sleeper.timer);
	if (rem <= 0)
		return 0;
	left = ktime_to_timespec64(rem);
	return nanosleep_copyout(restart, &left);
}

static long stackmux_sleep_resume(struct stackmux_record *rec)
{
	struct restart_block *restart = &current->restart_block;
	struct stackmux_sleep *s = stackmux_private(rec, struct stackmux_sleep);
	struct hrtimer *timer = &s->timer.sleeper.timer;
	long ret;

	if (stackmux_timer_fired(&s->timer))
		return 0;
	if (!signal_pending(current))
		return STACKMUX_REARMED;

	hrtimer_cancel(timer);
	if (stackmux_timer_fired(&s->timer))
		return 0;
	ret = stackmux_sleep_left(s);
	if (ret != -ERESTART_RESTARTBLOCK || s->restarted)
		return ret;
	/* Absolute sleeps have no remaining time and start anew. */
	if (s->absolute)
		return -ERESTARTNOHAND;
	restart->nanosleep.clockid = timer->base->clockid;
	restart->nanosleep.expires = hrtimer_get_expires_tv64(timer);
	return set_restart_fn(restart, hrtimer_nanosleep_restart);
}

static const struct stackmux_op stackmux_sleep_op = {
	.name	= "nanosleep",
	.fired	= stackmux_sleep_fired,
	.resume	= stackmux_sleep_resume,
};

static long stackmux_sleep_arm(ktime_t expires, u64 slack, enum hrtimer_mode mode,
			       clockid_t clockid, bool restarted)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_sleep *s = stackmux_private(rec, struct stackmux_sleep);

	s->absolute = mode == HRTIMER_MODE_ABS && !restarted;
	s->restarted = restarted;
	stackmux_timer_start(&s->timer, clockid, expires, slack, mode);
	stackmux_arm(rec, &stackmux_sleep_op, (unsigned long)hrtimer_nanosleep);
	return STACKMUX_ARMED;
}

/**
 * stackmux_nanosleep - sleep without a stack
 * @rqtp: until when, or how long
 * @mode: HRTIMER_MODE_ABS or HRTIMER_MODE_REL
 * @clockid: of which clock
 *
 * The restart block holds where the remaining time goes, as for
 * hrtimer_nanosleep().
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
long stackmux_nanosleep(ktime_t rqtp, int mode, clockid_t clockid)
{
	return stackmux_sleep_arm(rqtp, current->timer_slack_ns, mode, clockid, false);
}

/**
 * stackmux_nanosleep_restart - go on with a sleep that a signal interrupted
 * @restart: what the sleep left
 *
 * Context, Return: as stackmux_nanosleep().
 */
long stackmux_nanosleep_restart(struct restart_block *restart)
{
	return stackmux_sleep_arm(restart->nanosleep.expires, 0, HRTIMER_MODE_ABS,
				  restart->nanosleep.clockid, true);
}
