/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A child process whose threads make one blocking call each, to be stopped,
 * continued and killed from outside. What is known of the calls is in shared
 * memory.
 */
#ifndef STACKMUX_CHILD_H
#define STACKMUX_CHILD_H

#include "scenario.h"

#define SM_CHILD_MAX	16

struct sm_child {
	pid_t pid;
	int nr;			/* calls; the first is the main thread's */
	void (*setup)(struct sm_child *c);
	struct sm_waiter w[SM_CHILD_MAX];
};

/* Fork it; its exit code is 0 when all calls have returned. */
static inline int sm_child_run(struct sm_child *c)
{
	pid_t pid = sm_fork();
	int i;

	if (pid < 0)
		return -1;
	if (pid) {
		c->pid = pid;
		return 0;
	}
	if (c->setup)
		c->setup(c);
	for (i = 1; i < c->nr; i++)
		if (sm_waiter_run(&c->w[i]))
			_exit(1);
	sm_waiter_fn(&c->w[0]);
	for (i = 1; i < c->nr; i++)
		pthread_join(c->w[i].thread, NULL);
	_exit(0);
}

/* All its calls wait. */
static inline bool sm_child_asleep(struct sm_env *env, struct sm_child *c)
{
	return sm_wait_parked(env, c->nr) &&
	       sm_wait_asleep(env, c->pid, c->w, c->nr);
}

static inline bool sm_child_start(struct sm_env *env, struct sm_child *c)
{
	sm_rebase(env);
	return !sm_child_run(c) && sm_child_asleep(env, c);
}

static inline bool sm_child_in_state(struct sm_child *c, char state)
{
	int i;

	for (i = 0; i < c->nr; i++)
		if (sm_task_state(c->pid, c->w[i].tid) != state)
			return false;
	return true;
}

static inline bool sm_child_stop(struct sm_child *c)
{
	return !kill(c->pid, SIGSTOP) &&
	       sm_wait_until(sm_child_in_state(c, 'T'));
}

static inline int sm_child_signal(struct sm_child *c, int i, int sig)
{
	return sm_tgkill(c->pid, c->w[i].tid, sig);
}

/* Its call number @i returns @expected. */
#define SM_CHILD_RETURNS(expected, c, i)				\
do {									\
	struct sm_waiter *__w = &(c)->w[i];				\
									\
	ASSERT_TRUE(sm_waiter_done(__w)) {				\
		TH_LOG("call %d does not come back", i);		\
	}								\
	EXPECT_EQ((long)(expected), __w->ret) {				\
		TH_LOG("call %d", i);					\
	}								\
} while (0)

/* Exit status as waitpid() gives it; -1 if there is no end. */
static inline int sm_child_wait(struct sm_child *c)
{
	int status;

	return sm_waitpid(c->pid, &status) ? -1 : status;
}

static inline void sm_child_exit_42(struct sm_waiter *w)
{
	_exit(42);
}

/*
 * What waits is killed from outside, or by another thread's exit. That one
 * waits, too, until @wake, a signal with a handler, interrupts it.
 */
static inline void sm_child_ends(struct __test_metadata *_metadata,
				 struct sm_env *env, struct sm_child *c,
				 int wake)
{
	int i, stopped, status;

	for (stopped = 0; stopped < 2; stopped++) {
		ASSERT_TRUE(sm_child_start(env, c));
		if (stopped)
			ASSERT_TRUE(sm_child_stop(c));
		kill(c->pid, SIGKILL);
		EXPECT_TRUE(sm_killed_by(sm_child_wait(c), SIGKILL));
		for (i = 0; i < c->nr; i++)
			EXPECT_EQ(0, c->w[i].done);
		SM_EXPECT_NONE_PARKED(env);
	}

	c->w[c->nr / 2].after = sm_child_exit_42;
	ASSERT_TRUE(sm_child_start(env, c));
	ASSERT_EQ(0, sm_child_signal(c, c->nr / 2, wake));
	status = sm_child_wait(c);
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(42, WEXITSTATUS(status));
	for (i = 0; i < c->nr; i++)
		EXPECT_EQ(0, c->w[i].done);
	SM_EXPECT_NONE_PARKED(env);
}

#endif /* STACKMUX_CHILD_H */
