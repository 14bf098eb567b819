// SPDX-License-Identifier: GPL-2.0
/*
 * Writes and sends that wait for room, in a process that parks and in one that
 * does not: each byte arrives, once and in order. They never park.
 */
#include "scenario.h"

#define NW	4
#define BIG	(1 << 17)

FIXTURE(room) {
	struct sm_env env;
	struct sm_waiter w[NW];
	struct sm_chan c;
	long filled;		/* bytes that wait to be read */
	uint64_t val;
	struct iovec iov[2];
	struct msghdr msg;
	unsigned char *big;
};

SM_VARIANTS(room);

FIXTURE_SETUP(room)
{
	sm_loopback_up();
	signal(SIGPIPE, SIG_IGN);
	sm_setup(_metadata, &self->env, variant->parked);
	sm_keeps_stack(&self->env, true);
	self->val = 0x0807060504030201;
	self->big = malloc(BIG);
	ASSERT_NE(NULL, self->big);
}

FIXTURE_TEARDOWN(room)
{
	free(self->big);
}

/* Write zeroes until there is no room, for good. */
static bool fill(FIXTURE_DATA(room) *self)
{
	static char zero[4096];
	int small = 4096, idle;
	ssize_t n;

	setsockopt(self->c.wr, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	/* Of a fixed size, too */
	setsockopt(self->c.rd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	self->filled = 0;
	sm_nonblock(self->c.wr, true);
	/* TCP moves what it has into the buffer of the receiver. */
	for (idle = 0; idle < 5;) {
		n = write(self->c.wr, zero, sizeof(zero));
		if (n <= 0)
			n = write(self->c.wr, zero, 1);
		if (n > 0) {
			self->filled += n;
			idle = 0;
			continue;
		}
		if (errno != EAGAIN)
			return false;
		sm_sleep_ms(self->c.kind == SM_TCP ? 50 * sm_slow() : 0);
		idle++;
	}
	sm_nonblock(self->c.wr, false);
	return self->filled > 0;
}

/* Read @n bytes that are zero. */
static bool drain(FIXTURE_DATA(room) *self, long n)
{
	char buf[4096];
	ssize_t got, i;

	while (n > 0) {
		got = read(self->c.rd, buf, n < sizeof(buf) ? n : sizeof(buf));
		if (got <= 0)
			return false;
		for (i = 0; i < got; i++)
			if (buf[i])
				return false;
		n -= got;
	}
	return true;
}

static bool take_val(FIXTURE_DATA(room) *self)
{
	uint64_t val;

	return recv(self->c.rd, &val, sizeof(val), MSG_WAITALL) == sizeof(val) ?
	       val == self->val :
	       read(self->c.rd, &val, sizeof(val)) == sizeof(val) && val == self->val;
}

#define ROOM_OPEN(what)							\
do {									\
	ASSERT_EQ(0, sm_chan_open(&self->c, what));			\
	ASSERT_TRUE(fill(self)) {					\
		TH_LOG("%s: %s", sm_kind_names[what], strerror(errno));	\
	}								\
} while (0)

/* What is in there is read, what waits is written and read, too. */
#define ROOM_DRAIN()							\
do {									\
	ASSERT_TRUE(drain(self, self->filled));				\
	SM_JOIN(self->w, 8);						\
	EXPECT_TRUE(take_val(self));					\
	sm_chan_close(&self->c);					\
} while (0)

#define for_each_kind(kind)						\
	for ((kind) = SM_PIPE; (kind) < SM_NR_KINDS; (kind)++)

static void set_write(FIXTURE_DATA(room) *self, int i)
{
	sm_call(&self->w[i], __NR_write, self->c.wr, &self->val, sizeof(self->val));
}

/* -------------------------------------------------------------- scenarios */

TEST_F(room, write)
{
	int kind;

	for_each_kind(kind) {
		ROOM_OPEN(kind);
		set_write(self, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w)) {
			TH_LOG("%s", sm_kind_names[kind]);
		}
		SM_EXPECT_PARKS(&self->env, 1);
		ROOM_DRAIN();
	}
}

TEST_F(room, forms)
{
	int kind, form;

	self->iov[0] = (struct iovec) { &self->val, 3 };
	self->iov[1] = (struct iovec) { (char *)&self->val + 3, 5 };
	self->msg = (struct msghdr) { .msg_iov = self->iov, .msg_iovlen = 2 };
	for_each_kind(kind) {
		for (form = 0; form < 3; form++) {
			if (form && kind == SM_PIPE)
				continue;
			ROOM_OPEN(kind);
			if (form == 0)
				sm_call(self->w, __NR_writev, self->c.wr, self->iov,
					2);
			else if (form == 1)
				sm_call(self->w, __NR_sendto, self->c.wr, &self->val,
					8);
			else
				sm_call(self->w, __NR_sendmsg, self->c.wr,
					&self->msg);
			ASSERT_TRUE(sm_start(&self->env, self->w)) {
				TH_LOG("%s, form %d", sm_kind_names[kind], form);
			}
			ROOM_DRAIN();
		}
	}
}

/* More than there will be room for at any moment */
TEST_F(room, big)
{
	unsigned char buf[5000];
	long n, got, k;
	int kind;

	for (n = 0; n < BIG; n++)
		self->big[n] = n % 251;
	for_each_kind(kind) {
		ROOM_OPEN(kind);
		sm_call(self->w, __NR_write, self->c.wr, self->big, BIG);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_TRUE(drain(self, self->filled));
		for (n = 0; n < BIG; n += got) {
			got = read(self->c.rd, buf, sizeof(buf));
			ASSERT_LT(0, got);
			for (k = 0; k < got; k++)
				ASSERT_EQ((n + k) % 251, buf[k]) {
					TH_LOG("%s: byte %ld",
					       sm_kind_names[kind], n + k);
				}
		}
		EXPECT_EQ(BIG, n);
		SM_JOIN(self->w, BIG);
		sm_chan_close(&self->c);
	}
}

TEST_F(room, timeout)
{
	struct timeval tv = sm_soon_tv();
	int kind;

	for_each_kind(kind) {
		if (kind == SM_PIPE)
			continue;
		ROOM_OPEN(kind);
		ASSERT_EQ(0, setsockopt(self->c.wr, SOL_SOCKET, SO_SNDTIMEO, &tv,
					sizeof(tv)));
		sm_rebase(&self->env);
		set_write(self, 0);
		ASSERT_EQ(0, sm_waiter_run(self->w));
		SM_JOIN(self->w, -EAGAIN);
		SM_EXPECT_TOOK(self->w, sm_soon_ns() - SM_EARLY);
		SM_EXPECT_PARKS(&self->env, 1);
		ASSERT_TRUE(drain(self, self->filled));
		sm_chan_close(&self->c);
	}
}

/* Those that do not want to wait do not. */
TEST_F(room, nonblock)
{
	struct sm_stats st;
	int kind;

	for_each_kind(kind) {
		ROOM_OPEN(kind);
		sm_rebase(&self->env);
		if (kind == SM_PIPE) {
			sm_nonblock(self->c.wr, true);
			EXPECT_EQ(-1, write(self->c.wr, &self->val, 8));
		} else {
			EXPECT_EQ(-1, send(self->c.wr, &self->val, 8, MSG_DONTWAIT));
		}
		EXPECT_EQ(EAGAIN, errno);
		if (self->env.present && self->env.mode != 2) {
			ASSERT_EQ(0, sm_stats_read(&st));
			EXPECT_EQ(st.parks + st.noswitch,
				  self->env.base.parks + self->env.base.noswitch);
		}
		sm_chan_close(&self->c);
	}
}

TEST_F(room, signals)
{
	int kind, restart;

	for_each_kind(kind) {
		for (restart = 0; restart < 2; restart++) {
			ROOM_OPEN(kind);
			sm_handle(SIGUSR1, restart ? SA_RESTART : 0);
			set_write(self, 0);
			ASSERT_TRUE(sm_start(&self->env, self->w));
			ASSERT_EQ(0, sm_signal(self->w, SIGUSR1));
			ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
			if (!restart) {
				SM_JOIN(self->w, -EINTR);
				ASSERT_TRUE(drain(self, self->filled));
				sm_chan_close(&self->c);
				continue;
			}
			ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
			ROOM_DRAIN();
		}
	}
}

/* Nobody is going to read. */
TEST_F(room, reader_leaves)
{
	int kind;

	for_each_kind(kind) {
		ROOM_OPEN(kind);
		set_write(self, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		close(self->c.rd);
		SM_JOIN(self->w, kind == SM_PIPE ? -EPIPE : -ECONNRESET);
		close(self->c.wr);
	}
}

/* Nobody sleeps on while there is room. */
TEST_F(room, pipe_writers)
{
	int i;

	ROOM_OPEN(SM_PIPE);
	for (i = 0; i < NW; i++)
		set_write(self, i);
	ASSERT_TRUE(sm_start_all(&self->env, self->w, NW));
	/* One page is room for one at least. */
	for (i = 0; i < NW; i++) {
		ASSERT_TRUE(drain(self, 4096));
		ASSERT_TRUE(sm_wait_until(sm_nr_done(self->w, NW) > i));
	}
	SM_JOIN_ALL(self->w, NW, 8);
	ASSERT_TRUE(drain(self, self->filled - NW * 4096));
	for (i = 0; i < NW; i++)
		EXPECT_TRUE(take_val(self));
	sm_chan_close(&self->c);
}

/* ------------------------------------------------------------------- race */

struct writer {
	int fd;
	uint32_t nr;
	long rounds, bad;
	pthread_t thread;
};

static void *writer_fn(void *p)
{
	struct writer *w = p;
	struct sm_message m = { .producer = w->nr };

	for (m.seq = 1; m.seq <= w->rounds; m.seq++)
		if (write(w->fd, &m, sizeof(m)) != sizeof(m))
			w->bad++;
	return NULL;
}

/* Several fill what one empties, now faster, now slower than they. */
TEST_F_TIMEOUT(room, account, 120)
{
	struct sm_message m[64];
	struct writer w[NW];
	uint32_t seq[NW];
	long n, k, total;
	uint64_t seed = 4711;
	int small = 4096, kind, j;
	bool looks_on = sm_look_on();	/* the one that reads */

	for_each_kind(kind) {
		ASSERT_EQ(0, sm_chan_open(&self->c, kind));
		setsockopt(self->c.wr, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
		setsockopt(self->c.rd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		if (kind == SM_PIPE)
			fcntl(self->c.wr, F_SETPIPE_SZ, 4096);
		sm_rebase(&self->env);
		memset(seq, 0, sizeof(seq));
		total = 0;
		for (j = 0; j < NW; j++) {
			w[j] = (struct writer) {
				.fd = self->c.wr, .nr = j,
				.rounds = sm_traffic_rounds(&self->env, 8000),
			};
			total += w[j].rounds;
			ASSERT_EQ(0, sm_thread(&w[j].thread, writer_fn, &w[j]));
		}
		while (total) {
			n = 1 + sm_rnd(&seed) % ARRAY_SIZE(m);
			n = read(self->c.rd, m, n * sizeof(m[0]));
			ASSERT_LT(0, n);
			/* The rest of a message that came in two parts */
			while (n % sizeof(m[0])) {
				k = read(self->c.rd, (char *)m + n,
					 sizeof(m[0]) - n % sizeof(m[0]));
				ASSERT_LT(0, k);
				n += k;
			}
			for (k = 0; k < n / (long)sizeof(m[0]); k++) {
				ASSERT_GT(NW, m[k].producer);
				ASSERT_EQ(++seq[m[k].producer], m[k].seq);
				total--;
			}
			if (sm_rnd(&seed) % 16 == 0)
				sm_sleep_ns(sm_rnd(&seed) % 100000);
		}
		for (j = 0; j < NW; j++) {
			pthread_join(w[j].thread, NULL);
			EXPECT_EQ(0, w[j].bad);
		}
		SM_EXPECT_PARKS(&self->env, 20);
		sm_chan_close(&self->c);
	}
	sm_look_away(looks_on);
}

SM_MAIN(sm_rounds_factor());
