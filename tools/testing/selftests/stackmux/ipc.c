// SPDX-License-Identifier: GPL-2.0
/*
 * Message queues of both kinds, semaphores, asynchronous I/O and file locks, in a
 * process that parks and in one that does not.
 *
 * All are waited for in the same scenarios: an event ends the wait of one
 * thread, a signal does, time does, and the end of what is waited for does.
 */
#include "scenario.h"
#include "child.h"
#include <linux/aio_abi.h>
#include <mqueue.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK	37
#define F_OFD_SETLKW	38
#endif

#define NW	5
#define TEXT	"forty-two"

struct message {
	long type;
	char text[32];
};

FIXTURE(ipc) {
	struct sm_env env;
	struct sm_waiter w[NW];
	int id;				/* msg, sem */
	mqd_t mq;
	aio_context_t aio;
	int fd[NW + 1];			/* of one file */
	int holder;			/* index of the one that has the lock */
	struct sembuf sop;
	struct flock flock;
	struct message in[NW];
	struct io_event event[NW];
	struct timespec ts;
};

SM_FIXTURE(ipc);

/* ------------------------------------------------------------------ kinds */

/* One kind of wait. */
struct kind {
	const char *name;
	int (*open)(FIXTURE_DATA(ipc) *self);	/* from now on the call has to wait */
	int (*close)(FIXTURE_DATA(ipc) *self);
	void (*set)(FIXTURE_DATA(ipc) *self, int i);	/* waiter @i */
	int (*event)(FIXTURE_DATA(ipc) *self);	/* one waiter goes on */
	bool (*right)(FIXTURE_DATA(ipc) *self, int i);	/* has it got the right thing? */
	long result;
	int (*remove)(FIXTURE_DATA(ipc) *self);	/* what it waits for is gone */
	long removed;
	int time_arg;			/* where a time-out is among its arguments, or 0 */
	long time_nr;			/* of the call that has one, if it is another */
	bool absolute;			/* the time, which is that of the real-time clock */
	long timed_out;
	bool restarts;			/* after a signal, with SA_RESTART */
	bool inherited;			/* a child can wait for it */
	bool keeps_stack;		/* it does not park */
};

/* System V messages */

static int msg_open(FIXTURE_DATA(ipc) *self)
{
	self->id = msgget(IPC_PRIVATE, 0600);
	return self->id < 0 ? -1 : 0;
}

static int msg_remove(FIXTURE_DATA(ipc) *self)
{
	return msgctl(self->id, IPC_RMID, NULL);
}

static void msg_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_msgrcv, self->id, &self->in[i],
		sizeof(self->in[i].text));
}

static int msg_event(FIXTURE_DATA(ipc) *self)
{
	struct message m = { .type = 7, .text = TEXT };

	return msgsnd(self->id, &m, sizeof(TEXT), 0);
}

static bool msg_right(FIXTURE_DATA(ipc) *self, int i)
{
	return self->in[i].type == 7 && !strcmp(self->in[i].text, TEXT);
}

/* System V semaphores */

static int sem_open_(FIXTURE_DATA(ipc) *self)
{
	self->id = semget(IPC_PRIVATE, 2, 0600);
	self->sop = (struct sembuf) { .sem_op = -1 };
	return self->id < 0 ? -1 : 0;
}

static int sem_remove(FIXTURE_DATA(ipc) *self)
{
	return semctl(self->id, 0, IPC_RMID);
}

static void sem_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_semop, self->id, &self->sop, 1);
}

static int sem_event(FIXTURE_DATA(ipc) *self)
{
	struct sembuf up = { .sem_op = 1 };

	return semop(self->id, &up, 1);
}

static bool sem_right(FIXTURE_DATA(ipc) *self, int i)
{
	return semctl(self->id, 0, GETVAL) == 0;
}

/* POSIX messages */

static int mq_open_(FIXTURE_DATA(ipc) *self)
{
	struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = sizeof(TEXT) };
	char name[32];

	snprintf(name, sizeof(name), "/stackmux-%d", getpid());
	self->mq = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	mq_unlink(name);
	return self->mq < 0 ? -1 : 0;
}

static int mq_close_(FIXTURE_DATA(ipc) *self)
{
	return mq_close(self->mq);
}

static void mq_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_mq_timedreceive, self->mq, self->in[i].text,
		sizeof(TEXT));
}

