// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that have been cloned and have not run yet: they need no stack, and
 * whatever happens to them before they run has the same effect as ever.
 *
 * That they cannot run is made sure of by a parent that has a real-time policy,
 * which its threads do not inherit, and that stays on one CPU with them.
 */
#include <sys/ptrace.h>
#include <sys/user.h>

#include "scenario.h"

#ifndef ARCH_GET_FS
#define ARCH_GET_FS	0x1003
#endif

#define DEFAULT_NR	20000
#define SOME		50

/* Stacks that the pool may add to those it had, however many threads there are */
#define STACKS_MORE	64

struct shared {
	int go;
	int tid;
};

FIXTURE(newborn) {
	struct sm_env env;
	struct shared *s;
};

SM_FIXTURE_SHARED(newborn, s);

/* From now on nobody else runs on the caller's CPU, nor its threads elsewhere. */
static int hold_cpu(int priority)
{
	struct sched_param sp = { .sched_priority = priority };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return -errno;
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp))
		return -errno;
	return 0;
}

static int let_go(void)
{
	struct sched_param sp = { };

	return sched_setscheduler(0, SCHED_OTHER, &sp) ? -errno : 0;
}

static void check_proc(struct __test_metadata *_metadata, pid_t tid, bool parked)
{
	const pid_t pid = getpid();
	char buf[8192];

	EXPECT_EQ('R', sm_task_state(pid, tid));
	sm_task_read(pid, tid, "syscall", buf, sizeof(buf));
	EXPECT_STREQ("running\n", buf);
	sm_task_read(pid, tid, "wchan", buf, sizeof(buf));
	EXPECT_STREQ("0", buf);
	if (!parked)
		return;
	EXPECT_STREQ("parked", sm_task_status(pid, tid, "Stackmux", buf, sizeof(buf)) ?: "");
	sm_task_read(pid, tid, "stack", buf, sizeof(buf));
	EXPECT_NE(NULL, strstr(buf, "ret_from_fork"));
	EXPECT_EQ(NULL, strstr(buf, "stackmux"));
}

