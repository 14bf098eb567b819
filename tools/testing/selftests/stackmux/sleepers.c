// SPDX-License-Identifier: GPL-2.0
/*
 * Many threads asleep in futex: what they cost while they sleep, that each is
 * woken once, and that nothing is left when they are gone.
 *
 * By hand, for a million:
 *	STACKMUX_SLEEPERS=1000000 ./sleepers -v parked -t at_once
 */
#include "stackmux_harness.h"

#define DEFAULT_NR	20000

/* A pool that serves any number of sleepers stays below this. */
#define POOL_MAX_KB	(64 << 10)

/* ... and may hold this much, however few they are. */
#define POOL_MIN_KB	(8 << 10)

static long nr_sleepers(bool parked)
{
	const char *s = getenv("STACKMUX_SLEEPERS");
	long n = s ? atol(s) : DEFAULT_NR / sm_slow();

	if (n < 500)
		n = 500;
	/* Classic sleepers need a stack each: only some, to compare with. */
	return parked || n < 4000 ? n : 4000;
}

static long scale(void)
{
	long n = nr_sleepers(true) / DEFAULT_NR;

	return n < 1 ? 1 : n;
}

FIXTURE(sleepers) {
	struct sm_env env;
	struct sm_sleepers s;
	long nr;
};

SM_CLASSIC_AND_PARKED(sleepers)

FIXTURE_SETUP(sleepers)
{
	sm_setup(_metadata, &self->env, variant->parked);
	self->nr = nr_sleepers(variant->parked);
	sm_allow_threads(self->nr);
}

/*
 * Size of a kernel stack: what one more thread adds to KernelStack. KASAN doubles it;
 * the smaller one is the safer bound below.
 */
#define STACK_KB	16

/* What the stacks of @nr parked sleepers may take: those in the pool. */
static long stack_limit_kb(long nr)
{
	long limit = nr * STACK_KB / 8;

	if (limit < POOL_MIN_KB)
		return POOL_MIN_KB;
	return limit < POOL_MAX_KB ? limit : POOL_MAX_KB;
}

struct usage {
	long stack_kb;		/* KernelStack */
	long avail_kb;		/* MemAvailable */
	struct sm_stats st;
};

static void usage_read(struct sm_env *env, struct usage *u)
{
	memset(u, 0, sizeof(*u));
	u->stack_kb = sm_meminfo_kb("KernelStack");
	u->avail_kb = sm_meminfo_kb("MemAvailable");
	if (env->present)
		sm_stats_read(&u->st);
}

/* While @nr are asleep: their stacks are not there, their records are. */
static void check_asleep(struct __test_metadata *_metadata,
			 struct sm_env *env, long nr, const struct usage *u0,
			 const struct usage *u1)
{
	long grown = u1->stack_kb - u0->stack_kb;
	long limit = stack_limit_kb(nr);

	TH_LOG("%ld asleep: KernelStack +%ld KiB, MemAvailable -%ld KiB (%.2f KiB each)",
	       nr, grown, u0->avail_kb - u1->avail_kb,
	       (double)(u0->avail_kb - u1->avail_kb) / nr);
	if (!env->parked) {
		if (env->mode != 2)
			EXPECT_GE(grown, nr * STACK_KB * 9 / 10);
		return;
	}
	EXPECT_LT(grown, limit);
	EXPECT_GE(u1->st.parked + u1->st.lingering - u0->st.parked, nr);
	EXPECT_GE(u1->st.records, nr);
	EXPECT_LE(u1->st.record_bytes, 512);
	EXPECT_LT(u1->st.stacks - u0->st.stacks, limit / STACK_KB);
	TH_LOG("%ld parked, %ld stacks, %ld idle, record %ld bytes",
	       u1->st.parked, u1->st.stacks, u1->st.stacks_idle,
	       u1->st.record_bytes);
}

/*
 * KASAN keeps up to a 32nd of the memory that was freed from being used again.
 * How full that quarantine is depends on all that was freed since the boot.
 */
