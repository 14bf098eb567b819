// SPDX-License-Identifier: GPL-2.0
/*
 * wait4() and waitid(), in a process that parks and in one that does not:
 * who is told of what, what is told, and that each child is reaped once.
 */
#include "scenario.h"
#include "child.h"
#include <sys/ptrace.h>

#ifndef P_PIDFD
#define P_PIDFD		3
#endif
#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK	O_NONBLOCK
#endif

#define NW	8

/* ---------------------------------------------------------------- children */

/* A child that does what it is told. It does not park itself. */
struct kid {
	pid_t pid;
	int pidfd;
	uint32_t *cmd;		/* shared with it */
};

#define KID_EXIT	0x100	/* and the code */
#define KID_BURN	0x200	/* use some CPU first */
#define KID_READY	(1U << 31)

static void kid_main(uint32_t *cmd)
{
	uint32_t c;
	int64_t end;

	sm_disable();
	sm_store(cmd, KID_READY);
	while ((c = sm_load(cmd)) == KID_READY)
		sm_wait(cmd, KID_READY, SM_SHARED);
	if (c & KID_BURN) {
		end = sm_clock_ns(CLOCK_PROCESS_CPUTIME_ID) + 60 * SM_MSEC;
		while (sm_clock_ns(CLOCK_PROCESS_CPUTIME_ID) < end)
			;
	}
	_exit(c & 0xff);
}

/* With fork()'s signal, or another one or none. */
static bool kid_start_sig(struct kid *k, int sig)
{
	pid_t pid;

	k->cmd = sm_shared_alloc(4096);
	if (!k->cmd)
		return false;
	fflush(stdout);
	fflush(stderr);
	pid = syscall(__NR_clone, sig, 0, 0, 0, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		kid_main(k->cmd);
	}
	if (pid < 0)
		return false;
	/* *k may be shared with the child, too. */
	k->pid = pid;
	k->pidfd = syscall(__NR_pidfd_open, k->pid, 0);
	return k->pidfd >= 0 && sm_wait_until(sm_load(k->cmd) == KID_READY) &&
	       sm_wait_until(sm_nr_waiters(k->cmd, SM_SHARED) == 1);
}

static bool kid_start(struct kid *k)
{
	return kid_start_sig(k, SIGCHLD);
}

static void kid_tell(struct kid *k, uint32_t cmd)
{
	sm_store(k->cmd, cmd);
	sm_wake(k->cmd, 1, SM_SHARED);
}

static void kid_exit(struct kid *k, int code)
{
	kid_tell(k, KID_EXIT | code);
}

static void kid_free(struct kid *k)
{
	close(k->pidfd);
	munmap(k->cmd, 4096);
}

/* Is it a zombie? */
static bool kid_dead(struct kid *k)
{
	return sm_wait_until(sm_task_state(k->pid, k->pid) == 'Z');
}

static bool kid_gone(struct kid *k)
{
	return kill(k->pid, 0) && errno == ESRCH;
}

/* ------------------------------------------------------------------- calls */

/* Where the results of a call go. */
struct call {
	int status;
	siginfo_t info;
	struct rusage ru;
};

FIXTURE(wait) {
	struct sm_env env;
	struct sm_waiter w[NW];
	struct call c;		/* of w[0] */
	struct kid k;		/* for which it waits, in most tests */
};

SM_FIXTURE(wait);

static void call_clear(struct call *c)
{
	memset(c, 0x55, sizeof(*c));
}

static bool untouched(const struct call *c)
{
	struct call none;

	call_clear(&none);
	return !memcmp(c, &none, sizeof(none));
}

static void wait4_set(struct sm_waiter *w, struct call *c, pid_t pid, int options)
{
	call_clear(c);
	sm_call(w, __NR_wait4, pid, &c->status, options, &c->ru);
	w->data = c;
}

static void waitid_set(struct sm_waiter *w, struct call *c, int which, pid_t id,
		       int options)
{
	call_clear(c);
	sm_call(w, __NR_waitid, which, id, &c->info, options, &c->ru);
	w->data = c;
}

static long wait4_now(pid_t pid, int options)
{
	return sm_sys(__NR_wait4, pid, 0, options);
}

/* The ways to wait for one's only child. */
enum { W4_PID, W4_ANY, W4_GROUP, W4_MY_GROUP, ID_PID, ID_ANY, ID_GROUP,
	ID_MY_GROUP, ID_FD, NR_FORMS };

#define IS_WAITID(form)	((form) >= ID_PID)
#define EXITED(form)	(IS_WAITID(form) ? WEXITED : 0)

#define for_each_form(form)	for ((form) = 0; (form) < NR_FORMS; (form)++)

static void form_set(struct sm_waiter *w, struct call *c, int form,
		     const struct kid *k, int options)
{
	const pid_t group = getpgid(k->pid);
	const struct {
		int which;
		pid_t id;
	} whom[] = {
		[W4_PID] = { .id = k->pid },
		[W4_ANY] = { .id = -1 },
		[W4_GROUP] = { .id = -group },
		[W4_MY_GROUP] = { .id = 0 },
		[ID_PID] = { P_PID, k->pid },
		[ID_ANY] = { P_ALL, 12345 },
		[ID_GROUP] = { P_PGID, group },
		[ID_MY_GROUP] = { P_PGID, 0 },
		[ID_FD] = { P_PIDFD, k->pidfd },
	};

	if (IS_WAITID(form))
		waitid_set(w, c, whom[form].which, whom[form].id, options);
	else
		wait4_set(w, c, whom[form].id, options);
}

