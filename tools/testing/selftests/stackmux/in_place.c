// SPDX-License-Identifier: GPL-2.0
/*
 * Threads whose waits were short wait in place, on their stacks: a few of each CPU,
 * and nothing wakes them for that.
 */
#include "line.h"

#define NR_KINDS	(BY_UNIX + 1)

FIXTURE(in_place) {
	struct sm_env env;
	long base;		/* threads that waited in place before */
	struct line l[NR_KINDS];
};

FIXTURE_SETUP(in_place)
{
	int i;

	sm_setup(_metadata, &self->env, true);
	if (!self->env.present)
		return;
	ASSERT_EQ(0, sm_write_long(SM_LINGER, 1));
	self->base = sm_read_key(SM_STATS, "in_place");
	ASSERT_LE(0, self->base);
	ASSERT_EQ(0, sm_write_long(SM_IN_PLACE_MAX, 8));
	/* Who is preempted is not to lose its stack for that. */
	ASSERT_EQ(0, sm_write_long(SM_PREEMPTED_MAX, 8));
	for (i = 0; i < NR_KINDS; i++)
		ASSERT_EQ(0, line_open(&self->l[i], i));
}

FIXTURE_TEARDOWN(in_place)
{
	sm_knobs_restore();
}

/* From now on new threads wait in place after @n short waits. */
#define BACKOFF(n)	ASSERT_EQ(0, sm_write_long(SM_BACKOFF, n))

static bool is_in_place(pid_t pid, struct sm_waiter *w)
{
	return sm_load(&w->tid) && sm_task_is(pid, w->tid, "in place");
}

static bool is_parked(pid_t pid, struct sm_waiter *w)
{
	return sm_load(&w->tid) && (sm_task_is(pid, w->tid, "parked") ||
				    sm_task_is(pid, w->tid, "lingering"));
}

/* Are all places as they were at first? */
static bool all_left(long base)
{
	if (sm_wait_until(sm_read_key(SM_STATS, "in_place") <= base))
		return true;
	fprintf(stderr, "# %ld in place, at first %ld\n", sm_read_key(SM_STATS, "in_place"),
		base);
	return false;
}

/*
 * A thread in one kind of wait, and in place. One that is preempted before it sleeps has
 * had its place by then, and is only one that sleeps: try again.
 */
static bool start_in_place(struct line *l)
{
	int tries;

	for (tries = 0; tries < 50; tries++) {
		if (sm_waiter_run(&l->w) || !sm_sleeps(&l->w))
			return false;
		if (is_in_place(getpid(), &l->w))
			return true;
		if (!line_send(l) || !sm_waiter_join(&l->w) || !line_heard(l))
			return false;
		if (l->by == BY_POLL || l->by == BY_EPOLL)
			sm_chan_take(&l->c);
		l->word = 0;
	}
	return false;
}

/* A thread in each kind of wait, and in place */
static void start_kinds(struct __test_metadata *_metadata, FIXTURE_DATA(in_place) *self)
{
	int i;

	for (i = 0; i < NR_KINDS; i++) {
		ASSERT_TRUE(start_in_place(&self->l[i])) {
			TH_LOG("%s", line_names[i]);
		}
	}
	EXPECT_LE(self->base + NR_KINDS, sm_read_key(SM_STATS, "in_place"));
}

static void end_kinds(struct __test_metadata *_metadata, FIXTURE_DATA(in_place) *self)
{
	int i;

	for (i = 0; i < NR_KINDS; i++) {
		EXPECT_FALSE(sm_load(&self->l[i].w.done));
		EXPECT_TRUE(line_send(&self->l[i]));
		ASSERT_TRUE(sm_waiter_join(&self->l[i].w));
		EXPECT_TRUE(line_heard(&self->l[i])) {
			TH_LOG("%s: %ld", line_names[i], self->l[i].w.ret);
		}
	}
	EXPECT_TRUE(all_left(self->base));
}

/* ------------------------------------------------------------ who waits in place */

