// SPDX-License-Identifier: GPL-2.0
/*
 * The switches and dials: prctl(PR_STACKMUX), sysctl kernel.stackmux, the
 * counters, who inherits what.
 */
#include "line.h"
#include "scenario.h"

#include <linux/capability.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define NW	6

#define ENABLED	((int)PR_STACKMUX_ENABLED)
#define EXEC	((int)PR_STACKMUX_EXEC)
#define ACTIVE	((int)PR_STACKMUX_ACTIVE)
#define OPTED_OUT ((int)PR_STACKMUX_OPTED_OUT)

FIXTURE(abi) {
	struct sm_env env;
	struct sm_waiter w[NW];
	uint32_t f;
};

FIXTURE_SETUP(abi)
{
	sm_knobs_restore();
	if (!sm_present())
		SKIP(return, "this kernel has no stackmux");
	self->env.present = true;
	self->env.parked = true;
	/* Whatever mode the machine runs in, these tests set their own. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n")) {
		TH_LOG("cannot write " SM_SYSCTL ": be root");
	}
	self->env.mode = 1;
	/* Those that read what tests say may have parked, and leave it for good. */
	sm_sleep_ms(100 * sm_slow());
	ASSERT_EQ(0, sm_disable());
	ASSERT_EQ(0, sm_stats_read(&self->env.base)) {
		TH_LOG("cannot read " SM_STATS ": be root, mount debugfs");
	}
}

FIXTURE_TEARDOWN(abi)
{
	sm_knobs_restore();
}

static bool start(struct sm_waiter *w, int nr, uint32_t *f)
{
	int i;

	for (i = 0; i < nr; i++)
		if (sm_waiter_futex(&w[i], f, 0, SM_PRIVATE))
			return false;
	for (i = 0; i < nr; i++)
		if (!sm_wait_until(sm_waiter_asleep(getpid(), &w[i])))
			return false;
	return sm_wait_queued(f, SM_PRIVATE, nr);
}

static bool finish(struct sm_waiter *w, int nr, uint32_t *f)
{
	int i;

	if (sm_wake(f, INT_MAX, SM_PRIVATE) != nr)
		return false;
	for (i = 0; i < nr; i++)
		if (!sm_waiter_join(&w[i]) || w[i].ret)
			return false;
	return true;
}

/* NW threads wait and are woken: none of them parks, or all of them. */
#define EXPECT_NONE_PARK()						\
do {									\
	ASSERT_TRUE(start(self->w, NW, &self->f));			\
	EXPECT_EQ(0, parked_now(&self->env));				\
	EXPECT_TRUE(finish(self->w, NW, &self->f));			\
} while (0)

#define EXPECT_ALL_PARK()						\
do {									\
	ASSERT_TRUE(start(self->w, NW, &self->f));			\
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));			\
	EXPECT_TRUE(finish(self->w, NW, &self->f));			\
} while (0)

/* By how much `parked` has grown once everything has settled. */
static long parked_now(struct sm_env *env)
{
	struct sm_stats st;

	sm_sleep_ms(100 * sm_slow());
	sm_stats_read(&st);
	return st.parked - env->base.parked;
}

/* On any kernel, with stackmux or without. */
TEST(unknown_operation)
{
	EXPECT_EQ(-EINVAL, sm_prctl(0, 0, 0, 0));
	EXPECT_EQ(-EINVAL, sm_prctl(99, 0, 0, 0));
	EXPECT_EQ(-EINVAL, sm_prctl(-1UL, 0, 0, 0));
}

