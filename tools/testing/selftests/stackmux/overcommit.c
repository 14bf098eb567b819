// SPDX-License-Identifier: GPL-2.0
/*
 * More threads are woken into a call that keeps its stack than there is memory for
 * stacks. For a guest with less than 1 GiB: they have to be many enough for that, and
 * what else there is in the guest must not be.
 */
#include "scenario.h"

#define BYSTANDER_MB	60
#define STACK_KB	16

struct shared {
	int ready, go;
	long asleep;
	int64_t late_ns;	/* the bystander, at most */
	long naps;
};

FIXTURE(overcommit) {
	struct sm_env env;
	struct shared *shared;
	pid_t herd, bystander;
};

FIXTURE_SETUP(overcommit)
{
	sm_setup(_metadata, &self->env, true);
	self->shared = sm_shared_alloc(sizeof(*self->shared));
	ASSERT_NE(NULL, self->shared);
}

FIXTURE_TEARDOWN(overcommit)
{
	sm_knobs_restore();
}

static void set_oom_score_adj(long adj)
{
	sm_write_long("/proc/self/oom_score_adj", adj);
}

/* It has some memory, sleeps for 20 ms at a time, and measures by how much it is late. */
static pid_t bystander_start(struct shared *s)
{
	const size_t size = BYSTANDER_MB << 20;
	int64_t begin, late;
	pid_t pid = sm_fork();
	char *mem;

	if (pid)
		return pid;
	set_oom_score_adj(0);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (mem == MAP_FAILED)
		_exit(1);
	for (;;) {
		begin = sm_now_ns();
		sm_sleep_ms(20);
		late = sm_now_ns() - begin - 20 * SM_MSEC;
		if (late > s->late_ns)
			s->late_ns = late;
		sm_add(&s->naps, 1);
	}
}

/* Threads without user stacks, that all write to a full pipe once they are woken */
static pid_t herd_start(struct shared *s, long nr)
{
	static struct sm_sleepers sl;
	pid_t pid = sm_fork();
	int p[2];
	long i;

	if (pid)
		return pid;
	set_oom_score_adj(0);
	if (pipe2(p, O_NONBLOCK))
		_exit(1);
	while (write(p[1], s, 4096) > 0)
		;
	fcntl(p[1], F_SETFL, 0);
	if (sm_sleepers_create(&sl, nr, false) != nr || !sm_sleepers_wait_asleep(&sl))
		_exit(2);
	for (i = 0; i < nr; i++)
		sl.slot[i].again = (void *)(long)p[1];
	sl.call = __NR_write;
	sl.arg[1] = (long)s;
	sl.arg[2] = 1;
	sl.futex = 1;
	s->asleep = nr;
	sm_store(&s->ready, 1);
	while (!sm_load(&s->go))
		sm_sleep_ms(1);
	sm_wake(&sl.futex, INT_MAX, SM_PRIVATE);
	for (;;)
		pause();
}

/* The herd is killed, by the OOM killer, and nobody else is. */
TEST_F_TIMEOUT(overcommit, only_the_herd_pays, 120)
{
	long total = sm_meminfo_kb("MemTotal"), nr, naps;
	int status;

	if (total >= 1 << 20)
		SKIP(return, "for a guest with less than 1 GiB");
	nr = total / STACK_KB * 5 / 4;
	sm_allow_threads(nr);
	set_oom_score_adj(-1000);

	self->bystander = bystander_start(self->shared);
	ASSERT_LT(0, self->bystander);
	self->herd = herd_start(self->shared, nr);
	ASSERT_LT(0, self->herd);
	ASSERT_TRUE(sm_wait_until(sm_load(&self->shared->ready)));
	TH_LOG("%ld parked threads, MemFree %ld KiB", nr, sm_meminfo_kb("MemFree"));
	EXPECT_GT(nr * STACK_KB, sm_meminfo_kb("MemFree"));

	sm_store(&self->shared->late_ns, 0);
	sm_store(&self->shared->go, 1);
	ASSERT_EQ(0, sm_waitpid(self->herd, &status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	/* Alive, and it goes on. */
	naps = sm_load(&self->shared->naps);
	EXPECT_TRUE(sm_wait_until(sm_load(&self->shared->naps) > naps + 5));
	EXPECT_EQ(0, waitpid(self->bystander, &status, WNOHANG));
	TH_LOG("a bystander was late by %lld ms at most",
	       (long long)(self->shared->late_ns / SM_MSEC));
	EXPECT_LE(self->shared->late_ns, 10 * sm_patience_ns());
	EXPECT_TRUE(sm_wait_until(sm_read_key(SM_STATS, "starving") == 0));
	kill(self->bystander, SIGKILL);
	sm_waitpid(self->bystander, &status);
}

SM_MAIN(1)
