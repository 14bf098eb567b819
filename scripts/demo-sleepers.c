// SPDX-License-Identifier: GPL-2.0
/*
 * Puts threads to sleep in futex() and says what they cost
 *
 * usage: demo-sleepers compare N | parked N | most | both N
 *
 * Runs in the guest of "make demo", as root, statically linked and with nothing
 * else around. The threads are raw clones whose user part is a few instructions
 * that touch no user stack: what memory they take is the kernel's.
 *
 * Prints "name value" lines for scripts/demo: "sample MODE THREADS KIB",
 * "result MODE NAME VALUE", and "progress TEXT".
 */
#include "../tools/testing/selftests/stackmux/stackmux_test.h"

#define SAMPLES		25
/* What has to stay free for everything but the sleepers, in KiB */
#define HEADROOM_KB	(96 * 1024)

static struct sm_sleepers sleepers;

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("demo-sleepers: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static double now_s(void)
{
	return sm_now_ns() / 1e9;
}

/* The number behind @name in a file of "name number" lines */
static long value_of(const char *file, const char *name)
{
	long val = sm_read_key(file, name);

	if (val < 0)
		die("no %s in %s", name, file);
	return val;
}

static void write_file(const char *file, const char *text)
{
	int err = sm_write_file(file, text);

	if (err)
		die("cannot write %s: %s", file, strerror(-err));
}

static long mem_free_kb(void)
{
	return value_of("/proc/meminfo", "MemFree");
}

static void result(const char *mode, const char *name, double val)
{
	printf("result %s %s %.3f\n", mode, name, val);
}

/* Until every task but this one sleeps */
static void wait_asleep(void)
{
	while (value_of("/proc/stat", "procs_running") > 1)
		usleep(2000);
}

static long clone_sleeper(void)
{
	return sm_sleeper(&sleepers, sleepers.arg[0], NULL);
}

/*
 * All at once, but not in one call: FUTEX_WAKE does not reschedule between two
 * threads, and a million of them would hold an emulated CPU long enough for RCU
 * to complain, with or without stacks.
 */
static void wake_all(long n)
{
	long woken = 0, got;

	sm_store(&sleepers.futex, 1);
	while ((got = sm_wake(&sleepers.futex, 20000, SM_PRIVATE)) > 0)
		woken += got;
	if (woken != n)
		die("the wake-up reached %ld of %ld threads", woken, n);
	while (sm_load(&sleepers.returned) < n)
		usleep(1000);
	while (value_of("/proc/self/status", "Threads") > 1)
		usleep(1000);
}

/* How they came back; those that should not are a failure. */
static int result_woken(const char *mode, long n)
{
	result(mode, "woken_zero", sleepers.returned - sleepers.failed);
	result(mode, "woken_other", sleepers.failed);
	return sleepers.returned - sleepers.failed != n;
}

/* The child: N threads asleep, then woken all at once. */
static void compare(const char *mode, long n)
{
	long step = n / SAMPLES ?: 1, i, err, before, after, stack;
	double start, create, woken;

	before = mem_free_kb();
	printf("sample %s 0 0\n", mode);
	start = now_s();
	create = 0;
	for (i = 1; i <= n; i++) {
		err = clone_sleeper();
		if (err < 0)
			die("clone() of thread %ld: %s", i, strerror(-err));
		if (i % step && i != n)
			continue;
		wait_asleep();
		create += now_s() - start;
		printf("sample %s %ld %ld\n", mode, i, before - mem_free_kb());
		printf("progress %s: %ld threads asleep\n", mode, i);
		start = now_s();
	}
	after = mem_free_kb();
	stack = value_of("/proc/meminfo", "KernelStack");
	result(mode, "threads", n);
	result(mode, "kib_per_thread", (double)(before - after) / n);
	result(mode, "kernelstack_kib", stack);
	result(mode, "create_us", create * 1e6 / n);
	if (!strcmp(mode, "parked")) {
		result(mode, "parked_threads", value_of(SM_STATS, "parked"));
		result(mode, "stacks", value_of(SM_STATS, "stacks"));
		result(mode, "stacks_idle", value_of(SM_STATS, "stacks_idle"));
		result(mode, "record_bytes", value_of(SM_STATS, "record_bytes"));
		write_file(SM_DEBUGFS "reset", "1");
	}

	start = now_s();
	wake_all(n);
	woken = now_s() - start;
	result(mode, "wake_us", woken * 1e6 / n);
	if (!strcmp(mode, "parked"))
		result(mode, "stacks_max", value_of(SM_STATS, "stacks_max"));
	exit(result_woken(mode, n));
}

/* The child: as many parked threads as fit. */
static void most(void)
{
	double start = now_s();
	long n = 0, per_step = 2000;

	while (mem_free_kb() > HEADROOM_KB) {
		long i;

		for (i = 0; i < per_step; i++) {
			if (clone_sleeper() < 0)
				goto full;
			n++;
		}
		if (n % (5 * per_step) == 0)
			printf("progress %ld parked threads, %ld MiB free\n", n,
			       mem_free_kb() / 1024);
	}
full:
	wait_asleep();
	result("most", "threads", n);
	result("most", "kernelstack_kib", value_of("/proc/meminfo", "KernelStack"));
	result("most", "seconds", now_s() - start);
	wake_all(n);
	exit(result_woken("most", n));
}

/* Runs one measurement in a process of its own, and waits for its memory. */
static void run(const char *mode, long n)
{
	long before = mem_free_kb(), left;
	int status, i;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid) {
		sm_sleepers_init(&sleepers);
		if (strcmp(mode, "classic") && sm_enable(0))
			die("cannot opt in: is this a stackmux kernel?");
		if (!strcmp(mode, "most"))
			most();
		compare(mode, n);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
		die("the %s measurement failed (status %#x)", mode, status);

	/* The last thread_structs and slabs go by RCU. */
	for (i = 0; i < 100; i++) {
		left = before - mem_free_kb();
		if (left < before / 100)
			break;
		write_file("/proc/sys/vm/drop_caches", "3");
		usleep(100000);
	}
	result(mode, "left_kib", left);
}

/* An initramfs has nothing mounted yet. */
static void mount_all(void)
{
	if (access("/proc/self", F_OK)) {
		mkdir("/proc", 0555);
		mount("proc", "/proc", "proc", 0, NULL);
	}
	if (access("/sys/kernel", F_OK)) {
		mkdir("/sys", 0555);
		mount("sysfs", "/sys", "sysfs", 0, NULL);
	}
	sm_mount_debugfs();
}

int main(int argc, char **argv)
{
	long n = argc > 2 ? atol(argv[2]) : 0, fits;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2 || (strcmp(argv[1], "most") && n < 1))
		die("usage: demo-sleepers compare N | parked N | most | both N");
	mount_all();
	write_file("/proc/sys/kernel/pid_max", "4194304");
	/* For the classic threads; a process that parks is not held by it. */
	write_file("/proc/sys/kernel/threads-max", "4194304");

	if (!strcmp(argv[1], "parked")) {
		run("parked", n);
		return 0;
	}
	if (strcmp(argv[1], "most")) {
		/* About 26 KiB each: if they do not all fit, as many as do */
		fits = (mem_free_kb() - HEADROOM_KB) / 26;
		run("classic", n < fits ? n : fits);
		run("parked", n);
	}
	if (strcmp(argv[1], "compare"))
		run("most", 0);
	return 0;
}
