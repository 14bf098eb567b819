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

#include "../kselftest.h"

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
#define PR_STACKMUX_F_EXEC	0x1UL
#define PR_STACKMUX_ENABLED	0x1UL
#define PR_STACKMUX_EXEC	0x2UL
#define PR_STACKMUX_ACTIVE	0x4UL
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

#define SM_SYSCTL	"/proc/sys/kernel/stackmux"
#define SM_DEBUGFS	"/sys/kernel/debug/stackmux/"
#define SM_SYSFS	"/sys/kernel/stackmux/"
#define SM_PREEMPTED_MAX SM_SYSFS "preempted_max"
#define SM_STATS	SM_DEBUGFS "stats"
#define SM_LINGER	SM_DEBUGFS "linger"
#define SM_PATIENCE	SM_DEBUGFS "patience"

/* errno of calls and operations that do not exist */
#define SM_NOSYS	38

#define SM_MSEC		1000000LL
#define SM_SEC		1000000000LL

/*
 * Time-outs of sockets are counted in ticks, of which the first has begun already:
 * one tick, at HZ=100, too early is right.
 */
#define SM_TICK		(10 * SM_MSEC)

/* ------------------------------------------------------------------ time */

/* How many times slower than a release kernel under emulation this run is. */
static inline long sm_slow(void)
{
	static long slow;
	const char *s;

	if (!slow) {
		s = getenv("STACKMUX_SLOW");
		slow = s ? atol(s) : 1;
		if (slow < 1)
			slow = 1;
	}
	return slow;
}

/* Rounds for a test that runs @def of them by default. */
static inline long sm_rounds(long def)
{
	const long base = 10000;
	const char *s = getenv("STACKMUX_ROUNDS");
	long n;

	if (!s || !*s)
		n = def / sm_slow();
	else if (!strcmp(s, "millions"))
		n = def * (2000000 / base);
	else
		n = def * atol(s) / base;
	return n < 20 ? 20 : n;
}

/* By how much STACKMUX_ROUNDS stretches the tests, for their time bounds. */
static inline long sm_rounds_factor(void)
{
	long n = sm_rounds(10000) / 10000;

	return n < 1 ? 1 : n;
}

static inline int64_t sm_clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * SM_SEC + ts.tv_nsec;
}

static inline int64_t sm_now_ns(void)
{
	return sm_clock_ns(CLOCK_MONOTONIC);
}

static inline struct timespec sm_ts(int64_t ns)
{
	struct timespec ts = {
		.tv_sec = ns / SM_SEC,
		.tv_nsec = ns % SM_SEC,
	};

	return ts;
}

static inline void sm_sleep_ns(int64_t ns)
{
	struct timespec ts = sm_ts(ns);

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static inline void sm_sleep_ms(long ms)
{
	sm_sleep_ns(ms * SM_MSEC);
}

/*
 * How long anything that ought to happen at once may take: a busy host, more
 * virtual CPUs than real ones and emulation all add to it.
 */
static inline int64_t sm_patience_ns(void)
{
	return 20 * SM_SEC * sm_slow();
}

/* By how much a time-out may be late, classic or parked. */
static inline int64_t sm_late_ns(void)
{
	return 3 * SM_SEC * sm_slow();
}

/*
 * A time-out for calls that are to sleep until it is over: a host that holds the
 * thread back between the moment from which the time counts and its sleep, for
 * longer than this, would have it find that the time is over, and not sleep.
 */
static inline int64_t sm_soon_ns(void)
{
	return 100 * SM_MSEC * sm_slow();
}

static inline struct timeval sm_soon_tv(void)
{
	int64_t ns = sm_soon_ns();
	struct timeval tv = {
		.tv_sec = ns / SM_SEC,
		.tv_usec = ns % SM_SEC / 1000,
	};

	return tv;
}

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

/* ------------------------------------------------------- files and knobs */

/* Whole small file as a string; its length or -errno. */
static inline ssize_t sm_read_file(const char *path, char *buf, size_t size)
{
	ssize_t n, len = 0;
	int fd;

	buf[0] = '\0';
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < (ssize_t)size - 1) {
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0) {
			len = -errno;
			break;
		}
		if (!n)
			break;
		len += n;
	}
	close(fd);
	buf[len > 0 ? len : 0] = '\0';
	return len;
}