/* w[0] waits for self->k. */
static bool wait_start(FIXTURE_DATA(wait) *self, int form, int options)
{
	form_set(self->w, &self->c, form, &self->k, options);
	return sm_start(&self->env, self->w);
}

/* ... which is new, and waits for its end. */
static bool wait_for_exit(FIXTURE_DATA(wait) *self, int form)
{
	return kid_start(&self->k) && wait_start(self, form, EXITED(form));
}

/* The call is made here, and does not wait. */
static long call_now(struct sm_waiter *w)
{
	sm_waiter_fn(w);
	return w->ret;
}

/* What waitid() says, of a child that ended, stopped or went on. */
#define EXPECT_INFO(c, kid_pid, code, stat)				\
do {									\
	const struct call *__c = (c);					\
									\
	EXPECT_EQ(SIGCHLD, __c->info.si_signo);				\
	EXPECT_EQ(0, __c->info.si_errno);				\
	EXPECT_EQ((code), __c->info.si_code);				\
	EXPECT_EQ((kid_pid), __c->info.si_pid);				\
	EXPECT_EQ(getuid(), __c->info.si_uid);				\
	EXPECT_EQ((stat), __c->info.si_status);				\
} while (0)

/* Both kinds of result of w[0] */
#define EXPECT_RESULT(form, kid_pid, wstatus, code, stat)		\
do {									\
	if (IS_WAITID(form)) {						\
		SM_JOIN(self->w, 0);					\
		EXPECT_INFO(&self->c, kid_pid, code, stat);		\
		EXPECT_EQ(0x55555555, self->c.status);			\
	} else {							\
		SM_JOIN(self->w, kid_pid);				\
		EXPECT_EQ(wstatus, self->c.status);			\
		EXPECT_EQ(0x55555555, self->c.info.si_signo);		\
	}								\
} while (0)

/* The child @k exits now, and w[0] is told. */
#define EXPECT_EXIT(form, k, code)					\
do {									\
	kid_exit(k, code);						\
	EXPECT_RESULT(form, (k)->pid, (code) << 8, CLD_EXITED, code);	\
} while (0)

