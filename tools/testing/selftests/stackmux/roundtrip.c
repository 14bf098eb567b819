// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: what parking costs and saves. One line of
 * key=value pairs on stdout. Under an emulator that counts a nanosecond for
 * each instruction the times are instructions.
 *
 * Linked statically, so that it runs in a system that has nothing else.
 */
#include <sys/epoll.h>

#define STACKMUX_HELPER
#include "bench.h"
#include "calls.h"
#include <wait.h>

/*
 * On one CPU a woken partner that preempts has answered before its waker waits, and
 * how often it does is a whim of the scheduler. Batch tasks do not preempt: each
 * round trip is two waits.
 */
static void set_policy(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, policy, &param))
		die("sched_setscheduler", errno);
}

/* ---------------------------------------------------------------- ping-pong */

static struct {
	uint32_t ping;
	char pad[252];		/* not in one cache line */
	uint32_t pong;
} words;

/* Waits that really waited: a partner who is fast enough saves some. */
static long nr_waits;

/* Wait in a range of PR_STACKMUX_RETRY */
static bool by_retry;

static const char *pingpong_name;

static bool wait_once(uint32_t *word, uint32_t val)
{
	long ret;

	if (!by_retry)
		return !sm_wait(word, val, SM_PRIVATE);
	ret = __stackmux_wait(__NR_futex, (long)word, FUTEX_WAIT | SM_PRIVATE, val, 0, 0, 0);
	return !ret || ret == -EAGAIN;
}

static void wait_for(uint32_t *word, uint32_t r)
{
	while (sm_load(word) != r)
		if (wait_once(word, r - 1))
			__atomic_add_fetch(&nr_waits, 1, __ATOMIC_RELAXED);
}

static void hand_over(uint32_t *to, uint32_t *back, uint32_t r)
{
	sm_store(to, r);
	sm_wake(to, 1, SM_PRIVATE);
	wait_for(back, r);
}

static void *ponger(void *p)
{
	long i, n = (long)p;

	for (i = 1; i <= n; i++) {
		wait_for(&words.ping, i);
		sm_store(&words.pong, i);
		sm_wake(&words.pong, 1, SM_PRIVATE);
	}
	return NULL;
}

static void hand_back_and_forth(void)
{
	long warm = nr_rounds / 10 + 10, i;
	int64_t t0, t1;
	pthread_t t;

	set_policy(SCHED_BATCH, 0);
	begin();
	if (sm_thread(&t, ponger, (void *)(warm + nr_rounds)))
		die("pthread_create", EAGAIN);
	for (i = 1; i <= warm; i++)
		hand_over(&words.ping, &words.pong, i);
	sm_store(&nr_waits, 0);
	t0 = sm_now_ns();
	for (; i <= warm + nr_rounds; i++)
		hand_over(&words.ping, &words.pong, i);
	t1 = sm_now_ns();
	pthread_join(t, NULL);
	set_policy(SCHED_OTHER, 0);
	printf("mode=%s rounds=%ld ns_per_round=%.1f waits_per_round=%.2f",
	       pingpong_name, nr_rounds, (double)(t1 - t0) / nr_rounds,
	       (double)sm_load(&nr_waits) / nr_rounds);
	finish(true);
}

/* --------------------------------------------------- ping-pong by descriptors */

/* poll() of many looks at this many, of which the last is the one that matters */
#define NR_POLLED	64

struct channel {
	int rd, wr;		/* 8 bytes go in here and come out there */
	int ep;			/* an epoll descriptor that waits for rd */
	struct pollfd pfd[NR_POLLED];
	struct sockaddr_un addr;	/* of the listening socket rd */
	socklen_t addrlen;
};

static struct channel chan[2];

struct way {
	const char *name;
	int kind;				/* of channel, or */
	int (*open)(struct channel *c);
	void (*wait)(struct channel *c);	/* before get(), or NULL */
	void (*get)(struct channel *c);
	void (*put)(struct channel *c);
};

static int open_dgram(struct channel *c)
{
	int fd[2], ret = socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fd);

	c->rd = fd[0];
	c->wr = fd[1];
	return ret;
}

static int open_listen(struct channel *c)
{
	c->rd = sm_unix_listen(SOCK_STREAM, &c->addr, &c->addrlen);
	return c->rd;
}

static int open_kind(struct channel *c, int kind)
{
	struct sm_chan ch;
	int ret = sm_chan_open(&ch, kind);

	c->rd = ch.rd;
	c->wr = ch.wr;
	return ret;
}

