// SPDX-License-Identifier: GPL-2.0
/*
 * What all calls that wait for descriptors have in common, from poll() to
 * epoll_pwait2(), in a process that parks and in one that does not: results, errors,
 * times and signal masks have to be the same.
 */
#include "forms.h"
#include <sys/timerfd.h>

FIXTURE(ready) {
	struct sm_env env;
	struct call *c;
	struct sm_chan ch[MANY];
};

SM_CLASSIC_AND_PARKED(ready)

FIXTURE_SETUP(ready)
{
	sm_setup(_metadata, &self->env, variant->parked);
	self->c = sm_shared_alloc(sizeof(*self->c));
	ASSERT_NE(NULL, self->c);
	ASSERT_EQ(0, sm_allow_files(MAX_FD));
}

/* ------------------------------------------------------------------ events */

/* The event at one of @n descriptors of a kind ends the call. */
static void event_wakes(struct __test_metadata *_metadata, struct sm_env *env,
			struct call *c, struct sm_chan *ch, int kind, int n)
{
	const int which[] = { 0, n / 2, n - 1 };
	int form, i;

	ASSERT_EQ(0, sm_chans_open(ch, n, kind)) {
		TH_LOG("%s", sm_kind_names[kind]);
	}
	FOR_EACH_FORM(form) {
		for (i = n > 2 ? 0 : 2; i < 3; i++) {
			fill(c, ch, n);
			ASSERT_TRUE(start(env, c, form, i ? NONE : HOUR)) {
				TH_LOG("%s, %s, %d", form_names[form], sm_kind_names[kind], n);
			}
			EXPECT_WOKEN(c, ch, which[i]);
		}
	}
	sm_chans_close(ch, n);
}

#define TEST_EVENT(name, kind, ...)					\
TEST_F_TIMEOUT(ready, name, 60)						\
{									\
	static const int sizes[] = { __VA_ARGS__ };			\
	int i;								\
									\
	for (i = 0; i < ARRAY_SIZE(sizes); i++)				\
		event_wakes(_metadata, &self->env, self->c, self->ch,	\
			    kind, sizes[i]);				\
}

TEST_EVENT(eventfd, SM_EVENTFD, 1, 2, 9, 10, 100, MANY)
TEST_EVENT(pipe, SM_PIPE, 1, 3, 10, 33)
TEST_EVENT(unix_socket, SM_UNIX, 1, 9, 10)
TEST_EVENT(tcp_socket, SM_TCP, 1, 9, 10)

/* One of each in a set; each of them wakes. */
TEST_F(ready, mixed_set)
{
	struct call *c = self->c;
	int form, i;

	for (i = 0; i < 12; i++)
		ASSERT_EQ(0, sm_chan_open(&self->ch[i], i % SM_NR_KINDS));
	FOR_EACH_FORM(form) {
		for (i = 0; i < 12; i++) {
			fill(c, self->ch, 12);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			EXPECT_WOKEN(c, self->ch, i);
		}
	}
}

/* What happens before the caller runs is reported with it. */
TEST_F(ready, several_events)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 40, SM_EVENTFD));
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 40);
		prepare(c, form, HOUR);
		ASSERT_TRUE(sm_start_pinned(&self->env, &c->w));
		ASSERT_EQ(0, sm_rt_begin());
		for (i = 0; i < 40; i += 3)
			sm_chan_send(&self->ch[i]);
		sm_rt_end();
		SM_JOIN(&c->w, 14);
		EXPECT_EQ(14, nr_ready(c));
		for (i = 0; i < 40; i++) {
			EXPECT_EQ(i % 3 ? 0 : POLLIN, ready(c, i));
			if (i % 3 == 0)
				EXPECT_TRUE(sm_chan_take(&self->ch[i]));
		}
	}
}

/*
 * Woken, but what woke it has gone when it gets to run: it waits on, and
 * neither its deadline nor the next event is lost.
 */
TEST_F(ready, event_taken_by_another)
{
	const int64_t ns = 200 * SM_MSEC * sm_slow();
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 3);
		prepare(c, form, HOUR);
		ASSERT_TRUE(sm_start_pinned(&self->env, &c->w));
		for (i = 0; i < 25; i++) {
			ASSERT_EQ(0, sm_rt_begin());
			sm_chan_send(&self->ch[i % 3]);
			sm_chan_take(&self->ch[i % 3]);
			sm_rt_end();
			ASSERT_TRUE(sm_sleeps(&c->w)) {
				TH_LOG("%s returned %ld", form_names[form], c->w.ret);
			}
		}
		EXPECT_WOKEN(c, self->ch, 1);
	}
	/* The same until the time is over. */
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 3);
		prepare(c, form, ns);
		c->w.before = sm_pin_waiter;
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		while (!sm_load(&c->w.done)) {
			ASSERT_EQ(0, sm_rt_begin());
			sm_chan_send(&self->ch[0]);
			sm_chan_take(&self->ch[0]);
			sm_rt_end();
			sm_sleep_ms(2);
			ASSERT_LT(sm_now_ns() - c->w.start_ns, ns + sm_late_ns() + SM_SEC);
		}
		SM_JOIN(&c->w, 0);
		EXPECT_GE(sm_waiter_ns(&c->w), ns);
	}
}

/* Ready when the call begins: nobody waits, whatever the time-out. */
TEST_F(ready, ready_at_once)
{
	static const int64_t ns[] = { 0, 1, SM_MSEC, HOUR, NONE };
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 20, SM_PIPE));
	ASSERT_TRUE(sm_chan_send(&self->ch[3]));
	ASSERT_TRUE(sm_chan_send(&self->ch[17]));
	FOR_EACH_FORM(form) {
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			fill(c, self->ch, 20);
			EXPECT_EQ(2, call_now(c, form, ns[i]));
			EXPECT_EQ(2, nr_ready(c));
			EXPECT_EQ(POLLIN, ready(c, 3));
			EXPECT_EQ(POLLIN, ready(c, 17));
			if (ns[i] == HOUR && has_left(form)) {
				EXPECT_LE(left_ns(c), HOUR);
				EXPECT_GE(left_ns(c), HOUR - SM_MSEC - sm_waiter_ns(&c->w));
			}
		}
	}
}