/* 20,000 threads that cannot run, and a handful of stacks */
TEST_F_TIMEOUT(newborn, many, 120)
{
	long nr = variant->parked ? DEFAULT_NR / sm_slow() : SOME;
	struct sm_stats st0, st1 = { 0 };
	struct sm_sleepers s;
	long kb0, kb1;

	sm_allow_threads(nr);
	if (self->env.present) {
		ASSERT_EQ(0, sm_write_file(SM_DEBUGFS "reset", "1\n"));
		ASSERT_EQ(0, sm_stats_read(&st0));
	}
	kb0 = sm_meminfo_kb("KernelStack");
	ASSERT_EQ(0, hold_cpu(5));
	ASSERT_EQ(nr, sm_sleepers_create(&s, nr, false)) {
		TH_LOG("clone: %s", strerror(errno));
	}
	if (self->env.present)
		ASSERT_EQ(0, sm_stats_read(&st1));
	kb1 = sm_meminfo_kb("KernelStack");
	check_proc(_metadata, s.slot[nr - 1].tid, self->env.parked);
	ASSERT_EQ(0, let_go());

	if (variant->parked) {
		TH_LOG("%ld cloned: newborns +%ld, parked +%ld, stacks +%ld, KernelStack %+ld KiB",
		       nr, st1.newborns - st0.newborns, st1.parked - st0.parked,
		       st1.stacks_max - st0.stacks, kb1 - kb0);
		EXPECT_GE(st1.newborns - st0.newborns, nr);
		EXPECT_GE(st1.records, nr);
		/* The scheduler lets others run for a moment of each second. */
		EXPECT_GE(st1.parked - st0.parked, nr * 9 / 10);
		EXPECT_LE(st1.stacks_max - st0.stacks, STACKS_MORE);
		EXPECT_LE(kb1 - kb0, STACKS_MORE * 32);
	} else if (self->env.mode != 2) {
		EXPECT_EQ(st1.newborns, self->env.present ? st0.newborns : 0);
	}

	ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
	EXPECT_TRUE(sm_wait_parked(&self->env, nr));
	if (variant->parked) {
		ASSERT_EQ(0, sm_stats_read(&st1));
		TH_LOG("all asleep: stacks +%ld", st1.stacks_max - st0.stacks);
		EXPECT_LE(st1.stacks_max - st0.stacks, 4 * STACKS_MORE);
	}
	EXPECT_EQ(nr, sm_sleepers_wake(&s, false));
	EXPECT_EQ(nr, sm_sleepers_reap(&s));
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

/* ----------------------------------------------------------- thread ids, TLS */

struct child {
	uint32_t parent_tid;
	uint32_t child_tid;
	uint32_t own_tid;
	uint32_t seen;		/* child_tid, by the child */
	uint32_t word;
	unsigned long fs;
	char stack[4096];
};

/* On the TLS of its parent: no libc */
static int say_who(void *arg)
{
	struct child *c = arg;
	unsigned long fs;

	sm_sys(__NR_arch_prctl, ARCH_GET_FS, &fs);
	c->fs = fs;
	c->seen = sm_load(&c->child_tid);
	c->own_tid = sm_sys(__NR_gettid);
	sm_wait(&c->word, 0, SM_PRIVATE);
	sm_sys(__NR_exit);
	return 0;
}

TEST_F(newborn, thread_ids)
{
	static struct child child[2];
	unsigned long tls[2] = { };
	struct child *c;
	int i, tid;

	ASSERT_EQ(0, hold_cpu(5));
	for (i = 0; i < 2; i++) {
		c = &child[i];
		tid = clone(say_who, c->stack + sizeof(c->stack),
			    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
			    CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
			    CLONE_PARENT_SETTID | CLONE_CHILD_SETTID |
			    CLONE_CHILD_CLEARTID, c, &c->parent_tid, &tls[i], &c->child_tid);
		ASSERT_GT(tid, 0);
		EXPECT_EQ(tid, c->parent_tid);
		/* That is the child's business. */
		EXPECT_EQ(0, sm_load(&c->child_tid));
	}
	ASSERT_EQ(0, let_go());
	for (i = 0; i < 2; i++) {
		c = &child[i];
		ASSERT_TRUE(sm_wait_queued(&c->word, SM_PRIVATE, 1));
		EXPECT_EQ(c->parent_tid, c->child_tid);
		EXPECT_EQ(c->parent_tid, c->seen);
		EXPECT_EQ(c->parent_tid, c->own_tid);
		EXPECT_EQ((unsigned long)&tls[i], c->fs);
	}
	EXPECT_TRUE(sm_wait_parked(&self->env, 2));
	for (i = 0; i < 2; i++) {
		c = &child[i];
		EXPECT_EQ(1, sm_wake(&c->word, 1, SM_PRIVATE));
		EXPECT_TRUE(sm_wait_until(!sm_load(&c->child_tid)));
	}
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

/* ------------------------------------------------- the end before the beginning */

static void end_by_exit(void)
{
	_exit(0);
}

static void end_by_exec(void)
{
	execl("/bin/true", "true", NULL);
}

static void end_by_kill(void)
{
	kill(getpid(), SIGKILL);
}

static void end_by_abort(void)
{
	raise(SIGABRT);
}

static void end_by_fault(void)
{
	raise(SIGSEGV);
}

/* The process ends by @end; @status is what waitpid() tells, but for a core dump. */
static void end_early(struct __test_metadata *_metadata, struct sm_env *env,
		      void (*end)(void), int status)
{
	struct sm_sleepers sl;
	int got;
	pid_t pid;

	pid = SM_FORK();
	if (!pid) {
		if (hold_cpu(5))
			_exit(1);
		if (sm_sleepers_create(&sl, SOME, false) != SOME)
			_exit(2);
		if (sm_load(&sl.entered))
			_exit(3);
		end();
		_exit(4);
	}
	ASSERT_EQ(0, sm_waitpid(pid, &got));
	EXPECT_EQ(status, got & ~WCOREFLAG);
	SM_EXPECT_MORE(env, newborns, SOME);
	EXPECT_TRUE(sm_wait_none_parked(env));
}

TEST_F(newborn, exit_group)
{
	end_early(_metadata, &self->env, end_by_exit, 0);
}

TEST_F(newborn, exec)
{
	end_early(_metadata, &self->env, end_by_exec, 0);
}

TEST_F(newborn, kill)
{
	end_early(_metadata, &self->env, end_by_kill, SIGKILL);
}

TEST_F(newborn, core_dump)
{
	end_early(_metadata, &self->env, end_by_abort, SIGABRT);
	end_early(_metadata, &self->env, end_by_fault, SIGSEGV);
}

/* --------------------------------------------------------------------- ptrace */

/* A tracer comes before the thread has run. */
static void trace_newborn(struct __test_metadata *_metadata, struct sm_env *env,
			  struct shared *s, bool seize)
{
	struct user_regs_struct r;
	int status;
	pid_t pid, tid;

	memset(s, 0, sizeof(*s));
	/* On the child's CPU, and its turn before the child's when it is awake */
	ASSERT_EQ(0, hold_cpu(10));
	pid = SM_FORK();
	if (!pid) {
		struct sm_sleepers sl;

		if (hold_cpu(5) || sm_sleepers_create(&sl, 1, false) != 1)
			_exit(1);
		sm_store(&s->tid, sl.slot[0].tid);
		while (!sm_load(&s->go))
			;
		if (let_go())
			_exit(2);
		while (sm_sleepers_wake(&sl, false) != 1)
			sm_sleep_ms(1);
		while (!sm_load(&sl.returned))
			sm_sleep_ms(1);
		_exit(0);
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&s->tid)));
	tid = s->tid;
	EXPECT_EQ('R', sm_task_state(pid, tid));
	if (seize) {
		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, tid, NULL, NULL));
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
	} else {
		ASSERT_EQ(0, ptrace(PTRACE_ATTACH, tid, NULL, NULL));
	}
	EXPECT_EQ('R', sm_task_state(pid, tid));
	sm_store(&s->go, 1);
	ASSERT_TRUE(sm_wait_until(waitpid(tid, &status, __WALL | WNOHANG) == tid));
	EXPECT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tid, NULL, &r));
	EXPECT_EQ(0, r.rax);
	EXPECT_EQ(__NR_clone, r.orig_rax);
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, tid, NULL, NULL));
	ASSERT_EQ(0, let_go());
	SM_EXPECT_STATUS(0, pid);
	EXPECT_TRUE(sm_wait_none_parked(env));
}