static int mq_event(FIXTURE_DATA(ipc) *self)
{
	return mq_send(self->mq, TEXT, sizeof(TEXT), 3);
}

static bool mq_right(FIXTURE_DATA(ipc) *self, int i)
{
	return !strcmp(self->in[i].text, TEXT);
}

/* ... and room for them */

static int room_open(FIXTURE_DATA(ipc) *self)
{
	return mq_open_(self) ? -1 : mq_event(self);
}

static void room_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_mq_timedsend, self->mq, TEXT, sizeof(TEXT), 5);
}

static int room_event(FIXTURE_DATA(ipc) *self)
{
	char text[sizeof(TEXT)];

	return mq_receive(self->mq, text, sizeof(text), NULL) == sizeof(TEXT) ? 0 : -1;
}

static bool room_right(FIXTURE_DATA(ipc) *self, int i)
{
	struct mq_attr attr;

	return !mq_getattr(self->mq, &attr) && attr.mq_curmsgs == 1;
}

/* Asynchronous I/O */

static int aio_open(FIXTURE_DATA(ipc) *self)
{
	self->aio = 0;
	self->fd[0] = memfd_create("stackmux", MFD_CLOEXEC);
	if (self->fd[0] < 0 || ftruncate(self->fd[0], 4096))
		return -1;
	return syscall(__NR_io_setup, 64, &self->aio);
}

static int aio_remove(FIXTURE_DATA(ipc) *self)
{
	return syscall(__NR_io_destroy, self->aio);
}

static int aio_close(FIXTURE_DATA(ipc) *self)
{
	close(self->fd[0]);
	return aio_remove(self);
}

static void aio_set(FIXTURE_DATA(ipc) *self, int i)
{
	memset(&self->event[i], 0, sizeof(self->event[i]));
	sm_call(&self->w[i], __NR_io_getevents, self->aio, 1, 1, &self->event[i]);
}

static int aio_event(FIXTURE_DATA(ipc) *self)
{
	static char buf[64];
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = self->fd[0],
		.aio_buf = (unsigned long)buf,
		.aio_nbytes = sizeof(buf),
		.aio_data = 42,
	};
	struct iocb *list = &cb;

	return syscall(__NR_io_submit, self->aio, 1, &list) == 1 ? 0 : -1;
}

static bool aio_right(FIXTURE_DATA(ipc) *self, int i)
{
	return self->event[i].data == 42 && self->event[i].res == 64;
}

/* Locks: the file is open several times, each for one owner. */

static int lock_open(FIXTURE_DATA(ipc) *self)
{
	char path[] = "/tmp/stackmux-lock-XXXXXX";
	int i;

	self->fd[0] = mkstemp(path);
	for (i = 1; i <= NW; i++)
		self->fd[i] = open(path, O_RDWR | O_CLOEXEC);
	unlink(path);
	self->holder = 0;
	self->flock = (struct flock) { .l_type = F_WRLCK };
	return self->fd[NW] < 0 ? -1 : 0;
}

static int lock_close(FIXTURE_DATA(ipc) *self)
{
	int i;

	for (i = 0; i <= NW; i++)
		close(self->fd[i]);
	return 0;
}

static int flock_open(FIXTURE_DATA(ipc) *self)
{
	return lock_open(self) ? -1 : flock(self->fd[0], LOCK_EX);
}

static void flock_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_flock, self->fd[i + 1], LOCK_EX);
}

static int flock_event(FIXTURE_DATA(ipc) *self)
{
	return flock(self->fd[self->holder], LOCK_UN);
}

