// SPDX-License-Identifier: GPL-2.0
/*
 * poll(), ppoll(), select() and pselect6(), in a process that parks and in one
 * that does not: results, errors, times and signal masks have to be the same.
 */
#include "forms.h"
#include "scenario.h"
#include <sys/personality.h>

FIXTURE(poll) {
	struct sm_env env;
	struct call *c;
	struct sm_chan ch[MANY];
};

SM_CLASSIC_AND_PARKED(poll)

FIXTURE_SETUP(poll)
{
	sm_setup(_metadata, &self->env, variant->parked);
	self->c = sm_shared_alloc(sizeof(*self->c));
	ASSERT_NE(NULL, self->c);
	ASSERT_EQ(0, sm_allow_files(MAX_FD));
}

/* ------------------------------------------------------------------ events */

/* One event wakes all who poll. */
TEST_F(poll, many_waiters)
{
	enum { NR = 12 };
	struct sm_waiter w[NR] = { 0 };
	struct pollfd pfd[NR];
	int i;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	sm_rebase(&self->env);
	for (i = 0; i < NR; i++) {
		pfd[i].fd = self->ch[0].rd;
		pfd[i].events = POLLIN;
		sm_waiter_set(&w[i], __NR_poll, (long)&pfd[i], 1, -1, 0, 0, 0);
		ASSERT_EQ(0, sm_waiter_run(&w[i]));
	}
	ASSERT_TRUE(sm_asleep(&self->env, w, NR));
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));
	for (i = 0; i < NR; i++) {
		SM_JOIN(&w[i], 1);
		EXPECT_EQ(POLLIN, pfd[i].revents);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* A descriptor in all three of select()'s sets counts for each. */
TEST_F(poll, select_counts_bits)
{
	struct call *c = self->c;
	int form;

	for (form = SELECT; form <= PSELECT; form++) {
		ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_UNIX));
		stuff(self->ch[0].rd);
		fill(c, self->ch, 2);
		c->set[0].events = POLLIN | POLLOUT | POLLPRI;
		c->set[1].events = POLLIN | POLLPRI;
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		close(self->ch[0].wr);
		SM_JOIN(&c->w, 2);
		EXPECT_EQ(POLLIN | POLLOUT, ready(c, 0));
		EXPECT_EQ(0, ready(c, 1));
		close(self->ch[0].rd);
		sm_chan_close(&self->ch[1]);
	}
}

/* -------------------------------------------------------------------- time */

/* The time that is left is written back; no more, no less. */
TEST_F(poll, time_left)
{
	struct call *c = self->c;
	int64_t asleep, event;
	int form, end;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	sm_handle(SIGUSR1, 0);
	FOR_POLL_FORMS(form) {
		for (end = 0; end < 2; end++) {
			fill(c, self->ch, 1);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			asleep = sm_now_ns();
			sm_sleep_ms(20);
			event = sm_now_ns();
			if (end) {
				sm_tgkill(getpid(), c->w.tid, SIGUSR1);
				SM_JOIN(&c->w, -EINTR);
			} else {
				EXPECT_WOKEN(c, self->ch, 0);
			}
			if (form == POLL) {
				/* No time to write; nothing may be written. */
				EXPECT_EQ(HOUR, left_ns(c));
				continue;
			}
			EXPECT_NAMED(left_ns(c) <= HOUR - (event - asleep), c);
			EXPECT_NAMED(left_ns(c) >= HOUR - SM_MSEC - sm_waiter_ns(&c->w), c);
		}
	}
}

/* Microseconds may be more than a second; what is left is in order. */
TEST_F(poll, select_time_normalised)
{
	struct call *c = self->c;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	fill(c, self->ch, 1);
	prepare(c, SELECT, HOUR);
	c->time->tv.tv_sec = 3590;
	c->time->tv.tv_usec = 10000000;
	ASSERT_TRUE(sm_start(&self->env, &c->w));
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));
	EXPECT_ONE(c, 0, POLLIN);
	EXPECT_LE(left_ns(c), HOUR);
	EXPECT_GE(left_ns(c), HOUR - SM_MSEC - sm_waiter_ns(&c->w));
	EXPECT_LT(c->time->tv.tv_usec, 1000000);
	EXPECT_GE(c->time->tv.tv_usec, 0);
}