static inline int sm_write_file(const char *path, const char *text)
{
	ssize_t n;
	int fd, ret;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	ret = n < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static inline int sm_write_long(const char *path, long val)
{
	char buf[32];

	snprintf(buf, sizeof(buf), "%ld\n", val);
	return sm_write_file(path, buf);
}

/* A number at the start of a file, or -1. */
static inline long sm_read_long(const char *path)
{
	char buf[64];

	if (sm_read_file(path, buf, sizeof(buf)) <= 0)
		return -1;
	return atol(buf);
}

/* The number that follows @key in a file such as /proc/meminfo, or -1. */
static inline long sm_read_key(const char *path, const char *key)
{
	char line[256];
	long val = -1;
	size_t len = strlen(key);
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, len) &&
		    (isspace(line[len]) || line[len] == ':')) {
			val = strtol(line + len + 1, NULL, 0);
			break;
		}
	}
	fclose(f);
	return val;
}

static inline long sm_meminfo_kb(const char *key)
{
	return sm_read_key("/proc/meminfo", key);
}

/*
 * Settings of the whole machine that tests change. They are saved when a test
 * program starts and put back before each test and at the end of the program,
 * whatever became of the test that changed them.
 */
struct sm_knob {
	const char *path;
	char value[160];
};

static struct sm_knob sm_knobs[] = {
	{ .path = SM_SYSCTL },
	{ .path = SM_LINGER },
	{ .path = SM_PATIENCE },
	{ .path = SM_SYSFS "percpu_max" },
	{ .path = SM_SYSFS "node_max" },
	{ .path = SM_SYSFS "node_low" },
	{ .path = SM_PREEMPTED_MAX },
	{ .path = "/proc/sys/kernel/pid_max" },
	{ .path = "/proc/sys/kernel/threads-max" },
	{ .path = "/proc/sys/kernel/core_pattern" },
	{ .path = "/proc/sys/kernel/core_uses_pid" },
	{ .path = "/proc/sys/kernel/printk" },
};

static uint64_t sm_cpus_online;

static inline int sm_cpu_online(int cpu)
{
	char path[80];

	snprintf(path, sizeof(path),
		 "/sys/devices/system/cpu/cpu%d/online", cpu);
	return sm_read_long(path);
}

static inline int sm_cpu_set_online(int cpu, int online)
{
	char path[80];

	snprintf(path, sizeof(path),
		 "/sys/devices/system/cpu/cpu%d/online", cpu);
	return sm_write_long(path, online);
}

static inline void sm_knobs_save(void)
{
	size_t i;
	int cpu;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++)
		sm_read_file(sm_knobs[i].path, sm_knobs[i].value,
			     sizeof(sm_knobs[i].value));
	for (cpu = 0; cpu < 64; cpu++)
		if (sm_cpu_online(cpu) == 1)
			sm_cpus_online |= 1ULL << cpu;
}

/* What sm_knobs_restore() is to set from now on, instead of what there was */
static inline void sm_knob_set(const char *path, const char *value)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++)
		if (!strcmp(sm_knobs[i].path, path))
			snprintf(sm_knobs[i].value, sizeof(sm_knobs[i].value),
				 "%s", value);
}

static inline void sm_knobs_restore(void)
{
	char now[sizeof(sm_knobs[0].value)];
	size_t i;
	int cpu;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++) {
		if (!sm_knobs[i].value[0])
			continue;
		sm_read_file(sm_knobs[i].path, now, sizeof(now));
		if (strcmp(now, sm_knobs[i].value))
			sm_write_file(sm_knobs[i].path, sm_knobs[i].value);
	}
	for (cpu = 0; cpu < 64; cpu++)
		if ((sm_cpus_online & (1ULL << cpu)) && !sm_cpu_online(cpu))
			sm_cpu_set_online(cpu, 1);
}

/* ----------------------------------------------------------------- prctl */

static inline int sm_prctl(unsigned long op, unsigned long a3,
			   unsigned long a4, unsigned long a5)
{
	int ret = prctl(PR_STACKMUX, op, a3, a4, a5);

	return ret < 0 ? -errno : ret;
}