static long quarantine_kb(void)
{
	static long kb = -1;
	char line[256];
	FILE *f;

	if (kb >= 0)
		return kb;
	kb = 0;
	f = fopen("/proc/kallsyms", "r");
	while (f && !kb && fgets(line, sizeof(line), f))
		if (strstr(line, " kasan_quarantine_put\n"))
			kb = sm_meminfo_kb("MemTotal") / 32;
	if (f)
		fclose(f);
	return kb;
}

static bool memory_is_back(struct sm_env *env, const struct usage *u0,
			   const struct usage *u1, struct usage *u2)
{
	long used = u0->avail_kb - u1->avail_kb;

	usage_read(env, u2);
	if (u2->stack_kb > u0->stack_kb + (16 << 10))
		return false;
	if (!env->parked)
		return true;
	return u2->st.records <= u0->st.records + 1000 &&
	       u2->avail_kb >= u0->avail_kb - used / 4 - (24 << 10) - quarantine_kb();
}

/* When they have gone: stacks, records and memory come back. */
static void check_gone(struct __test_metadata *_metadata, struct sm_env *env,
		       const struct usage *u0, const struct usage *u1)
{
	struct usage u2;

	EXPECT_TRUE(sm_wait_none_parked(env));
	EXPECT_TRUE(sm_wait_until_ns(memory_is_back(env, u0, u1, &u2),
				     sm_patience_ns() * scale())) {
		TH_LOG("KernelStack %ld, at first %ld KiB", u2.stack_kb, u0->stack_kb);
		TH_LOG("MemAvailable %ld, at first %ld KiB", u2.avail_kb, u0->avail_kb);
		TH_LOG("records %ld, at first %ld", u2.st.records, u0->st.records);
	}
}

/*
 * The workers keep up with a herd: there is memory, so only a few may find no stack.
 * If one that finds none is not served before the CPU turns to the next, all others
 * find none either.
 */
static void check_well_fed(struct __test_metadata *_metadata, struct sm_env *env,
			   long nr, const struct usage *u1)
{
	struct usage u2;

	if (!env->parked)
		return;
	usage_read(env, &u2);
	TH_LOG("%ld starved", u2.st.starvations - u1->st.starvations);
	EXPECT_LE(u2.st.starvations - u1->st.starvations, nr / 16);
}

static void run_sleepers(struct __test_metadata *_metadata, struct sm_env *env,
			 struct sm_sleepers *s, long nr, bool own,
			 bool one_by_one)
{
	struct usage u0, u1;
	int64_t t[4];

	usage_read(env, &u0);
	t[0] = sm_now_ns();
	ASSERT_EQ(nr, sm_sleepers_create(s, nr, own)) {
		TH_LOG("clone: %s", strerror(errno));
	}
	ASSERT_TRUE(sm_sleepers_wait_asleep(s)) {
		TH_LOG("%ld of %ld are waiting", sm_sleepers_waiting(s), nr);
	}
	ASSERT_TRUE(sm_wait_parked(env, nr));
	t[1] = sm_now_ns();
	EXPECT_EQ(0, sm_load(&s->returned));
	usage_read(env, &u1);
	check_asleep(_metadata, env, nr, &u0, &u1);

	t[2] = sm_now_ns();
	EXPECT_EQ(nr, sm_sleepers_wake(s, one_by_one));
	EXPECT_EQ(nr, sm_sleepers_reap(s));
	t[3] = sm_now_ns();
	EXPECT_EQ(nr, sm_load(&s->returned));
	TH_LOG("%lld ns each until asleep, %lld ns each from wake to exit",
	       (long long)(t[1] - t[0]) / nr, (long long)(t[3] - t[2]) / nr);
	check_well_fed(_metadata, env, nr, &u1);
	check_gone(_metadata, env, &u0, &u1);
}

TEST_F_TIMEOUT(sleepers, at_once, 120)
{
	run_sleepers(_metadata, &self->env, &self->s, self->nr, false, false);
}

TEST_F_TIMEOUT(sleepers, one_by_one, 120)
{
	run_sleepers(_metadata, &self->env, &self->s, self->nr, true, true);
}

