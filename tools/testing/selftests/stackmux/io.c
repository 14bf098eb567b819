// SPDX-License-Identifier: GPL-2.0
/*
 * read(), recvfrom(), recvmsg() and accept() on what they wait for, in
 * a process that parks and in one that does not: data, errors and times have to
 * be the same, one event has to end one wait.
 */
#include "scenario.h"

#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define NW	6	/* waiters of tests with several */

FIXTURE(io) {
	struct sm_env env;
	struct sm_waiter w[NW];
	struct sm_chan c;
	char buf[NW][64];
};

SM_VARIANTS(io);

FIXTURE_SETUP(io)
{
	sm_loopback_up();
	sm_setup(_metadata, &self->env, variant->parked);
}

FIXTURE_TEARDOWN(io)
{
}

/* A channel of this kind, in place of the one before */
static bool next_kind(struct __test_metadata *_metadata, struct sm_chan *c, int kind)
{
	sm_chan_close(c);
	if (kind == SM_NR_KINDS)
		return false;
	ASSERT_EQ(0, sm_chan_open(c, kind)) {
		TH_LOG("%s", sm_kind_names[kind]);
	}
	return true;
}

/* The first waiter, given the time to come back wrongly */
static bool sleeps_on(FIXTURE_DATA(io) *self)
{
	sm_settle();
	return sm_sleeps(self->w);
}

#define for_each_kind(kind, first)					\
	for ((kind) = (first), self->c.rd = self->c.wr = -1;		\
	     next_kind(_metadata, &self->c, kind); (kind)++)

static void set_read(FIXTURE_DATA(io) *self, int i, int fd, size_t len)
{
	sm_call(&self->w[i], __NR_read, fd, self->buf[i], len);
}

static void set_recv(FIXTURE_DATA(io) *self, int i, int fd, size_t len, int flags)
{
	sm_call(&self->w[i], __NR_recvfrom, fd, self->buf[i], len, flags);
}

/* ------------------------------------------------------- one of each kind */

TEST_F(io, channels)
{
	uint64_t x;
	int kind;

	for_each_kind(kind, 0) {
		set_read(self, 0, self->c.rd, sizeof(self->buf[0]));
		ASSERT_TRUE(sm_start(&self->env, self->w)) {
			TH_LOG("%s", sm_kind_names[kind]);
		}
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, 8);
		memcpy(&x, self->buf[0], sizeof(x));
		EXPECT_EQ(1, x);
	}
}

TEST_F(io, fifo)
{
	char path[] = "/tmp/stackmux-fifo-XXXXXX";
	int fd;

	ASSERT_LE(0, close(mkstemp(path)));
	unlink(path);
	ASSERT_EQ(0, mkfifo(path, 0600));
	fd = open(path, O_RDWR | O_CLOEXEC);
	unlink(path);
	ASSERT_LE(0, fd);
	set_read(self, 0, fd, 10);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(3, write(fd, "abc", 3));
	SM_JOIN(self->w, 3);
	close(fd);
}

TEST_F(io, timerfd)
{
	struct itimerspec its = { .it_value = sm_ts(50 * SM_MSEC) };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t n;

	ASSERT_LE(0, fd);
	set_read(self, 0, fd, 8);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(0, timerfd_settime(fd, 0, &its, NULL));
	SM_JOIN(self->w, 8);
	memcpy(&n, self->buf[0], sizeof(n));
	EXPECT_EQ(1, n);
	EXPECT_LE(50 * SM_MSEC, sm_waiter_ns(self->w));
	close(fd);
}

TEST_F(io, signalfd)
{
	struct signalfd_siginfo info;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGRTMIN + 1);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	sigdelset(&set, SIGRTMIN + 1);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	ASSERT_LE(0, fd);
	sm_call(self->w, __NR_read, fd, &info, sizeof(info));
	ASSERT_TRUE(sm_start(&self->env, self->w));
	/* One that it does not read wakes it for nothing. */
	ASSERT_EQ(0, sigqueue(getpid(), SIGRTMIN + 1, (union sigval) { .sival_int = 1 }));
	ASSERT_TRUE(sleeps_on(self));
	ASSERT_EQ(0, sigqueue(getpid(), SIGRTMIN, (union sigval) { .sival_int = 42 }));
	SM_JOIN(self->w, sizeof(info));
	EXPECT_EQ(SIGRTMIN, (int)info.ssi_signo);
	EXPECT_EQ(42, info.ssi_int);
	close(fd);
}