/* Who asked that the time be left alone gets it left alone. */
TEST_F(poll, sticky_timeouts)
{
	struct call *c = self->c;
	int form, old, end;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	sm_handle(SIGUSR1, 0);
	old = personality(0xffffffff);
	ASSERT_NE(-1, personality(old | STICKY_TIMEOUTS));
	FOR_POLL_FORMS(form) {
		for (end = 0; end < 3; end++) {
			fill(c, self->ch, 1);
			if (end == 2) {
				EXPECT_EQ(0, call_now(c, form, 20 * SM_MSEC));
				EXPECT_EQ(20 * SM_MSEC, left_ns(c));
				continue;
			}
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			if (end) {
				sm_tgkill(getpid(), c->w.tid, SIGUSR1);
				SM_JOIN(&c->w, -EINTR);
			} else {
				EXPECT_WOKEN(c, self->ch, 0);
			}
			EXPECT_EQ(HOUR, left_ns(c));
		}
	}
	personality(old);
}

/* ----------------------------------------------------------------- signals */

static bool stop(pid_t pid)
{
	int status;

	return !kill(pid, SIGSTOP) && waitpid(pid, &status, WUNTRACED) == pid &&
	       WIFSTOPPED(status);
}

/*
 * Stopped and continued again and again, it goes on waiting, and were the
 * time to start anew each time, it would never end.
 */
TEST_F_TIMEOUT(poll, stopped_deadline, 60)
{
	const int64_t ns = 300 * SM_MSEC * sm_slow();
	struct call *c = self->c;
	int form, status, rounds;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	FOR_POLL_FORMS(form) {
		int64_t end = sm_now_ns() + ns + sm_late_ns() + 5 * SM_SEC;

		fill(c, self->ch, 3);
		prepare(c, form, ns);
		pid = fork_child(&self->env, c);
		ASSERT_GT(pid, 0);
		ASSERT_TRUE(sm_wait_until(sm_load(&c->w.entered)));
		for (rounds = 0; pid && !sm_load(&c->w.done) && sm_now_ns() < end; rounds++) {
			ASSERT_EQ(0, kill(pid, SIGSTOP));
			ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
			if (!WIFSTOPPED(status)) {
				EXPECT_TRUE(WIFEXITED(status));
				pid = 0;
				break;
			}
			ASSERT_EQ(0, kill(pid, SIGCONT));
			sm_sleep_ms(20);
		}
		EXPECT_TRUE(sm_load(&c->w.done)) {
			TH_LOG("%s still waits after %d stops", form_names[form], rounds);
		}
		if (pid) {
			kill(pid, SIGCONT);
			ASSERT_EQ(0, sm_waitpid(pid, &status));
		}
		EXPECT_EQ(0, c->w.ret);
		EXPECT_GE(sm_waiter_ns(&c->w), ns);
		EXPECT_EQ(0, nr_ready(c));
		if (has_left(form))
			EXPECT_EQ(0, left_ns(c));
		EXPECT_GT(rounds, 0);
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* ... and an event after that, or during it, is seen. */
TEST_F(poll, stopped_event)
{
	static const int64_t ns[] = { HOUR, NONE };
	struct call *c = self->c;
	int form, status, i;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	FOR_POLL_FORMS(form) {
		for (i = 0; i < 4; i++) {
			fill(c, self->ch, 3);
			prepare(c, form, ns[i % 2]);
			pid = start_child(&self->env, c);
			ASSERT_GT(pid, 0);
			ASSERT_TRUE(stop(pid));
			if (i < 2)
				sm_chan_send(&self->ch[2]);
			sm_rebase(&self->env);
			kill(pid, SIGCONT);
			if (i >= 2) {
				ASSERT_TRUE(child_asleep(&self->env, c, pid));
				sm_chan_send(&self->ch[2]);
			}
			ASSERT_EQ(0, sm_waitpid(pid, &status));
			EXPECT_EQ(0, status);
			EXPECT_EQ(1, c->w.ret);
			EXPECT_EQ(POLLIN, ready(c, 2));
			EXPECT_EQ(1, nr_ready(c));
			EXPECT_TRUE(sm_chan_take(&self->ch[2]));
			if (has_left(form) && ns[i % 2] == HOUR) {
				EXPECT_LT(left_ns(c), HOUR);
				EXPECT_GE(left_ns(c), HOUR - SM_MSEC - sm_waiter_ns(&c->w));
			}
		}
	}
}

/* The time that is left cannot be written, so the call cannot go on. */
TEST_F(poll, stopped_without_time_left)
{
	struct call *c = self->c;
	int form, status;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_EVENTFD));
	for (form = PPOLL; form < WAIT; form++) {
		fill(c, self->ch, 1);
		c->time = sm_shared_alloc(4096);
		ASSERT_NE(NULL, c->time);
		prepare(c, form, HOUR);
		ASSERT_EQ(0, mprotect(c->time, 4096, PROT_READ));
		pid = start_child(&self->env, c);
		ASSERT_GT(pid, 0);
		ASSERT_TRUE(stop(pid));
		kill(pid, SIGCONT);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(-EINTR, c->w.ret);
		EXPECT_EQ(HOUR, left_ns(c));
		munmap(c->time, 4096);
	}
}