/* They die asleep. */
TEST_F_TIMEOUT(sleepers, killed, 120)
{
	long nr = self->nr / 4;
	struct usage u0, u1;
	uint32_t *ready = sm_shared_alloc(4096);
	int status;
	pid_t pid;

	usage_read(&self->env, &u0);
	pid = sm_fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		if (sm_sleepers_create(&self->s, nr, false) != nr ||
		    !sm_sleepers_wait_asleep(&self->s))
			_exit(1);
		sm_store(ready, 1);
		for (;;)
			sm_sleep_ms(100);
	}
	ASSERT_TRUE(sm_wait_until_ns(sm_load(ready), sm_patience_ns() * scale()));
	ASSERT_TRUE(sm_wait_parked(&self->env, nr));
	usage_read(&self->env, &u1);
	check_asleep(_metadata, &self->env, nr, &u0, &u1);
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	check_gone(_metadata, &self->env, &u0, &u1);
}

/*
 * threads-max is derived from the size of a stack at boot. It does not stop the threads
 * of a process that opted in, but its children; and all of them where everybody parks,
 * unless an administrator says otherwise.
 */
TEST_F_TIMEOUT(sleepers, threads_max, 60)
{
	const long room = 300, nr = 3 * room;
	bool limited = !variant->parked || self->env.mode == 2;
	char buf[128], *p;
	long made, total;
	pid_t pid;

	if (!self->env.present)
		SKIP(return, "this kernel has no stackmux");
	ASSERT_GT(sm_read_file("/proc/loadavg", buf, sizeof(buf)), 0);
	p = strchr(buf, '/');	/* "... runnable/all last-pid" */
	ASSERT_NE(NULL, p);
	total = atol(p + 1);
	ASSERT_EQ(0, sm_write_long("/proc/sys/kernel/threads-max", total + room));
	made = sm_sleepers_create(&self->s, nr, false);
	if (limited) {
		EXPECT_EQ(EAGAIN, errno);
		EXPECT_LE(made, room);
		EXPECT_GE(made, room / 2);
	} else {
		EXPECT_EQ(nr, made) {
			TH_LOG("clone: %s", strerror(errno));
		}
	}
	pid = fork();
	if (!pid)
		_exit(0);
	EXPECT_EQ(-1, pid);
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_TRUE(sm_sleepers_wait_asleep(&self->s));
	ASSERT_TRUE(sm_wait_parked(&self->env, made));
	EXPECT_EQ(made, sm_sleepers_wake(&self->s, false));
	EXPECT_EQ(made, sm_sleepers_reap(&self->s));
	sm_knobs_restore();
}

/* ------------------------------------------------------------------- cgroups */

#define CGROUP	"/sys/fs/cgroup"

static long cgroup_dying(void)
{
	return sm_read_key(CGROUP "/cgroup.stat", "nr_dying_descendants");
}

static bool cgroup_is_forgotten(long dying)
{
	/* What else still refers to it is cached pages and objects. */
	sm_write_file("/proc/sys/vm/drop_caches", "3\n");
	return cgroup_dying() <= dying;
}

/*
 * In a memory cgroup: memory.stat tells what the stacks take, and idle stacks
 * that were charged to it do not keep a removed cgroup.
 */