static inline int sm_enable(unsigned long flags)
{
	return sm_prctl(PR_STACKMUX_ENABLE, flags, 0, 0);
}

static inline int sm_disable(void)
{
	return sm_prctl(PR_STACKMUX_DISABLE, 0, 0, 0);
}

static inline int sm_get(void)
{
	return sm_prctl(PR_STACKMUX_GET, 0, 0, 0);
}

/* Does this kernel have stackmux at all? */
static inline bool sm_present(void)
{
	return sm_get() >= 0;
}

/* ---------------------------------------------------------------- counters */

struct sm_stats {
	long parks;
	long resumes;
	long noswitch;
	long lingered;
	long keeps;
	long reserve;
	long starvations;
	long refills;
	long trims;
	long clones;
	long newborns;
	long rearms;
	long retries;
	long stayed;
	long evictions;
	long preempted;
	long stacks;
	long stacks_idle;
	long stacks_max;
	long records;
	long record_bytes;
	long parked;
};

struct sm_stat_name {
	const char *name;
	size_t offset;
};

#define SM_STAT(n)	{ #n, offsetof(struct sm_stats, n) }
static const struct sm_stat_name sm_stat_names[] = {
	SM_STAT(parks),
	SM_STAT(resumes),
	SM_STAT(noswitch),
	SM_STAT(lingered),
	SM_STAT(keeps),
	SM_STAT(reserve),
	SM_STAT(starvations),
	SM_STAT(refills),
	SM_STAT(trims),
	SM_STAT(clones),
	SM_STAT(newborns),
	SM_STAT(rearms),
	SM_STAT(retries),
	SM_STAT(stayed),
	SM_STAT(evictions),
	SM_STAT(preempted),
	SM_STAT(stacks),
	SM_STAT(stacks_idle),
	SM_STAT(stacks_max),
	SM_STAT(records),
	SM_STAT(record_bytes),
	SM_STAT(parked),
};

/* Read all counters; those the kernel does not show are -1. 0 or -errno. */
static inline int sm_stats_read(struct sm_stats *st)
{
	char buf[4096], name[64], *p, *end;
	ssize_t n;
	size_t i;
	long val;

	memset(st, 0xff, sizeof(*st));
	n = sm_read_file(SM_STATS, buf, sizeof(buf));
	if (n < 0)
		return n;
	for (p = buf; *p; p = end + 1) {
		end = strchrnul(p, '\n');
		if (sscanf(p, "%63s %ld", name, &val) == 2) {
			for (i = 0; i < ARRAY_SIZE(sm_stat_names); i++)
				if (!strcmp(name, sm_stat_names[i].name))
					*(long *)((char *)st +
						  sm_stat_names[i].offset) = val;
		}
		if (!*end)
			break;
	}
	return 0;
}

static inline void sm_mount_debugfs(void)
{
	if (access("/sys/kernel/debug/.", F_OK))
		return;
	if (access(SM_STATS, R_OK))
		mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
}

/* ----------------------------------------------------------- system calls */

/* A system call without libc: the result or -errno. */
static inline long sm_syscall6(long nr, long a1, long a2, long a3, long a4,
			       long a5, long a6)
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
	return sm_syscall6(__NR_futex, (long)uaddr, op, val, (long)timeout,
			   (long)uaddr2, val3);
}

#define SM_PRIVATE	FUTEX_PRIVATE_FLAG
#define SM_SHARED	0

static inline long sm_wait(void *uaddr, uint32_t val, int flag)
{
	return sm_futex(uaddr, FUTEX_WAIT | flag, val, NULL, NULL, 0);
}

static inline long sm_wait_ns(void *uaddr, uint32_t val, int flag, int64_t ns)
{
	struct timespec ts = sm_ts(ns);

	return sm_futex(uaddr, FUTEX_WAIT | flag, val, &ts, NULL, 0);
}

static inline long sm_wake(void *uaddr, int nr, int flag)
{
	return sm_futex(uaddr, FUTEX_WAKE | flag, nr, NULL, NULL, 0);
}

/*
 * How many tasks wait on @uaddr: a requeue onto itself counts them and
 * changes nothing.
 */
