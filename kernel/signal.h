/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What kernel/signal.c shares with kernel/stackmux/
 */
#ifndef _KERNEL_SIGNAL_H
#define _KERNEL_SIGNAL_H

#include <linux/ktime.h>
#include <linux/signal_types.h>

struct task_struct;

#ifdef CONFIG_STACKMUX
void __set_task_blocked(struct task_struct *tsk, const sigset_t *newset);
void signal_stop_prepare(void);
bool do_signal_stop(int signr);
#endif

/* kernel/stackmux/signal.c; called only where stackmux_may_park() */
long stackmux_pause(unsigned long wchan);
long stackmux_sigsuspend(unsigned long wchan);
int stackmux_sigtimedwait(const sigset_t *mask, ktime_t *timeout);

#endif /* _KERNEL_SIGNAL_H */
