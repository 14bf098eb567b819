// SPDX-License-Identifier: GPL-2.0
/*
 * libstackmux: the same results in a process that parks, in one that does not, and
 * on a kernel without stackmux.
 */
#include "scenario.h"
#include <pty.h>
#include <stackmux.h>

#define NW	4

FIXTURE(libstackmux) {
	struct sm_env env;
};

SM_FIXTURE(libstackmux);

/* A deadline that is over, and one that is not reached */
static struct timespec past = { 0, 1 };

static struct timespec after(int64_t ns)
{
	return sm_ts(sm_now_ns() + ns);
}

/* @call gives @ret, at the deadline @soon, which is set to one. */
#define EXPECT_AT_DEADLINE(ret, soon, call)				\
do {									\
	int64_t __end = sm_now_ns() + 50 * SM_MSEC;			\
									\
	(soon) = sm_ts(__end);						\
	EXPECT_EQ(ret, call);						\
	EXPECT_LE(__end, sm_now_ns());					\
	EXPECT_GE(__end + sm_late_ns(), sm_now_ns());			\
} while (0)

/* A call of the library, made by a thread of its own */
struct job {
	pthread_t thread;
	pid_t tid;
	int (*fn)(struct job *job);
	struct timespec *deadline;
	uint32_t *futex;
	struct stackmux_event *event;
	int fd;
	struct epoll_event ev;
	int ret, errnum, done;
};

static void *do_job(void *arg)
{
	struct job *job = arg;

	sm_store(&job->tid, sm_gettid());
	errno = 4711;
	job->ret = job->fn(job);
	job->errnum = errno;
	sm_store(&job->done, 1);
	return NULL;
}

static int job_start(struct job *job)
{
	job->tid = 0;
	job->done = 0;
	return sm_thread(&job->thread, do_job, job);
}

static bool job_asleep(struct job *job)
{
	return sm_wait_until(sm_load(&job->tid) && sm_task_state(getpid(), job->tid) == 'S');
}

/* ... and parks, where that is the point. */
static bool job_parks(struct sm_env *env, struct job *job)
{
	sm_rebase(env);
	return !job_start(job) && job_asleep(job) && sm_wait_parked(env, 1);
}

/* Ends with @ret, and leaves errno alone */
#define EXPECT_JOB(want, job)						\
do {									\
	ASSERT_TRUE(sm_wait_until(sm_load(&(job)->done)));		\
	pthread_join((job)->thread, NULL);				\
	EXPECT_EQ(want, (job)->ret);					\
	EXPECT_EQ(4711, (job)->errnum);					\
} while (0)

static int futex_job(struct job *job)
{
	return stackmux_futex_wait(job->futex, 0, job->deadline, 0);
}

static int event_job(struct job *job)
{
	return stackmux_event_wait(job->event, job->deadline);
}

static int fd_job(struct job *job)
{
	return stackmux_fd_wait(job->fd, POLLIN, job->deadline);
}

static int epoll_job(struct job *job)
{
	return stackmux_epoll_wait(job->fd, &job->ev, 1, job->deadline);
}

