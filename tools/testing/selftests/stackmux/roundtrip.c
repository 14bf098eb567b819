// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: what parking costs and saves. One line of
 * key=value pairs on stdout. Under an emulator that counts a nanosecond for
 * each instruction the times are instructions.
 *
 * Linked statically, so that it runs in a system that has nothing else.
 */
#include <getopt.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "stackmux_test.h"
#include <wait.h>

static long nr_rounds = 100000;
static long nr_threads = 10000;
static int park = -1;
static struct sm_stats stats0, stats1;
static bool have_stats;

static void die(const char *what, int err)
{
	fprintf(stderr, "roundtrip: %s%s%s\n", what, err ? ": " : "",
		err ? strerror(err) : "");
	exit(1);
}

static void begin(void)
{
	have_stats = !sm_stats_read(&stats0);
}

/* The common end of each line: which way, and what the counters say. */
static void finish(bool must_park)
{
	printf(" park=%d", park == 1);
	if (have_stats && !sm_stats_read(&stats1)) {
		printf(" parks=%ld resumes=%ld lingered=%ld noswitch=%ld keeps=%ld",
		       stats1.parks - stats0.parks,
		       stats1.resumes - stats0.resumes,
		       stats1.lingered - stats0.lingered,
		       stats1.noswitch - stats0.noswitch,
		       stats1.keeps - stats0.keeps);
	}
	printf("\n");
	fflush(stdout);
	if (park == 1 && have_stats && must_park &&
	    stats1.parks == stats0.parks && stats1.lingered == stats0.lingered)
		die("opted in, but nothing has parked", 0);
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
	printf("mode=%s rounds=%ld ns_per_round=%.1f waits_per_round=%.2f",
	       by_retry ? "pingpong-retry" : "pingpong", nr_rounds, (double)(t1 - t0) / nr_rounds,
	       (double)sm_load(&nr_waits) / nr_rounds);
	finish(true);
}

/* --------------------------------------------------- ping-pong by descriptors */

struct channel {
	int rd, wr;		/* 8 bytes go in here and come out there */
	int ep;			/* an epoll descriptor that waits for rd */
};

static struct channel chan[2];

struct way {
	const char *name;
	int (*open)(struct channel *c);
	void (*wait)(struct channel *c);
};

static int open_eventfd(struct channel *c)
{
	c->rd = eventfd(0, EFD_CLOEXEC);
	c->wr = c->rd;
	return c->rd;
}

static int open_pipe(struct channel *c)
{
	int fd[2], ret = pipe2(fd, O_CLOEXEC);

	c->rd = fd[0];
	c->wr = fd[1];
	return ret;
}

static int open_unix(struct channel *c)
{
	int fd[2], ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd);

	c->rd = fd[0];
	c->wr = fd[1];
	return ret;
}

static int open_epoll(struct channel *c)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (open_eventfd(c) < 0)
		return -1;
	c->ep = epoll_create1(EPOLL_CLOEXEC);
	return epoll_ctl(c->ep, EPOLL_CTL_ADD, c->rd, &ev);
}

static void wait_read(struct channel *c)
{
}

