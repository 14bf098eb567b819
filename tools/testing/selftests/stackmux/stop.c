// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that are stopped, frozen, or wait for a core dump, in a process that parks
 * and in one that does not: what they hold meanwhile, and that all goes on afterwards
 * as if they had kept their stacks.
 */
#include <sys/ptrace.h>
#include <sys/user.h>

#include "scenario.h"
#include "child.h"

#define HOUR	3600

/* The calls that the child's threads wait in; its main thread pauses. */
enum { PAUSE, FUTEX, READ, POLL, NANOSLEEP, WRITE, NR_CALLS };

static const int call_nr[] = {
	[PAUSE]		= __NR_pause,
	[FUTEX]		= __NR_futex,
	[READ]		= __NR_read,
	[POLL]		= __NR_ppoll,
	[NANOSLEEP]	= __NR_clock_nanosleep,
	[WRITE]		= __NR_write,
};

/* Calls that wait without a stack: all but WRITE, which is left out of most children */
#define NR_PARK		WRITE

struct shared {
	struct sm_child c;
	uint32_t futex;
	int rd[2], wr[2];	/* pipes: one to read from, a full one to write to */
	struct timespec ts;
	char byte;
	int sa_flags;		/* of SIGUSR1 in the child */
	int handled[NR_CALLS];
	int codes[64], nr_codes; /* si_code of the parent's SIGCHLD */
};

FIXTURE(stop) {
	struct sm_env env;
	struct shared *s;
};

SM_FIXTURE_SHARED(stop, s);

static struct shared *shared;

static void count_handled(int sig)
{
	int i;

	for (i = 0; i < NR_CALLS; i++)
		if (shared->c.w[i].tid == sm_gettid())
			sm_add(&shared->handled[i], 1);
}

/* A process group of its own, which is no orphan: job control signals stop it. */
static void child_setup(struct sm_child *c)
{
	struct sigaction sa = { .sa_handler = count_handled, .sa_flags = shared->sa_flags };

	setpgid(0, 0);
	sigaction(SIGUSR1, &sa, NULL);
}

/*
 * Nobody looked at its stack meanwhile, so it has none. That of a wait that is frozen
 * where it is parked may linger.
 */
static bool has_no_stack(struct sm_child *c, int i)
{
	return sm_task_is(c->pid, c->w[i].tid, "parked") ||
	       (sm_lingering && sm_task_is(c->pid, c->w[i].tid, "lingering"));
}

/* All calls wait, those that park without a stack; others may come and go meanwhile. */
static bool all_wait(struct sm_env *env, struct sm_child *c)
{
	int i;

	if (!sm_wait_until(sm_child_in_state(c, 'S')))
		return false;
	for (i = 0; env->parked && i < c->nr && i < NR_PARK; i++)
		if (!sm_wait_until(has_no_stack(c, i)))
			return false;
	return true;
}

static bool calls_start_with(struct sm_env *env, struct shared *s, int nr,
			     void (*setup)(struct sm_child *c))
{
	struct sm_child *c = &s->c;
	char page[4096] = { 0 };

	shared = s;
	memset(c, 0, sizeof(*c));
	memset(s->handled, 0, sizeof(s->handled));
	s->futex = 0;
	s->ts.tv_sec = HOUR;
	if (pipe(s->rd) || pipe(s->wr))
		return false;
	sm_nonblock(s->wr[1], true);
	while (write(s->wr[1], page, sizeof(page)) > 0)
		;
	sm_nonblock(s->wr[1], false);

	c->nr = nr;
	c->setup = setup;
	sm_call(&c->w[PAUSE], call_nr[PAUSE]);
	sm_call(&c->w[FUTEX], call_nr[FUTEX], &s->futex, FUTEX_WAIT, 0);
	sm_call(&c->w[READ], call_nr[READ], s->rd[0], &s->byte, 1);
	sm_call(&c->w[POLL], call_nr[POLL], NULL, 0, &s->ts);
	sm_call(&c->w[NANOSLEEP], call_nr[NANOSLEEP], CLOCK_MONOTONIC, 0, &s->ts);
	sm_call(&c->w[WRITE], call_nr[WRITE], s->wr[1], page, 1);
	sm_rebase(env);
	if (sm_child_run(c))
		return false;
	/* WRITE keeps its stack. */
	return all_wait(env, c);
}