/* What is restarted reads its set again. */
TEST_F(poll, restart_reads_again)
{
	struct call *c = self->c;
	int form, status;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_EVENTFD));
	FOR_POLL_FORMS(form) {
		fill(c, self->ch, 2);
		c->n = 1;
		prepare(c, form, NONE);
		/* For select() as many as with both. */
		if (form >= SELECT)
			c->w.arg[0] = self->ch[1].rd + 1;
		pid = start_child(&self->env, c);
		ASSERT_GT(pid, 0);
		ASSERT_TRUE(stop(pid));
		c->set[0].fd = self->ch[1].rd;
		set_bits(c);
		sm_rebase(&self->env);
		kill(pid, SIGCONT);
		ASSERT_TRUE(child_asleep(&self->env, c, pid));
		sm_chan_send(&self->ch[0]);
		sm_settle();
		EXPECT_EQ(0, sm_load(&c->w.done));
		sm_chan_send(&self->ch[1]);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(1, c->w.ret);
		EXPECT_EQ(POLLIN, ready(c, 0));
		sm_chan_take(&self->ch[0]);
		sm_chan_take(&self->ch[1]);
	}
}

/* ------------------------------------------------------------------- masks */

/* Stopped and continued, it has its mask again, and only until it ends. */
TEST_F(poll, mask_and_stop)
{
	struct call *c = self->c;
	int form, status, i;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_POLL_FORMS(form) {
		if (!has_mask(form))
			continue;
		fill(c, self->ch, 1);
		prepare_masked(c, form, HOUR, USR2, USR1);
		pid = start_child(&self->env, c);
		ASSERT_GT(pid, 0);
		for (i = 0; i < 3; i++) {
			EXPECT_EQ(USR1, sm_mask_of(pid, pid));
			ASSERT_TRUE(stop(pid));
			sm_rebase(&self->env);
			kill(pid, SIGCONT);
			ASSERT_TRUE(child_asleep(&self->env, c, pid));
		}
		EXPECT_EQ(USR1, sm_mask_of(pid, pid));
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(1, c->w.ret);
		EXPECT_EQ(USR2, c->after);
		EXPECT_TRUE(sm_chan_take(&self->ch[0]));
	}
}

/* ------------------------------------------------------ set and user memory */

