// SPDX-License-Identifier: GPL-2.0
/*
 * epoll_wait(), epoll_pwait() and epoll_pwait2(), in a process that parks and in
 * one that does not: results, and who of several waiters gets an event.
 */
#include "forms.h"

#define NC	8	/* calls at the same time */

FIXTURE(epoll) {
	struct sm_env env;
	struct call *c;
	int epfd;
	struct sm_chan ch[MANY];
};

SM_CLASSIC_AND_PARKED(epoll)

FIXTURE_SETUP(epoll)
{
	int i;

	sm_setup(_metadata, &self->env, variant->parked);
	self->c = sm_shared_alloc(NC * sizeof(*self->c));
	ASSERT_NE(NULL, self->c);
	ASSERT_EQ(0, sm_allow_files(4096));
	self->epfd = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_GE(self->epfd, 0);
	for (i = 0; i < NC; i++) {
		fill(&self->c[i], NULL, 0);
		self->c[i].own_epfd = false;
		self->c[i].epfd = self->epfd;
	}
}

/* Open so many channels, and have the epoll file watch them. */
static int members(FIXTURE_DATA(epoll) *self, int n, int kind, uint32_t events)
{
	return sm_chans_open(self->ch, n, kind) ?: epoll_add(self->epfd, self->ch, n, events);
}

/* One of them */
#define CTL(op, i, events, data)					\
	epoll_ctl_data(self->epfd, EPOLL_CTL_##op, self->ch[i].rd, events, data)

static bool all_asleep(struct sm_env *env, struct call *c, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (!sm_sleeps(&c[i].w))
			return false;
	return sm_wait_parked(env, n);
}

/* The call is to wait for another epoll file than that of the fixture. */
static struct call *on(struct call *c, int epfd)
{
	c->epfd = epfd;
	return c;
}

/* ------------------------------------------------------------------ events */

/* Reported for as long as it is there. */
TEST_F(epoll, level_triggered)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, members(self, 2, SM_PIPE, EPOLLIN));
	FOR_EPOLL_FORMS(form) {
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		ASSERT_TRUE(sm_chan_send(&self->ch[1]));
		EXPECT_ONE(c, 1, EPOLLIN);
		for (i = 0; i < 3; i++)
			EXPECT_EQ(1, call_now(c, form, NONE));
		EXPECT_TRUE(sm_chan_take(&self->ch[1]));
		EXPECT_EQ(0, call_now(c, form, 0));
	}
}

/* Reported once for each write, read or not. */
TEST_F(epoll, edge_triggered)
{
	struct call *c = self->c;
	int form, kind, i;

	for (kind = 0; kind < SM_NR_KINDS; kind++) {
		ASSERT_EQ(0, members(self, 2, kind, EPOLLIN | EPOLLET));
		FOR_EPOLL_FORMS(form) {
			for (i = 0; i < 3; i++) {
				ASSERT_TRUE(start(&self->env, c, form, NONE));
				ASSERT_TRUE(sm_chan_send(&self->ch[1]));
				EXPECT_ONE(c, 1, EPOLLIN);
				EXPECT_EQ(0, call_now(c, form, i * SM_MSEC));
			}
		}
		sm_chans_close(self->ch, 2);
	}
}

/* Reported once, until it is armed again; what is there is reported then. */
TEST_F(epoll, oneshot)
{
	struct call *c = self->c;
	int form;

	ASSERT_EQ(0, members(self, 1, SM_PIPE, EPOLLIN | EPOLLONESHOT));
	FOR_EPOLL_FORMS(form) {
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		EXPECT_ONE(c, 0, EPOLLIN);
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		ASSERT_EQ(0, CTL(MOD, 0, EPOLLIN | EPOLLONESHOT, 7));
		EXPECT_ONE(c, 7, EPOLLIN);
		EXPECT_TRUE(sm_chan_take(&self->ch[0]));
		EXPECT_TRUE(sm_chan_take(&self->ch[0]));
		ASSERT_EQ(0, CTL(MOD, 0, EPOLLIN | EPOLLONESHOT, 0));
	}
}