static inline long sm_nr_waiters(void *uaddr, int flag)
{
	return sm_syscall6(__NR_futex, (long)uaddr, FUTEX_REQUEUE | flag, 0,
			   INT_MAX, (long)uaddr, 0);
}

static inline pid_t sm_gettid(void)
{
	return syscall(__NR_gettid);
}

static inline int sm_tgkill(pid_t pid, pid_t tid, int sig)
{
	return syscall(__NR_tgkill, pid, tid, sig) ? -errno : 0;
}

static inline int sm_nr_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return CPU_COUNT(&set);
}

/* Fork a child that does not outlive the caller. */
static inline pid_t sm_fork(void)
{
	pid_t parent = getpid();
	pid_t pid;

	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

/* waitpid() with a time bound; on its end the child is killed. */
static inline int sm_waitpid(pid_t pid, int *status)
{
	int64_t end = sm_now_ns() + sm_patience_ns();
	pid_t ret;

	do {
		ret = waitpid(pid, status, WNOHANG);
		if (ret)
			return ret == pid ? 0 : -1;
		sm_sleep_ms(1);
	} while (sm_now_ns() < end);
	kill(pid, SIGKILL);
	waitpid(pid, status, 0);
	return -1;
}

/* Memory that stays shared over fork(), zeroed. */
static inline void *sm_shared_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ------------------------------------------------------------------- /proc */

/* State letter of a thread, '-' if there is none. */
static inline char sm_task_state(pid_t pid, pid_t tid)
{
	char path[64], buf[512], *p;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	if (sm_read_file(path, buf, sizeof(buf)) <= 0)
		return '-';
	p = strrchr(buf, ')');
	return p && p[1] ? p[2] : '-';
}

static inline long sm_nr_threads(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return sm_read_key(path, "Threads");
}

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

#define sm_load(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define sm_store(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define sm_add(p, v)	__atomic_add_fetch(p, v, __ATOMIC_SEQ_CST)

static inline void *sm_waiter_fn(void *arg)
{
	struct sm_waiter *w = arg;

	sm_store(&w->tid, sm_gettid());
	if (w->before)
		w->before(w);
	w->start_ns = sm_now_ns();
	sm_store(&w->entered, 1);
	w->ret = sm_syscall6(w->nr, w->arg[0], w->arg[1], w->arg[2],
			     w->arg[3], w->arg[4], w->arg[5]);
	w->end_ns = sm_now_ns();
	w->cpu = sched_getcpu();
	if (w->after)
		w->after(w);
	sm_store(&w->done, 1);
	return NULL;
}

static inline int sm_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	ret = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return ret;
}

/* Start the call that @w->nr and @w->arg describe. */
static inline int sm_waiter_run(struct sm_waiter *w)
{
	w->tid = 0;
	w->entered = 0;
	w->done = 0;
	w->ret = LONG_MIN;
	return sm_thread(&w->thread, sm_waiter_fn, w);
}

static inline void sm_waiter_set(struct sm_waiter *w, long nr, long a1,
				 long a2, long a3, long a4, long a5, long a6)
{
	w->nr = nr;
	w->arg[0] = a1;
	w->arg[1] = a2;
	w->arg[2] = a3;
	w->arg[3] = a4;
	w->arg[4] = a5;
	w->arg[5] = a6;
}

/* FUTEX_WAIT without time-out. */
static inline int sm_waiter_futex(struct sm_waiter *w, void *uaddr,
				  uint32_t val, int flag)
{
	sm_waiter_set(w, __NR_futex, (long)uaddr, FUTEX_WAIT | flag, val,
		      0, 0, 0);
	return sm_waiter_run(w);
}

/*
 * Is the thread asleep in its call (or through with it)? futex_waitv() sets its
 * state before it queues itself anywhere, so the state alone does not say that;
 * the file "syscall" is "running" until the thread has left its CPU.
 */
static inline bool sm_waiter_asleep(pid_t pid, struct sm_waiter *w)
{
	char path[64], buf[256];

	if (sm_load(&w->done))
		return true;
	if (!sm_load(&w->entered) ||
	    sm_task_state(pid, sm_load(&w->tid)) != 'S')
		return false;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid,
		 sm_load(&w->tid));
	return sm_read_file(path, buf, sizeof(buf)) <= 0 ||
	       strncmp(buf, "running", 7);
}

