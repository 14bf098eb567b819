/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the stackmux selftests add to the kselftest harness: every scenario
 * runs twice, in a process that did not opt in and in one that did, and the
 * counters have to show that the second one really parked.
 */
#ifndef STACKMUX_HARNESS_H
#define STACKMUX_HARNESS_H

#include "stackmux_test.h"
#include "../kselftest_harness.h"

struct sm_env {
	bool parked;		/* this run is to park */
	bool present;		/* the kernel has stackmux */
	long mode;		/* sysctl kernel.stackmux */
	long lingering;		/* so many parked tasks may keep their stack */
	struct sm_stats base;	/* counters before the test */
};

/* Stacks may linger, one on each CPU. */
static inline int sm_linger(struct sm_env *env)
{
	env->lingering = sysconf(_SC_NPROCESSORS_CONF);
	return sm_write_long(SM_LINGER, 1);
}

/* Threads stay where they wait, until another one waits on the same CPU. */
static inline int sm_stay(struct sm_env *env)
{
	int ret = sm_linger(env);

	return ret ? ret : sm_write_long(SM_PATIENCE, 0);
}

/* Waits that parked; where stacks may linger, also those that stayed on theirs */
static inline long sm_waits(const struct sm_env *env, const struct sm_stats *st)
{
	return st->parks + st->lingered - st->preempted +
	       (env->lingering ? st->stayed : 0);
}

/*
 * Common part of FIXTURE_SETUP. A kernel without stackmux skips what has to
 * park; anything else that is missing is a failure.
 */
static inline void sm_setup(struct __test_metadata *_metadata,
			    struct sm_env *env, bool parked)
{
	int active;

	sm_knobs_restore();
	memset(env, 0, sizeof(*env));
	env->parked = parked;
	env->present = sm_present();
	env->mode = sm_read_long(SM_SYSCTL);

	if (!env->present) {
		if (parked)
			SKIP(return, "this kernel has no stackmux");
		return;
	}
	ASSERT_EQ(0, sm_stats_read(&env->base)) {
		TH_LOG("cannot read " SM_STATS ": be root, mount debugfs");
	}
	if (getenv("STACKMUX_LINGER"))
		ASSERT_EQ(0, sm_linger(env));
	if (getenv("STACKMUX_STAY"))
		ASSERT_EQ(0, sm_stay(env));
	if (!parked) {
		ASSERT_EQ(0, sm_disable());
		active = env->mode == 2 ? PR_STACKMUX_ACTIVE : 0;
		ASSERT_EQ(active, sm_get());
		return;
	}
	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(PR_STACKMUX_ENABLED | PR_STACKMUX_ACTIVE, sm_get()) {
		TH_LOG("opted in, but not active: kernel.stackmux is %ld",
		       env->mode);
	}
	/* The opt-in must not have made anything park by itself. */
	ASSERT_EQ(0, sm_stats_read(&env->base));
}

/* Start counting anew, for a test of several steps. */
static inline void sm_rebase(struct sm_env *env)
{
	if (env->present)
		sm_stats_read(&env->base);
}

static inline bool sm_check_parked(struct sm_env *env, long n,
				   struct sm_stats *st)
{
	n -= env->lingering;
	return !sm_stats_read(st) &&
	       sm_waits(env, st) - sm_waits(env, &env->base) >= n &&
	       st->parked - env->base.parked >= n;
}

/*
 * Wait until @n more tasks than at the start are parked, and at least @n
 * parks happened. Nothing to wait for in the classic run.
 */
static inline bool sm_wait_parked(struct sm_env *env, long n)
{
	struct sm_stats st;
	int64_t ns = sm_patience_ns() + n * SM_MSEC * sm_slow();

	if (!env->parked)
		return true;
	if (sm_wait_until_ns(sm_check_parked(env, n, &st), ns))
		return true;
	fprintf(stderr, "# wanted %ld parked: parks +%ld, parked +%ld, keeps +%ld, noswitch +%ld\n",
		n, st.parks - env->base.parks, st.parked - env->base.parked,
		st.keeps - env->base.keeps, st.noswitch - env->base.noswitch);
	return false;
}