/* Two that play ping-pong on one CPU, in each kind of wait */
TEST_F_TIMEOUT(in_place, short_waits, 60)
{
	const long rounds = sm_rounds(2000);
	struct sm_stats before, after;
	struct line line[2];
	struct line_player p[2];
	pthread_t t[2];
	long in_place, parks, waits;
	int by, k;

	BACKOFF(8);
	sm_pin();
	ASSERT_TRUE(sm_look_on());
	for (by = 0; by < NR_KINDS; by++) {
		ASSERT_EQ(0, sm_stats_read(&before));
		for (k = 0; k < 2; k++)
			ASSERT_EQ(0, line_open(&line[k], by));
		for (k = 0; k < 2; k++) {
			p[k] = (struct line_player){ &line[k], &line[!k], rounds };
			ASSERT_EQ(0, sm_thread(&t[k], line_play, &p[k]));
		}
		ASSERT_TRUE(line_send(&line[0]));
		for (k = 0; k < 2; k++) {
			pthread_join(t[k], NULL);
			EXPECT_EQ(0, p[k].bad);
		}
		ASSERT_EQ(0, sm_stats_read(&after));
		in_place = after.waited_in_place - before.waited_in_place;
		parks = after.parks + after.lingered - after.preempted -
			(before.parks + before.lingered - before.preempted);
		waits = p[0].waits + p[1].waits;
		/* One of them may find its message there, each time. */
		EXPECT_GE(waits, rounds / 2);
		EXPECT_GE(in_place, waits * 8 / 10) {
			TH_LOG("%s: %ld waits, %ld in place", line_names[by], waits, in_place);
		}
		EXPECT_LE(parks, waits * 2 / 10) {
			TH_LOG("%s: %ld waits, %ld parks", line_names[by], waits, parks);
		}
		for (k = 0; k < 2; k++)
			line_close(&line[k]);
	}
	EXPECT_TRUE(all_left(self->base));
}

#define NR_SLEEPERS	20

/* No more than are allowed; the others park. */
TEST_F(in_place, bounded)
{
	struct sm_waiter *w = calloc(NR_SLEEPERS, sizeof(*w));
	int i, in_place = 0, parked = 0;
	uint32_t word = 0;

	ASSERT_NE(NULL, w);
	BACKOFF(0);
	ASSERT_EQ(0, sm_write_long(SM_IN_PLACE_MAX, 2));
	sm_pin();
	for (i = 0; i < NR_SLEEPERS; i++)
		ASSERT_EQ(0, sm_waiter_futex(&w[i], &word, 0, SM_PRIVATE));
	for (i = 0; i < NR_SLEEPERS; i++)
		ASSERT_TRUE(sm_sleeps(&w[i]));
	EXPECT_GE(self->base + 4, sm_read_key(SM_STATS, "in_place"));
	for (i = 0; i < NR_SLEEPERS; i++) {
		in_place += is_in_place(getpid(), &w[i]);
		parked += is_parked(getpid(), &w[i]);
	}
	/* One that is preempted before it sleeps may find that its place is taken. */
	EXPECT_GE(4, in_place);
	EXPECT_LE(1, in_place);
	EXPECT_LE(NR_SLEEPERS - 4, parked);
	EXPECT_EQ(NR_SLEEPERS, sm_wake(&word, INT_MAX, SM_PRIVATE));
	for (i = 0; i < NR_SLEEPERS; i++)
		SM_JOIN(&w[i], 0);
	EXPECT_TRUE(all_left(self->base));
}

