// SPDX-License-Identifier: GPL-2.0
/*
 * pause(), rt_sigsuspend() and rt_sigtimedwait(), in a process that parks and
 * in one that does not: which signals end them, the masks while they wait and
 * afterwards, and that each queued signal is taken exactly once.
 */
#include "scenario.h"
#include "child.h"

#define HOUR	(3600 * SM_SEC)
#define NW	8
#define SETSIZE	sizeof(uint64_t)

/* Real-time signals that libc leaves alone */
#define RT(n)	(40 + (n))

static const int sa_flags[] = { 0, SA_RESTART };

/* A waiter's masks: before its call, for sigsuspend(), and afterwards. */
struct masks {
	uint64_t before, wait, after;
	siginfo_t info;
	struct timespec ts;
};

FIXTURE(signal) {
	struct sm_env env;
	struct sm_waiter w[NW];
	struct masks m[NW];	/* each waiter's */
};

SM_FIXTURE(signal);

static void set_mask(struct sm_waiter *w)
{
	struct masks *m = w->data;

	sm_mask_set(m->before);
}

static void note_mask(struct sm_waiter *w)
{
	struct masks *m = w->data;

	m->after = sm_mask_now();
}

static void with_masks(struct sm_waiter *w, struct masks *m)
{
	w->before = set_mask;
	w->after = note_mask;
	w->data = m;
	m->after = ~0ULL;
}

static void suspend_set(struct sm_waiter *w, struct masks *m)
{
	with_masks(w, m);
	sm_call(w, __NR_rt_sigsuspend, &m->wait, SETSIZE);
}

/* Wait for the signals in m->wait, forever if @ns is negative. */
static void timedwait_set(struct sm_waiter *w, struct masks *m, int64_t ns)
{
	with_masks(w, m);
	m->ts = sm_ts(ns);
	memset(&m->info, 0x55, sizeof(m->info));
	sm_call(w, __NR_rt_sigtimedwait, &m->wait, &m->info, ns < 0 ? NULL : &m->ts, SETSIZE);
}

static long timedwait_now(uint64_t set, siginfo_t *info, int64_t ns)
{
	struct timespec ts = sm_ts(ns);

	return sm_sys(__NR_rt_sigtimedwait, &set, info, ns < 0 ? NULL : &ts, SETSIZE);
}

/* The first waiter, with these masks */
static bool pause_start(FIXTURE_DATA(signal) *self, uint64_t before)
{
	self->m->before = before;
	with_masks(self->w, self->m);
	sm_call(self->w, __NR_pause);
	return sm_start(&self->env, self->w);
}

static bool suspend_start(FIXTURE_DATA(signal) *self, uint64_t before, uint64_t wait)
{
	*self->m = (struct masks){ .before = before, .wait = wait };
	suspend_set(self->w, self->m);
	return sm_start(&self->env, self->w);
}

static bool timedwait_start(FIXTURE_DATA(signal) *self, uint64_t before, uint64_t wait,
			    int64_t ns)
{
	*self->m = (struct masks){ .before = before, .wait = wait };
	timedwait_set(self->w, self->m, ns);
	return sm_start(&self->env, self->w);
}

/* A signal with a value, to a thread or to a process. */
static long queue_to(pid_t pid, pid_t tid, int sig, long val)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = sig;
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)val;
	if (tid)
		return sm_sys(__NR_rt_tgsigqueueinfo, pid, tid, sig, &info);
	return sm_sys(__NR_rt_sigqueueinfo, pid, sig, &info);
}

/* Signals that are pending to a thread (SigPnd) or its process (ShdPnd). */
static uint64_t pending_of(pid_t tid, const char *key)
{
	char buf[4096], *set = sm_task_status(getpid(), tid, key, buf, sizeof(buf));

	return set ? strtoull(set, NULL, 16) : ~0ULL;
}

/* The first waiter is still asleep after all that was sent to it. */
#define EXPECT_STILL_ASLEEP()						\
do {									\
	SM_EXPECT_WAITS(self->w, 1);					\
	ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));			\
} while (0)

/* ------------------------------------------------------------------- pause */

