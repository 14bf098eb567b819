// SPDX-License-Identifier: GPL-2.0
/*
 * Every form of futex wait, in a process that parks and in one that does not:
 * results, errors, times and wake counts have to be the same.
 */
#include "scenario.h"

#define NW	8	/* waiters of most tests */

FIXTURE(futex) {
	struct sm_env env;
	struct sm_waiter w[NW];
	uint32_t f, f2, f3;
	struct futex_waitv wv;
};

SM_FIXTURE(futex);

static const int flags[] = { SM_PRIVATE, SM_SHARED };

#define PRIVATE2	(FUTEX2_SIZE_U32 | FUTEX2_PRIVATE)

/* The ways to wait, without a time-out or with one. */
static const struct form {
	const char *name;
	long nr;
	bool absolute;
	clockid_t clock;
} forms[] = {
	{ "wait", __NR_futex, false, CLOCK_MONOTONIC },
	{ "bitset", __NR_futex, true, CLOCK_MONOTONIC },
	{ "bitset, real time", __NR_futex, true, CLOCK_REALTIME },
	{ "futex2", __NR_futex_wait, true, CLOCK_MONOTONIC },
	{ "futex2, real time", __NR_futex_wait, true, CLOCK_REALTIME },
	{ "waitv", __NR_futex_waitv, true, CLOCK_MONOTONIC },
	{ "waitv, real time", __NR_futex_waitv, true, CLOCK_REALTIME },
};

#define for_each_form(f)	for ((f) = forms; (f) < forms + ARRAY_SIZE(forms); (f)++)

static void waitv_set(struct futex_waitv *wv, uint32_t *f, int nr)
{
	int i;

	memset(wv, 0, nr * sizeof(*wv));
	for (i = 0; i < nr; i++) {
		wv[i].uaddr = (uintptr_t)&f[i];
		wv[i].val = f[i];
		wv[i].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
	}
}

/* @w is to wait on self->f. */
static void form_set(FIXTURE_DATA(futex) *self, struct sm_waiter *w, const struct form *f,
		     const struct timespec *ts)
{
	int op = f->absolute ? FUTEX_WAIT_BITSET : FUTEX_WAIT;

	switch (f->nr) {
	case __NR_futex:
		if (f->clock == CLOCK_REALTIME)
			op |= FUTEX_CLOCK_REALTIME;
		sm_call(w, f->nr, &self->f, op | SM_PRIVATE, 0, ts, 0, ~0U);
		break;
	case __NR_futex_wait:
		sm_call(w, f->nr, &self->f, 0, ~0U, PRIVATE2, ts, f->clock);
		break;
	default:
		waitv_set(&self->wv, &self->f, 1);
		sm_call(w, f->nr, &self->wv, 1, 0, ts, f->clock);
	}
}

/* As many waiters as @nr on @uaddr, asleep one after the other. */
static bool start_on(struct sm_env *env, struct sm_waiter *w, int nr, uint32_t *uaddr, int flag)
{
	int i;

	for (i = 0; i < nr; i++) {
		if (sm_waiter_futex(&w[i], uaddr, 0, flag) ||
		    !sm_wait_until(sm_waiter_asleep(getpid(), &w[i])))
			return false;
	}
	return sm_wait_asleep(env, getpid(), w, nr);
}

/* The first one, on self->f */
static bool start_one(FIXTURE_DATA(futex) *self, int flag)
{
	sm_rebase(&self->env);
	return start_on(&self->env, self->w, 1, &self->f, flag);
}

TEST_F(futex, wait_wake)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		ASSERT_TRUE(start_one(self, flags[i]));
		EXPECT_EQ(1, sm_wake(&self->f, 1, flags[i]));
		SM_JOIN(self->w, 0);
		EXPECT_EQ(0, sm_wake(&self->f, 1, flags[i]));
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* A wait that has a time-out and is woken before: 0, at once. */
TEST_F(futex, wake_before_timeout)
{
	struct timespec ts = sm_ts(3600 * SM_SEC);
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		sm_call(self->w, __NR_futex, &self->f, FUTEX_WAIT | flags[i], 0, &ts);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		EXPECT_EQ(1, sm_wake(&self->f, 1, flags[i]));
		SM_JOIN(self->w, 0);
		EXPECT_LT(sm_waiter_ns(self->w), sm_patience_ns() + 10 * SM_SEC);
	}
}