static bool calls_start(struct sm_env *env, struct shared *s, int nr)
{
	return calls_start_with(env, s, nr, child_setup);
}

static void pipes_close(struct shared *s)
{
	close(s->rd[0]);
	close(s->rd[1]);
	close(s->wr[0]);
	close(s->wr[1]);
}

static bool in_state(struct sm_child *c, char state, int from)
{
	int i;

	for (i = from; i < c->nr; i++)
		if (sm_task_state(c->pid, c->w[i].tid) != state)
			return false;
	return true;
}

/* Its threads from @from on are in this state, and where it is to park without a stack. */
#define EXPECT_HELD(env, c, state, from)				\
do {									\
	int __k;							\
									\
	ASSERT_TRUE(sm_wait_until(in_state(c, state, from)));		\
	for (__k = (from); (env)->parked && __k < (c)->nr; __k++) {	\
		EXPECT_TRUE(sm_wait_until(has_no_stack(c, __k))) {	\
			TH_LOG("call %d has a stack", __k);		\
		}							\
	}								\
} while (0)

/*
 * What is sent to a process goes to its first thread, which starts the stop and keeps
 * its stack.
 */
#define STOP(env, c, sig)						\
do {									\
	ASSERT_EQ(0, kill((c)->pid, sig));				\
	EXPECT_HELD(env, c, 'T', 1);					\
} while (0)

#define KILL(env, c)							\
do {									\
	kill((c)->pid, SIGKILL);					\
	EXPECT_TRUE(sm_killed_by(sm_child_wait(c), SIGKILL));		\
	SM_EXPECT_NONE_PARKED(env);					\
} while (0)

static void look_at_codes(int sig, siginfo_t *info, void *ctx)
{
	int i = sm_add(&shared->nr_codes, 1) - 1;

	if (i < (int)ARRAY_SIZE(shared->codes))
		shared->codes[i] = info->si_code;
}

/* ------------------------------------------------------------- group stop */

static const int stop_signals[] = { SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU };

/* Calls go on after it, and the parent is told each time, in this order. */
TEST_F(stop, continue)
{
	struct sigaction sa = { .sa_sigaction = look_at_codes, .sa_flags = SA_SIGINFO };
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	siginfo_t info;
	char buf[64];
	int i, status;

	ASSERT_TRUE(calls_start(&self->env, s, NR_PARK));
	sigaction(SIGCHLD, &sa, NULL);
	for (i = 0; i < (int)ARRAY_SIZE(stop_signals); i++) {
		STOP(&self->env, c, stop_signals[i]);
		if (i & 1) {
			ASSERT_EQ(c->pid, waitpid(c->pid, &status, WUNTRACED));
			EXPECT_TRUE(WIFSTOPPED(status));
			EXPECT_EQ(stop_signals[i], WSTOPSIG(status));
		} else {
			ASSERT_EQ(0, waitid(P_PID, c->pid, &info, WSTOPPED));
			EXPECT_EQ(CLD_STOPPED, info.si_code);
			EXPECT_EQ(stop_signals[i], info.si_status);
		}
		EXPECT_EQ(0, waitpid(c->pid, &status, WUNTRACED | WCONTINUED | WNOHANG));
		EXPECT_TRUE(sm_wait_until(sm_load(&s->nr_codes) == 2 * i + 1));
		ASSERT_LT(0, sm_task_read(c->pid, c->w[FUTEX].tid, "wchan", buf, sizeof(buf)));
		EXPECT_STREQ("do_signal_stop", buf);

		ASSERT_EQ(0, kill(c->pid, SIGCONT));
		ASSERT_EQ(c->pid, waitpid(c->pid, &status, WCONTINUED));
		EXPECT_TRUE(WIFCONTINUED(status));
		EXPECT_TRUE(sm_wait_until(sm_load(&s->nr_codes) == 2 * i + 2));
		ASSERT_TRUE(all_wait(&self->env, c));
	}
	for (i = 0; i < s->nr_codes; i++)
		EXPECT_EQ(i & 1 ? CLD_CONTINUED : CLD_STOPPED, s->codes[i]);
	SM_EXPECT_MORE(&self->env, stopped, ARRAY_SIZE(stop_signals) * (NR_PARK - 1));

	sm_store(&s->futex, 1);
	EXPECT_EQ(1, sm_wake(&s->futex, 1, SM_SHARED));
	SM_CHILD_RETURNS(0, c, FUTEX);
	EXPECT_EQ(1, write(s->rd[1], "x", 1));
	SM_CHILD_RETURNS(1, c, READ);
	EXPECT_EQ('x', s->byte);
	signal(SIGCHLD, SIG_DFL);
	KILL(&self->env, c);
	pipes_close(s);
}