static int open_many(struct channel *c)
{
	int i;

	for (i = 0; i < NR_POLLED; i++) {
		if (open_kind(c, SM_EVENTFD))
			return -1;
		c->pfd[i].fd = c->rd;
		c->pfd[i].events = POLLIN;
	}
	return 0;
}

static int open_epoll(struct channel *c)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (open_kind(c, SM_EVENTFD))
		return -1;
	c->ep = epoll_create1(EPOLL_CLOEXEC);
	return epoll_ctl(c->ep, EPOLL_CTL_ADD, c->rd, &ev);
}

static void wait_poll(struct channel *c)
{
	struct pollfd pfd = { .fd = c->rd, .events = POLLIN };

	if (poll(&pfd, 1, -1) != 1)
		die("poll", errno);
}

static void wait_poll_many(struct channel *c)
{
	if (poll(c->pfd, NR_POLLED, -1) != 1)
		die("poll", errno);
}

static void wait_poll_timeout(struct channel *c)
{
	struct pollfd pfd = { .fd = c->rd, .events = POLLIN };

	if (poll(&pfd, 1, 100000) != 1)
		die("poll", errno);
}

/* The same in a range of PR_STACKMUX_RETRY: woken, it reads at once. */
static void wait_poll_retry(struct channel *c)
{
	struct pollfd pfd = { .fd = c->rd, .events = POLLIN };
	long ret = __stackmux_wait(__NR_poll, (long)&pfd, 1, -1, 0, 0, 0);

	if (ret != 1 && ret != -EAGAIN)
		die("poll", -ret);
}

static void wait_epoll(struct channel *c)
{
	struct epoll_event ev;

	if (epoll_wait(c->ep, &ev, 1, -1) != 1)
		die("epoll_wait", errno);
}

static void get_read(struct channel *c)
{
	uint64_t x;

	if (read(c->rd, &x, sizeof(x)) != sizeof(x))
		die("read", errno);
}

static void put_write(struct channel *c)
{
	uint64_t x = 1;

	if (write(c->wr, &x, sizeof(x)) != sizeof(x))
		die("write", errno);
}

static void get_recv(struct channel *c)
{
	uint64_t x;

	if (recv(c->rd, &x, sizeof(x), 0) != sizeof(x))
		die("recv", errno);
}

static void get_accept(struct channel *c)
{
	int fd = accept4(c->rd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept4", errno);
	if (close(fd))
		die("accept4: not a descriptor that was open", errno);
}

static void put_connect(struct channel *c)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket", errno);
	if (connect(fd, (struct sockaddr *)&c->addr, c->addrlen))
		die("connect", errno);
	close(fd);
}

static const struct way ways[] = {
	{ "eventfd", SM_EVENTFD, NULL, NULL, get_read, put_write },
	{ "pipe", SM_PIPE, NULL, NULL, get_read, put_write },
	{ "unix", SM_UNIX, NULL, NULL, get_read, put_write },
	{ "recv", 0, open_dgram, NULL, get_recv, put_write },
	{ "accept", 0, open_listen, NULL, get_accept, put_connect },
	{ "poll", SM_EVENTFD, NULL, wait_poll, get_read, put_write },
	{ "poll-64", 0, open_many, wait_poll_many, get_read, put_write },
	{ "poll-timeout", SM_EVENTFD, NULL, wait_poll_timeout, get_read, put_write },
	{ "poll-retry", SM_EVENTFD, NULL, wait_poll_retry, get_read, put_write },
	{ "epoll", 0, open_epoll, wait_epoll, get_read, put_write },
};

static const struct way *way;

static void chan_get(struct channel *c)
{
	if (way->wait)
		way->wait(c);
	way->get(c);
}

static void *chan_ponger(void *p)
{
	long n = (long)p;

	while (n--) {
		chan_get(&chan[0]);
		way->put(&chan[1]);
	}
	return NULL;
}

static void chan_back_and_forth(void)
{
	long warm = nr_rounds / 10 + 10, i;
	int64_t t0 = 0, t1;
	pthread_t t;

	for (i = 0; i < 2; i++)
		if ((way->open ? way->open(&chan[i]) : open_kind(&chan[i], way->kind)) < 0)
			die(way->name, errno);
	set_policy(SCHED_BATCH, 0);
	begin();
	if (sm_thread(&t, chan_ponger, (void *)(warm + nr_rounds)))
		die("pthread_create", EAGAIN);
	for (i = -warm; i < nr_rounds; i++) {
		if (!i)
			t0 = sm_now_ns();
		way->put(&chan[0]);
		chan_get(&chan[1]);
	}
	t1 = sm_now_ns();
	pthread_join(t, NULL);
	set_policy(SCHED_OTHER, 0);
	printf("mode=%s rounds=%ld ns_per_round=%.1f", way->name, nr_rounds,
	       (double)(t1 - t0) / nr_rounds);
	finish(true);
}

