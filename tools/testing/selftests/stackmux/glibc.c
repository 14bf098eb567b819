// SPDX-License-Identifier: GPL-2.0
/*
 * What the C library builds of system calls that wait: conditions, locks,
 * semaphores, joins, cancellation. Each in a process that parks and in one
 * that does not, linked dynamically and statically.
 */
#include "scenario.h"
#include <aio.h>
#include <semaphore.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <threads.h>

#define NT	8

FIXTURE(glibc) {
	struct sm_env env;
	struct sm_waiter w[NT];
};

SM_FIXTURE(glibc);

/* A thread that calls a function instead of a system call. */
typedef long (*thread_fn)(void *arg, long how);

static void *fn_main(void *arg)
{
	struct sm_waiter *w = arg;
	thread_fn fn = (thread_fn)w->data;

	sm_store(&w->tid, sm_gettid());
	sm_store(&w->entered, 1);
	w->ret = fn((void *)w->arg[0], w->arg[1]);
	sm_store(&w->done, 1);
	return NULL;
}

static int fn_run(struct sm_waiter *w, thread_fn fn, void *arg, long how)
{
	memset(w, 0, sizeof(*w));
	w->data = (void *)fn;
	w->arg[0] = (long)arg;
	w->arg[1] = how;
	return sm_thread(&w->thread, fn_main, w);
}

/* The first @n threads call @fn; it and @how may depend on @i. */
#define FN_RUN(i, n, fn, arg, how)					\
do {									\
	sm_rebase(&self->env);						\
	for ((i) = 0; (i) < (n); (i)++)					\
		ASSERT_EQ(0, fn_run(&self->w[i], fn, arg, how));	\
} while (0)

/* ... and wait in there. */
#define FN_START(i, n, fn, arg, how)					\
do {									\
	FN_RUN(i, n, fn, arg, how);					\
	ASSERT_TRUE(sm_asleep(&self->env, self->w, n));			\
} while (0)

static struct timespec in_ns(clockid_t clock, int64_t ns)
{
	return sm_ts(sm_clock_ns(clock) + ns);
}

static struct timespec soon(clockid_t clock)
{
	return in_ns(clock, 30 * SM_MSEC);
}

static struct timespec late(clockid_t clock)
{
	return in_ns(clock, 3600 * SM_SEC);
}

#define NS(ts)	((ts)->tv_sec * SM_SEC + (ts)->tv_nsec)

/* @call times out at its deadline, @ts of @clock, and not before; also if it is over. */
#define EXPECT_ENDS(ts, clock, call)					\
do {									\
	(ts) = soon(clock);						\
	EXPECT_EQ(ETIMEDOUT, (call));					\
	EXPECT_GE(sm_clock_ns(clock), NS(&(ts)));			\
	EXPECT_LT(sm_clock_ns(clock), NS(&(ts)) + sm_late_ns());	\
	(ts) = in_ns(clock, -SM_SEC);					\
	EXPECT_EQ(ETIMEDOUT, (call));					\
} while (0)

/* The same, and it looks at the deadline before. */
#define EXPECT_TIMES_OUT(ts, clock, call)				\
do {									\
	EXPECT_ENDS(ts, clock, call);					\
	(ts) = late(clock);						\
	(ts).tv_nsec = SM_SEC;						\
	EXPECT_EQ(EINVAL, (call));					\
} while (0)

static int err(int ret)
{
	return ret ? errno : 0;
}

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC };

/* -------------------------------------------------------------- conditions */

struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	clockid_t clock;
	int tickets, waiting;
};

static void gate_init(struct gate *g, clockid_t clock)
{
	pthread_condattr_t attr;

	memset(g, 0, sizeof(*g));
	g->clock = clock;
	pthread_mutex_init(&g->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, clock);
	pthread_cond_init(&g->cond, &attr);
}

enum { WAIT, TIMEDWAIT, CLOCKWAIT };

/* Take a ticket; wait for it in one way or another. */
static long gate_pass(void *arg, long how)
{
	struct gate *g = arg;
	struct timespec ts = late(g->clock);
	int ret = 0;

	pthread_mutex_lock(&g->mutex);
	g->waiting++;
	while (!g->tickets && !ret) {
		switch (how) {
		case WAIT:
			ret = pthread_cond_wait(&g->cond, &g->mutex);
			break;
		case TIMEDWAIT:
			ret = pthread_cond_timedwait(&g->cond, &g->mutex, &ts);
			break;
		case CLOCKWAIT:
			ret = pthread_cond_clockwait(&g->cond, &g->mutex, g->clock, &ts);
		}
	}
	g->tickets--;
	g->waiting--;
	pthread_mutex_unlock(&g->mutex);
	return ret;
}

static void gate_open(struct gate *g, int tickets)
{
	pthread_mutex_lock(&g->mutex);
	g->tickets += tickets;
	if (tickets == 1)
		pthread_cond_signal(&g->cond);
	else
		pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->mutex);
}

TEST_F(glibc, cond)
{
	struct timespec ts;
	struct gate g;
	int i, how, c;

	for (c = 0; c < 2; c++) {
		for (how = WAIT; how <= CLOCKWAIT; how++) {
			gate_init(&g, clocks[c]);
			FN_START(i, NT, gate_pass, &g, how);
			for (i = 1; i <= 3; i++) {
				gate_open(&g, 1);
				SM_ASSERT_DONE(self->w, NT, i);
			}
			EXPECT_EQ(NT - 3, g.waiting);
			gate_open(&g, NT - 3);
			SM_JOIN_ALL(self->w, NT, 0);
			EXPECT_EQ(0, g.tickets);
			EXPECT_EQ(0, pthread_cond_destroy(&g.cond));
		}
		gate_init(&g, clocks[c]);
		pthread_mutex_lock(&g.mutex);
		EXPECT_TIMES_OUT(ts, clocks[c], pthread_cond_timedwait(&g.cond, &g.mutex, &ts));
		EXPECT_TIMES_OUT(ts, clocks[!c],
				 pthread_cond_clockwait(&g.cond, &g.mutex, clocks[!c], &ts));
		EXPECT_EQ(EBUSY, pthread_mutex_trylock(&g.mutex));
		pthread_mutex_unlock(&g.mutex);
	}
}