/* Wait for the call's end; false if it does not come. */
static inline bool sm_waiter_done(struct sm_waiter *w)
{
	return sm_wait_until(sm_load(&w->done));
}

static inline bool sm_waiter_join(struct sm_waiter *w)
{
	if (!sm_waiter_done(w))
		return false;
	pthread_join(w->thread, NULL);
	return true;
}

/* How long the call took. */
static inline int64_t sm_waiter_ns(const struct sm_waiter *w)
{
	return w->end_ns - w->start_ns;
}

/* --------------------------------------------------- raw clones that sleep */

/*
 * One per raw clone. The thread keeps everything in registers; the stack is
 * there because a thread has to have one, and nothing ever touches it.
 */
struct sm_slot {
	uint32_t tid;		/* cleared by the kernel when it is gone */
	uint32_t futex;
	int64_t ret;		/* of its futex wait */
	uint64_t woken_tsc;	/* when it came back from it */
	uint32_t *again;	/* where it waits next, instead of exiting */
	char stack[224];
};

#define SM_SLOT_ASLEEP	INT64_MIN

struct sm_sleepers {
	struct sm_slot *slot;
	size_t map_size;
	long nr;		/* clones made */
	long seen;		/* with own futexes: so many were seen waiting */
	bool own;		/* each waits on its own futex */
	uint32_t futex;		/* ... or all on this one */
	uint32_t entered;	/* have come as far as the wait */
	uint32_t returned;	/* have come back from it */
};

#define SM_CLONE_FLAGS	(CLONE_VM | CLONE_FS | CLONE_FILES |		\
			 CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |	\
			 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/*
 * Clone a thread that waits on @uaddr until it is woken, stores the result and
 * exits; or waits for slot->again, if that is set by then, and exits afterwards.
 * Thread id or -errno.
 */
static inline long sm_raw_sleeper(struct sm_slot *slot, uint32_t *uaddr,
				  uint32_t *entered, uint32_t *returned)
{
	register struct sm_slot *r12 asm("r12") = slot;
	register uint32_t *r13 asm("r13") = uaddr;
	register uint32_t *r14 asm("r14") = entered;
	register uint32_t *r15 asm("r15") = returned;
	register uint32_t *r10 asm("r10") = &slot->tid;
	long ret;

	slot->ret = SM_SLOT_ASLEEP;
	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     /* the child */
		     "lock incl (%%r14)\n\t"
		     "mov %%r13, %%rdi\n\t"
		     "mov %[op], %%esi\n\t"
		     "xor %%edx, %%edx\n\t"
		     "xor %%r10d, %%r10d\n\t"
		     "mov %[nr_futex], %%eax\n\t"
		     "syscall\n\t"
		     "mov %%rax, %c[ret_off](%%r12)\n\t"
		     "rdtsc\n\t"
		     "mov %%eax, %c[tsc_off](%%r12)\n\t"
		     "mov %%edx, 4+%c[tsc_off](%%r12)\n\t"
		     "lock incl (%%r15)\n\t"
		     "mov %c[again_off](%%r12), %%rdi\n\t"
		     "test %%rdi, %%rdi\n\t"
		     "jz 2f\n\t"
		     "mov %[op], %%esi\n\t"
		     "xor %%edx, %%edx\n\t"
		     "xor %%r10d, %%r10d\n\t"
		     "mov %[nr_futex], %%eax\n\t"
		     "syscall\n"
		     "2:\n\t"
		     "xor %%edi, %%edi\n\t"
		     "mov %[nr_exit], %%eax\n\t"
		     "syscall\n\t"
		     "ud2\n"
		     "1:"
		     : "=a" (ret)
		     : "0" ((long)__NR_clone), "D" ((long)SM_CLONE_FLAGS),
		       "S" (slot->stack + sizeof(slot->stack)),
		       "d" (&slot->tid), "r" (r10), "r" (r12), "r" (r13),
		       "r" (r14), "r" (r15),
		       [op] "i" (FUTEX_WAIT | FUTEX_PRIVATE_FLAG),
		       [nr_futex] "i" (__NR_futex), [nr_exit] "i" (__NR_exit),
		       [ret_off] "i" (offsetof(struct sm_slot, ret)),
		       [tsc_off] "i" (offsetof(struct sm_slot, woken_tsc)),
		       [again_off] "i" (offsetof(struct sm_slot, again))
		     : "rcx", "r8", "r9", "r11", "memory");
	return ret;
}