TEST_F(abi, arguments)
{
	static const unsigned long bad[] = {
		1, 2, 0x80000000UL, 1UL << 32, 1UL << 63, -1UL,
	};
	/* Operations, and how many of their arguments may be 1 */
	static const struct {
		int op, first;
	} ops[] = {
		{ PR_STACKMUX_ENABLE, 1 },
		{ PR_STACKMUX_DISABLE, 0 },
		{ PR_STACKMUX_GET, 0 },
		{ PR_STACKMUX_THREAD, 1 },
	};
	unsigned int i, k;
	int state;

	for (state = 0; state < 2; state++) {
		if (state)
			ASSERT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			for (k = 0; k < ARRAY_SIZE(ops); k++) {
				if (bad[i] != 1 || !ops[k].first)
					EXPECT_EQ(-EINVAL, sm_prctl(ops[k].op, bad[i], 0, 0)) {
						TH_LOG("operation %d, %lx", ops[k].op, bad[i]);
					}
				EXPECT_EQ(-EINVAL, sm_prctl(ops[k].op, 0, bad[i], 0)) {
					TH_LOG("operation %d, %lx", ops[k].op, bad[i]);
				}
				EXPECT_EQ(-EINVAL, sm_prctl(ops[k].op, 0, 0, bad[i])) {
					TH_LOG("operation %d, %lx", ops[k].op, bad[i]);
				}
			}
			if (bad[i] != PR_STACKMUX_F_EXEC)
				EXPECT_EQ(-EINVAL, sm_enable(bad[i] | PR_STACKMUX_F_EXEC));
			/* The operation is all of the argument. */
			if (bad[i] > 8)
				EXPECT_EQ(-EINVAL, sm_prctl(bad[i] | PR_STACKMUX_GET, 0, 0, 0));
		}
		EXPECT_EQ(-EINVAL, sm_prctl(PR_STACKMUX_RETRY + 1, 0, 0, 0));
		/* What was refused has changed nothing. */
		EXPECT_EQ(state ? ENABLED | EXEC | ACTIVE : 0, sm_get());
	}
}

TEST_F(abi, enable_disable_get)
{
	EXPECT_EQ(0, sm_get());
	EXPECT_EQ(0, sm_disable());
	EXPECT_EQ(0, sm_get());
	EXPECT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	EXPECT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	EXPECT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, sm_get());
	/* The flags are those of the last call. */
	EXPECT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	EXPECT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(0, sm_disable());
	EXPECT_EQ(0, sm_get());
}

static void *enable_thread(void *unused)
{
	return (void *)(long)sm_enable(0);
}

static void *disable_thread(void *unused)
{
	return (void *)(long)sm_disable();
}

static void *get_thread(void *unused)
{
	return (void *)(long)sm_get();
}

/* What a thread of its own gets from @fn; -1 if there is none */
static long in_thread(void *(*fn)(void *unused))
{
	pthread_t t;
	void *ret;

	return sm_thread(&t, fn, NULL) || pthread_join(t, &ret) ? -1 : (long)ret;
}

/* It belongs to the process, whichever thread asks. */
TEST_F(abi, threads)
{
	EXPECT_EQ(0, in_thread(enable_thread));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	EXPECT_EQ(ENABLED | ACTIVE, in_thread(get_thread));
	EXPECT_EQ(0, in_thread(disable_thread));
	EXPECT_EQ(0, sm_get());
}

static long sm_mode(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -errno : (long)(st.st_mode & 07777);
}

/* What a forked child finds, and what it finds after exec. */
static int child_get(bool exec)
{
	int status;
	pid_t pid;

	pid = sm_fork();
	if (!pid) {
		if (exec)
			execl("/proc/self/exe", "abi", "--get", NULL);
		_exit(sm_get());
	}
	if (sm_waitpid(pid, &status) || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

TEST_F(abi, fork)
{
	pid_t pid;

	EXPECT_EQ(0, child_get(false));
	ASSERT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE, child_get(false));
	ASSERT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, child_get(false));

	/* A child decides for itself, whatever it shares. */
	pid = SM_FORK();
	if (!pid)
		_exit(sm_disable() || sm_get());
	SM_EXPECT_STATUS(0, pid);
	pid = vfork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(sm_disable() || sm_get());
	SM_EXPECT_STATUS(0, pid);
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, sm_get());
}

TEST_F(abi, exec)
{
	int status;
	pid_t pid;

	EXPECT_EQ(0, child_get(true));
	ASSERT_EQ(0, sm_enable(0));
	EXPECT_EQ(0, child_get(true));
	ASSERT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, child_get(true));

	/* Over two of them, and dropped with the flag. */
	pid = SM_FORK();
	if (!pid) {
		execl("/proc/self/exe", "abi", "--exec-get", NULL);
		_exit(99);
	}
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, WEXITSTATUS(status));
	ASSERT_EQ(0, sm_enable(0));
	EXPECT_EQ(0, child_get(true));
}