/* ------------------------------------------------------- files and their states */

/* What happens to a file while somebody waits, and what that one is told */
struct change {
	const char *what;
	int kind;				/* of channel, or */
	int (*open)(struct sm_chan *ch);
	void (*first)(struct sm_chan *ch);	/* before the call */
	bool writes;				/* it waits at the writing end */
	short asks;
	bool (*unasked)(struct sm_chan *ch);	/* does not end the wait */
	bool (*change)(struct sm_chan *ch);
	bool (*after)(struct sm_chan *ch);
	short told;
	short selects;				/* with select(); 0: nothing to ask for */
};

static void walk(struct __test_metadata *_metadata, struct sm_env *env, struct call *c,
		 const struct change *list, int n)
{
	const struct change *k;
	struct sm_chan ch;
	int form;

	for (k = list; k < list + n; k++) {
		FOR_EACH_FORM(form) {
			if (is_select(form) && !k->selects)
				continue;
			ASSERT_EQ(0, k->open ? k->open(&ch) : sm_chan_open(&ch, k->kind));
			if (k->first)
				k->first(&ch);
			fill(c, &ch, 1);
			if (k->writes)
				c->set[0].fd = ch.wr;
			c->set[0].events = k->asks;
			ASSERT_TRUE(start(env, c, form, (form + (k - list)) % 2 ? HOUR : NONE)) {
				TH_LOG("%s: %s", form_names[form], k->what);
			}
			if (k->unasked) {
				EXPECT_TRUE(k->unasked(&ch));
				sm_settle();
				ASSERT_EQ(0, sm_load(&c->w.done));
			}
			ASSERT_TRUE(k->change(&ch));
			EXPECT_ONE(c, 0, is_select(form) ? k->selects : k->told);
			EXPECT_TRUE(!k->after || k->after(&ch)) {
				TH_LOG("%s: %s", form_names[form], k->what);
			}
			sm_chan_close(&ch);
		}
	}
}

/* A test that walks the list of that name */
#define TEST_CHANGES(name)						\
TEST_F(ready, name)							\
{									\
	walk(_metadata, &self->env, self->c, name, ARRAY_SIZE(name));	\
}

static bool close_rd(struct sm_chan *ch)
{
	int fd = ch->rd;

	ch->rd = -1;
	return !close(fd);
}

static bool close_wr(struct sm_chan *ch)
{
	int fd = ch->wr;

	ch->wr = -1;
	return !close(fd);
}

static bool shut_wr(struct sm_chan *ch)
{
	return !shutdown(ch->wr, SHUT_WR);
}

/* What a pipe, and sockets, say in which states; half of it at once. */
static const struct change hangup_and_error[] = {
	{ "no writer", SM_PIPE, .asks = POLLIN, .change = close_wr,
	  .told = POLLHUP, .selects = POLLIN },
	{ "no writer", SM_UNIX, .asks = POLLIN, .change = close_wr,
	  .told = POLLIN | POLLHUP, .selects = POLLIN },
	{ "no writer", SM_TCP, .asks = POLLIN, .change = close_wr,
	  .told = POLLIN, .selects = POLLIN },
	{ "no writer, asked for", SM_PIPE, .asks = POLLIN | POLLRDHUP, .change = close_wr,
	  .told = POLLHUP },
	{ "no writer, asked for", SM_UNIX, .asks = POLLIN | POLLRDHUP, .change = close_wr,
	  .told = POLLIN | POLLRDHUP | POLLHUP },
	{ "no writer, asked for", SM_TCP, .asks = POLLIN | POLLRDHUP, .change = close_wr,
	  .told = POLLIN | POLLRDHUP },
	/* Hangups are reported though nothing is asked for. */
	{ "no writer", SM_PIPE, .unasked = sm_chan_send, .change = close_wr, .told = POLLHUP },
	{ "no reader", SM_PIPE, .writes = true, .change = close_rd, .told = POLLERR },
	{ "shut down", SM_TCP, .asks = POLLRDHUP, .change = shut_wr, .told = POLLRDHUP },
};

TEST_CHANGES(hangup_and_error)

static void stuff_wr(struct sm_chan *ch)
{
	stuff(ch->wr);
}

static bool unstuff_rd(struct sm_chan *ch)
{
	unstuff(ch->rd);
	return true;
}

static const struct change writable[] = {
	{ "room", SM_PIPE, .first = stuff_wr, .writes = true, .asks = POLLOUT,
	  .change = unstuff_rd, .told = POLLOUT, .selects = POLLOUT },
	{ "room", SM_UNIX, .first = stuff_wr, .writes = true, .asks = POLLOUT,
	  .change = unstuff_rd, .told = POLLOUT, .selects = POLLOUT },
	{ "room", SM_TCP, .first = stuff_wr, .writes = true, .asks = POLLOUT,
	  .change = unstuff_rd, .told = POLLOUT, .selects = POLLOUT },
	/* Nobody will read it any more. */
	{ "no reader", SM_PIPE, .first = stuff_wr, .writes = true, .asks = POLLOUT,
	  .change = close_rd, .told = POLLERR, .selects = POLLOUT },
};

TEST_CHANGES(writable)

static bool send_oob(struct sm_chan *ch)
{
	return send(ch->wr, "!", 1, MSG_OOB) == 1;
}

/* Out-of-band data: select()'s third set */
static const struct change exceptional[] = {
	{ "out of band", SM_TCP, .asks = POLLPRI, .change = send_oob,
	  .told = POLLPRI, .selects = POLLPRI },
};

