/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the stackmux selftests: prctl and futex wrappers, counters,
 * knobs, threads that make one blocking call, raw clones that sleep.
 *
 * Environment:
 *   STACKMUX_SLOW       factor for kernels slower than a release kernel under
 *                       emulation (default 1): stretches time bounds, divides
 *                       rounds
 *   STACKMUX_ROUNDS     rounds of the race tests, a number or "millions"
 *   STACKMUX_SLEEPERS   threads of the sleepers tests
 *   STACKMUX_LINGER     if it is set, stacks may linger
 */
#ifndef STACKMUX_TEST_H
#define STACKMUX_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sleeper.h"

#if defined(__has_include)
#if __has_include("linux/stackmux.h")
#include <linux/stackmux.h>
#endif
#endif

#ifndef PR_STACKMUX
#define PR_STACKMUX		0x534d5558
#define PR_STACKMUX_ENABLE	1
#define PR_STACKMUX_DISABLE	2
#define PR_STACKMUX_GET		3
#define PR_STACKMUX_THREAD	4
#define PR_STACKMUX_F_EXEC	0x1UL
#define PR_STACKMUX_T_OPTOUT	0x1UL
#define PR_STACKMUX_ENABLED	0x1UL
#define PR_STACKMUX_EXEC	0x2UL
#define PR_STACKMUX_ACTIVE	0x4UL
#define PR_STACKMUX_OPTED_OUT	0x8UL
#endif

#ifndef FUTEX2_SIZE_U32
#define FUTEX2_SIZE_U32		0x02
#define FUTEX2_PRIVATE		FUTEX_PRIVATE_FLAG
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake		454
#define __NR_futex_wait		455
#define __NR_futex_requeue	456
#endif

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(arr)		(sizeof(arr) / sizeof((arr)[0]))
#endif

#define SM_SYSCTL	"/proc/sys/kernel/stackmux"
#define SM_DEBUGFS	"/sys/kernel/debug/stackmux/"
#define SM_SYSFS	"/sys/kernel/stackmux/"
#define SM_PREEMPTED_MAX SM_SYSFS "preempted_max"
#define SM_IN_PLACE_MAX	SM_SYSFS "in_place_max"
#define SM_STATS	SM_DEBUGFS "stats"
#define SM_LINGER	SM_DEBUGFS "linger"
#define SM_BACKOFF	SM_DEBUGFS "backoff"
#define SM_NR_OPEN	"/proc/sys/fs/nr_open"

/* errno of calls and operations that do not exist */
#define SM_NOSYS	38

#define SM_MSEC		1000000LL
#define SM_SEC		1000000000LL

/*
 * Time-outs of sockets are counted in ticks, of which the first has begun already:
 * one tick, at HZ=100, too early is right. A busy host delivers some ticks late, and
 * then several at once.
 */
#define SM_TICK		(10 * SM_MSEC)
#define SM_EARLY	(5 * SM_TICK)

#define sm_load(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define sm_store(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define sm_add(p, v)	__atomic_add_fetch(p, v, __ATOMIC_SEQ_CST)

/* ------------------------------------------------------------------ time */

/* How many times slower than a release kernel under emulation this run is. */
long sm_slow(void);

/* Rounds for a test that runs @def of them by default. */
long sm_rounds(long def);

/* By how much STACKMUX_ROUNDS stretches the tests, for their time bounds. */
long sm_rounds_factor(void);

int64_t sm_clock_ns(clockid_t clock);
int64_t sm_now_ns(void);
struct timespec sm_ts(int64_t ns);

/* A process's first thread looks on when it sleeps here: see sm_look_on(). */
void sm_sleep_ns(int64_t ns);
void sm_sleep_ms(long ms);

/*
 * How long anything that ought to happen at once may take: a busy host, more
 * virtual CPUs than real ones and emulation all add to it.
 */
int64_t sm_patience_ns(void);

/* By how much a time-out may be late, classic or parked. */
int64_t sm_late_ns(void);

/*
 * A time-out for calls that are to sleep until it is over: a host that holds the
 * thread back between the moment from which the time counts and its sleep, for
 * longer than this, would have it find that the time is over, and not sleep.
 */
int64_t sm_soon_ns(void);
struct timeval sm_soon_tv(void);

/*
 * Poll @cond until it holds, at most @ns. The first looks come quickly, the
 * later ones leave the CPU to those that are waited for.
 */
