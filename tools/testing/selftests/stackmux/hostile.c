// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: what a bystander notices of an unprivileged user who tries
 * everything at once for so many seconds:
 *
 *   hostile [SECONDS]
 *
 * A line each, with a name and a number: by how many microseconds the bystander's sleeps
 * of 5 ms ended late (half of them, 99 of 100, all), how many there were, the least
 * memory that was available meanwhile, how many rounds each attack got through.
 */
#define STACKMUX_HELPER
#include "calls.h"
#include <poll.h>
#include <sys/wait.h>

#define UID		1000
#define NAP_NS		(5 * SM_MSEC)
#define MAX_NAPS	65536
#define NR		1000	/* threads of a herd */

struct attack {
	const char *name;
	void (*round)(void);
};

static struct shared {
	int stop;
	long nr_naps;
	uint32_t late_us[MAX_NAPS];
	long rounds[16];
	long refused;
} *shared;

static void die(const char *what)
{
	fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ------------------------------------------------------------------ bystander */

static void bystander(void)
{
	int64_t begin, late;

	while (!sm_load(&shared->stop)) {
		begin = sm_now_ns();
		sm_sleep_ns(NAP_NS);
		late = (sm_now_ns() - begin - NAP_NS) / 1000;
		if (shared->nr_naps < MAX_NAPS)
			shared->late_us[shared->nr_naps++] = late > 0 ? late : 0;
	}
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* -------------------------------------------------------------------- attacks */

/* Calls @fn in a process of its own, which is killed unless it ends. */
static void in_process(void (*fn)(void), int ms)
{
	int status;
	pid_t pid = sm_fork();

	if (pid < 0)
		return;
	if (!pid) {
		fn();
		_exit(0);
	}
	if (ms)
		sm_sleep_ms(ms);
	kill(pid, ms ? SIGKILL : 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

static struct sm_sleepers sleepers;

static void herd(long nr)
{
	sm_enable(0);
	sm_sleepers_create(&sleepers, nr, false);
}

/* A herd is woken at once and goes away. */
static void wake_all(void)
{
	herd(NR);
	sm_sleep_ms(20);
	sm_sleepers_wake(&sleepers, false);
	sm_sleepers_reap(&sleepers);
}

static void wake_round(void)
{
	in_process(wake_all, 0);
}

/* ... and each of its threads blocks in a call that keeps its stack. */
static void block_all(void)
{
	long i;
	int p[2];

	if (pipe2(p, O_NONBLOCK))
		return;
	while (write(p[1], shared, 4096) > 0)
		;
	fcntl(p[1], F_SETFL, 0);
	herd(NR);
	sm_sleep_ms(20);
	for (i = 0; i < sleepers.nr; i++)
		sleepers.slot[i].again = (void *)(long)p[1];
	sleepers.call = __NR_write;
	sleepers.arg[1] = (long)shared;
	sleepers.arg[2] = 1;
	sleepers.futex = 1;
	sm_wake(&sleepers.futex, INT_MAX, SM_PRIVATE);
	for (;;)
		pause();
}

static void block_round(void)
{
	in_process(block_all, 300);
}

/* It is stopped and continued, again and again. */
static void stop_round(void)
{
	static pid_t pid;
	int i, status;

	if (!pid) {
		pid = sm_fork();
		if (!pid) {
			herd(NR);
			for (;;)
				pause();
		}
		sm_sleep_ms(200);
	}
	for (i = 0; i < 10; i++) {
		kill(pid, SIGSTOP);
		waitpid(pid, &status, WUNTRACED);
		kill(pid, SIGCONT);
	}
}

/* Sets of descriptors and structures of absurd sizes, in memory that is not there */
static void size_round(void)
{
	struct rlimit files;
	size_t size;

	getrlimit(RLIMIT_NOFILE, &files);
	poll(NULL, files.rlim_max, 0);
	poll((void *)4096, files.rlim_max - 1, 0);
	for (size = 1; size; size <<= 1) {
		sm_prctl(5, 4096, size, 0);
		sm_prctl(6, 4096, size - 1, 0);
	}
	sm_add(&shared->refused, 1);
}

/* Threads that come and go; a new program, opted in */
static void *nothing(void *p)
{
	return p;
}

static void churn(void)
{
	pthread_t thread;
	int i;

	sm_enable(PR_STACKMUX_F_EXEC);
	for (i = 0; i < 100; i++)
		if (!sm_thread(&thread, nothing, NULL))
			pthread_join(thread, NULL);
	execl("/bin/true", "true", NULL);
}

static void churn_round(void)
{
	in_process(churn, 0);
}

/* Two threads that wake each other, and one of them has opted out */
static uint32_t ball[2];

static void *opponent(void *p)
{
	sm_prctl(PR_STACKMUX_THREAD, PR_STACKMUX_T_OPTOUT, 0, 0);
	for (;;) {
		sm_wait_ns(&ball[0], sm_load(&ball[0]), SM_PRIVATE, SM_MSEC);
		sm_add(&ball[1], 1);
		sm_wake(&ball[1], 1, SM_PRIVATE);
	}
	return p;
}

static void ball_round(void)
{
	static bool playing;
	pthread_t thread;
	int i;

	if (!playing) {
		sm_enable(0);
		playing = !sm_thread(&thread, opponent, NULL);
	}
	for (i = 0; i < 1000; i++) {
		sm_add(&ball[0], 1);
		sm_wake(&ball[0], 1, SM_PRIVATE);
		sm_wait_ns(&ball[1], sm_load(&ball[1]), SM_PRIVATE, SM_MSEC);
	}
}

static const struct attack attacks[] = {
	{ "wake", wake_round },
	{ "block", block_round },
	{ "stop", stop_round },
	{ "sizes", size_round },
	{ "churn", churn_round },
	{ "ball", ball_round },
};

static pid_t attack_start(int i)
{
	pid_t pid = sm_fork();

	if (pid)
		return pid;
	if (setgid(UID) || setuid(UID))
		_exit(1);
	while (!sm_load(&shared->stop)) {
		attacks[i].round();
		sm_add(&shared->rounds[i], 1);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	long seconds = argc > 1 ? atol(argv[1]) : 10, mem, least;
	struct rlimit files = { 1 << 20, 1 << 20 };
	pid_t pid[ARRAY_SIZE(attacks)], nobody;
	int64_t end;
	size_t i;

	shared = sm_shared_alloc(sizeof(*shared));
	setrlimit(RLIMIT_NOFILE, &files);
	sm_allow_threads(8 * NR);
	nobody = sm_fork();
	if (!nobody)
		bystander();
	for (i = 0; i < ARRAY_SIZE(attacks); i++) {
		pid[i] = attack_start(i);
		if (pid[i] < 0)
			die("fork");
	}
	least = sm_meminfo_kb("MemAvailable");
	for (end = sm_now_ns() + seconds * SM_SEC; sm_now_ns() < end; sm_sleep_ms(50)) {
		mem = sm_meminfo_kb("MemAvailable");
		if (mem < least)
			least = mem;
	}
	sm_store(&shared->stop, 1);
	waitpid(nobody, NULL, 0);
	for (i = 0; i < ARRAY_SIZE(attacks); i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	if (!shared->nr_naps)
		die("the bystander has not run");
	qsort(shared->late_us, shared->nr_naps, sizeof(*shared->late_us), compare);
	printf("late_median_us %u\n", shared->late_us[shared->nr_naps / 2]);
	printf("late_99_us %u\n", shared->late_us[shared->nr_naps * 99 / 100]);
	printf("late_most_us %u\n", shared->late_us[shared->nr_naps - 1]);
	printf("naps %ld\n", shared->nr_naps);
	printf("available_least_kib %ld\n", least);
	for (i = 0; i < ARRAY_SIZE(attacks); i++)
		printf("rounds_%s %ld\n", attacks[i].name, shared->rounds[i]);
	return 0;
}
