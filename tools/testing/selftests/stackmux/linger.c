// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that are parked, but have their stacks still: what becomes of their calls
 * when something happens before the stack is taken, or while it is being taken.
 */
#include "line.h"

FIXTURE(linger) {
	struct sm_env env;
	struct line l;
};

FIXTURE_VARIANT(linger) {
	int by;
};

FIXTURE_VARIANT_ADD(linger, futex) { .by = BY_FUTEX };
FIXTURE_VARIANT_ADD(linger, poll) { .by = BY_POLL };
FIXTURE_VARIANT_ADD(linger, epoll) { .by = BY_EPOLL };
FIXTURE_VARIANT_ADD(linger, eventfd) { .by = BY_EVENTFD };
FIXTURE_VARIANT_ADD(linger, pipe) { .by = BY_PIPE };
FIXTURE_VARIANT_ADD(linger, unix) { .by = BY_UNIX };
FIXTURE_VARIANT_ADD(linger, accept) { .by = BY_ACCEPT };

FIXTURE_SETUP(linger)
{
	sm_setup(_metadata, &self->env, true);
	if (!self->env.present)
		return;
	ASSERT_EQ(0, sm_linger(&self->env));
	ASSERT_EQ(0, line_open(&self->l, variant->by));
}

FIXTURE_TEARDOWN(linger)
{
}

static bool lingers(struct line *l)
{
	return sm_wait_until(sm_load(&l->w.tid) && sm_task_is(getpid(), l->w.tid, "lingering"));
}

static bool parked(struct line *l)
{
	return sm_wait_until(sm_task_is(getpid(), l->w.tid, "parked"));
}

/* Another thread of this CPU parks, and so takes the stack that lingers there. */
static void *take_stack(void *unused)
{
	struct timespec ts = sm_ts(SM_MSEC);

	nanosleep(&ts, NULL);
	return unused;
}

static bool take(struct line *l)
{
	pthread_t t;

	return !sm_thread(&t, take_stack, NULL) && !pthread_join(t, NULL) && parked(l);
}

#define EXPECT_HEARD(l)							\
do {									\
	EXPECT_FALSE(sm_load(&(l)->w.done));				\
	EXPECT_TRUE(line_send(l));					\
	ASSERT_TRUE(sm_waiter_join(&(l)->w));				\
	EXPECT_TRUE(line_heard(l)) {					\
		TH_LOG("the call returned %ld", (l)->w.ret);		\
	}								\
} while (0)

/* ------------------------------------------------------------------ signals */

static void interrupted(struct __test_metadata *_metadata, struct line *l, int sa_flags)
{
	sm_handle(SIGUSR1, sa_flags);
	ASSERT_EQ(0, sm_waiter_run(&l->w));
	ASSERT_TRUE(lingers(l));
	ASSERT_EQ(0, sm_tgkill(getpid(), l->w.tid, SIGUSR1));
	EXPECT_TRUE(sm_wait_until(sm_load(&sm_handled)));
}

TEST_F(linger, signal)
{
	interrupted(_metadata, &self->l, 0);
	SM_JOIN(&self->l.w, -EINTR);
	line_close(&self->l);
}

TEST_F(linger, signal_restart)
{
	interrupted(_metadata, &self->l, SA_RESTART);
	/* poll() and epoll_wait() never start again. */
	if (variant->by == BY_POLL || variant->by == BY_EPOLL) {
		SM_JOIN(&self->l.w, -EINTR);
	} else {
		ASSERT_TRUE(lingers(&self->l));
		sm_settle();
		EXPECT_HEARD(&self->l);
	}
	line_close(&self->l);
}

/* It is killed, with its process. */
TEST_F(linger, kill)
{
	struct sm_waiter *w = sm_shared_alloc(sizeof(*w));
	int status;
	pid_t pid;

	*w = self->l.w;
	pid = sm_fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		sm_waiter_fn(w);
		_exit(1);
	}
	ASSERT_TRUE(sm_wait_until(sm_task_is(pid, pid, "lingering")));
	kill(pid, SIGKILL);
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_EQ(0, sm_load(&w->done));
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

/* ---------------------------------------------------- what they wait on goes */

