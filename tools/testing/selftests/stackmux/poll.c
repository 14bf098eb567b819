// SPDX-License-Identifier: GPL-2.0
/*
 * poll(), ppoll(), select() and pselect6(), in a process that parks and in one
 * that does not: results, errors, times and signal masks have to be the same.
 */
#include "calls.h"
#include <sys/personality.h>
#include <sys/select.h>
#include <sys/timerfd.h>

#define MANY		1000		/* descriptors */
#define MAX_FD		4096		/* numbers of them */
#define HOUR		(3600 * SM_SEC)
#define NONE		(-1LL)		/* no time-out */

enum { POLL, PPOLL, SELECT, PSELECT, NR_FORMS };

static const char *const form_names[] = {
	"poll", "ppoll", "select", "pselect6",
};

/* One call of any form. The set is given as a set for poll(). */
struct call {
	struct sm_waiter w;
	int form;
	int n;
	int64_t ns;
	struct pollfd *pfd;
	unsigned long (*bits)[MAX_FD / 64];
	bool masked;
	uint64_t mask;
	uint64_t outside, after;	/* mask of the thread: to set, as left */
	int handled;			/* handlers run when the call returned */
	/* What the kernel writes to; may be made inaccessible. */
	union {
		struct timespec ts;
		struct timeval tv;
	} *time;
	struct {
		uint64_t *set;
		size_t size;
	} sig;
	struct pollfd set[MANY];
	unsigned long map[3][MAX_FD / 64];
	struct timespec clock[2];
};

FIXTURE(poll) {
	struct sm_env env;
	struct call *c;
	struct sm_chan ch[MANY];
};

FIXTURE_VARIANT(poll) {
	bool parked;
};

FIXTURE_VARIANT_ADD(poll, classic) {
	.parked = false,
};

FIXTURE_VARIANT_ADD(poll, parked) {
	.parked = true,
};

FIXTURE_SETUP(poll)
{
	sm_setup(_metadata, &self->env, variant->parked);
	self->c = sm_shared_alloc(sizeof(*self->c));
	ASSERT_NE(NULL, self->c);
	ASSERT_EQ(0, sm_allow_files(MAX_FD));
}

FIXTURE_TEARDOWN(poll)
{
}

/* ------------------------------------------------------- calls of all forms */

static const short select_events[] = { POLLIN, POLLOUT, POLLPRI };

/* The first @n of the set, all wanting POLLIN of the channels. */
static void fill(struct call *c, struct sm_chan *ch, int n)
{
	int i;

	c->pfd = c->set;
	c->bits = c->map;
	c->time = (void *)c->clock;
	c->n = n;
	c->masked = false;
	for (i = 0; i < n; i++) {
		c->set[i].fd = ch[i].rd;
		c->set[i].events = POLLIN;
	}
}

static void set_time(struct call *c, int64_t ns)
{
	c->ns = ns;
	if (ns == NONE)
		return;
	if (c->form == SELECT) {
		c->time->tv.tv_sec = ns / SM_SEC;
		c->time->tv.tv_usec = (ns % SM_SEC + 999) / 1000;
	} else {
		c->time->ts = sm_ts(ns);
	}
}

static int64_t left_ns(struct call *c)
{
	if (c->form == SELECT)
		return c->time->tv.tv_sec * SM_SEC +
		       c->time->tv.tv_usec * 1000LL;
	return c->time->ts.tv_sec * SM_SEC + c->time->ts.tv_nsec;
}

static bool has_left(struct call *c)
{
	return c->form != POLL;
}

static bool has_mask(int form)
{
	return form == PPOLL || form == PSELECT;
}

/* Make bitmaps of the set. Returns the number of descriptors for select(). */
static int set_bits(struct call *c)
{
	int i, j, fd, max = 0;

	memset(c->bits, 0, sizeof(c->map));
	for (i = 0; i < c->n; i++) {
		fd = c->pfd[i].fd;
		for (j = 0; j < 3; j++)
			if (c->pfd[i].events & select_events[j])
				c->bits[j][fd / 64] |= 1UL << fd % 64;
		if (fd >= max)
			max = fd + 1;
	}
	return max;
}

/* What came of descriptor @i, in terms of poll(). */
static int ready(struct call *c, int i)
{
	int j, fd = c->pfd[i].fd, ret = 0;

	if (c->form == POLL || c->form == PPOLL)
		return c->pfd[i].revents;
	for (j = 0; j < 3; j++)
		if (c->bits[j][fd / 64] & (1UL << fd % 64))
			ret |= select_events[j];
	return ret;
}

static int nr_ready(struct call *c)
{
	int i, n = 0;

	for (i = 0; i < c->n; i++)
		n += !!ready(c, i);
	return n;
}

/* Make ready to call @form with a time-out of @ns. */
static void prepare(struct call *c, int form, int64_t ns)
{
	struct sm_waiter *w = &c->w;
	long tp;
	int i, n;

	c->form = form;
	set_time(c, ns);
	tp = ns == NONE ? 0 : (long)c->time;
	for (i = 0; i < c->n; i++)
		c->pfd[i].revents = 0x7fff;
	switch (form) {
	case POLL:
		sm_waiter_set(w, __NR_poll, (long)c->pfd, c->n,
			      ns == NONE ? -1 : (ns + SM_MSEC - 1) / SM_MSEC,
			      0, 0, 0);
		break;
	case PPOLL:
		sm_waiter_set(w, __NR_ppoll, (long)c->pfd, c->n, tp,
			      c->masked ? (long)&c->mask : 0, 8, 0);
		break;
	case SELECT:
		n = set_bits(c);
		sm_waiter_set(w, __NR_select, n, (long)c->bits[0],
			      (long)c->bits[1], (long)c->bits[2], tp, 0);
		break;
	default:
		n = set_bits(c);
		c->sig.set = c->masked ? &c->mask : NULL;
		c->sig.size = 8;
		sm_waiter_set(w, __NR_pselect6, n, (long)c->bits[0],
			      (long)c->bits[1], (long)c->bits[2], tp,
			      (long)&c->sig);
	}
	w->before = NULL;
	w->after = NULL;
	w->data = c;
}