/* A program that gains privileges by execve() starts without the setting. */
TEST_F(abi, exec_secure)
{
	static const struct {
		const char *what;
		int mode, want;
		bool cap;
	} files[] = {
		{ "ordinary", 0755, ENABLED | EXEC | ACTIVE },
		{ "set-user-ID", 04755, 0 },
		{ "set-group-ID", 02755, 0 },
		{ "with a capability", 0755, 0, true },
	};
	const struct vfs_cap_data cap = {
		.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
		.data[0].permitted = 1 << CAP_NET_RAW,
	};
	char path[] = "/tmp/stackmux-abi-XXXXXX";
	int fd = mkstemp(path), self_fd = open("/proc/self/exe", O_RDONLY), status;
	struct stat st;
	size_t i;
	pid_t pid;

	ASSERT_EQ(0, fstat(self_fd, &st));
	ASSERT_EQ(st.st_size, sendfile(fd, self_fd, NULL, st.st_size));
	/* Nobody may execute a file that is open for writing. */
	close(fd);
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		ASSERT_EQ(0, chmod(path, files[i].mode));
		if (files[i].cap)
			ASSERT_EQ(0, setxattr(path, "security.capability", &cap, sizeof(cap), 0));
		pid = SM_FORK();
		if (!pid) {
			if (setgid(65534) || setuid(65534) || sm_enable(PR_STACKMUX_F_EXEC))
				_exit(99);
			execl(path, "abi", "--get", NULL);
			_exit(98);
		}
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(files[i].want, WEXITSTATUS(status)) {
			TH_LOG("%s", files[i].what);
		}
	}
	unlink(path);
}

/* A program that fails to exec keeps what it has. */
TEST_F(abi, failed_exec)
{
	ASSERT_EQ(0, sm_enable(0));
	execl("/nonexistent/program", "program", NULL);
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
}

/* Threads that block already go on as they are and park the next time. */
TEST_F(abi, enable_while_blocked)
{
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_EQ(0, parked_now(&self->env));
	ASSERT_EQ(0, sm_enable(0));
	EXPECT_EQ(0, parked_now(&self->env));
	EXPECT_TRUE(finish(self->w, NW, &self->f));
	EXPECT_ALL_PARK();
}

/* Threads that run are reached, too. */
struct runner {
	uint32_t futex, go;
	int rounds;
};

static void *runner_fn(void *p)
{
	struct runner *r = p;

	while (!sm_load(&r->go))
		;
	while (!sm_wait(&r->futex, 0, SM_PRIVATE))
		sm_add(&r->rounds, 1);
	return NULL;
}

TEST_F(abi, enable_while_running)
{
	struct runner r = { 0 };
	pthread_t t;

	ASSERT_EQ(0, sm_thread(&t, runner_fn, &r));
	ASSERT_EQ(0, sm_enable(0));
	sm_store(&r.go, 1);
	ASSERT_TRUE(sm_wait_queued(&r.futex, SM_PRIVATE, 1));
	EXPECT_TRUE(sm_wait_parked(&self->env, 1));
	/* ... and with disable, again while it waits. */
	ASSERT_EQ(0, sm_disable());
	EXPECT_EQ(1, sm_wake(&r.futex, 1, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_until(sm_load(&r.rounds) == 1));
	ASSERT_TRUE(sm_wait_queued(&r.futex, SM_PRIVATE, 1));
	EXPECT_EQ(0, parked_now(&self->env));
	sm_store(&r.futex, 1);
	EXPECT_EQ(1, sm_wake(&r.futex, 1, SM_PRIVATE));
	pthread_join(t, NULL);
}

TEST_F(abi, disable_while_parked)
{
	ASSERT_EQ(0, sm_enable(0));
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));
	ASSERT_EQ(0, sm_disable());
	EXPECT_EQ(0, sm_get());
	EXPECT_EQ(NW, parked_now(&self->env));
	EXPECT_TRUE(finish(self->w, NW, &self->f));
	EXPECT_EQ(0, parked_now(&self->env));
	EXPECT_NONE_PARK();
}

