/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What roundtrip and wakeup share: their common options, and how a line of
 * figures begins and ends.
 */
#ifndef STACKMUX_BENCH_H
#define STACKMUX_BENCH_H

#include "stackmux_test.h"

#ifndef __noreturn
#define __noreturn	__attribute__((__noreturn__))
#endif

extern const char *bench_name;
extern long nr_rounds;
extern long nr_threads;

/* Which column: NOTHING leaves the process as it is, for kernels without stackmux */
enum bench_who { NOTHING, OPTED_OUT, IDLE, PARKING };

extern enum bench_who who;

extern struct sm_stats stats0, stats1;
extern bool have_stats;

void die(const char *what, int err) __noreturn;

/*
 * With --align each measurement starts at a round second of a clock that counts
 * instructions. All that was left over from before has run by then, and timer
 * ticks fall into the same places of it, whatever came before.
 */
void settle(void);
void begin(void);

/* The common end of each line: which way, and what the counters say. */
void finish(bool must_park);

/*
 * Calls that never wait are timed in batches, of which a timer tick hits one in
 * ten: the median is free of ticks and exact to a fraction of an instruction.
 */
#define NR_BATCHES	101

int compare_ns(const void *a, const void *b);
double median_of_batches(int64_t *batch);

void stay_on_cpu(int cpu);
void opt_in(void);

#define BENCH_USAGE							\
"  --park       opt in with prctl(PR_STACKMUX), fail if the kernel has not got it\n" \
"  --idle       do not, but let another process do so\n"		\
"  --no-park    opt out\n"						\
"  --rounds N, --threads N\n"						\
"               how many (defaults 100000 and 10000)\n"			\
"  --align SEC  start at a multiple of so many seconds since boot\n"	\
"  --cpu N      stay on CPU N\n"

/*
 * Understands the options above and @extra, whose argument is a number that goes to
 * @extra_value (both may be NULL). Leaves optind at the first mode; if there is
 * anything wrong, @usage goes to stderr and the program ends.
 */
void bench_options(int argc, char **argv, const char *usage, const char *extra,
		   long *extra_value);

#endif /* STACKMUX_BENCH_H */