/* Call it here. */
static long call_now(struct call *c, int form, int64_t ns)
{
	prepare(c, form, ns);
	sm_waiter_fn(&c->w);
	return c->w.ret;
}

/* Call it in another thread, which falls asleep. */
static bool start(struct sm_env *env, struct call *c, int form, int64_t ns)
{
	prepare(c, form, ns);
	return sm_start(env, &c->w);
}

#define FOR_EACH_FORM(form)	for ((form) = 0; (form) < NR_FORMS; (form)++)

#define EXPECT_NAMED(cond, c)						\
	EXPECT_TRUE(cond) {						\
		TH_LOG("%s, %d descriptors", form_names[(c)->form], (c)->n); \
	}

/* The call returns 1, for descriptor @i, with @events. */
#define EXPECT_ONE(c, i, expected)					\
do {									\
	struct call *__c = (c);						\
	int __i = (i);							\
									\
	SM_JOIN(&__c->w, 1);						\
	EXPECT_EQ(1, nr_ready(__c)) {					\
		TH_LOG("%s", form_names[__c->form]);			\
	}								\
	EXPECT_EQ((expected), ready(__c, __i)) {			\
		TH_LOG("%s", form_names[__c->form]);			\
	}								\
} while (0)

/* ------------------------------------------------------------------ events */

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
				TH_LOG("%s, %s, %d", form_names[form],
				       sm_kind_names[kind], n);
			}
			ASSERT_TRUE(sm_chan_send(&ch[which[i]]));
			EXPECT_ONE(c, which[i], POLLIN);
			EXPECT_TRUE(sm_chan_take(&ch[which[i]]));
		}
	}
	sm_chans_close(ch, n);
}

TEST_F(poll, eventfd)
{
	static const int sizes[] = { 1, 2, 9, 10, 100, MANY };
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		event_wakes(_metadata, &self->env, self->c, self->ch,
			    SM_EVENTFD, sizes[i]);
}

TEST_F(poll, pipe)
{
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_PIPE, 1);
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_PIPE, 3);
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_PIPE, 33);
}

TEST_F(poll, unix_socket)
{
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_UNIX, 1);
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_UNIX, 9);
}

TEST_F(poll, tcp_socket)
{
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_TCP, 1);
	event_wakes(_metadata, &self->env, self->c, self->ch, SM_TCP, 9);
}

/* One of each in a set; each of them wakes. */
TEST_F(poll, mixed_set)
{
	struct call *c = self->c;
	int form, i;

	for (i = 0; i < 12; i++)
		ASSERT_EQ(0, sm_chan_open(&self->ch[i], i % SM_NR_KINDS));
	FOR_EACH_FORM(form) {
		for (i = 0; i < 12; i++) {
			fill(c, self->ch, 12);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			ASSERT_TRUE(sm_chan_send(&self->ch[i]));
			EXPECT_ONE(c, i, POLLIN);
			EXPECT_TRUE(sm_chan_take(&self->ch[i]));
		}
	}
}

/* What happens before the caller runs is reported with it. */
TEST_F(poll, several_events)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 40, SM_EVENTFD));
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 40);
		prepare(c, form, HOUR);
		c->w.before = sm_pin_waiter;
		ASSERT_TRUE(sm_start(&self->env, &c->w));
		ASSERT_EQ(0, sm_rt_begin());
		for (i = 0; i < 40; i += 3)
			sm_chan_send(&self->ch[i]);
		sm_rt_end();
		SM_JOIN(&c->w, 14);
		for (i = 0; i < 40; i++) {
			EXPECT_EQ(i % 3 ? 0 : POLLIN, ready(c, i));
			if (i % 3 == 0)
				EXPECT_TRUE(sm_chan_take(&self->ch[i]));
		}
	}
}

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

/*
 * Woken, but what woke it has gone when it gets to run: it waits on, and
 * neither its deadline nor the next event is lost.
 */
TEST_F(poll, event_taken_by_another)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 3, SM_EVENTFD));
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 3);
		prepare(c, form, HOUR);
		c->w.before = sm_pin_waiter;
		ASSERT_TRUE(sm_start(&self->env, &c->w));
		for (i = 0; i < 25; i++) {
			ASSERT_EQ(0, sm_rt_begin());
			sm_chan_send(&self->ch[i % 3]);
			sm_chan_take(&self->ch[i % 3]);
			sm_rt_end();
			ASSERT_TRUE(sm_sleeps(&c->w)) {
				TH_LOG("%s returned %ld", form_names[form],
				       c->w.ret);
			}
		}
		ASSERT_TRUE(sm_chan_send(&self->ch[1]));
		EXPECT_ONE(c, 1, POLLIN);
		EXPECT_TRUE(sm_chan_take(&self->ch[1]));
	}
	/* The same until the time is over. */
	FOR_EACH_FORM(form) {
		const int64_t ns = 200 * SM_MSEC * sm_slow();

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
			ASSERT_LT(sm_now_ns() - c->w.start_ns,
				  ns + sm_late_ns() + SM_SEC);
		}
		SM_JOIN(&c->w, 0);
		EXPECT_GE(sm_waiter_ns(&c->w), ns);
	}
}

/* Ready when the call begins: nobody waits, whatever the time-out. */
TEST_F(poll, ready_at_once)
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
			if (ns[i] == HOUR && has_left(c)) {
				EXPECT_LE(left_ns(c), HOUR);
				EXPECT_GE(left_ns(c), HOUR - SM_MSEC -
					  sm_waiter_ns(&c->w));
			}
		}
	}
}