/* A handler runs when it goes on; the call is restarted if it may be. */
TEST_F(stop, handlers)
{
	static const long result[][NR_PARK] = {
		{ -EINTR, -EINTR, -EINTR, -EINTR, -EINTR },
		/* 0: waits again */
		{ -EINTR, 0, 0, -EINTR, -EINTR },
	};
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int k, i;

	for (k = 0; k < 2; k++) {
		s->sa_flags = k ? SA_RESTART : 0;
		ASSERT_TRUE(calls_start(&self->env, s, NR_PARK));
		STOP(&self->env, c, SIGSTOP);
		/* The first call's return would end the process. */
		for (i = 1; i < c->nr; i++)
			ASSERT_EQ(0, sm_child_signal(c, i, SIGUSR1));
		sm_settle();
		EXPECT_HELD(&self->env, c, 'T', 1);
		for (i = 0; i < c->nr; i++)
			EXPECT_EQ(0, s->handled[i]);

		ASSERT_EQ(0, kill(c->pid, SIGCONT));
		for (i = 1; i < c->nr; i++) {
			EXPECT_TRUE(sm_wait_until(sm_load(&s->handled[i]) == 1));
			if (result[k][i])
				SM_CHILD_RETURNS(result[k][i], c, i);
		}
		if (k) {
			sm_settle();
			EXPECT_EQ(0, c->w[FUTEX].done);
			EXPECT_EQ(0, c->w[READ].done);
			EXPECT_TRUE(sm_wait_until(sm_wake(&s->futex, 1, SM_SHARED) == 1));
			SM_CHILD_RETURNS(0, c, FUTEX);
			EXPECT_EQ(1, write(s->rd[1], "x", 1));
			SM_CHILD_RETURNS(1, c, READ);
		}
		KILL(&self->env, c);
		pipes_close(s);
		SM_EXPECT_MORE(&self->env, stopped, NR_PARK - 1);
	}
}

/* What they wait for happens while they are stopped. */
TEST_F(stop, woken_meanwhile)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;

	ASSERT_TRUE(calls_start(&self->env, s, NR_PARK));
	STOP(&self->env, c, SIGSTOP);
	sm_store(&s->futex, 1);
	/* Stopped, it does not wait. */
	EXPECT_EQ(0, sm_wake(&s->futex, INT_MAX, SM_SHARED));
	EXPECT_EQ(1, write(s->rd[1], "x", 1));
	sm_settle();
	EXPECT_HELD(&self->env, c, 'T', 1);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	SM_CHILD_RETURNS(-EAGAIN, c, FUTEX);
	SM_CHILD_RETURNS(1, c, READ);
	KILL(&self->env, c);
	pipes_close(s);
}