TEST_F(futex, timeout_relative)
{
	static const int64_t ns[] = {
		0, 1, 1000, 50 * 1000, SM_MSEC, 30 * SM_MSEC, 300 * SM_MSEC,
	};
	struct timespec ts;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		for (j = 0; j < ARRAY_SIZE(ns); j++) {
			sm_rebase(&self->env);
			ts = sm_ts(ns[j]);
			sm_call(self->w, __NR_futex, &self->f, FUTEX_WAIT | flags[i], 0, &ts);
			ASSERT_EQ(0, sm_waiter_run(self->w));
			SM_JOIN(self->w, -ETIMEDOUT);
			SM_EXPECT_TOOK(self->w, ns[j]);
			EXPECT_EQ(0, sm_wake(&self->f, 1, flags[i]));
		}
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* Absolute deadlines on both clocks */
TEST_F(futex, timeout_absolute)
{
	static const int64_t ns[] = { SM_MSEC, 40 * SM_MSEC, 250 * SM_MSEC };
	int64_t deadline, now;
	const struct form *f;
	struct timespec ts;
	int i;

	for_each_form(f) {
		if (!f->absolute)
			continue;
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			sm_rebase(&self->env);
			deadline = sm_clock_ns(f->clock) + ns[i];
			ts = sm_ts(deadline);
			form_set(self, self->w, f, &ts);
			ASSERT_EQ(0, sm_waiter_run(self->w));
			SM_JOIN(self->w, -ETIMEDOUT);
			now = sm_clock_ns(f->clock);
			EXPECT_GE(now, deadline) {
				TH_LOG("%s", f->name);
			}
			EXPECT_LT(now, deadline + sm_late_ns());
			EXPECT_LT(sm_waiter_ns(self->w), ns[i] + sm_late_ns());
		}
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* A deadline that is over: at once, and nothing stays queued. */
TEST_F(futex, deadline_past)
{
	const int64_t past[] = { 0, 1, sm_now_ns() - 1000, sm_now_ns() - SM_SEC };
	const struct form *f;
	struct timespec ts;
	int i;

	for_each_form(f) {
		if (!f->absolute)
			continue;
		for (i = 0; i < ARRAY_SIZE(past); i++) {
			ts = sm_ts(past[i]);
			form_set(self, self->w, f, &ts);
			sm_waiter_fn(self->w);
			EXPECT_EQ(-ETIMEDOUT, self->w->ret) {
				TH_LOG("%s", f->name);
			}
			EXPECT_EQ(0, sm_wake(&self->f, INT_MAX, SM_PRIVATE));
		}
	}
}

/* Many deadlines in a mess, some of them woken before. */
TEST_F(futex, timeouts_many)
{
	enum { NR = 48 };
	struct sm_waiter *w = calloc(NR, sizeof(*w));
	struct timespec ts[NR];
	int64_t ns[NR];
	uint32_t f[NR] = { 0 };
	int i;

	for (i = 0; i < NR; i++) {
		/* Those that will be woken have time enough. */
		ns[i] = i % 4 == 3 ? 3600 * SM_SEC : (20 + (i * 37) % 400) * SM_MSEC;
		ts[i] = sm_ts(ns[i]);
		sm_call(&w[i], __NR_futex, &f[i], FUTEX_WAIT | SM_PRIVATE, 0, &ts[i]);
		ASSERT_EQ(0, sm_waiter_run(&w[i]));
	}
	for (i = 3; i < NR; i += 4) {
		ASSERT_TRUE(sm_wait_until(sm_waiter_asleep(getpid(), &w[i])));
		EXPECT_EQ(1, sm_wake(&f[i], 1, SM_PRIVATE));
	}
	for (i = 0; i < NR; i++) {
		ASSERT_TRUE(sm_waiter_join(&w[i]));
		if (i % 4 == 3) {
			EXPECT_EQ(0, w[i].ret);
			continue;
		}
		EXPECT_EQ(-ETIMEDOUT, w[i].ret);
		SM_EXPECT_TOOK(&w[i], ns[i]);
	}
	SM_EXPECT_PARKS(&self->env, NR / 4);
	free(w);
}

static long wake_bits(void *uaddr, uint32_t bits)
{
	return sm_sys(__NR_futex, uaddr, FUTEX_WAKE_BITSET | SM_PRIVATE, 100, 0, 0, bits);
}

/* Only those whose bits match are woken. */
TEST_F(futex, bitset)
{
	struct sm_waiter *w = self->w;
	int i;

	for (i = 0; i < 4; i++)
		sm_call(&w[i], __NR_futex, &self->f, FUTEX_WAIT_BITSET | SM_PRIVATE, 0, 0, 0,
			1 << i);
	ASSERT_TRUE(sm_start_all(&self->env, w, 4));

	EXPECT_EQ(0, wake_bits(&self->f, 0x70));
	SM_EXPECT_WAITS(w, 4);
	EXPECT_EQ(1, wake_bits(&self->f, 1 << 2));
	ASSERT_TRUE(sm_waiter_done(&w[2]));
	SM_ASSERT_DONE(w, 4, 1);
	EXPECT_EQ(2, wake_bits(&self->f, 0x3));
	ASSERT_TRUE(sm_waiter_done(&w[0]));
	ASSERT_TRUE(sm_waiter_done(&w[1]));
	EXPECT_EQ(0, sm_load(&w[3].done));
	EXPECT_EQ(1, sm_wake(&self->f, 100, SM_PRIVATE));
	SM_JOIN_ALL(w, 4, 0);

	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex, &self->f, FUTEX_WAIT_BITSET | SM_PRIVATE));
}

