// SPDX-License-Identifier: GPL-2.0
#include "stackmux_test.h"

/* ------------------------------------------------------------------ time */

long sm_slow(void)
{
	static long slow;
	const char *s;

	if (!slow) {
		s = getenv("STACKMUX_SLOW");
		slow = s ? atol(s) : 1;
		if (slow < 1)
			slow = 1;
	}
	return slow;
}

long sm_rounds(long def)
{
	const long base = 10000;
	const char *s = getenv("STACKMUX_ROUNDS");
	long n;

	if (!s || !*s)
		n = def / sm_slow();
	else if (!strcmp(s, "millions"))
		n = def * (2000000 / base);
	else
		n = def * atol(s) / base;
	return n < 20 ? 20 : n;
}

long sm_rounds_factor(void)
{
	long n = sm_rounds(10000) / 10000;

	return n < 1 ? 1 : n;
}

int64_t sm_clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * SM_SEC + ts.tv_nsec;
}

int64_t sm_now_ns(void)
{
	return sm_clock_ns(CLOCK_MONOTONIC);
}

struct timespec sm_ts(int64_t ns)
{
	struct timespec ts = {
		.tv_sec = ns / SM_SEC,
		.tv_nsec = ns % SM_SEC,
	};

	return ts;
}

void sm_sleep_ns(int64_t ns)
{
	bool looks_on = sm_gettid() == getpid() && sm_look_on();
	struct timespec ts = sm_ts(ns);

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
	sm_look_away(looks_on);
}

void sm_sleep_ms(long ms)
{
	sm_sleep_ns(ms * SM_MSEC);
}

int64_t sm_patience_ns(void)
{
	return 20 * SM_SEC * sm_slow();
}

int64_t sm_late_ns(void)
{
	return 3 * SM_SEC * sm_slow();
}

int64_t sm_soon_ns(void)
{
	return 100 * SM_MSEC * sm_slow();
}

struct timeval sm_soon_tv(void)
{
	struct timespec ts = sm_ts(sm_soon_ns());
	struct timeval tv = {
		.tv_sec = ts.tv_sec,
		.tv_usec = ts.tv_nsec / 1000,
	};

	return tv;
}

uint64_t sm_rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ------------------------------------------------------- files and knobs */

ssize_t sm_read_file(const char *path, char *buf, size_t size)
{
	ssize_t n, len = 0;
	int fd;

	buf[0] = '\0';
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < (ssize_t)size - 1) {
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0) {
			len = -errno;
			break;
		}
		if (!n)
			break;
		len += n;
	}
	close(fd);
	buf[len > 0 ? len : 0] = '\0';
	return len;
}

int sm_write_file(const char *path, const char *text)
{
	ssize_t n;
	int fd, ret;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	ret = n < 0 ? -errno : 0;
	close(fd);
	return ret;
}

int sm_write_long(const char *path, long val)
{
	char buf[32];

	snprintf(buf, sizeof(buf), "%ld\n", val);
	return sm_write_file(path, buf);
}

long sm_read_long(const char *path)
{
	char buf[64];

	if (sm_read_file(path, buf, sizeof(buf)) <= 0)
		return -1;
	return atol(buf);
}

long sm_read_key(const char *path, const char *key)
{
	char line[256];
	long val = -1;
	size_t len = strlen(key);
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, len) && (isspace(line[len]) || line[len] == ':')) {
			val = strtol(line + len + 1, NULL, 0);
			break;
		}
	}
	fclose(f);
	return val;
}

long sm_meminfo_kb(const char *key)
{
	return sm_read_key("/proc/meminfo", key);
}

static struct sm_knob {
	const char *path;
	char value[160];
} sm_knobs[] = {
	{ .path = SM_SYSCTL },
	{ .path = SM_LINGER },
	{ .path = SM_SYSFS "percpu_max" },
	{ .path = SM_SYSFS "node_max" },
	{ .path = SM_SYSFS "node_low" },
	{ .path = SM_SYSFS "threads_unlimited" },
	{ .path = SM_PREEMPTED_MAX },
	{ .path = SM_IN_PLACE_MAX },
	{ .path = SM_BACKOFF },
	{ .path = "/proc/sys/kernel/pid_max" },
	{ .path = "/proc/sys/kernel/threads-max" },
	{ .path = "/proc/sys/kernel/core_pattern" },
	{ .path = "/proc/sys/kernel/core_uses_pid" },
	{ .path = "/proc/sys/kernel/printk" },
	{ .path = SM_NR_OPEN },
};