/* The set is read when the call begins, and not again. */
TEST_F(poll, set_is_read_once)
{
	static const int sizes[] = { 1, 2, 11, 100 };
	struct call *c = self->c;
	int form, i, k, n;

	ASSERT_EQ(0, sm_chans_open(self->ch, 101, SM_EVENTFD));
	for (k = 0; k < ARRAY_SIZE(sizes); k++) {
		n = sizes[k];
		FOR_POLL_FORMS(form) {
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			for (i = 0; i < n; i++) {
				c->set[i].fd = self->ch[100].rd;
				c->set[i].events = 0;
				c->set[i].revents = 0x5555;
			}
			memset(c->map, 0, sizeof(c->map));
			if (has_left(form))
				memset(c->time, 0, sizeof(*c->time));
			sm_chan_send(&self->ch[100]);
			sm_settle();
			ASSERT_EQ(0, sm_load(&c->w.done));
			sm_chan_send(&self->ch[n - 1]);
			SM_JOIN(&c->w, 1);
			for (i = 0; i < n; i++) {
				if (form < SELECT) {
					EXPECT_EQ(self->ch[100].rd, c->set[i].fd);
					EXPECT_EQ(0, c->set[i].events);
				}
				c->set[i].fd = self->ch[i].rd;
			}
			EXPECT_EQ(1, nr_ready(c));
			EXPECT_EQ(POLLIN, ready(c, n - 1));
			if (has_left(form))
				EXPECT_GT(left_ns(c), HOUR / 2);
			sm_chan_take(&self->ch[n - 1]);
			sm_chan_take(&self->ch[100]);
		}
	}
}

/*
 * The memory goes away, or becomes read-only: no result can be stored, whether
 * an event, the time or a signal ends the call.
 */
TEST_F(poll, result_memory_gone)
{
	struct call *c = self->c;
	int form, end, how, n;
	char *page;

	ASSERT_EQ(0, sm_chans_open(self->ch, 30, SM_EVENTFD));
	for (how = 0; how < 6; how++) {
		n = how % 2 ? 30 : 1;
		FOR_POLL_FORMS(form) {
			for (end = 0; end < 3; end++) {
				/* Takes its time: not in all combinations */
				if (end == 1 && how >= 2)
					continue;
				sm_handle(SIGUSR1, 0);
				page = sm_pages(8192);
				ASSERT_NE(NULL, page);
				fill(c, self->ch, n);
				/* The second half across the boundary */
				c->pfd = (void *)(page + (how < 4 ? 0 :
					 4096 - n / 2 * sizeof(*c->pfd)));
				c->bits = (void *)(page + (how < 4 ? 0 :
					  4096 - sizeof(c->map[0])));
				memcpy(c->pfd, c->set, n * sizeof(*c->pfd));
				if (form >= SELECT)
					c->pfd = c->set;
				ASSERT_TRUE(start(&self->env, c, form,
						  end == 1 ? 300 * SM_MSEC *
						  sm_slow() : HOUR));
				if (how < 2)
					munmap(page, 8192);
				else if (how < 4)
					mprotect(page, 8192, PROT_READ);
				else
					munmap(page + 4096, 4096);
				if (!end)
					sm_chan_send(&self->ch[n - 1]);
				else if (end == 2)
					sm_tgkill(getpid(), c->w.tid, SIGUSR1);
				/* poll() stores its set even then. */
				SM_JOIN(&c->w, form >= SELECT && end == 2 ? -EINTR : -EFAULT);
				EXPECT_EQ(end == 2, sm_load(&sm_handled));
				if (!end)
					sm_chan_take(&self->ch[n - 1]);
				munmap(page, 8192);
			}
		}
	}
}

/* The time that is left cannot be stored: that is no error. */
TEST_F(poll, time_memory_gone)
{
	struct call *c = self->c;
	int form, end;
	char *page;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_EVENTFD));
	for (form = PPOLL; form < WAIT; form++) {
		for (end = 0; end < 2; end++) {
			sm_handle(SIGUSR1, 0);
			page = sm_pages(4096);
			ASSERT_NE(NULL, page);
			fill(c, self->ch, 1);
			c->time = (void *)page;
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			munmap(page, 4096);
			if (end) {
				sm_tgkill(getpid(), c->w.tid, SIGUSR1);
				SM_JOIN(&c->w, -EINTR);
			} else {
				EXPECT_WOKEN(c, self->ch, 0);
			}
		}
	}
}

/*
 * A descriptor is closed by another thread. The wait goes on, and holds the
 * file; when something happens there, the descriptor is found to be invalid.
 */
