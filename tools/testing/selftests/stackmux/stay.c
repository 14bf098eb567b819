// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that sleep where they wait, on their stack, since their waits are short;
 * and leave it after all when another thread waits on the same CPU.
 */
#include "calls.h"
#include <sys/epoll.h>

enum { BY_FUTEX, BY_POLL, BY_EPOLL, BY_EVENTFD, BY_PIPE, BY_UNIX, BY_ACCEPT };

/* Where one thread waits for what another one sends */
struct line {
	int by;
	uint32_t word;
	struct sm_chan c;
	int ep;
	struct sockaddr_un addr;
	socklen_t addr_len;
};

static int listen_open(struct line *l)
{
	socklen_t len = sizeof(l->addr);

	l->c.rd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	l->c.wr = l->c.rd;
	l->addr.sun_family = AF_UNIX;
	/* A name that the kernel chooses */
	if (l->c.rd < 0 || bind(l->c.rd, (void *)&l->addr, sizeof(sa_family_t)) ||
	    listen(l->c.rd, 64) || getsockname(l->c.rd, (void *)&l->addr, &len))
		return -1;
	l->addr_len = len;
	return 0;
}

static int line_open(struct line *l, int by)
{
	static const int kinds[] = {
		[BY_POLL] = SM_EVENTFD, [BY_EPOLL] = SM_EVENTFD, [BY_EVENTFD] = SM_EVENTFD,
		[BY_PIPE] = SM_PIPE, [BY_UNIX] = SM_UNIX,
	};
	struct epoll_event ev = { .events = EPOLLIN };

	memset(l, 0, sizeof(*l));
	l->by = by;
	if (by == BY_FUTEX)
		return 0;
	if (by == BY_ACCEPT)
		return listen_open(l);
	if (sm_chan_open(&l->c, kinds[by]))
		return -1;
	if (by != BY_EPOLL)
		return 0;
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	return l->ep < 0 ? -1 : epoll_ctl(l->ep, EPOLL_CTL_ADD, l->c.rd, &ev);
}

static void line_close(struct line *l)
{
	if (l->by == BY_FUTEX)
		return;
	if (l->by == BY_EPOLL)
		close(l->ep);
	sm_chan_close(&l->c);
}

static bool line_send(struct line *l)
{
	uint64_t one = 1;
	int fd, ret;

	if (l->by == BY_FUTEX) {
		sm_add(&l->word, 1);
		sm_wake(&l->word, 1, SM_PRIVATE);
		return true;
	}
	if (l->by != BY_ACCEPT)
		return write(l->c.wr, &one, sizeof(one)) == sizeof(one);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret = connect(fd, (void *)&l->addr, l->addr_len);
	close(fd);
	return !ret;
}

static long wait_futex(struct line *l)
{
	long ret;

	while (!sm_load(&l->word)) {
		ret = sm_wait(&l->word, 0, SM_PRIVATE);
		if (ret && ret != -EAGAIN)
			return ret;
	}
	sm_add(&l->word, -1);
	return 0;
}

/* Waits for one message. 0 or -errno */
static long line_wait(struct line *l)
{
	struct pollfd pfd = { .fd = l->c.rd, .events = POLLIN };
	struct epoll_event ev;
	uint64_t x;
	int ret;

	switch (l->by) {
	case BY_FUTEX:
		return wait_futex(l);
	case BY_POLL:
		ret = poll(&pfd, 1, -1);
		break;
	case BY_EPOLL:
		ret = epoll_wait(l->ep, &ev, 1, -1);
		break;
	case BY_ACCEPT:
		ret = accept(l->c.rd, NULL, NULL);
		if (ret >= 0)
			close(ret);
		return ret < 0 ? -errno : 0;
	default:
		ret = 1;
	}
	if (ret != 1)
		return ret < 0 ? -errno : -EIO;
	ret = read(l->c.rd, &x, sizeof(x));
	return ret < 0 ? -errno : ret == sizeof(x) ? 0 : -EIO;
}

/* The waits of this thread are to make nobody leave. */
static int keep_out(void)
{
	return sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_KEEP, 0, 0);
}

/* What /proc says of a thread of this process: "parked", "lingering", ... */
static bool thread_is(pid_t tid, const char *what)
{
	char path[64], line[128];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	f = fopen(path, "r");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "Stackmux:\t", 10) &&
		    !strncmp(line + 10, what, strlen(what)))
			found = true;
	fclose(f);
	return found;
}

FIXTURE(stay) {
	struct sm_env env;
};

FIXTURE_VARIANT(stay) {
	int by;
};

