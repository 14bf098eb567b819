// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: nanosleep() and clock_nanosleep() that park
 */
#include <linux/hrtimer.h>
#include <linux/sched/signal.h>
#include <linux/time64.h>

#include "stackmux.h"
#include "ops.h"

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
 * Return: the result, or STACKMUX_ARMED.
 */
long stackmux_nanosleep(ktime_t rqtp, int mode, clockid_t clockid)
{
	struct stackmux_sleep *s = &current->stackmux->sleep;
	struct stackmux_record *rec;
	long ret;

	s->absolute = mode == HRTIMER_MODE_ABS;
	s->restarted = false;
	stackmux_timer_start(&s->timer, clockid, rqtp, current->timer_slack_ns, mode);
	rec = stackmux_arm(STACKMUX_OP_SLEEP);
	while (stackmux_stay_armed(rec)) {
		ret = stackmux_sleep_resume(rec);
		if (ret != STACKMUX_ARMED)
			return ret;
	}
	return STACKMUX_ARMED;
}

/**
 * stackmux_nanosleep_restart - go on with a sleep that a signal interrupted
 * @restart: what the sleep left
 *
 * Context: as above.
 * Return: STACKMUX_ARMED.
 */
long stackmux_nanosleep_restart(struct restart_block *restart)
{
	struct stackmux_sleep *s = &current->stackmux->sleep;

	s->absolute = false;
	s->restarted = true;
	stackmux_timer_start(&s->timer, restart->nanosleep.clockid,
			     restart->nanosleep.expires, 0, HRTIMER_MODE_ABS);
	stackmux_arm(STACKMUX_OP_SLEEP);
	return STACKMUX_ARMED;
}

bool stackmux_sleep_fired(struct stackmux_record *rec)
{
	return stackmux_timer_fired(&rec->sleep.timer);
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

long stackmux_sleep_resume(struct stackmux_record *rec)
{
	struct restart_block *restart = &current->restart_block;
	struct stackmux_sleep *s = &rec->sleep;
	struct hrtimer *timer = &s->timer.sleeper.timer;
	long ret;

	if (stackmux_timer_fired(&s->timer))
		return 0;
	if (!signal_pending(current))
		return STACKMUX_ARMED;

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
	return stackmux_nanosleep_set_restart(restart);
}
