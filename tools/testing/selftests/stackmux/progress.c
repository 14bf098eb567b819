// SPDX-License-Identifier: GPL-2.0
/*
 * Each woken thread gets a stack, whoever else wants the CPU, and a dying one first.
 * A process whose threads wait in futex() is woken while a real-time thread spins on a
 * CPU and no stack is idle; then all its threads block in a call that does not park, so
 * each of them needs a stack of its own.
 */
#include "scenario.h"

#define NR		600
#define PRIO_SPINNER	50
#define PRIO_JUDGE	99

struct shared {
	int go;			/* futex: the herd waits for it */
	int up;
	int ran;
	int fifo[2];		/* of the call that does not park */
};

FIXTURE(progress) {
	struct sm_env env;
	struct shared *shared;
	long nr;
	pid_t herd, spinner;
};

SM_FIXTURE_SHARED(progress, shared);

static int set_policy(pid_t tid, int policy, int prio)
{
	struct sched_param sp = { .sched_priority = prio };

	return sched_setscheduler(tid, policy, &sp) ? -errno : 0;
}

static void *herd_thread(void *p)
{
	struct shared *s = p;
	char c;

	sm_add(&s->up, 1);
	while (!sm_load(&s->go))
		sm_wait(&s->go, 0, SM_SHARED);
	sm_add(&s->ran, 1);
	/* O_NONBLOCK is off, and a pipe with no room keeps its writers on their stacks. */
	write(s->fifo[1], &c, 1);
	return NULL;
}

/* A process of @nr threads that wait to be woken, and then keep their stacks */
static pid_t herd_start(struct shared *s, long nr)
{
	pthread_t thread;
	pid_t pid;
	long i;

	if (pipe(s->fifo))
		return -1;
	fcntl(s->fifo[1], F_SETPIPE_SZ, 4096);
	for (i = 0; i < 4096; i++)
		write(s->fifo[1], "", 1);
	pid = sm_fork();
	if (pid)
		return pid;
	for (i = 0; i < nr; i++)
		if (sm_thread(&thread, herd_thread, s))
			_exit(1);
	for (;;)
		pause();
}

/*
 * A process that spins with this priority on CPU 0, for ever. From now on the judge is
 * real-time, too, or it would wait for its turn beside the spinner.
 */
static pid_t spinner_start(int policy, int prio)
{
	cpu_set_t set;
	pid_t pid;

	if (set_policy(0, SCHED_FIFO, PRIO_JUDGE))
		return -1;
	pid = sm_fork();
	if (pid)
		return pid;
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set) || set_policy(0, policy, prio))
		_exit(1);
	for (;;)
		;
}

static void end(pid_t pid)
{
	int status;

	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	sm_waitpid(pid, &status);
}

/* All wait; the judge goes on beside the spinner. */
static void herd_ready(struct __test_metadata *_metadata, FIXTURE_DATA(progress) *self, long nr)
{
	self->nr = nr;
	sm_allow_threads(nr);
	self->herd = herd_start(self->shared, nr);
	ASSERT_LT(0, self->herd);
	ASSERT_TRUE(sm_wait_until(sm_load(&self->shared->up) == nr));
	ASSERT_TRUE(sm_wait_queued(&self->shared->go, SM_SHARED, nr));
	if (self->env.parked)
		ASSERT_TRUE(sm_wait_parked(&self->env, nr));
	if (self->env.present)
		ASSERT_EQ(0, sm_no_idle_stacks());
}

static void herd_wake(struct __test_metadata *_metadata, FIXTURE_DATA(progress) *self)
{
	sm_store(&self->shared->go, 1);
	EXPECT_EQ(self->nr, sm_wake(&self->shared->go, INT_MAX, SM_SHARED));
}