/* A sleep that is over while its thread is stopped, and one that goes on */
TEST_F(stop, deadlines)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	/* Two sleeps have to begin, and one stop to be seen, before it is over. */
	int64_t ns = 4 * sm_soon_ns();

	memset(c, 0, sizeof(*c));
	c->nr = 2;
	s->ts = sm_ts(ns);
	sm_call(&c->w[0], __NR_pause);
	sm_call(&c->w[1], __NR_clock_nanosleep, CLOCK_MONOTONIC, 0, &s->ts);
	ASSERT_TRUE(sm_child_start(&self->env, c));
	STOP(&self->env, c, SIGSTOP);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	SM_CHILD_RETURNS(0, c, 1);
	SM_EXPECT_TOOK(&c->w[1], ns);
	KILL(&self->env, c);

	memset(c, 0, sizeof(*c));
	c->nr = 2;
	sm_call(&c->w[0], __NR_pause);
	sm_call(&c->w[1], __NR_clock_nanosleep, CLOCK_MONOTONIC, 0, &s->ts);
	ASSERT_TRUE(sm_child_start(&self->env, c));
	STOP(&self->env, c, SIGSTOP);
	sm_sleep_ns(ns + 10 * SM_MSEC);
	EXPECT_EQ(0, c->w[1].done);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	SM_CHILD_RETURNS(0, c, 1);
	KILL(&self->env, c);
}

/* Without being continued; and by a fatal signal that has to wait for that. */
TEST_F(stop, kill)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
		STOP(&self->env, c, SIGSTOP);
		if (i) {
			ASSERT_EQ(0, kill(c->pid, SIGTERM));
			sm_settle();
			EXPECT_HELD(&self->env, c, 'T', 1);
			ASSERT_EQ(0, kill(c->pid, SIGCONT));
			EXPECT_TRUE(sm_killed_by(sm_child_wait(c), SIGTERM));
			SM_EXPECT_NONE_PARKED(&self->env);
		} else {
			KILL(&self->env, c);
		}
		pipes_close(s);
	}
	SM_EXPECT_MORE(&self->env, stopped, NR_CALLS - 1);
}

/* Also one that waits on its stack */
TEST_F(stop, waits_on_stack)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int status;

	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	STOP(&self->env, c, SIGSTOP);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WCONTINUED));
	ASSERT_TRUE(all_wait(&self->env, c));
	KILL(&self->env, c);
	pipes_close(s);
}

/* Stops and continues that meet: none is lost, and all of them wait in the end. */
TEST_F_TIMEOUT(stop, race, 60)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	long rounds = sm_rounds(300), i;
	uint64_t rnd = 1;

	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, kill(c->pid, stop_signals[i % ARRAY_SIZE(stop_signals)]));
		if (sm_rnd(&rnd) & 1)
			sm_sleep_ns(sm_rnd(&rnd) % (2 * SM_MSEC));
		ASSERT_EQ(0, kill(c->pid, SIGCONT));
		if (sm_rnd(&rnd) & 1)
			sm_sleep_ns(sm_rnd(&rnd) % (2 * SM_MSEC));
	}
	ASSERT_TRUE(all_wait(&self->env, c));
	STOP(&self->env, c, SIGSTOP);
	KILL(&self->env, c);
	pipes_close(s);
	SM_EXPECT_MORE(&self->env, stopped, rounds);
}

/* ------------------------------------------------------------- debuggers */

static bool trap_is(int status, int sig, int event)
{
	return WIFSTOPPED(status) && WSTOPSIG(status) == sig && status >> 16 == event;
}