TEST_F(poll, closed_while_waiting)
{
	struct call *c = self->c;
	int form, n, copy;

	signal(SIGPIPE, SIG_IGN);
	FOR_POLL_FORMS(form) {
		for (n = 1; n <= 12; n += 11) {
			/* An eventfd that remains open elsewhere */
			ASSERT_EQ(0, sm_chans_open(self->ch, n, SM_EVENTFD));
			copy = dup(self->ch[0].rd);
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			close(self->ch[0].rd);
			sm_settle();
			ASSERT_EQ(0, sm_load(&c->w.done));
			self->ch[0].wr = copy;
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_ONE(c, 0, form < SELECT ? POLLNVAL : POLLIN);
			self->ch[0].rd = copy;
			sm_chans_close(self->ch, n);

			/* The last one of a pipe's reading end */
			ASSERT_EQ(0, sm_chans_open(self->ch, n, SM_PIPE));
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, NONE));
			close(self->ch[0].rd);
			sm_settle();
			ASSERT_EQ(0, sm_load(&c->w.done));
			EXPECT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_ONE(c, 0, form < SELECT ? POLLNVAL : POLLIN);
			EXPECT_FALSE(sm_chan_send(&self->ch[0]));
			EXPECT_EQ(EPIPE, errno);
			self->ch[0].rd = dup(0);
			sm_chans_close(self->ch, n);
		}
	}
}

/*
 * Another file takes the number. The old one still wakes, but it is the new
 * one that is asked.
 */
TEST_F(poll, replaced_while_waiting)
{
	struct call *c = self->c;
	int form, n, copy;

	FOR_POLL_FORMS(form) {
		for (n = 1; n <= 12; n += 11) {
			ASSERT_EQ(0, sm_chans_open(self->ch, n + 1, SM_EVENTFD));
			copy = dup(self->ch[0].rd);
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			ASSERT_EQ(self->ch[0].rd, dup2(self->ch[n].rd, self->ch[0].rd));
			self->ch[0].wr = copy;
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			sm_settle();
			ASSERT_TRUE(sm_sleeps(&c->w));
			ASSERT_TRUE(sm_chan_send(&self->ch[n]));
			sm_settle();
			ASSERT_TRUE(sm_sleeps(&c->w));
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_ONE(c, 0, POLLIN);
			sm_chans_close(self->ch, n + 1);
		}
	}
}

/* ------------------------------------------------------------ odd arguments */

TEST_F(poll, odd_descriptors)
{
	struct call *c = self->c;
	int form;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	for (form = POLL; form <= PPOLL; form++) {
		/* Negative ones are left out. */
		fill(c, self->ch, 3);
		c->set[0].fd = -1;
		c->set[2].fd = INT_MIN;
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		sm_chan_send(&self->ch[0]);
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		sm_chan_send(&self->ch[1]);
		EXPECT_ONE(c, 1, POLLIN);
		sm_chan_take(&self->ch[0]);
		sm_chan_take(&self->ch[1]);

		/* Nothing but such */
		fill(c, self->ch, 2);
		c->set[0].fd = -1;
		c->set[1].fd = -7;
		sm_rebase(&self->env);
		EXPECT_EQ(0, call_now(c, form, sm_soon_ns()));
		EXPECT_EQ(0, nr_ready(c));
		SM_EXPECT_PARKS(&self->env, 1);

		/* Invalid ones are reported at once, with all others. */
		fill(c, self->ch, 3);
		c->set[0].fd = MAX_FD - 1;
		sm_chan_send(&self->ch[2]);
		EXPECT_EQ(2, call_now(c, form, HOUR));
		EXPECT_EQ(POLLNVAL, ready(c, 0));
		EXPECT_EQ(0, ready(c, 1));
		EXPECT_EQ(POLLIN, ready(c, 2));
		sm_chan_take(&self->ch[2]);

		/* The same one several times */
		fill(c, self->ch, 3);
		c->set[1].fd = self->ch[0].rd;
		c->set[2].fd = self->ch[0].rd;
		c->set[2].events = 0;
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		sm_chan_send(&self->ch[0]);
		SM_JOIN(&c->w, 2);
		EXPECT_EQ(POLLIN, ready(c, 0));
		EXPECT_EQ(POLLIN, ready(c, 1));
		EXPECT_EQ(0, ready(c, 2));
		sm_chan_take(&self->ch[0]);
	}
	for (form = SELECT; form <= PSELECT; form++) {
		fill(c, self->ch, 2);
		c->set[1].fd = self->ch[2].rd + 1;
		EXPECT_EQ(-EBADF, call_now(c, form, HOUR));
		EXPECT_EQ(-EBADF, call_now(c, form, 0));
		/* Even though another one is ready */
		sm_chan_send(&self->ch[0]);
		EXPECT_EQ(-EBADF, call_now(c, form, NONE));
		EXPECT_EQ(2, nr_ready(c));
		sm_chan_take(&self->ch[0]);
	}
}