/* A bounded queue, some of whose users lose patience now and then. */
struct queue {
	pthread_mutex_t mutex;
	pthread_cond_t more, room;
	long item[4];
	int n;
	long rounds, in, sum;
	int end;
};

static long queue_put(void *arg, long how)
{
	struct queue *q = arg;
	struct timespec ts;

	for (;;) {
		pthread_mutex_lock(&q->mutex);
		while (q->n == 4 && q->in < q->rounds) {
			ts = in_ns(CLOCK_REALTIME, 200000);
			pthread_cond_timedwait(&q->room, &q->mutex, &ts);
		}
		if (q->in == q->rounds) {
			q->end = 1;
			pthread_cond_broadcast(&q->more);
			pthread_cond_broadcast(&q->room);
			pthread_mutex_unlock(&q->mutex);
			return 0;
		}
		q->item[q->n++] = ++q->in;
		pthread_mutex_unlock(&q->mutex);
		pthread_cond_signal(&q->more);
	}
}

static long queue_get(void *arg, long how)
{
	struct queue *q = arg;
	struct timespec ts;

	for (;;) {
		pthread_mutex_lock(&q->mutex);
		while (!q->n && !q->end) {
			ts = in_ns(CLOCK_MONOTONIC, 100000);
			if (how)
				pthread_cond_wait(&q->more, &q->mutex);
			else
				pthread_cond_clockwait(&q->more, &q->mutex,
						       CLOCK_MONOTONIC, &ts);
		}
		if (!q->n) {
			pthread_mutex_unlock(&q->mutex);
			return 0;
		}
		q->sum += q->item[--q->n];
		pthread_mutex_unlock(&q->mutex);
		pthread_cond_signal(&q->room);
	}
}

TEST_F_TIMEOUT(glibc, cond_queue, 60)
{
	struct queue q = {
		.mutex = PTHREAD_MUTEX_INITIALIZER,
		.more = PTHREAD_COND_INITIALIZER,
		.room = PTHREAD_COND_INITIALIZER,
		.rounds = sm_rounds(8000),
	};
	int i;

	FN_RUN(i, NT, i % 2 ? queue_put : queue_get, &q, i & 2);
	SM_JOIN_ALL(self->w, NT, 0);
	EXPECT_EQ(q.rounds * (q.rounds + 1) / 2, q.sum);
	EXPECT_EQ(0, q.n);
	SM_EXPECT_PARKS(&self->env, 10);
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* ------------------------------------------------------------------- locks */

static const struct mutex_kind {
	const char *name;
	int type, robust;
} mutex_kinds[] = {
	{ "normal", PTHREAD_MUTEX_NORMAL },
	{ "recursive", PTHREAD_MUTEX_RECURSIVE },
	{ "error-checking", PTHREAD_MUTEX_ERRORCHECK },
	{ "adaptive", PTHREAD_MUTEX_ADAPTIVE_NP },
	{ "robust", PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST },
};

#define ROBUST	(&mutex_kinds[4])

static int mutex_init(pthread_mutex_t *m, const struct mutex_kind *k, bool shared)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, k->type);
	pthread_mutexattr_setrobust(&attr, k->robust);
	pthread_mutexattr_setpshared(&attr, shared);
	return pthread_mutex_init(m, &attr);
}

enum { LOCK, TIMEDLOCK, CLOCKLOCK };

static long lock_it(void *arg, long how)
{
	struct timespec ts = late(CLOCK_REALTIME);
	pthread_mutex_t *m = arg;
	int ret;

	switch (how) {
	case LOCK:
		ret = pthread_mutex_lock(m);
		break;
	case TIMEDLOCK:
		ret = pthread_mutex_timedlock(m, &ts);
		break;
	default:
		ret = pthread_mutex_clocklock(m, CLOCK_REALTIME, &ts);
	}
	if (ret && ret != EOWNERDEAD)
		return ret;
	if (ret == EOWNERDEAD)
		pthread_mutex_consistent(m);
	pthread_mutex_unlock(m);
	return ret;
}

static long lock_times_out(void *arg, long how)
{
	struct timespec ts = soon(CLOCK_REALTIME);
	int ret = pthread_mutex_timedlock(arg, &ts);

	return sm_clock_ns(CLOCK_REALTIME) < NS(&ts) ? -1 : ret;
}

TEST_F(glibc, mutex)
{
	const struct mutex_kind *k;
	pthread_mutex_t m;
	int kind, i;

	for (kind = 0; kind < ARRAY_SIZE(mutex_kinds); kind++) {
		k = &mutex_kinds[kind];
		ASSERT_EQ(0, mutex_init(&m, k, kind % 2));
		ASSERT_EQ(0, pthread_mutex_lock(&m));
		if (k->type == PTHREAD_MUTEX_RECURSIVE) {
			EXPECT_EQ(0, pthread_mutex_lock(&m));
			EXPECT_EQ(0, pthread_mutex_unlock(&m));
		}
		if (k->type == PTHREAD_MUTEX_ERRORCHECK)
			EXPECT_EQ(EDEADLK, pthread_mutex_lock(&m));
		FN_RUN(i, 6, lock_it, &m, i % 3);
		ASSERT_TRUE(sm_wait_parked(&self->env, 6));
		for (i = 0; i < 6; i++)
			ASSERT_TRUE(sm_sleeps(&self->w[i]));
		ASSERT_EQ(0, fn_run(&self->w[6], lock_times_out, &m, 0));
		SM_JOIN(&self->w[6], ETIMEDOUT);
		EXPECT_EQ(0, sm_nr_done(self->w, 6));
		EXPECT_EQ(0, pthread_mutex_unlock(&m));
		SM_JOIN_ALL(self->w, 6, 0);
		EXPECT_EQ(0, pthread_mutex_destroy(&m));
	}
}