TEST_F(signal, pause_handler)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(sa_flags); i++) {
		sm_handle(SIGUSR1, sa_flags[i]);
		ASSERT_TRUE(pause_start(self, 0));
		SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		EXPECT_EQ(1, sm_handled);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* What does not run a handler does not end it. */
TEST_F(signal, pause_ignored)
{
	struct sm_waiter *w = self->w;
	int i;

	signal(SIGUSR2, SIG_IGN);
	sm_handle(SIGUSR1, 0);
	ASSERT_TRUE(pause_start(self, 0));
	for (i = 0; i < 3; i++) {
		sm_signal(w, SIGUSR2);
		sm_signal(w, SIGCHLD);
		sm_signal(w, SIGURG);
		sm_signal(w, SIGCONT);
		kill(getpid(), SIGWINCH);
		sm_signal(w, 0);
		EXPECT_STILL_ASLEEP();
	}
	SM_EXPECT_INTERRUPTED(w, SIGUSR1);
	EXPECT_EQ(1, sm_handled);
}

/* A blocked signal waits for its time, in pause() longer than in others. */
TEST_F(signal, pause_blocked)
{
	struct sm_waiter *w = self->w;

	sm_handle(SIGUSR1, 0);
	sm_handle(SIGUSR2, 0);
	ASSERT_TRUE(pause_start(self, sm_bit(SIGUSR1)));
	sm_signal(w, SIGUSR1);
	EXPECT_STILL_ASLEEP();
	EXPECT_EQ(0, sm_handled);
	EXPECT_EQ(sm_bit(SIGUSR1), pending_of(w->tid, "SigPnd"));
	SM_EXPECT_INTERRUPTED(w, SIGUSR2);
	EXPECT_EQ(1, sm_handled);
	EXPECT_EQ(self->m->before, self->m->after);
}

/* To the process: one of those that do not block it handles it. */
TEST_F(signal, pause_process_signal)
{
	int i, n;

	sm_handle(SIGUSR1, 0);
	sm_mask_set(0);
	for (i = 0; i < NW; i++)
		sm_call(&self->w[i], __NR_pause);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	/* Not the main thread, which would be the first choice. */
	sm_mask_set(sm_bit(SIGUSR1));
	for (n = 1; n <= NW; n++) {
		EXPECT_EQ(0, kill(getpid(), SIGUSR1));
		SM_ASSERT_DONE(self->w, NW, n);
		EXPECT_EQ(n, sm_handled);
	}
	SM_JOIN_ALL(self->w, NW, -EINTR);
}

/* -------------------------------------------------------------- sigsuspend */

/* The handlers that ran, their masks, and those to which they return */
static struct {
	int sig;
	uint64_t mask, restore;
} order[8];
static int nr_order;

static void note_handler(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	int i = sm_add(&nr_order, 1) - 1;

	order[i].sig = sig;
	order[i].mask = sm_mask_now();
	memcpy(&order[i].restore, &uc->uc_sigmask, sizeof(order[i].restore));
}

static void note_handle(int sig, int flags)
{
	struct sigaction sa = {
		.sa_sigaction = note_handler,
		.sa_flags = SA_SIGINFO | flags,
	};

	sigaction(sig, &sa, NULL);
	nr_order = 0;
}

#define EXPECT_ORDER(i, signr, inside, to_restore)			\
do {									\
	EXPECT_EQ(signr, order[i].sig);					\
	EXPECT_EQ((inside) | sm_bit(signr), order[i].mask);		\
	EXPECT_EQ(to_restore, order[i].restore);			\
} while (0)

/* The mask is in force exactly while it waits. */
TEST_F(signal, suspend_mask)
{
	const uint64_t before = sm_bit(SIGUSR1) | sm_bit(SIGHUP) | sm_bit(RT(1));
	const uint64_t in_force = sm_bit(SIGUSR2) | sm_bit(SIGTERM) | sm_bit(RT(2));
	struct sm_waiter *w = self->w;
	int i;

	for (i = 0; i < ARRAY_SIZE(sa_flags); i++) {
		note_handle(SIGUSR2, sa_flags[i]);
		note_handle(SIGUSR1, sa_flags[i]);
		/* The two that cannot be blocked are dropped. */
		ASSERT_TRUE(suspend_start(self, before, in_force | sm_bit(SIGKILL) |
					  sm_bit(SIGSTOP)));
		EXPECT_EQ(in_force, sm_mask_of(getpid(), w->tid));
		sm_signal(w, SIGUSR2);
		EXPECT_STILL_ASLEEP();
		EXPECT_EQ(0, nr_order);

		SM_EXPECT_INTERRUPTED(w, SIGUSR1);
		EXPECT_EQ(2, nr_order);
		EXPECT_ORDER(0, SIGUSR1, in_force, before);
		/* The other one comes with the old mask. */
		EXPECT_ORDER(1, SIGUSR2, before, before);
		EXPECT_EQ(before, self->m->after);
	}
}

/* Every handler that the wait lets in runs before the old mask is back. */
static void pend_two(struct sm_waiter *w)
{
	set_mask(w);
	sm_tgkill(getpid(), sm_gettid(), SIGUSR1);
	sm_tgkill(getpid(), sm_gettid(), SIGUSR2);
}

TEST_F(signal, suspend_pending)
{
	struct masks *m = self->m;
	int both;

	note_handle(SIGUSR1, 0);
	note_handle(SIGUSR2, 0);
	m->before = sm_bit(SIGUSR1) | sm_bit(SIGUSR2);
	for (both = 0; both < 2; both++) {
		/* One that is blocked in the wait, too, and one that is not; then neither */
		m->wait = sm_bit(SIGHUP) | (both ? 0 : sm_bit(SIGUSR2));
		nr_order = 0;
		suspend_set(self->w, m);
		self->w->before = pend_two;
		ASSERT_EQ(0, sm_waiter_run(self->w));
		SM_JOIN(self->w, -EINTR);
		EXPECT_EQ(m->before, m->after);
		EXPECT_EQ(1 + both, nr_order);
		if (!both) {
			EXPECT_ORDER(0, SIGUSR1, m->wait, m->before);
			continue;
		}
		/* The second one interrupts the first one's start. */
		EXPECT_ORDER(0, SIGUSR2, m->wait | sm_bit(SIGUSR1), m->wait | sm_bit(SIGUSR1));
		EXPECT_EQ(SIGUSR1, order[1].sig);
		EXPECT_EQ(m->before, order[1].restore);
	}
}

/* A handler that waits itself. */
static uint64_t inner_wait, inner_after;
static long inner_ret;
static int inner_entered;

static void suspending_handler(int sig)
{
	sm_store(&inner_entered, 1);
	inner_ret = sm_sys(__NR_rt_sigsuspend, &inner_wait, SETSIZE);
	inner_after = sm_mask_now();
}

TEST_F(signal, suspend_nested)
{
	const uint64_t outer_wait = sm_bit(SIGUSR2) | sm_bit(RT(4));
	struct sm_waiter *w = self->w;

	signal(SIGUSR1, suspending_handler);
	sm_handle(SIGUSR2, 0);
	inner_wait = sm_bit(SIGUSR1) | sm_bit(RT(5));
	inner_entered = 0;
	ASSERT_TRUE(suspend_start(self, sm_bit(SIGUSR1) | sm_bit(SIGUSR2) | sm_bit(RT(3)),
				  outer_wait));
	sm_rebase(&self->env);
	self->env.base.parked -= self->env.parked;
	sm_signal(w, SIGUSR1);
	ASSERT_TRUE(sm_wait_until(sm_load(&inner_entered)));
	ASSERT_TRUE(sm_asleep(&self->env, w, 1));
	EXPECT_EQ(inner_wait, sm_mask_of(getpid(), w->tid));
	EXPECT_EQ(0, sm_handled);
	SM_EXPECT_INTERRUPTED(w, SIGUSR2);
	EXPECT_EQ(-EINTR, inner_ret);
	EXPECT_EQ(1, sm_handled);
	EXPECT_EQ(inner_wait | sm_bit(SIGUSR2), sm_mask_in_handler);
	EXPECT_EQ(outer_wait | sm_bit(SIGUSR1), sm_mask_to_restore);
	EXPECT_EQ(outer_wait | sm_bit(SIGUSR1), inner_after);
	EXPECT_EQ(self->m->before, self->m->after);
}

TEST_F(signal, suspend_ignored)
{
	struct sm_waiter *w = self->w;

	signal(SIGUSR2, SIG_IGN);
	sm_handle(SIGUSR1, 0);
	ASSERT_TRUE(suspend_start(self, sm_bit(SIGUSR1), 0));
	sm_signal(w, SIGUSR2);
	sm_signal(w, SIGCHLD);
	sm_signal(w, SIGCONT);
	EXPECT_STILL_ASLEEP();
	EXPECT_EQ(0, sm_mask_of(getpid(), w->tid));
	SM_EXPECT_INTERRUPTED(w, SIGUSR1);
	EXPECT_EQ(self->m->before, self->m->after);
}

TEST_F(signal, suspend_errors)
{
	uint64_t set = 0, before = sm_mask_now();

	EXPECT_EQ(-EINVAL, sm_sys(__NR_rt_sigsuspend, &set, 4));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_rt_sigsuspend, &set, 16));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_rt_sigsuspend, 0, SETSIZE));
	EXPECT_EQ(before, sm_mask_now());
}