/* kernel.stackmux = 0: nobody parks, opted in or not. */
TEST_F(abi, mode_never)
{
	struct stackmux_retry retry = { .start = 4096, .length = 1, .address = 4096 };

	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	EXPECT_EQ(0, sm_read_long(SM_SYSCTL));
	EXPECT_EQ(0, sm_get());
	EXPECT_EQ(-EOPNOTSUPP, sm_enable(0));
	EXPECT_EQ(-EOPNOTSUPP, sm_prctl(PR_STACKMUX_RETRY, (unsigned long)&retry,
					sizeof(retry), 0));
	EXPECT_EQ(0, sm_prctl(PR_STACKMUX_RETRY, 0, 0, 0));
	EXPECT_EQ(0, sm_get());

	/* Nor does one that has opted in before. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n"));
	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	EXPECT_EQ(ENABLED, sm_get());
	EXPECT_EQ(ENABLED, child_get(false));
	EXPECT_NONE_PARK();

	/* The opt-in was not lost. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n"));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));

	/* Parked threads outlive the switch to never. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	EXPECT_EQ(NW, parked_now(&self->env));
	EXPECT_TRUE(finish(self->w, NW, &self->f));
}

#define UNPARK	SM_SYSFS "unpark"

/* Parks of the whole machine do not say that this thread is parked now. */
static bool has_parked(pid_t tid)
{
	return sm_task_is(getpid(), tid, "parked") || sm_task_is(getpid(), tid, "lingering");
}

/* Parked threads get their stacks back, and their waits go on. */
TEST_F(abi, unpark)
{
	const struct timespec hour = { .tv_sec = 3600 };
	uint64_t sigs = sm_bit(SIGUSR2);
	struct sm_waiter *w = self->w;
	struct line l[NR_BY];
	struct timespec ts;
	int i;

	EXPECT_EQ(0200, sm_mode(UNPARK));
	EXPECT_EQ(-EBUSY, sm_write_file(UNPARK, "1\n"));
	EXPECT_EQ(-EINVAL, sm_write_file(UNPARK, "0\n"));

	ASSERT_EQ(0, sm_enable(0));
	sm_mask_set(sigs);
	for (i = 0; i < NR_BY; i++) {
		ASSERT_EQ(0, line_open(&l[i], i));
		ASSERT_EQ(0, sm_waiter_run(&l[i].w));
	}
	ts = sm_ts(sm_soon_ns());
	sm_call(&w[0], __NR_nanosleep, &ts);
	sm_call(&w[1], __NR_rt_sigtimedwait, &sigs, 0, &hour, 8);
	sm_call(&w[2], __NR_pause);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, sm_waiter_run(&w[i]));
	for (i = 0; i < NR_BY; i++)
		ASSERT_TRUE(sm_wait_until(has_parked(l[i].w.tid)));
	for (i = 1; i < 3; i++)
		ASSERT_TRUE(sm_wait_until(has_parked(w[i].tid)));

	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	ASSERT_EQ(0, sm_write_file(UNPARK, "1\n"));
	EXPECT_EQ(0, sm_read_long(SM_SYSFS "parked"));
	/* Those who have woken go to sleep again. */
	sm_sleep_ms(100 * sm_slow());
	EXPECT_EQ(0, sm_read_long(SM_SYSFS "parked"));
	for (i = 0; i < NR_BY; i++) {
		EXPECT_TRUE(sm_wait_until(sm_task_is(getpid(), l[i].w.tid, "pinned"))) {
			TH_LOG("%s", line_names[i]);
		}
		EXPECT_EQ(0, sm_load(&l[i].w.done));
	}

	for (i = 0; i < NR_BY; i++) {
		ASSERT_TRUE(line_send(&l[i]));
		ASSERT_TRUE(sm_waiter_join(&l[i].w));
		EXPECT_TRUE(line_heard(&l[i])) {
			TH_LOG("%s: %ld", line_names[i], l[i].w.ret);
		}
	}
	SM_JOIN(&w[0], 0);
	SM_EXPECT_TOOK(&w[0], sm_soon_ns());
	EXPECT_EQ(0, sm_nr_done(&w[1], 2));
	EXPECT_EQ(0, sm_signal(&w[1], SIGUSR2));
	SM_JOIN(&w[1], SIGUSR2);
	sm_handle(SIGUSR1, 0);
	SM_EXPECT_INTERRUPTED(&w[2], SIGUSR1);
}

/* kernel.stackmux = 1: only those that opted in. */
TEST_F(abi, mode_optin)
{
	EXPECT_EQ(1, sm_read_long(SM_SYSCTL));
	EXPECT_NONE_PARK();
}

/* kernel.stackmux = 2: everybody. */
TEST_F(abi, mode_always)
{
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "2\n"));
	EXPECT_EQ(2, sm_read_long(SM_SYSCTL));
	EXPECT_EQ(ACTIVE, sm_get());
	EXPECT_EQ(ACTIVE, child_get(false));
	EXPECT_EQ(ACTIVE, child_get(true));
	EXPECT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE, sm_get());
	EXPECT_EQ(0, sm_disable());
	EXPECT_EQ(ACTIVE, sm_get());
	sm_stats_read(&self->env.base);
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));
	/* Back to opt-in while they are parked. */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n"));
	EXPECT_EQ(0, sm_get());
	EXPECT_TRUE(finish(self->w, NW, &self->f));
}