struct counter {
	pthread_mutex_t mutex;
	pthread_rwlock_t rw;
	long rounds, value, bad;
	long naps;
};

static long count_mutex(void *arg, long how)
{
	struct counter *c = arg;
	struct timespec ts;
	long i, val;

	for (i = 0; i < c->rounds; i++) {
		if (how % 2) {
			do {
				ts = in_ns(CLOCK_REALTIME, 300000);
			} while (pthread_mutex_timedlock(&c->mutex, &ts));
		} else if (pthread_mutex_lock(&c->mutex)) {
			c->bad++;
		}
		val = c->value;
		/* Long enough for the others to wait */
		if (i % 32 == 0) {
			sm_sleep_ns(200000);
			c->naps++;
		}
		c->value = val + 1;
		if (pthread_mutex_unlock(&c->mutex))
			c->bad++;
	}
	return 0;
}

TEST_F_TIMEOUT(glibc, mutex_contention, 60)
{
	struct counter c = { 0 };
	long naps = 0;
	int kind, i;

	sm_rebase(&self->env);
	for (kind = 0; kind < ARRAY_SIZE(mutex_kinds); kind++) {
		memset(&c, 0, sizeof(c));
		ASSERT_EQ(0, mutex_init(&c.mutex, &mutex_kinds[kind], false));
		c.rounds = sm_rounds(300);
		for (i = 0; i < 6; i++)
			ASSERT_EQ(0, fn_run(&self->w[i], count_mutex, &c, i));
		SM_JOIN_ALL(self->w, 6, 0);
		EXPECT_EQ(6 * c.rounds, c.value) {
			TH_LOG("%s", mutex_kinds[kind].name);
		}
		EXPECT_EQ(0, c.bad);
		naps += c.naps;
	}
	/* Those that wait, not only those that nap */
	SM_EXPECT_PARKS(&self->env, naps + 10);
}

/* The owner of a robust mutex goes: a thread, then a whole process. */
struct robust {
	pthread_mutex_t mutex;
	int step;
};

static long lock_and_exit(void *arg, long how)
{
	struct robust *s = arg;

	pthread_mutex_lock(&s->mutex);
	sm_store(&s->step, 1);
	while (sm_load(&s->step) == 1)
		sm_sleep_ms(1);
	return 0;
}

TEST_F(glibc, robust_owner_dies)
{
	struct robust *s = sm_shared_alloc(sizeof(*s));
	struct sm_waiter *w = self->w, *owner = &w[3];
	int i, status;
	pid_t pid;

	ASSERT_NE(NULL, s);
	ASSERT_EQ(0, mutex_init(&s->mutex, ROBUST, true));
	ASSERT_EQ(0, fn_run(owner, lock_and_exit, s, 0));
	ASSERT_TRUE(sm_wait_until(sm_load(&s->step) == 1));
	FN_RUN(i, 3, lock_it, &s->mutex, i);
	ASSERT_TRUE(sm_wait_parked(&self->env, 3));
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(sm_sleeps(&w[i]));
	sm_store(&s->step, 2);
	SM_JOIN(owner, 0);
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(sm_waiter_join(&w[i]));
	/* One is told, and makes it usable for the others. */
	EXPECT_EQ(EOWNERDEAD, w[0].ret + w[1].ret + w[2].ret);

	/* Killed while it is parked itself */
	s->step = 0;
	sm_rebase(&self->env);
	pid = SM_FORK();
	if (!pid) {
		pthread_mutex_lock(&s->mutex);
		sm_store(&s->step, 1);
		for (;;)
			pause();
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&s->step) == 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_EQ(EBUSY, pthread_mutex_trylock(&s->mutex));
	ASSERT_EQ(0, fn_run(w, lock_it, &s->mutex, LOCK));
	ASSERT_TRUE(sm_sleeps(w));
	kill(pid, SIGKILL);
	SM_JOIN(w, EOWNERDEAD);
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_EQ(0, pthread_mutex_destroy(&s->mutex));
	munmap(s, sizeof(*s));
}

static long rdlock(void *arg, long how)
{
	pthread_rwlock_t *l = arg;
	struct timespec ts = late(CLOCK_REALTIME);
	int ret = how ? pthread_rwlock_timedrdlock(l, &ts) : pthread_rwlock_rdlock(l);

	if (!ret)
		pthread_rwlock_unlock(l);
	return ret;
}

static long wrlock(void *arg, long how)
{
	pthread_rwlock_t *l = arg;
	struct timespec ts = late(CLOCK_MONOTONIC);
	int ret = how ? pthread_rwlock_clockwrlock(l, CLOCK_MONOTONIC, &ts) :
			pthread_rwlock_wrlock(l);

	if (!ret)
		pthread_rwlock_unlock(l);
	return ret;
}

static long count_rw(void *arg, long how)
{
	struct counter *c = arg;
	struct timespec ts;
	long i, val;

	for (i = 0; i < c->rounds; i++) {
		if ((i + how) % 4) {
			if (pthread_rwlock_rdlock(&c->rw))
				c->bad++;
			val = sm_load(&c->value);
			if (i % 8 == 0)
				sched_yield();
			if (val != sm_load(&c->value))
				sm_add(&c->bad, 1);
		} else {
			do {
				ts = in_ns(CLOCK_MONOTONIC, 200000);
			} while (pthread_rwlock_clockwrlock(&c->rw, CLOCK_MONOTONIC, &ts));
			val = c->value;
			sched_yield();
			sm_store(&c->value, val + 1);
		}
		pthread_rwlock_unlock(&c->rw);
	}
	return 0;
}