TEST_F(wait, exits)
{
	int form;

	for_each_form(form) {
		ASSERT_TRUE(wait_for_exit(self, form));
		EXPECT_TRUE(untouched(&self->c));
		EXPECT_EXIT(form, &self->k, 7 + form);
		EXPECT_GT(self->c.ru.ru_maxrss, 0);
		EXPECT_TRUE(kid_gone(&self->k));
		EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
		kid_free(&self->k);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

TEST_F(wait, killed)
{
	static const int sigs[] = { SIGKILL, SIGTERM, SIGABRT };
	struct rlimit none = { 0, 0 };
	int form, sig;

	setrlimit(RLIMIT_CORE, &none);
	for_each_form(form) {
		sig = sigs[form % ARRAY_SIZE(sigs)];
		ASSERT_TRUE(wait_for_exit(self, form));
		kill(self->k.pid, sig);
		EXPECT_RESULT(form, self->k.pid, sig, CLD_KILLED, sig);
		kid_free(&self->k);
	}
}

/* Without anything to write to */
TEST_F(wait, null_pointers)
{
	static const int forms[] = { W4_ANY, ID_ANY };
	int i;

	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		ASSERT_TRUE(kid_start(&self->k));
		form_set(self->w, &self->c, forms[i], &self->k, EXITED(forms[i]));
		self->w->arg[IS_WAITID(forms[i]) ? 2 : 1] = 0;
		self->w->arg[IS_WAITID(forms[i]) ? 4 : 3] = 0;
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kid_exit(&self->k, 1);
		SM_JOIN(self->w, IS_WAITID(forms[i]) ? 0 : self->k.pid);
		EXPECT_TRUE(kid_gone(&self->k));
		kid_free(&self->k);
	}
}

TEST_F(wait, stops_and_continues)
{
	static const int sigs[] = { SIGSTOP, SIGTSTP };
	struct kid *k = &self->k;
	int form, i;

	ASSERT_TRUE(kid_start(k));
	for_each_form(form) {
		for (i = 0; i < ARRAY_SIZE(sigs); i++) {
			ASSERT_TRUE(wait_start(self, form, WUNTRACED));
			kill(k->pid, sigs[i]);
			EXPECT_RESULT(form, k->pid, 0x7f | sigs[i] << 8, CLD_STOPPED, sigs[i]);
			EXPECT_GT(self->c.ru.ru_maxrss, 0);

			/* Told once: the next one waits. */
			ASSERT_TRUE(wait_start(self, form, WUNTRACED | WCONTINUED));
			kill(k->pid, SIGCONT);
			EXPECT_RESULT(form, k->pid, 0xffff, CLD_CONTINUED, SIGCONT);
		}
	}
	kill(k->pid, SIGKILL);
	EXPECT_EQ(k->pid, wait4_now(k->pid, 0));
	kid_free(k);
}

/* Nobody is told what he did not ask for. */
TEST_F(wait, other_events)
{
	struct kid *k = &self->k;
	int form;

	for_each_form(form) {
		ASSERT_TRUE(wait_for_exit(self, form));
		kill(k->pid, SIGSTOP);
		ASSERT_TRUE(sm_wait_until(sm_task_state(k->pid, k->pid) == 'T'));
		sm_settle();
		kill(k->pid, SIGCONT);
		SM_EXPECT_WAITS(self->w, 1);
		ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
		EXPECT_EXIT(form, k, 3);
		kid_free(k);
	}
	/* An end, to those who wait for a stop: there will be none any more. */
	for (form = ID_PID; form < NR_FORMS; form++) {
		ASSERT_TRUE(kid_start(k));
		ASSERT_TRUE(wait_start(self, form, WSTOPPED));
		kid_exit(k, 3);
		SM_JOIN(self->w, -ECHILD);
		EXPECT_EQ(0, self->c.info.si_signo);
		EXPECT_EQ(k->pid, wait4_now(k->pid, 0));
		kid_free(k);
	}
}

static int64_t ru_ns(const struct rusage *ru)
{
	return (ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) * SM_SEC +
	       (ru->ru_utime.tv_usec + ru->ru_stime.tv_usec) * 1000;
}

/* WNOWAIT leaves all as it is, for as many as want to know. */
TEST_F(wait, nowait)
{
	struct call c[NW];
	struct kid k;
	int i;

	ASSERT_TRUE(kid_start(&k));
	for (i = 0; i < NW; i++)
		form_set(&self->w[i], &c[i], i % 2 ? ID_ANY : ID_PID + i % 5, &k,
			 WSTOPPED | WNOWAIT);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	kill(k.pid, SIGSTOP);
	SM_JOIN_ALL(self->w, NW, 0);
	for (i = 0; i < NW; i++)
		EXPECT_INFO(&c[i], k.pid, CLD_STOPPED, SIGSTOP);
	EXPECT_EQ(k.pid, wait4_now(k.pid, WUNTRACED));
	kill(k.pid, SIGCONT);

	for (i = 0; i < NW; i++)
		form_set(&self->w[i], &c[i], ID_PID + i % 5, &k, WEXITED | WNOWAIT);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	kid_tell(&k, KID_BURN | 9);
	SM_JOIN_ALL(self->w, NW, 0);
	for (i = 0; i < NW; i++) {
		EXPECT_INFO(&c[i], k.pid, CLD_EXITED, 9);
		EXPECT_GE(ru_ns(&c[i].ru), 50 * SM_MSEC);
	}
	EXPECT_EQ(k.pid, wait4_now(k.pid, 0));
	EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
	kid_free(&k);
}

/*
 * What a child has used is told, and put on the account of its parent. That account is
 * made first, and meanwhile a child that has just ended may still be on its CPU: the
 * time goes on, and its last switch is yet to come.
 */
TEST_F(wait, rusage)
{
	const int64_t rounding = 4000;
	struct rusage before, after, *ru = &self->c.ru;
	int64_t booked;
	long nvcsw;
	int form;

	for_each_form(form) {
		ASSERT_TRUE(wait_for_exit(self, form));
		getrusage(RUSAGE_CHILDREN, &before);
		kid_tell(&self->k, KID_BURN | 2);
		EXPECT_RESULT(form, self->k.pid, 2 << 8, CLD_EXITED, 2);
		getrusage(RUSAGE_CHILDREN, &after);
		booked = ru_ns(&after) - ru_ns(&before);
		EXPECT_GE(booked, 50 * SM_MSEC);
		EXPECT_GE(ru_ns(ru) + rounding, booked);
		EXPECT_EQ(after.ru_minflt - before.ru_minflt, ru->ru_minflt);
		nvcsw = after.ru_nvcsw - before.ru_nvcsw;
		EXPECT_LE(nvcsw, ru->ru_nvcsw);
		EXPECT_GE(nvcsw + 1, ru->ru_nvcsw);
		EXPECT_GT(ru->ru_minflt, 0);
		kid_free(&self->k);
	}
}

/* Nothing there yet, and nobody who waits. */
TEST_F(wait, nohang)
{
	struct sm_waiter *w = self->w;
	int form;

	ASSERT_TRUE(kid_start(&self->k));
	for_each_form(form) {
		form_set(w, &self->c, form, &self->k, WNOHANG | EXITED(form));
		EXPECT_EQ(0, call_now(w));
		if (IS_WAITID(form)) {
			EXPECT_EQ(0, self->c.info.si_signo);
			EXPECT_EQ(0, self->c.info.si_pid);
		}
	}
	kid_exit(&self->k, 1);
	ASSERT_TRUE(kid_dead(&self->k));
	/* Already there: nobody waits either. */
	form_set(w, &self->c, ID_PID, &self->k, WEXITED);
	EXPECT_EQ(0, call_now(w));
	EXPECT_INFO(&self->c, self->k.pid, CLD_EXITED, 1);
	kid_free(&self->k);
}

TEST_F(wait, pidfd_nonblock)
{
	struct call *c = &self->c;
	struct kid *k = &self->k;
	int fd;

	ASSERT_TRUE(kid_start(k));
	fd = syscall(__NR_pidfd_open, k->pid, PIDFD_NONBLOCK);
	ASSERT_GE(fd, 0);
	waitid_set(self->w, c, P_PIDFD, fd, WEXITED);
	EXPECT_EQ(-EAGAIN, call_now(self->w));
	waitid_set(self->w, c, P_PIDFD, fd, WEXITED | WNOHANG);
	EXPECT_EQ(0, call_now(self->w));
	EXPECT_EQ(0, c->info.si_pid);

	/* The flag is asked at the start. */
	sm_nonblock(fd, false);
	waitid_set(self->w, c, P_PIDFD, fd, WEXITED);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	sm_nonblock(fd, true);
	EXPECT_EXIT(ID_FD, k, 5);
	waitid_set(self->w, c, P_PIDFD, fd, WEXITED);
	EXPECT_EQ(-ECHILD, call_now(self->w));
	close(fd);
	kid_free(k);

	/* Nor does it matter what becomes of the descriptor. */
	ASSERT_TRUE(wait_for_exit(self, ID_FD));
	close(k->pidfd);
	EXPECT_EXIT(ID_FD, k, 5);
	munmap(k->cmd, 4096);
}

TEST_F(wait, errors)
{
	struct kid k;

	EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
	ASSERT_TRUE(kid_start(&k));
	EXPECT_EQ(-ECHILD, wait4_now(getppid(), 0));
	EXPECT_EQ(-ECHILD, wait4_now(getpid(), 0));
	EXPECT_EQ(-ESRCH, wait4_now(INT_MIN, 0));
	EXPECT_EQ(-EINVAL, wait4_now(-1, WEXITED));
	EXPECT_EQ(-EINVAL, wait4_now(-1, 1 << 20));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, P_ALL, 0, 0, 0));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, P_PID, 0, 0, WEXITED));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, P_PGID, -1, 0, WEXITED));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, 17, 1, 0, WEXITED));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, P_PIDFD, -1, 0, WEXITED));
	EXPECT_EQ(-EBADF, sm_sys(__NR_waitid, P_PIDFD, 999, 0, WEXITED));
	kid_exit(&k, 0);
	EXPECT_EQ(k.pid, wait4_now(-1, 0));
	kid_free(&k);
}

