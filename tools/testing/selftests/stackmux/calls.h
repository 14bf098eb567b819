/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of poll and epoll have in common: channels that make a
 * descriptor ready, one CPU for oneself, traffic whose books have to balance.
 */
#ifndef STACKMUX_CALLS_H
#define STACKMUX_CALLS_H

#include "stackmux_harness.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---------------------------------------------------------------- channels */

enum { SM_EVENTFD, SM_PIPE, SM_UNIX, SM_TCP, SM_NR_KINDS };

/* Something readable at one end after something was written at the other. */
struct sm_chan {
	int kind;
	int rd, wr;
};

static const char *const sm_kind_names[] = {
	"eventfd", "pipe", "unix socket", "TCP socket",
};

/* A listening TCP socket of this host, its address in @sin. -1 on error. */
static inline int sm_tcp_listen(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(sin, 0, sizeof(*sin));
	sin->sin_family = AF_INET;
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && (bind(fd, (void *)sin, sizeof(*sin)) ||
			listen(fd, 64) ||
			getsockname(fd, (void *)sin, &len))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static inline int sm_tcp_pair(int sv[2])
{
	struct sockaddr_in sin;
	int one = 1, l = sm_tcp_listen(&sin);

	if (l < 0)
		return -1;
	sv[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sv[1] < 0 || connect(sv[1], (void *)&sin, sizeof(sin)))
		return -1;
	sv[0] = accept(l, NULL, NULL);
	close(l);
	setsockopt(sv[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(sv[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return sv[0] < 0 ? -1 : 0;
}

static inline int sm_chan_open(struct sm_chan *c, int kind)
{
	int fd[2];

	c->kind = kind;
	switch (kind) {
	case SM_EVENTFD:
		fd[0] = eventfd(0, EFD_CLOEXEC);
		fd[1] = fd[0];
		if (fd[0] < 0)
			return -1;
		break;
	case SM_PIPE:
		if (pipe2(fd, O_CLOEXEC))
			return -1;
		break;
	case SM_UNIX:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
			return -1;
		break;
	default:
		if (sm_tcp_pair(fd))
			return -1;
	}
	c->rd = fd[0];
	c->wr = fd[1];
	return 0;
}

static inline int sm_chans_open(struct sm_chan *c, int n, int kind)
{
	int i;

	for (i = 0; i < n; i++)
		if (sm_chan_open(&c[i], kind))
			return -1;
	return 0;
}

static inline void sm_chan_close(struct sm_chan *c)
{
	close(c->rd);
	if (c->wr != c->rd)
		close(c->wr);
}

static inline void sm_chans_close(struct sm_chan *c, int n)
{
	while (n--)
		sm_chan_close(&c[n]);
}

/* Make it readable: eight bytes, or 1 more for an eventfd. */
static inline bool sm_chan_send(struct sm_chan *c)
{
	uint64_t one = 1;

	return write(c->wr, &one, sizeof(one)) == sizeof(one);
}

/* Take what was sent by one or, for an eventfd, all sends. */
static inline bool sm_chan_take(struct sm_chan *c)
{
	uint64_t val;

	return read(c->rd, &val, sizeof(val)) == sizeof(val);
}

static inline void sm_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK);
}

/* For tests with many descriptors. */
static inline int sm_allow_files(long n)
{
	struct rlimit rl = { n, n };

	return setrlimit(RLIMIT_NOFILE, &rl);
}

/* ----------------------------------------------------------- waiting calls */

/*
 * See @n threads asleep in calls that they have just been started for. The
 * counters first: who looks at a thread in /proc may keep it from parking.
 */
static inline bool sm_asleep(struct sm_env *env, struct sm_waiter *w, long n)
{
	return sm_wait_parked(env, n) && sm_wait_asleep(env, getpid(), w, n);
}

static inline bool sm_start(struct sm_env *env, struct sm_waiter *w)
{
	sm_rebase(env);
	return !sm_waiter_run(w) && sm_asleep(env, w, 1);
}

/* Is it asleep, though not necessarily without a stack? */
static inline bool sm_sleeps(struct sm_waiter *w)
{
	return sm_wait_until(sm_waiter_asleep(getpid(), w)) &&
	       !sm_load(&w->done);
}

#define SM_JOIN(waiter, expected)					\
do {									\
	struct sm_waiter *__w = (waiter);				\
									\
	ASSERT_TRUE(sm_waiter_join(__w)) {				\
		TH_LOG("the call does not come back");			\
	}								\
	EXPECT_EQ((long)(expected), __w->ret);				\
} while (0)

static inline int sm_nr_done(struct sm_waiter *w, int nr)
{
	int i, n = 0;

	for (i = 0; i < nr; i++)
		n += sm_load(&w[i].done);
	return n;
}

/* Give those that should not wake the time to do it wrongly. */
static inline void sm_settle(void)
{
	sm_sleep_ms(30 * sm_slow());
}

/* ------------------------------------------------------------ one's own CPU */

static inline void sm_pin(void)
{
	cpu_set_t set;
	int cpu = 0;

	sched_getaffinity(0, sizeof(set), &set);
	while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static inline void sm_pin_waiter(struct sm_waiter *w)
{
	sm_pin();
}

/*
 * From here to sm_rt_end() those that the caller wakes, and that are pinned
 * with sm_pin(), do not get to run.
 */
static inline int sm_rt_begin(void)
{
	struct sched_param sp = { .sched_priority = 10 };

	sm_pin();
	return sched_setscheduler(0, SCHED_FIFO, &sp);
}

static inline void sm_rt_end(void)
{
	struct sched_param sp = { 0 };

	sched_setscheduler(0, SCHED_OTHER, &sp);
}

/* ----------------------------------------------------------------- signals */

static int sm_handled;
static uint64_t sm_mask_in_handler, sm_mask_to_restore;

static inline uint64_t sm_mask_now(void)
{
	uint64_t set = 0;

	syscall(__NR_rt_sigprocmask, SIG_BLOCK, NULL, &set, sizeof(set));
	return set;
}

static inline uint64_t sm_mask_set(uint64_t set)
{
	uint64_t old = 0;

	syscall(__NR_rt_sigprocmask, SIG_SETMASK, &set, &old, sizeof(set));
	return old;
}

static inline uint64_t sm_bit(int sig)
{
	return 1ULL << (sig - 1);
}

static inline void sm_handler(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	memcpy(&sm_mask_to_restore, &uc->uc_sigmask,
	       sizeof(sm_mask_to_restore));
	sm_mask_in_handler = sm_mask_now();
	sm_add(&sm_handled, 1);
}

/* Count @sig from now on. */
static inline void sm_handle(int sig, int sa_flags)
{
	struct sigaction sa = {
		.sa_sigaction = sm_handler,
		.sa_flags = sa_flags | SA_SIGINFO,
	};

	sm_store(&sm_handled, 0);
	sigaction(sig, &sa, NULL);
}

/* The signals that a thread blocks at this moment, as /proc shows them. */
static inline uint64_t sm_mask_of(pid_t pid, pid_t tid)
{
	char path[64], buf[4096], *p;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	if (sm_read_file(path, buf, sizeof(buf)) <= 0)
		return ~0ULL;
	p = strstr(buf, "\nSigBlk:");
	return p ? strtoull(p + 8, NULL, 16) : ~0ULL;
}

/* ----------------------------------------------------------------- traffic */

/*
 * Producers send numbered messages through any of several channels, and wait
 * for each to be acknowledged by whichever consumer took it. So each message
 * has to arrive, once, and a wake-up that gets lost brings all to a halt.
 */
#define SM_TRAFFIC_CHANS	6
#define SM_TRAFFIC_MAX		16

struct sm_traffic;

struct sm_message {
	uint32_t producer;
	uint32_t seq;
};

struct sm_producer {
	struct sm_traffic *t;
	pthread_t thread;
	int ack;		/* eventfd */
	uint32_t sent, received;
	int done;
	char pad[64];
};

struct sm_consumer {
	struct sm_traffic *t;
	pthread_t thread;
	int nr;
	int epfd;
	uint64_t seed;
	long waits, empty, events;
	char pad[64];
};

struct sm_traffic {
	/*
	 * Wait for channels to be ready and set their bits in @ready, bit
	 * SM_TRAFFIC_CHANS for the end of the test. 0 or -errno.
	 */
	long (*wait)(struct sm_consumer *c, unsigned int *ready);
	/* A channel has been looked after. */
	long (*again)(struct sm_consumer *c, int chan);
	bool drain;		/* take all there is, not just one message */
	int mode;		/* for wait() */
	bool timeouts;
	uint32_t rounds;
	int nr_producers, nr_consumers;
	int stop;		/* eventfd */
	int epfd;
	long bad;
	struct sm_chan chan[SM_TRAFFIC_CHANS];
	struct sm_producer producer[SM_TRAFFIC_MAX];
	struct sm_consumer consumer[SM_TRAFFIC_MAX];
};

static inline uint64_t sm_rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* No waiting, ever so short, or up to two milliseconds. */
static inline int64_t sm_rnd_timeout(uint64_t *state)
{
	uint64_t r = sm_rnd(state);

	return r % 8 ? (int64_t)(sm_rnd(state) % (r % 3 ? 2000000 : 50000)) : 0;
}

static inline void *sm_producer_fn(void *arg)
{
	struct sm_producer *p = arg;
	struct sm_traffic *t = p->t;
	struct sm_message m = { .producer = p - t->producer };
	struct pollfd pfd = { .fd = p->ack, .events = POLLIN };
	uint64_t val, seed = 88172645463325252ULL + m.producer;

	for (m.seq = 1; m.seq <= t->rounds && !sm_load(&t->bad); m.seq++) {
		sm_store(&p->sent, m.seq);
		if (write(t->chan[sm_rnd(&seed) % SM_TRAFFIC_CHANS].wr, &m,
			  sizeof(m)) != sizeof(m))
			sm_store(&t->bad, -EPIPE);
		if (poll(&pfd, 1, -1) != 1 ||
		    read(p->ack, &val, sizeof(val)) != sizeof(val) ||
		    val != 1 || sm_load(&p->received) != m.seq)
			sm_store(&t->bad, -EBADMSG);
	}
	sm_store(&p->done, 1);
	return NULL;
}

static inline void sm_traffic_take(struct sm_consumer *c, int chan)
{
	struct sm_traffic *t = c->t;
	struct sm_producer *p;
	struct sm_message m;
	uint64_t one = 1;
	ssize_t n;

	do {
		n = read(t->chan[chan].rd, &m, sizeof(m));
		if (n < 0 && errno == EAGAIN)
			break;
		if (n != sizeof(m) || m.producer >= t->nr_producers) {
			sm_store(&t->bad, -EIO);
			break;
		}
		c->events++;
		p = &t->producer[m.producer];
		/* Neither late nor twice */
		if (sm_load(&p->sent) != m.seq ||
		    sm_add(&p->received, 1) != m.seq)
			sm_store(&t->bad, -ERANGE);
		if (write(p->ack, &one, sizeof(one)) != sizeof(one))
			sm_store(&t->bad, -EIO);
	} while (t->drain);
}

static inline void *sm_consumer_fn(void *arg)
{
	struct sm_consumer *c = arg;
	struct sm_traffic *t = c->t;
	unsigned int ready;
	long ret;
	int i;

	for (;;) {
		ready = 0;
		ret = t->wait(c, &ready);
		c->waits++;
		if (ret < 0) {
			sm_store(&t->bad, ret);
			break;
		}
		if (ready & (1 << SM_TRAFFIC_CHANS))
			break;
		c->empty += !ready;
		for (i = 0; i < SM_TRAFFIC_CHANS; i++) {
			if (!(ready & (1 << i)))
				continue;
			sm_traffic_take(c, i);
			if (t->again && t->again(c, i))
				sm_store(&t->bad, -EINVAL);
		}
	}
	return NULL;
}

/* Channels and eventfds of a run. */
static inline int sm_traffic_open(struct sm_traffic *t)
{
	static const int kinds[] = { SM_PIPE, SM_UNIX, SM_TCP };
	int i;

	for (i = 0; i < SM_TRAFFIC_CHANS; i++) {
		if (sm_chan_open(&t->chan[i], kinds[i % 3]))
			return -1;
		sm_nonblock(t->chan[i].rd, true);
	}
	t->stop = eventfd(0, EFD_CLOEXEC);
	for (i = 0; i < t->nr_producers; i++) {
		t->producer[i].t = t;
		t->producer[i].ack = eventfd(0, EFD_CLOEXEC);
		if (t->producer[i].ack < 0)
			return -1;
	}
	for (i = 0; i < t->nr_consumers; i++) {
		t->consumer[i].t = t;
		t->consumer[i].nr = i;
		t->consumer[i].epfd = -1;
		t->consumer[i].seed = 0x123456789abcdefULL + i;
	}
	return t->stop < 0 ? -1 : 0;
}

static inline long sm_traffic_progress(struct sm_traffic *t, int *done)
{
	long sum = 0;
	int i;

	for (*done = 0, i = 0; i < t->nr_producers; i++) {
		sum += sm_load(&t->producer[i].received);
		*done += sm_load(&t->producer[i].done);
	}
	return sum;
}

/* Run it to its end. */
static inline void sm_traffic_run(struct __test_metadata *_metadata,
				  struct sm_env *env, struct sm_traffic *t)
{
	long progress, last = -1, events = 0, waits = 0, empty = 0;
	int64_t stuck = sm_now_ns();
	struct pollfd pfd[SM_TRAFFIC_CHANS];
	uint64_t one = 1;
	int i, done;

	for (i = 0; i < t->nr_consumers; i++)
		ASSERT_EQ(0, sm_thread(&t->consumer[i].thread, sm_consumer_fn,
				       &t->consumer[i]));
	for (i = 0; i < t->nr_producers; i++)
		ASSERT_EQ(0, sm_thread(&t->producer[i].thread, sm_producer_fn,
				       &t->producer[i]));
	for (;;) {
		progress = sm_traffic_progress(t, &done);
		if (done == t->nr_producers)
			break;
		ASSERT_EQ(0, sm_load(&t->bad));
		if (progress != last) {
			last = progress;
			stuck = sm_now_ns();
		}
		ASSERT_LT(sm_now_ns() - stuck, sm_patience_ns()) {
			for (i = 0; i < SM_TRAFFIC_CHANS; i++) {
				pfd[i].fd = t->chan[i].rd;
				pfd[i].events = POLLIN;
			}
			poll(pfd, SM_TRAFFIC_CHANS, 0);
			TH_LOG("no progress after %ld messages", progress);
			for (i = 0; i < SM_TRAFFIC_CHANS; i++)
				TH_LOG("channel %d: %x", i, pfd[i].revents);
		}
		sm_sleep_ms(5);
	}
	ASSERT_EQ(sizeof(one), write(t->stop, &one, sizeof(one)));
	for (i = 0; i < t->nr_producers; i++) {
		pthread_join(t->producer[i].thread, NULL);
		EXPECT_EQ(t->rounds, t->producer[i].received);
	}
	for (i = 0; i < t->nr_consumers; i++) {
		pthread_join(t->consumer[i].thread, NULL);
		events += t->consumer[i].events;
		waits += t->consumer[i].waits;
		empty += t->consumer[i].empty;
	}
	EXPECT_EQ(0, t->bad);
	EXPECT_EQ((long)t->rounds * t->nr_producers, events) {
		TH_LOG("waits %ld, empty %ld", waits, empty);
	}
	/* Nothing is left over. */
	for (i = 0; i < SM_TRAFFIC_CHANS; i++) {
		pfd[i].fd = t->chan[i].rd;
		pfd[i].events = POLLIN;
	}
	EXPECT_EQ(0, poll(pfd, SM_TRAFFIC_CHANS, 0));
	SM_EXPECT_PARKS(env, 20);
	SM_EXPECT_NONE_PARKED(env);
}

/* Messages of each producer; the classic run only checks the test itself. */
static inline long sm_traffic_rounds(struct sm_env *env, long def)
{
	return sm_rounds(env->parked ? def : def / 4);
}

/* -------------------------------------------- signals against events */

/*
 * A thread waits with a mask that lets in a signal; another sends signals, a
 * third one events, both at the same time. Each has to be seen, once, for what
 * it is: an event is no signal, and no handler runs without EINTR.
 */
struct sm_contest {
	long (*wait)(struct sm_contest *k, struct timespec *ts);
	int form;		/* for wait() */
	bool with_timeouts;
	struct sm_chan ch;	/* an eventfd */
	int epfd;
	pid_t tid;
	long rounds;
	long sent, signals;
	long events, eintr, timeouts, bad;
	int stop;
};

static inline void *sm_contest_waiter(void *arg)
{
	struct sm_contest *k = arg;
	struct timespec ts, *tp;
	uint64_t seed = 1234567, val;
	int before, ran;
	long ret;

	sm_mask_set(sm_bit(SIGUSR1));
	sm_store(&k->tid, sm_gettid());
	while (!sm_load(&k->stop)) {
		before = sm_load(&sm_handled);
		tp = NULL;
		if (k->with_timeouts && sm_rnd(&seed) % 2) {
			ts = sm_ts(sm_rnd_timeout(&seed));
			tp = &ts;
		}
		ret = k->wait(k, tp);
		ran = sm_load(&sm_handled) - before;
		if (ret == 1 && !ran) {
			if (read(k->ch.rd, &val, 8) == 8)
				sm_add(&k->events, (long)val);
			else
				sm_store(&k->bad, -EIO);
		} else if (ret == -EINTR && ran == 1) {
			sm_add(&k->eintr, 1);
		} else if (!ret && !ran && tp) {
			k->timeouts++;
		} else {
			fprintf(stderr, "# result %ld, %d handlers\n", ret,
				ran);
			sm_store(&k->bad, -EPROTO);
		}
		if (sm_mask_now() != sm_bit(SIGUSR1))
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
static inline void sm_contest_pause(struct sm_contest *k, long n,
				    uint64_t *seed)
{
	while ((sm_load(&k->events) < n || sm_load(&k->eintr) < n) &&
	       !sm_load(&k->bad))
		sched_yield();
	sm_sleep_ns(sm_rnd(seed) % 200000);
}

static inline void *sm_contest_sender(void *arg)
{
	struct sm_contest *k = arg;
	uint64_t seed = 88172645463325252ULL;

	while (k->sent < k->rounds && !sm_load(&k->bad)) {
		if (!sm_chan_send(&k->ch))
			break;
		sm_store(&k->sent, k->sent + 1);
		sm_contest_pause(k, k->sent, &seed);
	}
	return NULL;
}

static inline void *sm_contest_killer(void *arg)
{
	struct sm_contest *k = arg;
	uint64_t seed = 2463534242ULL;

	while (k->signals < k->rounds && !sm_load(&k->bad)) {
		if (sm_tgkill(getpid(), k->tid, SIGUSR1))
			break;
		sm_store(&k->signals, k->signals + 1);
		sm_contest_pause(k, k->signals, &seed);
	}
	return NULL;
}

static inline void sm_contest_run(struct __test_metadata *_metadata,
				  struct sm_env *env, struct sm_contest *k)
{
	int64_t stuck = sm_now_ns();
	long now, last = -1;
	pthread_t t[3];

	sm_rebase(env);
	k->rounds = sm_traffic_rounds(env, 400);
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_EQ(0, sm_thread(&t[0], sm_contest_waiter, k));
	ASSERT_TRUE(sm_wait_until(sm_load(&k->tid)));
	ASSERT_EQ(0, sm_thread(&t[1], sm_contest_sender, k));
	ASSERT_EQ(0, sm_thread(&t[2], sm_contest_killer, k));
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

#endif /* STACKMUX_CALLS_H */