static bool find_way(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		way = &ways[i];
		if (!strcmp(way->name, name))
			return true;
	}
	return false;
}

/* -------------------------------------------------- calls that do not wait */

static void getppid_loop(void)
{
	long per_batch = nr_rounds / NR_BATCHES + 1, i;
	int64_t ns[NR_BATCHES], t0;
	int b;

	begin();
	for (b = 0; b < NR_BATCHES; b++) {
		t0 = sm_now_ns();
		for (i = 0; i < per_batch; i++)
			sm_syscall6(__NR_getppid, 0, 0, 0, 0, 0, 0);
		ns[b] = sm_now_ns() - t0;
	}
	printf("mode=getppid rounds=%ld ns_per_call=%.2f", per_batch * NR_BATCHES,
	       median_of_batches(ns) / per_batch);
	finish(false);
}

/*
 * Two processes that only yield to each other. Of one real-time priority they take
 * turns strictly: each call switches, with no wait and no wake.
 */
static void yield_loop(void)
{
	long *yields = sm_shared_alloc(sizeof(*yields));
	long per_batch = nr_rounds / NR_BATCHES + 1, first, n, i;
	int64_t ns[NR_BATCHES], t0;
	pid_t pid;
	int b;

	if (!yields)
		die("no memory", ENOMEM);
	sm_write_long("/proc/sys/kernel/sched_rt_runtime_us", -1);
	stay_on_cpu(0);
	begin();
	set_policy(SCHED_FIFO, 1);
	pid = sm_fork();
	if (pid < 0)
		die("fork", errno);
	if (!pid) {
		for (;;) {
			sched_yield();
			sm_store(yields, *yields + 1);
		}
	}
	for (i = 0; i < per_batch; i++)
		sched_yield();
	first = sm_load(yields);
	for (b = 0; b < NR_BATCHES; b++) {
		t0 = sm_now_ns();
		for (i = 0; i < per_batch; i++)
			sched_yield();
		ns[b] = sm_now_ns() - t0;
	}
	n = sm_load(yields) - first;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	set_policy(SCHED_OTHER, 0);
	if (n < per_batch * NR_BATCHES - 2 || n > per_batch * NR_BATCHES + 2)
		die("the two did not take turns", 0);
	printf("mode=yield rounds=%ld ns_per_switch=%.2f", n,
	       median_of_batches(ns) / per_batch / 2);
	finish(false);
}

/* ----------------------------------------------------------------- nanosleep */

/*
 * How many instructions a sleep takes, when time passes while everybody sleeps? Let
 * a second thread use up that time, of the lowest kind, so that it runs only then:
 * each of its turns is three instructions, so their number says how long it had the
 * CPU. The rest of the time went to the sleeps: calls, switches there and back,
 * timer interrupts. Means something only where the clock counts instructions.
 */
#define SPIN_TURN_NS	3
#define SLEEP_NS	100000

static struct {
	uint64_t turns;
	uint32_t stop;
} spinner;

static void *spin(void *unused)
{
	set_policy(SCHED_IDLE, 0);
	asm volatile("1: incq %0\n\t"
		     "cmpl $0, %1\n\t"
		     "je 1b"
		     : "+m" (spinner.turns) : "m" (spinner.stop) : "cc", "memory");
	return unused;
}

static void nanosleeps(void)
{
	long warm = nr_rounds / 10 + 10, i;
	struct timespec ts = sm_ts(SLEEP_NS);
	int64_t t0 = 0, busy;
	uint64_t turns = 0;
	pthread_t t;

	stay_on_cpu(0);
	prctl(PR_SET_TIMERSLACK, 1);
	memset(&spinner, 0, sizeof(spinner));
	begin();
	if (sm_thread(&t, spin, NULL))
		die("pthread_create", EAGAIN);
	for (i = -warm; i < nr_rounds; i++) {
		if (!i) {
			t0 = sm_now_ns();
			turns = sm_load(&spinner.turns);
		}
		if (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL))
			die("clock_nanosleep", errno);
	}
	busy = sm_now_ns() - t0 - (sm_load(&spinner.turns) - turns) * SPIN_TURN_NS;
	sm_store(&spinner.stop, 1);
	pthread_join(t, NULL);
	printf("mode=nanosleep rounds=%ld ns_per_round=%.1f", nr_rounds,
	       (double)busy / nr_rounds);
	finish(true);
}

