// SPDX-License-Identifier: GPL-2.0
/*
 * io_uring_enter() waiting for completions every way that liburing offers, in a
 * process that parks and in one that does not, for rings of each kind of task
 * work.
 */
#include "scenario.h"

#include <liburing.h>
#include <sys/eventfd.h>

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER	(1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN	(1U << 13)
#endif

#define DATA		0x5ca1ab1e

static const unsigned int ring_flags[] = {
	0,
	IORING_SETUP_COOP_TASKRUN,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
};

FIXTURE(uring) {
	struct sm_env env;
	struct io_uring ring;
	int ev;
	uint64_t val;
	pthread_t main, helper;
	pid_t pid, tid;
	int sig;
	long nr;
};

SM_VARIANTS(uring);

FIXTURE_SETUP(uring)
{
	sm_setup(_metadata, &self->env, variant->parked);
	self->main = pthread_self();
	self->pid = getpid();
	self->tid = sm_gettid();
	self->ev = eventfd(0, EFD_CLOEXEC);
	ASSERT_LE(0, self->ev);
}

FIXTURE_TEARDOWN(uring)
{
	close(self->ev);
}

static void prep_read(FIXTURE_DATA(uring) *self)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

	io_uring_prep_read(sqe, self->ev, &self->val, sizeof(self->val), 0);
	sqe->user_data = DATA;
}

static bool enters(pid_t pid, pid_t tid)
{
	char buf[128];

	return sm_task_read(pid, tid, "syscall", buf, sizeof(buf)) > 0 &&
	       atol(buf) == __NR_io_uring_enter;
}

/* The main thread sleeps in io_uring_enter(), parked where that is the point. */
static bool main_asleep(FIXTURE_DATA(uring) *self)
{
	return sm_wait_until(sm_task_state(self->pid, self->tid) == 'S' &&
			     enters(self->pid, self->tid)) &&
	       sm_wait_parked(&self->env, 1);
}

/* Helpers report failure by not doing what they are for: the main thread hangs. */
static void *write_events(void *p)
{
	FIXTURE_DATA(uring) *self = p;
	uint64_t one = 1;
	long i;

	if (!main_asleep(self))
		return p;
	for (i = 0; i < self->nr; i++)
		if (write(self->ev, &one, sizeof(one)) != sizeof(one))
			return p;
	return NULL;
}

static void *send_signal(void *p)
{
	FIXTURE_DATA(uring) *self = p;

	if (!main_asleep(self))
		return p;
	return pthread_kill(self->main, self->sig) ? p : NULL;
}

/* A ring of the next kind. Older kernels lack some kinds; this one must have them. */
static bool ring_next(struct __test_metadata *_metadata, FIXTURE_DATA(uring) *self, size_t i)
{
	struct io_uring_params p = { };

	if (i >= ARRAY_SIZE(ring_flags))
		return false;
	p.flags = ring_flags[i];
	ASSERT_EQ(0, io_uring_queue_init_params(64, &self->ring, &p)) {
		TH_LOG("ring with flags %#x", ring_flags[i]);
	}
	sm_rebase(&self->env);
	return true;
}

#define for_each_ring(i)						\
	for (i = 0; ring_next(_metadata, self, i); io_uring_queue_exit(&self->ring), i++)

#define HELPER_START(fn)						\
do {									\
	sm_rebase(&self->env);						\
	ASSERT_EQ(0, pthread_create(&self->helper, NULL, fn, self));	\
} while (0)

#define HELPER_JOIN()							\
do {									\
	void *__failed;							\
									\
	ASSERT_EQ(0, pthread_join(self->helper, &__failed));		\
	EXPECT_EQ(NULL, __failed);					\
	SM_EXPECT_PARKS(&self->env, 1);					\
} while (0)

TEST_F(uring, submit_and_wait)
{
	struct io_uring_cqe *cqe;
	size_t i;

	self->nr = 1;
	for_each_ring(i) {
		prep_read(self);
		HELPER_START(write_events);
		/* What was submitted counts, not what the wait returned. */
		ASSERT_EQ(1, io_uring_submit_and_wait(&self->ring, 1));
		ASSERT_EQ(0, io_uring_peek_cqe(&self->ring, &cqe));
		EXPECT_EQ(DATA, cqe->user_data);
		EXPECT_EQ(8, cqe->res);
		EXPECT_EQ(1, self->val);
		HELPER_JOIN();
	}
}

TEST_F(uring, wait_cqe)
{
	struct io_uring_cqe *cqe;
	size_t i;

	self->nr = 1;
	for_each_ring(i) {
		prep_read(self);
		ASSERT_EQ(1, io_uring_submit(&self->ring));
		HELPER_START(write_events);
		ASSERT_EQ(0, io_uring_wait_cqe(&self->ring, &cqe));
		EXPECT_EQ(DATA, cqe->user_data);
		io_uring_cqe_seen(&self->ring, cqe);
		HELPER_JOIN();
	}
}

/* Several completions are waited for; fewer do not end the wait. */
TEST_F(uring, wait_several)
{
	struct io_uring_cqe *cqe;
	unsigned int head, k, n;
	size_t i;

	close(self->ev);
	self->ev = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	for_each_ring(i) {
		/* An eventfd of semaphores ends one read with each event. */
		for (k = 0; k < 3; k++)
			prep_read(self);
		self->nr = 3;
		HELPER_START(write_events);
		ASSERT_EQ(3, io_uring_submit_and_wait(&self->ring, 3));
		n = 0;
		io_uring_for_each_cqe(&self->ring, head, cqe) {
			EXPECT_EQ(8, cqe->res);
			n++;
		}
		EXPECT_EQ(3, n);
		io_uring_cq_advance(&self->ring, n);
		HELPER_JOIN();
	}
}