#define sm_wait_until_ns(cond, ns)					\
({									\
	int64_t __end = sm_now_ns() + (ns);				\
	int64_t __nap = 50000;						\
	bool __ok;							\
									\
	while (!(__ok = !!(cond)) && sm_now_ns() < __end) {		\
		sm_sleep_ns(__nap);					\
		if (__nap < 10 * SM_MSEC)				\
			__nap += __nap / 2;				\
	}								\
	__ok;								\
})

#define sm_wait_until(cond)	sm_wait_until_ns(cond, sm_patience_ns())

/* Pseudo-random numbers, the same in each run */
uint64_t sm_rnd(uint64_t *state);

/* ------------------------------------------------------- files and knobs */

/* Whole small file as a string; its length or -errno. */
ssize_t sm_read_file(const char *path, char *buf, size_t size);
int sm_write_file(const char *path, const char *text);
int sm_write_long(const char *path, long val);

/* A number at the start of a file, or -1. */
long sm_read_long(const char *path);

/* The number that follows @key in a file such as /proc/meminfo, or -1. */
long sm_read_key(const char *path, const char *key);
long sm_meminfo_kb(const char *key);

/*
 * Settings of the whole machine that tests change. They are saved when a test
 * program starts and put back before each test and at the end of the program,
 * whatever became of the test that changed them.
 */
void sm_knobs_save(void);
void sm_knobs_restore(void);

/* What sm_knobs_restore() is to set from now on, instead of what there was */
void sm_knob_set(const char *path, const char *value);

int sm_cpu_online(int cpu);
int sm_cpu_set_online(int cpu, int online);

/* Let the system have @n more threads than now, as far as limits go. */
void sm_allow_threads(long n);

/* ----------------------------------------------------------------- prctl */

/* Result or -errno */
int sm_prctl(unsigned long op, unsigned long a3, unsigned long a4, unsigned long a5);
int sm_enable(unsigned long flags);
int sm_disable(void);
int sm_get(void);

/* Does this kernel have stackmux at all? */
bool sm_present(void);

/*
 * The one that looks on does not park, in a test that counts parks: from here to
 * sm_look_away() the caller's waits are not counted, and take no stack of those that it
 * looks at. Returns what that needs.
 */
extern bool sm_judged;
bool sm_look_on(void);
void sm_look_away(bool looked_on);

/* ---------------------------------------------------------------- counters */

#define SM_FOR_EACH_STAT(stat)						\
	stat(parks) stat(resumes) stat(noswitch) stat(lingered)		\
	stat(waited_in_place) stat(pins) stat(reserve) stat(starvations) \
	stat(refills) stat(trims) stat(clones) stat(newborns)		\
	stat(rearms) stat(retries) stat(preempted) stat(stopped) stat(stacks) \
	stat(stacks_idle) stat(stacks_max) stat(in_place) stat(starving) stat(records) \
	stat(record_bytes) stat(parked)

struct sm_stats {
#define SM_STAT(name)	long name;
	SM_FOR_EACH_STAT(SM_STAT)
#undef SM_STAT
	long lingering;		/* not a counter: see sm_lingering */
};

#define SM_NR_STATS	(offsetof(struct sm_stats, lingering) / sizeof(long))

/* The counters, in the order of the structure */
extern const struct sm_stat_name {
	const char *name;
	size_t offset;
} sm_stat_names[SM_NR_STATS];

/* Read all counters; those the kernel does not show are -1. 0 or -errno. */
int sm_stats_read(struct sm_stats *st);
void sm_mount_debugfs(void);

/*
 * Stacks may linger. Then sm_stats_read() counts the threads of this process and its
 * descendants that are parked, but have their stack still.
 */
extern bool sm_lingering;

/* ----------------------------------------------------------- system calls */

/* These are inline for programs that count the instructions of a call. */

/* A system call without libc: the result or -errno. */
static inline long sm_syscall6(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	register long r10 asm("r10") = a4;
	register long r8 asm("r8") = a5;
	register long r9 asm("r9") = a6;
	long ret;

	asm volatile("syscall"
		     : "=a" (ret)
		     : "0" (nr), "D" (a1), "S" (a2), "d" (a3),
		       "r" (r10), "r" (r8), "r" (r9)
		     : "rcx", "r11", "memory");
	return ret;
}

