// SPDX-License-Identifier: GPL-2.0
/*
 * nanosleep() and clock_nanosleep(), in a process that parks and in one that
 * does not: never early, what remains when a signal comes, how a sleep goes on
 * after a stop.
 */
#include "scenario.h"
#include "child.h"

#ifndef CLOCK_TAI
#define CLOCK_TAI	11
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME	0x80
#endif

#define HOUR		(3600 * SM_SEC)
/* Slack of ordinary threads; the remaining time includes it. */
#define SLACK		50000LL

/* The ways to sleep. */
static const struct form {
	const char *name;
	clockid_t clock;
	bool absolute;
	bool nanosleep;
} forms[] = {
	{ "nanosleep", CLOCK_MONOTONIC, .nanosleep = true },
	{ "monotonic", CLOCK_MONOTONIC },
	{ "real time", CLOCK_REALTIME },
	{ "boot time", CLOCK_BOOTTIME },
	{ "TAI", CLOCK_TAI },
	{ "monotonic, absolute", CLOCK_MONOTONIC, true },
	{ "real time, absolute", CLOCK_REALTIME, true },
	{ "boot time, absolute", CLOCK_BOOTTIME, true },
	{ "TAI, absolute", CLOCK_TAI, true },
};

#define NR_FORMS	((int)ARRAY_SIZE(forms))
#define FIRST_ABSOLUTE	5

/* One sleep. What the kernel writes, or must not write, is here. */
struct nap {
	const struct form *form;
	struct timespec req, rem;
	int64_t ns;		/* how long */
	int64_t until;		/* deadline in its clock */
};

FIXTURE(sleep) {
	struct sm_env env;
	struct sm_waiter w[NR_FORMS];
	struct nap n[NR_FORMS];
	int64_t clock_set;	/* by how much the real-time clock was moved */
};

SM_VARIANTS(sleep);

FIXTURE_SETUP(sleep)
{
	sm_setup(_metadata, &self->env, variant->parked);
}

FIXTURE_TEARDOWN(sleep)
{
	struct timespec ts;

	if (self->clock_set) {
		ts = sm_ts(sm_clock_ns(CLOCK_REALTIME) - self->clock_set);
		clock_settime(CLOCK_REALTIME, &ts);
	}
}

static const struct timespec untouched = { -77, -88 };

static bool same(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool rem_untouched(const struct nap *n)
{
	return same(&n->rem, &untouched);
}

static int64_t ts_ns(const struct timespec *ts)
{
	return ts->tv_sec * SM_SEC + ts->tv_nsec;
}

/* @w is to sleep for @ns. */
static void nap_set(struct nap *n, struct sm_waiter *w, const struct form *f, int64_t ns)
{
	n->form = f;
	n->ns = ns;
	n->until = sm_clock_ns(f->clock) + ns;
	n->req = sm_ts(f->absolute ? n->until : ns);
	n->rem = untouched;
	if (f->nanosleep)
		sm_call(w, __NR_nanosleep, &n->req, &n->rem);
	else
		sm_call(w, __NR_clock_nanosleep, f->clock, f->absolute ? TIMER_ABSTIME : 0,
			&n->req, &n->rem);
	w->data = n;
}

/* Where the pointer to the remaining time is among the arguments. */
static int rem_arg(const struct form *f)
{
	return f->nanosleep ? 1 : 3;
}

/* In the calling thread. */
static long nap_now(struct sm_waiter *w)
{
	sm_waiter_fn(w);
	return w->ret;
}

/* Has it come back too early? To be asked at once. */
static bool early(const struct nap *n, const struct sm_waiter *w)
{
	if (n->form->absolute)
		return sm_clock_ns(n->form->clock) < n->until;
	return sm_waiter_ns(w) < n->ns;
}

/* All forms at the same time */
static bool naps_start(FIXTURE_DATA(sleep) *self, int64_t ns)
{
	int f;

	for (f = 0; f < NR_FORMS; f++)
		nap_set(&self->n[f], &self->w[f], &forms[f], ns);
	return sm_start_all(&self->env, self->w, NR_FORMS);
}

#define for_each_form(f)	for ((f) = forms; (f) < forms + NR_FORMS; (f)++)

static long raw_sleep(clockid_t clock, int flags, const void *req, void *rem)
{
	return sm_sys(__NR_clock_nanosleep, clock, flags, req, rem);
}

TEST_F(sleep, never_early)
{
	const int64_t ns[] = {
		1, 1000, 50 * 1000, SM_MSEC, 20 * SM_MSEC, sm_soon_ns(), sm_soon_ns() + SM_MSEC,
	};
	struct sm_waiter *w = self->w;
	struct nap *n = self->n;
	const struct form *f;
	int i;

	for_each_form(f) {
		sm_rebase(&self->env);
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			nap_set(n, w, f, ns[i]);
			EXPECT_EQ(0, nap_now(w));
			EXPECT_FALSE(early(n, w));
			EXPECT_LT(sm_waiter_ns(w), ns[i] + sm_late_ns()) {
				TH_LOG("%s", f->name);
			}
			EXPECT_TRUE(rem_untouched(n));
		}
		/* Nobody else sleeps here: these are the naps'. */
		SM_EXPECT_PARKS(&self->env, 2);
	}
}