/* A bad address is found out when the child is gone already. */
TEST_F(wait, bad_pointers)
{
	void *none = sm_no_access();
	int form, ru;

	ASSERT_NE(NULL, none);
	for (ru = 0; ru < 2; ru++) {
		for_each_form(form) {
			ASSERT_TRUE(kid_start(&self->k));
			form_set(self->w, &self->c, form, &self->k, EXITED(form));
			self->w->arg[(IS_WAITID(form) ? 2 : 1) + 2 * ru] = (long)none;
			ASSERT_TRUE(sm_start(&self->env, self->w));
			kid_exit(&self->k, 4);
			SM_JOIN(self->w, -EFAULT);
			EXPECT_TRUE(kid_gone(&self->k));
			EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
			/* The status comes before the rusage. */
			if (ru && !IS_WAITID(form))
				EXPECT_EQ(4 << 8, self->c.status);
			kid_free(&self->k);
		}
	}
	munmap(none, 4096);
}

/* ---------------------------------------------------------- whose children */

/* Fork, and then wait with __WNOTHREAD, in the same thread. */
struct forker {
	struct kid k;
	struct call c;
	bool ok;
};

static void fork_before(struct sm_waiter *w)
{
	struct forker *f = w->data;

	f->ok = kid_start(&f->k);
	w->arg[0] = -1;
	w->arg[1] = (long)&f->c.status;
}

TEST_F(wait, nothread)
{
	struct forker f[2] = { 0 };
	struct sm_waiter *w = self->w;
	struct kid mine;
	int i;

	ASSERT_TRUE(kid_start(&mine));
	for (i = 0; i < 2; i++) {
		sm_call(&w[i], __NR_wait4, 0, 0, __WNOTHREAD);
		w[i].before = fork_before;
		w[i].data = &f[i];
	}
	ASSERT_TRUE(sm_start_all(&self->env, w, 2));
	ASSERT_TRUE(f[0].ok);
	ASSERT_TRUE(f[1].ok);

	/* Children of others */
	kid_exit(&mine, 1);
	ASSERT_TRUE(kid_dead(&mine));
	SM_EXPECT_WAITS(w, 2);
	kid_exit(&f[1].k, 2);
	SM_JOIN(&w[1], f[1].k.pid);
	EXPECT_EQ(2 << 8, f[1].c.status);
	SM_EXPECT_WAITS(w, 1);

	/* It has none. */
	w[1].before = NULL;
	sm_call(&w[1], __NR_wait4, f[0].k.pid, 0, __WNOTHREAD);
	ASSERT_EQ(0, sm_waiter_run(&w[1]));
	SM_JOIN(&w[1], -ECHILD);

	kid_exit(&f[0].k, 3);
	SM_JOIN(&w[0], f[0].k.pid);
	EXPECT_EQ(mine.pid, wait4_now(-1, __WNOTHREAD));
	kid_free(&mine);
	kid_free(&f[0].k);
	kid_free(&f[1].k);
}

