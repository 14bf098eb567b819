// SPDX-License-Identifier: GPL-2.0
/*
 * Calls that wait on their stacks, although their process parks: few threads of real
 * programs sleep in them. They run the kernel's ordinary code, so all that there is to
 * see is that none of them parks.
 */
#include "scenario.h"
#include <linux/aio_abi.h>
#include <mqueue.h>
#include <pty.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/uio.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK	37
#define F_OFD_SETLKW	38
#endif

FIXTURE(on_stack) {
	struct sm_env env;
	struct sm_waiter w;
	int rd, wr;			/* where it waits, and what ends that */
	unsigned long id;		/* or this */
	char buf[64];
	struct iovec iov;
	struct mmsghdr msg;
};

SM_FIXTURE(on_stack);

/* System V */

static int msg_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	self->rd = msgget(IPC_PRIVATE, 0600);
	sm_call(&self->w, nr, self->rd, self->buf, 8);
	return self->rd;
}

static int msg_end(FIXTURE_DATA(on_stack) *self)
{
	return msgctl(self->rd, IPC_RMID, NULL);
}

static int sem_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	struct sembuf *down = (void *)self->buf;

	*down = (struct sembuf) { .sem_op = -1 };
	self->rd = semget(IPC_PRIVATE, 1, 0600);
	sm_call(&self->w, nr, self->rd, down, 1);
	return self->rd;
}

static int sem_end(FIXTURE_DATA(on_stack) *self)
{
	return semctl(self->rd, 0, IPC_RMID);
}

/* POSIX messages */

static int mq_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[32];

	snprintf(name, sizeof(name), "stackmux-%d", getpid());
	self->rd = sm_sys(__NR_mq_open, name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	sm_call(&self->w, nr, self->rd, self->buf, 8);
	return self->rd < 0 ? -1 : sm_sys(__NR_mq_unlink, name);
}

static int mq_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_sys(__NR_mq_timedsend, self->rd, "message", 8);
}

static int mq_full_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	if (mq_begin(self, nr) || mq_end(self))
		return -1;
	sm_call(&self->w, nr, self->rd, self->buf, 8);
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

static int flock_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	if (lock_open(self) < 0)
		return -1;
	sm_call(&self->w, nr, self->rd, LOCK_EX);
	return flock(self->wr, LOCK_EX);
}

static int ofd_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	struct flock *fl = (void *)self->buf;

	*fl = (struct flock) { .l_type = F_WRLCK };
	if (lock_open(self) < 0)
		return -1;
	sm_call(&self->w, nr, self->rd, F_OFD_SETLKW, fl);
	return fcntl(self->wr, F_OFD_SETLK, fl);
}

static int close_end(FIXTURE_DATA(on_stack) *self)
{
	return close(self->wr);
}

/* Asynchronous I/O */

static int aio_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	self->id = 0;
	if (sm_sys(__NR_io_setup, 1, &self->id))
		return -1;
	sm_call(&self->w, nr, self->id, 1, 1, self->buf);
	return 0;
}

static int aio_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_sys(__NR_io_destroy, self->id);
}

/* Reads and writes: of a pipe, a pair of sockets, a terminal */

static int open_pair(FIXTURE_DATA(on_stack) *self, long nr)
{
	int fd[2], ret;

	if (nr == __NR_read)
		ret = openpty(&fd[1], &fd[0], NULL, NULL, NULL);
	else if (nr == __NR_readv || nr == __NR_splice || nr == __NR_write || nr == __NR_writev)
		ret = pipe(fd);
	else
		ret = socketpair(AF_UNIX, SOCK_STREAM, 0, fd);
	self->rd = fd[0];
	self->wr = fd[1];
	self->iov = (struct iovec) { self->buf, 8 };
	self->msg.msg_hdr = (struct msghdr) { .msg_iov = &self->iov, .msg_iovlen = 1 };
	return ret;
}

/* The third argument is a number of bytes, of vectors, of messages, or flags. */
static void set_call(FIXTURE_DATA(on_stack) *self, long nr, int fd)
{
	switch (nr) {
	case __NR_readv:
	case __NR_writev:
		sm_call(&self->w, nr, fd, &self->iov, 1);
		break;
	case __NR_recvmmsg:
	case __NR_sendmmsg:
		sm_call(&self->w, nr, fd, &self->msg, 1);
		break;
	case __NR_sendmsg:
		sm_call(&self->w, nr, fd, &self->msg);
		break;
	case __NR_splice:
		sm_call(&self->w, nr, fd, 0, open("/dev/null", O_WRONLY), 0, 8);
		break;
	default:
		sm_call(&self->w, nr, fd, self->buf, 8);
	}
}