TEST_F(io, inotify)
{
	char dir[] = "/tmp/stackmux-inotify-XXXXXX", path[64];
	struct inotify_event *ev = (void *)self->buf[0];
	int fd, file;

	ASSERT_NE(NULL, mkdtemp(dir));
	fd = inotify_init1(IN_CLOEXEC);
	ASSERT_LE(0, inotify_add_watch(fd, dir, IN_CREATE));
	set_read(self, 0, fd, sizeof(self->buf[0]));
	ASSERT_TRUE(sm_start(&self->env, self->w));
	snprintf(path, sizeof(path), "%s/x", dir);
	file = open(path, O_CREAT | O_RDWR, 0600);
	SM_JOIN(self->w, sizeof(*ev) + 16);
	EXPECT_EQ(IN_CREATE, (int)ev->mask);
	EXPECT_STREQ("x", ev->name);
	close(file);
	unlink(path);
	rmdir(dir);
	close(fd);
}

static int udp_open(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(sin, 0, sizeof(*sin));
	sin->sin_family = AF_INET;
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (void *)sin, sizeof(*sin)) || getsockname(fd, (void *)sin, &len))
		return -1;
	return fd;
}

TEST_F(io, datagram_address)
{
	struct sockaddr_in to, from, got;
	struct iovec iov = { self->buf[0], 2 };
	struct msghdr msg = {
		.msg_name = &got, .msg_namelen = sizeof(got),
		.msg_iov = &iov, .msg_iovlen = 1,
	};
	socklen_t len = sizeof(got);
	int r = udp_open(&to), s = udp_open(&from);

	ASSERT_LE(0, r);
	ASSERT_LE(0, s);
	memset(&got, 0, sizeof(got));
	sm_call(self->w, __NR_recvfrom, r, self->buf[0], 64, 0, &got, &len);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(5, sendto(s, "hello", 5, 0, (void *)&to, sizeof(to)));
	SM_JOIN(self->w, 5);
	EXPECT_EQ(from.sin_port, got.sin_port);
	EXPECT_EQ(sizeof(got), len);

	memset(&got, 0, sizeof(got));
	sm_call(self->w, __NR_recvmsg, r, &msg);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(5, sendto(s, "world", 5, 0, (void *)&to, sizeof(to)));
	SM_JOIN(self->w, 2);
	EXPECT_EQ(from.sin_port, got.sin_port);
	EXPECT_TRUE(msg.msg_flags & MSG_TRUNC);
	close(r);
	close(s);
}

/* A descriptor in a message arrives once. */
TEST_F(io, control_data)
{
	char cbuf[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 'x';
	struct iovec iov = { &byte, 1 }, riov = { self->buf[0], 8 };
	struct msghdr out = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = cbuf, .msg_controllen = sizeof(cbuf),
	};
	char rbuf[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr in = {
		.msg_iov = &riov, .msg_iovlen = 1,
		.msg_control = rbuf, .msg_controllen = sizeof(rbuf),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&out);
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	int sv[2], fd, p[2];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		ASSERT_EQ(0, socketpair(AF_UNIX, types[i], 0, sv));
		ASSERT_EQ(0, pipe(p));
		in.msg_controllen = sizeof(rbuf);
		sm_call(self->w, __NR_recvmsg, sv[0], &in);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &p[1], sizeof(int));
		ASSERT_EQ(1, sendmsg(sv[1], &out, 0));
		SM_JOIN(self->w, 1);
		ASSERT_EQ(CMSG_LEN(sizeof(int)), CMSG_FIRSTHDR(&in)->cmsg_len);
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof(int));
		ASSERT_EQ(1, write(fd, "y", 1));
		ASSERT_EQ(1, read(p[0], self->buf[1], 8));
		close(fd);
		close(p[0]);
		close(p[1]);
		close(sv[0]);
		close(sv[1]);
	}
}

/* ------------------------------------------------------ ends of the wait */

