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

FIXTURE(sleep) {
	struct sm_env env;
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

static const struct timespec untouched = { -77, -88 };

static bool same(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static int64_t ts_ns(const struct timespec *ts)
{
	return ts->tv_sec * SM_SEC + ts->tv_nsec;
}

static void nap_set(struct nap *n, const struct form *f, int64_t ns)
{
	n->form = f;
	n->ns = ns;
	n->until = sm_clock_ns(f->clock) + ns;
	n->req = sm_ts(f->absolute ? n->until : ns);
	n->rem = untouched;
}

static void nap_waiter(struct nap *n, struct sm_waiter *w)
{
	if (n->form->nanosleep)
		sm_call(w, __NR_nanosleep, &n->req, &n->rem);
	else
		sm_call(w, __NR_clock_nanosleep, n->form->clock, n->form->absolute ?
			TIMER_ABSTIME : 0, &n->req, &n->rem);
	w->data = n;
}

/* Where the pointer to the remaining time is among the arguments. */
static int rem_arg(const struct form *f)
{
	return f->nanosleep ? 1 : 3;
}

/* In the calling thread. */
static long nap_now(struct nap *n, struct sm_waiter *w)
{
	nap_waiter(n, w);
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

static long raw_sleep(clockid_t clock, int flags, const void *req, void *rem)
{
	return sm_sys(__NR_clock_nanosleep, clock, flags, req, rem);
}

TEST_F(sleep, never_early)
{
	const int64_t ns[] = {
		1, 1000, 50 * 1000, SM_MSEC, 20 * SM_MSEC, sm_soon_ns(),
		sm_soon_ns() + SM_MSEC,
	};
	struct sm_waiter w = { 0 };
	struct nap n;
	int f, i;

	for (f = 0; f < NR_FORMS; f++) {
		sm_rebase(&self->env);
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			nap_set(&n, &forms[f], ns[i]);
			EXPECT_EQ(0, nap_now(&n, &w));
			EXPECT_FALSE(early(&n, &w));
			EXPECT_LT(sm_waiter_ns(&w), ns[i] + sm_late_ns()) {
				TH_LOG("%s", forms[f].name);
			}
			EXPECT_TRUE(same(&n.rem, &untouched));
		}
		/* Nobody else sleeps here: these are the naps'. */
		SM_EXPECT_PARKS(&self->env, 2);
	}
}

TEST_F(sleep, at_once)
{
	struct sm_waiter w = { 0 };
	int64_t past[4];
	struct nap n;
	int f, i;

	for (f = 0; f < NR_FORMS; f++) {
		past[0] = 0;
		past[1] = 1;
		past[2] = sm_clock_ns(forms[f].clock) - 1000;
		past[3] = sm_clock_ns(forms[f].clock) - SM_SEC;
		for (i = 0; i < (forms[f].absolute ? 4 : 1); i++) {
			nap_set(&n, &forms[f], 0);
			n.req = sm_ts(past[i]);
			EXPECT_EQ(0, nap_now(&n, &w));
			EXPECT_LT(sm_waiter_ns(&w), sm_late_ns());
			EXPECT_TRUE(same(&n.rem, &untouched));
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
	struct sm_waiter w = { 0 };
	struct nap n;
	void *none;
	int f, i;

	none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, none);
	for (f = 0; f < NR_FORMS; f++) {
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			nap_set(&n, &forms[f], 0);
			n.req = bad[i];
			EXPECT_EQ(-EINVAL, nap_now(&n, &w));
			EXPECT_TRUE(same(&n.rem, &untouched));
		}
		for (i = 0; i < 3; i++) {
			nap_set(&n, &forms[f], SM_MSEC);
			nap_waiter(&n, &w);
			w.arg[rem_arg(&forms[f]) - 1] =
				(long)(i == 0 ? NULL : i == 1 ? none : (void *)-4096L);
			sm_waiter_fn(&w);
			EXPECT_EQ(-EFAULT, w.ret);
		}
		/* Nobody looks at this pointer unless a signal comes. */
		nap_set(&n, &forms[f], 3 * SM_MSEC);
		nap_waiter(&n, &w);
		w.arg[rem_arg(&forms[f])] = (long)none;
		sm_waiter_fn(&w);
		EXPECT_EQ(0, w.ret);
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
	struct sm_waiter w = { 0 };
	struct nap n;
	int f, i;

	sm_handle(SIGUSR1, 0);
	for (f = 0; f < NR_FORMS; f++) {
		for (i = 0; i < ARRAY_SIZE(sec); i++) {
			nap_set(&n, &forms[f], HOUR);
			n.req.tv_sec = sec[i];
			n.req.tv_nsec = 999999999;
			if (forms[f].absolute && !i)
				n.req.tv_sec += sm_clock_ns(forms[f].clock) /
						SM_SEC;
			nap_waiter(&n, &w);
			ASSERT_TRUE(sm_start(&self->env, &w));
			SM_EXPECT_INTERRUPTED(&w, SIGUSR1);
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
	struct sm_waiter w = { 0 };
	int64_t asleep, sent, rem;
	struct nap n;
	int f, i;

	for (f = 0; f < NR_FORMS; f++) {
		for (i = 0; i < ARRAY_SIZE(sa_flags); i++) {
			sm_handle(SIGUSR1, sa_flags[i]);
			nap_set(&n, &forms[f], HOUR);
			nap_waiter(&n, &w);
			ASSERT_TRUE(sm_start(&self->env, &w));
			asleep = sm_now_ns();
			sm_sleep_ms(20);
			sent = sm_now_ns();
			SM_EXPECT_INTERRUPTED(&w, SIGUSR1);
			EXPECT_EQ(1, sm_handled);
			if (forms[f].absolute) {
				EXPECT_TRUE(same(&n.rem, &untouched));
				continue;
			}
			rem = ts_ns(&n.rem);
			EXPECT_GE(rem, HOUR - sm_waiter_ns(&w)) {
				TH_LOG("%s", forms[f].name);
			}
			EXPECT_LE(rem, HOUR + SLACK - (sent - asleep)) {
				TH_LOG("%s", forms[f].name);
			}
			EXPECT_GE(n.rem.tv_nsec, 0);
			EXPECT_LT(n.rem.tv_nsec, SM_SEC);
		}
	}
}

TEST_F(sleep, interrupted_rem_pointer)
{
	struct sm_waiter w = { 0 };
	struct nap n;
	void *none;
	int f;

	none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, none);
	sm_handle(SIGUSR1, 0);
	for (f = 0; f < NR_FORMS; f++) {
		const struct form *form = &forms[f];

		nap_set(&n, form, HOUR);
		nap_waiter(&n, &w);
		w.arg[rem_arg(form)] = 0;
		ASSERT_TRUE(sm_start(&self->env, &w));
		SM_EXPECT_INTERRUPTED(&w, SIGUSR1);

		nap_set(&n, form, HOUR);
		nap_waiter(&n, &w);
		w.arg[rem_arg(form)] = (long)none;
		ASSERT_TRUE(sm_start(&self->env, &w));
		sm_signal(&w, SIGUSR1);
		SM_JOIN(&w, form->absolute ? -EINTR : -EFAULT);

		/* Both the same place, as in a loop that sleeps on. */
		nap_set(&n, form, HOUR);
		nap_waiter(&n, &w);
		w.arg[rem_arg(form)] = (long)&n.req;
		ASSERT_TRUE(sm_start(&self->env, &w));
		SM_EXPECT_INTERRUPTED(&w, SIGUSR1);
		if (form->absolute) {
			EXPECT_EQ(n.until, ts_ns(&n.req));
		} else {
			EXPECT_LT(ts_ns(&n.req), HOUR + SLACK);
			EXPECT_GE(ts_ns(&n.req), HOUR - sm_waiter_ns(&w));
		}
	}
	munmap(none, 4096);
}

/* Signals that nobody handles do not end a sleep. */
TEST_F(sleep, ignored_signals)
{
	struct sm_waiter w[NR_FORMS] = { 0 };
	struct nap n[NR_FORMS];
	int f;

	signal(SIGUSR2, SIG_IGN);
	sm_handle(SIGUSR1, 0);
	sm_rebase(&self->env);
	for (f = 0; f < NR_FORMS; f++) {
		nap_set(&n[f], &forms[f], HOUR);
		nap_waiter(&n[f], &w[f]);
		ASSERT_EQ(0, sm_waiter_run(&w[f]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));
	for (f = 0; f < NR_FORMS; f++) {
		sm_signal(&w[f], SIGUSR2);
		sm_signal(&w[f], SIGCHLD);
		sm_signal(&w[f], SIGWINCH);
		sm_signal(&w[f], SIGCONT);
	}
	sm_settle();
	EXPECT_EQ(0, sm_nr_done(w, NR_FORMS));
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));
	for (f = 0; f < NR_FORMS; f++) {
		EXPECT_TRUE(same(&n[f].rem, &untouched));
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
	for (i = 0; i < NR_FORMS; i++) {
		nap_set(&s->n[i], &forms[i], ns);
		nap_waiter(&s->n[i], &s->c.w[i]);
	}
	return s;
}

/*
 * Several stops in a row, then a signal: what remains is counted from the very
 * beginning, without the detours.
 */
TEST_F(sleep, stops_then_signal)
{
	struct naps *s = naps_alloc(HOUR);
	int64_t asleep, sent, slack;
	int i;

	ASSERT_NE(NULL, s);
	/* Another one, with a remarkable slack */
	s->c.nr++;
	nap_set(&s->n[NR_FORMS], &forms[1], HOUR);
	nap_waiter(&s->n[NR_FORMS], &s->c.w[NR_FORMS]);
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
		ASSERT_EQ(0, sm_tgkill(s->c.pid, s->c.w[i].tid, SIGUSR1));
		ASSERT_TRUE(sm_waiter_done(&s->c.w[i]));
		EXPECT_EQ(-EINTR, s->c.w[i].ret);
		if (s->n[i].form->absolute) {
			EXPECT_TRUE(same(&s->n[i].rem, &untouched));
			continue;
		}
		slack = i == NR_FORMS ? 1000 * SM_SEC : SLACK;
		EXPECT_GE(ts_ns(&s->n[i].rem), HOUR +
			  (i == NR_FORMS ? slack : 0) -
			  sm_waiter_ns(&s->c.w[i])) {
			TH_LOG("sleep %d", i);
		}
		EXPECT_LE(ts_ns(&s->n[i].rem), HOUR + slack - (sent - asleep)) {
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
	void *none;
	int i;

	none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, none);
	ASSERT_NE(NULL, s);
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	ASSERT_TRUE(sm_child_stop(&s->c));
	for (i = 0; i < s->c.nr; i++)
		EXPECT_EQ(s->n[i].form->absolute, same(&s->n[i].rem, &untouched));
	kill(s->c.pid, SIGKILL);
	EXPECT_TRUE(WIFSIGNALED(sm_child_wait(&s->c)));

	/* If that is not possible it does not go on. */
	for (i = 0; i < s->c.nr; i++)
		s->c.w[i].arg[rem_arg(s->n[i].form)] = (long)none;
	ASSERT_TRUE(sm_child_start(&self->env, &s->c));
	ASSERT_TRUE(sm_child_stop(&s->c));
	ASSERT_EQ(0, kill(s->c.pid, SIGCONT));
	for (i = 0; i < s->c.nr; i++) {
		if (s->n[i].form->absolute)
			continue;
		ASSERT_TRUE(sm_waiter_done(&s->c.w[i]));
		EXPECT_EQ(-EFAULT, s->c.w[i].ret);
	}
	for (i = FIRST_ABSOLUTE; i < s->c.nr; i++) {
		ASSERT_EQ(0, sm_load(&s->c.w[i].done));
		ASSERT_EQ(0, sm_tgkill(s->c.pid, s->c.w[i].tid, SIGUSR1));
		ASSERT_TRUE(sm_waiter_done(&s->c.w[i]));
		EXPECT_EQ(-EINTR, s->c.w[i].ret);
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
	struct sm_waiter w[NR_FORMS] = { 0 };
	struct nap n[NR_FORMS];
	int f, hit;

	if (!move_clock(&self->clock_set, 0))
		SKIP(return, "the clock cannot be set");
	sm_handle(SIGUSR1, 0);
	sm_rebase(&self->env);
	for (f = 0; f < NR_FORMS; f++) {
		nap_set(&n[f], &forms[f], HOUR);
		nap_waiter(&n[f], &w[f]);
		ASSERT_EQ(0, sm_waiter_run(&w[f]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));

	/* Back, and forward, but not far enough */
	ASSERT_TRUE(move_clock(&self->clock_set, -HOUR));
	sm_settle();
	EXPECT_EQ(0, sm_nr_done(w, NR_FORMS));
	ASSERT_TRUE(move_clock(&self->clock_set, HOUR + HOUR / 2));
	sm_settle();
	EXPECT_EQ(0, sm_nr_done(w, NR_FORMS));
	ASSERT_TRUE(sm_asleep(&self->env, w, NR_FORMS));

	ASSERT_TRUE(move_clock(&self->clock_set, HOUR));
	for (f = 0; f < NR_FORMS; f++) {
		/* Relative sleeps on CLOCK_TAI are not exempt. */
		hit = forms[f].clock == CLOCK_TAI ||
		      (forms[f].clock == CLOCK_REALTIME && forms[f].absolute);
		if (hit) {
			SM_JOIN(&w[f], 0);
			EXPECT_TRUE(same(&n[f].rem, &untouched));
		}
	}
	EXPECT_EQ(3, sm_nr_done(w, NR_FORMS));
	sm_settle();
	EXPECT_EQ(3, sm_nr_done(w, NR_FORMS));
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
	struct sm_waiter w = { 0 };
	struct nap n;
	int f;

	sm_handle(SIGUSR1, 0);
	for (f = 0; f < NR_FORMS; f++) {
		ASSERT_EQ(0, prctl(PR_SET_TIMERSLACK, slack));
		nap_set(&n, &forms[f], 15 * SM_MSEC);
		EXPECT_EQ(0, nap_now(&n, &w));
		EXPECT_FALSE(early(&n, &w));
		EXPECT_LT(sm_waiter_ns(&w), n.ns + slack + sm_late_ns());
		ASSERT_EQ(0, prctl(PR_SET_TIMERSLACK, 0));
		if (forms[f].absolute)
			continue;

		nap_set(&n, &forms[f], HOUR);
		nap_waiter(&n, &w);
		w.before = set_slack;
		ASSERT_TRUE(sm_start(&self->env, &w));
		w.before = NULL;
		SM_EXPECT_INTERRUPTED(&w, SIGUSR1);
		EXPECT_LE(ts_ns(&n.rem), HOUR + 1000 * SM_SEC);
		EXPECT_GE(ts_ns(&n.rem), HOUR + 1000 * SM_SEC - sm_waiter_ns(&w));
	}
}

/* In a time namespace: deadlines are those of its clocks. */
static int timens_child(void)
{
	struct sm_waiter w[NR_FORMS] = { 0 };
	struct nap n[NR_FORMS];
	int f;

	if (sm_clock_ns(CLOCK_MONOTONIC) < 1000000 * SM_SEC ||
	    sm_clock_ns(CLOCK_BOOTTIME) < 2000000 * SM_SEC)
		return 2;
	sm_handle(SIGUSR1, 0);
	for (f = 0; f < NR_FORMS; f++) {
		nap_set(&n[f], &forms[f], 60 * SM_MSEC);
		if (nap_now(&n[f], &w[f]))
			return 3;
		if (sm_clock_ns(forms[f].clock) < n[f].until)
			return 4;
		if (sm_waiter_ns(&w[f]) > 60 * SM_MSEC + sm_late_ns())
			return 5;
	}
	for (f = 0; f < NR_FORMS; f++) {
		nap_set(&n[f], &forms[f], HOUR);
		nap_waiter(&n[f], &w[f]);
		if (sm_waiter_run(&w[f]))
			return 6;
	}
	for (f = 0; f < NR_FORMS; f++) {
		if (!sm_sleeps(&w[f]))
			return 7;
		sm_signal(&w[f], SIGUSR1);
		if (!sm_waiter_join(&w[f]))
			return 8;
		if (w[f].ret != -EINTR)
			return 9;
		if (forms[f].absolute != same(&n[f].rem, &untouched))
			return 10;
		if (!forms[f].absolute &&
		    (ts_ns(&n[f].rem) > HOUR + SLACK ||
		     ts_ns(&n[f].rem) < HOUR - sm_waiter_ns(&w[f])))
			return 11;
	}
	return 0;
}

TEST_F(sleep, time_namespace)
{
	int status;
	pid_t pid;

	pid = SM_FORK();
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

/* ----------------------------------------------------------- CPU-time clock */

static int burn;

static void *burn_fn(void *arg)
{
	while (sm_load(&burn))
		;
	return NULL;
}

TEST_F(sleep, cpu_time)
{
	const int64_t ns = 60 * SM_MSEC;
	struct timespec req, rem = untouched;
	struct sm_waiter w = { 0 };
	int64_t until;
	pthread_t t;
	int abs;

	for (abs = 0; abs < 2; abs++) {
		until = sm_clock_ns(CLOCK_PROCESS_CPUTIME_ID) + ns;
		req = sm_ts(abs ? until : ns);
		sm_call(&w, __NR_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, abs ?
			TIMER_ABSTIME : 0, &req, &rem);
		ASSERT_EQ(0, sm_waiter_run(&w));
		ASSERT_TRUE(sm_wait_until(sm_load(&w.entered)));
		sm_store(&burn, 1);
		ASSERT_EQ(0, sm_thread(&t, burn_fn, NULL));
		ASSERT_TRUE(sm_waiter_done(&w));
		EXPECT_GE(sm_clock_ns(CLOCK_PROCESS_CPUTIME_ID), until);
		sm_store(&burn, 0);
		pthread_join(t, NULL);
		SM_JOIN(&w, 0);
		EXPECT_TRUE(same(&rem, &untouched));
	}

	sm_handle(SIGUSR1, 0);
	req = sm_ts(HOUR);
	sm_call(&w, __NR_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, 0, &req, &rem);
	ASSERT_EQ(0, sm_waiter_run(&w));
	ASSERT_TRUE(sm_sleeps(&w));
	SM_EXPECT_INTERRUPTED(&w, SIGUSR1);
	EXPECT_LE(ts_ns(&rem), HOUR);
	EXPECT_GE(ts_ns(&rem), HOUR - 60 * SM_SEC * sm_slow());
}

/* ------------------------------------------------------------------- herds */

struct herd {
	uint32_t gate;
	int64_t until;
	int through;		/* past the gate, about to sleep */
	int back;
	int early, failed;
	int64_t last;
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
	int64_t now, last;

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
		now = sm_now_ns();
		s->naps++;
		if (now < h->until)
			sm_add(&h->early, 1);
		last = sm_load(&h->last);
		while (now > last &&
		       !__atomic_compare_exchange_n(&h->last, &last, now, 0,
						    __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
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
		h.last = 0;
		h.until = sm_now_ns() + wait;
		sm_store(&h.gate, round);
		sm_wake(&h.gate, INT_MAX, SM_PRIVATE);
		/* Did all sleep at the same time, and had they parked? */
		do {
			sm_sleep_ms(10);
			all = sm_load(&h.through) == nr;
			if (all && self->env.parked)
				all = sm_check_parked(&self->env, nr, &st);
			seen = all && !sm_load(&h.back) &&
			       sm_now_ns() < h.until;
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
	pthread_t thread;
	pid_t tid;
	uint64_t seed;
	long rounds;
	long eintr, full, bad, early, wrong_rem;
	int done;
};

static __thread int my_handled;

static void count_mine(int sig)
{
	my_handled++;
}

static void *sleeper_fn(void *arg)
{
	struct sleeper *s = arg;
	struct sm_waiter w;
	struct nap n;
	int before;
	long i;

	sm_store(&s->tid, sm_gettid());
	for (i = 0; i < s->rounds; i++) {
		memset(&w, 0, sizeof(w));
		nap_set(&n, &forms[sm_rnd(&s->seed) % NR_FORMS],
			sm_rnd(&s->seed) % 400000);
		before = my_handled;
		switch (nap_now(&n, &w)) {
		case 0:
			s->full++;
			s->early += early(&n, &w);
			break;
		case -EINTR:
			s->eintr++;
			if (my_handled == before)
				s->bad = -EINTR;
			if (n.form->absolute)
				s->wrong_rem += !same(&n.rem, &untouched);
			else if (ts_ns(&n.rem) <= 0 ||
				 ts_ns(&n.rem) > n.ns + SLACK ||
				 ts_ns(&n.rem) + sm_waiter_ns(&w) < n.ns)
				s->wrong_rem++;
			break;
		default:
			s->bad = w.ret;
		}
	}
	sm_store(&s->done, 1);
	return NULL;
}

static bool all_done(struct sleeper *s)
{
	int i;

	for (i = 0; i < NSLEEPERS; i++)
		if (!sm_load(&s[i].done))
			return false;
	return true;
}

/* Signals come as the time is up. */
TEST_F_TIMEOUT(sleep, race_signals, 60)
{
	struct sleeper s[NSLEEPERS] = { 0 };
	uint64_t seed = 4711;
	long i, eintr = 0, full = 0, rounds;
	int64_t end;

	signal(SIGUSR1, count_mine);
	rounds = sm_rounds(self->env.parked ? 1500 : 400);
	for (i = 0; i < NSLEEPERS; i++) {
		s[i].seed = 1234567 + i;
		s[i].rounds = rounds;
		ASSERT_EQ(0, sm_thread(&s[i].thread, sleeper_fn, &s[i]));
		ASSERT_TRUE(sm_wait_until(sm_load(&s[i].tid)));
	}
	end = sm_now_ns() + sm_patience_ns() * 2 * sm_rounds_factor();
	while (!all_done(s)) {
		ASSERT_LT(sm_now_ns(), end);
		i = sm_rnd(&seed) % NSLEEPERS;
		if (!sm_load(&s[i].done))
			sm_tgkill(getpid(), s[i].tid, SIGUSR1);
		sm_sleep_ns(sm_rnd(&seed) % 200000);
	}
	for (i = 0; i < NSLEEPERS; i++) {
		pthread_join(s[i].thread, NULL);
		EXPECT_EQ(0, s[i].bad);
		EXPECT_EQ(0, s[i].early);
		EXPECT_EQ(0, s[i].wrong_rem);
		EXPECT_EQ(rounds, s[i].eintr + s[i].full);
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
	struct sleeper *s = sm_shared_alloc(sizeof(*s) * NSLEEPERS);
	long i, stops = 0, rounds = sm_rounds(300);
	int64_t end;
	pid_t pid;

	ASSERT_NE(NULL, s);
	for (i = 0; i < NSLEEPERS; i++) {
		s[i].seed = 7654321 + i;
		s[i].rounds = rounds;
	}
	pid = SM_FORK();
	if (!pid) {
		for (i = 0; i < NSLEEPERS; i++)
			if (sm_thread(&s[i].thread, sleeper_fn, &s[i]))
				_exit(1);
		for (i = 0; i < NSLEEPERS; i++)
			pthread_join(s[i].thread, NULL);
		_exit(0);
	}
	end = sm_now_ns() + sm_patience_ns() * 2 * sm_rounds_factor();
	while (!all_done(s)) {
		ASSERT_LT(sm_now_ns(), end);
		kill(pid, SIGSTOP);
		sm_sleep_ns(100000);
		kill(pid, SIGCONT);
		sm_sleep_ns(700000);
		stops++;
	}
	SM_EXPECT_STATUS(0, pid);
	for (i = 0; i < NSLEEPERS; i++) {
		EXPECT_EQ(0, s[i].bad);
		EXPECT_EQ(0, s[i].early);
		EXPECT_EQ(rounds, s[i].full);
	}
	EXPECT_GT(stops, 5);
	SM_EXPECT_PARKS(&self->env, 20);
}

SM_MAIN(sm_rounds_factor());