/* Whose wait was long, parks the next times, until some waits were short. */
TEST_F(in_place, long_wait)
{
	struct line *l = &self->l[BY_FUTEX];
	struct line_player p = { l, &self->l[BY_EVENTFD], 32 };
	struct sm_waiter w = { 0 };
	pthread_t t;
	DIR *dir;
	struct dirent *d;
	int i;

	BACKOFF(0);
	ASSERT_EQ(0, sm_thread(&t, line_play, &p));
	dir = opendir("/proc/self/task");
	ASSERT_NE(NULL, dir);
	while ((d = readdir(dir)))
		if (atoi(d->d_name) && atoi(d->d_name) != getpid())
			w.tid = atoi(d->d_name);
	closedir(dir);
	/* If it is preempted before it sleeps, then not the next time. */
	for (i = 0; i < 8; i++) {
		ASSERT_TRUE(sm_wait_until(sm_task_state(getpid(), w.tid) == 'S'));
		if (is_in_place(getpid(), &w))
			break;
		ASSERT_TRUE(line_send(l));
		ASSERT_TRUE(sm_chan_take(&self->l[BY_EVENTFD].c));
	}
	ASSERT_TRUE(is_in_place(getpid(), &w));
	BACKOFF(3);
	sm_sleep_ms(100);
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(line_send(l));
		ASSERT_TRUE(sm_chan_take(&self->l[BY_EVENTFD].c));
		ASSERT_TRUE(sm_wait_until(sm_task_state(getpid(), w.tid) == 'S'));
		EXPECT_TRUE(sm_wait_until(is_parked(getpid(), &w)));
		EXPECT_TRUE(all_left(self->base));
	}
	for (; i < 20; i++) {
		ASSERT_TRUE(line_send(l));
		ASSERT_TRUE(sm_chan_take(&self->l[BY_EVENTFD].c));
		ASSERT_TRUE(sm_wait_until(sm_task_state(getpid(), w.tid) == 'S'));
		if (is_in_place(getpid(), &w))
			break;
	}
	/* Others that park may take its stack. */
	if (self->env.mode != 2)
		EXPECT_GT(20, i);
	/* The process ends with it waiting. */
}

/* --------------------------------------------------------- what becomes of them */

static long switches(pid_t tid)
{
	char buf[4096];
	char *n = sm_task_status(getpid(), tid, "voluntary_ctxt_switches", buf, sizeof(buf));

	return n ? atol(n) : -1;
}

static void opt_out(struct sm_waiter *w)
{
	sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0);
}

static void become_fifo(struct sm_waiter *w)
{
	sm_rt_begin();
}

static void *nap_on(void *arg)
{
	int *stop = arg;

	while (!sm_load(stop))
		sm_sleep_ns(10 * SM_MSEC);
	return NULL;
}

#define NR_OTHERS	200

/* Nothing that others do wakes them, nor those that never park. */
TEST_F_TIMEOUT(in_place, no_wakeups, 60)
{
	struct timespec hour = sm_ts(3600 * SM_SEC);
	struct sm_waiter w[3] = { { .before = opt_out }, { .before = become_fifo } };
	pthread_t *t = calloc(NR_OTHERS, sizeof(*t));
	long before[NR_KINDS + 3];
	struct sm_stats st;
	uint32_t word = 0;
	int i, stop = 0;

	ASSERT_NE(NULL, t);
	BACKOFF(0);
	sm_pin();
	start_kinds(_metadata, self);
	sm_waiter_set(&w[2], __NR_nanosleep, (long)&hour, 0, 0, 0, 0, 0);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, sm_waiter_futex(&w[i], &word, 0, SM_PRIVATE));
	ASSERT_EQ(0, sm_waiter_run(&w[2]));
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(sm_sleeps(&w[i]));
	for (i = 0; i < NR_KINDS; i++)
		before[i] = switches(self->l[i].w.tid);
	for (i = 0; i < 3; i++)
		before[NR_KINDS + i] = switches(w[i].tid);

	BACKOFF(255);
	ASSERT_EQ(0, sm_stats_read(&self->env.base));
	for (i = 0; i < NR_OTHERS; i++)
		ASSERT_EQ(0, sm_thread(&t[i], nap_on, &stop));
	sm_sleep_ms(1000);
	EXPECT_TRUE(sm_wait_until(!sm_stats_read(&st) &&
				  st.parks - self->env.base.parks >= NR_OTHERS));
	for (i = 0; i < NR_KINDS; i++) {
		EXPECT_EQ(before[i], switches(self->l[i].w.tid)) {
			TH_LOG("%s", line_names[i]);
		}
		EXPECT_TRUE(is_in_place(getpid(), &self->l[i].w));
	}
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(before[NR_KINDS + i], switches(w[i].tid)) {
			TH_LOG("thread %d", i);
		}
	}
	sm_store(&stop, 1);
	for (i = 0; i < NR_OTHERS; i++)
		pthread_join(t[i], NULL);
	EXPECT_EQ(2, sm_wake(&word, 2, SM_PRIVATE));
	for (i = 0; i < 2; i++)
		SM_JOIN(&w[i], 0);
	sm_handle(SIGUSR1, 0);
	EXPECT_EQ(0, sm_tgkill(getpid(), w[2].tid, SIGUSR1));
	SM_JOIN(&w[2], -EINTR);
	end_kinds(_metadata, self);
}