static bool flock_right(FIXTURE_DATA(ipc) *self, int i)
{
	self->holder = i + 1;
	return flock(self->fd[0], LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
}

static int ofd_open(FIXTURE_DATA(ipc) *self)
{
	return lock_open(self) ? -1 : fcntl(self->fd[0], F_OFD_SETLK, &self->flock);
}

static void ofd_set(FIXTURE_DATA(ipc) *self, int i)
{
	sm_call(&self->w[i], __NR_fcntl, self->fd[i + 1], F_OFD_SETLKW, &self->flock);
}

static int ofd_event(FIXTURE_DATA(ipc) *self)
{
	struct flock un = { .l_type = F_UNLCK };

	return fcntl(self->fd[self->holder], F_OFD_SETLK, &un);
}

static bool ofd_right(FIXTURE_DATA(ipc) *self, int i)
{
	struct flock fl = { .l_type = F_WRLCK };

	self->holder = i + 1;
	return fcntl(self->fd[0], F_OFD_SETLK, &fl) && errno == EAGAIN;
}

static const struct kind kinds[] = {
	{
		.name = "msgrcv", .open = msg_open, .close = msg_remove,
		.set = msg_set, .event = msg_event, .right = msg_right,
		.result = sizeof(TEXT), .remove = msg_remove, .removed = -EIDRM,
		.inherited = true, .keeps_stack = true,
	}, {
		.name = "semop", .open = sem_open_, .close = sem_remove,
		.set = sem_set, .event = sem_event, .right = sem_right,
		.remove = sem_remove, .removed = -EIDRM,
		.time_arg = 3, .time_nr = __NR_semtimedop, .timed_out = -EAGAIN,
		.inherited = true,
	}, {
		.name = "mq_receive", .open = mq_open_, .close = mq_close_,
		.set = mq_set, .event = mq_event, .right = mq_right,
		.result = sizeof(TEXT), .time_arg = 4, .absolute = true,
		.timed_out = -ETIMEDOUT, .restarts = true, .inherited = true,
	}, {
		.name = "mq_send", .open = room_open, .close = mq_close_,
		.set = room_set, .event = room_event, .right = room_right,
		.time_arg = 4, .absolute = true, .timed_out = -ETIMEDOUT,
		.restarts = true, .inherited = true,
	}, {
		.name = "io_getevents", .open = aio_open, .close = aio_close,
		.set = aio_set, .event = aio_event, .right = aio_right,
		.result = 1, .remove = aio_remove, .removed = -EINVAL,
		.time_arg = 4, .timed_out = 0, .keeps_stack = true,
	}, {
		.name = "flock", .open = flock_open, .close = lock_close,
		.set = flock_set, .event = flock_event, .right = flock_right,
		.restarts = true, .inherited = true,
	}, {
		.name = "F_OFD_SETLKW", .open = ofd_open, .close = lock_close,
		.set = ofd_set, .event = ofd_event, .right = ofd_right,
		.restarts = true, .inherited = true,
	},
};

/* From now on the call has to wait; from the end of the loop's body it is closed. */
static bool kind_open(struct __test_metadata *_metadata, FIXTURE_DATA(ipc) *self,
		      const struct kind *k)
{
	if (k >= kinds + ARRAY_SIZE(kinds))
		return false;
	memset(self->w, 0, sizeof(self->w));
	sm_keeps_stack(&self->env, k->keeps_stack);
	ASSERT_EQ(0, k->open(self)) {
		TH_LOG("%s: %s", k->name, strerror(errno));
	}
	return true;
}

#define for_each_kind(k)						\
	for ((k) = kinds; kind_open(_metadata, self, k); (k)->close(self), (k)++)

/* Waiter @i gets what @k waits for. */
#define EXPECT_EVENT(k, i)						\
do {									\
	ASSERT_EQ(0, (k)->event(self));					\
	SM_JOIN(&self->w[i], (k)->result);				\
	EXPECT_TRUE((k)->right(self, i)) {				\
		TH_LOG("%s", (k)->name);				\
	}								\
} while (0)

/* Waiter @i of this kind starts and sleeps. */
static bool kind_start(FIXTURE_DATA(ipc) *self, const struct kind *k, int i)
{
	k->set(self, i);
	return sm_start(&self->env, &self->w[i]);
}

/* All of them */
static bool kind_start_all(FIXTURE_DATA(ipc) *self, const struct kind *k)
{
	int i;

	for (i = 0; i < NW; i++)
		k->set(self, i);
	return sm_start_all(&self->env, self->w, NW);
}

/* With a time-out, if its calls have one */
static bool kind_set_time(FIXTURE_DATA(ipc) *self, const struct kind *k, int64_t ns)
{
	if (!k->time_arg)
		return false;
	self->ts = sm_ts((k->absolute ? sm_clock_ns(CLOCK_REALTIME) : 0) + ns);
	k->set(self, 0);
	if (k->time_nr)
		self->w->nr = k->time_nr;
	self->w->arg[k->time_arg] = (long)&self->ts;
	return true;
}

/* -------------------------------------------------------------- scenarios */

TEST_F(ipc, event)
{
	const struct kind *k;

	for_each_kind(k) {
		ASSERT_TRUE(kind_start(self, k, 0)) {
			TH_LOG("%s", k->name);
		}
		EXPECT_EVENT(k, 0);
		SM_EXPECT_PARKS(&self->env, 1);
	}
}

/* Each event ends one wait. */
TEST_F(ipc, one_by_one)
{
	const struct kind *k;
	int i, n;

	for_each_kind(k) {
		ASSERT_TRUE(kind_start_all(self, k)) {
			TH_LOG("%s", k->name);
		}
		for (n = 1; n <= NW; n++) {
			ASSERT_EQ(0, k->event(self));
			ASSERT_TRUE(sm_wait_until(sm_nr_done(self->w, NW) >= n)) {
				TH_LOG("%s: event %d", k->name, n);
			}
			SM_ASSERT_DONE(self->w, NW, n);
			for (i = 0; i < NW; i++) {
				if (!self->w[i].done || self->w[i].data == self)
					continue;
				self->w[i].data = self;
				EXPECT_TRUE(k->right(self, i)) {
					TH_LOG("%s: waiter %d", k->name, i);
				}
			}
		}
		SM_JOIN_ALL(self->w, NW, k->result);
		SM_EXPECT_NONE_PARKED(&self->env);
	}
}

/* A signal with a handler ends the wait, or does not. */
TEST_F(ipc, signal)
{
	const struct kind *k;
	int restart;

	for (restart = 0; restart < 2; restart++) {
		for_each_kind(k) {
			sm_handle(SIGUSR1, restart ? SA_RESTART : 0);
			ASSERT_TRUE(kind_start(self, k, 0));
			ASSERT_EQ(0, sm_signal(self->w, SIGUSR1));
			ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
			if (restart && k->restarts) {
				ASSERT_TRUE(sm_asleep(&self->env, self->w, 1)) {
					TH_LOG("%s", k->name);
				}
				EXPECT_EVENT(k, 0);
			} else {
				SM_JOIN(self->w, -EINTR);
				/* Nothing is left of it: the event is not taken. */
				ASSERT_TRUE(kind_start(self, k, 1));
				EXPECT_EVENT(k, 1);
			}
		}
	}
}

TEST_F(ipc, timeout)
{
	const int64_t ns = sm_soon_ns();
	const struct kind *k;
	int64_t start, took;

	for_each_kind(k) {
		/* Some times are absolute, so the thread may begin late. */
		start = sm_now_ns();
		if (!kind_set_time(self, k, ns))
			continue;
		sm_rebase(&self->env);
		ASSERT_EQ(0, sm_waiter_run(self->w));
		SM_JOIN(self->w, k->timed_out);
		took = self->w->end_ns - start;
		/* On another clock than the one they are measured by. */
		EXPECT_LE(ns, took + SM_MSEC) {
			TH_LOG("%s", k->name);
		}
		EXPECT_GE(ns + sm_late_ns(), took) {
			TH_LOG("%s", k->name);
		}
		SM_EXPECT_PARKS(&self->env, 1);
		/* In time */
		kind_set_time(self, k, 1000 * SM_SEC);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		EXPECT_EVENT(k, 0);
	}
}

/* What is waited for goes away: all waits end. */
TEST_F(ipc, removed)
{
	const struct kind *k;

	for_each_kind(k) {
		if (!k->remove)
			continue;
		ASSERT_TRUE(kind_start_all(self, k));
		ASSERT_EQ(0, k->remove(self));
		SM_JOIN_ALL(self->w, NW, k->removed);
		SM_EXPECT_NONE_PARKED(&self->env);
	}
}

/* Killed, stopped, and left by a process that exits */
TEST_F_TIMEOUT(ipc, ends, 60)
{
	struct sm_child *c = sm_shared_alloc(sizeof(*c));
	const struct kind *k;
	int i;

	ASSERT_NE(NULL, c);
	sm_handle(SIGUSR1, 0);
	for_each_kind(k) {
		if (!k->inherited)
			continue;
		memset(c, 0, sizeof(*c));
		c->nr = NW;
		for (i = 0; i < NW; i++) {
			k->set(self, i);
			c->w[i] = self->w[i];
		}
		sm_child_ends(_metadata, &self->env, c, SIGUSR1);
		/* Nobody has taken the event. */
		ASSERT_TRUE(kind_start(self, k, 0));
		EXPECT_EVENT(k, 0);
	}
}

/* Several operations at once, more than fit into a record */
TEST_F(ipc, semop_many)
{
	struct sembuf sops[8], up = { .sem_num = 1, .sem_op = 1 };
	int i;

	ASSERT_EQ(0, sem_open_(self));
	for (i = 0; i < 8; i++)
		sops[i] = (struct sembuf) { .sem_num = i % 2, .sem_op = -1,
					    .sem_flg = SEM_UNDO };
	ASSERT_EQ(0, semctl(self->id, 0, SETVAL, 10));
	sm_call(self->w, __NR_semop, self->id, sops, 8);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	/* The operations were read once. */
	for (i = 0; i < 8; i++)
		sops[i].sem_op = 99;
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(10, semctl(self->id, 0, GETVAL));
		EXPECT_EQ(0, sm_load(&self->w->done));
		ASSERT_EQ(0, semop(self->id, &up, 1));
	}
	SM_JOIN(self->w, 0);
	EXPECT_EQ(6, semctl(self->id, 0, GETVAL));
	EXPECT_EQ(0, semctl(self->id, 1, GETVAL));
	sem_remove(self);
}