/* An epoll file in an epoll file, four deep, and one in poll(). */
TEST_F(epoll, nested)
{
	struct call *c = self->c;
	struct pollfd pfd;
	struct sm_waiter w = { 0 };
	int form, i, k, fd[4];

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_EVENTFD));
	for (i = 0; i < 4; i++) {
		fd[i] = epoll_create1(0);
		if (!i) {
			ASSERT_EQ(0, epoll_add(fd[i], self->ch, 2, EPOLLIN));
		} else {
			ASSERT_EQ(0, epoll_ctl_data(fd[i], EPOLL_CTL_ADD, fd[i - 1], EPOLLIN,
						    100 + i));
		}
	}
	FOR_EPOLL_FORMS(form) {
		/* Waiters at each level: each learns of it. */
		sm_rebase(&self->env);
		for (i = 0; i < 4; i++) {
			prepare(on(&self->c[i], fd[i]), form, NONE);
			ASSERT_EQ(0, sm_waiter_run(&self->c[i].w));
		}
		ASSERT_TRUE(all_asleep(&self->env, self->c, 4));
		sm_chan_send(&self->ch[1]);
		EXPECT_ONE(&self->c[0], 1, EPOLLIN);
		for (i = 1; i < 4; i++)
			EXPECT_ONE(&self->c[i], 100 + i, EPOLLIN);
		sm_chan_take(&self->ch[1]);

		for (k = 3; k >= 0; k--) {
			ASSERT_TRUE(start(&self->env, on(c, fd[k]), form, HOUR));
			sm_chan_send(&self->ch[1]);
			EXPECT_ONE(c, k ? 100 + k : 1, EPOLLIN);
			sm_chan_take(&self->ch[1]);
		}
	}
	pfd.fd = fd[2];
	pfd.events = POLLIN;
	sm_waiter_set(&w, __NR_poll, (long)&pfd, 1, -1, 0, 0, 0);
	ASSERT_TRUE(sm_start(&self->env, &w));
	sm_chan_send(&self->ch[0]);
	SM_JOIN(&w, 1);
	EXPECT_EQ(POLLIN, pfd.revents);
}

/* What is added, or changed, during the wait ends it if it is ready. */
TEST_F(epoll, ctl_while_waiting)
{
	struct call *c = self->c;
	int form;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	FOR_EPOLL_FORMS(form) {
		/* An empty set; a ready one is added */
		sm_chan_send(&self->ch[0]);
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		ASSERT_EQ(0, CTL(ADD, 1, EPOLLIN, 1));
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		ASSERT_EQ(0, CTL(ADD, 0, EPOLLIN, 0));
		EXPECT_ONE(c, 0, EPOLLIN);
		sm_chan_take(&self->ch[0]);

		/* Other events of one that is there */
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		ASSERT_EQ(0, CTL(MOD, 1, EPOLLOUT, 11));
		EXPECT_ONE(c, 11, EPOLLOUT);
		ASSERT_EQ(0, CTL(MOD, 1, EPOLLIN, 1));

		/* Added during the wait, ready after that */
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		ASSERT_EQ(0, CTL(ADD, 2, EPOLLIN, 2));
		/* Taken out */
		ASSERT_EQ(0, CTL(DEL, 1, 0, 0));
		sm_chan_send(&self->ch[1]);
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		sm_chan_send(&self->ch[2]);
		EXPECT_ONE(c, 2, EPOLLIN);
		sm_chan_take(&self->ch[1]);
		sm_chan_take(&self->ch[2]);
		ASSERT_EQ(0, CTL(DEL, 0, 0, 0));
		ASSERT_EQ(0, CTL(DEL, 2, 0, 0));
	}
}