/* Who may exceed kernel.threads-max: some threads, and no child */
TEST_F(abi, threads_max)
{
	static const struct {
		const char *mode, *unlimited;
		bool opts_in, may;
	} cases[] = {
		{ "1\n", "0\n" },
		{ "1\n", "1\n" },
		{ "1\n", "0\n", .opts_in = true, .may = true },
		{ "2\n", "0\n" },
		{ "2\n", "0\n", .opts_in = true },
		{ "2\n", "1\n", .may = true },
	};
	pid_t pid;
	int i;

	/* Later there would be no worker. */
	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(0, sm_write_long("/proc/sys/kernel/threads-max", 20));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		ASSERT_EQ(0, sm_write_file(SM_SYSCTL, cases[i].mode));
		ASSERT_EQ(0, sm_write_file(SM_SYSFS "threads_unlimited", cases[i].unlimited));
		ASSERT_EQ(0, cases[i].opts_in ? sm_enable(0) : sm_disable());
		EXPECT_EQ(cases[i].may, in_thread(get_thread) >= 0) {
			TH_LOG("case %d", i);
		}
		pid = fork();
		if (!pid)
			_exit(0);
		EXPECT_EQ(-1, pid);
		EXPECT_EQ(EAGAIN, errno);
	}
}

TEST_F(abi, sysctl_values)
{
	static const char * const bad[] = {
		"3\n", "-1\n", "always\n", "0x\n", "99999999999999999999\n",
	};
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, sm_write_file(SM_SYSCTL, bad[i])) {
			TH_LOG("value %s", bad[i]);
		}
		EXPECT_EQ(1, sm_read_long(SM_SYSCTL));
	}
	pid = SM_FORK();
	if (!pid) {
		if (setuid(65534))
			_exit(1);
		if (sm_write_file(SM_SYSCTL, "2\n") != -EACCES)
			_exit(2);
		_exit(sm_read_long(SM_SYSCTL) == 1 ? 0 : 3);
	}
	SM_EXPECT_STATUS(0, pid);
}

/* No privilege is needed to opt in. */
TEST_F(abi, unprivileged)
{
	struct sm_waiter *w = sm_shared_alloc(sizeof(*w));
	uint32_t *f = sm_shared_alloc(4096);
	pid_t pid;

	pid = SM_FORK();
	if (!pid) {
		if (setuid(65534) || sm_enable(0) || sm_get() != (ENABLED | ACTIVE))
			_exit(1);
		sm_call(w, __NR_futex, f, FUTEX_WAIT);
		sm_waiter_fn(w);
		_exit(w->ret ? 2 : 0);
	}
	ASSERT_TRUE(sm_wait_queued(f, SM_SHARED, 1));
	EXPECT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_EQ(1, sm_wake(f, 1, SM_SHARED));
	SM_EXPECT_STATUS(0, pid);
}

/* All counters are there and agree with each other. */
TEST_F(abi, counters)
{
	struct sm_stats a, b;
	unsigned int i;
	long val;

	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(0, sm_stats_read(&a));
	for (i = 0; i < ARRAY_SIZE(sm_stat_names); i++) {
		val = *(long *)((char *)&a + sm_stat_names[i].offset);
		EXPECT_GE(val, 0) {
			TH_LOG("no counter '%s'", sm_stat_names[i].name);
		}
	}
	EXPECT_GT(a.record_bytes, 0);
	EXPECT_LE(a.record_bytes, 512);
	EXPECT_GT(a.stacks, 0);		/* the reserves at least */
	EXPECT_LE(a.stacks_idle, a.stacks);
	EXPECT_LE(a.stacks, a.stacks_max);

	sm_stats_read(&self->env.base);
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));
	ASSERT_EQ(0, sm_stats_read(&b));
	EXPECT_GE(b.parks, a.parks + NW);
	EXPECT_GE(b.clones, a.clones + NW);
	EXPECT_GE(b.records, b.parked);
	EXPECT_GE(b.records, NW);
	EXPECT_TRUE(finish(self->w, NW, &self->f));
	ASSERT_EQ(0, sm_stats_read(&b));
	EXPECT_GE(b.resumes + b.noswitch, a.resumes + a.noswitch + NW);
	/* Whoever parked and is not parked now has been resumed. */
	EXPECT_GE(b.resumes + b.parked, b.parks - b.noswitch - b.pins);
}

/* What the line "Stackmux:" of a thread's status says */
#define EXPECT_WORD(what, pid, tid)					\
do {									\
	char __buf[4096];						\
									\
	EXPECT_STREQ(what, sm_task_status(pid, tid, "Stackmux", __buf,	\
					  sizeof(__buf)) ?: "no such line"); \
} while (0)