/*
 * Descriptors above the number given, or above all that ever were, are not
 * looked at.
 */
TEST_F(poll, select_bits_beyond)
{
	struct call *c = self->c;
	struct sm_chan ch;
	int form;

	ASSERT_EQ(0, sm_chan_open(&ch, SM_EVENTFD));
	ASSERT_LT(ch.rd, 60);
	for (form = SELECT; form <= PSELECT; form++) {
		fill(c, &ch, 1);
		prepare(c, form, HOUR);
		c->map[0][0] |= 1UL << 62;
		c->map[1][0] |= 1UL << 63;
		c->map[0][1] = ~0UL;
		ASSERT_TRUE(sm_start(&self->env, &c->w));
		sm_chan_send(&ch);
		SM_JOIN(&c->w, 1);
		EXPECT_EQ(1UL << ch.rd, c->map[0][0]);
		EXPECT_EQ(0, c->map[1][0]);
		EXPECT_EQ(~0UL, c->map[0][1]);
		sm_chan_take(&ch);

		/* The table has never been as large as that. */
		fill(c, &ch, 1);
		prepare(c, form, HOUR);
		c->w.arg[0] = MAX_FD;
		c->map[0][MAX_FD / 64 - 1] = ~0UL;
		ASSERT_TRUE(sm_start(&self->env, &c->w));
		sm_chan_send(&ch);
		SM_JOIN(&c->w, 1);
		EXPECT_EQ(1UL << ch.rd, c->map[0][0]);
		EXPECT_EQ(~0UL, c->map[0][MAX_FD / 64 - 1]);
		sm_chan_take(&ch);

		/* No sets at all, or some of them */
		sm_rebase(&self->env);
		fill(c, &ch, 0);
		prepare(c, form, sm_soon_ns());
		c->w.arg[1] = 0;
		c->w.arg[2] = 0;
		c->w.arg[3] = 0;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(0, c->w.ret);
		EXPECT_GE(sm_waiter_ns(&c->w), sm_soon_ns());
		SM_EXPECT_PARKS(&self->env, 1);

		fill(c, &ch, 1);
		prepare(c, form, NONE);
		c->w.arg[2] = 0;
		c->w.arg[3] = 0;
		ASSERT_TRUE(sm_start(&self->env, &c->w));
		sm_chan_send(&ch);
		EXPECT_ONE(c, 0, POLLIN);
		sm_chan_take(&ch);
	}
}