static void wait_poll(struct channel *c)
{
	struct pollfd pfd = { .fd = c->rd, .events = POLLIN };

	if (poll(&pfd, 1, -1) != 1)
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

static const struct way ways[] = {
	{ "eventfd", open_eventfd, wait_read },
	{ "pipe", open_pipe, wait_read },
	{ "unix", open_unix, wait_read },
	{ "poll", open_eventfd, wait_poll },
	{ "poll-timeout", open_eventfd, wait_poll_timeout },
	{ "poll-retry", open_eventfd, wait_poll_retry },
	{ "epoll", open_epoll, wait_epoll },
};

static const struct way *way;

static void chan_get(struct channel *c)
{
	uint64_t x;

	way->wait(c);
	if (read(c->rd, &x, sizeof(x)) != sizeof(x))
		die("read", errno);
}

static void chan_put(struct channel *c)
{
	uint64_t x = 1;

	if (write(c->wr, &x, sizeof(x)) != sizeof(x))
		die("write", errno);
}

static void *chan_ponger(void *p)
{
	long n = (long)p;

	while (n--) {
		chan_get(&chan[0]);
		chan_put(&chan[1]);
	}
	return NULL;
}

static void chan_back_and_forth(void)
{
	long warm = nr_rounds / 10 + 10, i;
	int64_t t0 = 0, t1;
	pthread_t t;

	if (way->open(&chan[0]) < 0 || way->open(&chan[1]) < 0)
		die(way->name, errno);
	begin();
	if (sm_thread(&t, chan_ponger, (void *)(warm + nr_rounds)))
		die("pthread_create", EAGAIN);
	for (i = -warm; i < nr_rounds; i++) {
		if (!i)
			t0 = sm_now_ns();
		chan_put(&chan[0]);
		chan_get(&chan[1]);
	}
	t1 = sm_now_ns();
	pthread_join(t, NULL);
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

/* ------------------------------------------------------------------- getppid */

static void getppid_loop(void)
{
	int64_t t0, t1;
	long i;

	begin();
	for (i = 0; i < nr_rounds / 10; i++)
		sm_syscall6(__NR_getppid, 0, 0, 0, 0, 0, 0);
	t0 = sm_now_ns();
	for (i = 0; i < nr_rounds; i++)
		sm_syscall6(__NR_getppid, 0, 0, 0, 0, 0, 0);
	t1 = sm_now_ns();
	printf("mode=getppid rounds=%ld ns_per_call=%.2f", nr_rounds,
	       (double)(t1 - t0) / nr_rounds);
	finish(false);
}

/* --------------------------------------------------------------- raw clones */

/* Leave the CPU to the others, without a timer that would add idle time. */
static void until_asleep(struct sm_sleepers *s)
{
	while (sm_load(&s->entered) < s->nr)
		sched_yield();
	while (sm_sleepers_waiting(s) < s->nr)
		sched_yield();
}

static void clones(void)
{
	long stack0, stack1, stack2, avail0, avail1, avail2, i;
	struct sm_sleepers s;
	int64_t t[4];
	struct sm_stats asleep;

	sm_allow_threads(nr_threads);
	begin();
	stack0 = sm_meminfo_kb("KernelStack");
	avail0 = sm_meminfo_kb("MemAvailable");
	t[0] = sm_now_ns();
	if (sm_sleepers_create(&s, nr_threads, false) != nr_threads) {
		fprintf(stderr, "roundtrip: only %ld of %ld threads: %s\n",
			s.nr, nr_threads, strerror(errno));
		if (!s.nr)
			exit(1);
	}
	until_asleep(&s);
	t[1] = sm_now_ns();
	if (park == 1 && have_stats)
		sm_wait_until(!sm_stats_read(&asleep) &&
			      asleep.parked - stats0.parked >= s.nr);
	stack1 = sm_meminfo_kb("KernelStack");
	avail1 = sm_meminfo_kb("MemAvailable");

	t[2] = sm_now_ns();
	if (sm_sleepers_wake(&s, false) != s.nr)
		die("not all of them were woken", 0);
	for (i = 0; i < s.nr; i++)
		while (sm_load(&s.slot[i].tid))
			sched_yield();
	t[3] = sm_now_ns();
	if (sm_sleepers_reap(&s) != s.nr)
		die("not all of them returned 0", 0);
	sm_sleep_ms(200);
	stack2 = sm_meminfo_kb("KernelStack");
	avail2 = sm_meminfo_kb("MemAvailable");

	printf("mode=clone threads=%ld ns_per_clone=%.1f ns_per_wake=%.1f",
	       s.nr, (double)(t[1] - t[0]) / s.nr,
	       (double)(t[3] - t[2]) / s.nr);
	printf(" kernelstack_kb=%ld kernelstack_after_kb=%ld",
	       stack1 - stack0, stack2 - stack0);
	printf(" used_kb=%ld used_after_kb=%ld kib_per_thread=%.2f",
	       avail0 - avail1, avail0 - avail2,
	       (double)(avail0 - avail1) / s.nr);
	if (park == 1 && have_stats)
		printf(" parked=%ld stacks=%ld records=%ld record_bytes=%ld",
		       asleep.parked, asleep.stacks, asleep.records,
		       asleep.record_bytes);
	finish(true);
}

/* ------------------------------------------------------------ create and join */

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
"Usage: roundtrip [--park | --no-park] [--rounds N] [--threads N] [--cpu N] MODE...\n"
"Measure one thing after the other; the modes are\n"
"  pingpong  two threads wake each other by futex: ns per round trip\n"
"  eventfd, pipe, unix, poll, poll-timeout, epoll\n"
"            the same by read() from a descriptor, after a wait for it by\n"
"            poll() and epoll_wait(), which are made with eventfds\n"
"  pingpong-retry, poll-retry\n"
"            pingpong and poll with PR_STACKMUX_RETRY\n"
"  getppid   a system call that never waits: ns per call\n"
"  clone     raw clones until all are asleep in futex, then wake them all\n"
"            until all have exited: ns per thread, kernel memory\n"
"  pthread   pthread_create() and pthread_join(): ns per thread\n"
"  --park     opt in with prctl(PR_STACKMUX), fail if the kernel has not got it\n"
"  --no-park  opt out\n"
"  --cpu N    stay on CPU N\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "park", no_argument, &park, 1 },
		{ "no-park", no_argument, &park, 0 },
		{ "rounds", required_argument, NULL, 'r' },
		{ "threads", required_argument, NULL, 't' },
		{ "cpu", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	cpu_set_t set;
	int opt, ret;

	while ((opt = getopt_long(argc, argv, "r:t:c:h", options, NULL)) != -1) {
		switch (opt) {
		case 0:
			break;
		case 'r':
			nr_rounds = atol(optarg);
			break;
		case 't':
			nr_threads = atol(optarg);
			break;
		case 'c':
			CPU_ZERO(&set);
			CPU_SET(atoi(optarg), &set);
			if (sched_setaffinity(0, sizeof(set), &set))
				die("cannot use that CPU", errno);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind == argc || nr_rounds < 1 || nr_threads < 1) {
		fputs(usage, stderr);
		return 2;
	}
	sm_mount_debugfs();
	if (park == 1) {
		ret = sm_enable(0);
		if (ret)
			die("prctl(PR_STACKMUX, PR_STACKMUX_ENABLE)", -ret);
		if (!(sm_get() & PR_STACKMUX_ACTIVE))
			die("opted in, but kernel.stackmux is 0", 0);
	} else if (!park && sm_present()) {
		sm_disable();
	}
	for (; optind < argc; optind++) {
		by_retry = !strcmp(argv[optind], "pingpong-retry");
		if (by_retry || !strcmp(argv[optind], "pingpong")) {
			memset(&words, 0, sizeof(words));
			hand_back_and_forth();
		} else if (!strcmp(argv[optind], "getppid")) {
			getppid_loop();
		} else if (!strcmp(argv[optind], "clone")) {
			clones();
		} else if (!strcmp(argv[optind], "pthread")) {
			create_join();
		} else if (find_way(argv[optind])) {
			chan_back_and_forth();
		} else {
			fprintf(stderr, "roundtrip: no mode '%s'\n%s",
				argv[optind], usage);
			return 2;
		}
	}
	return 0;
}