/* The descriptor of the epoll file is closed, or becomes another file. */
TEST_F(epoll, closed_while_waiting)
{
	struct call *c = self->c;
	int form, how, epfd;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_PIPE));
	FOR_EPOLL_FORMS(form) {
		for (how = 0; how < 4; how++) {
			const int64_t ns = how & 1 ? 200 * SM_MSEC * sm_slow() : NONE;

			epfd = epoll_create1(0);
			ASSERT_EQ(0, epoll_add(epfd, self->ch, 2, EPOLLIN));
			ASSERT_TRUE(start(&self->env, on(c, epfd), form, ns));
			if (how & 2) {
				ASSERT_EQ(epfd, dup2(self->ch[0].rd, epfd));
			} else {
				close(epfd);
			}
			if (how & 1) {
				SM_JOIN(&c->w, 0);
				EXPECT_GE(sm_waiter_ns(&c->w), ns);
			} else {
				sm_settle();
				ASSERT_EQ(0, sm_load(&c->w.done));
				EXPECT_WOKEN(c, self->ch, 1);
			}
			if (how & 2)
				close(epfd);
		}
	}
}

/* A file that is closed for good leaves the set; one that is not stays. */
TEST_F(epoll, member_closed_while_waiting)
{
	struct call *c = self->c;
	int form, copy;

	signal(SIGPIPE, SIG_IGN);
	FOR_EPOLL_FORMS(form) {
		ASSERT_EQ(0, members(self, 3, SM_PIPE, EPOLLIN));
		copy = dup(self->ch[1].rd);
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		close(self->ch[0].rd);
		/* Unlike poll(), the wait does not hold the file. */
		EXPECT_FALSE(sm_chan_send(&self->ch[0]));
		EXPECT_EQ(EPIPE, errno);
		close(self->ch[1].rd);
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		ASSERT_TRUE(sm_chan_send(&self->ch[1]));
		EXPECT_ONE(c, 1, EPOLLIN);
		close(copy);
		close(self->ch[0].wr);
		close(self->ch[1].wr);
		sm_chan_close(&self->ch[2]);
	}
}

/* No more than asked for at a time; all of them in turn. */
TEST_F(epoll, maxevents)
{
	struct call *c = self->c;
	struct epoll_event ev[8];
	int form, i, k, seen;

	ASSERT_EQ(0, members(self, 5, SM_EVENTFD, EPOLLIN | EPOLLET));
	FOR_EPOLL_FORMS(form) {
		c->max = 2;
		prepare(c, form, NONE);
		ASSERT_TRUE(sm_start_pinned(&self->env, &c->w));
		ASSERT_EQ(0, sm_rt_begin());
		for (i = 0; i < 5; i++)
			sm_chan_send(&self->ch[i]);
		sm_rt_end();
		SM_JOIN(&c->w, 2);
		EXPECT_EQ(UNTOUCHED, c->events[2].events);
		seen = 1 << c->ev[0].data.u32 | 1 << c->ev[1].data.u32;
		EXPECT_EQ(2, look(self->epfd, ev, 2));
		seen |= 1 << ev[0].data.u32 | 1 << ev[1].data.u32;
		EXPECT_EQ(1, look(self->epfd, ev, 8));
		seen |= 1 << ev[0].data.u32;
		EXPECT_EQ(0x1f, seen);
		EXPECT_EQ(0, look(self->epfd, ev, 8));
		for (i = 0; i < 5; i++)
			sm_chan_take(&self->ch[i]);

		for (k = 0; k < 3; k++) {
			static const int bad[] = { -1, INT_MIN, INT_MAX };

			c->max = bad[k];
			EXPECT_EQ(-EINVAL, call_now(c, form, HOUR));
		}
	}
	EXPECT_EQ(-EINVAL, look(self->epfd, ev, 0));
}

/*
 * Nowhere to store the events: an error, but only if there is one, and it is
 * not lost.
 */