TEST_F(sleep, at_once)
{
	struct sm_waiter *w = self->w;
	const struct form *f;
	int64_t past[4];
	int i;

	for_each_form(f) {
		past[0] = 0;
		past[1] = 1;
		past[2] = sm_clock_ns(f->clock) - 1000;
		past[3] = sm_clock_ns(f->clock) - SM_SEC;
		for (i = 0; i < (f->absolute ? 4 : 1); i++) {
			nap_set(self->n, w, f, 0);
			self->n->req = sm_ts(past[i]);
			EXPECT_EQ(0, nap_now(w));
			EXPECT_LT(sm_waiter_ns(w), sm_late_ns());
			EXPECT_TRUE(rem_untouched(self->n));
		}
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

TEST_F(sleep, errors)
{
	static const struct timespec bad[] = {
		{ 0, 1000000000 }, { 0, -1 }, { -1, 0 }, { -1, 999999999 },
		{ 0, LONG_MAX }, { LONG_MIN, 0 },
	};
	static const clockid_t no_sleep[] = {
		CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
		CLOCK_MONOTONIC_COARSE, CLOCK_THREAD_CPUTIME_ID,
	};
	static const clockid_t no_clock[] = { 10, 12, 99, -1 };
	struct timespec ts = sm_ts(SM_MSEC);
	void *none = sm_no_access();
	const long bad_req[] = { 0, (long)none, -4096 };
	struct sm_waiter *w = self->w;
	const struct form *f;
	int i;

	ASSERT_NE(NULL, none);
	for_each_form(f) {
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			nap_set(self->n, w, f, 0);
			self->n->req = bad[i];
			EXPECT_EQ(-EINVAL, nap_now(w));
			EXPECT_TRUE(rem_untouched(self->n));
		}
		for (i = 0; i < ARRAY_SIZE(bad_req); i++) {
			nap_set(self->n, w, f, SM_MSEC);
			w->arg[rem_arg(f) - 1] = bad_req[i];
			EXPECT_EQ(-EFAULT, nap_now(w));
		}
		/* Nobody looks at this pointer unless a signal comes. */
		nap_set(self->n, w, f, 3 * SM_MSEC);
		w->arg[rem_arg(f)] = (long)none;
		EXPECT_EQ(0, nap_now(w));
	}
	for (i = 0; i < ARRAY_SIZE(no_sleep); i++)
		EXPECT_EQ(-EOPNOTSUPP, raw_sleep(no_sleep[i], 0, &ts, NULL));
	for (i = 0; i < ARRAY_SIZE(no_clock); i++)
		EXPECT_EQ(-EINVAL, raw_sleep(no_clock[i], 0, &ts, NULL));
	/* Other flags mean nothing. */
	EXPECT_EQ(0, raw_sleep(CLOCK_MONOTONIC, ~TIMER_ABSTIME, &ts, NULL));
	munmap(none, 4096);
}

/* The latest deadlines there are, and still they end. */
TEST_F(sleep, far_future)
{
	static const int64_t sec[] = { 1000000000, INT64_MAX / SM_SEC, INT64_MAX };
	const struct form *f;
	int i;

	sm_handle(SIGUSR1, 0);
	for_each_form(f) {
		for (i = 0; i < ARRAY_SIZE(sec); i++) {
			nap_set(self->n, self->w, f, HOUR);
			self->n->req = (struct timespec){ sec[i], 999999999 };
			if (f->absolute && !i)
				self->n->req.tv_sec += sm_clock_ns(f->clock) / SM_SEC;
			ASSERT_TRUE(sm_start(&self->env, self->w));
			SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		}
	}
}

/*
 * A handled signal ends a sleep, whatever SA_RESTART says. Relative ones tell
 * what remains; absolute ones need not.
 */
TEST_F(sleep, interrupted)
{
	static const int sa_flags[] = { 0, SA_RESTART };
	struct sm_waiter *w = self->w;
	struct nap *n = self->n;
	const struct form *f;
	int64_t asleep, sent;
	int i;

	for_each_form(f) {
		for (i = 0; i < ARRAY_SIZE(sa_flags); i++) {
			sm_handle(SIGUSR1, sa_flags[i]);
			nap_set(n, w, f, HOUR);
			ASSERT_TRUE(sm_start(&self->env, w));
			asleep = sm_now_ns();
			sm_sleep_ms(20);
			sent = sm_now_ns();
			SM_EXPECT_INTERRUPTED(w, SIGUSR1);
			EXPECT_EQ(1, sm_handled);
			if (f->absolute) {
				EXPECT_TRUE(rem_untouched(n));
				continue;
			}
			EXPECT_GE(ts_ns(&n->rem), HOUR - sm_waiter_ns(w)) {
				TH_LOG("%s", f->name);
			}
			EXPECT_LE(ts_ns(&n->rem), HOUR + SLACK - (sent - asleep)) {
				TH_LOG("%s", f->name);
			}
			EXPECT_GE(n->rem.tv_nsec, 0);
			EXPECT_LT(n->rem.tv_nsec, SM_SEC);
		}
	}
}

TEST_F(sleep, interrupted_rem_pointer)
{
	void *none = sm_no_access();
	struct nap *n = self->n;
	/* The last is that of the time to sleep, as in a loop that sleeps on. */
	const long rem[] = { 0, (long)none, (long)&n->req };
	struct sm_waiter *w = self->w;
	const struct form *f;
	int i;

	ASSERT_NE(NULL, none);
	sm_handle(SIGUSR1, 0);
	for_each_form(f) {
		for (i = 0; i < ARRAY_SIZE(rem); i++) {
			nap_set(n, w, f, HOUR);
			w->arg[rem_arg(f)] = rem[i];
			ASSERT_TRUE(sm_start(&self->env, w));
			sm_signal(w, SIGUSR1);
			SM_JOIN(w, i == 1 && !f->absolute ? -EFAULT : -EINTR);
		}
		if (f->absolute) {
			EXPECT_EQ(n->until, ts_ns(&n->req));
		} else {
			EXPECT_LT(ts_ns(&n->req), HOUR + SLACK);
			EXPECT_GE(ts_ns(&n->req), HOUR - sm_waiter_ns(w));
		}
	}
	munmap(none, 4096);
}

/* Signals that nobody handles do not end a sleep. */
TEST_F(sleep, ignored_signals)
{
	static const int sigs[] = { SIGUSR2, SIGCHLD, SIGWINCH, SIGCONT };
	struct sm_waiter *w = self->w;
	int f, i;

	signal(SIGUSR2, SIG_IGN);
	sm_handle(SIGUSR1, 0);
	ASSERT_TRUE(naps_start(self, HOUR));
	for (f = 0; f < NR_FORMS; f++)
		for (i = 0; i < ARRAY_SIZE(sigs); i++)
			sm_signal(&w[f], sigs[i]);
	SM_EXPECT_WAITS(w, NR_FORMS);
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));
	for (f = 0; f < NR_FORMS; f++) {
		EXPECT_TRUE(rem_untouched(&self->n[f]));
		SM_EXPECT_INTERRUPTED(&w[f], SIGUSR1);
	}
}

