// SPDX-License-Identifier: GPL-2.0
/*
 * Do the tests' judges judge? A wait that parks satisfies them, one that does not
 * makes them fail, also where stacks linger and a single thread waits.
 */
#include "calls.h"

FIXTURE(judge) {
	struct sm_env env;
	struct sm_waiter w;
	uint32_t word;
};

FIXTURE_VARIANT(judge) {
	bool lingers;
};

FIXTURE_VARIANT_ADD(judge, taken) { .lingers = false };
FIXTURE_VARIANT_ADD(judge, lingering) { .lingers = true };

FIXTURE_SETUP(judge)
{
	sm_setup(_metadata, &self->env, true);
	if (self->env.mode == 2)
		SKIP(return, "other processes park, too");
	if (self->env.present && variant->lingers)
		ASSERT_EQ(0, sm_linger(&self->env));
	sm_rebase(&self->env);
}

FIXTURE_TEARDOWN(judge)
{
}

static void stay_out(struct sm_waiter *w)
{
	sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0);
}

static bool waits(struct sm_waiter *w, uint32_t *word)
{
	return !sm_waiter_futex(w, word, 0, SM_PRIVATE) && sm_sleeps(w);
}

static bool ends(struct sm_waiter *w, uint32_t *word)
{
	return sm_wake(word, 1, SM_PRIVATE) == 1 && sm_waiter_join(w) && !w->ret;
}

TEST_F(judge, parked)
{
	struct sm_stats st;

	ASSERT_FALSE(sm_check_parked(&self->env, 1, &st));
	ASSERT_TRUE(waits(&self->w, &self->word));
	EXPECT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_FALSE(sm_check_parked(&self->env, 2, &st));
	EXPECT_EQ(1, sm_parks(&self->env, &st));
	EXPECT_EQ(self->env.lingering, st.lingering);
	ASSERT_TRUE(ends(&self->w, &self->word));
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
	EXPECT_FALSE(sm_check_parked(&self->env, 1, &st));
	EXPECT_EQ(1, sm_parks(&self->env, &st));
}

/* Asleep, but on its stack; nor do the naps of the one that looks on count. */
TEST_F(judge, on_its_stack)
{
	struct sm_stats st;
	int i;

	self->w.before = stay_out;
	ASSERT_TRUE(waits(&self->w, &self->word));
	for (i = 0; i < 20; i++) {
		EXPECT_FALSE(sm_check_parked(&self->env, 1, &st));
		EXPECT_EQ(0, sm_parks(&self->env, &st));
		sm_sleep_ms(5);
	}
	ASSERT_TRUE(ends(&self->w, &self->word));
	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_EQ(0, sm_parks(&self->env, &st));
}

/* Calls that are to keep their stack: those that park are found. */
TEST_F(judge, keeps_stack)
{
	struct sm_env *env = &self->env;

	sm_keeps_stack(env, true);
	self->w.before = stay_out;
	ASSERT_TRUE(waits(&self->w, &self->word));
	EXPECT_TRUE(sm_wait_asleep(env, getpid(), &self->w, 1));
	SM_EXPECT_PARKS(env, 1);
	ASSERT_TRUE(ends(&self->w, &self->word));
	self->w.before = NULL;
	ASSERT_TRUE(waits(&self->w, &self->word));
	EXPECT_FALSE(sm_wait_asleep(env, getpid(), &self->w, 1));
	EXPECT_FALSE(sm_check_none_parks(env, 1));
	sm_keeps_stack(env, false);
	EXPECT_TRUE(sm_wait_asleep(env, getpid(), &self->w, 1));
	SM_EXPECT_PARKS(env, 1);
	ASSERT_TRUE(ends(&self->w, &self->word));
}

/* In another process; one of two */
TEST_F(judge, child)
{
	uint32_t *word = sm_shared_alloc(4096);
	struct sm_waiter *w = sm_shared_alloc(2 * sizeof(*w));
	struct sm_stats st;
	int i, status;
	pid_t pid;

	w[1].before = stay_out;
	pid = sm_fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		sm_waiter_futex(&w[0], word, 0, SM_SHARED);
		sm_waiter_set(&w[1], __NR_futex, (long)word, FUTEX_WAIT, 0, 0, 0, 0);
		sm_waiter_fn(&w[1]);
		_exit(!sm_waiter_join(&w[0]));
	}
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(sm_wait_until(sm_waiter_asleep(pid, &w[i])));
	EXPECT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_FALSE(sm_check_parked(&self->env, 2, &st));
	EXPECT_EQ(2, sm_wake(word, 2, SM_SHARED));
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_EQ(0, status);
}

int main(int argc, char **argv)
{
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