static uint64_t sm_cpus_online;

static const char *sm_cpu_file(int cpu)
{
	static __thread char path[80];

	snprintf(path, sizeof(path),
		 "/sys/devices/system/cpu/cpu%d/online", cpu);
	return path;
}

int sm_cpu_online(int cpu)
{
	return sm_read_long(sm_cpu_file(cpu));
}

int sm_cpu_set_online(int cpu, int online)
{
	return sm_write_long(sm_cpu_file(cpu), online);
}

void sm_knobs_save(void)
{
	size_t i;
	int cpu;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++)
		sm_read_file(sm_knobs[i].path, sm_knobs[i].value, sizeof(sm_knobs[i].value));
	for (cpu = 0; cpu < 64; cpu++)
		if (sm_cpu_online(cpu) == 1)
			sm_cpus_online |= 1ULL << cpu;
}

void sm_knob_set(const char *path, const char *value)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++)
		if (!strcmp(sm_knobs[i].path, path))
			snprintf(sm_knobs[i].value, sizeof(sm_knobs[i].value),
				 "%s", value);
}

void sm_knobs_restore(void)
{
	char now[sizeof(sm_knobs[0].value)];
	size_t i;
	int cpu;

	for (i = 0; i < ARRAY_SIZE(sm_knobs); i++) {
		if (!sm_knobs[i].value[0])
			continue;
		sm_read_file(sm_knobs[i].path, now, sizeof(now));
		if (strcmp(now, sm_knobs[i].value))
			sm_write_file(sm_knobs[i].path, sm_knobs[i].value);
	}
	for (cpu = 0; cpu < 64; cpu++)
		if ((sm_cpus_online & (1ULL << cpu)) && !sm_cpu_online(cpu))
			sm_cpu_set_online(cpu, 1);
}

void sm_allow_threads(long n)
{
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_NPROC, &rl);
	if (sm_read_long("/proc/sys/kernel/pid_max") < n + 5000)
		sm_write_long("/proc/sys/kernel/pid_max",
			      n + 50000 > 4194304 ? 4194304 : n + 50000);
}

/* ----------------------------------------------------------------- prctl */

int sm_prctl(unsigned long op, unsigned long a3, unsigned long a4, unsigned long a5)
{
	return sm_syscall6(__NR_prctl, PR_STACKMUX, op, a3, a4, a5, 0);
}

int sm_enable(unsigned long flags)
{
	return sm_prctl(PR_STACKMUX_ENABLE, flags, 0, 0);
}

int sm_disable(void)
{
	return sm_prctl(PR_STACKMUX_DISABLE, 0, 0, 0);
}

int sm_get(void)
{
	return sm_prctl(PR_STACKMUX_GET, 0, 0, 0);
}

bool sm_present(void)
{
	return sm_get() >= 0;
}

bool sm_judged;

bool sm_look_on(void)
{
	return sm_judged && !(sm_get() & PR_STACKMUX_OPTED_OUT) &&
	       !sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0);
}

void sm_look_away(bool looked_on)
{
	if (looked_on)
		sm_prctl(PR_STACKMUX_THREAD, 0, 0, 0);
}

/* ---------------------------------------------------------------- counters */

bool sm_lingering;

/* The threads of a process and its descendants that are @what */
static long sm_nr_tasks_that_are(pid_t pid, const char *what)
{
	char path[64], buf[4096], *p, *end;
	pid_t tid, child;
	struct dirent *d;
	long n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		tid = atoi(d->d_name);
		if (!tid)
			continue;
		n += sm_task_is(pid, tid, what);
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
		sm_read_file(path, buf, sizeof(buf));
		for (p = buf; (child = strtol(p, &end, 10)); p = end)
			n += sm_nr_tasks_that_are(child, what);
	}
	if (dir)
		closedir(dir);
	return n;
}

const struct sm_stat_name sm_stat_names[SM_NR_STATS] = {
#define SM_STAT(name)	{ #name, offsetof(struct sm_stats, name) },
	SM_FOR_EACH_STAT(SM_STAT)
#undef SM_STAT
};