static inline long sm_futex(void *uaddr, int op, uint32_t val,
			    const void *timeout, void *uaddr2, uint32_t val3)
{
	return sm_syscall6(__NR_futex, (long)uaddr, op, val, (long)timeout, (long)uaddr2, val3);
}

#define SM_PRIVATE	FUTEX_PRIVATE_FLAG
#define SM_SHARED	0

static inline long sm_wait(void *uaddr, uint32_t val, int flag)
{
	return sm_futex(uaddr, FUTEX_WAIT | flag, val, NULL, NULL, 0);
}

static inline long sm_wake(void *uaddr, int nr, int flag)
{
	return sm_futex(uaddr, FUTEX_WAKE | flag, nr, NULL, NULL, 0);
}

long sm_wait_ns(void *uaddr, uint32_t val, int flag, int64_t ns);

/* How many tasks wait on @uaddr */
long sm_nr_waiters(void *uaddr, int flag);

pid_t sm_gettid(void);
int sm_tgkill(pid_t pid, pid_t tid, int sig);
int sm_nr_cpus(void);

/* Fork a child that does not outlive the caller. */
pid_t sm_fork(void);

/* waitpid() with a time bound; on its end the child is killed. */
int sm_waitpid(pid_t pid, int *status);

/* Memory that stays shared over fork(), zeroed. */
void *sm_shared_alloc(size_t size);

/* ------------------------------------------------------------------- /proc */

/* One of a thread's files; its length or -errno */
ssize_t sm_task_read(pid_t pid, pid_t tid, const char *file, char *buf, size_t size);

/* State letter of a thread, '-' if there is none. */
char sm_task_state(pid_t pid, pid_t tid);
long sm_nr_threads(pid_t pid);

/* The line that begins with @key in the file status of a thread; NULL without one */
char *sm_task_status(pid_t pid, pid_t tid, const char *key, char *buf, size_t size);

/* Is the line "Stackmux:" of a thread like that? */
bool sm_task_is(pid_t pid, pid_t tid, const char *what);

/* ------------------------------------------- threads that make one call */

/*
 * A thread that makes one system call and notes what came of it. Everything
 * that others look at may be in shared memory, to be seen from other
 * processes.
 */
struct sm_waiter {
	pthread_t thread;
	pid_t tid;
	int entered;		/* is about to make the call */
	int done;		/* the call has returned */
	long nr;
	long arg[6];
	long ret;		/* result or -errno */
	int64_t start_ns;	/* CLOCK_MONOTONIC */
	int64_t end_ns;
	int cpu;		/* where it ran after the call */
	void (*before)(struct sm_waiter *w);
	void (*after)(struct sm_waiter *w);
	void *data;
};

/* Make the call here. */
void *sm_waiter_fn(void *arg);

int sm_thread(pthread_t *thread, void *(*fn)(void *), void *arg);

/* Start the call that @w->nr and @w->arg describe. */
int sm_waiter_run(struct sm_waiter *w);
void sm_waiter_set(struct sm_waiter *w, long nr, long a1, long a2, long a3,
		   long a4, long a5, long a6);

/* FUTEX_WAIT without time-out. */
int sm_waiter_futex(struct sm_waiter *w, void *uaddr, uint32_t val, int flag);

/* Is the thread asleep in its call (or through with it)? */
bool sm_waiter_asleep(pid_t pid, struct sm_waiter *w);

/* Wait for the call's end; false if it does not come. */
bool sm_waiter_done(struct sm_waiter *w);
bool sm_waiter_join(struct sm_waiter *w);

/* How long the call took. */
int64_t sm_waiter_ns(const struct sm_waiter *w);

/* ------------------------------------------------------- sleepers in futex */

/*
 * Make @n sleepers. Returns how many there are now: fewer than @n if clone()
 * failed, with errno set.
 */
long sm_sleepers_create(struct sm_sleepers *s, long n, bool own);

/* How many of the sleepers are queued on their futex. */
long sm_sleepers_waiting(struct sm_sleepers *s);
bool sm_sleepers_wait_asleep(struct sm_sleepers *s);

/* Wake all at once or one by one. How many the wakes say they woke. */
long sm_sleepers_wake(struct sm_sleepers *s, bool one_by_one);

/* Wait until all have exited; how many of them returned 0, -1 on a time-out. */
long sm_sleepers_reap(struct sm_sleepers *s);

#endif /* STACKMUX_TEST_H */