TEST_F(io, end_of_file)
{
	int kind;

	for_each_kind(kind, SM_PIPE) {
		set_read(self, 0, self->c.rd, 8);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		close(self->c.wr);
		SM_JOIN(self->w, 0);
		if (kind == SM_PIPE)
			continue;
		close(self->c.rd);
		ASSERT_EQ(0, sm_chan_open(&self->c, kind));
		set_recv(self, 0, self->c.rd, 8, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_EQ(0, shutdown(self->c.rd, SHUT_RD));
		SM_JOIN(self->w, 0);
	}
}

TEST_F(io, signals)
{
	int kind;

	for_each_kind(kind, 0) {
		set_read(self, 0, self->c.rd, 8);
		sm_handle(SIGUSR1, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		EXPECT_EQ(1, sm_load(&sm_handled));

		sm_handle(SIGUSR1, SA_RESTART);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_EQ(0, sm_signal(self->w, SIGUSR1));
		ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
		ASSERT_TRUE(sm_sleeps(self->w));
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, 8);
	}
}

TEST_F(io, receive_timeout)
{
	struct timeval tv;
	int kind;

	for_each_kind(kind, SM_UNIX) {
		tv = sm_soon_tv();
		ASSERT_EQ(0,
			  setsockopt(self->c.rd, SOL_SOCKET, SO_RCVTIMEO, &tv,
				     sizeof(tv)));
		set_read(self, 0, self->c.rd, 8);
		sm_rebase(&self->env);
		ASSERT_EQ(0, sm_waiter_run(self->w));
		SM_JOIN(self->w, -EAGAIN);
		SM_EXPECT_TOOK(self->w, sm_soon_ns() - SM_EARLY);
		SM_EXPECT_PARKS(&self->env, 1);

		/* No restart after a handler, and data in time */
		tv.tv_sec = 1000;
		ASSERT_EQ(0,
			  setsockopt(self->c.rd, SOL_SOCKET, SO_RCVTIMEO, &tv,
				     sizeof(tv)));
		sm_handle(SIGUSR1, SA_RESTART);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		SM_EXPECT_INTERRUPTED(self->w, SIGUSR1);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, 8);
	}
}

TEST_F(io, accept_timeout)
{
	struct timeval tv = sm_soon_tv();
	struct sockaddr_in sin;
	int l = sm_tcp_listen(&sin);

	ASSERT_EQ(0, setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	sm_call(self->w, __NR_accept4, l, 0, 0, SOCK_CLOEXEC);
	ASSERT_EQ(0, sm_waiter_run(self->w));
	SM_JOIN(self->w, -EAGAIN);
	SM_EXPECT_TOOK(self->w, sm_soon_ns() - SM_EARLY);
	SM_EXPECT_PARKS(&self->env, 1);
	close(l);
}

TEST_F(io, wait_all)
{
	int i, kind;

	for_each_kind(kind, SM_UNIX) {
		set_recv(self, 0, self->c.rd, 10, MSG_WAITALL);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		for (i = 0; i < 10; i++) {
			ASSERT_TRUE(sm_sleeps(self->w));
			ASSERT_EQ(1, write(self->c.wr, &"0123456789"[i], 1));
		}
		SM_JOIN(self->w, 10);
		EXPECT_EQ(0, memcmp(self->buf[0], "0123456789", 10));

		/* Interrupted half-way it returns what it has. */
		sm_handle(SIGUSR1, 0);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_EQ(4, write(self->c.wr, "abcd", 4));
		ASSERT_TRUE(sleeps_on(self));
		ASSERT_EQ(0, sm_signal(self->w, SIGUSR1));
		SM_JOIN(self->w, 4);
		EXPECT_EQ(0, memcmp(self->buf[0], "abcd", 4));
	}
}

TEST_F(io, low_water)
{
	int n = 5;

	ASSERT_EQ(0, sm_chan_open(&self->c, SM_TCP));
	ASSERT_EQ(0, setsockopt(self->c.rd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof(n)));
	set_recv(self, 0, self->c.rd, 10, 0);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(3, write(self->c.wr, "abc", 3));
	ASSERT_TRUE(sleeps_on(self));
	ASSERT_EQ(3, write(self->c.wr, "def", 3));
	SM_JOIN(self->w, 6);
	EXPECT_EQ(0, memcmp(self->buf[0], "abcdef", 6));
	sm_chan_close(&self->c);
}

TEST_F(io, peek)
{
	int kind;

	for_each_kind(kind, SM_UNIX) {
		set_recv(self, 0, self->c.rd, 8, MSG_PEEK);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, 8);
		EXPECT_TRUE(sm_chan_take(&self->c));
		EXPECT_EQ(-1, recv(self->c.rd, self->buf[0], 8, MSG_DONTWAIT));
		EXPECT_EQ(EAGAIN, errno);
	}
}

