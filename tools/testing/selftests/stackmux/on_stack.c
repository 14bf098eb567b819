// SPDX-License-Identifier: GPL-2.0
/*
 * Calls that wait on their stacks, although their process parks: few threads of real
 * programs sleep in them. They run the kernel's ordinary code, so all that there is to
 * see is that none of them parks.
 */
#include "scenario.h"
#include <linux/aio_abi.h>
#include <mqueue.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK	37
#define F_OFD_SETLKW	38
#endif

FIXTURE(on_stack) {
	struct sm_env env;
	struct sm_waiter w;
	int rd, wr;			/* where it waits, and what ends that */
	unsigned long id;
	char buf[64];
};

SM_FIXTURE(on_stack);

/* System V */

static int msg_begin(FIXTURE_DATA(on_stack) *self)
{
	self->rd = msgget(IPC_PRIVATE, 0600);
	sm_call(&self->w, __NR_msgrcv, self->rd, self->buf, 8);
	return self->rd;
}

static int msg_end(FIXTURE_DATA(on_stack) *self)
{
	return msgctl(self->rd, IPC_RMID, NULL);
}

static int sem_begin(FIXTURE_DATA(on_stack) *self)
{
	struct sembuf *down = (void *)self->buf;

	*down = (struct sembuf) { .sem_op = -1 };
	self->rd = semget(IPC_PRIVATE, 1, 0600);
	sm_call(&self->w, __NR_semop, self->rd, down, 1);
	return self->rd;
}

static int sem_end(FIXTURE_DATA(on_stack) *self)
{
	return semctl(self->rd, 0, IPC_RMID);
}

/* POSIX messages */

static int mq_begin(FIXTURE_DATA(on_stack) *self)
{
	struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[32];

	snprintf(name, sizeof(name), "stackmux-%d", getpid());
	self->rd = sm_sys(__NR_mq_open, name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	sm_call(&self->w, __NR_mq_timedreceive, self->rd, self->buf, 8);
	return self->rd < 0 ? -1 : sm_sys(__NR_mq_unlink, name);
}

static int mq_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_sys(__NR_mq_timedsend, self->rd, "message", 8);
}

static int mq_full_begin(FIXTURE_DATA(on_stack) *self)
{
	if (mq_begin(self) || mq_end(self))
		return -1;
	sm_call(&self->w, __NR_mq_timedsend, self->rd, self->buf, 8);
	return 0;
}

static int mq_full_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_sys(__NR_mq_timedreceive, self->rd, self->buf, 8) == 8 ? 0 : -1;
}

/* Locks: @wr is open for the one that has it. */

static int lock_open(FIXTURE_DATA(on_stack) *self)
{
	char path[] = "/tmp/stackmux-lock-XXXXXX";

	self->wr = mkstemp(path);
	self->rd = open(path, O_RDWR | O_CLOEXEC);
	unlink(path);
	return self->rd;
}

static int flock_begin(FIXTURE_DATA(on_stack) *self)
{
	if (lock_open(self) < 0)
		return -1;
	sm_call(&self->w, __NR_flock, self->rd, LOCK_EX);
	return flock(self->wr, LOCK_EX);
}

static int ofd_begin(FIXTURE_DATA(on_stack) *self)
{
	struct flock *fl = (void *)self->buf;

	*fl = (struct flock) { .l_type = F_WRLCK };
	if (lock_open(self) < 0)
		return -1;
	sm_call(&self->w, __NR_fcntl, self->rd, F_OFD_SETLKW, fl);
	return fcntl(self->wr, F_OFD_SETLK, fl);
}

static int close_end(FIXTURE_DATA(on_stack) *self)
{
	return close(self->wr);
}

/* Asynchronous I/O */

static int aio_begin(FIXTURE_DATA(on_stack) *self)
{
	self->id = 0;
	if (sm_sys(__NR_io_setup, 1, &self->id))
		return -1;
	sm_call(&self->w, __NR_io_getevents, self->id, 1, 1, self->buf);
	return 0;
}

static int aio_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_sys(__NR_io_destroy, self->id);
}

static const struct kind {
	const char *name;
	int (*begin)(FIXTURE_DATA(on_stack) *self);	/* describes the call */
	int (*end)(FIXTURE_DATA(on_stack) *self);
	long ret;
} kinds[] = {
	{ "msgrcv", msg_begin, msg_end, -EIDRM },
	{ "semop", sem_begin, sem_end, -EIDRM },
	{ "mq_timedreceive", mq_begin, mq_end, 8 },
	{ "mq_timedsend", mq_full_begin, mq_full_end, 0 },
	{ "flock", flock_begin, close_end, 0 },
	{ "F_OFD_SETLKW", ofd_begin, close_end, 0 },
	{ "io_getevents", aio_begin, aio_end, -EINVAL },
};

TEST_F(on_stack, calls)
{
	const struct kind *k;

	sm_keeps_stack(&self->env, true);
	for (k = kinds; k < kinds + ARRAY_SIZE(kinds); k++) {
		ASSERT_LE(0, k->begin(self)) {
			TH_LOG("%s: %s", k->name, strerror(errno));
		}
		ASSERT_TRUE(sm_start(&self->env, &self->w)) {
			TH_LOG("%s", k->name);
		}
		ASSERT_EQ(0, k->end(self));
		ASSERT_TRUE(sm_waiter_join(&self->w));
		EXPECT_EQ(k->ret, self->w.ret) {
			TH_LOG("%s", k->name);
		}
	}
}

SM_MAIN(1);