FIXTURE_VARIANT_ADD(stay, futex) { .by = BY_FUTEX };
FIXTURE_VARIANT_ADD(stay, poll) { .by = BY_POLL };
FIXTURE_VARIANT_ADD(stay, epoll) { .by = BY_EPOLL };
FIXTURE_VARIANT_ADD(stay, eventfd) { .by = BY_EVENTFD };
FIXTURE_VARIANT_ADD(stay, pipe) { .by = BY_PIPE };
FIXTURE_VARIANT_ADD(stay, unix) { .by = BY_UNIX };
FIXTURE_VARIANT_ADD(stay, accept) { .by = BY_ACCEPT };

FIXTURE_SETUP(stay)
{
	sm_setup(_metadata, &self->env, true);
	if (self->env.present)
		ASSERT_EQ(0, sm_linger(&self->env));
}

FIXTURE_TEARDOWN(stay)
{
	sm_knobs_restore();
}

/* -------------------------------------------------------------- short waits */

struct player {
	struct line *in, *out;
	long rounds;
	long bad;
};

static void *play(void *arg)
{
	struct player *p = arg;
	long i;

	for (i = 0; i < p->rounds; i++)
		if (line_wait(p->in) || !line_send(p->out))
			p->bad++;
	return NULL;
}

/* Two threads on one CPU, so that each message is waited for */
static void play_short_waits(struct __test_metadata *_metadata, struct sm_env *env,
			     int by)
{
	long rounds = sm_rounds(500), i, bad = 0;
	struct line line[2];
	struct sm_stats st;
	struct player p;
	pthread_t t;

	ASSERT_EQ(0, line_open(&line[0], by));
	ASSERT_EQ(0, line_open(&line[1], by));
	p = (struct player){ &line[0], &line[1], rounds };
	ASSERT_EQ(0, sm_thread(&t, play, &p));
	for (i = 0; i < rounds; i++)
		if (!line_send(&line[0]) || line_wait(&line[1]))
			bad++;
	pthread_join(t, NULL);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, p.bad);

	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_GE(st.stayed - env->base.stayed, rounds / 2) {
		TH_LOG("lingered +%ld, parks +%ld, evictions +%ld",
		       st.lingered - env->base.lingered,
		       st.parks - env->base.parks,
		       st.evictions - env->base.evictions);
	}
	line_close(&line[0]);
	line_close(&line[1]);
}

TEST_F(stay, short_waits)
{
	sm_pin();
	play_short_waits(_metadata, &self->env, variant->by);
}

/* Comes between the two as often as it can. Its own waits make nobody leave. */
static void *interfere(void *arg)
{
	int *stop = arg;

	if (keep_out())
		return "prctl";
	while (!sm_load(stop))
		sm_sleep_ns(1000);
	return NULL;
}

/*
 * The thread that a message has woken does not run next, so the place of the CPU
 * is wanted while it is in there. It need not leave: it is going to run anyway.
 */
TEST_F(stay, short_waits_disturbed)
{
	pthread_t t[2];
	int stop = 0, i;
	void *ret;

	sm_pin();
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, sm_thread(&t[i], interfere, &stop));
	play_short_waits(_metadata, &self->env, variant->by);
	sm_store(&stop, 1);
	for (i = 0; i < 2; i++) {
		pthread_join(t[i], &ret);
		EXPECT_EQ(NULL, ret);
	}
}

/* ------------------------------------------------------------ wrong guesses */

struct waiter {
	pthread_t thread;
	pid_t tid;
	struct line line;
	long ret;
	int done;
};

static void *wait_for_one(void *arg)
{
	struct waiter *w = arg;

	sm_store(&w->tid, sm_gettid());
	w->ret = line_wait(&w->line);
	sm_store(&w->done, 1);
	return NULL;
}

static int waiter_start(struct waiter *w, int by)
{
	memset(w, 0, sizeof(*w));
	return line_open(&w->line, by) ?: sm_thread(&w->thread, wait_for_one, w);
}

#define NR_WAITERS	12

static long nr_parked(struct waiter *w)
{
	long n = 0, i;

	for (i = 0; i < NR_WAITERS; i++)
		n += thread_is(w[i].tid, "parked");
	return n;
}