TEST_F(newborn, ptrace_attach)
{
	trace_newborn(_metadata, &self->env, self->s, false);
}

TEST_F(newborn, ptrace_seize)
{
	trace_newborn(_metadata, &self->env, self->s, true);
}

/* ----------------------------------------------------------------- starvation */

/* There is no stack for those that are to run for the first time. */
TEST_F_TIMEOUT(newborn, starvation, 60)
{
	const int nr = 256;
	struct sm_sleepers s;
	int i;

	if (!self->env.present)
		SKIP(return, "this kernel has no stackmux");
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, hold_cpu(5));
		ASSERT_EQ(nr, sm_sleepers_create(&s, nr, false));
		ASSERT_EQ(0, sm_no_idle_stacks());
		ASSERT_EQ(0, let_go());
		ASSERT_EQ(0, sm_shrink());
		ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
		EXPECT_TRUE(sm_wait_parked(&self->env, nr));
		EXPECT_EQ(nr, sm_sleepers_wake(&s, false));
		EXPECT_EQ(nr, sm_sleepers_reap(&s));
		EXPECT_TRUE(sm_wait_none_parked(&self->env));
		sm_knobs_restore();
	}
	SM_EXPECT_MORE(&self->env, reserve, 1);
	SM_EXPECT_MORE(&self->env, starvations, 1);
}

SM_MAIN(1);