/* ------------------------------------------------------------ sigtimedwait */

enum { BY_TGKILL, BY_KILL, BY_QUEUE, BY_TGQUEUE, NR_SENDERS };

static long send_by(int how, pid_t tid, int sig, long val)
{
	switch (how) {
	case BY_TGKILL:
		return sm_tgkill(getpid(), tid, sig);
	case BY_KILL:
		return kill(getpid(), sig);
	case BY_QUEUE:
		return queue_to(getpid(), 0, sig, val);
	default:
		return queue_to(getpid(), tid, sig, val);
	}
}

/* All threads block what is waited for. */
#define AWAITED	(sm_bit(SIGUSR1) | sm_bit(SIGTERM) | sm_bit(RT(0)) | sm_bit(RT(1)))

TEST_F(signal, timedwait_takes)
{
	static const int codes[] = { SI_TKILL, SI_USER, SI_QUEUE, SI_QUEUE };
	static const int sigs[] = { SIGUSR1, SIGTERM, RT(0), RT(1) };
	siginfo_t *info = &self->m->info;
	struct sm_waiter *w = self->w;
	int how, i;
	long val;

	sm_mask_set(AWAITED);
	for (how = 0; how < NR_SENDERS; how++) {
		for (i = 0; i < ARRAY_SIZE(sigs); i++) {
			ASSERT_TRUE(timedwait_start(self, AWAITED | sm_bit(SIGHUP), AWAITED,
						    (how + i) % 2 ? HOUR : -1));
			EXPECT_EQ(sm_bit(SIGHUP), sm_mask_of(getpid(), w->tid));
			val = 0x123456789abcdef0 + i;
			ASSERT_EQ(0, send_by(how, w->tid, sigs[i], val));
			SM_JOIN(w, sigs[i]);
			EXPECT_EQ(sigs[i], info->si_signo);
			EXPECT_EQ(0, info->si_errno);
			EXPECT_EQ(codes[how], info->si_code);
			EXPECT_EQ(getpid(), info->si_pid);
			EXPECT_EQ(getuid(), info->si_uid);
			if (how >= BY_QUEUE)
				EXPECT_EQ(val, (long)info->si_value.sival_ptr);
			EXPECT_EQ(self->m->before, self->m->after);
		}
	}
	EXPECT_EQ(0, pending_of(getpid(), "ShdPnd"));
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* Where the information goes matters only after the signal is gone. */
TEST_F(signal, timedwait_info_pointer)
{
	struct masks *m = self->m;
	struct sm_waiter *w = self->w;
	void *none = sm_no_access();
	int bad;

	ASSERT_NE(NULL, none);
	sm_mask_set(AWAITED);
	m->before = AWAITED;
	m->wait = AWAITED;
	for (bad = 0; bad < 2; bad++) {
		timedwait_set(w, m, bad ? -1 : HOUR);
		w->arg[1] = bad ? (long)none : 0;
		ASSERT_TRUE(sm_start(&self->env, w));
		ASSERT_EQ(0, send_by(bad ? BY_KILL : BY_TGKILL, w->tid, SIGUSR1, 0));
		SM_JOIN(w, bad ? -EFAULT : SIGUSR1);
		EXPECT_EQ(m->before, m->after);
		EXPECT_EQ(-EAGAIN, timedwait_now(AWAITED, NULL, 0));
	}
	munmap(none, 4096);
}

/* From another process, and of a child's end */
TEST_F(signal, timedwait_from_child)
{
	const uint64_t set = AWAITED | sm_bit(SIGCHLD);
	siginfo_t *info = &self->m->info;
	struct sm_waiter *w = self->w;
	int status;
	pid_t pid;

	sm_mask_set(set);
	ASSERT_TRUE(timedwait_start(self, set, set, -1));
	pid = SM_FORK();
	if (!pid) {
		queue_to(getppid(), 0, RT(0), 77);
		sm_disable();
		for (;;)
			pause();
	}
	SM_JOIN(w, RT(0));
	EXPECT_EQ(pid, info->si_pid);
	EXPECT_EQ(77, (long)info->si_value.sival_ptr);

	ASSERT_TRUE(timedwait_start(self, set, set, HOUR));
	kill(pid, SIGKILL);
	SM_JOIN(w, SIGCHLD);
	EXPECT_EQ(CLD_KILLED, info->si_code);
	EXPECT_EQ(pid, info->si_pid);
	EXPECT_EQ(SIGKILL, info->si_status);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
}

TEST_F(signal, timedwait_timeout)
{
	const int64_t ns[] = {
		0, 1, 1000, SM_MSEC, 15 * SM_MSEC, sm_soon_ns(), sm_soon_ns() + SM_MSEC,
	};
	struct masks *m = self->m;
	struct sm_waiter *w = self->w;
	int i;

	sm_mask_set(AWAITED);
	m->before = AWAITED;
	m->wait = AWAITED;
	sm_rebase(&self->env);
	for (i = 0; i < ARRAY_SIZE(ns); i++) {
		timedwait_set(w, m, ns[i]);
		sm_waiter_fn(w);
		EXPECT_EQ(-EAGAIN, w->ret);
		SM_EXPECT_TOOK(w, ns[i]);
		EXPECT_EQ(m->before, m->after);
		EXPECT_EQ(0x55555555, m->info.si_signo);
	}
	SM_EXPECT_PARKS(&self->env, 2);

	/* Already there: no time-out, even of 0 */
	for (i = 0; i < ARRAY_SIZE(ns); i++) {
		kill(getpid(), SIGUSR1);
		EXPECT_EQ(SIGUSR1, timedwait_now(AWAITED, NULL, ns[i]));
	}
}

TEST_F(signal, timedwait_errors)
{
	static const struct timespec bad[] = { { 0, 1000000000 }, { 0, -1 }, { -1, 0 } };
	uint64_t set = AWAITED, before;
	int i;

	sm_mask_set(AWAITED);
	before = sm_mask_now();
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, sm_sys(__NR_rt_sigtimedwait, &set, 0, &bad[i], SETSIZE));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_rt_sigtimedwait, &set, 0, 0, 4));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_rt_sigtimedwait, 0, 0, 0, SETSIZE));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_rt_sigtimedwait, &set, 0, -4096, SETSIZE));
	EXPECT_EQ(before, sm_mask_now());
}