static int read_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	int ret = open_pair(self, nr);

	set_call(self, nr, self->rd);
	return ret;
}

static int read_end(FIXTURE_DATA(on_stack) *self)
{
	return write(self->wr, "x\n", 2) == 2 ? 0 : -1;
}

/* The one that waits is the writer. */
static int write_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	int fd;

	signal(SIGPIPE, SIG_IGN);
	if (open_pair(self, nr))
		return -1;
	fd = self->wr;
	sm_nonblock(fd, true);
	while (write(fd, self->buf, sizeof(self->buf)) > 0)
		;
	sm_nonblock(fd, false);
	set_call(self, nr, fd);
	self->wr = self->rd;
	return 0;
}

/* The other end of a FIFO; CPU time, which hardly goes by */

static int fifo_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	sm_handle(SIGUSR1, 0);
	snprintf(self->buf, sizeof(self->buf), "/tmp/stackmux-fifo-%d", getpid());
	sm_call(&self->w, nr, self->buf, O_RDONLY);
	return mkfifo(self->buf, 0600);
}

static int cpu_clock_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	struct timespec *ts = (void *)self->buf;

	sm_handle(SIGUSR1, 0);
	*ts = sm_ts(3600 * SM_SEC);
	sm_call(&self->w, nr, CLOCK_PROCESS_CPUTIME_ID, 0, ts);
	return 0;
}

static int signal_end(FIXTURE_DATA(on_stack) *self)
{
	return sm_signal(&self->w, SIGUSR1);
}

static int fifo_end(FIXTURE_DATA(on_stack) *self)
{
	unlink(self->buf);
	return signal_end(self);
}

/* A lock with priority inheritance, owned by a child */
static int pi_begin(FIXTURE_DATA(on_stack) *self, long nr)
{
	uint32_t *futex = sm_shared_alloc(4096);

	self->id = sm_fork();
	if (!self->id) {
		sm_disable();
		for (;;)
			pause();
	}
	*futex = self->id;
	sm_call(&self->w, nr, futex, FUTEX_LOCK_PI);
	return 0;
}

static int pi_end(FIXTURE_DATA(on_stack) *self)
{
	return kill(self->id, SIGKILL);
}

static const struct kind {
	const char *name;
	long nr;
	int (*begin)(FIXTURE_DATA(on_stack) *self, long nr);	/* describes the call */
	int (*end)(FIXTURE_DATA(on_stack) *self);
	long ret;
} kinds[] = {
	{ "msgrcv", __NR_msgrcv, msg_begin, msg_end, -EIDRM },
	{ "semop", __NR_semop, sem_begin, sem_end, -EIDRM },
	{ "mq_timedreceive", __NR_mq_timedreceive, mq_begin, mq_end, 8 },
	{ "mq_timedsend", __NR_mq_timedsend, mq_full_begin, mq_full_end, 0 },
	{ "flock", __NR_flock, flock_begin, close_end, 0 },
	{ "F_OFD_SETLKW", __NR_fcntl, ofd_begin, close_end, 0 },
	{ "io_getevents", __NR_io_getevents, aio_begin, aio_end, -EINVAL },
	{ "io_pgetevents", __NR_io_pgetevents, aio_begin, aio_end, -EINVAL },
	{ "FUTEX_LOCK_PI", __NR_futex, pi_begin, pi_end, 0 },
	{ "open of a FIFO", __NR_open, fifo_begin, fifo_end, -EINTR },
	{ "sleep on a CPU-time clock", __NR_clock_nanosleep, cpu_clock_begin, signal_end, -EINTR },
	{ "read of a terminal", __NR_read, read_begin, read_end, 2 },
	{ "readv", __NR_readv, read_begin, read_end, 2 },
	{ "splice", __NR_splice, read_begin, read_end, 2 },
	{ "recvmmsg", __NR_recvmmsg, read_begin, read_end, 1 },
	{ "write", __NR_write, write_begin, close_end, -EPIPE },
	{ "writev", __NR_writev, write_begin, close_end, -EPIPE },
	{ "sendto", __NR_sendto, write_begin, close_end, -ECONNRESET },
	{ "sendmsg", __NR_sendmsg, write_begin, close_end, -ECONNRESET },
	{ "sendmmsg", __NR_sendmmsg, write_begin, close_end, -ECONNRESET },
};

TEST_F(on_stack, calls)
{
	const struct kind *k;

	sm_keeps_stack(&self->env, true);
	for (k = kinds; k < kinds + ARRAY_SIZE(kinds); k++) {
		ASSERT_LE(0, k->begin(self, k->nr)) {
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