/* The CPU: the stack is taken. */
TEST_F(linger, cpu_offline)
{
	struct line *l = &self->l;
	cpu_set_t all, one;
	int cpu;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = CPU_SETSIZE - 1; cpu > 0; cpu--)
		if (CPU_ISSET(cpu, &all) && sm_cpu_online(cpu) == 1)
			break;
	if (!cpu)
		SKIP(return, "no CPU that can be taken offline");
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	ASSERT_EQ(0, sm_waiter_run(&l->w));
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	ASSERT_TRUE(lingers(l));
	ASSERT_EQ(0, sched_setaffinity(l->w.tid, sizeof(all), &all));

	ASSERT_EQ(0, sm_cpu_set_online(cpu, 0));
	EXPECT_TRUE(parked(l));
	EXPECT_HEARD(l);
	EXPECT_EQ(0, sm_cpu_set_online(cpu, 1));
	line_close(l);
}

/* The descriptor: the call goes on with its file, on whichever stack. */
static void closed(struct __test_metadata *_metadata, struct line *l, bool taken)
{
	int fd = l->c.rd;

	if (l->by == BY_FUTEX)
		SKIP(return, "a futex has no descriptor");
	sm_pin();
	ASSERT_EQ(0, sm_waiter_run(&l->w));
	ASSERT_TRUE(lingers(l));
	if (l->c.wr == fd)
		l->c.wr = dup(fd);
	l->c.rd = -1;
	close(fd);
	sm_settle();
	ASSERT_TRUE(taken ? take(l) : lingers(l));
	EXPECT_HEARD(l);
	if (l->by == BY_POLL)
		EXPECT_EQ(POLLNVAL, l->pfd.revents);
	line_close(l);
}

TEST_F(linger, closed)
{
	closed(_metadata, &self->l, false);
}

TEST_F(linger, closed_and_taken)
{
	closed(_metadata, &self->l, true);
}

/* ------------------------------------------------------------ stacks are taken */

#define NR_WAITERS	12

/* On one CPU all but the last one lose their stacks. */
TEST_F(linger, taken)
{
	struct line *l = calloc(NR_WAITERS, sizeof(*l));
	int i;

	ASSERT_NE(NULL, l);
	sm_pin();
	for (i = 0; i < NR_WAITERS; i++) {
		ASSERT_EQ(0, line_open(&l[i], variant->by));
		ASSERT_EQ(0, sm_waiter_run(&l[i].w));
		ASSERT_TRUE(lingers(&l[i]));
	}
	for (i = 0; i < NR_WAITERS - 1; i++)
		EXPECT_TRUE(parked(&l[i]));
	EXPECT_TRUE(lingers(&l[i]));
	for (i = 0; i < NR_WAITERS; i++) {
		EXPECT_HEARD(&l[i]);
		line_close(&l[i]);
	}
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

#define NR_PAIRS	4

/* Waits on all CPUs for a moment each, so that others lose their stacks. */
static void *disturb(void *arg)
{
	int *stop = arg;

	while (!sm_load(stop))
		sm_sleep_ns(200000);
	return NULL;
}

/*
 * Each message is received once, whether the receiver went on where it stood, or its
 * stack was taken at the moment it was woken, or before that.
 */
TEST_F_TIMEOUT(linger, race, 120)
{
	struct line (*line)[2] = calloc(NR_PAIRS, sizeof(*line));
	pthread_t t[NR_PAIRS][2], d[2];
	struct line_player p[NR_PAIRS][2];
	struct sm_stats st;
	int i, k, stop = 0;

	ASSERT_NE(NULL, line);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, sm_thread(&d[i], disturb, &stop));
	for (i = 0; i < NR_PAIRS; i++) {
		for (k = 0; k < 2; k++)
			ASSERT_EQ(0, line_open(&line[i][k], variant->by));
		for (k = 0; k < 2; k++) {
			p[i][k] = (struct line_player){ &line[i][k], &line[i][!k], sm_rounds(2000) };
			ASSERT_EQ(0, sm_thread(&t[i][k], line_play, &p[i][k]));
		}
		/* One message goes round. */
		ASSERT_TRUE(line_send(&line[i][0]));
	}
	for (i = 0; i < NR_PAIRS; i++) {
		for (k = 0; k < 2; k++) {
			pthread_join(t[i][k], NULL);
			EXPECT_EQ(0, p[i][k].bad);
		}
	}
	sm_store(&stop, 1);
	for (i = 0; i < 2; i++)
		pthread_join(d[i], NULL);
	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_GT(st.lingered, self->env.base.lingered);
	EXPECT_GT(st.parks, self->env.base.parks);
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

int main(int argc, char **argv)
{
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