#define EXPECT_STATUS(what, tid)	EXPECT_WORD(what, getpid(), tid)

static void opt_out(struct sm_waiter *w)
{
	sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0);
}

/* A thread that is left out, in a process whose others park */
TEST_F(abi, thread)
{
	struct sm_waiter *w = &self->w[NW - 1];
	struct sm_stats st;

	EXPECT_EQ(0, sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0));
	EXPECT_EQ(OPTED_OUT, sm_get());
	ASSERT_EQ(0, sm_enable(0));
	EXPECT_EQ(ENABLED | ACTIVE | OPTED_OUT, sm_get());
	EXPECT_STATUS("excluded optout", sm_gettid());
	/* It is the only one: not another thread, no child, no next program. */
	EXPECT_EQ(ENABLED | ACTIVE, in_thread(get_thread));
	EXPECT_EQ(ENABLED | ACTIVE, child_get(false));
	ASSERT_EQ(0, sm_enable(PR_STACKMUX_F_EXEC));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, child_get(true));
	EXPECT_EQ(0, sm_prctl(PR_STACKMUX_THREAD, 0, 0, 0));
	EXPECT_EQ(ENABLED | EXEC | ACTIVE, sm_get());
	EXPECT_STATUS("ready", sm_gettid());

	ASSERT_EQ(0, sm_stats_read(&self->env.base));
	ASSERT_TRUE(start(self->w, NW - 1, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW - 1));
	w->before = opt_out;
	ASSERT_EQ(0, sm_waiter_futex(w, &self->f, 0, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_queued(&self->f, SM_PRIVATE, NW));
	EXPECT_STATUS("parked", self->w[0].tid);
	EXPECT_STATUS("excluded optout", w->tid);
	sm_sleep_ms(100 * sm_slow());
	ASSERT_EQ(0, sm_stats_read(&st));
	EXPECT_EQ(NW - 1, st.parked - self->env.base.parked);
	EXPECT_TRUE(finish(self->w, NW, &self->f));
}

/* Each of the words that /proc/PID/status has for a thread */
TEST_F(abi, status)
{
	const struct sched_param rt = { .sched_priority = 1 }, normal = { };
	struct sm_waiter *w = self->w;
	const char *word;
	char buf[4096];
	int status;
	pid_t pid;

	EXPECT_STATUS("off", sm_gettid());
	ASSERT_TRUE(start(w, 1, &self->f));
	EXPECT_STATUS("off", w->tid);
	EXPECT_TRUE(finish(w, 1, &self->f));

	ASSERT_EQ(0, sm_enable(0));
	EXPECT_STATUS("ready", sm_gettid());
	ASSERT_TRUE(start(w, 1, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_STATUS("parked", w->tid);
	EXPECT_TRUE(finish(w, 1, &self->f));

	ASSERT_EQ(0, sched_setscheduler(0, SCHED_FIFO, &rt));
	EXPECT_STATUS("excluded realtime", sm_gettid());
	ASSERT_EQ(0, sched_setscheduler(0, SCHED_OTHER, &normal));
	EXPECT_STATUS("ready", sm_gettid());

	pid = SM_FORK();
	if (!pid) {
		/* Who is parked when the tracer comes stays so. */
		for (;;)
			sched_yield();
	}
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, 0, 0));
	EXPECT_WORD("excluded traced", pid, pid);
	kill(pid, SIGKILL);
	ASSERT_EQ(0, sm_waitpid(pid, &status));

	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "0\n"));
	EXPECT_STATUS("off", sm_gettid());

	/* A stack that waits for the next one who needs it */
	ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n"));
	ASSERT_EQ(0, sm_write_file(SM_LINGER, "1\n"));
	ASSERT_TRUE(start(w, 1, &self->f));
	/* Unless another thread has needed it by now */
	word = sm_task_status(getpid(), w->tid, "Stackmux", buf, sizeof(buf)) ?: "";
	EXPECT_TRUE(!strcmp(word, "lingering") || !strcmp(word, "parked")) {
		TH_LOG("%s", word);
	}
	EXPECT_TRUE(finish(w, 1, &self->f));
}