/* ---------------------------------------------------------- stop, continue */

struct naps {
	struct sm_child c;
	struct nap n[SM_CHILD_MAX];
};

static void handle_usr1(struct sm_child *c)
{
	sm_handle(SIGUSR1, 0);
}

static void set_slack(struct sm_waiter *w)
{
	prctl(PR_SET_TIMERSLACK, 1000 * SM_SEC);
}

static struct naps *naps_alloc(int64_t ns)
{
	struct naps *s = sm_shared_alloc(sizeof(*s));
	int i;

	if (!s)
		return NULL;
	s->c.nr = NR_FORMS;
	s->c.setup = handle_usr1;
	for (i = 0; i < NR_FORMS; i++)
		nap_set(&s->n[i], &s->c.w[i], &forms[i], ns);
	return s;
}

/*
 * Several stops in a row, then a signal: what remains is counted from the very
 * beginning, without the detours.
 */
TEST_F(sleep, stops_then_signal)
{
	struct naps *s = naps_alloc(HOUR);
	int64_t asleep, sent, slack, rem;
	int i;

	ASSERT_NE(NULL, s);
	/* Another one, with a remarkable slack */
	s->c.nr++;
	nap_set(&s->n[NR_FORMS], &s->c.w[NR_FORMS], &forms[1], HOUR);
	s->c.w[NR_FORMS].before = set_slack;

	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	asleep = sm_now_ns();
	for (i = 0; i < 4; i++) {
		ASSERT_TRUE(sm_child_stop(&s->c));
		sm_sleep_ms(20);
		ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
		ASSERT_TRUE(sm_child_asleep(&self->env, &s->c));
	}
	for (i = s->c.nr - 1; i >= 0; i--) {
		sent = sm_now_ns();
		ASSERT_EQ(0, sm_child_signal(&s->c, i, SIGUSR1));
		SM_CHILD_RETURNS(-EINTR, &s->c, i);
		if (s->n[i].form->absolute) {
			EXPECT_TRUE(rem_untouched(&s->n[i]));
			continue;
		}
		slack = i == NR_FORMS ? 1000 * SM_SEC : SLACK;
		rem = ts_ns(&s->n[i].rem);
		EXPECT_GE(rem, HOUR + (i == NR_FORMS ? slack : 0) - sm_waiter_ns(&s->c.w[i])) {
			TH_LOG("sleep %d", i);
		}
		EXPECT_LE(rem, HOUR + slack - (sent - asleep)) {
			TH_LOG("sleep %d", i);
		}
	}
	EXPECT_EQ(0, sm_child_wait(&s->c));
}