/* A debugger comes while they are stopped, and sees their registers. */
TEST_F(stop, seize)
{
	struct user_regs_struct r;
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int i, status;
	pid_t tid;

	ASSERT_TRUE(calls_start(&self->env, s, NR_PARK));
	STOP(&self->env, c, SIGSTOP);
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WUNTRACED));
	for (i = 1; i < c->nr; i++) {
		tid = c->w[i].tid;
		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, tid, NULL, NULL));
		ASSERT_EQ(tid, waitpid(tid, &status, __WALL));
		EXPECT_TRUE(trap_is(status, SIGSTOP, PTRACE_EVENT_STOP));
		ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tid, NULL, &r));
		EXPECT_EQ(call_nr[i], (int)r.orig_rax);
		EXPECT_EQ(c->w[i].arg[0], (long)r.rdi);
		EXPECT_EQ('t', sm_task_state(c->pid, tid));
		if (i & 1) {
			/* Listening, it is told of SIGCONT; interrupted, it traps at once. */
			ASSERT_EQ(0, ptrace(PTRACE_LISTEN, tid, NULL, NULL));
			ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
			ASSERT_EQ(tid, waitpid(tid, &status, __WALL));
			EXPECT_TRUE(trap_is(status, SIGSTOP, PTRACE_EVENT_STOP));
		}
		ASSERT_EQ(0, ptrace(PTRACE_LISTEN, tid, NULL, NULL));
	}
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	for (i = 1; i < c->nr; i++) {
		tid = c->w[i].tid;
		ASSERT_EQ(tid, waitpid(tid, &status, __WALL));
		EXPECT_TRUE(trap_is(status, SIGTRAP, PTRACE_EVENT_STOP));
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, tid, NULL, NULL));
	}
	ASSERT_TRUE(all_wait(&self->env, c));
	KILL(&self->env, c);
	pipes_close(s);
}

/* ... and goes again: they are stopped, as before. */
TEST_F(stop, attach)
{
	struct user_regs_struct r;
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int i, status;
	pid_t tid;

	ASSERT_TRUE(calls_start(&self->env, s, NR_PARK));
	STOP(&self->env, c, SIGSTOP);
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WUNTRACED));
	for (i = 1; i < c->nr; i++) {
		tid = c->w[i].tid;
		ASSERT_EQ(0, ptrace(PTRACE_ATTACH, tid, NULL, NULL));
		ASSERT_EQ(tid, waitpid(tid, &status, __WALL));
		EXPECT_TRUE(trap_is(status, SIGSTOP, 0));
		ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tid, NULL, &r));
		EXPECT_EQ(call_nr[i], (int)r.orig_rax);
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, tid, NULL, NULL));
	}
	/* They stop where they trapped, in get_signal(), and so have a stack. */
	ASSERT_TRUE(sm_wait_until(in_state(c, 'T', 1)));
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	ASSERT_TRUE(all_wait(&self->env, c));
	KILL(&self->env, c);
	pipes_close(s);
}

/* --------------------------------------------------------------- freezers */

/* A mount of its own, which goes with the test */
static bool cgroup_make(char *dir, size_t size, bool v1)
{
	char root[] = "/tmp/stackmux-stop-XXXXXX";

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    !mkdtemp(root) ||
	    mount("none", root, v1 ? "cgroup" : "cgroup2", 0, v1 ? "freezer" : NULL))
		return false;
	snprintf(dir, size, "%s/stackmux-stop", root);
	return !mkdir(dir, 0755);
}

static bool cgroup_write(const char *dir, const char *name, const char *text)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return !sm_write_file(path, text);
}

static bool cgroup_move(const char *dir, pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", pid);
	return cgroup_write(dir, "cgroup.procs", text);
}

static bool freeze(const char *dir, int on)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/cgroup.events", dir);
	return cgroup_write(dir, "cgroup.freeze", on ? "1" : "0") &&
	       sm_wait_until(sm_read_key(path, "frozen") == on);
}

/* A handler runs when they are thawed, and no earlier. */
TEST_F(stop, cgroup)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	char dir[128];
	int i;

	ASSERT_TRUE(cgroup_make(dir, sizeof(dir), false));
	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	ASSERT_TRUE(cgroup_move(dir, c->pid));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(freeze(dir, 1));
		EXPECT_HELD(&self->env, c, 'S', 0);
		ASSERT_TRUE(freeze(dir, 0));
		ASSERT_TRUE(all_wait(&self->env, c));
	}
	ASSERT_TRUE(freeze(dir, 1));
	for (i = 1; i < c->nr; i++)
		ASSERT_EQ(0, sm_child_signal(c, i, SIGUSR1));
	sm_settle();
	EXPECT_HELD(&self->env, c, 'S', 0);
	for (i = 1; i < c->nr; i++)
		EXPECT_EQ(0, s->handled[i] + c->w[i].done);
	ASSERT_TRUE(freeze(dir, 0));
	for (i = 1; i < c->nr; i++) {
		SM_CHILD_RETURNS(-EINTR, c, i);
		EXPECT_EQ(1, s->handled[i]);
	}
	SM_EXPECT_MORE(&self->env, stopped, 4 * NR_CALLS);
	KILL(&self->env, c);
	rmdir(dir);
	pipes_close(s);
}

