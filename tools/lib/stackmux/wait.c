// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * libstackmux: waits that come back to user mode as soon as they are woken
 *
 * The loops of this library re-check their condition after each wake-up, so the
 * kernel need not check it first. A thread registers the one place from which it
 * makes such calls, see PR_STACKMUX_RETRY. Without that all else is the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stackmux.h"
#include "wait.h"

#ifdef __x86_64__

long __stackmux_call(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
	__attribute__((visibility("hidden")));
extern const char __stackmux_range[] __attribute__((visibility("hidden")));
extern const char __stackmux_range_end[] __attribute__((visibility("hidden")));
extern const char __stackmux_woken[] __attribute__((visibility("hidden")));

/* Does this process park? Otherwise a range is of no use. */
static enum { UNKNOWN, NO, YES } parks;

/* Has this thread registered its range, or tried to? */
static __thread bool registered __attribute__((tls_model("initial-exec")));

/* The one thread that is left after fork() has no range. */
static void in_child(void)
{
	registered = false;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void watch_fork(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

void __stackmux_wait_forget(void)
{
	__atomic_store_n(&parks, UNKNOWN, __ATOMIC_RELAXED);
}

static bool find_out(void)
{
	int ret = stackmux_get();
	bool yes = ret > 0 && (ret & PR_STACKMUX_ACTIVE);

	__atomic_store_n(&parks, yes ? YES : NO, __ATOMIC_RELAXED);
	return yes;
}

static __attribute__((noinline)) void set_range(void)
{
	struct stackmux_retry retry = {
		.start = (uintptr_t)__stackmux_range,
		.length = __stackmux_range_end - __stackmux_range,
		.address = (uintptr_t)__stackmux_woken,
	};
	int errnum = errno;

	if (parks == UNKNOWN && !find_out())
		return;
	pthread_once(&once, watch_fork);
	/* If it fails, the kernel goes on checking the condition. */
	prctl(PR_STACKMUX, PR_STACKMUX_RETRY, &retry, sizeof(retry), 0UL);
	registered = true;
	errno = errnum;
}

long __stackmux_wait(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	if (!registered && __atomic_load_n(&parks, __ATOMIC_RELAXED) != NO)
		set_range();
	return __stackmux_call(nr, a1, a2, a3, a4, a5, a6);
}

#else

void __stackmux_wait_forget(void)
{
}

long __stackmux_wait(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	int errnum = errno;
	long ret = syscall(nr, a1, a2, a3, a4, a5, a6);

	if (ret < 0) {
		ret = -errno;
		errno = errnum;
	}
	return ret;
}

#endif