/* Only messages of the type that is waited for, and none that is too long */
TEST_F(ipc, msgrcv_type)
{
	struct message m = { .type = 3, .text = TEXT };

	sm_keeps_stack(&self->env, true);
	ASSERT_EQ(0, msg_open(self));
	sm_call(self->w, __NR_msgrcv, self->id, &self->in[0], 4, 5);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	ASSERT_EQ(0, msgsnd(self->id, &m, 4, 0));
	sm_settle();
	EXPECT_EQ(0, sm_load(&self->w->done));
	m.type = 5;
	ASSERT_EQ(0, msgsnd(self->id, &m, 8, 0));
	SM_JOIN(self->w, -E2BIG);
	/* It is still there, for those that take a part of it. */
	EXPECT_EQ(4, msgrcv(self->id, &self->in[0], 4, 5, MSG_NOERROR));
	msg_remove(self);
}

/*
 * A child that has the lock at @start, until *@cmd is 3. Then it ends, or wants the
 * lock at 0 as well, and is told that it would wait for ever.
 */
static void lock_child(FIXTURE_DATA(ipc) *self, uint32_t *cmd, long start, bool more)
{
	struct flock fl = { .l_type = F_WRLCK, .l_start = start, .l_len = more };

	if (!more)
		sm_disable();
	sm_store(cmd, fcntl(self->fd[0], F_SETLK, &fl) ? 2 : 1);
	while (sm_load(cmd) == 1)
		sm_sleep_ms(1);
	fl.l_start = 0;
	_exit(more && (!fcntl(self->fd[0], F_SETLKW, &fl) || errno != EDEADLK));
}

