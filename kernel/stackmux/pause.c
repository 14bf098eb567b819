// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: pause() that parks
 */
#include <linux/sched/signal.h>

#include "../signal.h"
#include "stackmux.h"

/* A signal wakes, and no task goes to sleep to which one is pending. */
static bool stackmux_pause_fired(struct stackmux_record *rec)
{
	return false;
}

static long stackmux_pause_resume(struct stackmux_record *rec)
{
	return signal_pending(current) ? -ERESTARTNOHAND : STACKMUX_REARMED;
}

static const struct stackmux_op stackmux_pause_op = {
	.name	= "pause",
	.fired	= stackmux_pause_fired,
	.resume	= stackmux_pause_resume,
};

/**
 * stackmux_pause - wait for a signal without a stack
 * @wchan: where the classic call would be seen sleeping
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
long stackmux_pause(unsigned long wchan)
{
	stackmux_arm(current->stackmux, &stackmux_pause_op, wchan);
	return STACKMUX_ARMED;
}
