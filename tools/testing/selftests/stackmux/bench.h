/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What roundtrip and wakeup share: their common options, and how a line of
 * figures begins and ends.
 */
#ifndef STACKMUX_BENCH_H
#define STACKMUX_BENCH_H

#include <getopt.h>

#include "stackmux_test.h"

static const char *bench_name;
static long nr_rounds = 100000;
static long nr_threads = 10000;
static long align_sec;

/* Which column: NOTHING leaves the process as it is, for kernels without stackmux */
enum bench_who { NOTHING, OPTED_OUT, IDLE, PARKING };

static enum bench_who who = NOTHING;

static struct sm_stats stats0, stats1;
static bool have_stats;

static inline void __noreturn die(const char *what, int err)
{
	fprintf(stderr, "%s: %s%s%s\n", bench_name, what, err ? ": " : "",
		err ? strerror(err) : "");
	exit(1);
}

/*
 * With --align each measurement starts at a round second of a clock that counts
 * instructions. All that was left over from before has run by then, and timer
 * ticks fall into the same places of it, whatever came before.
 */
static inline void settle(void)
{
	int64_t step = align_sec * SM_SEC;
	struct timespec ts;

	if (!align_sec)
		return;
	ts = sm_ts((sm_now_ns() / step + 1) * step);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static inline void begin(void)
{
	have_stats = !sm_stats_read(&stats0);
	settle();
}

/* The common end of each line: which way, and what the counters say. */
static inline void finish(bool must_park)
{
	printf(" park=%d", who == PARKING);
	if (have_stats && !sm_stats_read(&stats1)) {
		printf(" parks=%ld resumes=%ld lingered=%ld noswitch=%ld keeps=%ld",
		       stats1.parks - stats0.parks,
		       stats1.resumes - stats0.resumes,
		       stats1.lingered - stats0.lingered,
		       stats1.noswitch - stats0.noswitch,
		       stats1.keeps - stats0.keeps);
	}
	printf("\n");
	fflush(stdout);
	if (who == PARKING && have_stats && must_park &&
	    stats1.parks == stats0.parks && stats1.lingered == stats0.lingered)
		die("opted in, but nothing has parked", 0);
}

/*
 * Calls that never wait are timed in batches, of which a timer tick hits one in
 * ten: the median is free of ticks and exact to a fraction of an instruction.
 */
#define NR_BATCHES	101

static inline int compare_ns(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static inline double median_of_batches(int64_t *batch)
{
	qsort(batch, NR_BATCHES, sizeof(*batch), compare_ns);
	return batch[NR_BATCHES / 2];
}

/* ------------------------------------------------------------------ options */

#define BENCH_USAGE							\
"  --park       opt in with prctl(PR_STACKMUX), fail if the kernel has not got it\n" \
"  --idle       do not, but let another process do so\n"		\
"  --no-park    opt out\n"						\
"  --rounds N, --threads N\n"						\
"               how many (defaults 100000 and 10000)\n"			\
"  --align SEC  start at a multiple of so many seconds since boot\n"	\
"  --cpu N      stay on CPU N\n"

static inline void stay_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot use that CPU", errno);
}

static inline void opt_in(void)
{
	int ret = sm_enable(0);

	if (ret)
		die("prctl(PR_STACKMUX, PR_STACKMUX_ENABLE)", -ret);
	if (!(sm_get() & PR_STACKMUX_ACTIVE))
		die("opted in, but kernel.stackmux is 0", 0);
}

#define HOLD_FD	3

/* What the helper does: opts in, tells so, and sleeps without a stack. */
static inline void hold(void)
{
	opt_in();
	if (write(HOLD_FD, "", 1) != 1)
		die("write", errno);
	close(HOLD_FD);
	for (;;)
		pause();
}

/*
 * A process that has opted in, as long as we live. A program of its own: if it shared
 * our pages, our fork() would have more to do.
 */
static inline void start_helper(void)
{
	int fd[2];
	pid_t pid;
	char c;

	if (pipe(fd))
		die("pipe", errno);
	pid = sm_fork();
	if (pid < 0)
		die("fork", errno);
	if (!pid) {
		if (dup2(fd[1], HOLD_FD) == HOLD_FD)
			execl("/proc/self/exe", bench_name, "--hold", NULL);
		die("cannot start the process that is to opt in", errno);
	}
	close(fd[1]);
	if (read(fd[0], &c, 1) != 1)
		die("the process that is to opt in has failed", 0);
	close(fd[0]);
}

/*
 * Understands the options above and @extra, whose argument is a number that goes to
 * @extra_value (both may be NULL). Leaves optind at the first mode; if there is
 * anything wrong, @usage goes to stderr and the program ends.
 */
static inline void bench_options(int argc, char **argv, const char *usage,
				 const char *extra, long *extra_value)
{
	const struct option options[] = {
		{ "park", no_argument, NULL, 'p' },
		{ "idle", no_argument, NULL, 'i' },
		{ "no-park", no_argument, NULL, 'n' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "threads", required_argument, NULL, 't' },
		{ "align", required_argument, NULL, 'a' },
		{ "cpu", required_argument, NULL, 'c' },
		{ "hold", no_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ extra, required_argument, NULL, 'x' },
		{ }
	};
	int opt;

	bench_name = basename(argv[0]);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			who = PARKING;
			break;
		case 'i':
			who = IDLE;
			break;
		case 'n':
			who = OPTED_OUT;
			break;
		case 'o':
			hold();
			break;
		case 'r':
			nr_rounds = atol(optarg);
			break;
		case 't':
			nr_threads = atol(optarg);
			break;
		case 'a':
			align_sec = atol(optarg);
			break;
		case 'c':
			stay_on_cpu(atoi(optarg));
			break;
		case 'x':
			*extra_value = atol(optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind == argc || nr_rounds < 1 || nr_threads < 1 || align_sec < 0) {
		fputs(usage, stderr);
		exit(2);
	}
	sm_mount_debugfs();
	if (who == PARKING)
		opt_in();
	else if (who == OPTED_OUT && sm_present())
		sm_disable();
	else if (who == IDLE)
		start_helper();
}

#endif /* STACKMUX_BENCH_H */