TEST_F(poll, errors)
{
	struct timespec bad_time[] = { { -1, 0 }, { 0, -1 }, { 0, 1000000000 } };
	struct timeval bad_tv[] = { { -1, 0 }, { 0, -1 } };
	struct call *c = self->c;
	int form, i;
	char *none;

	none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, none);
	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_EVENTFD));
	ASSERT_TRUE(sm_chan_send(&self->ch[0]));

	FOR_POLL_FORMS(form) {
		/* A set that cannot be read */
		fill(c, self->ch, 2);
		prepare(c, form, HOUR);
		c->w.arg[form >= SELECT] = (long)none;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EFAULT, c->w.ret);

		/* A time that cannot be read, or is none */
		if (form == POLL)
			continue;
		fill(c, self->ch, 2);
		c->time = (void *)none;
		prepare(c, form, NONE);
		c->w.arg[form == PPOLL ? 2 : 4] = (long)none;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EFAULT, c->w.ret);
		for (i = 0; i < (form == SELECT ? ARRAY_SIZE(bad_tv) :
				 ARRAY_SIZE(bad_time)); i++) {
			fill(c, self->ch, 2);
			prepare(c, form, HOUR);
			if (form == SELECT)
				c->time->tv = bad_tv[i];
			else
				c->time->ts = bad_time[i];
			sm_waiter_fn(&c->w);
			EXPECT_EQ(-EINVAL, c->w.ret) {
				TH_LOG("%s, %d", form_names[form], i);
			}
			/* It is left as it was. */
			if (form == SELECT) {
				EXPECT_EQ(0, memcmp(&c->time->tv, &bad_tv[i],
						    sizeof(bad_tv[i])));
			} else {
				EXPECT_EQ(0, memcmp(&c->time->ts, &bad_time[i],
						    sizeof(bad_time[i])));
			}
		}

		/* A mask that cannot be read, or has a strange size */
		if (!has_mask(form))
			continue;
		fill(c, self->ch, 2);
		c->masked = true;
		prepare(c, form, HOUR);
		c->sig.size = 7;
		if (form == PPOLL)
			c->w.arg[4] = 7;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EINVAL, c->w.ret);
		prepare(c, form, HOUR);
		c->sig.set = (void *)none;
		if (form == PPOLL)
			c->w.arg[3] = (long)none;
		sm_waiter_fn(&c->w);
		EXPECT_EQ(-EFAULT, c->w.ret);
	}
	EXPECT_EQ(-EINVAL, sm_syscall6(__NR_select, -1, 0, 0, 0, 0, 0));
	EXPECT_EQ(-EINVAL, sm_syscall6(__NR_pselect6, -1, 0, 0, 0, 0, 0));
}

/* No more than RLIMIT_NOFILE entries, whatever is in them. */
TEST_F(poll, too_many_descriptors)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_EVENTFD));
	ASSERT_EQ(0, sm_allow_files(100));
	for (form = POLL; form <= PPOLL; form++) {
		fill(c, self->ch, 101);
		for (i = 0; i < 101; i++)
			c->set[i].fd = i == 99 ? self->ch[0].rd : -1;
		EXPECT_EQ(-EINVAL, call_now(c, form, HOUR));
		EXPECT_EQ(-EINVAL, call_now(c, form, 0));
		EXPECT_EQ(0x7fff, c->set[0].revents);
		c->n = 100;
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		sm_chan_send(&self->ch[0]);
		EXPECT_ONE(c, 99, POLLIN);
		sm_chan_take(&self->ch[0]);
		EXPECT_EQ(-EINVAL, sm_syscall6(__NR_poll, 0, ~0U, 0, 0, 0, 0));
	}
	/* None are no error: a way to sleep. */
	sm_rebase(&self->env);
	EXPECT_EQ(0, sm_syscall6(__NR_poll, 0, 0, sm_soon_ns() / SM_MSEC, 0, 0, 0));
	SM_EXPECT_PARKS(&self->env, 1);
}

/* Elements of a set that parks, at most, and a descriptor beyond them */
#define MAX_PARKS	65536
#define FAR_FD		(MAX_PARKS + 100)