TEST_F(epoll, bad_events_pointer)
{
	static const uint32_t modes[] = {
		EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT,
	};
	struct call *c = self->c;
	struct epoll_event ev;
	int form, i, read_only;
	char *page;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		ASSERT_EQ(0, members(self, 1, SM_PIPE, modes[i]));
		FOR_EPOLL_FORMS(form) {
			for (read_only = 0; read_only < 2; read_only++) {
				page = sm_pages(4096);
				ASSERT_NE(NULL, page);
				c->ev = (void *)page;
				c->max = 4;
				ASSERT_TRUE(start(&self->env, c, form, HOUR));
				if (read_only)
					mprotect(page, 4096, PROT_READ);
				else
					munmap(page, 4096);
				ASSERT_TRUE(sm_chan_send(&self->ch[0]));
				SM_JOIN(&c->w, -EFAULT);
				EXPECT_EQ(1, look(self->epfd, &ev, 1));
				EXPECT_EQ(0, ev.data.u32);
				EXPECT_TRUE(sm_chan_take(&self->ch[0]));
				CTL(MOD, 0, modes[i], 0);
				EXPECT_EQ(0, look(self->epfd, &ev, 1));

				/* Time out with nowhere to store anything */
				EXPECT_EQ(0, call_now(c, form, 20 * SM_MSEC));
				munmap(page, 4096);
			}
		}
		sm_chans_close(self->ch, 1);
	}
	/* What is no user address is found at once. */
	c->ev = (void *)-4096L;
	FOR_EPOLL_FORMS(form)
		EXPECT_EQ(-EFAULT, call_now(c, form, HOUR));
}

/* Room for some of them: those are returned, the others stay. */
TEST_F(epoll, events_across_boundary)
{
	struct call *c = self->c;
	struct epoll_event ev[4];
	int form, i;
	char *page;

	ASSERT_EQ(0, members(self, 4, SM_EVENTFD, EPOLLIN | EPOLLET));
	page = sm_pages(8192);
	ASSERT_NE(NULL, page);
	munmap(page + 4096, 4096);
	FOR_EPOLL_FORMS(form) {
		c->ev = (void *)(page + 4096 - 3 * sizeof(*c->ev));
		c->max = 8;
		prepare(c, form, NONE);
		ASSERT_TRUE(sm_start_pinned(&self->env, &c->w));
		ASSERT_EQ(0, sm_rt_begin());
		for (i = 0; i < 4; i++)
			sm_chan_send(&self->ch[i]);
		sm_rt_end();
		SM_JOIN(&c->w, 3);
		EXPECT_EQ(1, look(self->epfd, ev, 4));
		EXPECT_EQ(6, ev[0].data.u32 + c->ev[0].data.u32 +
			  c->ev[1].data.u32 + c->ev[2].data.u32);
		for (i = 0; i < 4; i++)
			sm_chan_take(&self->ch[i]);
	}
}

TEST_F(epoll, errors)
{
	struct timespec bad_time[] = { { -1, 0 }, { 0, -1 }, { 0, 1000000000 } };
	struct call *c = self->c;
	int form, i;
	char *none;

	none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, none);
	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_EPOLL_FORMS(form) {
		EXPECT_EQ(-EBADF, call_now(on(c, -1), form, HOUR));
		EXPECT_EQ(-EBADF, call_now(on(c, 4000), form, HOUR));
		EXPECT_EQ(-EINVAL, call_now(on(c, self->ch[0].rd), form, HOUR));
		c->epfd = self->epfd;
		if (form == WAIT)
			continue;
		c->masked = true;
		prepare(c, form, HOUR);
		c->w.arg[5] = 7;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EINVAL, c->w.ret);
		prepare(c, form, HOUR);
		c->w.arg[4] = (long)none;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EFAULT, c->w.ret);
		c->masked = false;
	}
	prepare(c, PWAIT2, HOUR);
	c->w.arg[3] = (long)none;
	sm_waiter_fn(&c->w);
	EXPECT_EQ(-EFAULT, c->w.ret);
	for (i = 0; i < ARRAY_SIZE(bad_time); i++) {
		prepare(c, PWAIT2, HOUR);
		c->time->ts = bad_time[i];
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EINVAL, c->w.ret);
	}
}