/* Calls that do not wait at all. */
TEST_F(futex, errors)
{
	struct timespec bad_nsec = { .tv_nsec = 1000000000 };
	struct timespec negative = { .tv_sec = -1 };
	struct timespec ts = sm_ts(SM_MSEC);
	uint32_t *f = &self->f, two[2] = { 0 };
	struct futex_waitv wv[2];
	void *none = sm_no_access();
	int i, op;

	ASSERT_NE(NULL, none);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		op = FUTEX_WAIT | flags[i];
		EXPECT_EQ(-EAGAIN, sm_wait(f, 1, flags[i]));
		EXPECT_EQ(-EAGAIN, sm_wait_ns(f, 1, flags[i], SM_SEC));
		EXPECT_EQ(-EAGAIN, sm_sys(__NR_futex, f, FUTEX_WAIT_BITSET | flags[i], 7, 0, 0, 1));
		EXPECT_EQ(-EFAULT, sm_wait(none, 0, flags[i]));
		EXPECT_EQ(-EFAULT, sm_wait(NULL, 0, flags[i]));
		EXPECT_EQ(-EFAULT, sm_wait((void *)-4096L, 0, flags[i]));
		EXPECT_EQ(-EINVAL, sm_wait((char *)f + 1, 0, flags[i]));
		EXPECT_EQ(-EFAULT, sm_sys(__NR_futex, f, op, 0, none));
		EXPECT_EQ(-EINVAL, sm_sys(__NR_futex, f, op, 0, &bad_nsec));
		EXPECT_EQ(-EINVAL, sm_sys(__NR_futex, f, op, 0, &negative));
		EXPECT_EQ(-SM_NOSYS, sm_sys(__NR_futex, f, op | FUTEX_CLOCK_REALTIME, 0, &ts));
	}

	EXPECT_EQ(-EAGAIN, sm_sys(__NR_futex_wait, f, 1, ~0U, PRIVATE2));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_wait, f, 0, 0, PRIVATE2));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_wait, f, 0, ~0U, 0xff00));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_wait, f, 0, ~0U, PRIVATE2, &ts, CLOCK_BOOTTIME));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_futex_wait, none, 0, ~0U, PRIVATE2));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_futex_wait, f, 0, ~0U, PRIVATE2, none, CLOCK_MONOTONIC));

	waitv_set(wv, two, 2);
	wv[1].val = 1;
	EXPECT_EQ(-EAGAIN, sm_sys(__NR_futex_waitv, wv, 2));
	wv[1].val = 0;
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_waitv, wv, 0));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_waitv, wv, 129));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_waitv, wv, 2, 1));
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_waitv, NULL, 2));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_futex_waitv, none, 2));
	EXPECT_EQ(-EFAULT, sm_sys(__NR_futex_waitv, wv, 2, 0, none, CLOCK_MONOTONIC));
	wv[1].__reserved = 1;
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_waitv, wv, 2));
	wv[1].__reserved = 0;
	wv[1].uaddr = (uintptr_t)none;
	EXPECT_EQ(-EFAULT, sm_sys(__NR_futex_waitv, wv, 2));

	/* None of them left anything queued. */
	EXPECT_EQ(0, sm_wake(f, INT_MAX, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(f, INT_MAX, SM_SHARED));
	EXPECT_EQ(0, sm_wake(&two[0], INT_MAX, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(&two[1], INT_MAX, SM_PRIVATE));
	munmap(none, 4096);
}

/* A wake of n wakes n, the longest waiting first. */
TEST_F(futex, wake_counts)
{
	int i;

	ASSERT_TRUE(start_on(&self->env, self->w, NW, &self->f, SM_PRIVATE));
	EXPECT_EQ(NW, sm_nr_waiters(&self->f, SM_PRIVATE));

	EXPECT_EQ(1, sm_wake(&self->f, 1, SM_PRIVATE));
	ASSERT_TRUE(sm_waiter_done(&self->w[0]));
	EXPECT_EQ(3, sm_wake(&self->f, 3, SM_PRIVATE));
	for (i = 1; i < 4; i++)
		ASSERT_TRUE(sm_waiter_done(&self->w[i]));
	SM_ASSERT_DONE(self->w, NW, 4);
	for (i = 4; i < NW; i++)
		EXPECT_EQ('S', sm_task_state(getpid(), self->w[i].tid));
	EXPECT_EQ(NW - 4, sm_wake(&self->f, INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(self->w, NW, 0);
	EXPECT_EQ(0, sm_wake(&self->f, INT_MAX, SM_PRIVATE));
	SM_EXPECT_PARKS(&self->env, NW);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* Several hundred waiters, woken in lots of different size. */
TEST_F(futex, wake_lots)
{
	enum { NR = 300 };
	struct sm_sleepers s;
	long lot, woken = 0;

	ASSERT_EQ(NR, sm_sleepers_create(&s, NR, false));
	ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
	ASSERT_TRUE(sm_wait_parked(&self->env, NR));
	for (lot = 1; woken < NR; lot++) {
		ASSERT_EQ(lot < NR - woken ? lot : NR - woken,
			  sm_wake(&s.futex, lot, SM_PRIVATE));
		woken += lot < NR - woken ? lot : NR - woken;
		ASSERT_TRUE(sm_wait_until(sm_load(&s.returned) == woken));
		if (lot % 8 == 0)
			sm_settle();
		ASSERT_EQ(woken, sm_load(&s.returned));
	}
	EXPECT_EQ(NR, sm_sleepers_reap(&s));
	SM_EXPECT_NONE_PARKED(&self->env);
}

TEST_F(futex, futex2_wait)
{
	static const int f2_flags[] = { FUTEX2_SIZE_U32, PRIVATE2 };
	int i;

	for (i = 0; i < ARRAY_SIZE(f2_flags); i++) {
		sm_call(self->w, __NR_futex_wait, &self->f, 0, 0x10, f2_flags[i]);
		sm_call(&self->w[1], __NR_futex_wait, &self->f, 0, 0x20, f2_flags[i]);
		ASSERT_TRUE(sm_start_all(&self->env, self->w, 2));
		EXPECT_EQ(0, sm_sys(__NR_futex_wake, &self->f, 0x1, 10, f2_flags[i]));
		EXPECT_EQ(0, sm_sys(__NR_futex_wake, &self->f, ~0U, 0, f2_flags[i]));
		SM_EXPECT_WAITS(self->w, 2);
		EXPECT_EQ(1, sm_sys(__NR_futex_wake, &self->f, 0x20, 10, f2_flags[i]));
		ASSERT_TRUE(sm_waiter_done(&self->w[1]));
		EXPECT_EQ(0, sm_load(&self->w[0].done));
		EXPECT_EQ(1, sm_sys(__NR_futex_wake, &self->f, ~0U, 10, f2_flags[i]));
		SM_JOIN_ALL(self->w, 2, 0);
	}
}

/* The index of the one that was woken, for vectors of all sizes. */
TEST_F(futex, waitv_index)
{
	static const int sizes[] = { 1, 2, 3, 17, 64, 127, 128 };
	struct futex_waitv wv[128];
	uint32_t f[128];
	int i, j, k, n, pick[3];

	for (i = 0; i < 128; i++)
		f[i] = i * 3;
	for (k = 0; k < ARRAY_SIZE(sizes); k++) {
		n = sizes[k];
		pick[0] = 0;
		pick[1] = n / 2;
		pick[2] = n - 1;
		for (j = 0; j < 3; j++) {
			waitv_set(wv, f, n);
			sm_call(self->w, __NR_futex_waitv, wv, n);
			ASSERT_TRUE(sm_start(&self->env, self->w));
			EXPECT_EQ(1, sm_wake(&f[pick[j]], 10, SM_PRIVATE));
			SM_JOIN(self->w, pick[j]);
			/* All the others have been taken off. */
			for (i = 0; i < n; i++)
				EXPECT_EQ(0, sm_wake(&f[i], 10, SM_PRIVATE));
		}
	}
}

static long wake_op(void *uaddr, void *uaddr2, int nr, int nr2, int op)
{
	return sm_sys(__NR_futex, uaddr, FUTEX_WAKE_OP | SM_PRIVATE, nr, nr2, uaddr2, op);
}

/*
 * Two futexes of a vector woken by one call, before the waiter can run: the
 * last index is what comes back, and both wakes are counted.
 */
TEST_F(futex, waitv_two_at_once)
{
	struct futex_waitv wv[16];
	uint32_t f[16] = { 0 };
	int op = FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0);
	int i;

	for (i = 0; i < 10; i++) {
		waitv_set(wv, f, 16);
		sm_call(self->w, __NR_futex_waitv, wv, 16);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		EXPECT_EQ(2, wake_op(&f[i % 2 ? 11 : 4], &f[i % 2 ? 4 : 11], 1, 1, op));
		SM_JOIN(self->w, 11);
	}
}

/* The same futex several times in one vector, and several waiters on it. */
TEST_F(futex, waitv_same_futex)
{
	struct futex_waitv wv[4];
	uint32_t f[4] = { 0 };
	int i;

	waitv_set(wv, f, 4);
	for (i = 1; i < 4; i++)
		wv[i].uaddr = wv[0].uaddr;
	sm_call(self->w, __NR_futex_waitv, wv, 4);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	EXPECT_EQ(4, sm_nr_waiters(&f[0], SM_PRIVATE));
	EXPECT_EQ(4, sm_wake(&f[0], INT_MAX, SM_PRIVATE));
	SM_JOIN(self->w, 3);
	EXPECT_EQ(0, sm_wake(&f[0], INT_MAX, SM_PRIVATE));
}

TEST_F(futex, waitv_timeout)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME };
	struct futex_waitv wv[128];
	uint32_t f[128] = { 0 };
	struct timespec ts;
	int64_t deadline;
	int c, n;

	for (c = 0; c < 2; c++) {
		for (n = 1; n <= 128; n += 127) {
			sm_rebase(&self->env);
			waitv_set(wv, f, n);
			deadline = sm_clock_ns(clocks[c]) + sm_soon_ns();
			ts = sm_ts(deadline);
			sm_call(self->w, __NR_futex_waitv, wv, n, 0, &ts, clocks[c]);
			ASSERT_EQ(0, sm_waiter_run(&self->w[0]));
			SM_JOIN(self->w, -ETIMEDOUT);
			EXPECT_GE(sm_clock_ns(clocks[c]), deadline);
			EXPECT_LT(sm_clock_ns(clocks[c]), deadline + sm_late_ns());
			EXPECT_EQ(0, sm_wake(&f[n - 1], 1, SM_PRIVATE));
			SM_EXPECT_PARKS(&self->env, 1);
		}
	}
}

/* Private and shared futexes in one vector. */
TEST_F(futex, waitv_mixed)
{
	uint32_t *shared = sm_shared_alloc(4096);
	struct futex_waitv wv[3] = {
		{ .uaddr = (uintptr_t)&self->f, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG },
		{ .uaddr = (uintptr_t)shared, .flags = FUTEX_32 },
		{ .uaddr = (uintptr_t)&self->f2, .flags = FUTEX_32 },
	};
	int i;

	ASSERT_NE(NULL, shared);
	for (i = 0; i < 3; i++) {
		sm_call(self->w, __NR_futex_waitv, wv, 3);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		EXPECT_EQ(0, sm_wake(shared, 1, SM_PRIVATE));
		EXPECT_EQ(1, sm_wake((void *)(uintptr_t)wv[i].uaddr, 1,
				     i ? SM_SHARED : SM_PRIVATE));
		SM_JOIN(self->w, i);
	}
}

/*
 * What the classic call has read it does not read again: the vector and the
 * time-out may be overwritten, even unmapped, while it sleeps.
 */
TEST_F(futex, arguments_read_once)
{
	struct {
		struct futex_waitv wv[4];
		struct timespec late, soon;
	} *page = sm_pages(4096);
	uint32_t f[4] = { 0 };
	int64_t start_ns;

	ASSERT_NE(NULL, page);
	waitv_set(page->wv, f, 4);
	page->late = sm_ts(sm_now_ns() + 3600 * SM_SEC);
	page->soon = sm_ts(sm_slow() * SM_SEC);
	sm_call(self->w, __NR_futex_waitv, page->wv, 4, 0, &page->late, CLOCK_MONOTONIC);
	sm_call(&self->w[1], __NR_futex, &self->f, FUTEX_WAIT | SM_PRIVATE, 0, &page->soon);
	start_ns = sm_now_ns();
	ASSERT_TRUE(sm_start_all(&self->env, self->w, 2));
	memset(page, 0xff, 4096);
	munmap(page, 4096);

	EXPECT_EQ(1, sm_wake(&f[2], 1, SM_PRIVATE));
	SM_JOIN(self->w, 2);
	SM_JOIN(&self->w[1], -ETIMEDOUT);
	EXPECT_GE(sm_now_ns() - start_ns, sm_slow() * SM_SEC);
}

static long requeue(void *from, void *to, int wake, int move, int flag)
{
	return sm_sys(__NR_futex, from, FUTEX_REQUEUE | flag, wake, move, to);
}

static long cmp_requeue(void *from, void *to, int wake, int move, uint32_t val, int flag)
{
	return sm_sys(__NR_futex, from, FUTEX_CMP_REQUEUE | flag, wake, move, to, val);
}

/* From one futex to another while parked: counts, order, who is left. */
TEST_F(futex, requeue)
{
	unsigned int i;
	int j;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		sm_rebase(&self->env);
		ASSERT_TRUE(start_on(&self->env, self->w, NW, &self->f, flags[i]));
		EXPECT_EQ(-EAGAIN, cmp_requeue(&self->f, &self->f2, 1, 3, 99, flags[i]));
		EXPECT_EQ(NW, sm_nr_waiters(&self->f, flags[i]));

		/* One is woken, three move; both are counted. */
		EXPECT_EQ(4, cmp_requeue(&self->f, &self->f2, 1, 3, 0, flags[i]));
		ASSERT_TRUE(sm_waiter_done(&self->w[0]));
		EXPECT_EQ(NW - 4, sm_nr_waiters(&self->f, flags[i]));
		EXPECT_EQ(3, sm_nr_waiters(&self->f2, flags[i]));

		EXPECT_EQ(2, requeue(&self->f, &self->f3, 0, 2, flags[i]));
		SM_ASSERT_DONE(self->w, NW, 1);

		/* 1, 2, 3 are on f2; 4, 5 on f3; the others on f. */
		EXPECT_EQ(1, sm_wake(&self->f2, 1, flags[i]));
		ASSERT_TRUE(sm_waiter_done(&self->w[1]));
		EXPECT_EQ(2, sm_wake(&self->f3, INT_MAX, flags[i]));
		ASSERT_TRUE(sm_waiter_done(&self->w[4]));
		ASSERT_TRUE(sm_waiter_done(&self->w[5]));
		EXPECT_EQ(NW - 6, sm_wake(&self->f, INT_MAX, flags[i]));
		for (j = 6; j < NW; j++)
			ASSERT_TRUE(sm_waiter_done(&self->w[j]));
		EXPECT_EQ(NW - 2, sm_nr_done(self->w, NW));
		EXPECT_EQ(2, sm_wake(&self->f2, INT_MAX, flags[i]));
		SM_JOIN_ALL(self->w, NW, 0);
	}
}

