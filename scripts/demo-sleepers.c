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
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../include/uapi/linux/stackmux.h"

#define STATS		"/sys/kernel/debug/stackmux/stats"
#define SAMPLES		25
/* What has to stay free for everything but the sleepers, in KiB */
#define HEADROOM_KB	(96 * 1024)

/* Shared with the sleepers, which know its layout. */
static struct {
	int futex;		/* they wait for this to become non-zero */
	int woken_zero;		/* waits that returned 0 */
	int woken_other;	/* ... that returned anything else */
} shared __attribute__((__aligned__(64)));

#define CLONE_SLEEPER	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | \
			 CLONE_THREAD | CLONE_SYSVSEM)

/*
 * clone() whose child waits for shared.futex once, counts what that returned,
 * and exits; it never touches its stack.
 */
static long clone_sleeper(void)
{
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;
	long ret;

	__asm__ volatile("syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 2f\n\t"
			 "leaq %[shared], %%rdi\n\t"
			 "movl %[wait], %%esi\n\t"
			 "xorl %%edx, %%edx\n\t"
			 "xorl %%r10d, %%r10d\n\t"
			 "movl %[futex], %%eax\n\t"
			 "syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "lock incl 4(%%rdi)\n\t"
			 "jmp 3f\n"
			 "1:\n\t"
			 "lock incl 8(%%rdi)\n"
			 "3:\n\t"
			 "xorl %%edi, %%edi\n\t"
			 "movl %[exit], %%eax\n\t"
			 "syscall\n"
			 "2:\n\t"
			 : "=a" (ret)
			 : "0" ((long)SYS_clone), "D" ((long)CLONE_SLEEPER),
			   "S" (0L), "d" (0L), "r" (r10), "r" (r8),
			   [shared] "m" (shared), [wait] "i" (FUTEX_WAIT_PRIVATE),
			   [futex] "i" (SYS_futex), [exit] "i" (SYS_exit)
			 : "rcx", "r11", "memory", "cc");
	return ret < 0 ? (errno = -ret, -1) : ret;
}

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
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* The number behind @name in a file of "name number" lines */
static long value_of(const char *file, const char *name)
{
	size_t len = strlen(name);
	char line[256];
	long val = -1;
	FILE *f = fopen(file, "r");

	if (!f)
		die("cannot read %s: %s", file, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, len) && strchr(": \t", line[len])) {
			val = strtol(line + len + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	if (val < 0)
		die("no %s in %s", name, file);
	return val;
}

static void write_file(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("cannot write %s: %s", file, strerror(errno));
	close(fd);
}

static long mem_free_kb(void)
{
	return value_of("/proc/meminfo", "MemFree");
}

/* Until every task but this one sleeps */
static void wait_asleep(void)
{
	while (value_of("/proc/stat", "procs_running") > 1)
		usleep(2000);
}

static long wake(int nr)
{
	return syscall(SYS_futex, &shared.futex, FUTEX_WAKE_PRIVATE, nr, NULL, NULL, 0);
}

/*
 * All at once, but not in one call: FUTEX_WAKE does not reschedule between two
 * threads, and a million of them would hold an emulated CPU long enough for RCU
 * to complain, with or without stacks.
 */
static void wake_all(long n)
{
	long woken = 0, got;

	__atomic_store_n(&shared.futex, 1, __ATOMIC_SEQ_CST);
	while ((got = wake(20000)) > 0)
		woken += got;
	if (woken != n)
		die("the wake-up reached %ld of %ld threads", woken, n);
	while (__atomic_load_n(&shared.woken_zero, __ATOMIC_SEQ_CST) +
	       __atomic_load_n(&shared.woken_other, __ATOMIC_SEQ_CST) < n)
		usleep(1000);
	while (value_of("/proc/self/status", "Threads") > 1)
		usleep(1000);
}

static void opt_in(void)
{
	if (prctl(PR_STACKMUX, PR_STACKMUX_ENABLE, 0, 0, 0))
		die("prctl(PR_STACKMUX): %s: is this a stackmux kernel?",
		    strerror(errno));
}

static void result(const char *mode, const char *name, double val)
{
	printf("result %s %s %.3f\n", mode, name, val);
}

/* The child: N threads asleep, then woken all at once. */
static void compare(const char *mode, long n)
{
	long step = n / SAMPLES ?: 1, i, before, after, stack;
	double start, create, woken;

	before = mem_free_kb();
	printf("sample %s 0 0\n", mode);
	start = now_s();
	create = 0;
	for (i = 1; i <= n; i++) {
		if (clone_sleeper() < 0)
			die("clone() of thread %ld: %s", i, strerror(errno));
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
		result(mode, "parked_threads", value_of(STATS, "parked"));
		result(mode, "stacks", value_of(STATS, "stacks"));
		result(mode, "stacks_idle", value_of(STATS, "stacks_idle"));
		result(mode, "record_bytes", value_of(STATS, "record_bytes"));
		write_file("/sys/kernel/debug/stackmux/reset", "1");
	}

	start = now_s();
	wake_all(n);
	woken = now_s() - start;
	result(mode, "wake_us", woken * 1e6 / n);
	result(mode, "woken_zero", shared.woken_zero);
	result(mode, "woken_other", shared.woken_other);
	if (!strcmp(mode, "parked"))
		result(mode, "stacks_max", value_of(STATS, "stacks_max"));
	exit(shared.woken_zero == n ? 0 : 1);
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
	result("most", "woken_zero", shared.woken_zero);
	exit(shared.woken_zero == n ? 0 : 1);
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
		if (strcmp(mode, "classic"))
			opt_in();
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
	if (access("/sys/kernel/debug/stackmux", F_OK))
		mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
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