/* What a pipe, and sockets, say in which states; half of it at once. */
TEST_F(poll, hangup_and_error)
{
	struct call *c = self->c;
	int kind, form;

	/* The writer goes. */
	for (kind = SM_PIPE; kind < SM_NR_KINDS; kind++) {
		FOR_EACH_FORM(form) {
			const int expected[] = {
				[SM_PIPE] = POLLHUP,
				[SM_UNIX] = POLLIN | POLLHUP,
				[SM_TCP] = POLLIN,
			};

			ASSERT_EQ(0, sm_chan_open(&self->ch[0], kind));
			fill(c, self->ch, 1);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			close(self->ch[0].wr);
			EXPECT_ONE(c, 0, form < SELECT ? expected[kind] :
				   POLLIN);
			close(self->ch[0].rd);
		}
	}
	/* Hangups are reported though nothing is asked for. */
	for (form = POLL; form <= PPOLL; form++) {
		ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
		fill(c, self->ch, 1);
		c->set[0].events = 0;
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		sm_chan_send(&self->ch[0]);
		sm_settle();
		ASSERT_EQ(0, sm_load(&c->w.done));
		close(self->ch[0].wr);
		EXPECT_ONE(c, 0, POLLHUP);
		close(self->ch[0].rd);

		ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_TCP));
		fill(c, self->ch, 1);
		c->set[0].events = POLLRDHUP;
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		shutdown(self->ch[0].wr, SHUT_WR);
		EXPECT_ONE(c, 0, POLLRDHUP);
		sm_chan_close(&self->ch[0]);
	}
}

/* Fill a pipe or socket until it takes no more. */
/* Until there is no room, and none comes: TCP moves it to the other side later. */
static void stuff(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	static const char buf[4096];

	sm_nonblock(fd, true);
	do {
		while (write(fd, buf, sizeof(buf)) > 0)
			;
	} while (poll(&pfd, 1, 100 * sm_slow()));
	sm_nonblock(fd, false);
}

static void unstuff(int fd)
{
	char buf[4096];

	sm_nonblock(fd, true);
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	sm_nonblock(fd, false);
}

TEST_F(poll, writable)
{
	struct call *c = self->c;
	int kind, form;

	for (kind = SM_PIPE; kind < SM_NR_KINDS; kind++) {
		FOR_EACH_FORM(form) {
			ASSERT_EQ(0, sm_chan_open(&self->ch[0], kind));
			stuff(self->ch[0].wr);
			fill(c, self->ch, 1);
			c->set[0].fd = self->ch[0].wr;
			c->set[0].events = POLLOUT;
			ASSERT_TRUE(start(&self->env, c, form, NONE));
			unstuff(self->ch[0].rd);
			EXPECT_ONE(c, 0, POLLOUT);

			/* Nobody will read it any more. */
			stuff(self->ch[0].wr);
			if (kind == SM_PIPE) {
				ASSERT_TRUE(start(&self->env, c, form, NONE));
				close(self->ch[0].rd);
				EXPECT_ONE(c, 0, form < SELECT ? POLLERR :
					   POLLOUT);
				close(self->ch[0].wr);
			} else {
				sm_chan_close(&self->ch[0]);
			}
		}
	}
}

/* Out-of-band data: select()'s third set. */
TEST_F(poll, exceptional)
{
	struct call *c = self->c;
	int form;

	FOR_EACH_FORM(form) {
		ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_TCP));
		fill(c, self->ch, 1);
		c->set[0].events = POLLPRI;
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		ASSERT_EQ(1, send(self->ch[0].wr, "!", 1, MSG_OOB));
		EXPECT_ONE(c, 0, POLLPRI);
		sm_chan_close(&self->ch[0]);
	}
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

TEST_F(poll, listening_socket)
{
	struct call *c = self->c;
	struct sockaddr_in sin;
	struct sm_chan l = { 0 };
	int form, s, a;

	l.rd = sm_tcp_listen(&sin);
	ASSERT_GE(l.rd, 0);
	FOR_EACH_FORM(form) {
		fill(c, &l, 1);
		ASSERT_TRUE(start(&self->env, c, form, HOUR));
		s = socket(AF_INET, SOCK_STREAM, 0);
		ASSERT_EQ(0, connect(s, (void *)&sin, sizeof(sin)));
		EXPECT_ONE(c, 0, POLLIN);
		a = accept(l.rd, NULL, NULL);
		EXPECT_GE(a, 0);
		close(a);
		close(s);
	}
}

/* A child's end, a timer, a pseudo terminal. */
TEST_F(poll, other_files)
{
	struct itimerspec its = { .it_value = sm_ts(40 * SM_MSEC * sm_slow()) };
	struct call *c = self->c;
	struct sm_chan f = { 0 };
	int form, status, tty, go[2];
	struct sm_chan pt = { 0 };
	char name[64];
	uint64_t val;
	pid_t pid;

	f.rd = timerfd_create(CLOCK_MONOTONIC, 0);
	ASSERT_GE(f.rd, 0);
	FOR_EACH_FORM(form) {
		fill(c, &f, 1);
		prepare(c, form, NONE);
		ASSERT_EQ(0, timerfd_settime(f.rd, 0, &its, NULL));
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		EXPECT_ONE(c, 0, POLLIN);
		EXPECT_EQ(8, read(f.rd, &val, 8));
	}
	close(f.rd);

	pt.rd = posix_openpt(O_RDWR | O_NOCTTY);
	ASSERT_GE(pt.rd, 0);
	ASSERT_EQ(0, grantpt(pt.rd));
	ASSERT_EQ(0, unlockpt(pt.rd));
	ASSERT_EQ(0, ptsname_r(pt.rd, name, sizeof(name)));
	tty = open(name, O_RDWR | O_NOCTTY);
	ASSERT_GE(tty, 0);
	FOR_EACH_FORM(form) {
		fill(c, &pt, 1);
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		ASSERT_EQ(1, write(tty, "x", 1));
		EXPECT_ONE(c, 0, POLLIN);
		EXPECT_EQ(1, read(pt.rd, name, sizeof(name)));
	}

	FOR_EACH_FORM(form) {
		ASSERT_EQ(0, pipe(go));
		pid = sm_fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			close(go[1]);
			_exit(read(go[0], name, 1));
		}
		f.rd = syscall(__NR_pidfd_open, pid, 0);
		ASSERT_GE(f.rd, 0);
		fill(c, &f, 1);
		ASSERT_TRUE(start(&self->env, c, form, NONE));
		close(go[1]);
		EXPECT_ONE(c, 0, POLLIN);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(0, status);
		close(go[0]);
		close(f.rd);
	}
}

