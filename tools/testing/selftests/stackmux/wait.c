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

FIXTURE(wait) {
	struct sm_env env;
	struct sm_waiter w[NW];
};

SM_FIXTURE(wait);

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

/* One call and where its results go. */
struct call {
	int status;
	siginfo_t info;
	struct rusage ru;
};

static void call_clear(struct call *c)
{
	memset(c, 0x55, sizeof(*c));
}

static void wait4_set(struct sm_waiter *w, struct call *c, pid_t pid, int options)
{
	call_clear(c);
	sm_call(w, __NR_wait4, pid, &c->status, options, &c->ru);
	w->data = c;
}

static void waitid_set(struct sm_waiter *w, struct call *c, int which,
		       pid_t pid, int options)
{
	call_clear(c);
	sm_call(w, __NR_waitid, which, pid, &c->info, options, &c->ru);
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

static void form_set(struct sm_waiter *w, struct call *c, int form,
		     struct kid *k, int options)
{
	switch (form) {
	case W4_PID:
		wait4_set(w, c, k->pid, options);
		break;
	case W4_ANY:
		wait4_set(w, c, -1, options);
		break;
	case W4_GROUP:
		wait4_set(w, c, -getpgid(k->pid), options);
		break;
	case W4_MY_GROUP:
		wait4_set(w, c, 0, options);
		break;
	case ID_PID:
		waitid_set(w, c, P_PID, k->pid, options);
		break;
	case ID_ANY:
		waitid_set(w, c, P_ALL, 12345, options);
		break;
	case ID_GROUP:
		waitid_set(w, c, P_PGID, getpgid(k->pid), options);
		break;
	case ID_MY_GROUP:
		waitid_set(w, c, P_PGID, 0, options);
		break;
	case ID_FD:
		waitid_set(w, c, P_PIDFD, k->pidfd, options);
	}
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

/* Both kinds of result. */
#define EXPECT_RESULT(w, c, form, kid_pid, wstatus, code, stat)		\
do {									\
	if (IS_WAITID(form)) {						\
		SM_JOIN(w, 0);						\
		EXPECT_INFO(c, kid_pid, code, stat);			\
		EXPECT_EQ(0x55555555, (c)->status);			\
	} else {							\
		SM_JOIN(w, kid_pid);					\
		EXPECT_EQ(wstatus, (c)->status);			\
		EXPECT_EQ(0x55555555, (c)->info.si_signo);		\
	}								\
} while (0)

static bool untouched(const struct call *c)
{
	struct call none;

	call_clear(&none);
	return !memcmp(c, &none, sizeof(none));
}

TEST_F(wait, exits)
{
	struct call c;
	struct kid k;
	int form;

	for (form = 0; form < NR_FORMS; form++) {
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		EXPECT_TRUE(untouched(&c));
		kid_exit(&k, 7 + form);
		EXPECT_RESULT(self->w, &c, form, k.pid, (7 + form) << 8,
			      CLD_EXITED, 7 + form);
		EXPECT_GT(c.ru.ru_maxrss, 0);
		EXPECT_TRUE(kid_gone(&k));
		EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
		kid_free(&k);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

TEST_F(wait, killed)
{
	static const int sigs[] = { SIGKILL, SIGTERM, SIGABRT };
	struct rlimit none = { 0, 0 };
	struct call c;
	struct kid k;
	int form, sig;

	setrlimit(RLIMIT_CORE, &none);
	for (form = 0; form < NR_FORMS; form++) {
		sig = sigs[form % ARRAY_SIZE(sigs)];
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kill(k.pid, sig);
		EXPECT_RESULT(self->w, &c, form, k.pid, sig, CLD_KILLED, sig);
		kid_free(&k);
	}
}

/* Without anything to write to */
TEST_F(wait, null_pointers)
{
	struct call c;
	struct kid k;

	ASSERT_TRUE(kid_start(&k));
	wait4_set(self->w, &c, -1, 0);
	self->w->arg[1] = 0;
	self->w->arg[3] = 0;
	ASSERT_TRUE(sm_start(&self->env, self->w));
	kid_exit(&k, 1);
	SM_JOIN(self->w, k.pid);
	kid_free(&k);

	ASSERT_TRUE(kid_start(&k));
	waitid_set(self->w, &c, P_ALL, 0, WEXITED);
	self->w->arg[2] = 0;
	self->w->arg[4] = 0;
	ASSERT_TRUE(sm_start(&self->env, self->w));
	kid_exit(&k, 1);
	SM_JOIN(self->w, 0);
	EXPECT_TRUE(kid_gone(&k));
	kid_free(&k);
}

TEST_F(wait, stops_and_continues)
{
	struct call c;
	struct kid k;
	int form, round;

	ASSERT_TRUE(kid_start(&k));
	for (form = 0; form < NR_FORMS; form++) {
		for (round = 0; round < 2; round++) {
			form_set(self->w, &c, form, &k, WUNTRACED);
			ASSERT_TRUE(sm_start(&self->env, self->w));
			kill(k.pid, round ? SIGTSTP : SIGSTOP);
			EXPECT_RESULT(self->w, &c, form, k.pid,
				      0x7f | (round ? SIGTSTP : SIGSTOP) << 8,
				      CLD_STOPPED, round ? SIGTSTP : SIGSTOP);
			EXPECT_GT(c.ru.ru_maxrss, 0);

			/* Told once: the next one waits. */
			form_set(self->w, &c, form, &k, WUNTRACED | WCONTINUED);
			ASSERT_TRUE(sm_start(&self->env, self->w));
			kill(k.pid, SIGCONT);
			EXPECT_RESULT(self->w, &c, form, k.pid, 0xffff,
				      CLD_CONTINUED, SIGCONT);
		}
	}
	kill(k.pid, SIGKILL);
	EXPECT_EQ(k.pid, wait4_now(k.pid, 0));
	kid_free(&k);
}

/* Nobody is told what he did not ask for. */
TEST_F(wait, other_events)
{
	struct call c;
	struct kid k;
	int form;

	for (form = 0; form < NR_FORMS; form++) {
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kill(k.pid, SIGSTOP);
		ASSERT_TRUE(sm_wait_until(sm_task_state(k.pid, k.pid) == 'T'));
		sm_settle();
		kill(k.pid, SIGCONT);
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
		kid_exit(&k, 3);
		EXPECT_RESULT(self->w, &c, form, k.pid, 3 << 8, CLD_EXITED, 3);
		kid_free(&k);
	}
	/* An end, to those who wait for a stop: there will be none any more. */
	for (form = ID_PID; form < NR_FORMS; form++) {
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, WSTOPPED);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kid_exit(&k, 3);
		SM_JOIN(self->w, -ECHILD);
		EXPECT_EQ(0, c.info.si_signo);
		EXPECT_EQ(k.pid, wait4_now(k.pid, 0));
		kid_free(&k);
	}
}

/* WNOWAIT leaves all as it is, for as many as want to know. */
TEST_F(wait, nowait)
{
	struct call c[NW];
	struct kid k;
	int i, form;

	ASSERT_TRUE(kid_start(&k));
	sm_rebase(&self->env);
	for (i = 0; i < NW; i++) {
		form = i % 2 ? ID_ANY : ID_PID + i % 5;
		form_set(&self->w[i], &c[i], form, &k, WSTOPPED | WNOWAIT);
		ASSERT_EQ(0, sm_waiter_run(&self->w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, NW));
	kill(k.pid, SIGSTOP);
	for (i = 0; i < NW; i++) {
		SM_JOIN(&self->w[i], 0);
		EXPECT_INFO(&c[i], k.pid, CLD_STOPPED, SIGSTOP);
	}
	EXPECT_EQ(k.pid, wait4_now(k.pid, WUNTRACED));
	kill(k.pid, SIGCONT);

	sm_rebase(&self->env);
	for (i = 0; i < NW; i++) {
		form_set(&self->w[i], &c[i], ID_PID + i % 5, &k, WEXITED | WNOWAIT);
		ASSERT_EQ(0, sm_waiter_run(&self->w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, NW));
	kid_tell(&k, KID_BURN | 9);
	for (i = 0; i < NW; i++) {
		SM_JOIN(&self->w[i], 0);
		EXPECT_INFO(&c[i], k.pid, CLD_EXITED, 9);
		EXPECT_GE(c[i].ru.ru_utime.tv_sec * SM_SEC +
			  c[i].ru.ru_utime.tv_usec * 1000 +
			  c[i].ru.ru_stime.tv_sec * SM_SEC +
			  c[i].ru.ru_stime.tv_usec * 1000, 50 * SM_MSEC);
	}
	EXPECT_EQ(k.pid, wait4_now(k.pid, 0));
	EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
	kid_free(&k);
}

static int64_t ru_ns(const struct rusage *ru)
{
	return (ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) * SM_SEC +
	       (ru->ru_utime.tv_usec + ru->ru_stime.tv_usec) * 1000;
}

/* What a child has used is told, and put on the account of its parent. */
TEST_F(wait, rusage)
{
	struct rusage before, after;
	struct call c;
	struct kid k;
	int form;

	for (form = 0; form < NR_FORMS; form++) {
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		getrusage(RUSAGE_CHILDREN, &before);
		kid_tell(&k, KID_BURN | 2);
		EXPECT_RESULT(self->w, &c, form, k.pid, 2 << 8, CLD_EXITED, 2);
		getrusage(RUSAGE_CHILDREN, &after);
		EXPECT_GE(ru_ns(&c.ru), 50 * SM_MSEC);
		EXPECT_LE(llabs(ru_ns(&after) - ru_ns(&before) - ru_ns(&c.ru)),
			  10 * SM_MSEC);
		EXPECT_EQ(after.ru_minflt - before.ru_minflt, c.ru.ru_minflt);
		EXPECT_EQ(after.ru_nvcsw - before.ru_nvcsw, c.ru.ru_nvcsw);
		EXPECT_GT(c.ru.ru_minflt, 0);
		kid_free(&k);
	}
}

/* Nothing there yet, and nobody who waits. */
TEST_F(wait, nohang)
{
	struct sm_waiter w = { 0 };
	struct call c;
	struct kid k;
	int form;

	ASSERT_TRUE(kid_start(&k));
	for (form = 0; form < NR_FORMS; form++) {
		form_set(&w, &c, form, &k, WNOHANG | (IS_WAITID(form) ? WEXITED : 0));
		sm_waiter_fn(&w);
		EXPECT_EQ(0, w.ret);
		if (IS_WAITID(form)) {
			EXPECT_EQ(0, c.info.si_signo);
			EXPECT_EQ(0, c.info.si_pid);
		}
	}
	kid_exit(&k, 1);
	ASSERT_TRUE(kid_dead(&k));
	/* Already there: nobody waits either. */
	form_set(&w, &c, ID_PID, &k, WEXITED);
	sm_waiter_fn(&w);
	EXPECT_EQ(0, w.ret);
	EXPECT_INFO(&c, k.pid, CLD_EXITED, 1);
	kid_free(&k);
}

TEST_F(wait, pidfd_nonblock)
{
	struct call c;
	struct kid k;
	int fd;

	ASSERT_TRUE(kid_start(&k));
	fd = syscall(__NR_pidfd_open, k.pid, PIDFD_NONBLOCK);
	ASSERT_GE(fd, 0);
	waitid_set(self->w, &c, P_PIDFD, fd, WEXITED);
	sm_waiter_fn(self->w);
	EXPECT_EQ(-EAGAIN, self->w->ret);
	waitid_set(self->w, &c, P_PIDFD, fd, WEXITED | WNOHANG);
	sm_waiter_fn(self->w);
	EXPECT_EQ(0, self->w->ret);
	EXPECT_EQ(0, c.info.si_pid);

	/* The flag is asked at the start. */
	sm_nonblock(fd, false);
	waitid_set(self->w, &c, P_PIDFD, fd, WEXITED);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	sm_nonblock(fd, true);
	kid_exit(&k, 5);
	SM_JOIN(self->w, 0);
	EXPECT_INFO(&c, k.pid, CLD_EXITED, 5);
	waitid_set(self->w, &c, P_PIDFD, fd, WEXITED);
	sm_waiter_fn(self->w);
	EXPECT_EQ(-ECHILD, self->w->ret);
	close(fd);
	kid_free(&k);

	/* Nor does it matter what becomes of the descriptor. */
	ASSERT_TRUE(kid_start(&k));
	waitid_set(self->w, &c, P_PIDFD, k.pidfd, WEXITED);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	close(k.pidfd);
	kid_exit(&k, 5);
	SM_JOIN(self->w, 0);
	EXPECT_INFO(&c, k.pid, CLD_EXITED, 5);
	munmap(k.cmd, 4096);
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
	EXPECT_EQ(-EINVAL, sm_sys(__NR_waitid, P_ALL));
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
	void *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct call c;
	struct kid k;
	int i, form;

	ASSERT_NE(MAP_FAILED, none);
	for (i = 0; i < 2; i++) {
		for (form = 0; form < NR_FORMS; form++) {
			ASSERT_TRUE(kid_start(&k));
			form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
			if (IS_WAITID(form))
				self->w->arg[i ? 4 : 2] = (long)none;
			else
				self->w->arg[i ? 3 : 1] = (long)none;
			ASSERT_TRUE(sm_start(&self->env, self->w));
			kid_exit(&k, 4);
			SM_JOIN(self->w, -EFAULT);
			EXPECT_TRUE(kid_gone(&k));
			EXPECT_EQ(-ECHILD, wait4_now(-1, 0));
			/* The status comes before the rusage. */
			if (i && !IS_WAITID(form))
				EXPECT_EQ(4 << 8, c.status);
			kid_free(&k);
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
	struct kid mine;
	int i;

	ASSERT_TRUE(kid_start(&mine));
	sm_rebase(&self->env);
	for (i = 0; i < 2; i++) {
		sm_call(&self->w[i], __NR_wait4, 0, 0, __WNOTHREAD);
		self->w[i].before = fork_before;
		self->w[i].data = &f[i];
		ASSERT_EQ(0, sm_waiter_run(&self->w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, 2));
	ASSERT_TRUE(f[0].ok);
	ASSERT_TRUE(f[1].ok);

	/* Children of others */
	kid_exit(&mine, 1);
	ASSERT_TRUE(kid_dead(&mine));
	sm_settle();
	EXPECT_EQ(0, sm_nr_done(self->w, 2));
	kid_exit(&f[1].k, 2);
	SM_JOIN(&self->w[1], f[1].k.pid);
	EXPECT_EQ(2 << 8, f[1].c.status);
	sm_settle();
	EXPECT_EQ(0, sm_load(&self->w[0].done));

	/* It has none. */
	self->w[1].before = NULL;
	sm_call(&self->w[1], __NR_wait4, f[0].k.pid, 0, __WNOTHREAD);
	ASSERT_EQ(0, sm_waiter_run(&self->w[1]));
	SM_JOIN(&self->w[1], -ECHILD);

	kid_exit(&f[0].k, 3);
	SM_JOIN(&self->w[0], f[0].k.pid);
	EXPECT_EQ(mine.pid, wait4_now(-1, __WNOTHREAD));
	kid_free(&mine);
	kid_free(&f[0].k);
	kid_free(&f[1].k);
}

/* Children that end without SIGCHLD */
TEST_F(wait, clone_children)
{
	struct kid k, other;
	struct call c;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(kid_start(&other));
		ASSERT_TRUE(kid_start_sig(&k, i == 2 ? SIGWINCH : 0));
		EXPECT_EQ(-ECHILD, wait4_now(k.pid, 0));
		EXPECT_EQ(-ECHILD, wait4_now(other.pid, __WCLONE));

		wait4_set(self->w, &c, -1, __WCLONE);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kid_exit(&other, 1);
		ASSERT_TRUE(kid_dead(&other));
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		if (i == 1)
			kill(k.pid, SIGKILL);
		else
			kid_exit(&k, 6);
		SM_JOIN(self->w, k.pid);
		EXPECT_EQ(i == 1 ? SIGKILL : 6 << 8, c.status);

		EXPECT_EQ(other.pid, wait4_now(-1, 0));
		kid_free(&k);
		kid_free(&other);
	}
	/* __WALL takes both, in the order in which they end. */
	ASSERT_TRUE(kid_start(&other));
	ASSERT_TRUE(kid_start_sig(&k, 0));
	waitid_set(self->w, &c, P_ALL, 0, WEXITED | __WALL);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	kid_exit(&k, 7);
	SM_JOIN(self->w, 0);
	EXPECT_INFO(&c, k.pid, CLD_EXITED, 7);
	wait4_set(self->w, &c, -1, __WALL);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	kid_exit(&other, 8);
	SM_JOIN(self->w, other.pid);
	EXPECT_EQ(8 << 8, c.status);
	kid_free(&k);
	kid_free(&other);
}

/* One is waited for, others come and go. */
TEST_F(wait, one_among_others)
{
	struct kid k[6];
	struct call c;
	int form, i;

	for (form = 0; form < NR_FORMS; form++) {
		if (form != W4_PID && form != ID_PID && form != ID_FD &&
		    form != W4_GROUP && form != ID_GROUP)
			continue;
		for (i = 0; i < 6; i++)
			ASSERT_TRUE(kid_start(&k[i]));
		ASSERT_EQ(0, setpgid(k[3].pid, k[3].pid));
		form_set(self->w, &c, form, &k[3], IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		for (i = 0; i < 6; i++) {
			if (i == 3)
				continue;
			kid_exit(&k[i], i);
			ASSERT_TRUE(kid_dead(&k[i]));
		}
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		/* No counters: with parking for everybody the children count. */
		ASSERT_TRUE(sm_sleeps(self->w));
		/* Others, and this thread, may reap them meanwhile. */
		for (i = 0; i < 6; i++) {
			if (i != 3)
				EXPECT_EQ(k[i].pid, wait4_now(k[i].pid, 0));
		}
		EXPECT_EQ(0, sm_load(&self->w->done));
		kid_exit(&k[3], 33);
		EXPECT_RESULT(self->w, &c, form, k[3].pid, 33 << 8, CLD_EXITED, 33);
		for (i = 0; i < 6; i++)
			kid_free(&k[i]);
	}
}

/* One child, many waiters: one is told, and of the last one none is left. */
TEST_F(wait, one_of_many)
{
	struct call c[NW];
	struct kid k[3];
	int i, n, nr, seen = 0, echild = 0;

	for (i = 0; i < 3; i++)
		ASSERT_TRUE(kid_start(&k[i]));
	sm_rebase(&self->env);
	for (i = 0; i < NW; i++) {
		if (i % 2)
			wait4_set(&self->w[i], &c[i], -1, 0);
		else
			waitid_set(&self->w[i], &c[i], P_ALL, 0, WEXITED);
		ASSERT_EQ(0, sm_waiter_run(&self->w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, NW));
	for (n = 0; n < 3; n++) {
		kid_exit(&k[n], n + 1);
		nr = n < 2 ? n + 1 : NW;
		ASSERT_TRUE(sm_wait_until(sm_nr_done(self->w, NW) >= nr));
		sm_settle();
		ASSERT_EQ(nr, sm_nr_done(self->w, NW));
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
	struct call c, c2;
	struct kid k;
	int form, round;

	for (form = 0; form < NR_FORMS; form++) {
		for (round = 0; round < 4; round++) {
			ASSERT_TRUE(kid_start(&k));
			form_set(&self->w[0], &c, form, &k,
				 IS_WAITID(form) ? WEXITED : 0);
			form_set(&self->w[1], &c2, (form + round * 2) % NR_FORMS, &k, 0);
			if (self->w[1].nr == __NR_waitid)
				self->w[1].arg[3] = WEXITED;
			sm_rebase(&self->env);
			ASSERT_EQ(0, sm_waiter_run(&self->w[0]));
			ASSERT_EQ(0, sm_waiter_run(&self->w[1]));
			ASSERT_TRUE(sm_asleep(&self->env, self->w, 2));
			kid_exit(&k, 1);
			ASSERT_TRUE(sm_waiter_join(&self->w[0]));
			ASSERT_TRUE(sm_waiter_join(&self->w[1]));
			EXPECT_EQ(1, (self->w[0].ret == -ECHILD) +
				  (self->w[1].ret == -ECHILD));
			EXPECT_EQ(1, (self->w[0].ret >= 0) + (self->w[1].ret >= 0));
			kid_free(&k);
		}
	}
}

/* Children that nobody wants are reaped by themselves. */
TEST_F(wait, sigchld_ignored)
{
	struct sigaction sa = { .sa_handler = SIG_DFL,
				.sa_flags = SA_NOCLDWAIT };
	struct kid k[3];
	struct call c;
	int form, i;

	for (form = 0; form < NR_FORMS; form++) {
		if (form % 2)
			signal(SIGCHLD, SIG_IGN);
		else
			sigaction(SIGCHLD, &sa, NULL);
		for (i = 0; i < 3; i++)
			ASSERT_TRUE(kid_start(&k[i]));
		form_set(self->w, &c, form, &k[2], IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		for (i = 0; i < 2; i++) {
			kid_exit(&k[i], 1);
			ASSERT_TRUE(sm_wait_until(kid_gone(&k[i])));
		}
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		kid_exit(&k[2], 1);
		SM_JOIN(self->w, -ECHILD);
		for (i = 0; i < 3; i++)
			kid_free(&k[i]);
	}
	signal(SIGCHLD, SIG_DFL);
}

/* ----------------------------------------------------------------- signals */

TEST_F(wait, interrupted)
{
	struct call c;
	struct kid k;
	int form;

	ASSERT_TRUE(kid_start(&k));
	for (form = 0; form < NR_FORMS; form++) {
		sm_handle(SIGUSR1, 0);
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		EXPECT_EQ(1, sm_handled);
		EXPECT_EQ(0x55555555, c.status);
		EXPECT_EQ(IS_WAITID(form) ? 0 : 0x55555555, c.info.si_signo);
	}
	sm_handle(SIGUSR1, SA_RESTART);
	for (form = 0; form < NR_FORMS; form++) {
		sm_handled = 0;
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		sm_signal(self->w, SIGUSR1);
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
		ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
		sm_signal(self->w, SIGUSR1);
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 2));
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		kid_exit(&k, 6);
		EXPECT_RESULT(self->w, &c, form, k.pid, 6 << 8, CLD_EXITED, 6);
		kid_free(&k);
		ASSERT_TRUE(kid_start(&k));
	}
	kill(k.pid, SIGKILL);
	EXPECT_EQ(k.pid, wait4_now(-1, 0));
	kid_free(&k);
}

/* A handler of SIGCHLD: the child is there at the same time. */
TEST_F(wait, sigchld_handled)
{
	struct call c;
	struct kid k;
	int form;

	for (form = 0; form < NR_FORMS; form++) {
		sm_handle(SIGCHLD, form % 2 ? SA_RESTART : 0);
		ASSERT_TRUE(kid_start(&k));
		form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kid_exit(&k, 6);
		EXPECT_RESULT(self->w, &c, form, k.pid, 6 << 8, CLD_EXITED, 6);
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
		kid_free(&k);
	}
}

/* ------------------------------------------------------------------ groups */

TEST_F(wait, group_changes)
{
	struct kid k[3];
	struct call c;
	int i, id;

	for (id = 0; id < 2; id++) {
		for (i = 0; i < 3; i++)
			ASSERT_TRUE(kid_start(&k[i]));
		ASSERT_EQ(0, setpgid(k[0].pid, k[0].pid));
		ASSERT_EQ(0, setpgid(k[1].pid, k[0].pid));
		if (id)
			waitid_set(self->w, &c, P_PGID, k[0].pid, WEXITED);
		else
			wait4_set(self->w, &c, -k[0].pid, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		/* Out of the group, and not any longer waited for */
		ASSERT_EQ(0, setpgid(k[1].pid, k[1].pid));
		kid_exit(&k[1], 1);
		ASSERT_TRUE(kid_dead(&k[1]));
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		/* Into it */
		ASSERT_EQ(0, setpgid(k[2].pid, k[0].pid));
		kid_exit(&k[2], 2);
		EXPECT_RESULT(self->w, &c, id ? ID_GROUP : W4_GROUP, k[2].pid,
			      2 << 8, CLD_EXITED, 2);
		kid_exit(&k[0], 3);
		EXPECT_EQ(k[0].pid, wait4_now(-k[0].pid, 0));
		EXPECT_EQ(k[1].pid, wait4_now(-1, 0));
		for (i = 0; i < 3; i++)
			kid_free(&k[i]);
	}
}

/* "My group" is the one at the time of the call. */
TEST_F(wait, own_group_changes)
{
	struct kid a, b;
	struct call c;
	int id;

	if (getpgrp() != getpid())
		ASSERT_EQ(0, setpgid(0, 0));
	for (id = 0; id < 2; id++) {
		ASSERT_TRUE(kid_start(&a));
		ASSERT_TRUE(kid_start(&b));
		ASSERT_EQ(0, setpgid(b.pid, b.pid));
		form_set(self->w, &c, id ? ID_MY_GROUP : W4_MY_GROUP, &a,
			 id ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_EQ(0, setpgid(0, b.pid));
		kid_exit(&b, 1);
		ASSERT_TRUE(kid_dead(&b));
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		kid_exit(&a, 2);
		EXPECT_RESULT(self->w, &c, id ? ID_GROUP : W4_GROUP, a.pid,
			      2 << 8, CLD_EXITED, 2);
		ASSERT_EQ(0, setpgid(0, getpid()));
		EXPECT_EQ(b.pid, wait4_now(b.pid, 0));
		kid_free(&a);
		kid_free(&b);
	}
}

/* ------------------------------------------------------------ traced child */

/* As long as another one traces it, its end is that one's business. */
TEST_F(wait, traced_by_sibling)
{
	uint32_t *step = sm_shared_alloc(4096);
	int form, status;
	struct call c;
	struct kid k;
	pid_t tracer;

	for (form = 0; form < NR_FORMS; form += 2) {
		*step = 0;
		ASSERT_TRUE(kid_start(&k));
		tracer = sm_fork();
		ASSERT_GE(tracer, 0);
		if (!tracer) {
			sm_disable();
			if (ptrace(PTRACE_SEIZE, k.pid, 0, 0))
				_exit(1);
			sm_store(step, 1);
			while (sm_load(step) == 1)
				sm_sleep_ms(1);
			_exit(waitpid(k.pid, &status, __WALL) == k.pid &&
			      status == 9 << 8 ? 0 : 2);
		}
		ASSERT_TRUE(sm_wait_until(sm_load(step) == 1));
		ASSERT_EQ(0, setpgid(k.pid, k.pid));
		if (form == W4_ANY || form == ID_ANY || form == W4_MY_GROUP ||
		    form == ID_MY_GROUP)
			form_set(self->w, &c, W4_PID, &k, 0);
		else
			form_set(self->w, &c, form, &k, IS_WAITID(form) ? WEXITED : 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		kid_exit(&k, 9);
		ASSERT_TRUE(kid_dead(&k));
		sm_settle();
		EXPECT_EQ(0, sm_load(&self->w->done));
		sm_store(step, 2);
		ASSERT_TRUE(sm_waiter_join(self->w));
		EXPECT_EQ(self->w->nr == __NR_wait4 ? k.pid : 0, self->w->ret);
		SM_EXPECT_STATUS(0, tracer);
		kid_free(&k);
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
		form_set(&child->w[i], &s->call[i], i, &s->k[i],
			 IS_WAITID(i) ? WEXITED : 0);
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
			EXPECT_EQ(IS_WAITID(i), !s->c.w[i].ret);
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
	long wrong = 0, reaped = 0, last = -1;
	static char stacks[64][256];
	int64_t stuck = sm_now_ns();
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
			if (sm_load(&r->nr_reaped) != last) {
				last = sm_load(&r->nr_reaped);
				stuck = sm_now_ns();
			}
			ASSERT_LT(sm_now_ns() - stuck, sm_patience_ns()) {
				TH_LOG("born %ld, reaped %ld", n, last);
			}
			sm_sleep_ns(50000);
		}
		pid = mayfly(1 + n % 99, stacks[n % 64] + 256);
		ASSERT_GT(pid, 0);
		ASSERT_LT(pid, r->nr_pids);
		r->born[pid]++;
		if (sm_rnd(&seed) % 32 == 0) {
			sm_tgkill(getpid(), r->reaper[sm_rnd(&seed) %
				  NREAPERS].tid, SIGUSR1);
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
struct parent {
	pthread_t thread;
	int nr;
	long rounds, done_rounds;
	long bad;
	int done;
};

static void *parent_fn(void *arg)
{
	struct parent *p = arg;
	static char stacks[NW][256];
	struct call c;
	long i, code, pid, ret;
	int fd;

	for (i = 0; i < p->rounds; i++) {
		code = 1 + (i * 7 + p->nr) % 99;
		pid = mayfly(code, stacks[p->nr] + 256);
		if (pid < 0) {
			p->bad = pid;
			break;
		}
		call_clear(&c);
		switch (p->nr % 4) {
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
		if (p->nr % 4 == 0 || p->nr % 4 == 3 ?
		    ret != pid || c.status != code << 8 :
		    ret || c.info.si_pid != pid || c.info.si_status != code)
			sm_store(&p->bad, ret ? ret : -EBADMSG);
		sm_add(&p->done_rounds, 1);
	}
	sm_store(&p->done, 1);
	return NULL;
}

TEST_F_TIMEOUT(wait, race_own_children, 60)
{
	long sum, last = -1, rounds = sm_rounds(self->env.parked ? 500 : 200);
	int64_t stuck = sm_now_ns();
	struct parent p[NW] = { 0 };
	int i, done;

	for (i = 0; i < NW; i++) {
		p[i].nr = i;
		p[i].rounds = rounds;
		ASSERT_EQ(0, sm_thread(&p[i].thread, parent_fn, &p[i]));
	}
	do {
		for (i = 0, sum = 0, done = 0; i < NW; i++) {
			ASSERT_EQ(0, sm_load(&p[i].bad));
			sum += sm_load(&p[i].done_rounds);
			done += sm_load(&p[i].done);
		}
		if (sum != last) {
			last = sum;
			stuck = sm_now_ns();
		}
		ASSERT_LT(sm_now_ns() - stuck, sm_patience_ns()) {
			for (i = 0; i < NW; i++)
				TH_LOG("%d: %ld", i, p[i].done_rounds);
		}
		sm_sleep_ms(5);
	} while (done < NW);
	for (i = 0; i < NW; i++) {
		pthread_join(p[i].thread, NULL);
		EXPECT_EQ(rounds, p[i].done_rounds);
		EXPECT_EQ(0, p[i].bad);
	}
	EXPECT_EQ(-ECHILD, wait4_now(-1, __WALL));
	SM_EXPECT_PARKS(&self->env, 20);
	SM_EXPECT_NONE_PARKED(&self->env);
}

SM_MAIN(sm_rounds_factor());
