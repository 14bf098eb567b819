// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: a herd of sleeping threads is stopped, continued, frozen,
 * thawed, stopped again and killed, or dumps core. A line for each step, separated by
 * tabs:
 *
 *   STEP CALL TOTAL STACKS PARKED KERNELSTACK
 *
 * CALL: milliseconds in the system call that asks for it, which walks all threads with
 * interrupts off; TOTAL: until all threads are there; STACKS: the most stacks of
 * parking processes at one moment; PARKED: threads without a stack afterwards;
 * KERNELSTACK: in KiB, afterwards.
 */
#define STACKMUX_HELPER
#include "calls.h"

static long nr = 20000;
static bool parking;
static bool have_stats;
static struct sm_stats before;
static int64_t call_ns, start_ns;

/* Shared with the process that is the herd */
static struct herd {
	struct sm_sleepers s;
	uint32_t asleep, crash;
} *herd;

static void die(const char *what)
{
	fprintf(stderr, "standstill: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void begin(void)
{
	if (have_stats)
		sm_write_long(SM_DEBUGFS "reset", 1);
	start_ns = sm_now_ns();
}

static void asked(void)
{
	call_ns = sm_now_ns() - start_ns;
}

static void end(const char *step)
{
	int64_t ns = sm_now_ns() - start_ns;
	struct sm_stats st = { 0 };

	/* The last ones are just leaving. */
	sm_sleep_ms(100);
	if (have_stats)
		sm_stats_read(&st);
	printf("%s\t%.1f\t%.1f\t%ld\t%ld\t%ld\n", step, call_ns / 1e6, ns / 1e6,
	       st.stacks_max, st.parked - before.parked, sm_meminfo_kb("KernelStack"));
	fflush(stdout);
}

static pid_t start(void)
{
	pid_t pid = sm_fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		if (parking && sm_enable(0))
			die("PR_STACKMUX_ENABLE");
		if (sm_sleepers_create(&herd->s, nr, false) != nr)
			die("clone");
		while (!sm_load(&herd->crash)) {
			if (!sm_load(&herd->asleep) && sm_sleepers_waiting(&herd->s) == nr)
				sm_store(&herd->asleep, 1);
			sm_sleep_ms(10);
		}
		abort();
	}
	while (!sm_load(&herd->asleep)) {
		sm_sleep_ms(10);
		if (waitpid(pid, NULL, WNOHANG) == pid)
			exit(1);
	}
	return pid;
}

static void told(pid_t pid, int options)
{
	int status;

	while (waitpid(pid, &status, options) < 0)
		if (errno != EINTR)
			die("waitpid");
}

/* Until all have gone back to sleep: the herd looks itself, at the queue of its futex. */
static void until_waiting(void)
{
	sm_store(&herd->asleep, 0);
	while (!sm_load(&herd->asleep))
		sm_sleep_ms(10);
}

static void send_signal(pid_t pid, const char *step, int sig)
{
	begin();
	if (kill(pid, sig))
		die("kill");
	asked();
	switch (sig) {
	case SIGSTOP:
		told(pid, WUNTRACED);
		break;
	case SIGCONT:
		told(pid, WCONTINUED);
		until_waiting();
		break;
	default:
		told(pid, 0);
	}
	end(step);
}

static bool write_in(const char *dir, const char *name, const char *text)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return !sm_write_file(path, text);
}

static void freeze(pid_t pid, const char *dir)
{
	char path[300], text[32];

	snprintf(text, sizeof(text), "%d", pid);
	if (mkdir(dir, 0755) || !write_in(dir, "cgroup.procs", text)) {
		printf("# no cgroup %s\n", dir);
		return;
	}
	snprintf(path, sizeof(path), "%s/cgroup.events", dir);
	begin();
	write_in(dir, "cgroup.freeze", "1");
	asked();
	sm_wait_until_ns(sm_read_key(path, "frozen") == 1, 600 * SM_SEC);
	end("freeze");
	begin();
	write_in(dir, "cgroup.freeze", "0");
	asked();
	until_waiting();
	end("thaw");
}

int main(int argc, char **argv)
{
	static const char root[] = "/tmp/standstill";
	struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };
	char dir[64];
	pid_t pid;

	if (argc > 1)
		nr = atol(argv[1]);
	if (argc > 2)
		parking = !strcmp(argv[2], "parked");
	sm_mount_debugfs();
	sm_allow_threads(nr);
	setrlimit(RLIMIT_CORE, &core);
	herd = sm_shared_alloc(sizeof(*herd));
	have_stats = !sm_stats_read(&before);
	printf("# step\tcall\ttotal\tstacks\tparked\tKernelStack\n");

	pid = start();
	end("asleep");
	send_signal(pid, "stop", SIGSTOP);
	send_signal(pid, "continue", SIGCONT);
	mkdir(root, 0755);
	if (mount("none", root, "cgroup2", 0, NULL))
		printf("# no cgroup2: %s\n", strerror(errno));
	snprintf(dir, sizeof(dir), "%s/a", root);
	freeze(pid, dir);
	send_signal(pid, "stop", SIGSTOP);
	send_signal(pid, "kill", SIGKILL);

	memset(herd, 0, sizeof(*herd));
	sm_write_file("/proc/sys/kernel/core_pattern", "|/bin/dd of=/dev/null bs=1M\n");
	pid = start();
	begin();
	sm_store(&herd->crash, 1);
	asked();
	told(pid, 0);
	end("core");
	return 0;
}