TEST_CHANGES(exceptional)

static int open_listen(struct sm_chan *ch)
{
	struct sockaddr_in sin;

	ch->rd = sm_tcp_listen(&sin);
	ch->wr = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return ch->rd < 0 || ch->wr < 0;
}

static bool connect_wr(struct sm_chan *ch)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);

	return !getsockname(ch->rd, (void *)&sin, &len) && !connect(ch->wr, (void *)&sin, len);
}

static bool accept_rd(struct sm_chan *ch)
{
	return !close(accept(ch->rd, NULL, NULL));
}

static const struct change listening_socket[] = {
	{ "connection", .open = open_listen, .asks = POLLIN, .change = connect_wr,
	  .after = accept_rd, .told = POLLIN, .selects = POLLIN },
};

TEST_CHANGES(listening_socket)

static int open_timer(struct sm_chan *ch)
{
	ch->rd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	ch->wr = ch->rd;
	return ch->rd < 0;
}

static bool set_timer(struct sm_chan *ch)
{
	struct itimerspec its = { .it_value = sm_ts(40 * SM_MSEC * sm_slow()) };

	return !timerfd_settime(ch->rd, 0, &its, NULL);
}

static int open_terminal(struct sm_chan *ch)
{
	char name[64];

	ch->rd = posix_openpt(O_RDWR | O_NOCTTY);
	if (ch->rd < 0 || grantpt(ch->rd) || unlockpt(ch->rd) ||
	    ptsname_r(ch->rd, name, sizeof(name)))
		return -1;
	ch->wr = open(name, O_RDWR | O_NOCTTY);
	return ch->wr < 0;
}

static bool type_x(struct sm_chan *ch)
{
	return write(ch->wr, "x", 1) == 1;
}

static bool read_x(struct sm_chan *ch)
{
	char c;

	return read(ch->rd, &c, 1) == 1 && c == 'x';
}

/* A child that waits for an end of file at the pipe ch->wr */
static int open_child(struct sm_chan *ch)
{
	int go[2];
	pid_t pid;
	char c;

	if (pipe2(go, O_CLOEXEC))
		return -1;
	pid = sm_fork();
	if (!pid) {
		close(go[1]);
		_exit(read(go[0], &c, 1));
	}
	close(go[0]);
	ch->wr = go[1];
	ch->rd = syscall(__NR_pidfd_open, pid, 0);
	return pid < 0 || ch->rd < 0;
}

static bool wait_for_child(struct sm_chan *ch)
{
	int status;

	return waitpid(-1, &status, 0) > 0 && !status;
}

static const struct change other_files[] = {
	{ "timer", .open = open_timer, .asks = POLLIN, .change = set_timer,
	  .after = sm_chan_take, .told = POLLIN, .selects = POLLIN },
	{ "terminal", .open = open_terminal, .asks = POLLIN, .change = type_x,
	  .after = read_x, .told = POLLIN, .selects = POLLIN },
	{ "end of a child", .open = open_child, .asks = POLLIN, .change = close_wr,
	  .after = wait_for_child, .told = POLLIN, .selects = POLLIN },
};

TEST_CHANGES(other_files)

static void nonblock_rd(struct sm_chan *ch)
{
	sm_nonblock(ch->rd, true);
}

/* Whether the file blocks does not matter. */
static const struct change nonblock_is_irrelevant[] = {
	{ "eventfd", SM_EVENTFD, .first = nonblock_rd, .asks = POLLIN, .change = sm_chan_send,
	  .after = sm_chan_take, .told = POLLIN, .selects = POLLIN },
	{ "pipe", SM_PIPE, .first = nonblock_rd, .asks = POLLIN, .change = sm_chan_send,
	  .after = sm_chan_take, .told = POLLIN, .selects = POLLIN },
	{ "unix", SM_UNIX, .first = nonblock_rd, .asks = POLLIN, .change = sm_chan_send,
	  .after = sm_chan_take, .told = POLLIN, .selects = POLLIN },
	{ "TCP", SM_TCP, .first = nonblock_rd, .asks = POLLIN, .change = sm_chan_send,
	  .after = sm_chan_take, .told = POLLIN, .selects = POLLIN },
};

TEST_CHANGES(nonblock_is_irrelevant)

/* -------------------------------------------------------------------- time */

TEST_F_TIMEOUT(ready, timeout, 60)
{
	static const int64_t ns[] = {
		0, 1, 1000, 50000, SM_MSEC, 20 * SM_MSEC, 250 * SM_MSEC,
	};
	static const int sizes[] = { 0, 1, 2, 30 };
	struct call *c = self->c;
	int form, i, j;

	ASSERT_EQ(0, sm_chans_open(self->ch, 30, SM_EVENTFD));
	for (j = 0; j < ARRAY_SIZE(sizes); j++) {
		FOR_EACH_FORM(form) {
			sm_rebase(&self->env);
			for (i = 0; i < ARRAY_SIZE(ns); i++) {
				fill(c, self->ch, sizes[j]);
				EXPECT_EQ(0, call_now(c, form, ns[i]));
				EXPECT_NAMED(sm_waiter_ns(&c->w) >= ns[i], c);
				EXPECT_NAMED(sm_waiter_ns(&c->w) < ns[i] + sm_late_ns(), c);
				EXPECT_EQ(0, nr_ready(c));
				/* epoll_pwait2() keeps the time for itself. */
				if (has_left(form) || form == PWAIT2)
					EXPECT_EQ(form == PWAIT2 ? ns[i] : 0, left_ns(c));
			}
			SM_EXPECT_PARKS(&self->env, 1);
		}
	}
}