/* O_NONBLOCK does not end a wait that has begun. */
TEST_F(io, nonblock_meanwhile)
{
	int kind;

	for_each_kind(kind, 0) {
		set_read(self, 0, self->c.rd, 8);
		set_read(self, 1, self->c.rd, 8);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_TRUE(sm_start(&self->env, &self->w[1]));
		sm_nonblock(self->c.rd, true);
		/* One of them is woken, or both, and one finds nothing. */
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_ASSERT_DONE(self->w, 2, 1);
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN_ALL(self->w, 2, 8);
	}
}

/* The call goes on with its file when the descriptor has become another one. */
TEST_F(io, closed_meanwhile)
{
	struct sm_chan other;
	int kind, fd;

	for_each_kind(kind, 0) {
		fd = dup(self->c.rd);
		set_read(self, 0, fd, 8);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_EQ(0, sm_chan_open(&other, SM_PIPE));
		ASSERT_EQ(fd, dup2(other.rd, fd));
		ASSERT_TRUE(sm_chan_send(&other));
		ASSERT_TRUE(sleeps_on(self));
		close(fd);
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, 8);
		EXPECT_TRUE(sm_chan_take(&other));
		sm_chan_close(&other);
	}
}

TEST_F(io, bad_buffer)
{
	int kind;

	for_each_kind(kind, 0) {
		sm_call(self->w, __NR_read, self->c.rd, 8, 8);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		ASSERT_TRUE(sm_chan_send(&self->c));
		SM_JOIN(self->w, -EFAULT);
	}
}

TEST_F(io, stop_and_continue)
{
	int status, kind;
	pid_t pid;

	for_each_kind(kind, 0) {
		sm_rebase(&self->env);
		pid = fork();
		if (!pid)
			_exit(!sm_chan_take(&self->c));
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		ASSERT_TRUE(sm_wait_until(sm_task_state(pid, pid) == 'S'));
		kill(pid, SIGSTOP);
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		kill(pid, SIGCONT);
		ASSERT_TRUE(sm_wait_until(sm_task_state(pid, pid) == 'S'));
		ASSERT_TRUE(sm_chan_send(&self->c));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
	}
}

/* ------------------------------------------------ one event ends one wait */

TEST_F(io, accept_one)
{
	struct sockaddr_in sin;
	struct sockaddr_un sun;
	socklen_t len;
	int i, k, l, s, unx;

	for (unx = 0; unx < 2; unx++) {
		l = unx ? sm_unix_listen(SOCK_STREAM, &sun, &len) : sm_tcp_listen(&sin);
		ASSERT_LE(0, l);
		for (i = 0; i < NW; i++) {
			sm_call(&self->w[i], __NR_accept4, l, 0, 0, SOCK_CLOEXEC);
			ASSERT_TRUE(sm_start(&self->env, &self->w[i]));
		}
		for (k = 1; k <= NW; k++) {
			sm_rebase(&self->env);
			s = socket(unx ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC,
				   0);
			ASSERT_EQ(0, unx ? connect(s, (void *)&sun, len) :
					   connect(s, (void *)&sin, sizeof(sin)));
			SM_ASSERT_DONE(self->w, NW, k);
			close(s);
		}
		for (i = 0; i < NW; i++) {
			ASSERT_TRUE(sm_waiter_join(&self->w[i]));
			EXPECT_LE(0, self->w[i].ret);
			close(self->w[i].ret);
		}
		close(l);
	}
}

/* A reader that is woken alone wakes the next if it leaves something. */
TEST_F(io, pipe_passes_on)
{
	int i;

	ASSERT_EQ(0, sm_chan_open(&self->c, SM_PIPE));
	for (i = 0; i < NW; i++) {
		set_read(self, i, self->c.rd, 4);
		ASSERT_TRUE(sm_start(&self->env, &self->w[i]));
	}
	/* One write, one wake-up, and enough for all */
	ASSERT_EQ(4 * NW, write(self->c.wr, "0000111122223333444455556666", 4 * NW));
	SM_JOIN_ALL(self->w, NW, 4);
	sm_chan_close(&self->c);
}