TEST_F_TIMEOUT(glibc, rwlock, 60)
{
	static const int prefer[] = {
		PTHREAD_RWLOCK_PREFER_READER_NP,
		PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP,
	};
	pthread_rwlockattr_t attr;
	struct counter c = { 0 };
	struct timespec ts;
	int i, p;

	for (p = 0; p < 2; p++) {
		pthread_rwlockattr_init(&attr);
		pthread_rwlockattr_setkind_np(&attr, prefer[p]);
		pthread_rwlock_init(&c.rw, &attr);

		ASSERT_EQ(0, pthread_rwlock_wrlock(&c.rw));
		FN_START(i, NT, i % 2 ? rdlock : wrlock, &c.rw, i & 2);
		pthread_rwlock_unlock(&c.rw);
		SM_JOIN_ALL(self->w, NT, 0);

		ASSERT_EQ(0, pthread_rwlock_rdlock(&c.rw));
		EXPECT_TIMES_OUT(ts, CLOCK_REALTIME, pthread_rwlock_timedwrlock(&c.rw, &ts));
		EXPECT_TIMES_OUT(ts, CLOCK_MONOTONIC,
				 pthread_rwlock_clockwrlock(&c.rw, CLOCK_MONOTONIC, &ts));
		pthread_rwlock_unlock(&c.rw);

		c.rounds = sm_rounds(800);
		c.value = 0;
		FN_RUN(i, NT, count_rw, &c, i);
		SM_JOIN_ALL(self->w, NT, 0);
		EXPECT_EQ(0, c.bad);
		EXPECT_EQ(NT * c.rounds / 4, c.value);
		EXPECT_EQ(0, pthread_rwlock_destroy(&c.rw));
	}
}

/* ----------------------------------------------------- barriers, semaphores */

struct laps {
	pthread_barrier_t barrier;
	long rounds, serial, bad;
	long at[NT];
};

static long run_laps(void *arg, long how)
{
	struct laps *l = arg;
	long r, i;

	for (r = 1; r <= l->rounds; r++) {
		sm_store(&l->at[how], r);
		if (pthread_barrier_wait(&l->barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			sm_add(&l->serial, 1);
		for (i = 0; i < NT; i++)
			if (sm_load(&l->at[i]) < r)
				sm_add(&l->bad, 1);
	}
	return 0;
}

TEST_F_TIMEOUT(glibc, barrier, 60)
{
	struct laps l = { .rounds = sm_rounds(1500) };
	int i;

	pthread_barrier_init(&l.barrier, NULL, NT);
	FN_START(i, NT - 1, run_laps, &l, i);
	ASSERT_EQ(0, fn_run(&self->w[i], run_laps, &l, i));
	SM_JOIN_ALL(self->w, NT, 0);
	EXPECT_EQ(l.rounds, l.serial);
	EXPECT_EQ(0, l.bad);
	pthread_barrier_destroy(&l.barrier);
}

static long sem_take(void *arg, long how)
{
	struct timespec ts = late(CLOCK_REALTIME);
	sem_t *s = arg;

	switch (how % 3) {
	case 0:
		return err(sem_wait(s));
	case 1:
		return err(sem_timedwait(s, &ts));
	default:
		return err(sem_clockwait(s, CLOCK_REALTIME, &ts));
	}
}

TEST_F(glibc, semaphore)
{
	sem_t *s = sm_shared_alloc(sizeof(*s));
	struct timespec ts;
	int i, shared, flags, val;
	pid_t pid;

	ASSERT_NE(NULL, s);
	for (shared = 0; shared < 2; shared++) {
		sem_init(s, shared, 0);
		FN_START(i, NT, sem_take, s, i);
		for (i = 1; i <= NT; i++) {
			sem_post(s);
			ASSERT_TRUE(sm_wait_until(sm_nr_done(self->w, NT) >= i));
			EXPECT_EQ(i, sm_nr_done(self->w, NT));
		}
		SM_JOIN_ALL(self->w, NT, 0);
		EXPECT_EQ(0, sem_getvalue(s, &val));
		EXPECT_EQ(0, val);
		EXPECT_TIMES_OUT(ts, CLOCK_REALTIME, err(sem_timedwait(s, &ts)));
		EXPECT_TIMES_OUT(ts, CLOCK_MONOTONIC,
				 err(sem_clockwait(s, CLOCK_MONOTONIC, &ts)));

		/* With SA_RESTART only the wait without time-out goes on. */
		for (i = 0; i < 3; i++) {
			for (flags = 0; flags < 2; flags++) {
				sm_handle(SIGUSR1, flags ? SA_RESTART : 0);
				sm_rebase(&self->env);
				ASSERT_EQ(0, fn_run(self->w, sem_take, s, i));
				ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
				sm_signal(self->w, SIGUSR1);
				ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled)));
				if (!flags || i) {
					SM_JOIN(self->w, EINTR);
					continue;
				}
				ASSERT_TRUE(sm_sleeps(self->w));
				sem_post(s);
				SM_JOIN(self->w, 0);
			}
		}
	}
	/* Between processes */
	pid = SM_FORK();
	if (!pid) {
		for (i = 0; i < 50; i++)
			if (sem_wait(s))
				_exit(1);
		_exit(0);
	}
	for (i = 0; i < 50; i++) {
		sem_post(s);
		if (i % 8 == 0)
			sm_sleep_ms(1);
	}
	SM_EXPECT_STATUS(0, pid);
	munmap(s, sizeof(*s));
}

/* ------------------------------------------------------------ cancellation */

/* What the calls wait for, and nobody gives. */
static struct {
	int pipe[2], sock[2], listener, udp, event, timer, epoll;
	sem_t sem;
	struct gate gate;
	pthread_t sleeper;
	pid_t kid;
	sigset_t none, rt;
	struct timespec real, boot;	/* far away */
} never;