/* Children that end without SIGCHLD */
TEST_F(wait, clone_children)
{
	struct kid *k = &self->k, other;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(kid_start(&other));
		ASSERT_TRUE(kid_start_sig(k, i == 2 ? SIGWINCH : 0));
		EXPECT_EQ(-ECHILD, wait4_now(k->pid, 0));
		EXPECT_EQ(-ECHILD, wait4_now(other.pid, __WCLONE));

		ASSERT_TRUE(wait_start(self, W4_ANY, __WCLONE));
		kid_exit(&other, 1);
		ASSERT_TRUE(kid_dead(&other));
		SM_EXPECT_WAITS(self->w, 1);
		if (i == 1)
			kill(k->pid, SIGKILL);
		else
			kid_exit(k, 6);
		SM_JOIN(self->w, k->pid);
		EXPECT_EQ(i == 1 ? SIGKILL : 6 << 8, self->c.status);

		EXPECT_EQ(other.pid, wait4_now(-1, 0));
		kid_free(k);
		kid_free(&other);
	}
	/* __WALL takes both, in the order in which they end. */
	ASSERT_TRUE(kid_start(&other));
	ASSERT_TRUE(kid_start_sig(k, 0));
	ASSERT_TRUE(wait_start(self, ID_ANY, WEXITED | __WALL));
	EXPECT_EXIT(ID_ANY, k, 7);
	ASSERT_TRUE(wait_start(self, W4_ANY, __WALL));
	EXPECT_EXIT(W4_ANY, &other, 8);
	kid_free(k);
	kid_free(&other);
}

/* One is waited for, others come and go. */
TEST_F(wait, one_among_others)
{
	static const int forms[] = { W4_PID, W4_GROUP, ID_PID, ID_GROUP, ID_FD };
	struct kid k[5];
	int f, i;

	for (f = 0; f < ARRAY_SIZE(forms); f++) {
		for (i = 0; i < 5; i++)
			ASSERT_TRUE(kid_start(&k[i]));
		ASSERT_TRUE(kid_start(&self->k));
		ASSERT_EQ(0, setpgid(self->k.pid, self->k.pid));
		ASSERT_TRUE(wait_start(self, forms[f], EXITED(forms[f])));
		for (i = 0; i < 5; i++) {
			kid_exit(&k[i], i);
			ASSERT_TRUE(kid_dead(&k[i]));
		}
		SM_EXPECT_WAITS(self->w, 1);
		/* No counters: with parking for everybody the children count. */
		ASSERT_TRUE(sm_sleeps(self->w));
		/* Others, and this thread, may reap them meanwhile. */
		for (i = 0; i < 5; i++) {
			EXPECT_EQ(k[i].pid, wait4_now(k[i].pid, 0));
			kid_free(&k[i]);
		}
		EXPECT_EQ(0, sm_load(&self->w->done));
		EXPECT_EXIT(forms[f], &self->k, 33);
		kid_free(&self->k);
	}
}

/* One child, many waiters: one is told, and of the last one none is left. */
TEST_F(wait, one_of_many)
{
	struct call c[NW];
	struct kid k[3];
	int i, n, seen = 0, echild = 0;

	for (i = 0; i < 3; i++)
		ASSERT_TRUE(kid_start(&k[i]));
	for (i = 0; i < NW; i++)
		form_set(&self->w[i], &c[i], i % 2 ? W4_ANY : ID_ANY, &k[0],
			 i % 2 ? 0 : WEXITED);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	for (n = 0; n < 3; n++) {
		kid_exit(&k[n], n + 1);
		SM_ASSERT_DONE(self->w, NW, n < 2 ? n + 1 : NW);
	}
	for (i = 0; i < NW; i++) {
		ASSERT_TRUE(sm_waiter_join(&self->w[i]));
		if (self->w[i].ret == -ECHILD) {
			echild++;
			continue;
		}
		for (n = 0; n < 3; n++) {
			if ((i % 2 ? self->w[i].ret : c[i].info.si_pid) == k[n].pid)
				seen |= 1 << n;
		}
		EXPECT_GE(self->w[i].ret, 0);
	}
	EXPECT_EQ(7, seen);
	EXPECT_EQ(NW - 3, echild);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* Another thread takes the last child away from one that waits. */
TEST_F(wait, last_one_taken)
{
	struct sm_waiter *w = self->w;
	struct call c[2];
	struct kid k;
	int form, other, round;

	for_each_form(form) {
		for (round = 0; round < 4; round++) {
			other = (form + round * 2) % NR_FORMS;
			ASSERT_TRUE(kid_start(&k));
			form_set(&w[0], &c[0], form, &k, EXITED(form));
			form_set(&w[1], &c[1], other, &k, EXITED(other));
			ASSERT_TRUE(sm_start_all(&self->env, w, 2));
			kid_exit(&k, 1);
			ASSERT_TRUE(sm_waiter_join(&w[0]));
			ASSERT_TRUE(sm_waiter_join(&w[1]));
			EXPECT_EQ(1, (w[0].ret == -ECHILD) + (w[1].ret == -ECHILD));
			EXPECT_EQ(1, (w[0].ret >= 0) + (w[1].ret >= 0));
			kid_free(&k);
		}
	}
}

/* Children that nobody wants are reaped by themselves. */
TEST_F(wait, sigchld_ignored)
{
	struct sigaction sa = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };
	struct kid k[2];
	int form, i;

	for_each_form(form) {
		if (form % 2)
			signal(SIGCHLD, SIG_IGN);
		else
			sigaction(SIGCHLD, &sa, NULL);
		for (i = 0; i < 2; i++)
			ASSERT_TRUE(kid_start(&k[i]));
		ASSERT_TRUE(wait_for_exit(self, form));
		for (i = 0; i < 2; i++) {
			kid_exit(&k[i], 1);
			ASSERT_TRUE(sm_wait_until(kid_gone(&k[i])));
			kid_free(&k[i]);
		}
		SM_EXPECT_WAITS(self->w, 1);
		kid_exit(&self->k, 1);
		SM_JOIN(self->w, -ECHILD);
		kid_free(&self->k);
	}
	signal(SIGCHLD, SIG_DFL);
}