/* The waiter that would be woken is interrupted at the same time. */
TEST_F(io, chosen_one_interrupted)
{
	struct sockaddr_in to, from;
	int i, r = udp_open(&to), s = udp_open(&from), round, got;
	const int rounds = 20;

	sm_handle(SIGUSR1, 0);
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < 2; i++) {
			set_recv(self, i, r, 8, 0);
			ASSERT_TRUE(sm_start(&self->env, &self->w[i]));
		}
		if (round & 1) {
			sm_signal(self->w, SIGUSR1);
			ASSERT_EQ(1, sendto(s, "x", 1, 0, (void *)&to, sizeof(to)));
		} else {
			ASSERT_EQ(1, sendto(s, "x", 1, 0, (void *)&to, sizeof(to)));
			sm_signal(self->w, SIGUSR1);
		}
		/* Either has the datagram, and nobody sleeps while it is there. */
		ASSERT_TRUE(sm_waiter_done(&self->w[0]));
		got = self->w[0].ret == 1;
		if (!got) {
			EXPECT_EQ(-EINTR, self->w[0].ret);
			ASSERT_TRUE(sm_waiter_done(&self->w[1]));
			EXPECT_EQ(1, self->w[1].ret);
		} else {
			ASSERT_EQ(1, sendto(s, "y", 1, 0, (void *)&to, sizeof(to)));
		}
		SM_JOIN(&self->w[1], 1);
		ASSERT_TRUE(sm_waiter_join(&self->w[0]));
	}
	close(r);
	close(s);
}

/* ------------------------------------------------------------------ races */

struct account {
	int kind;
	int rd, wr;
	struct sockaddr_in to;
	long nr;		/* messages of each producer */
	uint64_t sent, received;
	long consumed, interrupted, total;
	int stop;
};

static void *producer(void *p)
{
	struct account *a = p;
	uint64_t x;
	long i;

	for (i = 1; i <= a->nr; i++) {
		x = i;
		if (write(a->wr, &x, sizeof(x)) != sizeof(x))
			return p;
		sm_add(&a->sent, x);
	}
	return NULL;
}

static void *consumer(void *p)
{
	struct account *a = p;
	uint64_t x;
	ssize_t n;

	for (;;) {
		n = read(a->rd, &x, sizeof(x));
		if (n == 0)
			return NULL;
		if (n < 0 && errno == EINTR) {
			sm_add(&a->interrupted, 1);
			continue;
		}
		if (n != sizeof(x))
			return p;
		if (x == UINT64_MAX || (a->kind == SM_EVENTFD && x >= 1ULL << 48))
			return NULL;
		sm_add(&a->received, x);
		sm_add(&a->consumed, 1);
	}
}

enum { DGRAM = SM_NR_KINDS, NR_ACCOUNTS };

static int account_open(struct account *a, struct sm_chan *c)
{
	int sv[2];

	if (a->kind == DGRAM) {
		if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sv))
			return -1;
		c->rd = sv[0];
		c->wr = sv[1];
	} else if (sm_chan_open(c, a->kind)) {
		return -1;
	}
	a->rd = c->rd;
	a->wr = c->wr;
	return 0;
}

static void account_run(struct __test_metadata *_metadata, FIXTURE_DATA(io) *self,
			bool signals)
{
	const int np = 2;
	struct account a;
	pthread_t p[2], c[3];
	uint64_t end;
	int i, nc;

	sm_handle(SIGUSR1, 0);
	for (int kind = 0; kind < NR_ACCOUNTS; kind++) {
		memset(&a, 0, sizeof(a));
		a.kind = kind;
		a.nr = sm_rounds(2000);
		ASSERT_EQ(0, account_open(&a, &self->c));
		/* Messages of a stream that two receive could be torn. */
		nc = kind == SM_UNIX || kind == SM_TCP ? 1 : 3;
		sm_rebase(&self->env);
		SM_THREADS(c, nc, consumer, &a);
		SM_THREADS(p, np, producer, &a);
		if (signals) {
			for (i = 0; i < 50; i++) {
				pthread_kill(c[i % nc], SIGUSR1);
				sched_yield();
			}
		}
		EXPECT_EQ(0, sm_threads_join(p, np));
		/* eventfd adds up: ends only when the sum has been taken */
		ASSERT_TRUE(sm_wait_until(sm_load(&a.received) == sm_load(&a.sent))) {
			TH_LOG("kind %d: sent %llu, received %llu", kind,
			       (unsigned long long)a.sent, (unsigned long long)a.received);
		}
		end = kind == SM_EVENTFD ? 1ULL << 48 : UINT64_MAX;
		for (i = 0; i < nc; i++) {
			ASSERT_EQ(8, write(a.wr, &end, sizeof(end)));
			if (kind == SM_EVENTFD)
				ASSERT_TRUE(sm_wait_until(poll(&(struct pollfd) {
					.fd = a.rd, .events = POLLIN }, 1, 0) == 0));
		}
		EXPECT_EQ(0, sm_threads_join(c, nc));
		EXPECT_EQ(np * a.nr * (a.nr + 1) / 2, (long)a.received);
		SM_EXPECT_PARKS(&self->env, 1);
		sm_chan_close(&self->c);
	}
}

