/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What scenarios are made of: fixtures that run twice, system calls with as many
 * arguments as they have, groups of waiters, children, progress.
 */
#ifndef STACKMUX_SCENARIO_H
#define STACKMUX_SCENARIO_H

#include "calls.h"
#include <net/if.h>
#include <sys/ioctl.h>

/* -------------------------------------------------------- fixtures and main() */

/* Each test of @fixture runs in a process that does not park, and in one that does. */
#define SM_VARIANTS(fixture)						\
	FIXTURE_VARIANT(fixture) { bool parked; };			\
	FIXTURE_VARIANT_ADD(fixture, classic) { .parked = false };	\
	FIXTURE_VARIANT_ADD(fixture, parked) { .parked = true }

/* The same, and there is nothing but "env" to set up. */
#define SM_FIXTURE(fixture)						\
	SM_VARIANTS(fixture);						\
	FIXTURE_SETUP(fixture)						\
	{								\
		sm_setup(_metadata, &self->env, variant->parked);	\
	}								\
	FIXTURE_TEARDOWN(fixture) { }

/* The same, and self->@shared is memory that it shares with its children. */
#define SM_FIXTURE_SHARED(fixture, shared)				\
	SM_VARIANTS(fixture);						\
	FIXTURE_SETUP(fixture)						\
	{								\
		sm_setup(_metadata, &self->env, variant->parked);	\
		self->shared = sm_shared_alloc(sizeof(*self->shared));	\
		ASSERT_NE(NULL, self->shared);				\
	}								\
	FIXTURE_TEARDOWN(fixture)					\
	{								\
		sm_knobs_restore();					\
	}

/* main(); @factor is that of sm_harness_prepare(). */
#define SM_MAIN(factor)							\
	int main(int argc, char **argv)					\
	{								\
		sm_harness_prepare(factor);				\
		return test_harness_run(argc, argv);			\
	}

/* -------------------------------------------------------------- system calls */

#define __sm_call(w, nr, a1, a2, a3, a4, a5, a6, ...)			\
	sm_waiter_set(w, nr, (long)(a1), (long)(a2), (long)(a3),	\
		      (long)(a4), (long)(a5), (long)(a6))
#define __sm_sys(nr, a1, a2, a3, a4, a5, a6, ...)			\
	sm_syscall6(nr, (long)(a1), (long)(a2), (long)(a3),		\
		    (long)(a4), (long)(a5), (long)(a6))

/* The waiter @w is to make this call. Arguments that are not named are 0. */
#define sm_call(w, nr, ...)	__sm_call(w, nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
/* Make this call at once: its result or -errno. */
#define sm_sys(nr, ...)		__sm_sys(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

/* A page to which nobody may look */
static inline void *sm_no_access(void)
{
	void *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ---------------------------------------------------------- what others see */

/* A counter has grown by @n or more. Nothing to show in the classic run. */
#define SM_EXPECT_MORE(env, counter, n)					\
do {									\
	struct sm_stats __more;						\
									\
	if ((env)->parked) {						\
		ASSERT_EQ(0, sm_stats_read(&__more));			\
		EXPECT_GE(__more.counter - (env)->base.counter, (long)(n)); \
	}								\
} while (0)

/* ------------------------------------------------------------------- settings */

/* The guest's loopback device may be down. */
static inline void sm_loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
}

static inline int sm_shrink(void)
{
	return sm_write_file(SM_DEBUGFS "shrink", "1000000\n");
}

/* From now on a stack that is given back is freed; those there are, too. */
static inline int sm_no_idle_stacks(void)
{
	return sm_write_long(SM_SYSFS "percpu_max", 0) ?:
	       sm_write_long(SM_SYSFS "node_max", 0) ?:
	       sm_write_long(SM_SYSFS "node_low", 0) ?: sm_shrink();
}

/* -------------------------------------------------------------------- threads */

/* @n threads that do the same */
#define SM_THREADS(threads, n, fn, arg)					\
do {									\
	long __t;							\
									\
	for (__t = 0; __t < (n); __t++)					\
		ASSERT_EQ(0, sm_thread(&(threads)[__t], fn, arg));	\
} while (0)

/* Join @n threads: how many of them did not return NULL? */
static inline int sm_threads_join(const pthread_t *t, int n)
{
	int i, failed = 0;
	void *ret;

	for (i = 0; i < n; i++)
		failed += pthread_join(t[i], &ret) || ret;
	return failed;
}

/* ------------------------------------------------------------ several waiters */

/* Start the calls of @n waiters, and see all of them asleep. */
static inline bool sm_start_all(struct sm_env *env, struct sm_waiter *w, int n)
{
	int i;

	sm_rebase(env);
	for (i = 0; i < n; i++)
		if (sm_waiter_run(&w[i]))
			return false;
	return sm_asleep(env, w, n);
}

/* All @n come back, each with @expected. */
#define SM_JOIN_ALL(waiters, n, expected)				\
do {									\
	struct sm_waiter *__all = (waiters);				\
	int __i;							\
									\
	for (__i = 0; __i < (n); __i++) {				\
		ASSERT_TRUE(sm_waiter_join(&__all[__i])) {		\
			TH_LOG("thread %d hangs", __i);			\
		}							\
		EXPECT_EQ((long)(expected), __all[__i].ret) {		\
			TH_LOG("thread %d", __i);			\
		}							\
	}								\
} while (0)