/* PR_STACKMUX_STATS: sizes of the structure, and what is in it */
TEST_F(abi, stats)
{
	struct {
		struct stackmux_stats st;
		unsigned char more[64];
	} big, *page;
	const long size = sizeof(big.st);
	struct stackmux_stats st;
	struct sm_stats dbg;
	unsigned int i;

#define STATS(p, n)	sm_prctl(PR_STACKMUX_STATS, (unsigned long)(p), n, 0)

	EXPECT_EQ(size, STACKMUX_STATS_SIZE_VER0);
	EXPECT_EQ(-EINVAL, STATS(&st, 0));
	EXPECT_EQ(-EINVAL, STATS(&st, STACKMUX_STATS_SIZE_VER0 - 1));
	EXPECT_EQ(-EINVAL, sm_prctl(PR_STACKMUX_STATS, (unsigned long)&st, size, 1));
	/* No structure is larger than a page: nothing is cleared or compared for so long. */
	EXPECT_EQ(-E2BIG, STATS(&st, 4097));
	EXPECT_EQ(-E2BIG, STATS(&st, 1UL << 40));
	EXPECT_EQ(-E2BIG, sm_prctl(PR_STACKMUX_RETRY, (unsigned long)&st, 1UL << 40, 0));
	EXPECT_EQ(-EFAULT, STATS(NULL, size));
	EXPECT_EQ(-EFAULT, STATS(-1UL, size));
	page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, page);
	ASSERT_EQ(0, mprotect((char *)page + 4096, 4096, PROT_READ));
	EXPECT_EQ(-EFAULT, STATS((char *)page + 4096 - size + 8, size));
	EXPECT_EQ(-EFAULT, STATS((char *)page + 4096 - size, size + 8));
	EXPECT_EQ(size, STATS((char *)page + 4096 - size, size));
	munmap(page, 8192);

	memset(&big, 0xee, sizeof(big));
	EXPECT_EQ(size, STATS(&big, sizeof(big)));
	for (i = 0; i < sizeof(big.more); i++)
		EXPECT_EQ(0, big.more[i]);

	EXPECT_EQ(size, STATS(&st, size));
	EXPECT_EQ(1, st.threads);
	EXPECT_EQ(0, st.parked + st.lingering + st.pinned + st.excluded);
	EXPECT_LE(16384, st.stack_size);

	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(0, sm_stats_read(&self->env.base));
	ASSERT_TRUE(start(self->w, NW, &self->f));
	EXPECT_TRUE(sm_wait_parked(&self->env, NW));
	ASSERT_EQ(0, sm_stats_read(&dbg));
	EXPECT_EQ(size, STATS(&st, size));
	EXPECT_EQ(NW + 1, st.threads);
	EXPECT_EQ(NW, st.parked);
	EXPECT_EQ(0, st.lingering + st.pinned + st.excluded);
	EXPECT_LE(NW, st.records);
	EXPECT_EQ(dbg.record_bytes, st.record_size);
	EXPECT_EQ(0, sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0));
	EXPECT_EQ(size, STATS(&st, size));
	EXPECT_EQ(1, st.excluded);
	EXPECT_EQ(0, sm_prctl(PR_STACKMUX_THREAD, 0, 0, 0));
	EXPECT_TRUE(finish(self->w, NW, &self->f));
	EXPECT_EQ(size, STATS(&st, size));
	EXPECT_EQ(0, st.parked);
#undef STATS
}

static void *come_and_go(void *arg)
{
	int *stop = arg;

	while (!sm_load(stop))
		if (in_thread(get_thread) < 0)
			return arg;
	return NULL;
}

/* ... while threads come and go, and the kernel has to let others run */
TEST_F(abi, stats_of_many)
{
	const int nr = 3000, movers = 4;
	struct stackmux_stats st;
	struct sm_sleepers s;
	pthread_t t[4];
	int stop = 0, i;

	ASSERT_EQ(0, sm_enable(0));
	ASSERT_EQ(nr, sm_sleepers_create(&s, nr, false));
	ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
	SM_THREADS(t, movers, come_and_go, &stop);
	for (i = 0; i < sm_rounds(400); i++) {
		ASSERT_LT(0, sm_prctl(PR_STACKMUX_STATS, (unsigned long)&st, sizeof(st), 0));
		ASSERT_LE(nr + 1, st.threads);
		/* Those that have been joined may not be gone yet, but nobody counts twice. */
		ASSERT_GE(nr + 100, st.threads);
	}
	sm_store(&stop, 1);
	EXPECT_EQ(0, sm_threads_join(t, movers));
	EXPECT_EQ(nr, sm_sleepers_wake(&s, false));
	EXPECT_EQ(nr, sm_sleepers_reap(&s));
}