/* ----------------------------------------------------------------- signals */

TEST_F(wait, interrupted)
{
	int form, n;

	for_each_form(form) {
		sm_handle(SIGUSR1, 0);
		ASSERT_TRUE(wait_for_exit(self, form));
		SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		EXPECT_EQ(1, sm_handled);
		EXPECT_EQ(0x55555555, self->c.status);
		EXPECT_EQ(IS_WAITID(form) ? 0 : 0x55555555, self->c.info.si_signo);

		sm_handle(SIGUSR1, SA_RESTART);
		ASSERT_TRUE(wait_start(self, form, EXITED(form)));
		for (n = 1; n <= 2; n++) {
			sm_signal(self->w, SIGUSR1);
			ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == n));
			ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
		}
		SM_EXPECT_WAITS(self->w, 1);
		EXPECT_EXIT(form, &self->k, 6);
		kid_free(&self->k);
	}
}

/* A handler of SIGCHLD: the child is there at the same time. */
TEST_F(wait, sigchld_handled)
{
	int form;

	for_each_form(form) {
		sm_handle(SIGCHLD, form % 2 ? SA_RESTART : 0);
		ASSERT_TRUE(wait_for_exit(self, form));
		EXPECT_EXIT(form, &self->k, 6);
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
		kid_free(&self->k);
	}
}

/* ------------------------------------------------------------------ groups */

TEST_F(wait, group_changes)
{
	static const int forms[] = { W4_GROUP, ID_GROUP };
	struct kid *in = &self->k, out, late;
	int i;

	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		ASSERT_TRUE(kid_start(in) && kid_start(&out) && kid_start(&late));
		ASSERT_EQ(0, setpgid(in->pid, in->pid));
		ASSERT_EQ(0, setpgid(out.pid, in->pid));
		ASSERT_TRUE(wait_start(self, forms[i], EXITED(forms[i])));
		/* Out of the group, and not any longer waited for */
		ASSERT_EQ(0, setpgid(out.pid, out.pid));
		kid_exit(&out, 1);
		ASSERT_TRUE(kid_dead(&out));
		SM_EXPECT_WAITS(self->w, 1);
		/* Into it */
		ASSERT_EQ(0, setpgid(late.pid, in->pid));
		EXPECT_EXIT(forms[i], &late, 2);
		kid_exit(in, 3);
		EXPECT_EQ(in->pid, wait4_now(-in->pid, 0));
		EXPECT_EQ(out.pid, wait4_now(-1, 0));
		kid_free(in);
		kid_free(&out);
		kid_free(&late);
	}
}

/* "My group" is the one at the time of the call. */
TEST_F(wait, own_group_changes)
{
	static const int forms[] = { W4_MY_GROUP, ID_MY_GROUP };
	struct kid other;
	int i;

	if (getpgrp() != getpid())
		ASSERT_EQ(0, setpgid(0, 0));
	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		ASSERT_TRUE(kid_start(&other));
		ASSERT_EQ(0, setpgid(other.pid, other.pid));
		ASSERT_TRUE(wait_for_exit(self, forms[i]));
		ASSERT_EQ(0, setpgid(0, other.pid));
		kid_exit(&other, 1);
		ASSERT_TRUE(kid_dead(&other));
		SM_EXPECT_WAITS(self->w, 1);
		EXPECT_EXIT(forms[i], &self->k, 2);
		ASSERT_EQ(0, setpgid(0, getpid()));
		EXPECT_EQ(other.pid, wait4_now(other.pid, 0));
		kid_free(&self->k);
		kid_free(&other);
	}
}

/* ------------------------------------------------------------ traced child */

/* As long as another one traces it, its end is that one's business. */
TEST_F(wait, traced_by_sibling)
{
	static const int forms[] = { W4_PID, W4_GROUP, ID_PID, ID_GROUP, ID_FD };
	uint32_t *step = sm_shared_alloc(4096);
	struct kid *k = &self->k;
	int i, status;
	pid_t tracer;

	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		*step = 0;
		ASSERT_TRUE(kid_start(k));
		tracer = SM_FORK();
		if (!tracer) {
			sm_disable();
			if (ptrace(PTRACE_SEIZE, k->pid, 0, 0))
				_exit(1);
			sm_store(step, 1);
			while (sm_load(step) == 1)
				sm_sleep_ms(1);
			_exit(waitpid(k->pid, &status, __WALL) == k->pid &&
			      status == 9 << 8 ? 0 : 2);
		}
		ASSERT_TRUE(sm_wait_until(sm_load(step) == 1));
		ASSERT_EQ(0, setpgid(k->pid, k->pid));
		ASSERT_TRUE(wait_start(self, forms[i], EXITED(forms[i])));
		kid_exit(k, 9);
		ASSERT_TRUE(kid_dead(k));
		SM_EXPECT_WAITS(self->w, 1);
		sm_store(step, 2);
		SM_JOIN(self->w, IS_WAITID(forms[i]) ? 0 : k->pid);
		SM_EXPECT_STATUS(0, tracer);
		kid_free(k);
	}
	munmap(step, 4096);
}