/* Stopped and continued, it ends with 0 when it always was to end. */
TEST_F(sleep, stop_then_end)
{
	const int64_t ns = 1200 * SM_MSEC * sm_slow();
	struct naps *s = naps_alloc(ns);
	int i, stops = 0;

	ASSERT_NE(NULL, s);
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	do {
		ASSERT_TRUE(sm_child_stop(&s->c));
		ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
		sm_sleep_ms(30);
		stops++;
	} while (sm_now_ns() - s->c.w[0].start_ns < ns / 2);
	EXPECT_EQ(0, sm_child_wait(&s->c));
	for (i = 0; i < s->c.nr; i++) {
		EXPECT_EQ(0, s->c.w[i].ret);
		/* The deadlines of absolute ones are slightly older. */
		EXPECT_GE(sm_waiter_ns(&s->c.w[i]), s->n[i].form->absolute ? ns / 4 : ns);
		EXPECT_LT(sm_waiter_ns(&s->c.w[i]), ns + sm_late_ns());
	}
	EXPECT_GE(stops, 1);
}

/* The deadline passes while it is stopped. */
TEST_F(sleep, stopped_over_deadline)
{
	const int64_t ns = 400 * SM_MSEC * sm_slow();
	struct naps *s = naps_alloc(ns);
	int64_t cont;
	int i;

	ASSERT_NE(NULL, s);
	ASSERT_EQ(0, sm_child_run(&s->c));
	for (i = 0; i < s->c.nr; i++)
		ASSERT_TRUE(sm_wait_until(sm_load(&s->c.w[i].entered)));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	ASSERT_TRUE(sm_child_stop(&s->c));
	for (i = 0; i < s->c.nr; i++)
		sm_wait_until(sm_now_ns() > s->c.w[i].start_ns + ns + SLACK);
	cont = sm_now_ns();
	ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
	EXPECT_EQ(0, sm_child_wait(&s->c));
	for (i = 0; i < s->c.nr; i++) {
		EXPECT_EQ(0, s->c.w[i].ret);
		EXPECT_LT(s->c.w[i].end_ns, cont + sm_late_ns());
	}
}