TEST_F(libstackmux, opt_in)
{
	struct stackmux_stats st = { };
	int active = self->env.mode == 2 ? PR_STACKMUX_ACTIVE : 0;
	struct timespec soon;
	uint32_t futex = 0;

	errno = 4711;
	if (!self->env.present) {
		EXPECT_EQ(-EINVAL, stackmux_enable(0));
		EXPECT_EQ(-EINVAL, stackmux_disable());
		EXPECT_EQ(-EINVAL, stackmux_get());
		EXPECT_EQ(-EINVAL, stackmux_optout_thread(true));
		EXPECT_EQ(-EINVAL, stackmux_get_stats(&st));
		EXPECT_EQ(4711, errno);
		return;
	}
	EXPECT_EQ(-EINVAL, stackmux_enable(1UL << 31));
	EXPECT_EQ(0, stackmux_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(PR_STACKMUX_ENABLED | PR_STACKMUX_EXEC | PR_STACKMUX_ACTIVE,
		  stackmux_get());
	EXPECT_EQ(0, stackmux_optout_thread(true));
	EXPECT_EQ(PR_STACKMUX_ENABLED | PR_STACKMUX_EXEC | PR_STACKMUX_ACTIVE |
		  PR_STACKMUX_OPTED_OUT, stackmux_get());
	EXPECT_EQ(0, stackmux_optout_thread(false));
	EXPECT_EQ(0, stackmux_get_stats(&st));
	EXPECT_EQ(1, st.threads);
	EXPECT_EQ(-EFAULT, stackmux_get_stats(NULL));
	EXPECT_EQ(0, stackmux_disable());
	EXPECT_EQ(active, stackmux_get());

	/* All else works while parking is switched off. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	errno = 4711;
	EXPECT_EQ(-EOPNOTSUPP, stackmux_enable(0));
	EXPECT_AT_DEADLINE(-ETIMEDOUT, soon, stackmux_futex_wait(&futex, 0, &soon, 0));
	EXPECT_EQ(4711, errno);
	sm_knobs_restore();
}

TEST_F(libstackmux, futex)
{
	struct timespec bad = { 0, -1 }, soon;
	struct job job = { .fn = futex_job };
	uint32_t f = 0, one = 1;

	job.futex = &f;
	/* What has changed already needs no wait, whatever the deadline. */
	EXPECT_EQ(0, stackmux_futex_wait(&one, 0, NULL, 0));
	EXPECT_EQ(0, stackmux_futex_wait(&one, 0, &past, 0));
	EXPECT_EQ(-ETIMEDOUT, stackmux_futex_wait(&f, 0, &past, 0));
	EXPECT_EQ(-EINVAL, stackmux_futex_wait(&f, 0, &bad, 0));
	EXPECT_EQ(-EINVAL, stackmux_futex_wait(&f, 0, NULL, 2));
	EXPECT_EQ(-EINVAL, stackmux_futex_wake(&f, 1, 2));
	EXPECT_EQ(0, stackmux_futex_wake(&f, 1, 0));

	EXPECT_AT_DEADLINE(-ETIMEDOUT, soon, stackmux_futex_wait(&f, 0, &soon, 0));

	/* Neither a wake-up for nothing nor a signal ends it. */
	sm_handle(SIGUSR1, 0);
	sm_rebase(&self->env);
	ASSERT_EQ(0, job_start(&job));
	ASSERT_TRUE(sm_wait_queued(&f, SM_PRIVATE, 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_EQ(1, stackmux_futex_wake(&f, 1, 0));
	ASSERT_TRUE(sm_wait_queued(&f, SM_PRIVATE, 1));
	EXPECT_EQ(0, sm_tgkill(getpid(), job.tid, SIGUSR1));
	ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
	ASSERT_TRUE(sm_wait_queued(&f, SM_PRIVATE, 1));
	EXPECT_EQ(0, sm_load(&job.done));
	sm_store(&f, 1);
	EXPECT_EQ(1, stackmux_futex_wake(&f, 1, 0));
	EXPECT_JOB(0, &job);
}

/* A child waits for @f to change; it is changed and woken from here. */
static void futex_shared(struct __test_metadata *_metadata, struct sm_env *env, uint32_t *f)
{
	pid_t pid = SM_FORK();

	if (!pid)
		_exit(stackmux_futex_wait(f, 0, NULL, STACKMUX_SHARED) != 0);
	ASSERT_TRUE(sm_wait_queued(f, SM_SHARED, 1));
	ASSERT_TRUE(sm_wait_parked(env, 1));
	/* Who says it is private does not find it. */
	EXPECT_EQ(0, stackmux_futex_wake(f, 1, 0));
	sm_store(f, 1);
	EXPECT_EQ(1, stackmux_futex_wake(f, 1, STACKMUX_SHARED));
	SM_EXPECT_STATUS(0, pid);
}

TEST_F(libstackmux, futex_shared)
{
	futex_shared(_metadata, &self->env, sm_shared_alloc(4096));
	SM_EXPECT_PARKS(&self->env, 1);
}

/* The child of a thread that has a range waits in the library, too. */
TEST_F(libstackmux, fork)
{
	uint32_t *f = sm_shared_alloc(4096);
	struct timespec soon;

	EXPECT_AT_DEADLINE(-ETIMEDOUT, soon, stackmux_futex_wait(f, 0, &soon, STACKMUX_SHARED));
	futex_shared(_metadata, &self->env, f);
	SM_EXPECT_PARKS(&self->env, 1);
}

TEST_F(libstackmux, event)
{
	struct stackmux_event event = STACKMUX_EVENT_INIT;
	struct timespec soon;
	struct job job[NW];
	int i;

	EXPECT_FALSE(stackmux_event_is_set(&event));
	EXPECT_EQ(-ETIMEDOUT, stackmux_event_wait(&event, &past));
	stackmux_event_set(&event);
	EXPECT_TRUE(stackmux_event_is_set(&event));
	EXPECT_EQ(0, stackmux_event_wait(&event, &past));
	EXPECT_EQ(0, stackmux_event_wait(&event, NULL));
	stackmux_event_set(&event);
	stackmux_event_reset(&event);
	EXPECT_FALSE(stackmux_event_is_set(&event));
	stackmux_event_reset(&event);
	EXPECT_AT_DEADLINE(-ETIMEDOUT, soon, stackmux_event_wait(&event, &soon));

	/* All that wait, and it stays set. */
	sm_rebase(&self->env);
	for (i = 0; i < NW; i++) {
		job[i] = (struct job){ .fn = event_job, .event = &event };
		ASSERT_EQ(0, job_start(&job[i]));
	}
	ASSERT_TRUE(sm_wait_queued(&event.state, SM_PRIVATE, NW));
	ASSERT_TRUE(sm_wait_parked(&self->env, NW));
	EXPECT_FALSE(stackmux_event_is_set(&event));
	/* A reset of what is not set changes nothing for those who wait. */
	stackmux_event_reset(&event);
	stackmux_event_set(&event);
	for (i = 0; i < NW; i++)
		EXPECT_JOB(0, &job[i]);
	EXPECT_TRUE(stackmux_event_is_set(&event));
}

TEST_F(libstackmux, event_shared)
{
	struct stackmux_event *event = sm_shared_alloc(4096);
	pid_t pid;

	stackmux_event_init(event, STACKMUX_SHARED);
	pid = SM_FORK();
	if (!pid)
		_exit(stackmux_event_wait(event, NULL) != 0);
	ASSERT_TRUE(sm_wait_queued(&event->state, SM_SHARED, 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	stackmux_event_set(event);
	SM_EXPECT_STATUS(0, pid);
	SM_EXPECT_PARKS(&self->env, 1);
}

/* Descriptors: ready, not before the deadline, and woken meanwhile */
TEST_F(libstackmux, descriptors)
{
	struct timespec soon;
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 4712 };
	struct pollfd pfd[2];
	struct job job;
	int p[2], ep, i;
	char c;

	ASSERT_EQ(0, pipe(p));
	ep = epoll_create1(0);
	ASSERT_LE(0, ep);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	pfd[0] = (struct pollfd){ .fd = p[0], .events = POLLIN };
	pfd[1] = (struct pollfd){ .fd = p[1], .events = POLLOUT };

	/* Nothing there: at once, or at the deadline */
	EXPECT_EQ(0, stackmux_poll(pfd, 1, &past));
	EXPECT_EQ(0, stackmux_fd_wait(p[0], POLLIN, &past));
	EXPECT_EQ(0, stackmux_epoll_wait(ep, &ev, 1, &past));
	EXPECT_AT_DEADLINE(0, soon, stackmux_poll(pfd, 1, &soon));
	EXPECT_AT_DEADLINE(0, soon, stackmux_fd_wait(p[0], POLLIN, &soon));
	EXPECT_AT_DEADLINE(0, soon, stackmux_epoll_wait(ep, &ev, 1, &soon));
	EXPECT_EQ(1, stackmux_poll(pfd, 2, NULL));
	EXPECT_EQ(0, pfd[0].revents);
	EXPECT_EQ(POLLOUT, pfd[1].revents);
	EXPECT_EQ(POLLOUT, stackmux_fd_wait(p[1], POLLOUT, NULL));

	/* Woken, or interrupted */
	sm_handle(SIGUSR1, SA_RESTART);
	for (i = 0; i < 4; i++) {
		soon = after(1000 * SM_SEC);
		job = (struct job){ .fn = i & 1 ? epoll_job : fd_job,
				    .fd = i & 1 ? ep : p[0], .deadline = &soon };
		ASSERT_TRUE(job_parks(&self->env, &job));
		if (i < 2) {
			ASSERT_EQ(1, write(p[1], "x", 1));
			EXPECT_JOB(i & 1 ? 1 : POLLIN, &job);
			if (i & 1)
				EXPECT_EQ(4712, job.ev.data.u64);
			ASSERT_EQ(1, read(p[0], &c, 1));
		} else {
			EXPECT_EQ(0, sm_tgkill(getpid(), job.tid, SIGUSR1));
			EXPECT_JOB(-EINTR, &job);
		}
	}

	/* The other end goes away; then so does this one. */
	close(p[1]);
	EXPECT_EQ(POLLHUP, stackmux_fd_wait(p[0], POLLIN, NULL));
	close(p[0]);
	EXPECT_EQ(-EBADF, stackmux_fd_wait(p[0], POLLIN, NULL));
	close(ep);
	EXPECT_EQ(-EBADF, stackmux_epoll_wait(ep, &ev, 1, NULL));
}

static int read_job(struct job *job)
{
	char buf[16];

	return stackmux_read(job->fd, buf, sizeof(buf), job->deadline);
}

/* Of files that can say that they would wait, and of one that cannot */
TEST_F(libstackmux, read)
{
	struct timespec soon;
	struct sm_stats before, after_wait;
	struct sm_chan ch;
	struct job job;
	int master, tty, i;
	char buf[16];

	for (i = 0; i < 2 * SM_NR_KINDS; i++) {
		ASSERT_EQ(0, sm_chan_open(&ch, i / 2));
		sm_nonblock(ch.rd, i % 2);
		EXPECT_EQ(-ETIMEDOUT, stackmux_read(ch.rd, buf, sizeof(buf), &past));
		ASSERT_TRUE(sm_chan_send(&ch));
		EXPECT_EQ(8, stackmux_read(ch.rd, buf, sizeof(buf), &past));
		EXPECT_AT_DEADLINE(-ETIMEDOUT, soon,
				   stackmux_read(ch.rd, buf, sizeof(buf), &soon));

		job = (struct job){ .fn = read_job, .fd = ch.rd };
		ASSERT_TRUE(job_parks(&self->env, &job));
		sm_stats_read(&before);
		ASSERT_TRUE(sm_chan_send(&ch));
		EXPECT_JOB(8, &job);
		/* It has not been asked by the kernel whether there is something. */
		if (self->env.parked) {
			sm_stats_read(&after_wait);
			EXPECT_EQ(before.retries + 1, after_wait.retries);
		}
		sm_chan_close(&ch);
	}
	EXPECT_EQ(-EBADF, stackmux_read(-1, buf, sizeof(buf), NULL));

	/* A terminal; the end of a pipe that is closed; a signal */
	ASSERT_EQ(0, openpty(&master, &tty, NULL, NULL, NULL));
	job = (struct job){ .fn = read_job, .fd = tty };
	ASSERT_TRUE(job_parks(&self->env, &job));
	ASSERT_EQ(3, write(master, "ab\n", 3));
	EXPECT_JOB(3, &job);

	ASSERT_EQ(0, sm_chan_open(&ch, SM_PIPE));
	job = (struct job){ .fn = read_job, .fd = ch.rd };
	ASSERT_TRUE(job_parks(&self->env, &job));
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_EQ(0, sm_tgkill(getpid(), job.tid, SIGUSR1));
	EXPECT_JOB(-EINTR, &job);
	ASSERT_TRUE(job_parks(&self->env, &job));
	close(ch.wr);
	EXPECT_JOB(0, &job);
}

/* Cancelled where it waits; its own handlers run. */
static void note_end(void *arg)
{
	sm_store((int *)arg, 1);
}

static void *cancelled_reader(void *arg)
{
	struct job *job = arg;
	char c;

	pthread_cleanup_push(note_end, &job->done);
	sm_store(&job->tid, sm_gettid());
	stackmux_read(job->fd, &c, 1, job->deadline);
	pthread_cleanup_pop(0);
	return NULL;
}

TEST_F(libstackmux, cancel)
{
	struct timespec late = after(1000 * SM_SEC);
	struct sm_chan ch;
	struct job job;
	void *ret;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, sm_chan_open(&ch, SM_PIPE));
		job = (struct job){ .fd = ch.rd, .deadline = i ? &late : NULL };
		sm_rebase(&self->env);
		ASSERT_EQ(0, sm_thread(&job.thread, cancelled_reader, &job));
		ASSERT_TRUE(job_asleep(&job));
		ASSERT_TRUE(sm_wait_parked(&self->env, 1));
		ASSERT_EQ(0, pthread_cancel(job.thread));
		ASSERT_EQ(0, pthread_join(job.thread, &ret));
		EXPECT_EQ(PTHREAD_CANCELED, ret);
		EXPECT_EQ(1, job.done);
		sm_chan_close(&ch);
	}
}

/* Two threads take turns by two events: each is seen once for each time it is set. */
struct turns {
	struct stackmux_event ping, pong;
	long rounds, seen;
	int bad;
};

static void *ponger(void *arg)
{
	struct turns *t = arg;
	long i;

	for (i = 0; i < t->rounds; i++) {
		if (stackmux_event_wait(&t->ping, NULL))
			t->bad++;
		stackmux_event_reset(&t->ping);
		t->seen++;
		stackmux_event_set(&t->pong);
	}
	return NULL;
}

TEST_F_TIMEOUT(libstackmux, race_event, 90)
{
	struct turns t = { .rounds = sm_rounds(10000) };
	pthread_t thread;
	long i;

	ASSERT_EQ(0, sm_thread(&thread, ponger, &t));
	for (i = 1; i <= t.rounds; i++) {
		stackmux_event_set(&t.ping);
		EXPECT_EQ(0, stackmux_event_wait(&t.pong, NULL));
		stackmux_event_reset(&t.pong);
		ASSERT_EQ(i, t.seen);
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, t.bad);
	SM_EXPECT_PARKS(&self->env, 20);
}

SM_MAIN(sm_rounds_factor());