/* How long it takes */
static const struct timespec hour = { 3600, 0 };

/* Where results go */
static char buf[64];
static struct iovec iov = { buf, sizeof(buf) };
static struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
static struct epoll_event event;
static siginfo_t info;
static int sig;
static ssize_t io;

/* One descriptor, of which there is never anything to read */
static struct pollfd *poll_set(int fd)
{
	static struct pollfd p = { .events = POLLIN };

	p.fd = fd;
	return &p;
}

static void select_one(int fd)
{
	struct timeval tv = { 3600, 0 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	select(fd + 1, &set, NULL, NULL, &tv);
}

static void pselect_one(int fd)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	pselect(fd + 1, &set, NULL, NULL, NULL, &never.none);
}

static void sleep_until(const struct timespec *ts)
{
	clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, ts, NULL);
}

static void join_until(const struct timespec *ts)
{
	pthread_timedjoin_np(never.sleeper, NULL, ts);
}

static void gate_cleanup(void *arg)
{
	struct gate *g = arg;

	/* The mutex is held again. */
	if (pthread_mutex_trylock(&g->mutex) == EBUSY)
		g->waiting--;
	pthread_mutex_unlock(&g->mutex);
}

static void gate_wait(bool timed)
{
	struct timespec ts = late(CLOCK_REALTIME);
	struct gate *g = &never.gate;

	pthread_mutex_lock(&g->mutex);
	g->waiting++;
	pthread_cleanup_push(gate_cleanup, g);
	while (!g->tickets) {
		if (timed)
			pthread_cond_timedwait(&g->cond, &g->mutex, &ts);
		else
			pthread_cond_wait(&g->cond, &g->mutex);
	}
	pthread_cleanup_pop(1);
}

static void wait_for_aio(void)
{
	static struct aiocb cb;
	const struct aiocb *list[1] = { &cb };

	cb.aio_fildes = never.pipe[0];
	cb.aio_buf = buf;
	cb.aio_nbytes = 1;
	if (!cb.aio_sigevent.sigev_notify) {
		cb.aio_sigevent.sigev_notify = SIGEV_NONE;
		aio_read(&cb);
	}
	aio_suspend(list, 1, NULL);
}

/*
 * The name of each, and the call. The last seven cannot bear to be cancelled
 * asynchronously.
 */
#define CANCEL_POINTS										\
	POINT(pause, pause())									\
	POINT(sleep, sleep(3600))								\
	POINT(usleep, usleep(999999999))							\
	POINT(nanosleep, nanosleep(&hour, NULL))						\
	POINT(clock_nanosleep, sleep_until(&never.boot))					\
	POINT(sigsuspend, sigsuspend(&never.none))						\
	POINT(sigwait, sigwait(&never.rt, &sig))						\
	POINT(sigwaitinfo, sigwaitinfo(&never.rt, NULL))					\
	POINT(sigtimedwait, sigtimedwait(&never.rt, NULL, &hour))				\
	POINT(wait, wait(NULL))									\
	POINT(waitpid, waitpid(never.kid, NULL, 0))						\
	POINT(waitid, waitid(P_PID, never.kid, &info, WEXITED))					\
	POINT(wait4, wait4(never.kid, NULL, 0, NULL))						\
	POINT(poll, poll(poll_set(never.pipe[0]), 1, -1))					\
	POINT(ppoll, ppoll(poll_set(never.sock[0]), 1, &hour, &never.none))			\
	POINT(select, select_one(never.pipe[0]))						\
	POINT(pselect, pselect_one(never.sock[0]))						\
	POINT(epoll_wait, epoll_wait(never.epoll, &event, 1, -1))				\
	POINT(epoll_pwait, epoll_pwait(never.epoll, &event, 1, 3600 * 1000, &never.none))	\
	POINT(read, io = read(never.pipe[0], buf, 8))						\
	POINT(read_eventfd, io = read(never.event, buf, 8))					\
	POINT(read_timerfd, io = read(never.timer, buf, 8))					\
	POINT(recv, io = recv(never.sock[0], buf, 8, 0))					\
	POINT(recvfrom, io = recvfrom(never.udp, buf, 8, 0, NULL, NULL))			\
	POINT(recvmsg, io = recvmsg(never.sock[0], &msg, 0))					\
	POINT(accept, accept(never.listener, NULL, NULL))					\
	POINT(accept4, accept4(never.listener, NULL, NULL, SOCK_CLOEXEC))			\
	POINT(sem_wait, sem_wait(&never.sem))							\
	POINT(sem_timedwait, sem_timedwait(&never.sem, &never.real))				\
	POINT(pthread_cond_wait, gate_wait(false))						\
	POINT(pthread_cond_timedwait, gate_wait(true))						\
	POINT(pthread_join, pthread_join(never.sleeper, NULL))					\
	POINT(pthread_timedjoin_np, join_until(&never.real))					\
	POINT(aio_suspend, wait_for_aio())

#define POINT(name, call)	static void cancel_##name(void) { call; }
CANCEL_POINTS
#undef POINT

#define POINT(name, call)	{ #name, cancel_##name },
static const struct cancel_point {
	const char *name;
	void (*fn)(void);
} cancel_points[] = {
	CANCEL_POINTS
};
#undef POINT

#define NR_POINTS	((int)ARRAY_SIZE(cancel_points))

static void *sleeper_main(void *arg)
{
	sem_wait(arg);
	return NULL;
}