/* Already the stop writes what remains, though the sleep then goes on. */
TEST_F(sleep, stop_writes_rem)
{
	struct naps *s = naps_alloc(HOUR);
	void *none = sm_no_access();
	int i;

	ASSERT_NE(NULL, none);
	ASSERT_NE(NULL, s);
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	ASSERT_TRUE(sm_child_stop(&s->c));
	for (i = 0; i < s->c.nr; i++)
		EXPECT_EQ(s->n[i].form->absolute, rem_untouched(&s->n[i]));
	kill(s->c.pid, SIGKILL);
	EXPECT_TRUE(WIFSIGNALED(sm_child_wait(&s->c)));

	/* If that is not possible it does not go on. */
	for (i = 0; i < s->c.nr; i++)
		s->c.w[i].arg[rem_arg(s->n[i].form)] = (long)none;
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	ASSERT_TRUE(sm_child_stop(&s->c));
	ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
	for (i = 0; i < s->c.nr; i++) {
		if (!s->n[i].form->absolute)
			SM_CHILD_RETURNS(-EFAULT, &s->c, i);
	}
	for (i = FIRST_ABSOLUTE; i < s->c.nr; i++) {
		/* Not on its way back into the call, where the signal would do nothing */
		ASSERT_TRUE(sm_wait_until(sm_waiter_asleep(s->c.pid, &s->c.w[i])));
		ASSERT_EQ(0, sm_load(&s->c.w[i].done));
		ASSERT_EQ(0, sm_child_signal(&s->c, i, SIGUSR1));
		SM_CHILD_RETURNS(-EINTR, &s->c, i);
	}
	EXPECT_EQ(0, sm_child_wait(&s->c));
	munmap(none, 4096);
}

TEST_F(sleep, ends_with_process)
{
	struct naps *s = naps_alloc(HOUR);

	ASSERT_NE(NULL, s);
	sm_child_ends(_metadata, &self->env, &s->c, SIGUSR1);
}

/* ------------------------------------------------------ clocks, namespaces */

/* Move the real-time clock; false if that is not allowed. */
static bool move_clock(int64_t *moved, int64_t ns)
{
	struct timespec ts = sm_ts(sm_clock_ns(CLOCK_REALTIME) + ns);

	if (clock_settime(CLOCK_REALTIME, &ts))
		return false;
	*moved += ns;
	return true;
}