/* Frozen ones are killed; and they may be stopped at the same time. */
TEST_F(stop, cgroup_and_signals)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	char dir[128];
	int status;

	ASSERT_TRUE(cgroup_make(dir, sizeof(dir), false));
	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	ASSERT_TRUE(cgroup_move(dir, c->pid));
	STOP(&self->env, c, SIGSTOP);
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WUNTRACED));
	/* Stopped is as good as frozen. */
	ASSERT_TRUE(freeze(dir, 1));
	EXPECT_HELD(&self->env, c, 'T', 1);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WCONTINUED));
	EXPECT_TRUE(WIFCONTINUED(status));
	/* The one that tells the parent is in get_signal(), and is frozen and stopped there. */
	ASSERT_TRUE(sm_wait_until(sm_child_in_state(c, 'S')));
	ASSERT_TRUE(freeze(dir, 1));
	/* A stop waits for the end of the freeze. */
	ASSERT_EQ(0, kill(c->pid, SIGSTOP));
	sm_settle();
	EXPECT_EQ(0, waitpid(c->pid, &status, WUNTRACED | WNOHANG));
	ASSERT_TRUE(freeze(dir, 0));
	ASSERT_EQ(c->pid, waitpid(c->pid, &status, WUNTRACED));
	ASSERT_TRUE(sm_wait_until(sm_child_in_state(c, 'T')));
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	ASSERT_TRUE(all_wait(&self->env, c));

	ASSERT_TRUE(freeze(dir, 1));
	EXPECT_HELD(&self->env, c, 'S', 0);
	KILL(&self->env, c);
	rmdir(dir);
	pipes_close(s);
}

static bool freeze_v1(const char *dir, const char *state)
{
	char path[300], buf[32];

	snprintf(path, sizeof(path), "%s/freezer.state", dir);
	return cgroup_write(dir, "freezer.state", state) &&
	       sm_wait_until(sm_read_file(path, buf, sizeof(buf)) > 0 &&
			     !strncmp(buf, state, strlen(state)));
}

/* Parked threads are frozen where they are; those that wait on their stacks give it back. */
TEST_F(stop, cgroup_v1)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	char dir[128];
	int i;

	ASSERT_TRUE(cgroup_make(dir, sizeof(dir), true));
	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	ASSERT_TRUE(cgroup_move(dir, c->pid));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(freeze_v1(dir, "FROZEN"));
		EXPECT_HELD(&self->env, c, 'D', 0);
		ASSERT_TRUE(freeze_v1(dir, "THAWED"));
		ASSERT_TRUE(all_wait(&self->env, c));
	}
	SM_EXPECT_MORE(&self->env, stopped, 3);

	/* Stopped, then frozen */
	STOP(&self->env, c, SIGSTOP);
	ASSERT_TRUE(freeze_v1(dir, "FROZEN"));
	EXPECT_HELD(&self->env, c, 'D', 1);
	ASSERT_TRUE(freeze_v1(dir, "THAWED"));
	EXPECT_HELD(&self->env, c, 'T', 1);
	ASSERT_EQ(0, kill(c->pid, SIGCONT));
	ASSERT_TRUE(all_wait(&self->env, c));

	ASSERT_TRUE(freeze_v1(dir, "FROZEN"));
	for (i = 1; i < c->nr; i++)
		ASSERT_EQ(0, sm_child_signal(c, i, SIGUSR1));
	sm_settle();
	EXPECT_HELD(&self->env, c, 'D', 0);
	ASSERT_TRUE(freeze_v1(dir, "THAWED"));
	for (i = 1; i < c->nr; i++)
		SM_CHILD_RETURNS(-EINTR, c, i);
	KILL(&self->env, c);

	/* Killed, they die when they are thawed. */
	pipes_close(s);
	ASSERT_TRUE(calls_start(&self->env, s, NR_CALLS));
	ASSERT_TRUE(cgroup_move(dir, c->pid));
	ASSERT_TRUE(freeze_v1(dir, "FROZEN"));
	ASSERT_EQ(0, kill(c->pid, SIGKILL));
	sm_settle();
	EXPECT_HELD(&self->env, c, 'D', 0);
	ASSERT_TRUE(freeze_v1(dir, "THAWED"));
	KILL(&self->env, c);
	rmdir(dir);
	pipes_close(s);
}