/* They are killed, with their process. */
TEST_F(in_place, killed)
{
	struct line *l = sm_shared_alloc(NR_KINDS * sizeof(*l));
	int i, status;
	pid_t pid;

	ASSERT_NE(NULL, l);
	BACKOFF(0);
	memcpy(l, self->l, NR_KINDS * sizeof(*l));
	pid = sm_fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		sm_pin();
		for (i = 1; i < NR_KINDS; i++)
			sm_waiter_run(&l[i].w);
		sm_waiter_fn(&l[0].w);
		_exit(1);
	}
	for (i = 0; i < NR_KINDS; i++)
		ASSERT_TRUE(sm_wait_until(sm_waiter_asleep(pid, &l[i].w))) {
			TH_LOG("%s", line_names[i]);
		}
	/* Some may have been preempted before they slept. */
	EXPECT_LE(self->base + NR_KINDS / 2, sm_read_key(SM_STATS, "in_place"));
	kill(pid, SIGKILL);
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (i = 0; i < NR_KINDS; i++)
		EXPECT_EQ(0, sm_load(&l[i].w.done));
	EXPECT_TRUE(all_left(self->base));
}

/* Asks whether to wait in place, and has no need to. */
static void *need_not_wait(void *arg)
{
	struct sm_chan *c = arg;
	struct pollfd pfd = { .fd = c->rd, .events = POLLIN };
	uint64_t one = 1;

	if (c->kind != SM_EVENTFD)
		return poll(&pfd, 1, -1) == 1 ? NULL : arg;
	return write(c->wr, &one, 8) == 8 && read(c->rd, &one, 8) == 8 && one ? NULL : arg;
}

/* A thread that asked for a place, did not sleep, and exits, leaves no trace. */
TEST_F_TIMEOUT(in_place, exits, 120)
{
	const long rounds = sm_rounds(2000);
	struct sm_chan c[2];
	pthread_t t[2];
	void *ret;
	long i;
	int k;

	BACKOFF(0);
	ASSERT_TRUE(sm_look_on());
	ASSERT_EQ(0, sm_chan_open(&c[0], SM_EVENTFD));
	ASSERT_EQ(0, sm_chan_open(&c[1], SM_PIPE));
	ASSERT_TRUE(sm_chan_send(&c[1]));
	for (i = 0; i < rounds; i += 2) {
		for (k = 0; k < 2; k++)
			ASSERT_EQ(0, sm_thread(&t[k], need_not_wait, &c[k]));
		for (k = 0; k < 2; k++) {
			ASSERT_EQ(0, pthread_join(t[k], &ret));
			ASSERT_EQ(NULL, ret);
		}
	}
	EXPECT_TRUE(all_left(self->base));
}

/* Their CPU goes: they are woken elsewhere, and the place is its all the same. */
TEST_F(in_place, cpu_offline)
{
	cpu_set_t all, one;
	int cpu, i;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = CPU_SETSIZE - 1; cpu > 0; cpu--)
		if (CPU_ISSET(cpu, &all) && sm_cpu_online(cpu) == 1)
			break;
	if (!cpu)
		SKIP(return, "no CPU that can be taken offline");
	BACKOFF(0);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	start_kinds(_metadata, self);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	for (i = 0; i < NR_KINDS; i++)
		ASSERT_EQ(0, sched_setaffinity(self->l[i].w.tid, sizeof(all), &all));

	ASSERT_EQ(0, sm_cpu_set_online(cpu, 0));
	for (i = 0; i < NR_KINDS; i++)
		EXPECT_TRUE(is_in_place(getpid(), &self->l[i].w));
	end_kinds(_metadata, self);
	EXPECT_EQ(0, sm_cpu_set_online(cpu, 1));
}

int main(int argc, char **argv)
{
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