TEST_F(sleep, clock_set)
{
	struct sm_waiter *w = self->w;
	struct nap *n = self->n;
	int f;

	if (!move_clock(&self->clock_set, 0))
		SKIP(return, "the clock cannot be set");
	sm_handle(SIGUSR1, 0);
	ASSERT_TRUE(naps_start(self, HOUR));

	/* Back, and forward, but not far enough */
	ASSERT_TRUE(move_clock(&self->clock_set, -HOUR));
	SM_EXPECT_WAITS(w, NR_FORMS);
	ASSERT_TRUE(move_clock(&self->clock_set, HOUR + HOUR / 2));
	SM_EXPECT_WAITS(w, NR_FORMS);
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));

	ASSERT_TRUE(move_clock(&self->clock_set, HOUR));
	for (f = 0; f < NR_FORMS; f++) {
		/* Relative sleeps on CLOCK_TAI are not exempt. */
		if (forms[f].clock == CLOCK_TAI ||
		    (forms[f].clock == CLOCK_REALTIME && forms[f].absolute)) {
			SM_JOIN(&w[f], 0);
			EXPECT_TRUE(rem_untouched(&n[f]));
		}
	}
	SM_ASSERT_DONE(w, NR_FORMS, 3);
	for (f = 0; f < NR_FORMS; f++) {
		if (w[f].done)
			continue;
		SM_EXPECT_INTERRUPTED(&w[f], SIGUSR1);
		if (!forms[f].absolute)
			EXPECT_LE(ts_ns(&n[f].rem), HOUR + SLACK);
	}
}

/* Slack makes late, not early; and the remaining time tells of it. */
TEST_F(sleep, timer_slack)
{
	const int64_t slack = 300 * SM_MSEC;
	struct sm_waiter *w = self->w;
	struct nap *n = self->n;
	const struct form *f;

	sm_handle(SIGUSR1, 0);
	for_each_form(f) {
		ASSERT_EQ(0, prctl(PR_SET_TIMERSLACK, slack));
		nap_set(n, w, f, 15 * SM_MSEC);
		EXPECT_EQ(0, nap_now(w));
		EXPECT_FALSE(early(n, w));
		EXPECT_LT(sm_waiter_ns(w), n->ns + slack + sm_late_ns());
		ASSERT_EQ(0, prctl(PR_SET_TIMERSLACK, 0));
		if (f->absolute)
			continue;

		nap_set(n, w, f, HOUR);
		w->before = set_slack;
		ASSERT_TRUE(sm_start(&self->env, w));
		w->before = NULL;
		SM_EXPECT_INTERRUPTED(w, SIGUSR1);
		EXPECT_LE(ts_ns(&n->rem), HOUR + 1000 * SM_SEC);
		EXPECT_GE(ts_ns(&n->rem), HOUR + 1000 * SM_SEC - sm_waiter_ns(w));
	}
}

/* In a time namespace: deadlines are those of its clocks. Which step fails, or 0. */
static int timens_child(void)
{
	struct sm_waiter w = { 0 };
	const struct form *f;
	int64_t rem;
	struct nap n;

	if (sm_clock_ns(CLOCK_MONOTONIC) < 1000000 * SM_SEC ||
	    sm_clock_ns(CLOCK_BOOTTIME) < 2000000 * SM_SEC)
		return 2;
	sm_handle(SIGUSR1, 0);
	for_each_form(f) {
		nap_set(&n, &w, f, 60 * SM_MSEC);
		if (nap_now(&w))
			return 3;
		if (early(&n, &w))
			return 4;
		if (sm_waiter_ns(&w) > 60 * SM_MSEC + sm_late_ns())
			return 5;

		nap_set(&n, &w, f, HOUR);
		if (sm_waiter_run(&w) || !sm_sleeps(&w))
			return 6;
		sm_signal(&w, SIGUSR1);
		if (!sm_waiter_join(&w))
			return 7;
		if (w.ret != -EINTR)
			return 8;
		if (f->absolute != rem_untouched(&n))
			return 9;
		rem = ts_ns(&n.rem);
		if (!f->absolute && (rem > HOUR + SLACK || rem < HOUR - sm_waiter_ns(&w)))
			return 10;
	}
	return 0;
}