/* What users read or tune: one value per file. All other counters are debugfs's. */
TEST_F(abi, sysfs)
{
	static const char * const shown[] = {
		"parked", "records", "record_bytes", "stacks", "stacks_idle",
	};
	static const struct {
		const char *name;
		long max;
	} limits[] = {
		{ "percpu_max", 65536 },
		{ "node_max", 65536 },
		{ "node_low", 4096 },
		{ "preempted_max", 65536 },
		{ "in_place_max", 65536 },
		{ "threads_unlimited", 1 },
	};
	long before, val, max;
	int i, files = 0;
	char path[80];
	struct dirent *d;
	DIR *dir;

	ASSERT_EQ(0, sm_enable(0));
	for (i = 0; i < ARRAY_SIZE(shown); i++) {
		snprintf(path, sizeof(path), SM_SYSFS "%s", shown[i]);
		before = sm_read_key(SM_STATS, shown[i]);
		val = sm_read_long(path);
		EXPECT_LE(0, val);
		/* What goes up and down may have done so meanwhile. */
		if (before == sm_read_key(SM_STATS, shown[i]))
			EXPECT_EQ(before, val) {
				TH_LOG("%s", shown[i]);
			}
		EXPECT_EQ(0444, sm_mode(path));
	}
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		snprintf(path, sizeof(path), SM_SYSFS "%s", limits[i].name);
		max = limits[i].max;
		EXPECT_EQ(0644, sm_mode(path));
		EXPECT_EQ(0, sm_write_long(path, 0));
		EXPECT_EQ(0, sm_write_long(path, max)) {
			TH_LOG("%s", limits[i].name);
		}
		EXPECT_EQ(max, sm_read_long(path));
		EXPECT_EQ(-EINVAL, sm_write_long(path, max + 1));
		EXPECT_EQ(-EINVAL, sm_write_long(path, -1));
		EXPECT_EQ(-EINVAL, sm_write_file(path, "many\n"));
		EXPECT_EQ(max, sm_read_long(path));
	}
	dir = opendir(SM_SYSFS);
	ASSERT_NE(NULL, dir);
	while ((d = readdir(dir)))
		files += d->d_name[0] != '.';
	closedir(dir);
	/* One more: unpark */
	EXPECT_EQ(ARRAY_SIZE(shown) + ARRAY_SIZE(limits) + 1, files);
}

/* The threads that leave make the pool larger; shrink makes it smaller. */
TEST_F(abi, shrink)
{
	struct sm_sleepers s;
	struct sm_stats a, b;
	const int nr = 200;
	int i;

	ASSERT_EQ(0, sm_write_long(SM_SYSFS "node_low", 0));
	ASSERT_EQ(0, sm_write_long(SM_SYSFS "node_max", 1000));
	ASSERT_EQ(0, sm_write_long(SM_SYSFS "percpu_max", 64));
	EXPECT_EQ(0, sm_read_long(SM_SYSFS "node_low"));
	EXPECT_EQ(1000, sm_read_long(SM_SYSFS "node_max"));
	EXPECT_EQ(64, sm_read_long(SM_SYSFS "percpu_max"));

	ASSERT_EQ(0, sm_enable(0));
	sm_rebase(&self->env);
	ASSERT_EQ(nr, sm_sleepers_create(&s, nr, false));
	ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
	ASSERT_TRUE(sm_wait_parked(&self->env, nr));
	EXPECT_EQ(nr, sm_sleepers_wake(&s, false));
	EXPECT_EQ(nr, sm_sleepers_reap(&s));

	ASSERT_EQ(0, sm_stats_read(&a));
	EXPECT_GT(a.stacks_idle, 0);
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, sm_write_file(SM_DEBUGFS "shrink", "100000\n"));
		ASSERT_EQ(0, sm_stats_read(&b));
		if (b.stacks_idle < a.stacks_idle && b.trims > a.trims)
			break;
		sm_sleep_ms(20);
	}
	EXPECT_LT(b.stacks_idle, a.stacks_idle);
	EXPECT_GT(b.trims, a.trims);
	EXPECT_LT(b.stacks, a.stacks);

	ASSERT_EQ(0, sm_write_file(SM_DEBUGFS "reset", "1\n"));
	ASSERT_EQ(0, sm_stats_read(&b));
	EXPECT_LE(b.stacks_max, a.stacks);
	EXPECT_GE(b.stacks_max, b.stacks);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--get"))
		return sm_get();
	if (argc == 2 && !strcmp(argv[1], "--exec-get")) {
		execl("/proc/self/exe", "abi", "--get", NULL);
		return 99;
	}
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