/* Round and round; nobody gets lost or woken on the way. */
TEST_F(futex, requeue_chain)
{
	uint32_t *f[3] = { &self->f, &self->f2, &self->f3 };
	long i, n = 100 / sm_slow() + 10;

	ASSERT_TRUE(start_on(&self->env, self->w, NW, f[0], SM_PRIVATE));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(NW, requeue(f[i % 3], f[(i + 1) % 3], 0, INT_MAX, SM_PRIVATE));
		EXPECT_EQ(0, sm_wake(f[i % 3], INT_MAX, SM_PRIVATE));
	}
	SM_EXPECT_WAITS(self->w, NW);
	EXPECT_EQ(NW, sm_wake(f[n % 3], INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(self->w, NW, 0);
}

/* The time-out goes along. */
TEST_F(futex, requeue_timeout)
{
	int64_t ns = 400 * SM_MSEC * sm_slow();
	struct timespec ts = sm_ts(ns);
	int i;

	for (i = 0; i < 4; i++)
		form_set(self, &self->w[i], &forms[0], &ts);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, 4));
	EXPECT_EQ(4, requeue(&self->f, &self->f2, 0, INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(self->w, 4, -ETIMEDOUT);
	for (i = 0; i < 4; i++)
		EXPECT_GE(sm_waiter_ns(&self->w[i]), ns);
	EXPECT_EQ(0, sm_wake(&self->f, INT_MAX, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(&self->f2, INT_MAX, SM_PRIVATE));
}

TEST_F(futex, futex2_requeue)
{
	struct futex_waitv wv[2];
	uint32_t f[2] = { 0 };

	waitv_set(wv, f, 2);
	ASSERT_TRUE(start_on(&self->env, self->w, 4, &f[0], SM_PRIVATE));
	wv[0].val = 5;
	EXPECT_EQ(-EAGAIN, sm_sys(__NR_futex_requeue, wv, 0, 1, 2));
	wv[0].val = 0;
	EXPECT_EQ(-EINVAL, sm_sys(__NR_futex_requeue, wv, 1, 1, 2));
	EXPECT_EQ(3, sm_sys(__NR_futex_requeue, wv, 0, 1, 2));
	ASSERT_TRUE(sm_waiter_done(&self->w[0]));
	EXPECT_EQ(2, sm_wake(&f[1], INT_MAX, SM_PRIVATE));
	EXPECT_EQ(1, sm_wake(&f[0], INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(self->w, 4, 0);
}

/* A vector waiter may be moved, too: the index is that of where it was. */
TEST_F(futex, requeue_waitv)
{
	struct futex_waitv wv[3];
	uint32_t f[3] = { 0 };

	waitv_set(wv, f, 3);
	sm_call(self->w, __NR_futex_waitv, wv, 3);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	EXPECT_EQ(1, requeue(&f[1], &self->f, 0, 1, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(&f[1], 1, SM_PRIVATE));
	EXPECT_EQ(1, sm_wake(&self->f, 1, SM_PRIVATE));
	SM_JOIN(self->w, 1);
	EXPECT_EQ(0, sm_wake(&f[0], 1, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(&f[2], 1, SM_PRIVATE));
}

TEST_F(futex, wake_op)
{
	/* *f2 = 7, and wake f2 as well if it was below 5 */
	int op = FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_LT, 5);

	ASSERT_TRUE(start_on(&self->env, self->w, 4, &self->f, SM_PRIVATE));
	ASSERT_TRUE(start_on(&self->env, self->w + 4, 4, &self->f2, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_parked(&self->env, 8));
	EXPECT_EQ(5, wake_op(&self->f, &self->f2, 3, 2, op));
	EXPECT_EQ(7, self->f2);
	ASSERT_TRUE(sm_waiter_done(&self->w[2]));
	ASSERT_TRUE(sm_waiter_done(&self->w[5]));
	SM_ASSERT_DONE(self->w, 8, 5);
	/* 7 is not below 5: only f */
	EXPECT_EQ(1, wake_op(&self->f, &self->f2, 3, 2, op));
	ASSERT_TRUE(sm_waiter_done(&self->w[3]));
	EXPECT_EQ(6, sm_nr_done(self->w, 8));
	EXPECT_EQ(2, sm_wake(&self->f2, INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(self->w, 8, 0);
}

/* ---------------------------------------------------- shared memory */

/*
 * A child process waits on @child_addr in memory that both share, the parent
 * wakes it through @addr, then the other way round.
 */
static void cross_process(struct __test_metadata *_metadata,
			  struct sm_env *env, uint32_t *addr,
			  uint32_t *child_addr)
{
	struct sm_waiter *w = sm_shared_alloc(sizeof(*w));
	pid_t pid;

	ASSERT_NE(NULL, w);
	sm_rebase(env);
	pid = SM_FORK();
	if (!pid) {
		sm_call(w, __NR_futex, child_addr, FUTEX_WAIT);
		sm_waiter_fn(w);
		/* The parent will wait on the next word for this. */
		sm_wait_until(sm_wake(child_addr + 1, 1, SM_SHARED) == 1);
		_exit(w->ret ? 1 : 0);
	}
	ASSERT_TRUE(sm_wait_asleep(env, pid, w, 1));
	EXPECT_EQ(0, sm_wake(addr, 1, SM_PRIVATE));
	EXPECT_EQ(1, sm_wake(addr, 1, SM_SHARED));
	EXPECT_EQ(0, sm_wait_ns(addr + 1, 0, SM_SHARED, sm_patience_ns()));
	SM_EXPECT_STATUS(0, pid);
	SM_EXPECT_PARKS(env, 1);
	munmap(w, sizeof(*w));
}

TEST_F(futex, shared_anonymous)
{
	uint32_t *f = sm_shared_alloc(4096);

	ASSERT_NE(NULL, f);
	cross_process(_metadata, &self->env, f, f);
}

/* The same page at two addresses: the second one of @fd, and the first one */
static void shared_page(struct __test_metadata *_metadata, struct sm_env *env, int fd)
{
	uint32_t *a, *b;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 8192));
	a = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
	ASSERT_NE(MAP_FAILED, (void *)a);
	ASSERT_NE(MAP_FAILED, (void *)b);
	cross_process(_metadata, env, a + 1024, b);
}

TEST_F(futex, shared_memfd)
{
	shared_page(_metadata, &self->env, memfd_create("stackmux", MFD_CLOEXEC));
}

TEST_F(futex, shared_file)
{
	char name[] = "/tmp/stackmux-futex-XXXXXX";
	int fd = mkstemp(name);

	unlink(name);
	shared_page(_metadata, &self->env, fd);
}

/* ------------------------------------------------------------- signals */

/* Signals nobody handles, and wake-ups that bring nothing, are not seen. */
TEST_F(futex, ignored_signals)
{
	static const int sigs[] = { SIGCHLD, SIGURG, SIGWINCH, SIGCONT };
	struct timespec ts = sm_ts(3600 * SM_SEC);
	struct sm_waiter *w = self->w;
	int i, j;

	signal(SIGUSR2, SIG_IGN);
	waitv_set(&self->wv, &self->f, 1);
	sm_call(&w[0], __NR_futex, &self->f, FUTEX_WAIT | SM_PRIVATE);
	sm_call(&w[1], __NR_futex, &self->f, FUTEX_WAIT | SM_PRIVATE, 0, &ts);
	sm_call(&w[2], __NR_futex_waitv, &self->wv, 1);
	ASSERT_TRUE(sm_start_all(&self->env, w, 3));
	for (j = 0; j < 5; j++) {
		for (i = 0; i < ARRAY_SIZE(sigs); i++) {
			EXPECT_EQ(0, sm_signal(&w[j % 3], sigs[i]));
			EXPECT_EQ(0, kill(getpid(), sigs[i]));
		}
		EXPECT_EQ(0, sm_signal(&w[j % 3], SIGUSR2));
	}
	SM_EXPECT_WAITS(w, 3);
	ASSERT_TRUE(sm_asleep(&self->env, w, 3));
	EXPECT_EQ(3, sm_wake(&self->f, INT_MAX, SM_PRIVATE));
	SM_JOIN_ALL(w, 3, 0);
}

/* A signal that the thread has blocked does not end its wait. */
static void block_usr1(struct sm_waiter *w)
{
	sm_mask_set(sm_bit(SIGUSR1));
}

static void unblock_usr1(struct sm_waiter *w)
{
	w->data = (void *)(long)sm_load(&sm_handled);
	sm_mask_set(0);
}

TEST_F(futex, blocked_signal)
{
	sm_handle(SIGUSR1, 0);
	self->w->before = block_usr1;
	self->w->after = unblock_usr1;
	ASSERT_TRUE(start_one(self, SM_PRIVATE));
	EXPECT_EQ(0, sm_signal(self->w, SIGUSR1));
	SM_EXPECT_WAITS(self->w, 1);
	EXPECT_EQ(1, sm_wake(&self->f, 1, SM_PRIVATE));
	SM_JOIN(self->w, 0);
	EXPECT_EQ(NULL, self->w->data);
	EXPECT_EQ(1, sm_load(&sm_handled));
}

/* What a handled signal does to @f, with a time-out or without */
static void handled_signal(struct __test_metadata *_metadata, FIXTURE_DATA(futex) *self,
			   const struct form *f, const struct timespec *ts, bool restart)
{
	/* futex() with a time-out is not restarted after a handler. */
	bool restarts = restart && (f->nr != __NR_futex || !ts);
	struct sm_waiter *w = self->w;
	int i;

	sm_handle(SIGUSR1, restart ? SA_RESTART : 0);
	form_set(self, w, f, ts);
	ASSERT_TRUE(sm_start(&self->env, w));
	for (i = 1; restarts && i <= 5; i++) {
		EXPECT_EQ(0, sm_signal(w, SIGUSR1));
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == i));
		/* It goes to sleep again. */
		ASSERT_TRUE(sm_wait_queued(&self->f, SM_PRIVATE, 1));
		ASSERT_TRUE(sm_asleep(&self->env, w, 1));
	}
	if (restarts) {
		EXPECT_EQ(1, sm_wake(&self->f, 1, SM_PRIVATE));
		SM_EXPECT_PARKS(&self->env, 6);
	} else {
		EXPECT_EQ(0, sm_signal(w, SIGUSR1));
	}
	ASSERT_TRUE(sm_waiter_join(w));
	EXPECT_EQ(restarts ? 0 : -EINTR, w->ret) {
		TH_LOG("%s, time-out %d, restart %d", f->name, !!ts, restart);
	}
	EXPECT_EQ(restarts ? 5 : 1, sm_load(&sm_handled));
	EXPECT_EQ(0, sm_wake(&self->f, 1, SM_PRIVATE));
}

TEST_F(futex, handled_signal)
{
	const struct form *f;
	struct timespec ts;
	int restart;

	for_each_form(f) {
		for (restart = 0; restart < 2; restart++) {
			ts = sm_ts((f->absolute ? sm_clock_ns(f->clock) : 0) + 3600 * SM_SEC);
			handled_signal(_metadata, self, f, &ts, restart);
			handled_signal(_metadata, self, f, NULL, restart);
		}
	}
}

static uint32_t *handler_word;

static void change_handler(int sig)
{
	sm_store(handler_word, 1);
}

/* A restarted call looks at the value again. */
TEST_F(futex, restart_sees_new_value)
{
	struct sigaction sa = { .sa_handler = change_handler, .sa_flags = SA_RESTART };

	handler_word = &self->f;
	sigaction(SIGUSR1, &sa, NULL);
	ASSERT_TRUE(start_one(self, SM_PRIVATE));
	EXPECT_EQ(0, sm_signal(self->w, SIGUSR1));
	SM_JOIN(self->w, -EAGAIN);
}

/* A restarted call waits where its arguments say, not where it was moved. */
TEST_F(futex, restart_after_requeue)
{
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_TRUE(start_one(self, SM_PRIVATE));
	EXPECT_EQ(1, requeue(&self->f, &self->f2, 0, 1, SM_PRIVATE));
	EXPECT_EQ(0, sm_signal(self->w, SIGUSR1));
	ASSERT_TRUE(sm_wait_queued(&self->f, SM_PRIVATE, 1));
	EXPECT_EQ(0, sm_wake(&self->f2, 1, SM_PRIVATE));
	EXPECT_EQ(1, sm_wake(&self->f, 1, SM_PRIVATE));
	SM_JOIN(self->w, 0);
}

/*
 * A wait with a time-out, interrupted again and again for as long as it
 * lasts: were the time to start anew each time, it would never end.
 */
static void remaining_time(struct __test_metadata *_metadata,
			   struct sm_env *env, long nr, int op, bool absolute)
{
	const int64_t ns = 500 * SM_MSEC * sm_slow();
	struct sm_waiter *w = sm_shared_alloc(sizeof(*w));
	uint32_t *f = sm_shared_alloc(4096);
	int64_t *deadline = (int64_t *)(f + 16);
	int64_t end = sm_now_ns() + ns + sm_late_ns() + 5 * SM_SEC;
	struct timespec ts;
	int status, rounds = 0;
	pid_t pid;

	ASSERT_NE(NULL, w);
	ASSERT_NE(NULL, f);
	sm_rebase(env);
	pid = SM_FORK();
	if (!pid) {
		*deadline = sm_now_ns() + ns;
		ts = sm_ts(absolute ? *deadline : ns);
		if (nr == __NR_futex)
			sm_call(w, nr, f, op, 0, &ts, 0, ~0U);
		else
			sm_call(w, nr, f, 0, ~0U, FUTEX2_SIZE_U32, &ts, CLOCK_MONOTONIC);
		sm_waiter_fn(w);
		_exit(0);
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&w->entered)));
	while (!sm_load(&w->done) && sm_now_ns() < end) {
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		if (waitpid(pid, &status, WUNTRACED) != pid)
			break;
		if (!WIFSTOPPED(status)) {
			EXPECT_TRUE(WIFEXITED(status));
			pid = 0;
			break;
		}
		ASSERT_EQ(0, kill(pid, SIGCONT));
		rounds++;
		sm_sleep_ms(20);
	}
	EXPECT_TRUE(sm_load(&w->done)) {
		TH_LOG("still waiting after %d stops", rounds);
	}
	if (pid) {
		kill(pid, SIGCONT);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
	}
	EXPECT_EQ(-ETIMEDOUT, w->ret);
	EXPECT_GE(w->end_ns, *deadline);
	if (!absolute)
		EXPECT_GE(sm_waiter_ns(w), ns);
	EXPECT_GT(rounds, 0);
	SM_EXPECT_PARKS(env, 1);
}

TEST_F_TIMEOUT(futex, remaining_time_relative, 60)
{
	remaining_time(_metadata, &self->env, __NR_futex, FUTEX_WAIT, false);
}

TEST_F_TIMEOUT(futex, remaining_time_absolute, 60)
{
	remaining_time(_metadata, &self->env, __NR_futex, FUTEX_WAIT_BITSET, true);
}

TEST_F_TIMEOUT(futex, remaining_time_futex2, 60)
{
	remaining_time(_metadata, &self->env, __NR_futex_wait, 0, true);
}

/* ------------------------------------------ owners, cancellation, libc */

struct robust_arg {
	struct robust_list_head head;
	struct robust_list node;
	uint32_t futex;
	uint32_t go;
};

static void *robust_owner(void *p)
{
	struct robust_arg *r = p;

	r->head.list.next = &r->node;
	r->head.futex_offset = offsetof(struct robust_arg, futex) -
			       offsetof(struct robust_arg, node);
	r->head.list_op_pending = NULL;
	r->node.next = &r->head.list;
	sm_store(&r->futex, sm_gettid());
	syscall(__NR_set_robust_list, &r->head, sizeof(r->head));
	sm_wait(&r->go, 0, SM_PRIVATE);
	/* Leave without libc, which would clear the list. */
	syscall(__NR_exit, 0);
	return NULL;
}

/* The owner dies: its robust futex is marked and one waiter is woken. */
TEST_F(futex, robust_owner_death)
{
	struct robust_arg *r = calloc(1, sizeof(*r));
	uint32_t val;
	pthread_t t;
	int i;

	ASSERT_EQ(0, sm_thread(&t, robust_owner, r));
	ASSERT_TRUE(sm_wait_queued(&r->go, SM_PRIVATE, 1));
	val = __atomic_or_fetch(&r->futex, FUTEX_WAITERS, __ATOMIC_SEQ_CST);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, sm_waiter_futex(&self->w[i], &r->futex, val, SM_SHARED));
	ASSERT_TRUE(sm_wait_asleep(&self->env, getpid(), self->w, 3));
	sm_store(&r->go, 1);
	EXPECT_EQ(1, sm_wake(&r->go, 1, SM_PRIVATE));
	SM_ASSERT_DONE(self->w, 3, 1);
	EXPECT_EQ(FUTEX_OWNER_DIED | FUTEX_WAITERS, sm_load(&r->futex));
	EXPECT_EQ(2, sm_wake(&r->futex, INT_MAX, SM_SHARED));
	SM_JOIN_ALL(self->w, 3, 0);
}

/* libc's own primitives, all at once. */
struct libc_arg {
	pthread_mutex_t mutex, pi;
	pthread_cond_t more, less;
	pthread_barrier_t barrier;
	pthread_rwlock_t rwlock;
	long rounds;
	long produced, consumed, queue, pi_count;
};

static void libc_thread(struct libc_arg *a, bool produce)
{
	long i;

	pthread_barrier_wait(&a->barrier);
	for (i = 0; i < a->rounds; i++) {
		pthread_mutex_lock(&a->mutex);
		while (produce ? a->queue >= 3 : !a->queue)
			pthread_cond_wait(produce ? &a->less : &a->more, &a->mutex);
		a->queue += produce ? 1 : -1;
		a->produced += produce;
		a->consumed += !produce;
		pthread_cond_signal(produce ? &a->more : &a->less);
		pthread_mutex_unlock(&a->mutex);

		if (produce)
			pthread_rwlock_wrlock(&a->rwlock);
		else
			pthread_rwlock_rdlock(&a->rwlock);
		pthread_rwlock_unlock(&a->rwlock);
		pthread_mutex_lock(&a->pi);
		a->pi_count++;
		pthread_mutex_unlock(&a->pi);
	}
	pthread_barrier_wait(&a->barrier);
}

static void *libc_producer(void *arg)
{
	libc_thread(arg, true);
	return NULL;
}

static void *libc_consumer(void *arg)
{
	libc_thread(arg, false);
	return NULL;
}

TEST_F_TIMEOUT(futex, pthread_primitives, 60)
{
	struct libc_arg a = {
		.mutex = PTHREAD_MUTEX_INITIALIZER,
		.more = PTHREAD_COND_INITIALIZER,
		.less = PTHREAD_COND_INITIALIZER,
		.rwlock = PTHREAD_RWLOCK_INITIALIZER,
		.rounds = sm_rounds(400),
	};
	pthread_mutexattr_t attr;
	pthread_t t[8];
	int i;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&a.pi, &attr);
	pthread_barrier_init(&a.barrier, NULL, 8);
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, sm_thread(&t[i], i % 2 ? libc_producer : libc_consumer, &a));
	sm_threads_join(t, 8);
	EXPECT_EQ(4 * a.rounds, a.produced);
	EXPECT_EQ(4 * a.rounds, a.consumed);
	EXPECT_EQ(0, a.queue);
	EXPECT_EQ(8 * a.rounds, a.pi_count);
	SM_EXPECT_PARKS(&self->env, 8);
}