TEST_F(sleep, time_namespace)
{
	pid_t pid = SM_FORK();
	int status;

	if (!pid) {
		if (unshare(CLONE_NEWTIME) ||
		    sm_write_file("/proc/self/timens_offsets",
				  "monotonic 1000000 0\nboottime 2000000 0\n") < 0)
			_exit(77);
		pid = sm_fork();
		if (!pid)
			_exit(timens_child());
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			_exit(99);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 98);
	}
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	ASSERT_TRUE(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		SKIP(return, "no time namespaces");
	EXPECT_EQ(0, WEXITSTATUS(status));
	SM_EXPECT_PARKS(&self->env, NR_FORMS);
}

/* ------------------------------------------------------------------- herds */

struct herd {
	uint32_t gate;
	int64_t until;
	int through;		/* past the gate, about to sleep */
	int back;
	int early, failed;
};

struct sheep {
	struct herd *h;
	pthread_t thread;
	int naps;
	char pad[48];
};

static void *sheep_fn(void *arg)
{
	struct sheep *s = arg;
	struct herd *h = s->h;
	uint32_t gate, round = 0;
	struct timespec ts;

	for (;;) {
		while ((gate = sm_load(&h->gate)) == round)
			sm_wait(&h->gate, round, SM_PRIVATE);
		if (gate == ~0U)
			return NULL;
		round = gate;
		ts = sm_ts(h->until);
		sm_add(&h->through, 1);
		if (raw_sleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
			sm_add(&h->failed, 1);
		if (sm_now_ns() < h->until)
			sm_add(&h->early, 1);
		s->naps++;
		sm_add(&h->back, 1);
	}
}

/* Two thousand sleep until the same instant. */
TEST_F_TIMEOUT(sleep, herd, 60)
{
	const int nr = 2000, rounds = 2;
	int64_t wait = 700 * SM_MSEC * sm_slow();
	struct sheep *s = calloc(nr, sizeof(*s));
	struct herd h = { 0 };
	pthread_attr_t attr;
	bool all, seen;
	struct sm_stats st;
	int i, round, done = 0;

	sm_allow_threads(nr);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	for (i = 0; i < nr; i++) {
		s[i].h = &h;
		ASSERT_EQ(0, pthread_create(&s[i].thread, &attr, sheep_fn, &s[i]));
	}
	ASSERT_TRUE(sm_wait_until(sm_nr_waiters(&h.gate, SM_PRIVATE) == nr));
	sm_rebase(&self->env);
	self->env.base.parked -= nr;
	for (round = 1; done < rounds; round++) {
		ASSERT_LT(round, 8) {
			TH_LOG("they never sleep all at once");
		}
		h.through = 0;
		h.back = 0;
		h.until = sm_now_ns() + wait;
		sm_store(&h.gate, round);
		sm_wake(&h.gate, INT_MAX, SM_PRIVATE);
		/* Did all sleep at the same time, and had they parked? */
		do {
			sm_sleep_ms(10);
			all = sm_load(&h.through) == nr;
			if (all && self->env.parked)
				all = sm_check_parked(&self->env, nr, &st);
			seen = all && !sm_load(&h.back) && sm_now_ns() < h.until;
		} while (!seen && sm_now_ns() < h.until);
		ASSERT_TRUE(sm_wait_until(sm_load(&h.back) == nr)) {
			TH_LOG("%d of %d have come back", h.back, nr);
		}
		EXPECT_EQ(0, h.early);
		EXPECT_EQ(0, h.failed);
		if (seen)
			done++;
		else
			wait *= 2;
	}
	sm_store(&h.gate, ~0U);
	sm_wake(&h.gate, INT_MAX, SM_PRIVATE);
	for (i = 0; i < nr; i++) {
		pthread_join(s[i].thread, NULL);
		EXPECT_EQ(round - 1, s[i].naps);
	}
	free(s);
}

/* ------------------------------------------------------------------- races */

#define NSLEEPERS	4

struct sleeper {
	uint64_t seed;
	long eintr, full, early, wrong_rem;
};

static __thread int my_handled;

static void count_mine(int sig)
{
	my_handled++;
}

static long short_nap(struct sm_runner *r, long i)
{
	struct sleeper *s = r->data;
	struct sm_waiter w = { 0 };
	int before = my_handled;
	struct nap n;
	int64_t rem;

	nap_set(&n, &w, &forms[sm_rnd(&s->seed) % NR_FORMS], sm_rnd(&s->seed) % 400000);
	switch (nap_now(&w)) {
	case 0:
		s->full++;
		s->early += early(&n, &w);
		return 0;
	case -EINTR:
		s->eintr++;
		rem = ts_ns(&n.rem);
		if (n.form->absolute)
			s->wrong_rem += !rem_untouched(&n);
		else
			s->wrong_rem += rem <= 0 || rem > n.ns + SLACK ||
					rem + sm_waiter_ns(&w) < n.ns;
		return my_handled == before ? -EINTR : 0;
	default:
		return w.ret;
	}
}

static void sleepers_init(struct sm_runner *r, struct sleeper *s, long rounds)
{
	int i;

	for (i = 0; i < NSLEEPERS; i++) {
		s[i].seed = 1234567 + i;
		r[i] = (struct sm_runner) {
			.nr = i, .rounds = rounds, .round = short_nap, .data = &s[i],
		};
	}
}

static void signal_one(struct sm_runner *r, int n)
{
	static uint64_t seed = 4711;
	int i = sm_rnd(&seed) % n;

	if (sm_load(&r[i].tid) && !sm_load(&r[i].done))
		sm_tgkill(getpid(), r[i].tid, SIGUSR1);
	sm_sleep_ns(sm_rnd(&seed) % 200000);
}

/* Signals come as the time is up. */
TEST_F_TIMEOUT(sleep, race_signals, 60)
{
	struct sleeper s[NSLEEPERS] = { 0 };
	struct sm_runner r[NSLEEPERS];
	long i, eintr = 0, full = 0;

	signal(SIGUSR1, count_mine);
	sleepers_init(r, s, sm_rounds(self->env.parked ? 1500 : 400));
	sm_run(_metadata, r, NSLEEPERS, signal_one);
	for (i = 0; i < NSLEEPERS; i++) {
		EXPECT_EQ(0, s[i].early);
		EXPECT_EQ(0, s[i].wrong_rem);
		EXPECT_EQ(r[i].rounds, s[i].eintr + s[i].full);
		eintr += s[i].eintr;
		full += s[i].full;
	}
	EXPECT_GT(eintr, 0);
	EXPECT_GT(full, 0);
	SM_EXPECT_PARKS(&self->env, 20);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* A storm of stops: nobody is told, nobody wakes early. */
TEST_F_TIMEOUT(sleep, race_stops, 60)
{
	struct {
		struct sm_runner r[NSLEEPERS];
		struct sleeper s[NSLEEPERS];
	} *shared = sm_shared_alloc(sizeof(*shared));
	const int64_t end = sm_now_ns() + sm_patience_ns() * 2 * sm_rounds_factor();
	struct sm_runner *r = shared->r;
	long i, stops = 0;
	pid_t pid;

	ASSERT_NE(NULL, shared);
	sleepers_init(r, shared->s, sm_rounds(300));
	pid = SM_FORK();
	if (!pid) {
		if (sm_runners_start(r, NSLEEPERS))
			_exit(1);
		for (i = 0; i < NSLEEPERS; i++)
			pthread_join(r[i].thread, NULL);
		_exit(0);
	}
	while (sm_runners_done(r, NSLEEPERS) < NSLEEPERS) {
		ASSERT_LT(sm_now_ns(), end);
		kill(pid, SIGSTOP);
		sm_sleep_ns(100000);
		kill(pid, SIGCONT);
		sm_sleep_ns(700000);
		stops++;
	}
	SM_EXPECT_STATUS(0, pid);
	for (i = 0; i < NSLEEPERS; i++) {
		EXPECT_EQ(0, r[i].bad);
		EXPECT_EQ(0, shared->s[i].early);
		EXPECT_EQ(r[i].rounds, shared->s[i].full);
	}
	EXPECT_GT(stops, 5);
	SM_EXPECT_PARKS(&self->env, 20);
}

SM_MAIN(sm_rounds_factor());