static bool never_init(sem_t *sleeper_sem)
{
	struct itimerspec its = { .it_value = { 3600, 0 } };
	struct epoll_event ev = { .events = EPOLLIN };
	struct sockaddr_in sin = { .sin_family = AF_INET };

	never.real = late(CLOCK_REALTIME);
	never.boot = late(CLOCK_BOOTTIME);
	sigemptyset(&never.none);
	sigemptyset(&never.rt);
	sigaddset(&never.rt, SIGRTMIN + 5);
	pthread_sigmask(SIG_BLOCK, &never.rt, NULL);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	never.udp = socket(AF_INET, SOCK_DGRAM, 0);
	if (never.udp < 0 || bind(never.udp, (void *)&sin, sizeof(sin)))
		return false;
	never.listener = sm_tcp_listen(&sin);
	never.event = eventfd(0, 0);
	never.timer = timerfd_create(CLOCK_MONOTONIC, 0);
	never.epoll = epoll_create1(0);
	if (pipe(never.pipe) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, never.sock) ||
	    never.listener < 0 || never.event < 0 || never.timer < 0 ||
	    never.epoll < 0)
		return false;
	timerfd_settime(never.timer, 0, &its, NULL);
	epoll_ctl(never.epoll, EPOLL_CTL_ADD, never.pipe[0], &ev);
	sem_init(&never.sem, 0, 0);
	gate_init(&never.gate, CLOCK_REALTIME);
	sem_init(sleeper_sem, 0, 0);
	if (sm_thread(&never.sleeper, sleeper_main, sleeper_sem))
		return false;
	never.kid = sm_fork();
	if (!never.kid) {
		sm_disable();
		for (;;)
			pause();
	}
	return never.kid > 0 && sm_wait_until(sm_task_state(never.kid, never.kid) == 'S');
}

static void never_end(sem_t *sleeper_sem)
{
	sem_post(sleeper_sem);
	pthread_join(never.sleeper, NULL);
	kill(never.kid, SIGKILL);
	waitpid(never.kid, NULL, 0);
}

/* A thread that is to be cancelled. */
struct victim {
	struct sm_waiter w;
	const struct cancel_point *point;
	int mode;
	int steps[4], nr_steps;
};

enum { DEFERRED, ASYNC, PENDING, NR_MODES };

static pthread_key_t victim_key;

static void victim_step(struct victim *v, int step)
{
	if (v->nr_steps < 4)
		v->steps[v->nr_steps++] = step;
}

static void victim_outer(void *arg)
{
	victim_step(arg, 2);
}

static void victim_inner(void *arg)
{
	/* A handler may wait itself, and is not cancelled again. */
	sm_sleep_ns(10000);
	victim_step(arg, 1);
}

static void victim_destructor(void *arg)
{
	victim_step(arg, 3);
}

static void *victim_main(void *arg)
{
	struct victim *v = arg;
	int old;

	pthread_setspecific(victim_key, v);
	sm_store(&v->w.tid, sm_gettid());
	pthread_cleanup_push(victim_outer, v);
	pthread_cleanup_push(victim_inner, v);
	if (v->mode == ASYNC)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	if (v->mode == PENDING) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		sm_store(&v->w.entered, 1);
		while (sm_load(&v->w.entered) == 1)
			sched_yield();
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
	}
	sm_store(&v->w.entered, 1);
	for (;;)
		v->point->fn();
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

/*
 * In each call that is a cancellation point, deferred and asynchronous, and if
 * it was asked for before. Handlers run, then destructors.
 */
TEST_F_TIMEOUT(glibc, cancel, 60)
{
	sem_t sleeper_sem;
	struct victim v;
	void *ret;
	int i, mode;

	ASSERT_TRUE(never_init(&sleeper_sem));
	ASSERT_EQ(0, pthread_key_create(&victim_key, victim_destructor));
	for (i = 0; i < NR_POINTS; i++) {
		for (mode = 0; mode < NR_MODES; mode++) {
			memset(&v, 0, sizeof(v));
			v.point = &cancel_points[i];
			v.mode = mode;
			/* Waits on mutexes and lists cannot bear that. */
			if (mode == ASYNC && i >= NR_POINTS - 7)
				continue;
			sm_rebase(&self->env);
			ASSERT_EQ(0, sm_thread(&v.w.thread, victim_main, &v));
			if (mode == PENDING) {
				ASSERT_TRUE(sm_wait_until(sm_load(&v.w.entered)));
				ASSERT_EQ(0, pthread_cancel(v.w.thread));
				sm_store(&v.w.entered, 2);
			} else {
				ASSERT_TRUE(sm_wait_parked(&self->env, 1)) {
					TH_LOG("%s", v.point->name);
				}
				ASSERT_TRUE(sm_sleeps(&v.w));
				ASSERT_EQ(0, pthread_cancel(v.w.thread));
			}
			ASSERT_TRUE(sm_wait_until(pthread_tryjoin_np(v.w.thread, &ret) != EBUSY)) {
				TH_LOG("%s is not cancelled", v.point->name);
			}
			EXPECT_EQ(PTHREAD_CANCELED, ret);
			EXPECT_EQ(3, v.nr_steps) {
				TH_LOG("%s, mode %d", v.point->name, mode);
			}
			EXPECT_EQ(1, v.steps[0]);
			EXPECT_EQ(2, v.steps[1]);
			EXPECT_EQ(3, v.steps[2]);
		}
	}
	EXPECT_EQ(0, never.gate.waiting);
	EXPECT_EQ(0, pthread_mutex_trylock(&never.gate.mutex));
	never_end(&sleeper_sem);
}

/* Locks are no cancellation points: they are taken, the end comes later. */
struct lock_then_test {
	pthread_mutex_t mutex;
	int step;
};

static long lock_then_test(void *arg, long how)
{
	struct lock_then_test *l = arg;

	pthread_mutex_lock(&l->mutex);
	l->step = 1;
	pthread_mutex_unlock(&l->mutex);
	pthread_testcancel();
	l->step = 2;
	return 0;
}

