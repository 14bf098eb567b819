/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fs/select.c shares with kernel/stackmux/
 */
#ifndef _FS_SELECT_H
#define _FS_SELECT_H

#include <linux/poll.h>
#include <linux/time64.h>

struct restart_block;

enum poll_time_type {
	PT_TIMEVAL = 0,
	PT_OLD_TIMEVAL = 1,
	PT_TIMESPEC = 2,
	PT_OLD_TIMESPEC = 3,
};

#define POLLIN_SET (EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR |\
			EPOLLNVAL)
#define POLLOUT_SET (EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR |\
			 EPOLLNVAL)
#define POLLEX_SET (EPOLLPRI | EPOLLNVAL)

#ifdef CONFIG_STACKMUX
int poll_select_finish(struct timespec64 *end_time, void __user *p,
		       enum poll_time_type pt_type, int ret);
long do_restart_poll(struct restart_block *restart_block);
#endif

/* kernel/stackmux/poll.c, select.c; called only where stackmux_may_park() */
bool stackmux_poll(struct pollfd __user *ufds, unsigned int nfds,
		   struct timespec64 *end_time, int *ret);
bool stackmux_select(int n, fd_set __user *inp, fd_set __user *outp,
		     fd_set __user *exp, struct timespec64 *end_time, void *wchan,
		     int *ret);
int stackmux_poll_finish_later(void __user *p, enum poll_time_type type);

#endif /* _FS_SELECT_H */