/* Many deadlines in a mess, on one epoll file. */
TEST_F(epoll, timeouts_many)
{
	enum { NR = 40 };
	struct sm_waiter *w = calloc(NR, sizeof(*w));
	struct epoll_event ev[NR];
	struct timespec ts[NR];
	int64_t ns[NR];
	int i;

	ASSERT_EQ(0, members(self, 1, SM_EVENTFD, EPOLLIN));
	sm_rebase(&self->env);
	for (i = 0; i < NR; i++) {
		ns[i] = i % 4 == 3 ? HOUR : (20 + (i * 37) % 300) * SM_MSEC;
		ts[i] = sm_ts(ns[i]);
		sm_waiter_set(&w[i], __NR_epoll_pwait2, self->epfd,
			      (long)&ev[i], 1, (long)&ts[i], 0, 8);
		ASSERT_EQ(0, sm_waiter_run(&w[i]));
	}
	for (i = 0; i < NR; i++) {
		if (i % 4 == 3)
			continue;
		SM_JOIN(&w[i], 0);
		EXPECT_GE(sm_waiter_ns(&w[i]), ns[i]);
		EXPECT_LT(sm_waiter_ns(&w[i]), ns[i] + sm_late_ns());
	}
	/* Level-triggered and never taken: one after the other gets it. */
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));
	for (i = 3; i < NR; i += 4)
		SM_JOIN(&w[i], 1);
	SM_EXPECT_PARKS(&self->env, NR / 4);
	free(w);
}

/* --------------------------------------------------------- several waiters */

/* Start @n calls, asleep one after the other. */
static bool start_all(struct sm_env *env, struct call *c, int n)
{
	int i;

	sm_rebase(env);
	for (i = 0; i < n; i++) {
		prepare(&c[i], WAIT + i % 3, i % 2 ? HOUR : NONE);
		if (sm_waiter_run(&c[i].w) || !sm_wait_parked(env, i + 1) ||
		    !sm_sleeps(&c[i].w))
			return false;
	}
	return true;
}

static int nr_done(struct call *c, int n)
{
	int i, k = 0;

	for (i = 0; i < n; i++)
		k += sm_load(&c[i].w.done);
	return k;
}