TEST_F(glibc, cancel_not_in_lock)
{
	struct sm_waiter *w = self->w;
	struct lock_then_test l;
	void *ret;
	int kind;

	for (kind = 0; kind < ARRAY_SIZE(mutex_kinds); kind++) {
		l.step = 0;
		mutex_init(&l.mutex, &mutex_kinds[kind], false);
		pthread_mutex_lock(&l.mutex);
		sm_rebase(&self->env);
		ASSERT_EQ(0, fn_run(w, lock_then_test, &l, 0));
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		ASSERT_TRUE(sm_sleeps(w));
		ASSERT_EQ(0, pthread_cancel(w->thread));
		sm_settle();
		EXPECT_EQ(EBUSY, pthread_tryjoin_np(w->thread, NULL));
		pthread_mutex_unlock(&l.mutex);
		ASSERT_EQ(0, pthread_join(w->thread, &ret));
		EXPECT_EQ(PTHREAD_CANCELED, ret);
		EXPECT_EQ(1, l.step) {
			TH_LOG("%s", mutex_kinds[kind].name);
		}
	}
}

/* A cancellation and the end of the wait at the same time: nothing is lost. */
static int sem_taken;

static void *take_main(void *arg)
{
	sem_wait(arg);
	__atomic_add_fetch(&sem_taken, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST_F_TIMEOUT(glibc, cancel_race, 60)
{
	long i, k, cancelled = 0, posted = 0, rounds = sm_rounds(400);
	uint64_t seed = 14142;
	pthread_t t[4];
	void *ret;
	sem_t s;
	int val;

	sem_init(&s, 0, 0);
	sem_taken = 0;
	for (i = 0; i < rounds; i++) {
		SM_THREADS(t, 4, take_main, &s);
		sm_sleep_ns(sm_rnd(&seed) % 200000);
		for (k = 0; k < 4; k++) {
			sem_post(&s);
			posted++;
			pthread_cancel(t[(k + i) % 4]);
		}
		for (k = 0; k < 4; k++) {
			ASSERT_EQ(0, pthread_join(t[k], &ret));
			cancelled += ret == PTHREAD_CANCELED;
		}
	}
	EXPECT_EQ(0, sem_getvalue(&s, &val));
	EXPECT_EQ(posted, sem_taken + val);
	EXPECT_EQ(posted, sem_taken + cancelled);
	SM_EXPECT_PARKS(&self->env, 20);
}

/* -------------------------------------------- joins, destructors, processes */

static long short_nap(void *arg, long how)
{
	sem_wait(arg);
	return 0;
}

static long join_it(void *arg, long how)
{
	struct timespec ts = late(CLOCK_MONOTONIC);
	pthread_t t = (pthread_t)arg;

	if (how)
		return pthread_clockjoin_np(t, NULL, CLOCK_MONOTONIC, &ts);
	return pthread_join(t, NULL);
}

TEST_F(glibc, join)
{
	struct timespec ts;
	pthread_t t;
	sem_t s;
	int how;

	sem_init(&s, 0, 0);
	for (how = 0; how < 2; how++) {
		sm_rebase(&self->env);
		ASSERT_EQ(0, fn_run(&self->w[0], short_nap, &s, 0));
		ASSERT_TRUE(sm_asleep(&self->env, self->w, 1));
		t = self->w[0].thread;
		EXPECT_EQ(EBUSY, pthread_tryjoin_np(t, NULL));
		EXPECT_ENDS(ts, CLOCK_REALTIME, pthread_timedjoin_np(t, NULL, &ts));
		EXPECT_ENDS(ts, CLOCK_MONOTONIC,
			    pthread_clockjoin_np(t, NULL, CLOCK_MONOTONIC, &ts));
		ASSERT_EQ(0, fn_run(&self->w[1], join_it, (void *)t, how));
		ASSERT_TRUE(sm_asleep(&self->env, self->w, 2));
		sem_post(&s);
		SM_JOIN(&self->w[1], 0);
	}
}

/* Destructors run in threads that waited, and may wait as well. */
static pthread_key_t key_a, key_b;
static int destroyed;
static __thread long thread_local_value = 7;

static void destroy_b(void *arg)
{
	sm_sleep_ns(2000000);
	sm_add(&destroyed, 100);
}

static void destroy_a(void *arg)
{
	sem_wait(arg);
	sm_add(&destroyed, 1);
	/* Once more round */
	pthread_setspecific(key_b, arg);
}

static long with_locals(void *arg, long how)
{
	char local[512];
	long i;

	thread_local_value += how;
	memset(local, (int)how, sizeof(local));
	pthread_setspecific(key_a, arg);
	for (i = 0; i < 5; i++) {
		if (sem_wait(arg))
			return -1;
		if (thread_local_value != 7 + how || local[0] != (char)how ||
		    local[511] != (char)how)
			return -2;
	}
	return 0;
}

TEST_F(glibc, destructors)
{
	sem_t s;
	int i;

	destroyed = 0;
	pthread_key_create(&key_a, destroy_a);
	pthread_key_create(&key_b, destroy_b);
	sem_init(&s, 0, 0);
	FN_START(i, NT, with_locals, &s, i);
	for (i = 0; i < 6 * NT; i++)
		sem_post(&s);
	SM_JOIN_ALL(self->w, NT, 0);
	EXPECT_EQ(101 * NT, destroyed);
	pthread_key_delete(key_a);
	pthread_key_delete(key_b);
}

/* The C11 interfaces */
static mtx_t mtx;
static cnd_t cnd;
static int cnd_go;

static long c11_wait(void *arg, long how)
{
	struct timespec ts = late(CLOCK_REALTIME);
	int ret = thrd_success;

	mtx_lock(&mtx);
	while (!cnd_go && ret == thrd_success)
		ret = how ? cnd_timedwait(&cnd, &mtx, &ts) : cnd_wait(&cnd, &mtx);
	mtx_unlock(&mtx);
	return ret;
}

TEST_F(glibc, c11)
{
	struct timespec ts;
	int64_t start;
	int i;

	mtx_init(&mtx, mtx_timed);
	cnd_init(&cnd);
	cnd_go = 0;
	FN_START(i, NT, c11_wait, NULL, i % 2);
	mtx_lock(&mtx);
	ts = soon(CLOCK_REALTIME);
	EXPECT_EQ(thrd_timedout, cnd_timedwait(&cnd, &mtx, &ts));
	cnd_go = 1;
	cnd_broadcast(&cnd);
	mtx_unlock(&mtx);
	SM_JOIN_ALL(self->w, NT, thrd_success);
	ts = sm_ts(20 * SM_MSEC);
	start = sm_now_ns();
	EXPECT_EQ(0, thrd_sleep(&ts, NULL));
	EXPECT_GE(sm_now_ns() - start, 20 * SM_MSEC);
}

/* Those who come too early wait for the first one. */
static pthread_once_t once;
static sem_t once_sem;
static int once_ran;

static void once_fn(void)
{
	sem_wait(&once_sem);
	once_ran++;
}

static long call_once_fn(void *arg, long how)
{
	pthread_once(&once, once_fn);
	return once_ran;
}

TEST_F(glibc, once)
{
	int i;

	once = (pthread_once_t)PTHREAD_ONCE_INIT;
	once_ran = 0;
	sem_init(&once_sem, 0, 0);
	FN_START(i, NT, call_once_fn, NULL, 0);
	sem_post(&once_sem);
	SM_JOIN_ALL(self->w, NT, 1);
}

static uid_t euid_of(pid_t tid)
{
	char buf[4096], *uid = sm_task_status(getpid(), tid, "Uid", buf, sizeof(buf));
	int real, eff = -1;

	if (uid)
		sscanf(uid, "%d %d", &real, &eff);
	return eff;
}

/* The library interrupts all threads to change their user; they wait on. */
TEST_F(glibc, setxid)
{
	struct gate g;
	sem_t s;
	int i, n;

	if (geteuid())
		SKIP(return, "not root");
	gate_init(&g, CLOCK_MONOTONIC);
	sem_init(&s, 0, 0);
	FN_START(i, NT, i % 2 ? gate_pass : short_nap, i % 2 ? (void *)&g : &s, i % 3);
	for (n = 0; n < 4; n++) {
		ASSERT_EQ(0, seteuid(n % 2 ? 0 : 65534));
		for (i = 0; i < NT; i++)
			EXPECT_EQ(n % 2 ? 0 : 65534, euid_of(self->w[i].tid));
		EXPECT_EQ(0, sm_nr_done(self->w, NT));
	}
	ASSERT_TRUE(sm_asleep(&self->env, self->w, NT));
	gate_open(&g, NT / 2);
	for (i = 0; i < NT / 2; i++)
		sem_post(&s);
	SM_JOIN_ALL(self->w, NT, 0);
}

/* Timers whose signals a thread of the library waits for, again each time */
static int timer_ran;

static void timer_fn(union sigval val)
{
	sm_add(&timer_ran, val.sival_int);
}

TEST_F(glibc, timer_thread)
{
	struct sigevent ev = {
		.sigev_notify = SIGEV_THREAD,
		.sigev_notify_function = timer_fn,
		.sigev_value.sival_int = 1,
	};
	struct itimerspec its = { .it_value = sm_ts(5 * SM_MSEC) };
	timer_t t;
	int i;

	timer_ran = 0;
	sm_rebase(&self->env);
	ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &ev, &t));
	for (i = 0; i < 10; i++) {
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		ASSERT_EQ(0, timer_settime(t, 0, &its, NULL));
		ASSERT_TRUE(sm_wait_until(sm_load(&timer_ran) == i + 1));
	}
	/* Those that are due while it does something else are not lost. */
	its.it_interval = its.it_value;
	ASSERT_EQ(0, timer_settime(t, 0, &its, NULL));
	EXPECT_TRUE(sm_wait_until(sm_load(&timer_ran) >= 20));
	EXPECT_EQ(0, timer_delete(t));
	SM_EXPECT_PARKS(&self->env, 10);
}