/* -------------------------------------------------------------- core dump */

/* User program counter and stack pointer in /proc/PID/stat, which a dump allows to see */
static bool has_registers(struct sm_child *c, int i)
{
	char buf[1024], *p = buf;
	long ip = 0, sp = 0;
	int k;

	if (sm_task_read(c->pid, c->w[i].tid, "stat", buf, sizeof(buf)) <= 0)
		return false;
	/* The name is field 2, and may have spaces in it. */
	p = strrchr(buf, ')');
	for (k = 2; p && k < 29; k++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%ld %ld", &sp, &ip) == 2 && sp && ip;
}

static void core_setup(struct sm_child *c)
{
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };

	child_setup(c);
	setrlimit(RLIMIT_CORE, &rl);
	prctl(PR_SET_DUMPABLE, 1);
	/* More than fits into the pipe */
	memset(malloc(1 << 20), 1, 1 << 20);
}

/* The dump waits for a program that does not read, and ends with it, or is killed. */
TEST_F(stop, core)
{
	struct shared *s = self->s;
	struct sm_child *c = &s->c;
	int kills, i, status;

	ASSERT_EQ(0, sm_write_file("/proc/sys/kernel/core_pattern", "|/bin/sleep 3\n"));
	for (kills = 0; kills < 2; kills++) {
		ASSERT_TRUE(calls_start_with(&self->env, s, NR_CALLS, core_setup));
		ASSERT_EQ(0, kill(c->pid, SIGABRT));
		EXPECT_HELD(&self->env, c, 'I', 1);
		for (i = 1; i < c->nr; i++)
			EXPECT_TRUE(has_registers(c, i));
		if (kills)
			kill(c->pid, SIGKILL);
		status = sm_child_wait(c);
		EXPECT_TRUE(sm_killed_by(status, kills ? SIGKILL : SIGABRT));
		SM_EXPECT_NONE_PARKED(&self->env);
		SM_EXPECT_MORE(&self->env, stopped, NR_CALLS - 1);
		pipes_close(s);
	}
}

/* Goes on in 32-bit code, and meets an instruction that is none. */
static void die_in_32_bits(void)
{
	unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) far = { .selector = 0x23 };

	if (code == MAP_FAILED)
		_exit(1);
	code[0] = 0x0f;		/* ud2 */
	code[1] = 0x0b;
	far.offset = (unsigned long)code;
	asm volatile("ljmpl *%0" : : "m" (far) : "memory");
}

/* A dump in the format of the thread that dies, of others that have no stack */
TEST_F(stop, core_seen_from_32_bits)
{
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };
	struct sm_sleepers sl;
	int status;
	pid_t pid;

	ASSERT_EQ(0, sm_write_file("/proc/sys/kernel/core_pattern", "|/bin/cat\n"));
	pid = sm_fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &rl);
		prctl(PR_SET_DUMPABLE, 1);
		if (sm_sleepers_create(&sl, 20, false) == 20 && sm_sleepers_wait_asleep(&sl))
			die_in_32_bits();
		_exit(1);
	}
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_TRUE(sm_killed_by(status, SIGILL));
	SM_EXPECT_NONE_PARKED(&self->env);
	SM_EXPECT_MORE(&self->env, stopped, 15);
}

SM_MAIN(sm_rounds_factor());