/* ------------------------------------------------------ processes and threads */

static void fork_wait(void)
{
	long n = nr_threads, i;
	int64_t t0 = 0, t1;
	pid_t pid;
	int status;

	begin();
	for (i = -n / 10; i < n; i++) {
		if (!i)
			t0 = sm_now_ns();
		pid = fork();
		if (pid < 0)
			die("fork", errno);
		if (!pid)
			_exit(0);
		if (waitpid(pid, &status, 0) != pid || status)
			die("waitpid", errno);
	}
	t1 = sm_now_ns();
	printf("mode=fork rounds=%ld ns_per_round=%.1f", n, (double)(t1 - t0) / n);
	finish(false);	/* the child may be faster */
}

static void *nothing(void *p)
{
	return p;
}

static void create_join(void)
{
	int64_t t0 = 0, t1;
	pthread_t t;
	long i;

	begin();
	for (i = -nr_threads / 10; i < nr_threads; i++) {
		if (!i)
			t0 = sm_now_ns();
		if (sm_thread(&t, nothing, NULL))
			die("pthread_create", EAGAIN);
		pthread_join(t, NULL);
	}
	t1 = sm_now_ns();
	printf("mode=pthread threads=%ld ns_per_thread=%.1f", nr_threads,
	       (double)(t1 - t0) / nr_threads);
	finish(false);	/* a join need not wait */
}

static const char usage[] =
"Usage: roundtrip [OPTION]... MODE...\n"
"Measure one thing after the other; the modes are\n"
"  pingpong   two threads wake each other by futex: ns per round trip\n"
"  eventfd, pipe, unix, recv, accept, poll, poll-64, poll-timeout, epoll\n"
"             the same by read() from a descriptor, recv() or accept(), after a wait\n"
"             for it by poll() or epoll_wait(), which are made with eventfds\n"
"  pingpong-retry, poll-retry\n"
"             pingpong and poll with PR_STACKMUX_RETRY\n"
"  pingpong-taken\n"
"             pingpong, with stacks that do not linger\n"
"  nanosleep  what a sleep of 100 us costs; for clocks that count instructions\n"
"  getppid    a system call that never waits: ns per call\n"
"  yield      two processes that yield to each other: ns per switch\n"
"  fork       fork(), _exit() and waitpid(): ns per child\n"
"  pthread    pthread_create() and pthread_join(): ns per thread\n"
BENCH_USAGE;

static void pingpong_as(const char *name, bool retry)
{
	pingpong_name = name;
	by_retry = retry;
	memset(&words, 0, sizeof(words));
	hand_back_and_forth();
}

static void pingpong(void)
{
	pingpong_as("pingpong", false);
}

static void pingpong_retry(void)
{
	pingpong_as("pingpong-retry", true);
}

/* As if another thread always needed the stack: debugfs can have it taken at once. */
static void pingpong_taken(void)
{
	bool can = !access(SM_LINGER, W_OK);

	if (can)
		sm_write_long(SM_LINGER, 0);
	pingpong_as("pingpong-taken", false);
	if (can)
		sm_write_long(SM_LINGER, 1);
}

static const struct {
	const char *name;
	void (*measure)(void);
} modes[] = {
	{ "pingpong", pingpong },
	{ "pingpong-retry", pingpong_retry },
	{ "pingpong-taken", pingpong_taken },
	{ "nanosleep", nanosleeps },
	{ "getppid", getppid_loop },
	{ "yield", yield_loop },
	{ "fork", fork_wait },
	{ "pthread", create_join },
};

static bool measure(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(name, modes[i].name)) {
			modes[i].measure();
			return true;
		}
	}
	if (!find_way(name))
		return false;
	chan_back_and_forth();
	return true;
}

int main(int argc, char **argv)
{
	bench_options(argc, argv, usage, NULL, NULL);
	for (; optind < argc; optind++) {
		if (!measure(argv[optind])) {
			fprintf(stderr, "roundtrip: no mode '%s'\n%s", argv[optind], usage);
			return 2;
		}
	}
	return 0;
}
