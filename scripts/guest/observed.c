// SPDX-License-Identifier: GPL-2.0
/*
 * A process to look at: one thread for each way to wait, named after it. Says
 * "ready PID" when all of them sleep, ends all waits when it is told so by a byte on
 * stdin, and says what each call has returned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(x)							\
({									\
	long __ret = (x);						\
									\
	if (__ret < 0) {						\
		perror("observed: " #x);				\
		exit(1);						\
	}								\
	__ret;								\
})

enum {
	FUTEX, COND, POLL, PPOLL, SELECT, EPOLL, NANOSLEEP, PAUSE, SIGWAIT, WAIT4,
	SIGSUSPEND, READ, EVENTFD, TIMERFD, INOTIFY, RECV, RECVFROM, ACCEPT, URING, NR
};

static const char * const names[NR] = {
	"futex", "cond", "poll", "ppoll", "select", "epoll", "nanosleep", "pause", "sigwait",
	"wait4", "sigsuspend", "read", "eventfd", "timerfd", "inotify", "recv", "recvfrom",
	"accept", "uring",
};

static pthread_t threads[NR];
static pid_t tids[NR];
static long results[NR];
static int rd[NR], wr[NR];
static unsigned int word;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int awaited;
static pid_t child;
static struct sockaddr_in listening;

static long wait_in(int i)
{
	struct pollfd pfd = { .fd = rd[i], .events = POLLIN };
	struct timespec ts = { 1000, 0 };
	struct epoll_event ev;
	char event[256];
	sigset_t set;
	fd_set fds;
	char c[8];
	long ret;

	switch (i) {
	case FUTEX:
		return syscall(__NR_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL);
	case COND:
		pthread_mutex_lock(&mutex);
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_sec += 1000;
		for (ret = 0; !awaited && !ret; )
			ret = pthread_cond_timedwait(&cond, &mutex, &ts);
		pthread_mutex_unlock(&mutex);
		return ret;
	case POLL:
		return poll(&pfd, 1, -1);
	case PPOLL:
		return ppoll(&pfd, 1, &ts, NULL);
	case SELECT:
		FD_ZERO(&fds);
		FD_SET(rd[i], &fds);
		return select(rd[i] + 1, &fds, NULL, NULL, NULL);
	case EPOLL:
		return epoll_wait(rd[i], &ev, 1, -1);
	case NANOSLEEP:
		return nanosleep(&ts, NULL);
	case PAUSE:
		return pause();
	case SIGWAIT:
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		return sigtimedwait(&set, NULL, &ts);
	case WAIT4:
		return waitpid(child, NULL, 0) == child ? 0 : -1;
	case SIGSUSPEND:
		sigemptyset(&set);
		return sigsuspend(&set);
	case READ:
	case EVENTFD:
	case TIMERFD:
		return read(rd[i], c, 8);
	case INOTIFY:
		return read(rd[i], event, sizeof(event)) > 0;
	case RECV:
	case RECVFROM:
		return recv(rd[i], c, sizeof(c), 0);
	case ACCEPT:
		return accept(rd[i], NULL, NULL) < 0 ? -1 : 0;
	default:
		return syscall(__NR_io_uring_enter, rd[i], 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	}
}

static void *waiter(void *arg)
{
	long i = (long)arg;

	prctl(PR_SET_NAME, names[i]);
	__atomic_store_n(&tids[i], gettid(), __ATOMIC_RELEASE);
	results[i] = wait_in(i);
	return NULL;
}

static void channels(void)
{
	socklen_t len = sizeof(listening);
	struct epoll_event ev = { .events = EPOLLIN };
	struct io_uring_params uring = { };
	int i, fd[2];

	for (i = 0; i < NR; i++) {
		CHECK(pipe2(fd, O_CLOEXEC));
		rd[i] = fd[0];
		wr[i] = fd[1];
	}
	i = CHECK(epoll_create1(EPOLL_CLOEXEC));
	CHECK(epoll_ctl(i, EPOLL_CTL_ADD, rd[EPOLL], &ev));
	rd[EPOLL] = i;
	rd[EVENTFD] = CHECK(eventfd(0, 0));
	wr[EVENTFD] = rd[EVENTFD];
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	rd[RECV] = fd[0];
	wr[RECV] = fd[1];
	rd[TIMERFD] = CHECK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
	rd[INOTIFY] = CHECK(inotify_init1(IN_CLOEXEC));
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd));
	rd[RECVFROM] = fd[0];
	wr[RECVFROM] = fd[1];
	rd[ACCEPT] = CHECK(socket(AF_INET, SOCK_STREAM, 0));
	listening.sin_family = AF_INET;
	listening.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(rd[ACCEPT], (void *)&listening, len));
	CHECK(listen(rd[ACCEPT], 1));
	CHECK(getsockname(rd[ACCEPT], (void *)&listening, &len));
	wr[ACCEPT] = CHECK(socket(AF_INET, SOCK_STREAM, 0));
	wr[INOTIFY] = CHECK(open("/tmp/observed", O_RDWR | O_CREAT, 0600));
	CHECK(inotify_add_watch(rd[INOTIFY], "/tmp/observed", IN_ATTRIB));
	rd[URING] = CHECK(syscall(__NR_io_uring_setup, 1, &uring));
}

/* Asleep, and off its CPU */
static int asleep(int i)
{
	char path[64], buf[32] = "";
	int fd;

	if (!__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tids[i]);
	fd = CHECK(open(path, O_RDONLY));
	CHECK(read(fd, buf, sizeof(buf) - 1));
	close(fd);
	return !!strncmp(buf, "running", 7);
}

static void wake(int i)
{
	struct itimerspec soon = { .it_value.tv_nsec = 1 };
	unsigned long long one = 1;

	switch (i) {
	case FUTEX:
		word = 1;
		syscall(__NR_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
		break;
	case COND:
		pthread_mutex_lock(&mutex);
		awaited = 1;
		pthread_cond_signal(&cond);
		pthread_mutex_unlock(&mutex);
		break;
	case NANOSLEEP:
	case PAUSE:
	case SIGSUSPEND:
	case URING:
		pthread_kill(threads[i], SIGUSR1);
		break;
	case SIGWAIT:
		pthread_kill(threads[i], SIGUSR2);
		break;
	case WAIT4:
		CHECK(kill(child, SIGKILL));
		break;
	case ACCEPT:
		CHECK(connect(wr[i], (void *)&listening, sizeof(listening)));
		break;
	case TIMERFD:
		CHECK(timerfd_settime(rd[i], 0, &soon, NULL));
		break;
	case INOTIFY:
		CHECK(fchmod(wr[i], 0640));
		break;
	default:
		CHECK(write(wr[i], &one, sizeof(one)));
	}
}

static void handler(int sig)
{
	(void)sig;
}

int main(void)
{
	struct sigaction sa = { .sa_handler = handler };
	struct timespec ts = { 0, 10000000 };
	sigset_t set;
	long i;
	char c;

	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	channels();
	child = CHECK(fork());
	if (!child) {
		prctl(PR_SET_NAME, "child");
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	for (i = 0; i < NR; i++) {
		if (pthread_create(&threads[i], NULL, waiter, (void *)i))
			return 1;
		while (!asleep(i))
			nanosleep(&ts, NULL);
	}
	printf("ready %d\n", getpid());
	fflush(stdout);
	CHECK(read(0, &c, 1));
	for (i = 0; i < NR; i++) {
		wake(i);
		pthread_join(threads[i], NULL);
		printf("%s %ld\n", names[i], results[i]);
	}
	return 0;
}
