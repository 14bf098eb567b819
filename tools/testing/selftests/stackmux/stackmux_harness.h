/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the stackmux selftests add to the kselftest harness: every scenario
 * runs twice, in a process that did not opt in and in one that did, and the
 * counters have to show that the second one really parked.
 */
#ifndef STACKMUX_HARNESS_H
#define STACKMUX_HARNESS_H

#include "stackmux_test.h"

/* It defines functions and variables: only one file of a program may include it. */
#ifndef STACKMUX_HELPER
#include "../kselftest_harness.h"
#endif

struct sm_env {
	bool parked;		/* this run is to park */
	bool present;		/* the kernel has stackmux */
	bool lingering;		/* parked tasks may keep their stack for a while */
	bool on_stack;		/* what waits now is to stay on its stack */
	long mode;		/* sysctl kernel.stackmux */
	struct sm_stats base;	/* counters before the test */
};

/* Stacks may linger, one on each CPU. */
int sm_linger(struct sm_env *env);

/* NULL, or what is wrong. A kernel without stackmux leaves env->present false. */
const char *sm_env_setup(struct sm_env *env, bool parked);

/*
 * The calls that follow do not park, in no run. Then those below see to it that no
 * thread does that they are asked about; nor do as many as are expected at least.
 */
static inline void sm_keeps_stack(struct sm_env *env, bool keeps)
{
	env->on_stack = keeps;
}

/* Start counting anew, for a test of several steps. */
void sm_rebase(struct sm_env *env);

/*
 * Are @n more tasks than at the start parked, and did at least @n parks happen? One
 * whose stack lingers is parked, one whose stack somebody holds is not.
 */
bool sm_check_parked(struct sm_env *env, long n, struct sm_stats *st);

/*
 * Wait until that is so. Nothing to wait for in the classic run, nor for calls that do
 * not park: then no park may have been begun.
 */
bool sm_wait_parked(struct sm_env *env, long n);

/* Wait until all @n waiters are asleep, parked where that is the point. */
bool sm_wait_asleep(struct sm_env *env, pid_t pid, struct sm_waiter *w, long n);

/* No more tasks are parked than before the test. */
bool sm_wait_none_parked(struct sm_env *env);

/* Parks since the start: ends of them, and those that go on */
long sm_parks(struct sm_env *env, const struct sm_stats *st);

/* Fewer than @n, as far as there are no other processes that park */
bool sm_check_none_parks(struct sm_env *env, long n);

/* At least @n parks since the start (classic run: nothing to show). */
#define SM_EXPECT_PARKS(env, n)						\
do {									\
	struct sm_env *__env = (env);					\
	struct sm_stats __st;						\
									\
	if (__env->parked) {						\
		ASSERT_EQ(0, sm_stats_read(&__st));			\
		if (__env->on_stack) {					\
			EXPECT_TRUE(sm_check_none_parks(__env, n));	\
			break;						\
		}							\
		EXPECT_GE(sm_parks(__env, &__st), (long)(n)) {		\
			TH_LOG("found awake +%ld, stacks pinned +%ld",	\
			       __st.noswitch - __env->base.noswitch,	\
			       __st.pins - __env->base.pins);		\
		}							\
	}								\
} while (0)

#define SM_EXPECT_NONE_PARKED(env)	EXPECT_TRUE(sm_wait_none_parked(env))

/* Variants of a fixture, each of whose tests runs twice */
#define SM_CLASSIC_AND_PARKED(fixture)					\
FIXTURE_VARIANT(fixture) { bool parked; };				\
FIXTURE_VARIANT_ADD(fixture, classic) { .parked = false };		\
FIXTURE_VARIANT_ADD(fixture, parked) { .parked = true };		\
FIXTURE_TEARDOWN(fixture) { }

/* Save what tests may change, and set what they rely on. */
void sm_machine_prepare(void);

#ifndef STACKMUX_HELPER

/*
 * Common part of FIXTURE_SETUP. A kernel without stackmux skips what has to
 * park; anything else that is missing is a failure.
 */
static inline void sm_setup(struct __test_metadata *_metadata, struct sm_env *env, bool parked)
{
	const char *wrong = sm_env_setup(env, parked);

	if (parked && !env->present)
		SKIP(return, "this kernel has no stackmux");
	ASSERT_EQ(NULL, wrong) {
		TH_LOG("%s", wrong);
	}
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
	sm_machine_prepare();
}

#endif /* STACKMUX_HELPER */
#endif /* STACKMUX_HARNESS_H */