TEST_F(uring, timeout)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	int64_t t0, t;
	size_t i;

	for_each_ring(i) {
		ts.tv_sec = sm_soon_ns() / SM_SEC;
		ts.tv_nsec = sm_soon_ns() % SM_SEC;
		t0 = sm_now_ns();
		EXPECT_EQ(-ETIME, io_uring_wait_cqe_timeout(&self->ring, &cqe, &ts));
		t = sm_now_ns() - t0;
		EXPECT_LE(sm_soon_ns(), t);
		EXPECT_GE(sm_soon_ns() + sm_late_ns(), t);
		SM_EXPECT_PARKS(&self->env, 1);

		/* An event comes before the time is over. */
		ts.tv_sec = 1000;
		self->nr = 1;
		prep_read(self);
		ASSERT_EQ(1, io_uring_submit(&self->ring));
		HELPER_START(write_events);
		EXPECT_EQ(0, io_uring_wait_cqe_timeout(&self->ring, &cqe, &ts));
		io_uring_cqe_seen(&self->ring, cqe);
		HELPER_JOIN();
	}
}

/* A timeout request that expires ends the wait with a completion. */
TEST_F(uring, timeout_request)
{
	struct __kernel_timespec ts = {
		.tv_sec = sm_soon_ns() / SM_SEC,
		.tv_nsec = sm_soon_ns() % SM_SEC,
	};
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	size_t i;

	for_each_ring(i) {
		sqe = io_uring_get_sqe(&self->ring);
		io_uring_prep_timeout(sqe, &ts, 0, 0);
		sqe->user_data = DATA;
		ASSERT_EQ(1, io_uring_submit_and_wait(&self->ring, 10));
		/* Its completion may still be task work. */
		ASSERT_EQ(0, io_uring_wait_cqe(&self->ring, &cqe));
		EXPECT_EQ(DATA, cqe->user_data);
		EXPECT_EQ(-ETIME, cqe->res);
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* A handler ends the wait, with SA_RESTART too. */
TEST_F(uring, interrupted)
{
	struct io_uring_cqe *cqe;
	size_t i;
	int k;

	self->sig = SIGUSR1;
	for_each_ring(i) {
		for (k = 0; k < 2; k++) {
			sm_handle(SIGUSR1, k ? SA_RESTART : 0);
			HELPER_START(send_signal);
			EXPECT_EQ(-EINTR, io_uring_wait_cqe(&self->ring, &cqe));
			HELPER_JOIN();
		}
	}
}

/* The mask of the wait is in force while it waits and gone afterwards. */
TEST_F(uring, sigmask)
{
	struct io_uring_cqe *cqe;
	sigset_t all, none, old;
	size_t i;

	sigfillset(&all);
	sigemptyset(&none);
	sm_handle(SIGUSR1, 0);
	self->sig = SIGUSR1;
	for_each_ring(i) {
		ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &all, NULL));
		HELPER_START(send_signal);
		EXPECT_EQ(-EINTR, io_uring_wait_cqes(&self->ring, &cqe, 1, NULL, &none));
		HELPER_JOIN();
		ASSERT_EQ(0, pthread_sigmask(SIG_SETMASK, &none, &old));
		EXPECT_EQ(1, sigismember(&old, SIGUSR1));
		EXPECT_EQ(1, sigismember(&old, SIGUSR2));
	}
}

/* ------------------------------------------------------------------ races */

struct flood {
	int ev;
	long nr;
	long taken;		/* so many have arrived */
};

#define FLOODERS	3

static void *flood(void *p)
{
	struct flood *f = p;
	uint64_t one = 1;
	long i;

	for (i = 0; i < f->nr; i++) {
		/* Once at least the one that reads has to wait. */
		if (i == f->nr / 2) {
			if (!sm_wait_until(sm_load(&f->taken) >= f->nr / 2 * FLOODERS &&
					   sm_task_state(getpid(), getpid()) == 'S'))
				return p;
			sm_sleep_ms(5);
		}
		if (write(f->ev, &one, sizeof(one)) != sizeof(one))
			return p;
	}
	return NULL;
}

/* Completions against park, with an exact account. */
TEST_F_TIMEOUT(uring, account, 120)
{
	struct flood f = { .ev = self->ev, .nr = sm_rounds(2000) };
	struct io_uring_cqe *cqe;
	pthread_t t[FLOODERS];
	uint64_t sum;
	size_t i;

	for_each_ring(i) {
		f.taken = 0;
		SM_THREADS(t, ARRAY_SIZE(t), flood, &f);
		for (sum = 0; sum < f.nr * ARRAY_SIZE(t);) {
			prep_read(self);
			ASSERT_EQ(1, io_uring_submit(&self->ring));
			ASSERT_EQ(0, io_uring_wait_cqe(&self->ring, &cqe));
			ASSERT_EQ(8, cqe->res);
			sum += self->val;
			io_uring_cqe_seen(&self->ring, cqe);
			sm_store(&f.taken, sum);
		}
		EXPECT_EQ(f.nr * ARRAY_SIZE(t), sum);
		EXPECT_EQ(0, sm_threads_join(t, ARRAY_SIZE(t)));
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

SM_MAIN(sm_rounds_factor());