/* Another signal's handler ends the wait, and sees the mask of before. */
TEST_F(signal, timedwait_interrupted)
{
	struct masks *m = self->m;
	struct sm_waiter *w = self->w;
	int i;

	signal(SIGUSR2, SIG_IGN);
	for (i = 0; i < 4; i++) {
		sm_handle(SIGALRM, sa_flags[i % 2]);
		ASSERT_TRUE(timedwait_start(self, AWAITED | sm_bit(SIGHUP), AWAITED,
					    i / 2 ? HOUR : -1));
		/* These have no handler. */
		sm_signal(w, SIGUSR2);
		sm_signal(w, SIGCHLD);
		sm_signal(w, SIGHUP);
		EXPECT_STILL_ASLEEP();

		SM_EXPECT_INTERRUPTED(w, SIGALRM);
		EXPECT_EQ(1, sm_handled);
		EXPECT_EQ(m->before | sm_bit(SIGALRM), sm_mask_in_handler);
		EXPECT_EQ(m->before, sm_mask_to_restore);
		EXPECT_EQ(m->before, m->after);
		EXPECT_EQ(0x55555555, m->info.si_signo);
	}
}

/* Waited for though handled and not blocked: taken, no handler runs. */
TEST_F(signal, timedwait_handled)
{
	sm_handle(SIGUSR1, 0);
	ASSERT_TRUE(timedwait_start(self, 0, sm_bit(SIGUSR1), HOUR));
	sm_signal(self->w, SIGUSR1);
	SM_JOIN(self->w, SIGUSR1);
	EXPECT_EQ(0, sm_handled);
	EXPECT_EQ(0, self->m->after);
}