/* "1234567 of 20000000 ..." on stderr, for those who watch a long run. */
static inline void sm_progress(const char *what, long n, long of)
{
	if (of >= 100000 && (n % 50000 == 0 || n == of))
		fprintf(stderr, "# %s: %ld of %ld\n", what, n, of);
}

/*
 * Make @n sleepers. Returns how many there are now: fewer than @n if clone()
 * failed, with errno set.
 */
static inline long sm_sleepers_create(struct sm_sleepers *s, long n, bool own)
{
	struct sm_slot *slot;
	long ret;

	memset(s, 0, sizeof(*s));
	s->own = own;
	s->map_size = n * sizeof(*slot);
	slot = mmap(NULL, s->map_size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (slot == MAP_FAILED)
		return 0;
	s->slot = slot;
	for (s->nr = 0; s->nr < n; s->nr++, slot++) {
		ret = sm_raw_sleeper(slot, own ? &slot->futex : &s->futex,
				     &s->entered, &s->returned);
		if (ret < 0) {
			errno = -ret;
			break;
		}
		sm_progress("cloned", s->nr + 1, n);
	}
	return s->nr;
}

/* How many of the sleepers are queued on their futex. */
static inline long sm_sleepers_waiting(struct sm_sleepers *s)
{
	if (sm_load(&s->entered) < s->nr)
		return 0;
	if (!s->own)
		return sm_nr_waiters(&s->futex, SM_PRIVATE);
	/* Hash chains are long: look at each only once. */
	while (s->seen < s->nr &&
	       sm_nr_waiters(&s->slot[s->seen].futex, SM_PRIVATE) == 1)
		s->seen++;
	return s->seen;
}

/*
 * Time that something proportional to the number of threads may take: 1 ms
 * each is some hundred times what a release kernel needs under emulation.
 */
static inline int64_t sm_sleepers_patience_ns(struct sm_sleepers *s)
{
	return sm_patience_ns() + s->nr * SM_MSEC * sm_slow();
}

static inline bool sm_sleepers_wait_asleep(struct sm_sleepers *s)
{
	return sm_wait_until_ns(sm_sleepers_waiting(s) == s->nr,
				sm_sleepers_patience_ns(s));
}

/* Wake all at once or one by one. How many the wakes say they woke. */
static inline long sm_sleepers_wake(struct sm_sleepers *s, bool one_by_one)
{
	long i, ret, n = 0;

	if (!s->own && !one_by_one)
		return sm_wake(&s->futex, INT_MAX, SM_PRIVATE);
	for (i = 0; i < s->nr; i++) {
		ret = sm_wake(s->own ? &s->slot[i].futex : &s->futex, 1,
			      SM_PRIVATE);
		if (ret < 0)
			return ret;
		n += ret;
		sm_progress("woken", i + 1, s->nr);
	}
	return n;
}

/* Wait until all have exited; how many of them returned 0, -1 on a time-out. */
static inline long sm_sleepers_reap(struct sm_sleepers *s)
{
	long i, n = 0;

	for (i = 0; i < s->nr; i++) {
		if (!sm_wait_until_ns(!sm_load(&s->slot[i].tid),
				      sm_sleepers_patience_ns(s)))
			return -1;
		if (!s->slot[i].ret)
			n++;
	}
	munmap(s->slot, s->map_size);
	s->slot = NULL;
	return n;
}

/* Let the system have @n more threads than now, as far as limits go. */
static inline void sm_allow_threads(long n)
{
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_NPROC, &rl);
	if (sm_read_long("/proc/sys/kernel/pid_max") < n + 5000)
		sm_write_long("/proc/sys/kernel/pid_max",
			      n + 50000 > 4194304 ? 4194304 : n + 50000);
}

#endif /* STACKMUX_TEST_H */