/* It ends at once, with all of its threads. */
static void herd_kill(struct __test_metadata *_metadata, FIXTURE_DATA(progress) *self)
{
	int status;

	kill(self->herd, SIGKILL);
	ASSERT_EQ(0, sm_waitpid(self->herd, &status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void beside_spinner(struct __test_metadata *_metadata, FIXTURE_DATA(progress) *self,
			   int prio)
{
	herd_ready(_metadata, self, sm_rounds(NR));
	self->spinner = spinner_start(SCHED_FIFO, prio);
	ASSERT_LT(0, self->spinner);

	herd_wake(_metadata, self);
	EXPECT_TRUE(sm_wait_until(sm_load(&self->shared->ran) == self->nr)) {
		TH_LOG("%d of %ld have run", self->shared->ran, self->nr);
	}
	SM_EXPECT_MORE(&self->env, starvations, 1);
	herd_kill(_metadata, self);
	end(self->spinner);
}

TEST_F_TIMEOUT(progress, beside_fifo, 90)
{
	beside_spinner(_metadata, self, PRIO_SPINNER);
}

/* One below that of the kernel's own threads that handle what is urgent */
TEST_F_TIMEOUT(progress, beside_lowest_fifo, 90)
{
	beside_spinner(_metadata, self, 1);
}

/* Killed while most of them wait for a stack: dying threads come first. */
TEST_F_TIMEOUT(progress, killed, 90)
{
	herd_ready(_metadata, self, sm_rounds(NR));
	self->spinner = spinner_start(SCHED_FIFO, PRIO_SPINNER);
	ASSERT_LT(0, self->spinner);
	herd_wake(_metadata, self);
	herd_kill(_metadata, self);
	end(self->spinner);
}

/*
 * A thread that becomes real-time while it is parked gets its stack then, not when it is
 * woken: a spinner of a lower priority does not hold it up, though no stack is idle.
 */
static void becomes(struct __test_metadata *_metadata, FIXTURE_DATA(progress) *self,
		    int policy, int prio)
{
	struct sm_waiter w = {};

	sm_pin();
	ASSERT_EQ(0, sm_waiter_futex(&w, &self->shared->go, 0, SM_SHARED));
	ASSERT_TRUE(sm_wait_queued(&self->shared->go, SM_SHARED, 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	ASSERT_EQ(0, set_policy(w.tid, policy, prio));
	if (self->env.parked) {
		EXPECT_TRUE(sm_wait_until(sm_task_is(getpid(), w.tid, "pinned")));
		ASSERT_EQ(0, sm_no_idle_stacks());
	}
	self->spinner = spinner_start(SCHED_FIFO, 1);
	ASSERT_LT(0, self->spinner);
	EXPECT_EQ(1, sm_wake(&self->shared->go, 1, SM_SHARED));
	EXPECT_TRUE(sm_waiter_done(&w));
	EXPECT_EQ(0, w.ret);
	end(self->spinner);
	EXPECT_TRUE(sm_waiter_join(&w));
}

TEST_F(progress, becomes_fifo)
{
	becomes(_metadata, self, SCHED_FIFO, 10);
}

TEST_F(progress, becomes_rr)
{
	becomes(_metadata, self, SCHED_RR, 10);
}

/* How long threads wait for a stack is counted. */
TEST_F(progress, waits)
{
	char buf[4096];
	long before = 0, after = 0, us, n;
	int pass, used;
	char *p;

	if (!self->env.parked)
		SKIP(return, "a classic thread waits for no stack");
	for (pass = 0; pass < 2; pass++) {
		ASSERT_LT(-1, sm_read_file(SM_DEBUGFS "waits", buf, sizeof(buf)));
		for (p = buf; sscanf(p, "%ld %ld\n%n", &us, &n, &used) == 2; p += used) {
			EXPECT_EQ(0, us & (us - 1));
			*(pass ? &after : &before) += n;
		}
		if (pass)
			break;
		herd_ready(_metadata, self, 64);
		herd_wake(_metadata, self);
		EXPECT_TRUE(sm_wait_until(sm_load(&self->shared->ran) == self->nr));
		herd_kill(_metadata, self);
	}
	SM_EXPECT_MORE(&self->env, starvations, 1);
	EXPECT_GT(after, before);
	EXPECT_EQ(0, sm_read_key(SM_STATS, "starving"));
}

SM_MAIN(1)