/* One event, one waiter; the others sleep on. */
TEST_F(epoll, edge_wakes_one)
{
	static const uint32_t modes[] = {
		EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT,
	};
	int i, m;

	for (m = 0; m < ARRAY_SIZE(modes); m++) {
		ASSERT_EQ(0, members(self, NC, SM_EVENTFD, modes[m]));
		ASSERT_TRUE(start_all(&self->env, self->c, NC));
		for (i = 0; i < NC; i++) {
			ASSERT_TRUE(sm_chan_send(&self->ch[i]));
			ASSERT_TRUE(sm_wait_until(nr_done(self->c, NC) > i));
			sm_settle();
			ASSERT_EQ(i + 1, nr_done(self->c, NC));
		}
		for (i = 0; i < NC; i++)
			SM_JOIN(&self->c[i].w, 1);
		sm_chans_close(self->ch, NC);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* Nobody takes it: all get it. */
TEST_F(epoll, level_wakes_all)
{
	int i;

	ASSERT_EQ(0, members(self, 1, SM_EVENTFD, EPOLLIN));
	ASSERT_TRUE(start_all(&self->env, self->c, NC));
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));
	for (i = 0; i < NC; i++)
		EXPECT_ONE(&self->c[i], 0, EPOLLIN);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* Two events at once: two waiters, one for each, or one for both. */
TEST_F(epoll, two_events_two_waiters)
{
	int i, k, max, round, seen;

	ASSERT_EQ(0, members(self, 2, SM_EVENTFD, EPOLLIN | EPOLLET));
	for (round = 0; round < 20; round++) {
		max = 1 + round % 2;
		for (i = 0; i < 2; i++)
			self->c[i].max = max;
		ASSERT_TRUE(start_all(&self->env, self->c, 2));
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		ASSERT_TRUE(sm_chan_send(&self->ch[1]));
		ASSERT_TRUE(sm_wait_until(nr_done(self->c, 2) >= 3 - max));
		sm_settle();
		for (seen = 0, i = 0; i < 2; i++) {
			if (!sm_load(&self->c[i].w.done))
				continue;
			for (k = 0; k < self->c[i].w.ret; k++)
				seen += 1 << 4 *
					self->c[i].ev[k].data.u32;
		}
		EXPECT_EQ(0x11, seen);
		for (i = 0; i < 2; i++) {
			if (!sm_load(&self->c[i].w.done))
				sm_chan_send(&self->ch[0]);
			ASSERT_TRUE(sm_waiter_join(&self->c[i].w));
		}
		sm_chan_take(&self->ch[0]);
		sm_chan_take(&self->ch[1]);
	}
}

/* EPOLLEXCLUSIVE: one of those who wait, each with an epoll file of its own. */
TEST_F(epoll, exclusive_wakes_one)
{
	int i, kind, n, fd[NC];

	for (kind = 0; kind < SM_NR_KINDS; kind++) {
		ASSERT_EQ(0, sm_chans_open(self->ch, 1, kind));
		for (i = 0; i < NC; i++) {
			fd[i] = epoll_create1(0);
			ASSERT_EQ(0, epoll_add(fd[i], self->ch, 1, EPOLLIN | EPOLLEXCLUSIVE));
		}
		sm_rebase(&self->env);
		for (i = 0; i < NC; i++) {
			prepare(on(&self->c[i], fd[i]), WAIT + i % 3, NONE);
			ASSERT_EQ(0, sm_waiter_run(&self->c[i].w));
		}
		ASSERT_TRUE(all_asleep(&self->env, self->c, NC));
		for (n = 0; n < NC; n++) {
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			ASSERT_TRUE(sm_wait_until(nr_done(self->c, NC) > n));
			sm_settle();
			ASSERT_EQ(n + 1, nr_done(self->c, NC)) {
				TH_LOG("%s", sm_kind_names[kind]);
			}
			EXPECT_TRUE(sm_chan_take(&self->ch[0]));
		}
		for (i = 0; i < NC; i++) {
			EXPECT_ONE(&self->c[i], 0, EPOLLIN);
			close(fd[i]);
		}
		sm_chans_close(self->ch, 1);
	}
}

/* Without it: all of them. */
TEST_F(epoll, all_instances)
{
	int i, fd[NC];

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	sm_rebase(&self->env);
	for (i = 0; i < NC; i++) {
		fd[i] = epoll_create1(0);
		ASSERT_EQ(0, epoll_add(fd[i], self->ch, 1, EPOLLIN | EPOLLET));
		prepare(on(&self->c[i], fd[i]), WAIT + i % 3, NONE);
		ASSERT_EQ(0, sm_waiter_run(&self->c[i].w));
	}
	ASSERT_TRUE(all_asleep(&self->env, self->c, NC));
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));
	for (i = 0; i < NC; i++)
		EXPECT_ONE(&self->c[i], 0, EPOLLIN);
}

/* Woken, but another waiter has the edge when the caller gets to run: it waits on. */
TEST_F(epoll, event_taken_by_another)
{
	struct call *c = self->c;
	struct epoll_event ev;
	int form, i;

	ASSERT_EQ(0, members(self, 2, SM_EVENTFD, EPOLLIN | EPOLLET));
	FOR_EPOLL_FORMS(form) {
		prepare(c, form, HOUR);
		ASSERT_TRUE(sm_start_pinned(&self->env, &c->w));
		for (i = 0; i < 25; i++) {
			ASSERT_EQ(0, sm_rt_begin());
			sm_chan_send(&self->ch[0]);
			EXPECT_EQ(1, look(self->epfd, &ev, 1));
			sm_chan_take(&self->ch[0]);
			sm_rt_end();
			ASSERT_TRUE(sm_sleeps(&c->w)) {
				TH_LOG("%s returned %ld", form_names[form], c->w.ret);
			}
		}
		EXPECT_WOKEN(c, self->ch, 1);
	}
}

