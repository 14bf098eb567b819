// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * libstackmux, see stackmux.h
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "stackmux.h"
#include "wait.h"

#define EXPORT	__attribute__((visibility("default")))

/* The result of a call of libc, without a trace in errno */
#define QUIETLY(call)							\
({									\
	int __errno = errno;						\
	long __ret = (call);						\
									\
	if (__ret < 0) {						\
		__ret = -errno;						\
		errno = __errno;					\
	}								\
	__ret;								\
})

/* ------------------------------------------------------------------ opting in */

EXPORT int stackmux_enable(unsigned long flags)
{
	int ret = QUIETLY(prctl(PR_STACKMUX, PR_STACKMUX_ENABLE, flags, 0UL, 0UL));

	__stackmux_wait_forget();
	return ret;
}

EXPORT int stackmux_disable(void)
{
	return QUIETLY(prctl(PR_STACKMUX, PR_STACKMUX_DISABLE, 0UL, 0UL, 0UL));
}

EXPORT int stackmux_get(void)
{
	return QUIETLY(prctl(PR_STACKMUX, PR_STACKMUX_GET, 0UL, 0UL, 0UL));
}

EXPORT int stackmux_optout_thread(bool optout)
{
	return QUIETLY(prctl(PR_STACKMUX, PR_STACKMUX_THREAD,
			     optout ? PR_STACKMUX_T_OPTOUT : 0UL, 0UL, 0UL));
}

EXPORT int stackmux_get_stats(struct stackmux_stats *stats)
{
	long ret = QUIETLY(prctl(PR_STACKMUX, PR_STACKMUX_STATS, stats,
				 sizeof(*stats), 0UL));

	return ret < 0 ? ret : 0;
}

/* ------------------------------------------------------------------ deadlines */

static bool before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

/* What is left until the deadline; 0 if that has passed */
static struct timespec left(const struct timespec *deadline)
{
	struct timespec now, rest = { 0, 0 };

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!before(&now, deadline))
		return rest;
	rest.tv_sec = deadline->tv_sec - now.tv_sec;
	rest.tv_nsec = deadline->tv_nsec - now.tv_nsec;
	if (rest.tv_nsec < 0) {
		rest.tv_nsec += 1000000000L;
		rest.tv_sec--;
	}
	return rest;
}

/* -------------------------------------------------------------------- futexes */

static int private(unsigned int flags)
{
	return flags & STACKMUX_SHARED ? 0 : FUTEX_PRIVATE_FLAG;
}

EXPORT int stackmux_futex_wait(const uint32_t *futex, uint32_t val,
			       const struct timespec *deadline, unsigned int flags)
{
	/* With a bitset the time-out is absolute, by CLOCK_MONOTONIC. */
	const int op = FUTEX_WAIT_BITSET | private(flags);
	long ret;

	if (flags & ~STACKMUX_SHARED)
		return -EINVAL;
	while (__atomic_load_n(futex, __ATOMIC_ACQUIRE) == val) {
		ret = __stackmux_wait(__NR_futex, (long)futex, op, val, (long)deadline,
				      0, FUTEX_BITSET_MATCH_ANY);
		/* A wake-up is a reason to look, and no more than that. */
		if (ret && ret != -EINTR && ret != -EAGAIN)
			return ret;
	}
	return 0;
}

EXPORT int stackmux_futex_wake(const uint32_t *futex, int nr, unsigned int flags)
{
	if (flags & ~STACKMUX_SHARED)
		return -EINVAL;
	return QUIETLY(syscall(__NR_futex, futex, FUTEX_WAKE | private(flags), nr,
			       NULL, NULL, 0));
}

/* --------------------------------------------------------------------- events */

/* States of an event. A waiter sets AWAITED, so that stackmux_event_set() wakes. */
enum { CLEAR, SET, AWAITED };

EXPORT void stackmux_event_init(struct stackmux_event *event, unsigned int flags)
{
	event->flags = flags & STACKMUX_SHARED;
	__atomic_store_n(&event->state, CLEAR, __ATOMIC_RELEASE);
}

