/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * libstackmux: threads that sleep without a kernel stack
 *
 * Opting in, statistics, and waits with absolute deadlines. The waits check their
 * condition before they enter the kernel, and again after each wake-up. On a kernel
 * without stackmux they do the same, on kernel stacks.
 *
 * Functions that return int give a negative errno value on failure, and leave errno
 * alone. Any number of threads may call any of them at the same time.
 */
#ifndef _STACKMUX_H
#define _STACKMUX_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <time.h>

/* PR_STACKMUX_* and struct stackmux_stats */
#ifdef __has_include
#if __has_include(<linux/stackmux.h>)
#include <linux/stackmux.h>
#else
#include <stackmux/abi.h>
#endif
#else
#include <stackmux/abi.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Opting in. -EINVAL: this kernel has no stackmux, or an unknown flag.
 */

/*
 * flags: 0 or PR_STACKMUX_F_EXEC. -EOPNOTSUPP: the administrator has switched parking
 * off; -ENOMEM: no memory for the first user. All else works, on kernel stacks.
 */
int stackmux_enable(unsigned long flags);
int stackmux_disable(void);
/* A mask of PR_STACKMUX_ENABLED, _EXEC, _ACTIVE, _OPTED_OUT */
int stackmux_get(void);
/* The calling thread opts out: it blocks on its stack, whatever the process does. */
int stackmux_optout_thread(bool optout);
/* The threads of this process; members unknown to the kernel are 0. */
int stackmux_get_stats(struct stackmux_stats *stats);

/*
 * Deadlines are absolute, by CLOCK_MONOTONIC; NULL: none. With one that has passed
 * a function checks its condition and does not wait.
 */

/* Flag of futexes and events: used by several processes, in shared memory */
#define STACKMUX_SHARED		0x1U

/*
 * Wait until *futex is not val any more. 0: it is not; -ETIMEDOUT: it still is.
 * Wake-ups without a change and signals do not end the wait.
 */
int stackmux_futex_wait(const uint32_t *futex, uint32_t val,
			const struct timespec *deadline, unsigned int flags);
/* Wake up to nr waiters; returns how many */
int stackmux_futex_wake(const uint32_t *futex, int nr, unsigned int flags);

/*
 * An event is set or not; threads wait until it is. No lock is needed. Setting an
 * event without waiters is no system call, nor is waiting for one that is set.
 */
struct stackmux_event {
	uint32_t state;
	uint32_t flags;
};

#define STACKMUX_EVENT_INIT	{ 0, 0 }

/* flags: 0 or STACKMUX_SHARED */
void stackmux_event_init(struct stackmux_event *event, unsigned int flags);
void stackmux_event_set(struct stackmux_event *event);
void stackmux_event_reset(struct stackmux_event *event);
bool stackmux_event_is_set(const struct stackmux_event *event);
/*
 * 0: it is set, or has been; -ETIMEDOUT. Signals do not end the wait. A waiter can
 * miss an event that is set and reset at once, if another thread then waits for it.
 */
int stackmux_event_wait(struct stackmux_event *event, const struct timespec *deadline);

/*
 * Descriptors. -EINTR: a signal handler has run.
 */

/* poll(): how many of fds are ready, 0 when the deadline has passed */
int stackmux_poll(struct pollfd *fds, nfds_t nfds, const struct timespec *deadline);
/* The same for one descriptor: what it is ready for, as in revents, or 0 */
int stackmux_fd_wait(int fd, short events, const struct timespec *deadline);
/*
 * read() with a deadline, for sockets too: -ETIMEDOUT. Whether the descriptor is
 * non-blocking makes no difference.
 */
ssize_t stackmux_read(int fd, void *buf, size_t size, const struct timespec *deadline);
/* epoll_wait(): how many events, 0 when the deadline has passed */
int stackmux_epoll_wait(int epfd, struct epoll_event *events, int maxevents,
			const struct timespec *deadline);

#ifdef __cplusplus
}
#endif

#endif /* _STACKMUX_H */