/*
 * Two waiters, an event, and something else that ends the wait of the one
 * that is chosen, before it runs. Either it takes the event, or the other one
 * does.
 */
enum { BY_SIGNAL, BY_TIMEOUT, BY_KILL };

static void passed_on(struct __test_metadata *_metadata, struct sm_env *env,
		      struct call *c, int epfd, struct sm_chan *ch, int how,
		      bool event_first, int form)
{
	struct call *a = &c[0], *b = &c[1];
	const int64_t ns = 300 * SM_MSEC * sm_slow();
	struct epoll_event ev;
	bool taken = false;
	int status;
	pid_t pid = 0;

	sm_handle(SIGUSR1, 0);
	/* The last one to wait is the first to be chosen. */
	ASSERT_TRUE(start(env, b, form, HOUR));
	prepare(a, form, how == BY_TIMEOUT ? ns : HOUR);
	a->w.before = sm_pin_waiter;
	if (how == BY_KILL) {
		pid = start_child(env, a);
		ASSERT_GT(pid, 0);
	} else {
		ASSERT_TRUE(sm_start(env, &a->w));
	}

	ASSERT_EQ(0, sm_rt_begin());
	if (event_first && how != BY_TIMEOUT)
		sm_chan_send(ch);
	if (how == BY_SIGNAL) {
		sm_tgkill(getpid(), a->w.tid, SIGUSR1);
	} else if (how == BY_KILL) {
		kill(pid, SIGKILL);
	} else {
		while (sm_now_ns() < a->w.start_ns + ns - SM_MSEC)
			sm_sleep_ns(SM_MSEC / 2);
		if (event_first)
			sm_chan_send(ch);
		/* Busy: the timer shall fire, but not bring the thread back. */
		while (sm_now_ns() < a->w.start_ns + ns + 5 * SM_MSEC)
			;
	}
	if (!event_first)
		sm_chan_send(ch);
	sm_rt_end();

	if (how == BY_KILL) {
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_TRUE(WIFSIGNALED(status));
	} else {
		ASSERT_TRUE(sm_waiter_join(&a->w));
		taken = a->w.ret == 1;
		if (!taken)
			EXPECT_EQ(how == BY_SIGNAL ? -EINTR : 0, a->w.ret);
		if (how == BY_SIGNAL)
			EXPECT_EQ(1, sm_load(&sm_handled));
	}
	if (how == BY_KILL && event_first) {
		/* It died with the wake-up, but the event is still there. */
		if (!sm_load(&b->w.done))
			taken = look(epfd, &ev, 1) == 1;
	}
	if (taken) {
		sm_settle();
		EXPECT_EQ(0, sm_load(&b->w.done));
		sm_chan_take(ch);
		sm_chan_send(ch);
	}
	ASSERT_TRUE(sm_waiter_done(&b->w)) {
		TH_LOG("%s: the event is lost, the other call returned %ld",
		       form_names[form], a->w.ret);
	}
	EXPECT_ONE(b, 0, EPOLLIN);
	sm_chan_take(ch);
	EXPECT_EQ(0, look(epfd, &ev, 1));
}

#define TEST_PASSED_ON(name, how, event_first)				\
TEST_F(epoll, name)							\
{									\
	int form;							\
									\
	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_EVENTFD));		\
	ASSERT_EQ(0, epoll_add(self->epfd, self->ch, 1, EPOLLIN | EPOLLET));	\
	FOR_EPOLL_FORMS(form)						\
		passed_on(_metadata, &self->env, self->c, self->epfd,	\
			  self->ch, how, event_first, form);		\
}

TEST_PASSED_ON(event_then_signal, BY_SIGNAL, true)
TEST_PASSED_ON(signal_then_event, BY_SIGNAL, false)
TEST_PASSED_ON(event_then_timeout, BY_TIMEOUT, true)
TEST_PASSED_ON(timeout_then_event, BY_TIMEOUT, false)
TEST_PASSED_ON(event_then_kill, BY_KILL, true)
TEST_PASSED_ON(kill_then_event, BY_KILL, false)