/* -------------------------------------------------- memory that goes away */

/*
 * A private futex is an address: the wait goes on though the page is gone,
 * and a wake at the address still finds it.
 */
TEST_F(futex, unmap_while_waiting)
{
	uint32_t *page = sm_pages(4096);

	ASSERT_NE(NULL, page);
	ASSERT_TRUE(start_on(&self->env, self->w, 1, page, SM_PRIVATE));
	ASSERT_EQ(0, munmap(page, 4096));
	SM_EXPECT_WAITS(self->w, 1);
	EXPECT_EQ(1, sm_wake(page, 1, SM_PRIVATE));
	SM_JOIN(self->w, 0);
}

/* The call that a signal restarts finds no page. */
TEST_F(futex, unmap_then_restart)
{
	uint32_t *page = sm_pages(4096);

	ASSERT_NE(NULL, page);
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_TRUE(start_on(&self->env, self->w, 1, page, SM_PRIVATE));
	ASSERT_EQ(0, munmap(page, 4096));
	EXPECT_EQ(0, sm_signal(self->w, SIGUSR1));
	SM_JOIN(self->w, -EFAULT);
}

/* After a move: a private futex stays behind, a shared one goes along. */
TEST_F(futex, mremap_while_waiting)
{
	char *from, *to, *target;
	int shared;

	for (shared = 0; shared < 2; shared++) {
		sm_rebase(&self->env);
		from = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_ANONYMOUS |
			    (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
		target = sm_no_access();
		ASSERT_NE(MAP_FAILED, from);
		ASSERT_NE(NULL, target);
		ASSERT_TRUE(start_on(&self->env, self->w, 1, (void *)from,
				     shared ? SM_SHARED : SM_PRIVATE));
		to = mremap(from, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, target);
		ASSERT_EQ(target, to);
		if (shared) {
			EXPECT_EQ(-EFAULT, sm_wake(from, 1, SM_SHARED));
			EXPECT_EQ(1, sm_wake(to, 1, SM_SHARED));
		} else {
			EXPECT_EQ(0, sm_wake(to, 1, SM_PRIVATE));
			EXPECT_EQ(1, sm_wake(from, 1, SM_PRIVATE));
		}
		SM_JOIN(self->w, 0);
		munmap(to, 4096);
	}
}

/* The file that carries a shared futex is truncated meanwhile. */
TEST_F(futex, truncate_while_waiting)
{
	uint32_t *f;
	int fd;

	fd = memfd_create("stackmux", MFD_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 4096));
	f = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)f);
	ASSERT_TRUE(start_on(&self->env, self->w, 1, f, SM_SHARED));
	ASSERT_EQ(0, ftruncate(fd, 0));
	SM_EXPECT_WAITS(self->w, 1);
	ASSERT_EQ(0, ftruncate(fd, 4096));
	EXPECT_EQ(1, sm_wake(f, 1, SM_SHARED));
	SM_JOIN(self->w, 0);
}