/* Wait until all @n waiters are asleep, parked where that is the point. */
static inline bool sm_wait_asleep(struct sm_env *env, pid_t pid,
				  struct sm_waiter *w, long n)
{
	long i;

	for (i = 0; i < n; i++) {
		if (!sm_wait_until(sm_waiter_asleep(pid, &w[i]))) {
			fprintf(stderr, "# thread %ld: entered %d, state %c\n",
				i, w[i].entered,
				sm_task_state(pid, w[i].tid));
			return false;
		}
		if (w[i].done) {
			fprintf(stderr, "# thread %ld: came back with %ld instead of sleeping\n",
				i, w[i].ret);
			return false;
		}
	}
	return sm_wait_parked(env, n);
}

/* At least @n parks since the start (classic run: nothing to show). */
#define SM_EXPECT_PARKS(env, n)						\
do {									\
	struct sm_env *__env = (env);					\
	struct sm_stats __st;						\
									\
	if (__env->parked) {						\
		ASSERT_EQ(0, sm_stats_read(&__st));			\
		EXPECT_GE(sm_waits(__env, &__st) -			\
			  sm_waits(__env, &__env->base),		\
			  (long)(n) - __env->lingering) {		\
			TH_LOG("found awake +%ld, stacks kept +%ld",	\
			       __st.noswitch - __env->base.noswitch,	\
			       __st.keeps - __env->base.keeps);		\
		}							\
	}								\
} while (0)

/* No more tasks are parked than before the test. */
static inline bool sm_wait_none_parked(struct sm_env *env)
{
	struct sm_stats st;

	if (!env->present || env->mode == 2)
		return true;
	if (sm_wait_until(!sm_stats_read(&st) &&
			  st.parked <= env->base.parked))
		return true;
	fprintf(stderr, "# %ld are still parked, %ld were before\n",
		st.parked, env->base.parked);
	return false;
}

#define SM_EXPECT_NONE_PARKED(env)	EXPECT_TRUE(sm_wait_none_parked(env))

static char sm_linger_saved[32], sm_preempted_saved[32];

static inline void sm_harness_exit(void)
{
	sm_knobs_restore();
	sm_write_file(SM_LINGER, sm_linger_saved);
	sm_write_file(SM_PREEMPTED_MAX, sm_preempted_saved);
}

/*
 * Before the harness takes over: save what tests may change, stretch the time
 * bounds. @factor stretches them further, for runs with more rounds.
 */
static inline void sm_harness_prepare(long factor)
{
	struct __fixture_metadata *f;
	struct __test_metadata *t;

	/*
	 * TEST_F_TIMEOUT() takes a constant; what is meant is that many
	 * seconds on a release kernel under emulation.
	 */
	for (f = __fixture_list; f; f = f->next)
		for (t = f->tests; t; t = t->next)
			t->timeout *= sm_slow() * factor;

	sm_mount_debugfs();
	sm_knobs_save();
	/*
	 * Each park is to lose its stack: a single sleeper would never. For those
	 * that linger there is a variant of some tests, and for the others the
	 * environment variable STACKMUX_LINGER.
	 */
	if (sm_read_file(SM_LINGER, sm_linger_saved, sizeof(sm_linger_saved)) > 0)
		sm_knob_set(SM_LINGER, "0\n");
	/* So is each preemption: all tests are tests of that, too. */
	if (sm_read_file(SM_PREEMPTED_MAX, sm_preempted_saved,
			 sizeof(sm_preempted_saved)) > 0)
		sm_knob_set(SM_PREEMPTED_MAX, "0\n");
	sm_knobs_restore();
	atexit(sm_harness_exit);
}

#endif /* STACKMUX_HARNESS_H */