/* ----------------------------------------------------------------- signals */

/* A stop ends the wait, too. */
TEST_F(epoll, stopped)
{
	struct call *c = self->c;
	int form, status, event;
	pid_t pid;

	ASSERT_EQ(0, members(self, 1, SM_EVENTFD, EPOLLIN));
	FOR_EPOLL_FORMS(form) {
		for (event = 0; event < 2; event++) {
			prepare(c, form, HOUR);
			pid = start_child(&self->env, c);
			ASSERT_GT(pid, 0);
			ASSERT_EQ(0, kill(pid, SIGSTOP));
			ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
			ASSERT_TRUE(WIFSTOPPED(status));
			if (event)
				sm_chan_send(&self->ch[0]);
			kill(pid, SIGCONT);
			ASSERT_EQ(0, sm_waitpid(pid, &status));
			EXPECT_EQ(0, status);
			/* It had its result before it stopped. */
			EXPECT_EQ(-EINTR, c->w.ret);
			if (event)
				sm_chan_take(&self->ch[0]);
		}
	}
}

/* ------------------------------------------------------------------- races */

/*
 * Descriptors come and go while threads wait for them. Each event is seen by
 * one of them, once.
 */
struct churn {
	int epfd;
	int stop;
	long seen, bad;
};

static void *churn_waiter(void *p)
{
	struct churn *k = p;
	struct epoll_event ev;
	long ret;

	for (;;) {
		ret = sm_syscall6(__NR_epoll_wait, k->epfd, (long)&ev, 1, -1, 0, 0);
		if (ret != 1) {
			sm_store(&k->bad, ret ? ret : -EPROTO);
			return NULL;
		}
		if ((int)ev.data.u32 == k->stop)
			return NULL;
		sm_add(&k->seen, 1);
	}
}

TEST_F_TIMEOUT(epoll, churn, 60)
{
	struct churn k = { .epfd = self->epfd };
	long i, n = sm_traffic_rounds(&self->env, 1500);
	struct sm_chan ch, stop;
	pthread_t t[4];
	int how;

	ASSERT_EQ(0, sm_chan_open(&stop, SM_EVENTFD));
	k.stop = stop.rd;
	ASSERT_EQ(0, epoll_ctl_data(k.epfd, EPOLL_CTL_ADD, stop.rd, EPOLLIN, stop.rd));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, sm_thread(&t[i], churn_waiter, &k));
	for (i = 0; i < n; i++) {
		how = i % 3;
		ASSERT_EQ(0, sm_chan_open(&ch, i % 2 ? SM_PIPE : SM_EVENTFD));
		if (how == 0)
			sm_chan_send(&ch);
		ASSERT_EQ(0, epoll_ctl_data(k.epfd, EPOLL_CTL_ADD, ch.rd,
					    EPOLLET | (how == 2 ? 0 : EPOLLIN), ch.rd));
		if (how)
			sm_chan_send(&ch);
		if (how == 2)
			ASSERT_EQ(0, epoll_ctl_data(k.epfd, EPOLL_CTL_MOD, ch.rd,
						    EPOLLIN | EPOLLET, ch.rd));
		ASSERT_TRUE(sm_wait_until(sm_load(&k.seen) == i + 1)) {
			TH_LOG("round %ld: %ld events seen", i, k.seen);
		}
		if (i % 5)
			ASSERT_EQ(0, epoll_ctl_data(k.epfd, EPOLL_CTL_DEL, ch.rd, 0, 0));
		sm_chan_close(&ch);
		ASSERT_EQ(0, sm_load(&k.bad));
	}
	sm_chan_send(&stop);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	EXPECT_EQ(n, k.seen);
	EXPECT_EQ(0, k.bad);
	SM_EXPECT_PARKS(&self->env, 20);
}

int main(int argc, char **argv)
{
	sm_harness_prepare(sm_rounds_factor());
	return test_harness_run(argc, argv);
}