/* Whether the file blocks does not matter. */
TEST_F(poll, nonblock_is_irrelevant)
{
	struct call *c = self->c;
	int form, kind;

	for (kind = 0; kind < SM_NR_KINDS; kind++) {
		ASSERT_EQ(0, sm_chan_open(&self->ch[0], kind));
		sm_nonblock(self->ch[0].rd, true);
		FOR_EACH_FORM(form) {
			fill(c, self->ch, 1);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_ONE(c, 0, POLLIN);
			EXPECT_TRUE(sm_chan_take(&self->ch[0]));
		}
		sm_chan_close(&self->ch[0]);
	}
}

/* -------------------------------------------------------------------- time */

TEST_F(poll, timeout)
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
				EXPECT_NAMED(sm_waiter_ns(&c->w) <
					     ns[i] + sm_late_ns(), c);
				EXPECT_EQ(0, nr_ready(c));
				if (has_left(c))
					EXPECT_EQ(0, left_ns(c));
			}
			SM_EXPECT_PARKS(&self->env, 1);
		}
	}
}

/* Many deadlines in a mess. */
TEST_F(poll, timeouts_many)
{
	enum { NR = 40 };
	struct sm_waiter *w = calloc(NR, sizeof(*w));
	struct pollfd pfd[NR];
	struct timespec ts[NR];
	int64_t ns[NR];
	int i;

	ASSERT_EQ(0, sm_chans_open(self->ch, NR, SM_EVENTFD));
	sm_rebase(&self->env);
	for (i = 0; i < NR; i++) {
		pfd[i].fd = self->ch[i].rd;
		pfd[i].events = POLLIN;
		ns[i] = i % 4 == 3 ? HOUR : (20 + (i * 37) % 300) * SM_MSEC;
		ts[i] = sm_ts(ns[i]);
		sm_waiter_set(&w[i], __NR_ppoll, (long)&pfd[i], 1, (long)&ts[i],
			      0, 8, 0);
		ASSERT_EQ(0, sm_waiter_run(&w[i]));
	}
	for (i = 3; i < NR; i += 4) {
		ASSERT_TRUE(sm_sleeps(&w[i]));
		ASSERT_TRUE(sm_chan_send(&self->ch[i]));
	}
	for (i = 0; i < NR; i++) {
		SM_JOIN(&w[i], i % 4 == 3);
		if (i % 4 == 3)
			continue;
		EXPECT_GE(sm_waiter_ns(&w[i]), ns[i]);
		EXPECT_LT(sm_waiter_ns(&w[i]), ns[i] + sm_late_ns());
		EXPECT_EQ(0, ts[i].tv_sec);
		EXPECT_EQ(0, ts[i].tv_nsec);
	}
	SM_EXPECT_PARKS(&self->env, NR / 4);
}

/* The time that is left is written back; no more, no less. */
TEST_F(poll, time_left)
{
	struct call *c = self->c;
	int64_t asleep, event;
	int form, end;

	ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
	sm_handle(SIGUSR1, 0);
	FOR_EACH_FORM(form) {
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
				ASSERT_TRUE(sm_chan_send(&self->ch[0]));
				EXPECT_ONE(c, 0, POLLIN);
				EXPECT_TRUE(sm_chan_take(&self->ch[0]));
			}
			if (form == POLL) {
				/* No time to write; nothing may be written. */
				EXPECT_EQ(HOUR, left_ns(c));
				continue;
			}
			EXPECT_NAMED(left_ns(c) <= HOUR - (event - asleep), c);
			EXPECT_NAMED(left_ns(c) >= HOUR - SM_MSEC -
				     sm_waiter_ns(&c->w), c);
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
	FOR_EACH_FORM(form) {
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
				ASSERT_TRUE(sm_chan_send(&self->ch[0]));
				EXPECT_ONE(c, 0, POLLIN);
				EXPECT_TRUE(sm_chan_take(&self->ch[0]));
			}
			EXPECT_EQ(HOUR, left_ns(c));
		}
	}
	personality(old);
}

/* ----------------------------------------------------------------- signals */

/* A handler ends the wait, SA_RESTART or not. */
TEST_F(poll, handled_signal)
{
	static const int sa_flags[] = { 0, SA_RESTART };
	static const int64_t ns[] = { HOUR, NONE };
	struct call *c = self->c;
	int form, i, j, n;

	ASSERT_EQ(0, sm_chans_open(self->ch, 12, SM_UNIX));
	FOR_EACH_FORM(form) {
		for (i = 0; i < 2; i++) {
			for (j = 0; j < 2; j++) {
				n = j ? 12 : 1;
				fill(c, self->ch, n);
				sm_handle(SIGUSR1, sa_flags[i]);
				ASSERT_TRUE(start(&self->env, c, form, ns[j]));
				EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid,
						       SIGUSR1));
				SM_JOIN(&c->w, -EINTR);
				EXPECT_EQ(1, sm_load(&sm_handled));
				/* poll() reports none, select() nothing. */
				EXPECT_EQ(form < SELECT ? 0 : n, nr_ready(c));
			}
		}
	}
}