/* -------------------------------------------------- 32-bit system calls */

#define NR32_FUTEX_TIME64	422

static long syscall32(long nr, long a1, long a2, long a3, long a4, long a5)
{
	long ret;

	asm volatile("int $0x80"
		     : "=a" (ret)
		     : "0" (nr), "b" (a1), "c" (a2), "d" (a3), "S" (a4),
		       "D" (a5)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

struct wait32 {
	uint32_t futex[2];
	int64_t ts[2];		/* struct __kernel_timespec */
	long ret;
	pid_t tid;
	int entered, done;
};

static void *wait32_fn(void *p)
{
	struct wait32 *w = p;

	sm_store(&w->tid, sm_gettid());
	sm_store(&w->entered, 1);
	w->ret = syscall32(NR32_FUTEX_TIME64, (long)&w->futex[0],
			   FUTEX_WAIT | SM_PRIVATE, 0,
			   w->ts[0] || w->ts[1] ? (long)w->ts : 0, 0);
	sm_store(&w->done, 1);
	return NULL;
}

/* int $0x80 from a 64-bit program takes another way in and out. */
TEST_F(futex, compat_entry)
{
	struct wait32 *w;
	pthread_t t;
	int status;
	pid_t pid;

	w = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)w);
	pid = SM_FORK();
	if (!pid)
		_exit(syscall32(20 /* getpid */, 0, 0, 0, 0, 0) != getpid());
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	if (status)
		SKIP(return, "this kernel has no 32-bit system calls");

	ASSERT_EQ(0, sm_thread(&t, wait32_fn, w));
	ASSERT_TRUE(sm_wait_until(sm_load(&w->entered)));
	ASSERT_TRUE(sm_wait_until(sm_task_state(getpid(), w->tid) == 'S'));
	EXPECT_EQ(0, sm_load(&w->done));
	ASSERT_TRUE(sm_wait_queued(&w->futex[0], SM_PRIVATE, 1));
	EXPECT_EQ(1, sm_wake(&w->futex[0], 1, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_until(sm_load(&w->done)));
	pthread_join(t, NULL);
	EXPECT_EQ(0, w->ret);

	memset(w, 0, sizeof(*w));
	w->ts[1] = 50 * SM_MSEC;
	ASSERT_EQ(0, sm_thread(&t, wait32_fn, w));
	ASSERT_TRUE(sm_wait_until(sm_load(&w->done)));
	pthread_join(t, NULL);
	EXPECT_EQ(-ETIMEDOUT, w->ret);
}

SM_MAIN(1);
