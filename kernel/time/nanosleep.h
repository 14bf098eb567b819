/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What kernel/time/hrtimer.c shares with kernel/stackmux/
 */
#ifndef _KERNEL_TIME_NANOSLEEP_H
#define _KERNEL_TIME_NANOSLEEP_H

#include <linux/ktime.h>

struct restart_block;

#ifdef CONFIG_STACKMUX
long hrtimer_nanosleep_restart(struct restart_block *restart);
#endif

/* kernel/stackmux/sleep.c; called only where stackmux_may_park() */
long stackmux_nanosleep(ktime_t rqtp, int mode, clockid_t clockid);
long stackmux_nanosleep_restart(struct restart_block *restart);

#endif /* _KERNEL_TIME_NANOSLEEP_H */