/* Many deadlines in a mess */
TEST_F(ready, timeouts_many)
{
	enum { NR = 40 };
	struct call *c = calloc(NR, sizeof(*c));
	int64_t ns;
	int i;

	ASSERT_NE(NULL, c);
	ASSERT_EQ(0, sm_chans_open(self->ch, NR, SM_EVENTFD));
	sm_rebase(&self->env);
	for (i = 0; i < NR; i++) {
		fill(&c[i], &self->ch[i], 1);
		prepare(&c[i], i % NR_FORMS, i % 4 == 3 ? HOUR : (20 + (i * 37) % 300) * SM_MSEC);
		ASSERT_EQ(0, sm_waiter_run(&c[i].w));
	}
	for (i = 3; i < NR; i += 4) {
		ASSERT_TRUE(sm_sleeps(&c[i].w));
		ASSERT_TRUE(sm_chan_send(&self->ch[i]));
	}
	for (i = 0; i < NR; i++) {
		SM_JOIN(&c[i].w, i % 4 == 3);
		if (i % 4 == 3)
			continue;
		ns = c[i].ns;
		EXPECT_GE(sm_waiter_ns(&c[i].w), ns);
		EXPECT_LT(sm_waiter_ns(&c[i].w), ns + sm_late_ns());
		if (has_left(c[i].form))
			EXPECT_EQ(0, left_ns(&c[i]));
	}
	SM_EXPECT_PARKS(&self->env, NR / 4);
}

/* ----------------------------------------------------------------- signals */

/* A handler ends the wait, SA_RESTART or not. */
TEST_F(ready, handled_signal)
{
	struct call *c = self->c;
	int form, i, n;

	ASSERT_EQ(0, sm_chans_open(self->ch, 12, SM_UNIX));
	FOR_EACH_FORM(form) {
		for (i = 0; i < 4; i++) {
			n = i / 2 ? 12 : 1;
			fill(c, self->ch, n);
			sm_handle(SIGUSR1, i % 2 ? SA_RESTART : 0);
			ASSERT_TRUE(start(&self->env, c, form, i / 2 ? NONE : HOUR));
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR1));
			SM_JOIN(&c->w, -EINTR);
			EXPECT_EQ(1, sm_load(&sm_handled));
			/* select() leaves its sets alone. */
			EXPECT_EQ(is_select(form) ? n : 0, nr_ready(c));
		}
	}
}

/* Signals nobody handles, or that are blocked, are not seen. */
TEST_F(ready, ignored_signals)
{
	static const int sigs[] = { SIGCHLD, SIGURG, SIGWINCH, SIGCONT };
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	signal(SIGUSR2, SIG_IGN);
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 1);
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		for (i = 0; i < ARRAY_SIZE(sigs); i++) {
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, sigs[i]));
			EXPECT_EQ(0, kill(getpid(), sigs[i]));
		}
		EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR2));
		sm_settle();
		ASSERT_TRUE(sm_sleeps(&c->w));
		EXPECT_WOKEN(c, self->ch, 0);
	}
}

#define FOR_MASKED_FORMS(form)						\
	FOR_EACH_FORM(form)						\
		if (has_mask(form))

/* A handler has run, with both masks, and the one outside is back. */
#define EXPECT_HANDLED(c, outside)					\
do {									\
	EXPECT_EQ(1, (c)->handled);					\
	EXPECT_EQ(USR1 | USR2, sm_mask_in_handler);			\
	EXPECT_EQ((outside), sm_mask_to_restore);			\
	EXPECT_EQ((outside), (c)->after);				\
} while (0)

/* Blocked outside, not inside, and it comes during the wait. */
TEST_F(ready, mask_lets_in)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_PIPE));
	FOR_MASKED_FORMS(form) {
		for (i = 0; i < 2; i++) {
			fill(c, self->ch, i + 1);
			sm_handle(SIGUSR1, i ? SA_RESTART : 0);
			prepare_masked(c, form, i ? HOUR : NONE, USR1, USR2);
			ASSERT_TRUE(sm_start(&self->env, &c->w));
			EXPECT_EQ(USR2, sm_mask_of(getpid(), c->w.tid));
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR1));
			SM_JOIN(&c->w, -EINTR);
			EXPECT_HANDLED(c, USR1);
		}
	}
}

/* It is there already when the call begins. */
TEST_F(ready, mask_lets_in_pending)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_MASKED_FORMS(form) {
		for (i = 0; i < 2; i++) {
			fill(c, self->ch, 1);
			sm_handle(SIGUSR1, i ? SA_RESTART : 0);
			prepare_masked(c, form, i ? HOUR : NONE, USR1, USR2);
			c->w.before = mask_before_pending;
			ASSERT_EQ(0, sm_waiter_run(&c->w));
			SM_JOIN(&c->w, -EINTR);
			EXPECT_HANDLED(c, USR1);
		}
		/* With something ready it stays pending. */
		fill(c, self->ch, 1);
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		prepare_masked(c, form, HOUR, USR1, USR2);
		c->w.before = mask_before_pending;
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		EXPECT_ONE(c, 0, POLLIN);
		EXPECT_EQ(0, c->handled);
		EXPECT_EQ(USR1, c->after);
		EXPECT_TRUE(sm_chan_take(&self->ch[0]));
	}
}

/* Not blocked outside, but inside: it waits for the end of the call. */
TEST_F(ready, mask_keeps_out)
{
	struct call *c = self->c;
	int form, i, timeout;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_PIPE));
	FOR_MASKED_FORMS(form) {
		for (i = 0; i < 3; i++) {
			timeout = i == 2;
			fill(c, self->ch, i % 2 + 1);
			sm_handle(SIGUSR1, 0);
			prepare_masked(c, form, timeout ? 300 * SM_MSEC * sm_slow() : HOUR,
				       USR2, USR1);
			ASSERT_TRUE(sm_start(&self->env, &c->w));
			EXPECT_EQ(USR1, sm_mask_of(getpid(), c->w.tid));
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR1));
			if (timeout) {
				SM_JOIN(&c->w, 0);
			} else {
				sm_settle();
				EXPECT_EQ(0, sm_load(&sm_handled));
				EXPECT_EQ(USR1, sm_mask_of(getpid(), c->w.tid));
				ASSERT_TRUE(sm_sleeps(&c->w));
				EXPECT_WOKEN(c, self->ch, 0);
			}
			/* Before the call returned. */
			EXPECT_HANDLED(c, USR2);
		}
	}
}

