// SPDX-License-Identifier: GPL-2.0
#include <getopt.h>

#include "bench.h"

const char *bench_name;
long nr_rounds = 100000;
long nr_threads = 10000;
static long align_sec;
enum bench_who who = NOTHING;
struct sm_stats stats0, stats1;
bool have_stats;

void die(const char *what, int err)
{
	fprintf(stderr, "%s: %s%s%s\n", bench_name, what, err ? ": " : "",
		err ? strerror(err) : "");
	exit(1);
}

void settle(void)
{
	int64_t step = align_sec * SM_SEC;
	struct timespec ts;

	if (!align_sec)
		return;
	ts = sm_ts((sm_now_ns() / step + 1) * step);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

void begin(void)
{
	have_stats = !sm_stats_read(&stats0);
	settle();
}

void finish(bool must_park)
{
	printf(" park=%d", who == PARKING);
	if (have_stats && !sm_stats_read(&stats1)) {
		printf(" parks=%ld resumes=%ld lingered=%ld noswitch=%ld pins=%ld",
		       stats1.parks - stats0.parks,
		       stats1.resumes - stats0.resumes,
		       stats1.lingered - stats0.lingered,
		       stats1.noswitch - stats0.noswitch,
		       stats1.pins - stats0.pins);
	}
	printf("\n");
	fflush(stdout);
	if (who == PARKING && have_stats && must_park &&
	    stats1.parks == stats0.parks && stats1.lingered == stats0.lingered)
		die("opted in, but nothing has parked", 0);
}

int compare_ns(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

double median_of_batches(int64_t *batch)
{
	qsort(batch, NR_BATCHES, sizeof(*batch), compare_ns);
	return batch[NR_BATCHES / 2];
}

void stay_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot use that CPU", errno);
}

void opt_in(void)
{
	int ret = sm_enable(0);

	if (ret)
		die("prctl(PR_STACKMUX, PR_STACKMUX_ENABLE)", -ret);
	if (!(sm_get() & PR_STACKMUX_ACTIVE))
		die("opted in, but kernel.stackmux is 0", 0);
}

#define HOLD_FD	3

/* What the helper does: opts in, tells so, and sleeps without a stack. */
static void hold(void)
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
static void start_helper(void)
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

void bench_options(int argc, char **argv, const char *usage, const char *extra,
		   long *extra_value)
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