/* Ignored ones, too, if they are blocked. */
TEST_F(signal, timedwait_ignored)
{
	sm_mask_set(AWAITED);
	signal(SIGUSR1, SIG_IGN);
	ASSERT_TRUE(timedwait_start(self, AWAITED, AWAITED, HOUR));
	sm_signal(self->w, SIGUSR1);
	SM_JOIN(self->w, SIGUSR1);
}

/*
 * A signal to the process may wake others than the one that takes it; they
 * find nothing and return -EINTR.
 */
static void *patient_fn(void *arg)
{
	struct sm_waiter *w = arg;

	sm_store(&w->tid, sm_gettid());
	set_mask(w);
	sm_store(&w->entered, 1);
	do {
		w->ret = sm_sys(w->nr, w->arg[0], w->arg[1], w->arg[2], w->arg[3]);
	} while (w->ret == -EINTR);
	note_mask(w);
	sm_store(&w->done, 1);
	return NULL;
}

/* A signal to the process is taken by one of those that wait, no more. */
TEST_F(signal, one_of_many)
{
	struct masks *m = self->m;
	int i, n;

	sm_mask_set(AWAITED);
	sm_rebase(&self->env);
	for (i = 0; i < NW; i++) {
		m[i] = (struct masks){ .before = AWAITED, .wait = AWAITED };
		timedwait_set(&self->w[i], &m[i], i % 2 ? HOUR : -1);
		ASSERT_EQ(0, sm_thread(&self->w[i].thread, patient_fn, &self->w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, NW));
	for (n = 1; n <= NW; n++) {
		ASSERT_EQ(0, queue_to(getpid(), 0, n % 2 ? SIGUSR1 : RT(0), n));
		SM_ASSERT_DONE(self->w, NW, n);
	}
	for (i = 0, n = 0; i < NW; i++) {
		ASSERT_TRUE(sm_waiter_join(&self->w[i]));
		EXPECT_EQ(m[i].info.si_signo, self->w[i].ret);
		EXPECT_EQ(AWAITED, m[i].after);
		n |= 1 << (long)m[i].info.si_value.sival_ptr;
	}
	EXPECT_EQ((1 << (NW + 1)) - 2, n);
	EXPECT_EQ(0, pending_of(getpid(), "ShdPnd"));
}

/* A signal to a thread is taken by that one. */
TEST_F(signal, chosen_one)
{
	int i, k;

	sm_mask_set(AWAITED);
	for (i = 0; i < NW; i++) {
		self->m[i] = (struct masks){ .before = AWAITED, .wait = AWAITED };
		timedwait_set(&self->w[i], &self->m[i], HOUR);
	}
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	for (i = 0; i < NW; i++) {
		k = (i * 5 + 3) % NW;
		ASSERT_EQ(0, send_by(i % 2 ? BY_TGKILL : BY_TGQUEUE, self->w[k].tid,
				     i % 2 ? SIGUSR1 : RT(1), k));
		SM_JOIN(&self->w[k], i % 2 ? SIGUSR1 : RT(1));
		EXPECT_EQ(self->w[k].ret, self->m[k].info.si_signo);
		SM_ASSERT_DONE(self->w, NW, i + 1);
	}
}

/* Waits for different signals do not take each other's. */
TEST_F(signal, disjoint_sets)
{
	const uint64_t all = ((1ULL << NW) - 1) << (RT(0) - 1);
	int i, k;

	sm_mask_set(all);
	for (i = 0; i < NW; i++) {
		self->m[i] = (struct masks){ .before = all, .wait = sm_bit(RT(i)) };
		timedwait_set(&self->w[i], &self->m[i], i % 2 ? HOUR : -1);
	}
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	for (i = 0; i < NW; i++) {
		k = (i * 3 + 1) % NW;
		ASSERT_EQ(0, queue_to(getpid(), 0, RT(k), k));
		SM_JOIN(&self->w[k], RT(k));
		EXPECT_EQ(k, (long)self->m[k].info.si_value.sival_ptr);
		SM_ASSERT_DONE(self->w, NW, i + 1);
	}
}

/* ------------------------------------------- stop, continue, end, all calls */

/* Two of each call */
struct waits {
	struct sm_child c;
	struct masks m[6];
};

static void child_setup(struct sm_child *c)
{
	sm_mask_set(0);
	sm_handle(SIGUSR2, 0);
}

static struct waits *waits_alloc(void)
{
	struct waits *s = sm_shared_alloc(sizeof(*s));
	int i;

	if (!s)
		return NULL;
	s->c.nr = 6;
	s->c.setup = child_setup;
	for (i = 0; i < 6; i++) {
		s->m[i].before = AWAITED;
		s->m[i].wait = i < 4 ? sm_bit(SIGHUP) : AWAITED;
		with_masks(&s->c.w[i], &s->m[i]);
	}
	for (i = 0; i < 2; i++) {
		sm_call(&s->c.w[i], __NR_pause);
		suspend_set(&s->c.w[2 + i], &s->m[2 + i]);
		timedwait_set(&s->c.w[4 + i], &s->m[4 + i], i ? HOUR : -1);
	}
	return s;
}

TEST_F(signal, stop_continue)
{
	struct waits *s = waits_alloc();
	int i, stops;

	ASSERT_NE(NULL, s);
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	for (stops = 0; stops < 3; stops++) {
		ASSERT_TRUE(sm_child_stop(&s->c));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(0, sm_load(&s->c.w[i].done));
		ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
		/* Only sigtimedwait() tells of it. */
		for (i = 4; i < 6; i++) {
			SM_CHILD_RETURNS(-EINTR, &s->c, i);
			EXPECT_EQ(s->m[i].before, s->m[i].after);
		}
		/* And the two threads have gone, but for the first. */
		s->c.nr = 4;
		ASSERT_TRUE(sm_wait_parked(&self->env, 4));
		ASSERT_TRUE(sm_wait_asleep(&self->env, s->c.pid, s->c.w, 4));
		for (i = 0; i < 4; i++) {
			EXPECT_EQ(0, s->c.w[i].done);
			EXPECT_EQ(i < 2 ? s->m[i].before : s->m[i].wait,
				  sm_mask_of(s->c.pid, s->c.w[i].tid));
		}
	}
	for (i = 3; i >= 0; i--) {
		sm_child_signal(&s->c, i, SIGUSR2);
		SM_CHILD_RETURNS(-EINTR, &s->c, i);
		EXPECT_EQ(s->m[i].before, s->m[i].after);
	}
	EXPECT_EQ(0, sm_child_wait(&s->c));
}

TEST_F(signal, ends_with_process)
{
	struct waits *s = waits_alloc();
	int i;

	ASSERT_NE(NULL, s);
	sm_child_ends(_metadata, &self->env, &s->c, SIGUSR2);

	/* By a signal that the waits let in, to the process, to each thread */
	for (i = -1; i < s->c.nr; i++) {
		ASSERT_TRUE(sm_child_start(&self->env, &s->c));
		if (i < 0)
			kill(s->c.pid, SIGPIPE);
		else
			sm_child_signal(&s->c, i, SIGPIPE);
		EXPECT_TRUE(sm_killed_by(sm_child_wait(&s->c), SIGPIPE));
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* ------------------------------------------------------------------- races */

#define NTAKERS		4
#define NSENDERS	2
#define NOISE		SIGALRM

struct books {
	uint8_t *seen;		/* how often each value was taken */
	long total;
	long next;		/* value to be sent next */
	long taken;
	int stop;
	long bad;
	struct taker {
		struct books *b;
		pthread_t thread;
		pid_t tid;
		uint64_t seed;
		long taken, eintr, again;
	} taker[NTAKERS];
	pthread_t sender[NSENDERS];
};

static const uint64_t queue_set = 15ULL << (RT(0) - 1);

static void *taker_fn(void *arg)
{
	struct taker *t = arg;
	struct books *b = t->b;
	siginfo_t info;
	long ret, val;

	sm_store(&t->tid, sm_gettid());
	while (!sm_load(&b->stop)) {
		ret = timedwait_now(queue_set | sm_bit(RT(9)), &info,
				    sm_rnd(&t->seed) % 3 ?
				    sm_rnd_timeout(&t->seed) : -1);
		if (sm_mask_now() != (queue_set | sm_bit(RT(9))))
			sm_store(&b->bad, -ESRCH);
		if (ret == -EAGAIN) {
			t->again++;
			continue;
		}
		if (ret == -EINTR) {
			t->eintr++;
			continue;
		}
		if (ret == RT(9))
			continue;
		val = (long)info.si_value.sival_ptr;
		if (ret != info.si_signo || ret < RT(0) || ret > RT(3) ||
		    val < 0 || val >= b->total) {
			sm_store(&b->bad, ret);
			continue;
		}
		t->taken++;
		__atomic_add_fetch(&b->seen[val], 1, __ATOMIC_SEQ_CST);
		sm_add(&b->taken, 1);
	}
	return NULL;
}

static void *sender_fn(void *arg)
{
	struct books *b = arg;
	uint64_t seed = 99 + sm_gettid();
	long val, ret;
	pid_t tid;

	for (;;) {
		val = sm_add(&b->next, 1) - 1;
		if (val >= b->total)
			return NULL;
		do {
			tid = sm_rnd(&seed) % 3 ? 0 :
				b->taker[sm_rnd(&seed) % NTAKERS].tid;
			ret = queue_to(getpid(), tid, RT(0) + sm_rnd(&seed) % 4, val);
			if (ret == -EAGAIN)
				sched_yield();
		} while (ret == -EAGAIN && !sm_load(&b->bad));
		if (ret && ret != -EAGAIN)
			sm_store(&b->bad, ret);
		/* Now and then let them go to sleep. */
		if (sm_rnd(&seed) % 16 == 0)
			sm_sleep_ns(sm_rnd(&seed) % 1000000);
	}
}

/*
 * Queued signals, to the process and to threads, with time-outs and handlers
 * at the same time: each one is taken, by one.
 */
TEST_F_TIMEOUT(signal, race_queue, 120)
{
	long i, taken = 0, eintr = 0, again = 0, twice = 0;
	struct books *b = calloc(1, sizeof(*b));
	struct sm_pace pace = { 0 };
	uint64_t seed = 31415;

	ASSERT_NE(NULL, b);
	b->total = sm_rounds(self->env.parked ? 4000 : 1500);
	b->seen = calloc(b->total, 1);
	ASSERT_NE(NULL, b->seen);
	sm_handle(NOISE, 0);
	sm_mask_set(queue_set | sm_bit(RT(9)));
	for (i = 0; i < NTAKERS; i++) {
		b->taker[i].b = b;
		b->taker[i].seed = 271828 + i;
		ASSERT_EQ(0, sm_thread(&b->taker[i].thread, taker_fn, &b->taker[i]));
		ASSERT_TRUE(sm_wait_until(sm_load(&b->taker[i].tid)));
	}
	for (i = 0; i < NSENDERS; i++)
		ASSERT_EQ(0, sm_thread(&b->sender[i], sender_fn, b));
	while (sm_load(&b->taken) < b->total) {
		ASSERT_EQ(0, sm_load(&b->bad));
		ASSERT_FALSE(sm_stuck(&pace, sm_load(&b->taken))) {
			TH_LOG("taken %ld of %ld", b->taken, b->total);
		}
		sm_tgkill(getpid(), b->taker[sm_rnd(&seed) % NTAKERS].tid, NOISE);
		sm_sleep_ns(sm_rnd(&seed) % 1000000);
	}
	for (i = 0; i < NSENDERS; i++)
		pthread_join(b->sender[i], NULL);
	sm_store(&b->stop, 1);
	for (i = 0; i < NTAKERS; i++) {
		queue_to(getpid(), b->taker[i].tid, RT(9), 0);
		pthread_join(b->taker[i].thread, NULL);
		taken += b->taker[i].taken;
		eintr += b->taker[i].eintr;
		again += b->taker[i].again;
	}
	for (i = 0; i < b->total; i++)
		twice += b->seen[i] != 1;
	EXPECT_EQ(0, twice);
	EXPECT_EQ(b->total, taken);
	EXPECT_EQ(0, b->bad);
	EXPECT_EQ(0, pending_of(getpid(), "ShdPnd"));
	EXPECT_GT(eintr + again, 0);
	SM_EXPECT_PARKS(&self->env, 100);
	SM_EXPECT_NONE_PARKED(&self->env);
	free(b->seen);
	free(b);
}

/* Two that wake each other by signals, as in old programs. */
static __thread long my_signals;

static void count_mine(int sig)
{
	sm_store(&my_signals, my_signals + 1);
}

/* The first of a pair begins. All of them block SIGUSR1. */
static long take_turn(struct sm_runner *r, long i)
{
	struct sm_runner *peer = r->nr % 2 ? r - 1 : r + 1;
	const uint64_t block = sm_bit(SIGUSR1), none = 0;
	const bool first = r->nr % 2 == 0;
	long ret;

	while (!sm_load(&peer->tid))
		sched_yield();
	if (first && i == 1)
		sm_tgkill(getpid(), peer->tid, SIGUSR1);
	if (r->nr / 2 == 0) {
		ret = sm_sys(__NR_rt_sigsuspend, &none, SETSIZE);
		if (ret != -EINTR || sm_load(&my_signals) != i || sm_mask_now() != block)
			return ret ? ret : -EBADMSG;
	} else {
		ret = timedwait_now(block, NULL, r->nr / 2 == 1 ? -1 : HOUR);
		if (ret != SIGUSR1)
			return ret ? ret : -EBADMSG;
	}
	if (!first || i < r->rounds)
		sm_tgkill(getpid(), peer->tid, SIGUSR1);
	return 0;
}

TEST_F_TIMEOUT(signal, race_ping_pong, 60)
{
	struct sm_runner r[6];
	int i;

	signal(SIGUSR1, count_mine);
	sm_mask_set(sm_bit(SIGUSR1));
	for (i = 0; i < 6; i++)
		r[i] = (struct sm_runner) {
			.nr = i, .round = take_turn,
			.rounds = sm_rounds(self->env.parked ? 4000 : 1000),
		};
	sm_run(_metadata, r, 6, NULL);
	SM_EXPECT_PARKS(&self->env, 20);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/*
 * A signal comes to the process just as one of those who wait for it gives
 * up: it is for the others then, and does not get lost.
 */
TEST_F_TIMEOUT(signal, race_timeout, 60)
{
	struct masks *m = self->m;
	long i, n, taken, rounds = sm_rounds(self->env.parked ? 500 : 150);
	uint64_t seed = 161803;
	siginfo_t info;

	sm_mask_set(AWAITED);
	for (n = 0; n < rounds; n++) {
		for (i = 0; i < 3; i++) {
			m[i] = (struct masks){ .before = AWAITED, .wait = AWAITED };
			timedwait_set(&self->w[i], &m[i], 100000 + sm_rnd(&seed) % 200000);
			ASSERT_EQ(0, sm_waiter_run(&self->w[i]));
		}
		sm_sleep_ns(sm_rnd(&seed) % 300000);
		ASSERT_EQ(0, queue_to(getpid(), 0, RT(0), n));
		for (i = 0; i < 3; i++)
			ASSERT_TRUE(sm_waiter_join(&self->w[i]));
		for (i = 0, taken = 0; i < 3; i++) {
			if (self->w[i].ret == RT(0)) {
				taken++;
				EXPECT_EQ(n, (long)m[i].info.si_value.sival_ptr);
			} else if (self->w[i].ret != -EINTR) {
				EXPECT_EQ(-EAGAIN, self->w[i].ret);
			}
			EXPECT_EQ(AWAITED, m[i].after);
		}
		if (!taken) {
			/* Too late for all of them: it has to be there. */
			ASSERT_EQ(RT(0), timedwait_now(AWAITED, &info, 0));
			EXPECT_EQ(n, (long)info.si_value.sival_ptr);
			continue;
		}
		EXPECT_EQ(1, taken);
		ASSERT_EQ(-EAGAIN, timedwait_now(AWAITED, NULL, 0));
	}
	SM_EXPECT_PARKS(&self->env, 20);
}

SM_MAIN(sm_rounds_factor());