/* Signals nobody handles, or that are blocked, are not seen. */
TEST_F(poll, ignored_signals)
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
		ASSERT_TRUE(sm_chan_send(&self->ch[0]));
		EXPECT_ONE(c, 0, POLLIN);
		EXPECT_TRUE(sm_chan_take(&self->ch[0]));
	}
}

/* A child that makes the call @c, in memory that both share. */
static pid_t start_child(struct sm_env *env, struct call *c, bool asleep)
{
	pid_t pid;

	sm_rebase(env);
	pid = sm_fork();
	if (!pid) {
		sm_waiter_fn(&c->w);
		_exit(0);
	}
	if (pid > 0 && asleep &&
	    (!sm_wait_parked(env, 1) || !sm_wait_asleep(env, pid, &c->w, 1)))
		return -1;
	return pid;
}

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
	FOR_EACH_FORM(form) {
		int64_t end = sm_now_ns() + ns + sm_late_ns() + 5 * SM_SEC;

		fill(c, self->ch, 3);
		prepare(c, form, ns);
		c->w.entered = 0;
		c->w.done = 0;
		pid = start_child(&self->env, c, false);
		ASSERT_GT(pid, 0);
		ASSERT_TRUE(sm_wait_until(sm_load(&c->w.entered)));
		for (rounds = 0; pid && !sm_load(&c->w.done) &&
		     sm_now_ns() < end; rounds++) {
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
			TH_LOG("%s still waits after %d stops",
			       form_names[form], rounds);
		}
		if (pid) {
			kill(pid, SIGCONT);
			ASSERT_EQ(0, sm_waitpid(pid, &status));
		}
		EXPECT_EQ(0, c->w.ret);
		EXPECT_GE(sm_waiter_ns(&c->w), ns);
		EXPECT_EQ(0, nr_ready(c));
		if (has_left(c))
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
	FOR_EACH_FORM(form) {
		for (i = 0; i < 4; i++) {
			fill(c, self->ch, 3);
			prepare(c, form, ns[i % 2]);
			c->w.entered = 0;
			c->w.done = 0;
			pid = start_child(&self->env, c, true);
			ASSERT_GT(pid, 0);
			ASSERT_TRUE(stop(pid));
			if (i < 2)
				sm_chan_send(&self->ch[2]);
			sm_rebase(&self->env);
			kill(pid, SIGCONT);
			if (i >= 2) {
				ASSERT_TRUE(sm_wait_parked(&self->env, 1));
				ASSERT_TRUE(sm_wait_asleep(&self->env, pid,
							   &c->w, 1));
				sm_chan_send(&self->ch[2]);
			}
			ASSERT_EQ(0, sm_waitpid(pid, &status));
			EXPECT_EQ(0, status);
			EXPECT_EQ(1, c->w.ret);
			EXPECT_EQ(POLLIN, ready(c, 2));
			EXPECT_EQ(1, nr_ready(c));
			EXPECT_TRUE(sm_chan_take(&self->ch[2]));
			if (has_left(c) && ns[i % 2] == HOUR) {
				EXPECT_LT(left_ns(c), HOUR);
				EXPECT_GE(left_ns(c), HOUR - SM_MSEC -
					  sm_waiter_ns(&c->w));
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
	for (form = PPOLL; form < NR_FORMS; form++) {
		fill(c, self->ch, 1);
		c->time = sm_shared_alloc(4096);
		ASSERT_NE(NULL, c->time);
		prepare(c, form, HOUR);
		ASSERT_EQ(0, mprotect(c->time, 4096, PROT_READ));
		c->w.entered = 0;
		c->w.done = 0;
		pid = start_child(&self->env, c, true);
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
	FOR_EACH_FORM(form) {
		fill(c, self->ch, 2);
		c->n = 1;
		prepare(c, form, NONE);
		/* For select() as many as with both. */
		if (form >= SELECT)
			c->w.arg[0] = self->ch[1].rd + 1;
		c->w.entered = 0;
		c->w.done = 0;
		pid = start_child(&self->env, c, true);
		ASSERT_GT(pid, 0);
		ASSERT_TRUE(stop(pid));
		c->set[0].fd = self->ch[1].rd;
		set_bits(c);
		sm_rebase(&self->env);
		kill(pid, SIGCONT);
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		ASSERT_TRUE(sm_wait_asleep(&self->env, pid, &c->w, 1));
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

static void mask_before(struct sm_waiter *w)
{
	struct call *c = w->data;

	sm_mask_set(c->outside);
	c->handled = sm_load(&sm_handled);
}

static void mask_after(struct sm_waiter *w)
{
	struct call *c = w->data;

	c->after = sm_mask_now();
	c->handled = sm_load(&sm_handled) - c->handled;
}

#define USR1	sm_bit(SIGUSR1)
#define USR2	sm_bit(SIGUSR2)

/* Make ready for a call with @inside as mask, from a thread with @outside. */
static void prepare_masked(struct call *c, int form, int64_t ns,
			   uint64_t outside, uint64_t inside)
{
	c->masked = true;
	c->mask = inside;
	c->outside = outside;
	prepare(c, form, ns);
	c->w.before = mask_before;
	c->w.after = mask_after;
}

/* Blocked outside, not inside, and it comes during the wait. */
TEST_F(poll, mask_lets_in)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_PIPE));
	FOR_EACH_FORM(form) {
		if (!has_mask(form))
			continue;
		for (i = 0; i < 2; i++) {
			fill(c, self->ch, i + 1);
			sm_handle(SIGUSR1, i ? SA_RESTART : 0);
			prepare_masked(c, form, i ? HOUR : NONE, USR1, USR2);
			ASSERT_TRUE(sm_start(&self->env, &c->w));
			EXPECT_EQ(USR2, sm_mask_of(getpid(), c->w.tid));
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR1));
			SM_JOIN(&c->w, -EINTR);
			EXPECT_EQ(1, c->handled);
			EXPECT_EQ(USR1 | USR2, sm_mask_in_handler);
			EXPECT_EQ(USR1, sm_mask_to_restore);
			EXPECT_EQ(USR1, c->after);
		}
	}
}

static void mask_before_pending(struct sm_waiter *w)
{
	mask_before(w);
	sm_tgkill(getpid(), sm_gettid(), SIGUSR1);
}

/* It is there already when the call begins. */
TEST_F(poll, mask_lets_in_pending)
{
	struct call *c = self->c;
	int form;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_EACH_FORM(form) {
		if (!has_mask(form))
			continue;
		fill(c, self->ch, 1);
		sm_handle(SIGUSR1, SA_RESTART);
		prepare_masked(c, form, HOUR, USR1, USR2);
		c->w.before = mask_before_pending;
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		SM_JOIN(&c->w, -EINTR);
		EXPECT_EQ(1, c->handled);
		EXPECT_EQ(USR1 | USR2, sm_mask_in_handler);
		EXPECT_EQ(USR1, sm_mask_to_restore);
		EXPECT_EQ(USR1, c->after);

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
TEST_F(poll, mask_keeps_out)
{
	struct call *c = self->c;
	int form, i;

	ASSERT_EQ(0, sm_chans_open(self->ch, 2, SM_PIPE));
	FOR_EACH_FORM(form) {
		if (!has_mask(form))
			continue;
		for (i = 0; i < 2; i++) {
			fill(c, self->ch, i + 1);
			sm_handle(SIGUSR1, 0);
			prepare_masked(c, form, HOUR, USR2, USR1);
			ASSERT_TRUE(sm_start(&self->env, &c->w));
			EXPECT_EQ(USR1, sm_mask_of(getpid(), c->w.tid));
			EXPECT_EQ(0, sm_tgkill(getpid(), c->w.tid, SIGUSR1));
			sm_settle();
			EXPECT_EQ(0, sm_load(&sm_handled));
			EXPECT_EQ(USR1, sm_mask_of(getpid(), c->w.tid));
			ASSERT_TRUE(sm_sleeps(&c->w));
			ASSERT_TRUE(sm_chan_send(&self->ch[0]));
			EXPECT_ONE(c, 0, POLLIN);
			/* Before the call returned. */
			EXPECT_EQ(1, c->handled);
			EXPECT_EQ(USR1 | USR2, sm_mask_in_handler);
			EXPECT_EQ(USR2, sm_mask_to_restore);
			EXPECT_EQ(USR2, c->after);
			EXPECT_TRUE(sm_chan_take(&self->ch[0]));
		}
	}
}

/* The same with a time-out as the end. */
TEST_F(poll, mask_and_timeout)
{
	struct call *c = self->c;
	int form;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_EACH_FORM(form) {
		if (!has_mask(form))
			continue;
		fill(c, self->ch, 1);
		sm_handle(SIGUSR1, 0);
		prepare_masked(c, form, 50 * SM_MSEC, USR2, USR1);
		c->w.before = mask_before;
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		SM_JOIN(&c->w, 0);
		EXPECT_EQ(USR2, c->after);

		prepare_masked(c, form, 0, USR2, USR1);
		ASSERT_EQ(0, sm_waiter_run(&c->w));
		SM_JOIN(&c->w, 0);
		EXPECT_EQ(USR2, c->after);
	}
}

/* Stopped and continued, it has its mask again, and only until it ends. */
TEST_F(poll, mask_and_stop)
{
	struct call *c = self->c;
	int form, status, i;
	pid_t pid;

	ASSERT_EQ(0, sm_chans_open(self->ch, 1, SM_PIPE));
	FOR_EACH_FORM(form) {
		if (!has_mask(form))
			continue;
		fill(c, self->ch, 1);
		prepare_masked(c, form, HOUR, USR2, USR1);
		c->w.entered = 0;
		c->w.done = 0;
		pid = start_child(&self->env, c, true);
		ASSERT_GT(pid, 0);
		for (i = 0; i < 3; i++) {
			EXPECT_EQ(USR1, sm_mask_of(pid, pid));
			ASSERT_TRUE(stop(pid));
			sm_rebase(&self->env);
			kill(pid, SIGCONT);
			ASSERT_TRUE(sm_wait_parked(&self->env, 1));
			ASSERT_TRUE(sm_wait_asleep(&self->env, pid, &c->w, 1));
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
		FOR_EACH_FORM(form) {
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			for (i = 0; i < n; i++) {
				c->set[i].fd = self->ch[100].rd;
				c->set[i].events = 0;
				c->set[i].revents = 0x5555;
			}
			memset(c->map, 0, sizeof(c->map));
			if (has_left(c))
				memset(c->time, 0, sizeof(*c->time));
			sm_chan_send(&self->ch[100]);
			sm_settle();
			ASSERT_EQ(0, sm_load(&c->w.done));
			sm_chan_send(&self->ch[n - 1]);
			SM_JOIN(&c->w, 1);
			for (i = 0; i < n; i++) {
				if (form < SELECT) {
					EXPECT_EQ(self->ch[100].rd,
						  c->set[i].fd);
					EXPECT_EQ(0, c->set[i].events);
				}
				c->set[i].fd = self->ch[i].rd;
			}
			EXPECT_EQ(1, nr_ready(c));
			EXPECT_EQ(POLLIN, ready(c, n - 1));
			if (has_left(c))
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
		FOR_EACH_FORM(form) {
			for (end = 0; end < 3; end++) {
				/* Takes its time: not in all combinations */
				if (end == 1 && how >= 2)
					continue;
				sm_handle(SIGUSR1, 0);
				page = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
				ASSERT_NE(MAP_FAILED, page);
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
				SM_JOIN(&c->w, form >= SELECT && end == 2 ?
					-EINTR : -EFAULT);
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
	for (form = PPOLL; form < NR_FORMS; form++) {
		for (end = 0; end < 2; end++) {
			sm_handle(SIGUSR1, 0);
			page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			ASSERT_NE(MAP_FAILED, page);
			fill(c, self->ch, 1);
			c->time = (void *)page;
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			munmap(page, 4096);
			if (end) {
				sm_tgkill(getpid(), c->w.tid, SIGUSR1);
				SM_JOIN(&c->w, -EINTR);
			} else {
				sm_chan_send(&self->ch[0]);
				EXPECT_ONE(c, 0, POLLIN);
				sm_chan_take(&self->ch[0]);
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
	FOR_EACH_FORM(form) {
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

	FOR_EACH_FORM(form) {
		for (n = 1; n <= 12; n += 11) {
			ASSERT_EQ(0, sm_chans_open(self->ch, n + 1,
						   SM_EVENTFD));
			copy = dup(self->ch[0].rd);
			fill(c, self->ch, n);
			ASSERT_TRUE(start(&self->env, c, form, HOUR));
			ASSERT_EQ(self->ch[0].rd, dup2(self->ch[n].rd,
						       self->ch[0].rd));
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

	FOR_EACH_FORM(form) {
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
	EXPECT_EQ(0, sm_syscall6(__NR_poll, 0, 0, 30, 0, 0, 0));
	SM_EXPECT_PARKS(&self->env, 1);
}

/* ---------------------------------------------------------- ends of threads */

struct end_arg {
	struct call *c;
	int form;
};

static void *end_thread(void *p)
{
	struct end_arg *a = p;

	sm_waiter_fn(&a->c->w);
	return NULL;
}

/*
 * A process ends while one of its threads polls, in each way that a process
 * can end: the files that the wait holds are let go.
 */
TEST_F(poll, process_ends)
{
	static char *const argv[] = { "/bin/true", NULL };
	struct call *c = self->c;
	struct end_arg a = { .c = c };
	int form, how, status;
	uint32_t *go = sm_shared_alloc(4096);
	pthread_t t;
	pid_t pid;

	signal(SIGPIPE, SIG_IGN);
	FOR_EACH_FORM(form) {
		for (how = 0; how < 3; how++) {
			ASSERT_EQ(0, sm_chans_open(self->ch, 15, SM_PIPE));
			fill(c, self->ch, how ? 15 : 1);
			prepare(c, form, form % 2 ? HOUR : NONE);
			c->w.entered = 0;
			c->w.done = 0;
			*go = 0;
			sm_rebase(&self->env);
			pid = sm_fork();
			ASSERT_GE(pid, 0);
			if (!pid) {
				sm_thread(&t, end_thread, &a);
				while (!sm_load(go))
					sm_sleep_ms(1);
				if (how == 0)
					_exit(3);
				execv(argv[0], argv);
				_exit(4);
			}
			close(self->ch[0].rd);
			ASSERT_TRUE(sm_wait_parked(&self->env, 1));
			ASSERT_TRUE(sm_wait_asleep(&self->env, pid, &c->w, 1));
			if (how == 2)
				kill(pid, SIGKILL);
			else
				sm_store(go, 1);
			ASSERT_EQ(0, sm_waitpid(pid, &status));
			if (how == 2) {
				EXPECT_TRUE(WIFSIGNALED(status));
			} else {
				EXPECT_TRUE(WIFEXITED(status));
				EXPECT_EQ(how ? 0 : 3, WEXITSTATUS(status));
			}
			EXPECT_EQ(0, sm_load(&c->w.done));
			ASSERT_FALSE(sm_chan_send(&self->ch[0]));
			EXPECT_EQ(EPIPE, errno);
			self->ch[0].rd = dup(0);
			sm_chans_close(self->ch, 15);
			SM_EXPECT_NONE_PARKED(&self->env);
		}
	}
}

struct cancel_arg {
	struct pollfd pfd;
	int form;
	int cleaned;
};

static void cancel_cleanup(void *p)
{
	struct cancel_arg *a = p;

	sm_add(&a->cleaned, 1);
}

static void *cancel_thread(void *p)
{
	struct cancel_arg *a = p;
	struct timespec ts = sm_ts(HOUR);
	struct timeval tv = { .tv_sec = 3600 };
	sigset_t mask;
	fd_set fds;

	sigemptyset(&mask);
	FD_ZERO(&fds);
	FD_SET(a->pfd.fd, &fds);
	pthread_cleanup_push(cancel_cleanup, a);
	for (;;) {
		switch (a->form) {
		case POLL:
			poll(&a->pfd, 1, -1);
			break;
		case PPOLL:
			ppoll(&a->pfd, 1, &ts, &mask);
			break;
		case SELECT:
			select(a->pfd.fd + 1, &fds, NULL, NULL, &tv);
			break;
		default:
			pselect(a->pfd.fd + 1, &fds, NULL, NULL, NULL, &mask);
		}
	}
	pthread_cleanup_pop(0);
	return NULL;
}

TEST_F(poll, pthread_cancel)
{
	struct cancel_arg a = { .pfd = { .events = POLLIN } };
	pthread_t t;
	void *ret;
	int form;

	signal(SIGPIPE, SIG_IGN);
	FOR_EACH_FORM(form) {
		ASSERT_EQ(0, sm_chan_open(&self->ch[0], SM_PIPE));
		a.pfd.fd = self->ch[0].rd;
		a.form = form;
		a.cleaned = 0;
		sm_rebase(&self->env);
		ASSERT_EQ(0, sm_thread(&t, cancel_thread, &a));
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		if (!self->env.parked)
			sm_settle();
		EXPECT_EQ(0, pthread_cancel(t));
		EXPECT_EQ(0, pthread_join(t, &ret));
		EXPECT_EQ(PTHREAD_CANCELED, ret);
		EXPECT_EQ(1, a.cleaned);
		close(self->ch[0].rd);
		EXPECT_FALSE(sm_chan_send(&self->ch[0]));
		close(self->ch[0].wr);
	}
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* ------------------------------------------------------------------- races */

/* Any of the forms on all channels. */
static long traffic_wait(struct sm_consumer *k, unsigned int *mask)
{
	struct sm_traffic *t = k->t;
	struct pollfd pfd[SM_TRAFFIC_CHANS + 1];
	struct timespec ts, *tp = NULL;
	struct timeval tv, *tvp = NULL;
	int form = t->mode < NR_FORMS ? t->mode : sm_rnd(&k->seed) % NR_FORMS;
	const int n = SM_TRAFFIC_CHANS + 1;
	int i, fd, max = 0;
	int64_t ns = NONE;
	fd_set fds;
	long ret;

	FD_ZERO(&fds);
	for (i = 0; i < n; i++) {
		fd = i < n - 1 ? t->chan[i].rd : t->stop;
		pfd[i].fd = fd;
		pfd[i].events = POLLIN;
		FD_SET(fd, &fds);
		if (fd >= max)
			max = fd + 1;
	}
	if (t->timeouts && sm_rnd(&k->seed) % 4) {
		ns = sm_rnd_timeout(&k->seed);
		ts = sm_ts(ns);
		tp = &ts;
		tv.tv_sec = 0;
		tv.tv_usec = ns / 1000;
		tvp = &tv;
	}
	switch (form) {
	case POLL:
		ret = sm_syscall6(__NR_poll, (long)pfd, n,
				  ns == NONE ? -1 : ns / SM_MSEC, 0, 0, 0);
		break;
	case PPOLL:
		ret = sm_syscall6(__NR_ppoll, (long)pfd, n, (long)tp, 0, 8, 0);
		break;
	case SELECT:
		ret = sm_syscall6(__NR_select, max, (long)&fds, 0, 0,
				  (long)tvp, 0);
		break;
	default:
		ret = sm_syscall6(__NR_pselect6, max, (long)&fds, 0, 0,
				  (long)tp, 0);
	}
	if (ret < 0)
		return ret;
	for (i = 0; i < n; i++)
		if (form < SELECT ? pfd[i].revents :
		    (ret && FD_ISSET(pfd[i].fd, &fds)))
			*mask |= 1 << i;
	/* Without a time-out there has to be something. */
	if (__builtin_popcount(*mask) != ret || (ns == NONE && !ret))
		return -EPROTO;
	return 0;
}

static void traffic(struct __test_metadata *_metadata, struct sm_env *env,
		    int form, bool timeouts, bool drain, int consumers, long n)
{
	struct sm_traffic *t = calloc(1, sizeof(*t));

	ASSERT_NE(NULL, t);
	t->wait = traffic_wait;
	t->mode = form;
	t->timeouts = timeouts;
	t->drain = drain;
	t->rounds = n;
	t->nr_producers = 8;
	t->nr_consumers = consumers;
	ASSERT_EQ(0, sm_traffic_open(t));
	sm_traffic_run(_metadata, env, t);
	free(t);
}

TEST_F_TIMEOUT(poll, traffic_one_consumer, 60)
{
	traffic(_metadata, &self->env, NR_FORMS, false, true, 1,
		sm_traffic_rounds(&self->env, 500));
}

TEST_F_TIMEOUT(poll, traffic, 60)
{
	traffic(_metadata, &self->env, NR_FORMS, false, false, 4,
		sm_traffic_rounds(&self->env, 400));
}

TEST_F_TIMEOUT(poll, traffic_with_timeouts, 60)
{
	traffic(_metadata, &self->env, NR_FORMS, true, false, 4,
		sm_traffic_rounds(&self->env, 400));
}

/* Signals and events at the same time. */
static long contest_wait(struct sm_contest *k, struct timespec *tp)
{
	uint64_t inside = 0;
	struct { uint64_t *set; size_t size; } sig = { &inside, 8 };
	struct pollfd pfd = { .fd = k->ch.rd, .events = POLLIN };
	fd_set fds;

	if (k->form == PPOLL)
		return sm_syscall6(__NR_ppoll, (long)&pfd, 1, (long)tp,
				   (long)&inside, 8, 0);
	FD_ZERO(&fds);
	FD_SET(k->ch.rd, &fds);
	return sm_syscall6(__NR_pselect6, k->ch.rd + 1, (long)&fds, 0, 0,
			   (long)tp, (long)&sig);
}

TEST_F_TIMEOUT(poll, signals_against_events, 60)
{
	static const int forms[] = { PPOLL, PSELECT };
	struct sm_contest k;
	int i;

	for (i = 0; i < 4; i++) {
		k = (struct sm_contest){
			.wait = contest_wait,
			.form = forms[i % 2],
			.with_timeouts = i / 2,
		};
		ASSERT_EQ(0, sm_chan_open(&k.ch, SM_EVENTFD));
		sm_contest_run(_metadata, &self->env, &k);
		sm_chan_close(&k.ch);
	}
}

int main(int argc, char **argv)
{
	sm_harness_prepare(sm_rounds_factor());
	return test_harness_run(argc, argv);
}