TEST_F_TIMEOUT(io, account, 120)
{
	account_run(_metadata, self, false);
}

TEST_F_TIMEOUT(io, account_with_signals, 120)
{
	account_run(_metadata, self, true);
}

struct server {
	int l;
	long accepted;
};

static void *acceptor(void *p)
{
	struct server *s = p;
	char c;
	int fd;

	for (;;) {
		fd = accept(s->l, NULL, NULL);
		if (fd < 0)
			return p;
		if (read(fd, &c, 1) != 1 || c == 'q') {
			close(fd);
			return c == 'q' ? NULL : p;
		}
		sm_add(&s->accepted, 1);
		close(fd);
	}
}

static bool say(struct sockaddr_in *sin, char c)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = !connect(fd, (void *)sin, sizeof(*sin)) && write(fd, &c, 1) == 1 &&
		  read(fd, &c, 1) == 0;

	close(fd);
	return ok;
}

TEST_F_TIMEOUT(io, connections, 120)
{
	const long n = sm_rounds(400);
	struct sockaddr_in sin;
	struct server s = { .l = sm_tcp_listen(&sin) };
	pthread_t t[4];
	long i;

	SM_THREADS(t, 4, acceptor, &s);
	for (i = 0; i < n; i++)
		ASSERT_TRUE(say(&sin, 'x'));
	EXPECT_EQ(n, sm_load(&s.accepted));
	for (i = 0; i < 4; i++)
		ASSERT_TRUE(say(&sin, 'q'));
	EXPECT_EQ(0, sm_threads_join(t, 4));
	SM_EXPECT_PARKS(&self->env, 1);
	close(s.l);
}

/*
 * An end of a unix stream is shut down as somebody begins to receive there. The call
 * ends, and nothing of it is left in the queue of the socket, where others are still to
 * be woken: the thread waits elsewhere by then.
 */
struct ending {
	int fd[2];		/* the stream of this round */
	struct sm_chan elsewhere;
	long given, begun, ended, done;		/* rounds */
	long rounds;
	int bad;
};

static void *end_receiver(void *arg)
{
	struct ending *e = arg;
	char buf[8];
	long i;

	for (i = 1; i <= e->rounds; i++) {
		while (sm_load(&e->given) < i)
			sched_yield();
		sm_store(&e->begun, i);
		if (recv(e->fd[0], buf, sizeof(buf), 0))
			e->bad++;
		sm_store(&e->ended, i);
		if (!sm_chan_take(&e->elsewhere))
			e->bad++;
		sm_store(&e->done, i);
	}
	return NULL;
}

/* False if the other one hangs */
static bool end_reached(long *count, long i)
{
	int64_t end = sm_now_ns() + sm_patience_ns();

	while (sm_load(count) < i && sm_now_ns() < end)
		sched_yield();
	return sm_load(count) >= i;
}

static void spin(long n)
{
	while (n--)
		__asm__ volatile("");
}

TEST_F_TIMEOUT(io, shutdown_race, 120)
{
	struct ending e = { .rounds = sm_traffic_rounds(&self->env, 4000) };
	uint64_t seed = 69069;
	pthread_t t;
	long i;

	ASSERT_EQ(0, sm_chan_open(&e.elsewhere, SM_EVENTFD));
	ASSERT_EQ(0, sm_thread(&t, end_receiver, &e));
	for (i = 1; i <= e.rounds; i++) {
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e.fd));
		sm_store(&e.given, i);
		ASSERT_TRUE(end_reached(&e.begun, i));
		spin(sm_rnd(&seed) % 4000);
		ASSERT_EQ(0, i % 2 ? shutdown(e.fd[1], SHUT_WR) : shutdown(e.fd[0], SHUT_RD));
		ASSERT_TRUE(end_reached(&e.ended, i)) {
			TH_LOG("round %ld: the receive does not end", i);
		}
		spin(sm_rnd(&seed) % 4000);
		/* Wakes whoever is in the queue */
		close(e.fd[1]);
		close(e.fd[0]);
		ASSERT_TRUE(sm_chan_send(&e.elsewhere));
		ASSERT_TRUE(end_reached(&e.done, i)) {
			TH_LOG("round %ld: the next read does not end", i);
		}
	}
	pthread_join(t, NULL);
	EXPECT_EQ(0, e.bad);
	SM_EXPECT_NONE_PARKED(&self->env);
}

SM_MAIN(sm_rounds_factor());