/* A lock of a process that ends is free, and a close() by another thread wins. */
TEST_F(ipc, setlkw)
{
	struct flock fl = { .l_type = F_WRLCK };
	uint32_t *cmd = sm_shared_alloc(4096);
	int closed;
	pid_t pid;

	ASSERT_NE(NULL, cmd);
	for (closed = 0; closed < 2; closed++) {
		ASSERT_EQ(0, lock_open(self));
		sm_store(cmd, 0);
		pid = SM_FORK();
		if (!pid)
			lock_child(self, cmd, 0, false);
		ASSERT_TRUE(sm_wait_until(sm_load(cmd) == 1));
		sm_call(self->w, __NR_fcntl, self->fd[1], F_SETLKW, &fl);
		ASSERT_TRUE(sm_start(&self->env, self->w));
		if (closed)
			close(self->fd[1]);
		sm_store(cmd, 3);
		SM_JOIN(self->w, closed ? -EBADF : 0);
		SM_EXPECT_STATUS(0, pid);
		lock_close(self);
	}
}

/* Two that wait for each other: the second is told so. */
TEST_F(ipc, deadlock)
{
	struct flock fl = { .l_type = F_WRLCK, .l_len = 1 };
	uint32_t *cmd = sm_shared_alloc(4096);
	pid_t pid;

	ASSERT_NE(NULL, cmd);
	ASSERT_EQ(0, lock_open(self));
	ASSERT_EQ(0, fcntl(self->fd[0], F_SETLK, &fl));
	pid = SM_FORK();
	if (!pid)
		lock_child(self, cmd, 1, true);
	ASSERT_TRUE(sm_wait_until(sm_load(cmd) == 1));
	fl.l_start = 1;
	sm_call(self->w, __NR_fcntl, self->fd[1], F_SETLKW, &fl);
	ASSERT_TRUE(sm_start(&self->env, self->w));
	sm_store(cmd, 3);
	SM_EXPECT_STATUS(0, pid);
	SM_JOIN(self->w, 0);
	lock_close(self);
}