int sm_stats_read(struct sm_stats *st)
{
	char buf[4096], name[64], *line, *save;
	ssize_t n;
	size_t i;
	long val;

	memset(st, 0xff, sizeof(*st));
	n = sm_read_file(SM_STATS, buf, sizeof(buf));
	if (n < 0)
		return n;
	for (line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		for (i = 0; i < SM_NR_STATS; i++)
			if (sscanf(line, "%63s %ld", name, &val) == 2 &&
			    !strcmp(name, sm_stat_names[i].name))
				*(long *)((char *)st + sm_stat_names[i].offset) = val;
	/* Later: a stack that is taken meanwhile is not counted twice. */
	st->lingering = sm_lingering ? sm_nr_tasks_that_are(getpid(), "lingering") : 0;
	return 0;
}

void sm_mount_debugfs(void)
{
	if (access("/sys/kernel/debug/.", F_OK))
		return;
	if (access(SM_STATS, R_OK))
		mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
}

/* ----------------------------------------------------------- system calls */

long sm_wait_ns(void *uaddr, uint32_t val, int flag, int64_t ns)
{
	struct timespec ts = sm_ts(ns);

	return sm_futex(uaddr, FUTEX_WAIT | flag, val, &ts, NULL, 0);
}

long sm_nr_waiters(void *uaddr, int flag)
{
	/* A requeue onto itself counts them and changes nothing. */
	return sm_syscall6(__NR_futex, (long)uaddr, FUTEX_REQUEUE | flag, 0,
			   INT_MAX, (long)uaddr, 0);
}

pid_t sm_gettid(void)
{
	return syscall(__NR_gettid);
}

int sm_tgkill(pid_t pid, pid_t tid, int sig)
{
	return syscall(__NR_tgkill, pid, tid, sig) ? -errno : 0;
}

int sm_nr_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return CPU_COUNT(&set);
}

pid_t sm_fork(void)
{
	pid_t parent = getpid();
	pid_t pid;

	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

int sm_waitpid(pid_t pid, int *status)
{
	int64_t end = sm_now_ns() + sm_patience_ns();
	pid_t ret;

	do {
		ret = waitpid(pid, status, WNOHANG);
		if (ret)
			return ret == pid ? 0 : -1;
		sm_sleep_ms(1);
	} while (sm_now_ns() < end);
	kill(pid, SIGKILL);
	waitpid(pid, status, 0);
	return -1;
}

void *sm_shared_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ------------------------------------------------------------------- /proc */

ssize_t sm_task_read(pid_t pid, pid_t tid, const char *file, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, file);
	return sm_read_file(path, buf, size);
}

char sm_task_state(pid_t pid, pid_t tid)
{
	char buf[512], *p;

	if (sm_task_read(pid, tid, "stat", buf, sizeof(buf)) <= 0)
		return '-';
	p = strrchr(buf, ')');
	return p && p[1] ? p[2] : '-';
}

char *sm_task_status(pid_t pid, pid_t tid, const char *key, char *buf, size_t size)
{
	size_t len = strlen(key);
	char *line, *save;

	if (sm_task_read(pid, tid, "status", buf, size) <= 0)
		return NULL;
	for (line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, key, len) && !strncmp(line + len, ":\t", 2))
			return line + len + 2;
	return NULL;
}

bool sm_task_is(pid_t pid, pid_t tid, const char *what)
{
	char buf[4096], *is = sm_task_status(pid, tid, "Stackmux", buf, sizeof(buf));

	return is && !strcmp(is, what);
}

long sm_nr_threads(pid_t pid)
{
	char buf[4096], *n = sm_task_status(pid, pid, "Threads", buf, sizeof(buf));

	return n ? atol(n) : -1;
}

/* ------------------------------------------- threads that make one call */

void *sm_waiter_fn(void *arg)
{
	struct sm_waiter *w = arg;

	sm_store(&w->tid, sm_gettid());
	if (w->before)
		w->before(w);
	w->start_ns = sm_now_ns();
	sm_store(&w->entered, 1);
	w->ret = sm_syscall6(w->nr, w->arg[0], w->arg[1], w->arg[2],
			     w->arg[3], w->arg[4], w->arg[5]);
	w->end_ns = sm_now_ns();
	w->cpu = sched_getcpu();
	if (w->after)
		w->after(w);
	sm_store(&w->done, 1);
	return NULL;
}

int sm_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	ret = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return ret;
}

int sm_waiter_run(struct sm_waiter *w)
{
	w->tid = 0;
	w->entered = 0;
	w->done = 0;
	w->ret = LONG_MIN;
	return sm_thread(&w->thread, sm_waiter_fn, w);
}

void sm_waiter_set(struct sm_waiter *w, long nr, long a1, long a2, long a3,
		   long a4, long a5, long a6)
{
	w->nr = nr;
	w->arg[0] = a1;
	w->arg[1] = a2;
	w->arg[2] = a3;
	w->arg[3] = a4;
	w->arg[4] = a5;
	w->arg[5] = a6;
}