/* All of them stay at first; but one of them loses its stack. */
TEST_F(stay, evicted)
{
	struct waiter w[NR_WAITERS];
	struct sm_stats st;
	int i;

	ASSERT_EQ(0, sm_stay(&self->env));
	sm_pin();
	for (i = 0; i < NR_WAITERS; i++) {
		ASSERT_EQ(0, waiter_start(&w[i], variant->by));
		ASSERT_TRUE(sm_wait_until(sm_load(&w[i].tid) &&
					  (thread_is(w[i].tid, "lingering") ||
					   thread_is(w[i].tid, "parked"))));
	}
	EXPECT_TRUE(sm_wait_until(nr_parked(w) >= NR_WAITERS - 1)) {
		TH_LOG("%ld of %d are parked", nr_parked(w), NR_WAITERS);
	}
	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_GE(st.evictions - self->env.base.evictions, NR_WAITERS - 2);
	EXPECT_GE(st.stayed - self->env.base.stayed, NR_WAITERS - 1);

	for (i = 0; i < NR_WAITERS; i++) {
		EXPECT_FALSE(sm_load(&w[i].done));
		EXPECT_TRUE(line_send(&w[i].line));
		EXPECT_TRUE(sm_wait_until(sm_load(&w[i].done)));
		EXPECT_EQ(0, w[i].ret);
		pthread_join(w[i].thread, NULL);
		line_close(&w[i].line);
	}
}

/* ------------------------------------------------------------------ signals */

static int handled;

static void handler(int sig)
{
	sm_add(&handled, 1);
}

static bool interrupt(struct waiter *w, int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };
	int before = sm_load(&handled);

	return !sigaction(SIGUSR1, &sa, NULL) &&
	       sm_wait_until(sm_load(&w->tid) && thread_is(w->tid, "lingering")) &&
	       !pthread_kill(w->thread, SIGUSR1) &&
	       sm_wait_until(sm_load(&handled) > before);
}

TEST_F(stay, signal)
{
	struct waiter w;

	ASSERT_EQ(0, sm_stay(&self->env));
	ASSERT_EQ(0, keep_out());
	ASSERT_EQ(0, waiter_start(&w, variant->by));
	ASSERT_TRUE(interrupt(&w, 0));
	EXPECT_TRUE(sm_wait_until(sm_load(&w.done)));
	EXPECT_EQ(-EINTR, w.ret);
	pthread_join(w.thread, NULL);
	line_close(&w.line);
}

TEST_F(stay, signal_restart)
{
	/* poll() and epoll_wait() never start again. */
	bool restarts = variant->by != BY_POLL && variant->by != BY_EPOLL;
	struct waiter w;

	ASSERT_EQ(0, sm_stay(&self->env));
	ASSERT_EQ(0, keep_out());
	ASSERT_EQ(0, waiter_start(&w, variant->by));
	ASSERT_TRUE(interrupt(&w, SA_RESTART));
	if (restarts) {
		sm_sleep_ms(20);
		EXPECT_FALSE(sm_load(&w.done));
		EXPECT_TRUE(line_send(&w.line));
	}
	EXPECT_TRUE(sm_wait_until(sm_load(&w.done)));
	EXPECT_EQ(restarts ? 0 : -EINTR, w.ret);
	pthread_join(w.thread, NULL);
	line_close(&w.line);
}

/* A thread that stays is killed, with its process. */
TEST_F(stay, kill)
{
	struct waiter w;
	int status;
	pid_t pid;

	ASSERT_EQ(0, sm_stay(&self->env));
	ASSERT_EQ(0, keep_out());
	pid = sm_fork();
	if (!pid) {
		if (keep_out() || waiter_start(&w, variant->by))
			_exit(1);
		sm_wait_until(sm_load(&w.tid) && thread_is(w.tid, "lingering"));
		kill(getpid(), SIGKILL);
		_exit(2);
	}
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ------------------------------------------------------ what they stay on goes */

/* The CPU: it leaves, and waits elsewhere. */
TEST_F(stay, cpu_offline)
{
	cpu_set_t all, one;
	struct waiter w;
	struct sm_stats st;
	int cpu;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = CPU_SETSIZE - 1; cpu > 0; cpu--)
		if (CPU_ISSET(cpu, &all) && sm_cpu_online(cpu) == 1)
			break;
	if (!cpu)
		SKIP(return, "no CPU that can be taken offline");
	ASSERT_EQ(0, sm_stay(&self->env));
	ASSERT_EQ(0, keep_out());
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	ASSERT_EQ(0, waiter_start(&w, variant->by));
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	ASSERT_TRUE(sm_wait_until(sm_load(&w.tid) && thread_is(w.tid, "lingering")));
	ASSERT_EQ(0, sched_setaffinity(w.tid, sizeof(all), &all));

	ASSERT_EQ(0, sm_cpu_set_online(cpu, 0));
	EXPECT_TRUE(sm_wait_until(!sm_stats_read(&st) &&
				  st.evictions > self->env.base.evictions));
	EXPECT_TRUE(sm_wait_until(thread_is(w.tid, "lingering") ||
				  thread_is(w.tid, "parked")));
	EXPECT_FALSE(sm_load(&w.done));
	EXPECT_TRUE(line_send(&w.line));
	EXPECT_TRUE(sm_wait_until(sm_load(&w.done)));
	EXPECT_EQ(0, w.ret);
	EXPECT_EQ(0, sm_cpu_set_online(cpu, 1));
	pthread_join(w.thread, NULL);
	line_close(&w.line);
}

