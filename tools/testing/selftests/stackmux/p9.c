// SPDX-License-Identifier: GPL-2.0
/*
 * A file system returns what its server says, be it an error that no program should see.
 * One of these numbers is what a call that is going to park returns through its frames:
 * whoever takes the one for the other waits for nothing, in a record that is not set up.
 *
 * The server of a 9P file system is a child, and answers all that has to do with the
 * contents of a file with such an error.
 */
#include "scenario.h"
#include <dirent.h>
#include <endian.h>
#include <sys/file.h>

/* Messages of 9P2000.L that are answered otherwise; a reply has the number plus 1. */
enum {
	P9_RLERROR = 7,
	P9_TSTATFS = 8,
	P9_TLOPEN = 12,
	P9_TGETATTR = 24,
	P9_TVERSION = 100,
	P9_TATTACH = 104,
	P9_TWALK = 110,
	P9_TCLUNK = 120,
};

#define P9_HEADER	7	/* length, type, tag */
#define P9_MSIZE	8192
#define P9_NR_FIDS	256

/* The first and the last of those that are for the kernel only, and two of others */
static const int errors[] = { 512, 513, 514, 516, 530, EINTR, EIO };

struct p9_server {
	int error;
	uint8_t in[P9_MSIZE], out[P9_MSIZE];
	uint8_t *end;			/* of what is written to out[] */
	bool is_file[P9_NR_FIDS];	/* others are the directory */
};

static void p9_put(struct p9_server *p9, uint64_t val, int bytes)
{
	val = htole64(val);
	memcpy(p9->end, &val, bytes);
	p9->end += bytes;
}

static uint32_t p9_get(struct p9_server *p9, int offset, int bytes)
{
	uint32_t val = 0;

	memcpy(&val, p9->in + P9_HEADER + offset, bytes);
	return le32toh(val);
}

static void p9_put_qid(struct p9_server *p9, bool is_file)
{
	p9_put(p9, is_file ? 0 : 0x80, 1);
	p9_put(p9, 0, 4);
	p9_put(p9, is_file ? 2 : 1, 8);
}

/* The reply's type */
static int p9_answer(struct p9_server *p9, int type)
{
	unsigned int fid = p9_get(p9, 0, 4) % P9_NR_FIDS, to, n, i;

	switch (type) {
	case P9_TVERSION:
		p9_put(p9, P9_MSIZE, 4);
		p9_put(p9, 8, 2);
		memcpy(p9->end, "9P2000.L", 8);
		p9->end += 8;
		break;
	case P9_TATTACH:
		p9->is_file[fid] = false;
		p9_put_qid(p9, false);
		break;
	case P9_TWALK:
		to = p9_get(p9, 4, 4) % P9_NR_FIDS;
		n = p9_get(p9, 8, 2);
		p9->is_file[to] = n || p9->is_file[fid];
		p9_put(p9, n, 2);
		for (i = 0; i < n; i++)
			p9_put_qid(p9, true);
		break;
	case P9_TGETATTR:
		p9_put(p9, 0x7ff, 8);
		p9_put_qid(p9, p9->is_file[fid]);
		p9_put(p9, p9->is_file[fid] ? S_IFREG | 0666 : S_IFDIR | 0755, 4);
		p9_put(p9, 0, 8);	/* uid, gid */
		p9_put(p9, 1, 8);	/* links */
		p9_put(p9, 0, 8);
		p9_put(p9, 4096, 8);	/* size */
		p9_put(p9, 4096, 8);
		for (i = 0; i < 11; i++)
			p9_put(p9, 0, 8);
		break;
	case P9_TSTATFS:
		p9_put(p9, 0x01021997, 4);
		p9_put(p9, 4096, 4);
		for (i = 0; i < 6; i++)
			p9_put(p9, 0, 8);
		p9_put(p9, 255, 4);
		break;
	case P9_TLOPEN:
		p9_put_qid(p9, p9->is_file[fid]);
		p9_put(p9, 0, 4);
		break;
	case P9_TCLUNK:
		break;
	default:
		p9_put(p9, p9->error, 4);
		return P9_RLERROR;
	}
	return type + 1;
}

static bool p9_read(int fd, uint8_t *buf, size_t len)
{
	ssize_t n;

	for (; len; buf += n, len -= n) {
		n = read(fd, buf, len);
		if (n <= 0)
			return false;
	}
	return true;
}