/* Processes are started and end while threads wait. */
static void forked(struct sm_env *env, sem_t *s, int how)
{
	struct sm_waiter w[4];
	int i;

	for (i = 0; i < 4; i++)
		if (fn_run(&w[i], short_nap, s, 0))
			_exit(1);
	for (i = 0; i < 4; i++)
		if (!sm_sleeps(&w[i]))
			_exit(2);
	if (how == 0)
		exit(33);
	if (how == 1) {
		/* The last thread's end is the process's. */
		for (i = 0; i < 4; i++)
			sem_post(s);
		pthread_exit(NULL);
	}
	abort();
}

TEST_F(glibc, processes)
{
	char *const argv[] = { "sh", "-c", "exit 12", NULL };
	struct rlimit none = { 0, 0 };
	int i, how;
	sem_t s;
	pid_t pid;

	setrlimit(RLIMIT_CORE, &none);
	sem_init(&s, 0, 0);
	FN_START(i, NT, short_nap, &s, 0);

	for (how = 0; how < 3; how++) {
		pid = SM_FORK();
		if (!pid)
			forked(&self->env, &s, how);
		SM_EXPECT_STATUS(how == 0 ? 33 << 8 : how == 1 ? 0 : SIGABRT, pid);
	}
	EXPECT_EQ(12 << 8, system("exit 12"));
	ASSERT_EQ(0, posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
	SM_EXPECT_STATUS(12 << 8, pid);

	EXPECT_EQ(0, sm_nr_done(self->w, NT));
	for (i = 0; i < NT; i++)
		sem_post(&s);
	SM_JOIN_ALL(self->w, NT, 0);
}

SM_MAIN(sm_rounds_factor());