EXPORT void stackmux_event_set(struct stackmux_event *event)
{
	/*
	 * A thread that sees the event set may free it at once. So nothing is read
	 * of it after the exchange. The wake-up may reach whatever lies there then:
	 * a spurious one, as any user of futexes has to expect.
	 */
	unsigned int flags = event->flags;

	if (__atomic_exchange_n(&event->state, SET, __ATOMIC_ACQ_REL) == AWAITED)
		stackmux_futex_wake(&event->state, INT_MAX, flags);
}

EXPORT void stackmux_event_reset(struct stackmux_event *event)
{
	uint32_t state = SET;

	__atomic_compare_exchange_n(&event->state, &state, CLEAR, false,
				    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

EXPORT bool stackmux_event_is_set(const struct stackmux_event *event)
{
	return __atomic_load_n(&event->state, __ATOMIC_ACQUIRE) == SET;
}

EXPORT int stackmux_event_wait(struct stackmux_event *event,
			       const struct timespec *deadline)
{
	uint32_t state = CLEAR;

	__atomic_compare_exchange_n(&event->state, &state, AWAITED, false,
				    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	if (state == SET)
		return 0;
	return stackmux_futex_wait(&event->state, AWAITED, deadline, event->flags);
}

/* ---------------------------------------------------------------- descriptors */

EXPORT int stackmux_poll(struct pollfd *fds, nfds_t nfds, const struct timespec *deadline)
{
	struct timespec rest;

	if (deadline)
		rest = left(deadline);
	return QUIETLY(ppoll(fds, nfds, deadline ? &rest : NULL, NULL));
}

EXPORT int stackmux_fd_wait(int fd, short events, const struct timespec *deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	int ret = stackmux_poll(&pfd, 1, deadline);

	if (ret <= 0)
		return ret;
	return pfd.revents & POLLNVAL ? -EBADF : pfd.revents;
}

/*
 * poll() that comes back as soon as it is woken, and can be cancelled: what libc
 * does around its own calls
 */
static long woken_poll(struct pollfd *pfd, const struct timespec *rest)
{
	int type;
	long ret;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	ret = __stackmux_wait(__NR_ppoll, (long)pfd, 1, (long)rest, 0, 0, 0);
	pthread_setcanceltype(type, NULL);
	return ret;
}

EXPORT ssize_t stackmux_read(int fd, void *buf, size_t size,
			     const struct timespec *deadline)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct timespec rest;
	struct pollfd pfd;
	bool try = true;
	long ret;

	for (;;) {
		if (try) {
			ret = QUIETLY(preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
			/* Not every file can say that it would have to wait. */
			try = ret != -EOPNOTSUPP;
			if (try && ret != -EAGAIN)
				return ret;
		}
		if (deadline)
			rest = left(deadline);
		pfd = (struct pollfd){ .fd = fd, .events = POLLIN };
		ret = woken_poll(&pfd, deadline ? &rest : NULL);
		if (!ret)
			return -ETIMEDOUT;
		if (ret < 0 && ret != -EAGAIN)
			return ret;
		if (!try && ret > 0)
			return QUIETLY(read(fd, buf, size));
	}
}

/* Milliseconds, rounded up: for kernels before 5.11 */
static int milliseconds(const struct timespec *t)
{
	const long max = INT_MAX / 1000 - 1;

	if (t->tv_sec > max)
		return INT_MAX;
	return t->tv_sec * 1000 + (t->tv_nsec + 999999) / 1000000;
}

EXPORT int stackmux_epoll_wait(int epfd, struct epoll_event *events, int maxevents,
			       const struct timespec *deadline)
{
	struct timespec rest;
	long ret;

	if (!deadline)
		return QUIETLY(epoll_wait(epfd, events, maxevents, -1));
	rest = left(deadline);
#ifdef __NR_epoll_pwait2
	ret = QUIETLY(syscall(__NR_epoll_pwait2, epfd, events, maxevents, &rest, NULL, 0));
	if (ret != -ENOSYS)
		return ret;
#endif
	/* One wait may be too short for a deadline that is far away. */
	do {
		rest = left(deadline);
		ret = QUIETLY(epoll_wait(epfd, events, maxevents, milliseconds(&rest)));
	} while (!ret && (rest.tv_sec || rest.tv_nsec));
	return ret;
}