/* The mask is in force while it waits, and only then. */
TEST_F(ipc, pgetevents_mask)
{
	uint64_t mask = ~(sm_bit(SIGUSR1) | sm_bit(SIGKILL) | sm_bit(SIGSTOP));
	struct { uint64_t *mask; size_t size; } sig = { &mask, sizeof(mask) };
	struct sm_waiter *w = self->w;
	uint64_t before;

	sm_keeps_stack(&self->env, true);
	ASSERT_EQ(0, aio_open(self));
	before = sm_mask_set(sm_bit(SIGUSR1) | sm_bit(SIGUSR2));
	sm_handle(SIGUSR1, 0);
	sm_call(w, __NR_io_pgetevents, self->aio, 1, 1, &self->event[0], 0, &sig);
	ASSERT_TRUE(sm_start(&self->env, w));
	EXPECT_EQ(mask & ~sm_bit(32) & ~sm_bit(33),
		  sm_mask_of(getpid(), w->tid) & ~sm_bit(32) & ~sm_bit(33));
	ASSERT_EQ(0, aio_event(self));
	SM_JOIN(w, 1);

	ASSERT_TRUE(sm_start(&self->env, w));
	SM_EXPECT_INTERRUPTED(w, SIGUSR1);
	EXPECT_EQ(1, sm_load(&sm_handled));
	sm_mask_set(before);
	aio_close(self);
}

/* ------------------------------------------------------------------ races */

/*
 * Threads that take and threads that give, as fast as they can: what was given
 * is taken, once, and nobody waits for ever.
 */
struct run {
	FIXTURE_DATA(ipc) *self;
	long (*take)(FIXTURE_DATA(ipc) *self, int nr);
	long (*give)(FIXTURE_DATA(ipc) *self, long val);
	long rounds;		/* of each giver */
	long sum, taken, given;
	long bad;
	int nr;
};

#define TAKERS	4
#define GIVERS	2

static long take_msg(FIXTURE_DATA(ipc) *self, int nr)
{
	struct message m;
	long val;

	if (msgrcv(self->id, &m, sizeof(m.text), 0, 0) != sizeof(val))
		return -1;
	memcpy(&val, m.text, sizeof(val));
	return val;
}

static long give_msg(FIXTURE_DATA(ipc) *self, long val)
{
	struct message m = { .type = 1 };

	memcpy(m.text, &val, sizeof(val));
	return msgsnd(self->id, &m, sizeof(val), 0);
}

static long take_mq(FIXTURE_DATA(ipc) *self, int nr)
{
	char text[sizeof(TEXT)];
	long val;

	if (mq_receive(self->mq, text, sizeof(text), NULL) != sizeof(val))
		return -1;
	memcpy(&val, text, sizeof(val));
	return val;
}

static long give_mq(FIXTURE_DATA(ipc) *self, long val)
{
	return mq_send(self->mq, (void *)&val, sizeof(val), 1);
}

static long take_sem(FIXTURE_DATA(ipc) *self, int nr)
{
	struct sembuf down = { .sem_op = -1 };

	return semop(self->id, &down, 1) ? -1 : semctl(self->id, 1, GETVAL);
}

static long give_sem(FIXTURE_DATA(ipc) *self, long val)
{
	struct sembuf up = { .sem_op = 1 };

	return semop(self->id, &up, 1);
}

static void *taker(void *p)
{
	struct run *r = p;
	int nr = sm_add(&r->nr, 1);
	long val;

	for (;;) {
		val = r->take(r->self, nr);
		if (val < 0) {
			sm_store(&r->bad, -errno);
			break;
		}
		sm_add(&r->sum, val);
		/* One more than there is work for: the end. */
		if (sm_add(&r->taken, 1) > GIVERS * r->rounds)
			break;
	}
	return NULL;
}

static void *giver(void *p)
{
	struct run *r = p;
	long i;

	for (i = 1; i <= r->rounds; i++) {
		if (r->give(r->self, i))
			sm_store(&r->bad, -errno);
		sm_add(&r->given, 1);
		/* Now and then the takers catch up, and all sleep. */
		while (!(i % 64) && !sm_load(&r->bad) &&
		       sm_load(&r->taken) < sm_load(&r->given))
			sched_yield();
	}
	return NULL;
}