/* The time is over, with no signal. */
TEST_F(ready, mask_and_timeout)
{
	static const int64_t ns[] = { 50 * SM_MSEC, 0 };
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_MASKED_FORMS(form) {
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			fill(c, self->ch, 1);
			sm_handle(SIGUSR1, 0);
			prepare_masked(c, form, ns[i], USR2, USR1);
			ASSERT_EQ(0, sm_waiter_run(&c->w));
			SM_JOIN(&c->w, 0);
			EXPECT_EQ(USR2, c->after);
		}
	}
}

/* ---------------------------------------------------------- ends of threads */

/*
 * A process ends while one of its threads waits, in each way that a process can end:
 * the files that the wait holds are let go, and so is the epoll file.
 */
TEST_F_TIMEOUT(ready, process_ends, 60)
{
	static char *const argv[] = { "/bin/true", NULL };
	enum { EXIT, EXEC, KILL, NR_ENDS };
	uint32_t *go = sm_shared_alloc(4096);
	int form, how, status, outer = -1;
	struct call *c = self->c;
	struct epoll_event ev;
	pthread_t t;
	pid_t pid;

	signal(SIGPIPE, SIG_IGN);
	FOR_EACH_FORM(form) {
		for (how = 0; how < NR_ENDS; how++) {
			ASSERT_EQ(0, sm_chans_open(self->ch, 15, SM_PIPE));
			/*
			 * Seen from outside: an epoll file leaves this set when the
			 * last descriptor and the last waiter have gone.
			 */
			outer = epoll_create1(0);
			c->w.entered = 0;
			c->w.done = 0;
			*go = 0;
			sm_rebase(&self->env);
			pid = sm_fork();
			ASSERT_GE(pid, 0);
			if (!pid) {
				fill(c, self->ch, how ? 15 : 1);
				c->epfd = -1;
				prepare(c, form, form % 2 ? HOUR : NONE);
				if (is_epoll(form))
					epoll_ctl_data(outer, EPOLL_CTL_ADD, c->epfd, EPOLLIN, 1);
				sm_thread(&t, sm_waiter_fn, &c->w);
				while (!sm_load(go))
					sm_sleep_ms(1);
				if (how == EXIT)
					_exit(3);
				execv(argv[0], argv);
				_exit(4);
			}
			if (!is_epoll(form))
				close(self->ch[0].rd);
			ASSERT_TRUE(sm_wait_parked(&self->env, 1));
			ASSERT_TRUE(sm_wait_asleep(&self->env, pid, &c->w, 1));
			if (how == KILL)
				kill(pid, SIGKILL);
			else
				sm_store(go, 1);
			ASSERT_EQ(0, sm_waitpid(pid, &status));
			if (how == KILL) {
				EXPECT_TRUE(WIFSIGNALED(status));
			} else {
				EXPECT_TRUE(WIFEXITED(status));
				EXPECT_EQ(how == EXIT ? 3 : 0, WEXITSTATUS(status));
			}
			EXPECT_EQ(0, sm_load(&c->w.done));
			if (is_epoll(form)) {
				ASSERT_TRUE(sm_chan_send(&self->ch[0]));
				EXPECT_EQ(0, look(outer, &ev, 1));
			} else {
				ASSERT_FALSE(sm_chan_send(&self->ch[0]));
				EXPECT_EQ(EPIPE, errno);
				self->ch[0].rd = dup(0);
			}
			close(outer);
			sm_chans_close(self->ch, 15);
			SM_EXPECT_NONE_PARKED(&self->env);
		}
	}
}

struct cancel {
	int form;
	int fd;
	int cleaned;
};

static void cancel_cleanup(void *p)
{
	struct cancel *a = p;

	sm_add(&a->cleaned, 1);
}

/* By the library's functions, which are those that can be cancelled */
static void *cancel_thread(void *p)
{
	struct cancel *a = p;
	struct pollfd pfd = { .fd = a->fd, .events = POLLIN };
	struct timespec ts = sm_ts(HOUR);
	struct timeval tv = { .tv_sec = 3600 };
	struct epoll_event ev;
	sigset_t mask;
	fd_set fds;

	sigemptyset(&mask);
	FD_ZERO(&fds);
	FD_SET(a->fd, &fds);
	pthread_cleanup_push(cancel_cleanup, a);
	for (;;) {
		switch (a->form) {
		case POLL:
			poll(&pfd, 1, -1);
			break;
		case PPOLL:
			ppoll(&pfd, 1, &ts, &mask);
			break;
		case SELECT:
			select(a->fd + 1, &fds, NULL, NULL, &tv);
			break;
		case PSELECT:
			pselect(a->fd + 1, &fds, NULL, NULL, NULL, &mask);
			break;
		case WAIT:
			epoll_wait(a->fd, &ev, 1, -1);
			break;
		default:
			epoll_pwait(a->fd, &ev, 1, 3600 * 1000, &mask);
		}
	}
	pthread_cleanup_pop(0);
	return NULL;
}