TEST_F_TIMEOUT(sleepers, memcg, 120)
{
	long nr = self->nr / 2, bytes, dying, kernel;
	char dir[128], file[192], buf[256];
	uint32_t *ready = sm_shared_alloc(4096);
	int status, i;
	pid_t pid;

	if (sm_read_file(CGROUP "/cgroup.controllers", buf, sizeof(buf)) <= 0 ||
	    !strstr(buf, "memory"))
		SKIP(return, "no cgroup2 with the memory controller at " CGROUP);
	sm_write_file(CGROUP "/cgroup.subtree_control", "+memory");

	/* Pages of programs belong to whoever uses them first: not the group. */
	ASSERT_EQ(1, sm_sleepers_create(&self->s, 1, false));
	ASSERT_TRUE(sm_sleepers_wait_asleep(&self->s));
	EXPECT_EQ(1, sm_sleepers_wake(&self->s, false));
	EXPECT_EQ(1, sm_sleepers_reap(&self->s));

	snprintf(dir, sizeof(dir), CGROUP "/stackmux-%d", getpid());
	dying = cgroup_dying();
	ASSERT_GE(dying, 0);
	ASSERT_EQ(0, mkdir(dir, 0755));
	for (i = 0; i < 2; i++) {
		memset(ready, 0, 8);
		sm_rebase(&self->env);
		pid = sm_fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			snprintf(file, sizeof(file), "%s/cgroup.procs", dir);
			if (sm_write_long(file, getpid()))
				_exit(1);
			if (sm_sleepers_create(&self->s, nr, false) != nr ||
			    !sm_sleepers_wait_asleep(&self->s))
				_exit(2);
			sm_store(&ready[0], 1);
			while (!sm_load(&ready[1]))
				sm_sleep_ms(5);
			if (sm_sleepers_wake(&self->s, false) != nr ||
			    sm_sleepers_reap(&self->s) != nr)
				_exit(3);
			_exit(0);
		}
		ASSERT_TRUE(sm_wait_until_ns(sm_load(&ready[0]), sm_patience_ns() * scale()));
		ASSERT_TRUE(sm_wait_parked(&self->env, nr));
		snprintf(file, sizeof(file), "%s/memory.stat", dir);
		bytes = sm_read_key(file, "kernel_stack");
		kernel = sm_read_key(file, "kernel");
		TH_LOG("%ld asleep: kernel_stack %ld, kernel %ld bytes", nr, bytes, kernel);
		EXPECT_GE(bytes, 0);
		if (variant->parked) {
			/*
			 * The stacks the pool holds may be charged to the
			 * group that used them last, but no more than those:
			 * some hundreds, however many threads there are.
			 */
			EXPECT_LT(bytes, nr * STACK_KB * 1024 / 2);
		} else if (self->env.mode != 2) {
			EXPECT_GE(bytes, nr * STACK_KB * 1024 * 9 / 10);
		}
		if (!i) {
			sm_store(&ready[1], 1);
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
			EXPECT_EQ(0, status);
		} else {
			kill(pid, SIGKILL);
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
		}
		EXPECT_TRUE(sm_wait_none_parked(&self->env));
	}
	EXPECT_TRUE(sm_wait_until(!rmdir(dir)));
	EXPECT_TRUE(sm_wait_until(cgroup_is_forgotten(dying))) {
		TH_LOG("%ld dying cgroups, at first %ld", cgroup_dying(), dying);
	}
}

/* ----------------------------------------------------------- address spaces */

/*
 * Processes take turns on the same few stacks. Userspace cannot look at a
 * kernel stack, but can see that there are fewer of them than threads, and
 * that every call returns what it should.
 */
TEST_F_TIMEOUT(sleepers, address_spaces, 90)
{
	enum { PROCS = 6, THREADS = 60 };
	uint32_t *sh = sm_shared_alloc(4096);
	int i, round, status;
	pid_t pid[PROCS];

	sm_rebase(&self->env);
	for (i = 0; i < PROCS; i++) {
		pid[i] = sm_fork();
		ASSERT_GE(pid[i], 0);
		if (pid[i])
			continue;
		for (round = 0; round < 4; round++) {
			if (sm_sleepers_create(&self->s, THREADS, round & 1) !=
			    THREADS || !sm_sleepers_wait_asleep(&self->s))
				_exit(1);
			/* All processes' threads are asleep at some time. */
			sm_add(&sh[round], 1);
			if (!sm_wait_until(sm_load(&sh[8 + round])))
				_exit(2);
			if (sm_sleepers_wake(&self->s, i & 1) != THREADS ||
			    sm_sleepers_reap(&self->s) != THREADS)
				_exit(3);
		}
		_exit(0);
	}
	for (round = 0; round < 4; round++) {
		EXPECT_TRUE(sm_wait_until(sm_load(&sh[round]) == PROCS));
		EXPECT_TRUE(sm_wait_parked(&self->env, PROCS * THREADS));
		sm_store(&sh[8 + round], 1);
	}
	for (i = 0; i < PROCS; i++) {
		ASSERT_EQ(0, sm_waitpid(pid[i], &status));
		EXPECT_EQ(0, status);
	}
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

int main(int argc, char **argv)
{
	sm_harness_prepare(scale());
	return test_harness_run(argc, argv);
}