/* ------------------------------------------------------ the waiters' process */

struct waits {
	struct sm_child c;
	struct call call[NR_FORMS];
	struct kid k[NR_FORMS];
};

/* In the child: a child for each wait */
static void waits_setup(struct sm_child *child)
{
	struct waits *s = (struct waits *)child;
	int i;

	sm_handle(SIGUSR1, 0);
	for (i = 0; i < child->nr; i++) {
		if (!kid_start(&s->k[i]))
			_exit(1);
		form_set(&child->w[i], &s->call[i], i, &s->k[i], EXITED(i));
	}
}

static struct waits *waits_alloc(void)
{
	struct waits *s = sm_shared_alloc(sizeof(*s));

	if (s) {
		s->c.nr = NR_FORMS;
		s->c.setup = waits_setup;
	}
	return s;
}

/* Stopped and continued, all wait on, for what they waited for. */
TEST_F(wait, stop_continue)
{
	struct waits *s = waits_alloc();
	int i, stops;

	ASSERT_NE(NULL, s);
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	for (stops = 0; stops < 3; stops++) {
		ASSERT_TRUE(sm_child_stop(&s->c));
		ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
		ASSERT_TRUE(sm_child_asleep(&self->env, &s->c));
		for (i = 0; i < s->c.nr; i++)
			ASSERT_EQ(0, s->c.w[i].done);
	}
	/* All of them die while their parent is stopped. */
	ASSERT_TRUE(sm_child_stop(&s->c));
	for (i = 0; i < s->c.nr; i++)
		ASSERT_EQ(0, kill(s->k[i].pid, SIGKILL));
	for (i = 0; i < s->c.nr; i++)
		ASSERT_TRUE(kid_dead(&s->k[i]));
	ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
	/* Those for any child may have been faster than the others. */
	for (i = 0; i < s->c.nr; i++) {
		ASSERT_TRUE(sm_waiter_done(&s->c.w[i]));
		if (s->c.w[i].ret != -ECHILD)
			EXPECT_TRUE(IS_WAITID(i) ? !s->c.w[i].ret : s->c.w[i].ret > 0);
	}
	EXPECT_EQ(0, sm_child_wait(&s->c));
}

TEST_F(wait, ends_with_process)
{
	struct waits *s = waits_alloc();

	ASSERT_NE(NULL, s);
	sm_child_ends(_metadata, &self->env, &s->c, SIGUSR1);
}

/* ------------------------------------------------------------------- races */

#define NREAPERS	8

/*
 * Processes that live for an instant, in the memory of their parent, without
 * ever touching it.
 */
static long mayfly(long code, char *stack)
{
	long ret;

	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     "mov %%rbx, %%rdi\n\t"
		     "mov %[nr_exit], %%eax\n\t"
		     "syscall\n\t"
		     "ud2\n"
		     "1:"
		     : "=a" (ret)
		     : "0" ((long)__NR_clone), "b" (code),
		       "D" ((long)(CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD)),
		       "S" (stack), "d" (0L), [nr_exit] "i" (__NR_exit_group)
		     : "rcx", "r8", "r9", "r10", "r11", "memory");
	return ret;
}

struct reapers {
	uint16_t *born, *reaped;	/* by pid */
	long nr_pids;
	long nr_born, nr_reaped;
	long bad;
	struct reaper {
		struct reapers *r;
		pthread_t thread;
		pid_t tid;
		int nr;
		long reaped, eintr;
		int done;
	} reaper[NREAPERS];
};

static void *reaper_fn(void *arg)
{
	struct reaper *me = arg;
	struct reapers *r = me->r;
	struct call c;
	long ret;
	pid_t pid;

	sm_store(&me->tid, sm_gettid());
	for (;;) {
		call_clear(&c);
		if (me->nr % 2)
			ret = sm_sys(__NR_waitid, P_ALL, 0, &c.info, WEXITED |
				     (me->nr % 4 == 1 ? WSTOPPED : 0), &c.ru);
		else
			ret = sm_sys(__NR_wait4, me->nr % 4 ? -1 : 0, &c.status,
				     me->nr % 4 ? __WALL : 0, &c.ru);
		if (ret == -ECHILD)
			break;
		if (ret == -EINTR) {
			me->eintr++;
			continue;
		}
		pid = me->nr % 2 ? c.info.si_pid : ret;
		if (ret < 0 || pid <= 0 || pid >= r->nr_pids) {
			sm_store(&r->bad, ret ? ret : -ERANGE);
			break;
		}
		if (me->nr % 2 ? c.info.si_code != CLD_EXITED ||
		    c.info.si_status < 1 || c.info.si_status > 99 :
		    !WIFEXITED(c.status) || WEXITSTATUS(c.status) < 1 ||
		    WEXITSTATUS(c.status) > 99)
			sm_store(&r->bad, -EBADMSG);
		me->reaped++;
		__atomic_add_fetch(&r->reaped[pid], 1, __ATOMIC_SEQ_CST);
		sm_add(&r->nr_reaped, 1);
	}
	sm_store(&me->done, 1);
	return NULL;
}