TEST_F(ready, pthread_cancel)
{
	struct epoll_event ev;
	struct cancel a;
	pthread_t t;
	void *ret;
	int form;

	signal(SIGPIPE, SIG_IGN);
	for (form = POLL; form <= PWAIT; form++) {
		ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
		a = (struct cancel){ .form = form, .fd = self->ch[0].rd };
		if (is_epoll(form)) {
			a.fd = epoll_create1(0);
			ASSERT_EQ(0, epoll_add(a.fd, self->ch, 1, EPOLLIN | EPOLLET));
		}
		sm_rebase(&self->env);
		ASSERT_EQ(0, sm_thread(&t, cancel_thread, &a));
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		if (!self->env.parked)
			sm_settle();
		EXPECT_EQ(0, pthread_cancel(t));
		EXPECT_EQ(0, pthread_join(t, &ret));
		EXPECT_EQ(PTHREAD_CANCELED, ret);
		EXPECT_EQ(1, a.cleaned);
		if (is_epoll(form)) {
			/* It does not take events with it. */
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_EQ(1, look(a.fd, &ev, 1));
			close(a.fd);
			close(self->ch[0].rd);
		} else {
			close(self->ch[0].rd);
			EXPECT_FALSE(sm_chan_send(&self->ch[0]));
		}
		close(self->ch[0].wr);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* ----------------------------------------------------------------- traffic */

/*
 * Producers send numbered messages through any of several channels, and wait
 * for each to be acknowledged by whichever consumer took it. So each message
 * has to arrive, once, and a wake-up that gets lost brings all to a halt.
 */
#define NR_CHANS	6
#define NR_PRODUCERS	8
#define MAX_CONSUMERS	6

struct producer {
	struct traffic *t;
	pthread_t thread;
	int ack;		/* eventfd */
	uint32_t sent, received;
	int done;
	char pad[64];
};

struct consumer {
	struct traffic *t;
	pthread_t thread;
	uint64_t seed;
	long waits, empty, events;
	struct call c;
};

struct traffic_how {
	uint32_t ep_events;	/* by epoll, with these; or by the others */
	bool timeouts;
	bool drain;		/* take all there is, not just one message */
	int nr_consumers;
	long rounds;
};

struct traffic {
	struct traffic_how how;
	uint32_t rounds;
	long bad;
	struct sm_chan chan[NR_CHANS + 1];	/* the last one: the end of the test */
	struct producer producer[NR_PRODUCERS];
	struct consumer consumer[MAX_CONSUMERS];
};

static void *producer_fn(void *arg)
{
	struct producer *p = arg;
	struct traffic *t = p->t;
	struct sm_message m = { .producer = p - t->producer };
	struct pollfd pfd = { .fd = p->ack, .events = POLLIN };
	uint64_t val, seed = 88172645463325252ULL + m.producer;

	for (m.seq = 1; m.seq <= t->rounds && !sm_load(&t->bad); m.seq++) {
		sm_store(&p->sent, m.seq);
		if (write(t->chan[sm_rnd(&seed) % NR_CHANS].wr, &m, sizeof(m)) != sizeof(m))
			sm_store(&t->bad, -EPIPE);
		if (poll(&pfd, 1, -1) != 1 ||
		    read(p->ack, &val, sizeof(val)) != sizeof(val) ||
		    val != 1 || sm_load(&p->received) != m.seq)
			sm_store(&t->bad, -EBADMSG);
	}
	sm_store(&p->done, 1);
	return NULL;
}

static void traffic_take(struct consumer *k, int chan)
{
	struct traffic *t = k->t;
	struct producer *p;
	struct sm_message m;
	uint64_t one = 1;
	ssize_t n;

	do {
		n = read(t->chan[chan].rd, &m, sizeof(m));
		if (n < 0 && errno == EAGAIN)
			break;
		if (n != sizeof(m) || m.producer >= NR_PRODUCERS) {
			sm_store(&t->bad, -EIO);
			break;
		}
		k->events++;
		p = &t->producer[m.producer];
		/* Neither late nor twice */
		if (sm_load(&p->sent) != m.seq || sm_add(&p->received, 1) != m.seq)
			sm_store(&t->bad, -ERANGE);
		if (write(p->ack, &one, sizeof(one)) != sizeof(one))
			sm_store(&t->bad, -EIO);
	} while (t->how.drain);
}

/* Wait for channels to be ready: their bits, or -errno */
static long traffic_wait(struct consumer *k)
{
	const int first = k->t->how.ep_events ? WAIT : POLL, end = first == WAIT ? NR_FORMS : WAIT;
	struct call *c = &k->c;
	int64_t ns = NONE;
	long i, ret, mask = 0;

	if (k->t->how.timeouts && sm_rnd(&k->seed) % 4)
		ns = sm_rnd_timeout(&k->seed);
	c->max = 1 + sm_rnd(&k->seed) % c->n;
	ret = call_raw(c, first + sm_rnd(&k->seed) % (end - first), ns);
	if (ret < 0)
		return ret;
	for (i = 0; ret && i < c->n; i++)
		if (ready(c, i))
			mask |= 1 << i;
	/* Without a time-out there has to be something. */
	return __builtin_popcount(mask) != ret || (ns == NONE && !ret) ? -EPROTO : mask;
}

static void *consumer_fn(void *arg)
{
	struct consumer *k = arg;
	struct traffic *t = k->t;
	long ready;
	int i;

	do {
		ready = traffic_wait(k);
		k->waits++;
		k->empty += !ready;
		for (i = 0; ready > 0 && i < NR_CHANS; i++) {
			if (!(ready & (1 << i)))
				continue;
			traffic_take(k, i);
			if ((t->how.ep_events & EPOLLONESHOT) &&
			    epoll_ctl_data(k->c.epfd, EPOLL_CTL_MOD, t->chan[i].rd,
					   t->how.ep_events, i))
				sm_store(&t->bad, -EINVAL);
		}
	} while (ready >= 0 && !(ready & (1 << NR_CHANS)));
	if (ready < 0)
		sm_store(&t->bad, ready);
	return NULL;
}

static void traffic_open(struct __test_metadata *_metadata, struct traffic *t)
{
	static const int kinds[] = { SM_PIPE, SM_UNIX, SM_TCP };
	struct consumer *k;
	int i, epfd = -1;

	for (i = 0; i < NR_CHANS; i++) {
		ASSERT_EQ(0, sm_chan_open(&t->chan[i], kinds[i % 3]));
		sm_nonblock(t->chan[i].rd, true);
	}
	ASSERT_EQ(0, sm_chan_open(&t->chan[NR_CHANS], SM_EVENTFD));
	for (i = 0; i < NR_PRODUCERS; i++) {
		t->producer[i].t = t;
		t->producer[i].ack = eventfd(0, EFD_CLOEXEC);
		ASSERT_GE(t->producer[i].ack, 0);
	}
	for (i = 0; i < t->how.nr_consumers; i++) {
		k = &t->consumer[i];
		k->t = t;
		k->seed = 0x123456789abcdefULL + i;
		fill(&k->c, t->chan, NR_CHANS + 1);
		/* One epoll file for all of them, or, if it wakes one file, for each */
		if (t->how.ep_events && (!i || t->how.ep_events & EPOLLEXCLUSIVE)) {
			epfd = epoll_create1(EPOLL_CLOEXEC);
			ASSERT_EQ(0, epoll_add(epfd, t->chan, NR_CHANS, t->how.ep_events));
			ASSERT_EQ(0, epoll_ctl_data(epfd, EPOLL_CTL_ADD, t->chan[NR_CHANS].rd,
						    EPOLLIN, NR_CHANS));
		}
		k->c.epfd = epfd;
		k->c.own_epfd = false;
	}
}

/* What is readable now */
static unsigned int traffic_left(struct traffic *t)
{
	struct pollfd pfd[NR_CHANS];
	unsigned int left = 0;
	int i;

	for (i = 0; i < NR_CHANS; i++)
		pfd[i] = (struct pollfd){ .fd = t->chan[i].rd, .events = POLLIN };
	poll(pfd, NR_CHANS, 0);
	for (i = 0; i < NR_CHANS; i++)
		left |= !!pfd[i].revents << i;
	return left;
}

static void traffic(struct __test_metadata *_metadata, struct sm_env *env,
		    const struct traffic_how *how)
{
	long progress, last = -1, events = 0, waits = 0, empty = 0;
	struct traffic *t = calloc(1, sizeof(*t));
	int64_t stuck = sm_now_ns();
	int i, done;

	ASSERT_NE(NULL, t);
	t->how = *how;
	t->rounds = sm_traffic_rounds(env, how->rounds);
	traffic_open(_metadata, t);
	for (i = 0; i < t->how.nr_consumers; i++)
		ASSERT_EQ(0, sm_thread(&t->consumer[i].thread, consumer_fn, &t->consumer[i]));
	for (i = 0; i < NR_PRODUCERS; i++)
		ASSERT_EQ(0, sm_thread(&t->producer[i].thread, producer_fn, &t->producer[i]));
	do {
		sm_sleep_ms(5);
		ASSERT_EQ(0, sm_load(&t->bad));
		for (progress = 0, done = 0, i = 0; i < NR_PRODUCERS; i++) {
			progress += sm_load(&t->producer[i].received);
			done += sm_load(&t->producer[i].done);
		}
		if (progress != last)
			stuck = sm_now_ns();
		last = progress;
		ASSERT_LT(sm_now_ns() - stuck, sm_patience_ns()) {
			TH_LOG("no progress after %ld messages, channels with some: %#x",
			       progress, traffic_left(t));
		}
	} while (done < NR_PRODUCERS);
	ASSERT_TRUE(sm_chan_send(&t->chan[NR_CHANS]));
	for (i = 0; i < NR_PRODUCERS; i++) {
		pthread_join(t->producer[i].thread, NULL);
		EXPECT_EQ(t->rounds, t->producer[i].received);
	}
	for (i = 0; i < t->how.nr_consumers; i++) {
		pthread_join(t->consumer[i].thread, NULL);
		events += t->consumer[i].events;
		waits += t->consumer[i].waits;
		empty += t->consumer[i].empty;
	}
	EXPECT_EQ(0, t->bad);
	EXPECT_EQ((long)t->rounds * NR_PRODUCERS, events) {
		TH_LOG("waits %ld, empty %ld", waits, empty);
	}
	EXPECT_EQ(0, traffic_left(t));
	SM_EXPECT_PARKS(env, 20);
	SM_EXPECT_NONE_PARKED(env);
	free(t);
}

#define TEST_TRAFFIC(name, ...)						\
TEST_F_TIMEOUT(ready, name, 60)						\
{									\
	static const struct traffic_how how = { __VA_ARGS__ };		\
									\
	traffic(_metadata, &self->env, &how);				\
}

TEST_TRAFFIC(traffic_one_consumer, .rounds = 500, .nr_consumers = 1, .drain = true)
TEST_TRAFFIC(traffic, .rounds = 400, .nr_consumers = 4)
TEST_TRAFFIC(traffic_with_timeouts, .rounds = 400, .nr_consumers = 4, .timeouts = true)

#define TEST_EPOLL_TRAFFIC(name, mode, ...)				\
	TEST_TRAFFIC(name, .rounds = 300, .nr_consumers = 6,		\
		     .ep_events = EPOLLIN | (mode), __VA_ARGS__)	\
	TEST_TRAFFIC(name##_timeouts, .rounds = 300, .nr_consumers = 6,	\
		     .ep_events = EPOLLIN | (mode), .timeouts = true, __VA_ARGS__)

TEST_EPOLL_TRAFFIC(traffic_level, 0)
TEST_EPOLL_TRAFFIC(traffic_edge, EPOLLET, .drain = true)
TEST_EPOLL_TRAFFIC(traffic_oneshot, EPOLLONESHOT)
TEST_EPOLL_TRAFFIC(traffic_exclusive, EPOLLEXCLUSIVE)

/* -------------------------------------------- signals against events */

/*
 * A thread waits with a mask that lets in a signal; another sends signals, a
 * third one events, both at the same time. Each has to be seen, once, for what
 * it is: an event is no signal, and no handler runs without EINTR.
 */
struct contest {
	int form;
	bool with_timeouts;
	struct sm_chan ch;	/* an eventfd */
	pid_t tid;
	long rounds;
	long sent, signals;
	long events, eintr, timeouts, bad;
	int stop;
	struct call c;
};

static void *contest_waiter(void *arg)
{
	struct contest *k = arg;
	uint64_t seed = 1234567, val;
	int before, ran;
	int64_t ns;
	long ret;

	sm_mask_set(USR1);
	sm_store(&k->tid, sm_gettid());
	while (!sm_load(&k->stop)) {
		before = sm_load(&sm_handled);
		ns = k->with_timeouts && sm_rnd(&seed) % 2 ? sm_rnd_timeout(&seed) : NONE;
		ret = call_raw(&k->c, k->form, ns);
		ran = sm_load(&sm_handled) - before;
		if (ret == 1 && !ran) {
			if (read(k->ch.rd, &val, 8) == 8)
				sm_add(&k->events, (long)val);
			else
				sm_store(&k->bad, -EIO);
		} else if (ret == -EINTR && ran == 1) {
			sm_add(&k->eintr, 1);
		} else if (!ret && !ran && ns != NONE) {
			k->timeouts++;
		} else {
			fprintf(stderr, "# result %ld, %d handlers\n", ret, ran);
			sm_store(&k->bad, -EPROTO);
		}
		if (sm_mask_now() != USR1)
			sm_store(&k->bad, -EPERM);
		if (sm_load(&k->bad))
			break;
	}
	return NULL;
}

/*
 * The round @n is over when both have been seen. The next one starts a little
 * later, at different times, so that the waiter sleeps in between.
 */
static void contest_pause(struct contest *k, long n, uint64_t *seed)
{
	while ((sm_load(&k->events) < n || sm_load(&k->eintr) < n) && !sm_load(&k->bad))
		sched_yield();
	sm_sleep_ns(sm_rnd(seed) % 200000);
}

static void *contest_sender(void *arg)
{
	struct contest *k = arg;
	uint64_t seed = 88172645463325252ULL;

	while (k->sent < k->rounds && !sm_load(&k->bad) && sm_chan_send(&k->ch)) {
		sm_store(&k->sent, k->sent + 1);
		contest_pause(k, k->sent, &seed);
	}
	return NULL;
}

static void *contest_killer(void *arg)
{
	struct contest *k = arg;
	uint64_t seed = 2463534242ULL;

	while (k->signals < k->rounds && !sm_load(&k->bad) &&
	       !sm_tgkill(getpid(), k->tid, SIGUSR1)) {
		sm_store(&k->signals, k->signals + 1);
		contest_pause(k, k->signals, &seed);
	}
	return NULL;
}

static void contest(struct __test_metadata *_metadata, struct sm_env *env, struct contest *k)
{
	int64_t stuck = sm_now_ns();
	long now, last = -1;
	pthread_t t[3];

	sm_rebase(env);
	k->rounds = sm_traffic_rounds(env, 400);
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_EQ(0, sm_thread(&t[0], contest_waiter, k));
	ASSERT_TRUE(sm_wait_until(sm_load(&k->tid)));
	ASSERT_EQ(0, sm_thread(&t[1], contest_sender, k));
	ASSERT_EQ(0, sm_thread(&t[2], contest_killer, k));
	do {
		sm_sleep_ms(5);
		ASSERT_EQ(0, sm_load(&k->bad));
		now = sm_load(&k->events) + sm_load(&k->eintr);
		if (now != last)
			stuck = sm_now_ns();
		last = now;
		ASSERT_LT(sm_now_ns() - stuck, sm_patience_ns()) {
			TH_LOG("sent %ld, seen %ld; signals %ld, seen %ld",
			       k->sent, k->events, k->signals, k->eintr);
		}
	} while (now < 2 * k->rounds);
	pthread_join(t[1], NULL);
	pthread_join(t[2], NULL);
	EXPECT_EQ(k->rounds, k->events);
	EXPECT_EQ(k->rounds, k->eintr);
	EXPECT_EQ(k->rounds, sm_load(&sm_handled));
	sm_store(&k->stop, 1);
	sm_chan_send(&k->ch);
	pthread_join(t[0], NULL);
	EXPECT_EQ(0, k->bad);
	SM_EXPECT_PARKS(env, 20);
}

TEST_F_TIMEOUT(ready, signals_against_events, 90)
{
	struct contest *k = malloc(sizeof(*k));
	int form, timeouts;

	ASSERT_NE(NULL, k);
	for (timeouts = 0; timeouts < 2; timeouts++) {
		FOR_MASKED_FORMS(form) {
			memset(k, 0, sizeof(*k));
			k->form = form;
			k->with_timeouts = timeouts;
			ASSERT_EQ(0, sm_chan_open(&k->ch, SM_EVENTFD));
			fill(&k->c, &k->ch, 1);
			k->c.masked = true;
			k->c.own_epfd = false;
			k->c.epfd = epoll_create1(EPOLL_CLOEXEC);
			ASSERT_EQ(0, epoll_add(k->c.epfd, &k->ch, 1, EPOLLIN | EPOLLET));
			contest(_metadata, &self->env, k);
			sm_chan_close(&k->ch);
			close(k->c.epfd);
		}
	}
}

int main(int argc, char **argv)
{
	sm_harness_prepare(sm_rounds_factor());
	return test_harness_run(argc, argv);
}