/* Many of a set are left out, but the last. */
TEST_F(poll, big_sets)
{
	struct pollfd *set = calloc(MAX_PARKS + 1, sizeof(*set));
	const int sizes[] = { MAX_PARKS, MAX_PARKS + 1 };
	struct sm_waiter *w = &self->c->w;
	struct sm_chan ch;
	int form, k, i;

	ASSERT_NE(NULL, set);
	ASSERT_EQ(0, sm_allow_files(2 * MAX_PARKS));
	ASSERT_EQ(0, sm_chan_open(&ch, SM_EVENTFD));
	for (form = POLL; form <= PPOLL; form++) {
		for (k = 0; k < 2; k++) {
			for (i = 0; i < sizes[k]; i++)
				set[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
			set[--i].fd = ch.rd;
			sm_keeps_stack(&self->env, sizes[k] > MAX_PARKS);
			if (form == POLL)
				sm_call(w, __NR_poll, set, sizes[k], -1);
			else
				sm_call(w, __NR_ppoll, set, sizes[k]);
			ASSERT_TRUE(sm_start(&self->env, w)) {
				TH_LOG("%s of %d", form_names[form], sizes[k]);
			}
			EXPECT_TRUE(sm_chan_send(&ch));
			SM_JOIN(w, 1);
			EXPECT_EQ(POLLIN, set[i].revents);
			EXPECT_EQ(0, set[0].revents);
			EXPECT_TRUE(sm_chan_take(&ch));
		}
	}
	free(set);
}

TEST_F(poll, select_far_descriptor)
{
	const int long_bits = 8 * sizeof(long);
	unsigned long map[FAR_FD / 64 + 1], bit = 1UL << FAR_FD % long_bits;
	struct sm_waiter *w = &self->c->w;
	struct sm_chan ch;
	int form;

	ASSERT_EQ(0, sm_allow_files(2 * MAX_PARKS));
	ASSERT_EQ(0, sm_chan_open(&ch, SM_EVENTFD));
	ASSERT_EQ(FAR_FD, dup2(ch.rd, FAR_FD));
	for (form = SELECT; form <= PSELECT; form++) {
		memset(map, 0, sizeof(map));
		map[FAR_FD / long_bits] = bit;
		sm_keeps_stack(&self->env, true);
		sm_call(w, form == SELECT ? __NR_select : __NR_pselect6, FAR_FD + 1, map);
		ASSERT_TRUE(sm_start(&self->env, w)) {
			TH_LOG("%s", form_names[form]);
		}
		EXPECT_TRUE(sm_chan_send(&ch));
		SM_JOIN(w, 1);
		EXPECT_EQ(bit, map[FAR_FD / long_bits]);
		EXPECT_TRUE(sm_chan_take(&ch));
	}
}

/* CPU time of a poll() of @nr descriptors at an address where nothing is, at best */
static int64_t poll_nowhere(struct __test_metadata *_metadata, long nr, long ret)
{
	void *none = sm_no_access();
	int64_t start, ns, best = LLONG_MAX;
	int i;

	for (i = 0; i < 5; i++) {
		start = sm_clock_ns(CLOCK_THREAD_CPUTIME_ID);
		EXPECT_EQ(ret, sm_sys(__NR_poll, none, nr, 1000000));
		ns = sm_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
		if (ns < best)
			best = ns;
	}
	munmap(none, 4096);
	return best;
}

/* Who may have very many descriptors: nothing is done before the set has been read. */
TEST_F(poll, set_that_is_not_there)
{
	const long most = 1L << 30, many = 45000000;
	const int64_t at_once = 5 * SM_MSEC * sm_slow();

	if (geteuid())
		SKIP(return, "not root");
	ASSERT_EQ(0, sm_write_long(SM_NR_OPEN, most));
	ASSERT_EQ(0, sm_allow_files(most));
	EXPECT_GT(at_once, poll_nowhere(_metadata, many, -EFAULT));
	EXPECT_GT(at_once, poll_nowhere(_metadata, most, -EFAULT));
	ASSERT_EQ(0, sm_allow_files(many - 1));
	EXPECT_GT(at_once, poll_nowhere(_metadata, many, -EINVAL));
}

/*
 * An event that does not exist is none, though within the kernel it says that the
 * socket would rather be asked by a loop.
 */
TEST_F(poll, event_that_does_not_exist)
{
	const int us = 50;
	struct call *c = self->c;
	int form, kind;

	for (kind = SM_UNIX; kind <= SM_TCP; kind++) {
		ASSERT_EQ(0, sm_chan_open(self->ch, kind));
		ASSERT_EQ(0, setsockopt(self->ch->rd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof(us)));
		for (form = POLL; form <= PPOLL; form++) {
			fill(c, self->ch, 1);
			c->set[0].events |= 0x8000;
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			EXPECT_WOKEN(c, self->ch, 0);
			EXPECT_EQ(0, call_now(c, form, sm_soon_ns()));
			EXPECT_EQ(0, nr_ready(c));
		}
		sm_chan_close(self->ch);
	}
}

int main(int argc, char **argv)
{
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