static void race(struct __test_metadata *_metadata, struct run *r, bool values)
{
	pthread_t t[TAKERS + GIVERS];
	int i;

	sm_rebase(&r->self->env);
	r->rounds = sm_traffic_rounds(&r->self->env, 4000);
	for (i = 0; i < TAKERS + GIVERS; i++)
		ASSERT_EQ(0, sm_thread(&t[i], i < TAKERS ? taker : giver, r));
	for (i = TAKERS; i < TAKERS + GIVERS; i++)
		pthread_join(t[i], NULL);
	ASSERT_TRUE(sm_wait_until(sm_load(&r->taken) == GIVERS * r->rounds)) {
		TH_LOG("%ld taken of %ld", r->taken, GIVERS * r->rounds);
	}
	EXPECT_EQ(0, r->bad);
	if (values)
		EXPECT_EQ(GIVERS * (r->rounds * (r->rounds + 1) / 2), r->sum);
	for (i = 0; i < TAKERS; i++)
		ASSERT_EQ(0, r->give(r->self, 0));
	sm_threads_join(t, TAKERS);
	SM_EXPECT_PARKS(&r->self->env, 20);
}

TEST_F_TIMEOUT(ipc, race_msg, 90)
{
	struct run r = { .self = self, .take = take_msg, .give = give_msg };

	sm_keeps_stack(&self->env, true);
	ASSERT_EQ(0, msg_open(self));
	race(_metadata, &r, true);
	msg_remove(self);
}

/* Senders wait for room, too. */
TEST_F_TIMEOUT(ipc, race_mq, 90)
{
	struct run r = { .self = self, .take = take_mq, .give = give_mq };

	ASSERT_EQ(0, mq_open_(self));
	race(_metadata, &r, true);
	mq_close_(self);
}

TEST_F_TIMEOUT(ipc, race_sem, 90)
{
	struct run r = { .self = self, .take = take_sem, .give = give_sem };

	ASSERT_EQ(0, sem_open_(self));
	race(_metadata, &r, false);
	sem_remove(self);
}

/* Each owns the lock alone, and each gets it. */
struct locker {
	FIXTURE_DATA(ipc) *self;
	int fd;
	bool ofd;
	long rounds, *inside, *ready, bad;
	pthread_t thread;
};

static void *locker_fn(void *p)
{
	struct locker *l = p;
	struct flock fl = { .l_type = F_WRLCK }, un = { .l_type = F_UNLCK };
	int64_t until;
	long i;

	/* All at the same time */
	sm_add(l->ready, 1);
	while (sm_load(l->ready) < NW)
		sched_yield();
	for (i = 0; i < l->rounds; i++) {
		if (l->ofd ? fcntl(l->fd, F_OFD_SETLKW, &fl) : flock(l->fd, LOCK_EX))
			l->bad++;
		if (sm_add(l->inside, 1) != 1)
			l->bad++;
		/* No sleep here, which would park itself */
		until = sm_now_ns() + 100000;
		while (i % 16 == 0 && sm_now_ns() < until)
			;
		if (i % 4 == 0)
			sched_yield();
		sm_add(l->inside, -1);
		if (l->ofd ? fcntl(l->fd, F_OFD_SETLK, &un) : flock(l->fd, LOCK_UN))
			l->bad++;
	}
	return NULL;
}

TEST_F_TIMEOUT(ipc, race_lock, 120)
{
	struct locker l[NW];
	int ofd, i;
	long inside, ready;

	for (ofd = 0; ofd < 2; ofd++) {
		ASSERT_EQ(0, lock_open(self));
		sm_rebase(&self->env);
		inside = 0;
		ready = 0;
		for (i = 0; i < NW; i++) {
			l[i] = (struct locker) {
				.self = self, .fd = self->fd[i], .ofd = ofd,
				.rounds = sm_traffic_rounds(&self->env, 1000),
				.inside = &inside, .ready = &ready,
			};
			ASSERT_EQ(0, sm_thread(&l[i].thread, locker_fn, &l[i]));
		}
		for (i = 0; i < NW; i++) {
			pthread_join(l[i].thread, NULL);
			EXPECT_EQ(0, l[i].bad);
		}
		SM_EXPECT_PARKS(&self->env, 20);
		lock_close(self);
	}
}

SM_MAIN(sm_rounds_factor());