/* Until the client goes */
static void p9_serve(int fd, int error)
{
	static struct p9_server p9;
	uint32_t len;
	uint8_t *end;
	int type;

	p9.error = error;
	while (p9_read(fd, p9.in, P9_HEADER)) {
		memcpy(&len, p9.in, 4);
		len = le32toh(len);
		if (len > P9_MSIZE || !p9_read(fd, p9.in + P9_HEADER, len - P9_HEADER))
			return;
		p9.end = p9.out + P9_HEADER;
		type = p9_answer(&p9, p9.in[4]);
		end = p9.end;
		p9.end = p9.out;
		p9_put(&p9, end - p9.out, 4);
		p9_put(&p9, type, 1);
		memcpy(p9.end, p9.in + 5, 2);
		if (write(fd, p9.out, end - p9.out) != end - p9.out)
			return;
	}
}

FIXTURE(p9) {
	struct sm_env env;
	char dir[32], file[48];
};

SM_VARIANTS(p9);

FIXTURE_SETUP(p9)
{
	sm_setup(_metadata, &self->env, variant->parked);
	if (geteuid())
		SKIP(return, "not root");
	/* Its mounts go with the process. */
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	snprintf(self->dir, sizeof(self->dir), "/tmp/stackmux-p9-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	snprintf(self->file, sizeof(self->file), "%s/file", self->dir);
}

FIXTURE_TEARDOWN(p9)
{
	rmdir(self->dir);
}

/* 0, or the error of mount() */
static int p9_mount(FIXTURE_DATA(p9) *self, int error)
{
	char options[128];
	int sv[2], ret;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return -errno;
	pid = sm_fork();
	if (!pid) {
		close(sv[0]);
		p9_serve(sv[1], error);
		_exit(0);
	}
	close(sv[1]);
	snprintf(options, sizeof(options),
		 "trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,access=any", sv[0], sv[0]);
	ret = mount("stackmux", self->dir, "9p", 0, options) ? -errno : 0;
	close(sv[0]);
	return pid < 0 ? pid : ret;
}

#define EXPECT_ERROR(call)						\
	EXPECT_EQ(-error, call) {					\
		TH_LOG("error %d: %s", error, #call);			\
	}

TEST_F(p9, errors)
{
	struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };
	int i, fd, dirfd, error, ret;
	struct iovec iov;
	char buf[64];

	iov = (struct iovec){ buf, sizeof(buf) };
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		error = errors[i];
		ret = p9_mount(self, error);
		if (ret == -ENODEV || ret == -EPROTONOSUPPORT || ret == -ESRCH)
			SKIP(return, "no 9P by descriptors");
		ASSERT_EQ(0, ret);
		fd = open(self->file, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		dirfd = open(self->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ASSERT_LE(0, dirfd);

		EXPECT_ERROR(sm_sys(__NR_fcntl, fd, F_SETLK, &lock));
		EXPECT_ERROR(sm_sys(__NR_fcntl, fd, F_SETLKW, &lock));
		EXPECT_ERROR(sm_sys(__NR_fcntl, fd, F_OFD_SETLKW, &lock));
		EXPECT_ERROR(sm_sys(__NR_fcntl, fd, F_GETLK, &lock));
		lock.l_type = F_WRLCK;
		EXPECT_ERROR(sm_sys(__NR_flock, fd, LOCK_EX | LOCK_NB));
		EXPECT_ERROR(sm_sys(__NR_flock, fd, LOCK_EX));
		EXPECT_ERROR(sm_sys(__NR_read, fd, buf, sizeof(buf)));
		EXPECT_ERROR(sm_sys(__NR_pread64, fd, buf, sizeof(buf), 8));
		EXPECT_ERROR(sm_sys(__NR_readv, fd, &iov, 1));
		EXPECT_ERROR(sm_sys(__NR_fsync, fd));
		EXPECT_ERROR(sm_sys(__NR_ftruncate, fd, 0));
		EXPECT_ERROR(sm_sys(__NR_getdents64, dirfd, buf, sizeof(buf)));
		EXPECT_ERROR(sm_sys(__NR_unlinkat, dirfd, "file", 0));

		close(fd);
		close(dirfd);
		ASSERT_EQ(0, umount2(self->dir, MNT_DETACH));
	}
}

SM_MAIN(1);