int sm_waiter_futex(struct sm_waiter *w, void *uaddr, uint32_t val, int flag)
{
	sm_waiter_set(w, __NR_futex, (long)uaddr, FUTEX_WAIT | flag, val, 0, 0, 0);
	return sm_waiter_run(w);
}

/*
 * futex_waitv() sets its state before it queues itself anywhere, so the state alone
 * does not say that a thread sleeps; the file "syscall" is "running" until the thread
 * has left its CPU.
 */
bool sm_waiter_asleep(pid_t pid, struct sm_waiter *w)
{
	char buf[256];
	pid_t tid;

	if (sm_load(&w->done))
		return true;
	tid = sm_load(&w->tid);
	return sm_load(&w->entered) && sm_task_state(pid, tid) == 'S' &&
	       (sm_task_read(pid, tid, "syscall", buf, sizeof(buf)) <= 0 ||
		strncmp(buf, "running", 7));
}

bool sm_waiter_done(struct sm_waiter *w)
{
	return sm_wait_until(sm_load(&w->done));
}

bool sm_waiter_join(struct sm_waiter *w)
{
	bool looks_on;

	if (!sm_waiter_done(w))
		return false;
	looks_on = sm_look_on();
	pthread_join(w->thread, NULL);
	sm_look_away(looks_on);
	return true;
}

int64_t sm_waiter_ns(const struct sm_waiter *w)
{
	return w->end_ns - w->start_ns;
}

/* ------------------------------------------------------- sleepers in futex */

/* "1234567 of 20000000 ..." on stderr, for those who watch a long run. */
static void sm_progress(const char *what, long n, long of)
{
	if (of >= 100000 && (n % 50000 == 0 || n == of))
		fprintf(stderr, "# %s: %ld of %ld\n", what, n, of);
}

static uint32_t *sm_sleepers_futex(struct sm_sleepers *s, long i)
{
	return s->own ? &s->slot[i].futex : &s->futex;
}

long sm_sleepers_create(struct sm_sleepers *s, long n, bool own)
{
	long ret;

	sm_sleepers_init(s);
	s->own = own;
	s->map_size = n * sizeof(*s->slot);
	s->slot = mmap(NULL, s->map_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->slot == MAP_FAILED)
		return 0;
	for (; s->nr < n; s->nr++) {
		ret = sm_sleeper(s, (long)sm_sleepers_futex(s, s->nr), &s->slot[s->nr]);
		if (ret < 0) {
			errno = -ret;
			break;
		}
		sm_progress("cloned", s->nr + 1, n);
	}
	return s->nr;
}

long sm_sleepers_waiting(struct sm_sleepers *s)
{
	if (sm_load(&s->entered) < s->nr)
		return 0;
	if (!s->own)
		return sm_nr_waiters(&s->futex, SM_PRIVATE);
	/* Hash chains are long: look at each only once. */
	while (s->seen < s->nr && sm_nr_waiters(&s->slot[s->seen].futex, SM_PRIVATE) == 1)
		s->seen++;
	return s->seen;
}

/*
 * Time that something proportional to the number of threads may take: 1 ms
 * each is some hundred times what a release kernel needs under emulation.
 */
static int64_t sm_sleepers_patience_ns(struct sm_sleepers *s)
{
	return sm_patience_ns() + s->nr * SM_MSEC * sm_slow();
}

bool sm_sleepers_wait_asleep(struct sm_sleepers *s)
{
	return sm_wait_until_ns(sm_sleepers_waiting(s) == s->nr, sm_sleepers_patience_ns(s));
}

long sm_sleepers_wake(struct sm_sleepers *s, bool one_by_one)
{
	long i, ret, n = 0;

	if (!s->own && !one_by_one)
		return sm_wake(&s->futex, INT_MAX, SM_PRIVATE);
	for (i = 0; i < s->nr; i++) {
		ret = sm_wake(sm_sleepers_futex(s, i), 1, SM_PRIVATE);
		if (ret < 0)
			return ret;
		n += ret;
		sm_progress("woken", i + 1, s->nr);
	}
	return n;
}

long sm_sleepers_reap(struct sm_sleepers *s)
{
	long i, n = 0;

	for (i = 0; i < s->nr; i++) {
		if (!sm_wait_until_ns(!sm_load(&s->slot[i].tid), sm_sleepers_patience_ns(s)))
			return -1;
		if (!s->slot[i].ret)
			n++;
	}
	munmap(s->slot, s->map_size);
	s->slot = NULL;
	return n;
}