/*
 * The descriptor: the call goes on with its file. A read or an accept cannot be made
 * again, so the thread does not leave when it is to; a poll() can.
 */
TEST_F(stay, closed)
{
	/* These read afterwards. */
	bool reads_later = variant->by == BY_POLL || variant->by == BY_EPOLL;
	struct waiter w;
	int i, fd;

	if (variant->by == BY_FUTEX)
		SKIP(return, "a futex has no descriptor");
	ASSERT_EQ(0, sm_stay(&self->env));
	ASSERT_EQ(0, keep_out());
	sm_pin();
	ASSERT_EQ(0, waiter_start(&w, variant->by));
	ASSERT_TRUE(sm_wait_until(sm_load(&w.tid) && thread_is(w.tid, "lingering")));
	fd = w.line.c.rd;
	if (w.line.c.wr == fd)
		w.line.c.wr = dup(fd);
	w.line.c.rd = -1;
	close(fd);
	/* These waits are on the same CPU, and want its place. */
	ASSERT_EQ(0, sm_prctl(PR_STACKMUX_THREAD, 0, 0, 0));
	for (i = 0; i < 3; i++)
		sm_sleep_ms(5);
	ASSERT_EQ(0, keep_out());
	EXPECT_TRUE(sm_wait_until(thread_is(w.tid, reads_later ? "parked" : "lingering")));
	EXPECT_FALSE(sm_load(&w.done));
	EXPECT_TRUE(line_send(&w.line));
	EXPECT_TRUE(sm_wait_until(sm_load(&w.done)));
	EXPECT_EQ(reads_later ? -EBADF : 0, w.ret);
	pthread_join(w.thread, NULL);
	line_close(&w.line);
}

/* -------------------------------------------------- evictions against wake-ups */

/* Waits on all CPUs for a moment each, so that others have to leave. */
static void *disturb(void *arg)
{
	int *stop = arg;

	while (!sm_load(stop))
		sm_sleep_ns(200000);
	return NULL;
}

#define NR_PAIRS	4

/*
 * Each message is received once, whether the receiver stayed, was evicted at the
 * moment it was woken, or parked.
 */
TEST_F_TIMEOUT(stay, race, 120)
{
	long rounds = sm_rounds(2000), i, k, bad = 0;
	struct line line[NR_PAIRS][2];
	pthread_t t[NR_PAIRS][2], d[2];
	struct player p[NR_PAIRS][2];
	struct sm_stats st;
	int stop = 0;

	ASSERT_EQ(0, sm_stay(&self->env));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, sm_thread(&d[i], disturb, &stop));
	for (i = 0; i < NR_PAIRS; i++) {
		for (k = 0; k < 2; k++)
			ASSERT_EQ(0, line_open(&line[i][k], variant->by));
		for (k = 0; k < 2; k++) {
			p[i][k] = (struct player){ &line[i][k], &line[i][!k], rounds };
			ASSERT_EQ(0, sm_thread(&t[i][k], play, &p[i][k]));
		}
		/* One message goes round. */
		ASSERT_TRUE(line_send(&line[i][0]));
	}
	for (i = 0; i < NR_PAIRS; i++) {
		for (k = 0; k < 2; k++) {
			pthread_join(t[i][k], NULL);
			bad += p[i][k].bad;
		}
	}
	sm_store(&stop, 1);
	for (i = 0; i < 2; i++)
		pthread_join(d[i], NULL);
	EXPECT_EQ(0, bad);
	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_GT(st.stayed - self->env.base.stayed, rounds);
	EXPECT_GT(st.evictions - self->env.base.evictions, 0);
	TH_LOG("stayed +%ld, evictions +%ld, parks +%ld, lingered +%ld",
	       st.stayed - self->env.base.stayed,
	       st.evictions - self->env.base.evictions,
	       st.parks - self->env.base.parks,
	       st.lingered - self->env.base.lingered);
	for (i = 0; i < NR_PAIRS; i++)
		for (k = 0; k < 2; k++)
			line_close(&line[i][k]);
}

int main(int argc, char **argv)
{
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