/* Thousands of children, reaped by whoever is first. */
TEST_F_TIMEOUT(wait, race_reapers, 60)
{
	long i, n, pid, rounds = sm_rounds(self->env.parked ? 6000 : 2000);
	struct reapers *r = calloc(1, sizeof(*r));
	static char stacks[64][256];
	struct sm_pace pace = { 0 };
	long wrong = 0, reaped = 0;
	uint64_t seed = 57721;
	struct kid anchor;
	size_t size;

	ASSERT_NE(NULL, r);
	r->nr_pids = sm_read_long("/proc/sys/kernel/pid_max") + 1;
	size = r->nr_pids * sizeof(uint16_t);
	r->born = sm_shared_alloc(size);
	r->reaped = sm_shared_alloc(size);
	ASSERT_NE(NULL, r->born);
	ASSERT_NE(NULL, r->reaped);
	sm_handle(SIGUSR1, 0);
	/* There is always one that lives, but in the end. */
	ASSERT_TRUE(kid_start(&anchor));
	for (i = 0; i < NREAPERS; i++) {
		r->reaper[i].r = r;
		r->reaper[i].nr = i;
		ASSERT_EQ(0, sm_thread(&r->reaper[i].thread, reaper_fn, &r->reaper[i]));
		ASSERT_TRUE(sm_wait_until(sm_load(&r->reaper[i].tid)));
	}
	for (n = 0; n < rounds; n++) {
		/* Not too many at a time, and sometimes none */
		while (n - sm_load(&r->nr_reaped) > 40) {
			ASSERT_EQ(0, sm_load(&r->bad));
			ASSERT_FALSE(sm_stuck(&pace, sm_load(&r->nr_reaped))) {
				TH_LOG("born %ld, reaped %ld", n, r->nr_reaped);
			}
			sm_sleep_ns(50000);
		}
		pid = mayfly(1 + n % 99, stacks[n % 64] + 256);
		ASSERT_GT(pid, 0);
		ASSERT_LT(pid, r->nr_pids);
		r->born[pid]++;
		if (sm_rnd(&seed) % 32 == 0) {
			i = sm_rnd(&seed) % NREAPERS;
			sm_tgkill(getpid(), r->reaper[i].tid, SIGUSR1);
			sm_sleep_ns(sm_rnd(&seed) % 2000000);
		}
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&r->nr_reaped) == rounds)) {
		TH_LOG("born %ld, reaped %ld", rounds, r->nr_reaped);
	}
	r->born[anchor.pid]++;
	kid_exit(&anchor, 55);
	for (i = 0; i < NREAPERS; i++) {
		ASSERT_TRUE(sm_wait_until(sm_load(&r->reaper[i].done)));
		pthread_join(r->reaper[i].thread, NULL);
		reaped += r->reaper[i].reaped;
	}
	for (i = 0; i < r->nr_pids; i++)
		wrong += r->born[i] != r->reaped[i];
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, r->bad);
	EXPECT_EQ(rounds + 1, reaped);
	EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
	SM_EXPECT_PARKS(&self->env, 50);
	SM_EXPECT_NONE_PARKED(&self->env);
	kid_free(&anchor);
	munmap(r->born, size);
	munmap(r->reaped, size);
	free(r);
}

/* Each has children of its own, and waits for just these. */
static long own_child(struct sm_runner *r, long i)
{
	static char stacks[NW][256];
	long code = 1 + (i * 7 + r->nr) % 99, ret;
	long pid = mayfly(code, stacks[r->nr] + 256);
	int fd, form = r->nr % 4;
	struct call c;

	if (pid < 0)
		return pid;
	call_clear(&c);
	switch (form) {
	case 0:
		ret = sm_sys(__NR_wait4, pid, &c.status, 0, &c.ru);
		break;
	case 1:
		ret = sm_sys(__NR_waitid, P_PID, pid, &c.info, WEXITED, &c.ru);
		break;
	case 2:
		fd = syscall(__NR_pidfd_open, pid, 0);
		ret = sm_sys(__NR_waitid, P_PIDFD, fd, &c.info, WEXITED);
		close(fd);
		break;
	default:
		ret = sm_sys(__NR_wait4, -1, &c.status, __WNOTHREAD);
	}
	if (form % 3 ? ret || c.info.si_pid != pid || c.info.si_status != code :
		       ret != pid || c.status != code << 8)
		return ret ? ret : -EBADMSG;
	return 0;
}

TEST_F_TIMEOUT(wait, race_own_children, 60)
{
	struct sm_runner r[NW];
	int i;

	for (i = 0; i < NW; i++)
		r[i] = (struct sm_runner) {
			.nr = i, .round = own_child,
			.rounds = sm_rounds(self->env.parked ? 500 : 200),
		};
	sm_run(_metadata, r, NW, NULL);
	EXPECT_EQ(-ECHILD, wait4_now(-1, __WALL));
	SM_EXPECT_PARKS(&self->env, 20);
	SM_EXPECT_NONE_PARKED(&self->env);
}

SM_MAIN(sm_rounds_factor());
