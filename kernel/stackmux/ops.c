// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the table of calls that can park
 *
 * A new one is a row here, a file of its own for its functions, and a call of
 * stackmux_may_park() where the classic call would wait.
 *
 * wchan is a function in which the classic call sleeps; those that sleep in
 * various places note it when they arm.
 */
#include <linux/syscalls.h>

#include "stackmux.h"
#include "ops.h"

const struct stackmux_op stackmux_ops[STACKMUX_NR_OPS] = {
	/* Not a wait: its end is the start of a new task. */
	[STACKMUX_OP_NEWBORN] = {
		.name		= "clone",
		.resume		= stackmux_newborn_resume,
	},
	/* Neither */
	[STACKMUX_OP_PREEMPTED] = {
		.name		= "preempted",
	},
	[STACKMUX_OP_FUTEX] = {
		.name		= "futex",
		.fired		= stackmux_futex_fired,
		.resume		= stackmux_futex_resume,
		.give_up	= stackmux_futex_give_up,
		.wchan		= futex_wait_queue,
	},
	[STACKMUX_OP_FUTEXV] = {
		.name		= "futex_waitv",
		.fired		= stackmux_futexv_fired,
		.resume		= stackmux_futexv_resume,
		.wchan		= futex_wait_multiple,
	},
	[STACKMUX_OP_POLL] = {
		.name		= "poll",
		.fired		= stackmux_poll_fired,
		.resume		= stackmux_poll_resume,
		.give_up	= stackmux_poll_give_up,
	},
	[STACKMUX_OP_SELECT] = {
		.name		= "select",
		.fired		= stackmux_poll_fired,
		.resume		= stackmux_select_resume,
	},
#ifdef CONFIG_EPOLL
	[STACKMUX_OP_EPOLL] = {
		.name		= "epoll",
		.fired		= stackmux_epoll_fired,
		.resume		= stackmux_epoll_resume,
	},
#endif
	[STACKMUX_OP_SLEEP] = {
		.name		= "nanosleep",
		.fired		= stackmux_sleep_fired,
		.resume		= stackmux_sleep_resume,
		.wchan		= hrtimer_nanosleep,
	},
	[STACKMUX_OP_PAUSE] = {
		.name		= "pause",
		.fired		= stackmux_signal_fired,
		.resume		= stackmux_pause_resume,
		.wchan		= __x64_sys_pause,
	},
	[STACKMUX_OP_SIGSUSPEND] = {
		.name		= "sigsuspend",
		.fired		= stackmux_signal_fired,
		.resume		= stackmux_sigsuspend_resume,
	},
	[STACKMUX_OP_SIGTIMEDWAIT] = {
		.name		= "sigtimedwait",
		.fired		= stackmux_sigtimedwait_fired,
		.resume		= stackmux_sigtimedwait_resume,
	},
	[STACKMUX_OP_WAIT] = {
		.name		= "wait",
		.fired		= stackmux_wait_fired,
		.resume		= stackmux_wait_resume,
	},
	[STACKMUX_OP_READ] = {
		.name		= "read",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_read_resume,
	},
	[STACKMUX_OP_READV] = {
		.name		= "readv",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_readv_resume,
	},
	[STACKMUX_OP_WRITE] = {
		.name		= "write",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_write_resume,
	},
	[STACKMUX_OP_WRITEV] = {
		.name		= "writev",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_writev_resume,
	},
#ifdef CONFIG_IO_URING
	[STACKMUX_OP_URING] = {
		.name		= "io_uring",
		.fired		= stackmux_uring_fired,
		.resume		= stackmux_uring_resume,
	},
#endif
#ifdef CONFIG_AIO
	[STACKMUX_OP_AIO] = {
		.name		= "aio",
		.fired		= stackmux_aio_fired,
		.resume		= stackmux_aio_resume,
	},
#endif
#ifdef CONFIG_SYSVIPC
	[STACKMUX_OP_MSG] = {
		.name		= "msgrcv",
		.fired		= stackmux_msg_fired,
		.resume		= stackmux_msg_resume,
	},
	[STACKMUX_OP_SEM] = {
		.name		= "semop",
		.fired		= stackmux_sem_fired,
		.resume		= stackmux_sem_resume,
	},
#endif
#ifdef CONFIG_POSIX_MQUEUE
	[STACKMUX_OP_MQUEUE] = {
		.name		= "mqueue",
		.fired		= stackmux_mq_fired,
		.resume		= stackmux_mq_resume,
	},
#endif
#ifdef CONFIG_FILE_LOCKING
	[STACKMUX_OP_LOCK] = {
		.name		= "lock",
		.fired		= stackmux_lock_fired,
		.resume		= stackmux_lock_resume,
	},
#endif
#ifdef CONFIG_NET
	[STACKMUX_OP_RECV] = {
		.name		= "recv",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_recv_resume,
	},
	[STACKMUX_OP_SEND] = {
		.name		= "send",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_send_resume,
	},
	[STACKMUX_OP_ACCEPT] = {
		.name		= "accept",
		.fired		= stackmux_io_fired,
		.resume		= stackmux_accept_resume,
	},
#endif
};