/* Exactly @n of the @of come back, also if they are given the time for more. */
#define SM_ASSERT_DONE(waiters, of, n)					\
do {									\
	ASSERT_TRUE(sm_wait_until(sm_nr_done(waiters, of) >= (n))) {	\
		TH_LOG("%d are done", sm_nr_done(waiters, of));		\
	}								\
	sm_settle();							\
	ASSERT_EQ(n, sm_nr_done(waiters, of));				\
} while (0)

/* None of the @n comes back, also if it is given the time to. */
#define SM_EXPECT_WAITS(waiters, n)					\
do {									\
	sm_settle();							\
	EXPECT_EQ(0, sm_nr_done(waiters, n));				\
} while (0)

/* Are there @n tasks that wait on the futex at @uaddr? They come soon. */
static inline bool sm_wait_queued(void *uaddr, int flag, long n)
{
	return sm_wait_until(sm_nr_waiters(uaddr, flag) == n);
}

/* To the thread, not to the process */
static inline int sm_signal(struct sm_waiter *w, int sig)
{
	return sm_tgkill(getpid(), w->tid, sig);
}

/* A signal that has a handler ends its call. */
#define SM_EXPECT_INTERRUPTED(waiter, sig)				\
do {									\
	EXPECT_EQ(0, sm_signal(waiter, sig));				\
	SM_JOIN(waiter, -EINTR);					\
} while (0)

/* The call has ended after @ns, and not before. */
#define SM_EXPECT_TOOK(waiter, ns)					\
do {									\
	EXPECT_GE(sm_waiter_ns(waiter), (ns));				\
	EXPECT_LT(sm_waiter_ns(waiter), (ns) + sm_late_ns());		\
} while (0)

/* ------------------------------------------------------------------- children */

/* fork(), in a test */
#define SM_FORK()							\
({									\
	pid_t __pid = sm_fork();					\
									\
	ASSERT_GE(__pid, 0);						\
	__pid;								\
})

/* The child's status as waitpid() gives it */
#define SM_EXPECT_STATUS(expected, pid)					\
do {									\
	int __status;							\
									\
	ASSERT_EQ(0, sm_waitpid(pid, &__status)) {			\
		TH_LOG("the child does not end");			\
	}								\
	EXPECT_EQ(expected, __status);					\
} while (0)

static inline bool sm_killed_by(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

/* ------------------------------------------------------------------- progress */

/* For those who watch others run: when did their count last change? */
struct sm_pace {
	long last;
	int64_t since;
};

/* It has not changed for longer than anything ought to take. */
static inline bool sm_stuck(struct sm_pace *p, long count)
{
	if (!p->since || count != p->last) {
		p->last = count;
		p->since = sm_now_ns();
	}
	return sm_now_ns() - p->since >= sm_patience_ns();
}

/* One of several threads that run round after round */
struct sm_runner {
	int nr;			/* which of them it is */
	long rounds;
	long (*round)(struct sm_runner *r, long i);	/* from 1; 0 or what is wrong */
	void *data;		/* for round() */
	pthread_t thread;
	pid_t tid;
	long done_rounds, bad;
	int done;
};

static inline void *sm_runner_fn(void *arg)
{
	struct sm_runner *r = arg;
	long i, bad = 0;

	sm_store(&r->tid, sm_gettid());
	for (i = 1; i <= r->rounds && !bad; i++) {
		bad = r->round(r, i);
		sm_store(&r->done_rounds, i);
	}
	sm_store(&r->bad, bad);
	sm_store(&r->done, 1);
	return NULL;
}

static inline int sm_runners_start(struct sm_runner *r, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (sm_thread(&r[i].thread, sm_runner_fn, &r[i]))
			return -1;
	return 0;
}

/* How many of them have come to their end? */
static inline int sm_runners_done(struct sm_runner *r, int n)
{
	int i, done = 0;

	for (i = 0; i < n; i++)
		done += sm_load(&r[i].done);
	return done;
}

/*
 * All @n run to their end, and none of them gets stuck on the way. Until then
 * @disturb is called again and again.
 */
static inline void sm_run(struct __test_metadata *_metadata, struct sm_runner *r, int n,
			  void (*disturb)(struct sm_runner *r, int n))
{
	struct sm_pace pace = { 0 };
	long sum;
	int i;

	ASSERT_EQ(0, sm_runners_start(r, n));
	while (sm_runners_done(r, n) < n) {
		for (i = 0, sum = 0; i < n; i++) {
			ASSERT_EQ(0, sm_load(&r[i].bad)) {
				TH_LOG("thread %d, round %ld", i, r[i].done_rounds);
			}
			sum += sm_load(&r[i].done_rounds);
		}
		ASSERT_FALSE(sm_stuck(&pace, sum)) {
			for (i = 0; i < n; i++)
				TH_LOG("thread %d: round %ld, state %c", i, r[i].done_rounds,
				       sm_task_state(getpid(), r[i].tid));
		}
		if (disturb)
			disturb(r, n);
		else
			sm_sleep_ms(5);
	}
	for (i = 0; i < n; i++) {
		pthread_join(r[i].thread, NULL);
		EXPECT_EQ(0, r[i].bad);
		EXPECT_EQ(r[i].rounds, r[i].done_rounds);
	}
}

#endif /* STACKMUX_SCENARIO_H */
