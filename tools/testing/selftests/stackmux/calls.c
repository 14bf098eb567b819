// SPDX-License-Identifier: GPL-2.0
#define STACKMUX_HELPER
#include "calls.h"

/* ---------------------------------------------------------------- channels */

const char *const sm_kind_names[] = {
	"eventfd", "pipe", "unix socket", "TCP socket",
};

int sm_tcp_listen(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(sin, 0, sizeof(*sin));
	sin->sin_family = AF_INET;
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && (bind(fd, (void *)sin, sizeof(*sin)) ||
			listen(fd, 64) ||
			getsockname(fd, (void *)sin, &len))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int sm_tcp_pair(int sv[2])
{
	struct sockaddr_in sin;
	int one = 1, l = sm_tcp_listen(&sin);

	if (l < 0)
		return -1;
	sv[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sv[1] < 0 || connect(sv[1], (void *)&sin, sizeof(sin)))
		return -1;
	sv[0] = accept(l, NULL, NULL);
	close(l);
	setsockopt(sv[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(sv[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return sv[0] < 0 ? -1 : 0;
}

int sm_unix_listen(int type, struct sockaddr_un *sun, socklen_t *len)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	*len = sizeof(*sun);
	if (fd >= 0 && (bind(fd, (void *)sun, sizeof(sa_family_t)) || listen(fd, 64) ||
			getsockname(fd, (void *)sun, len))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int sm_chan_open(struct sm_chan *c, int kind)
{
	int fd[2];

	c->kind = kind;
	switch (kind) {
	case SM_EVENTFD:
		fd[0] = eventfd(0, EFD_CLOEXEC);
		fd[1] = fd[0];
		if (fd[0] < 0)
			return -1;
		break;
	case SM_PIPE:
		if (pipe2(fd, O_CLOEXEC))
			return -1;
		break;
	case SM_UNIX:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
			return -1;
		break;
	default:
		if (sm_tcp_pair(fd))
			return -1;
	}
	c->rd = fd[0];
	c->wr = fd[1];
	return 0;
}

int sm_chans_open(struct sm_chan *c, int n, int kind)
{
	int i;

	for (i = 0; i < n; i++)
		if (sm_chan_open(&c[i], kind))
			return -1;
	return 0;
}

void sm_chan_close(struct sm_chan *c)
{
	close(c->rd);
	if (c->wr != c->rd)
		close(c->wr);
}

void sm_chans_close(struct sm_chan *c, int n)
{
	while (n--)
		sm_chan_close(&c[n]);
}

bool sm_chan_send(struct sm_chan *c)
{
	uint64_t one = 1;

	return write(c->wr, &one, sizeof(one)) == sizeof(one);
}

bool sm_chan_take(struct sm_chan *c)
{
	uint64_t val;

	return read(c->rd, &val, sizeof(val)) == sizeof(val);
}

void sm_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK);
}

int sm_allow_files(long n)
{
	struct rlimit rl = { n, n };

	return setrlimit(RLIMIT_NOFILE, &rl);
}

void *sm_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ----------------------------------------------------------- waiting calls */

bool sm_asleep(struct sm_env *env, struct sm_waiter *w, long n)
{
	return sm_wait_parked(env, n) && sm_wait_asleep(env, getpid(), w, n);
}

bool sm_start(struct sm_env *env, struct sm_waiter *w)
{
	sm_rebase(env);
	return !sm_waiter_run(w) && sm_asleep(env, w, 1);
}

bool sm_start_pinned(struct sm_env *env, struct sm_waiter *w)
{
	w->before = sm_pin_waiter;
	return sm_start(env, w);
}

bool sm_sleeps(struct sm_waiter *w)
{
	return sm_wait_until(sm_waiter_asleep(getpid(), w)) && !sm_load(&w->done);
}

int sm_nr_done(struct sm_waiter *w, int nr)
{
	int i, n = 0;

	for (i = 0; i < nr; i++)
		n += sm_load(&w[i].done);
	return n;
}

void sm_settle(void)
{
	sm_sleep_ms(30 * sm_slow());
}

/* ------------------------------------------------------------ one's own CPU */

void sm_pin(void)
{
	cpu_set_t set;
	int cpu = 0;

	sched_getaffinity(0, sizeof(set), &set);
	while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void sm_pin_waiter(struct sm_waiter *w)
{
	sm_pin();
}

int sm_rt_begin(void)
{
	struct sched_param sp = { .sched_priority = 10 };

	sm_pin();
	return sched_setscheduler(0, SCHED_FIFO, &sp);
}

void sm_rt_end(void)
{
	struct sched_param sp = { 0 };

	sched_setscheduler(0, SCHED_OTHER, &sp);
}

/* ----------------------------------------------------------------- signals */

int sm_handled;
uint64_t sm_mask_in_handler, sm_mask_to_restore;

uint64_t sm_mask_now(void)
{
	uint64_t set = 0;

	syscall(__NR_rt_sigprocmask, SIG_BLOCK, NULL, &set, sizeof(set));
	return set;
}

uint64_t sm_mask_set(uint64_t set)
{
	uint64_t old = 0;

	syscall(__NR_rt_sigprocmask, SIG_SETMASK, &set, &old, sizeof(set));
	return old;
}

static void sm_handler(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	memcpy(&sm_mask_to_restore, &uc->uc_sigmask, sizeof(sm_mask_to_restore));
	sm_mask_in_handler = sm_mask_now();
	sm_add(&sm_handled, 1);
}

void sm_handle(int sig, int sa_flags)
{
	struct sigaction sa = {
		.sa_sigaction = sm_handler,
		.sa_flags = sa_flags | SA_SIGINFO,
	};

	sm_store(&sm_handled, 0);
	sigaction(sig, &sa, NULL);
}

uint64_t sm_mask_of(pid_t pid, pid_t tid)
{
	char buf[4096], *mask = sm_task_status(pid, tid, "SigBlk", buf, sizeof(buf));

	return mask ? strtoull(mask, NULL, 16) : ~0ULL;
}

/* ------------------------------------------------------------------- races */

long sm_traffic_rounds(struct sm_env *env, long def)
{
	return sm_rounds(env->parked ? def : def / 4);
}

int64_t sm_rnd_timeout(uint64_t *state)
{
	uint64_t r = sm_rnd(state);

	return r % 8 ? (int64_t)(sm_rnd(state) % (r % 3 ? 2000000 : 50000)) : 0;
}
