// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: herds of sleeping threads, what it takes to create and
 * to wake them, and how long one that was woken waits for the CPU. One line of
 * key=value pairs on stdout. Under an emulator that counts a nanosecond for each
 * instruction the times are instructions.
 *
 * Linked statically, so that it runs in a system that has nothing else.
 */
#include <sys/eventfd.h>

#include "bench.h"

/* -------------------------------------------------------------------- herds */

static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi));
	return (uint64_t)hi << 32 | lo;
}

struct herd {
	struct sm_sleepers s;
	struct sm_stats asleep;
	int64_t clone_ns, wake_ns;
	int64_t tsc_hz;
	uint64_t delay_max;	/* from wake to run, in time stamp counts */
	uint32_t again;
	long stack_kb[3], avail_kb[3];	/* before, asleep, after */
};

static void look(struct herd *h, int when)
{
	h->stack_kb[when] = sm_meminfo_kb("KernelStack");
	h->avail_kb[when] = sm_meminfo_kb("MemAvailable");
}

/*
 * Leave the CPU to the others, without a timer that would add idle time. To count
 * the waiters of many futexes takes a walk through a hash chain for each; there the
 * wakes tell whether all of them slept.
 */
static void until_asleep(struct sm_sleepers *s)
{
	while (sm_load(&s->entered) < s->nr)
		sched_yield();
	if (s->own) {
		sm_sleep_ms(1000);
		return;
	}
	while (sm_sleepers_waiting(s) < s->nr)
		sched_yield();
}

static void until_gone(struct sm_slot *slot)
{
	while (sm_load(&slot->tid))
		sched_yield();
}

static void create_herd(struct herd *h, bool own)
{
	int64_t t0;

	memset(h, 0, sizeof(*h));
	sm_allow_threads(nr_threads);
	begin();
	look(h, 0);
	t0 = sm_now_ns();
	if (sm_sleepers_create(&h->s, nr_threads, own) != nr_threads) {
		fprintf(stderr, "wakeup: only %ld of %ld threads: %s\n",
			h->s.nr, nr_threads, strerror(errno));
		if (!h->s.nr)
			exit(1);
	}
	until_asleep(&h->s);
	h->clone_ns = sm_now_ns() - t0;
	if (who == PARKING && have_stats)
		sm_wait_until(!sm_stats_read(&h->asleep) &&
			      h->asleep.parked - stats0.parked >= h->s.nr);
	look(h, 1);
	if (have_stats)
		sm_write_long(SM_DEBUGFS "reset", 1);
	settle();
}

static void saw_delay(struct herd *h, uint64_t delay)
{
	if (delay > h->delay_max)
		h->delay_max = delay;
}

static void until_all_gone(struct herd *h)
{
	long i;

	for (i = 0; i < h->s.nr; i++)
		until_gone(&h->s.slot[i]);
}

static void until_asleep_again(struct herd *h)
{
	while (sm_load(&h->s.returned) < h->s.nr)
		sched_yield();
	while (sm_nr_waiters(&h->again, SM_PRIVATE) < h->s.nr)
		sched_yield();
}

/* All by one call */
static void wake_all(struct herd *h, void (*until_done)(struct herd *h))
{
	uint64_t tsc0 = rdtsc(), tsc1;
	int64_t t0 = sm_now_ns();
	long i;

	if (sm_sleepers_wake(&h->s, false) != h->s.nr)
		die("not all of them were woken", 0);
	until_done(h);
	h->wake_ns = sm_now_ns() - t0;
	tsc1 = rdtsc();
	for (i = 0; i < h->s.nr; i++)
		saw_delay(h, h->s.slot[i].woken_tsc - tsc0);
	h->tsc_hz = (double)(tsc1 - tsc0) * SM_SEC / h->wake_ns;
}

static void wake_all_to_exit(struct herd *h)
{
	wake_all(h, until_all_gone);
}

static void wake_all_to_wait(struct herd *h)
{
	long i;

	for (i = 0; i < h->s.nr; i++)
		h->s.slot[i].again = &h->again;
	wake_all(h, until_asleep_again);
}

/* Each by a call of its own, when the one before it is gone */
static void wake_each(struct herd *h)
{
	uint64_t tsc0 = rdtsc(), tsc;
	int64_t t0 = sm_now_ns();
	struct sm_slot *slot;
	long i;

	for (i = 0; i < h->s.nr; i++) {
		slot = &h->s.slot[i];
		tsc = rdtsc();
		if (sm_wake(&slot->futex, 1, SM_PRIVATE) != 1)
			die("one was not woken", 0);
		until_gone(slot);
		saw_delay(h, slot->woken_tsc - tsc);
	}
	h->wake_ns = sm_now_ns() - t0;
	h->tsc_hz = (double)(rdtsc() - tsc0) * SM_SEC / h->wake_ns;
}

static void herd(const char *mode, bool own, void (*wake)(struct herd *h))
{
	struct sm_stats woken;
	struct herd h;
	long nr;

	create_herd(&h, own);
	nr = h.s.nr;
	wake(&h);
	if (have_stats)
		sm_stats_read(&woken);
	sm_store(&h.again, 1);
	sm_wake(&h.again, INT_MAX, SM_PRIVATE);
	if (sm_sleepers_reap(&h.s) != nr)
		die("not all of them returned 0", 0);
	sm_sleep_ms(200);
	look(&h, 2);

	printf("mode=%s threads=%ld ns_per_clone=%.1f ns_per_wake=%.1f delay_max_ns=%.0f",
	       mode, nr, (double)h.clone_ns / nr, (double)h.wake_ns / nr,
	       (double)h.delay_max * SM_SEC / h.tsc_hz);
	printf(" kernelstack_kb=%ld kernelstack_after_kb=%ld",
	       h.stack_kb[1] - h.stack_kb[0], h.stack_kb[2] - h.stack_kb[0]);
	printf(" used_kb=%ld used_after_kb=%ld kib_per_thread=%.3f",
	       h.avail_kb[0] - h.avail_kb[1], h.avail_kb[0] - h.avail_kb[2],
	       (double)(h.avail_kb[0] - h.avail_kb[1]) / nr);
	if (have_stats)
		printf(" stacks_max=%ld", woken.stacks_max);
	if (who == PARKING && have_stats)
		printf(" parked=%ld stacks=%ld records=%ld record_bytes=%ld",
		       h.asleep.parked, h.asleep.stacks, h.asleep.records,
		       h.asleep.record_bytes);
	finish(true);
}

/* ----------------------------------------------------------------- the load */

/* Pairs of threads that make work for each other, so many in each process */
#define PAIRS_PER_PROCESS	4

static long load_processes;
static pid_t load_pid[64];

/* The same numbers on each kernel and in each run */
static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void compute(int64_t ns)
{
	int64_t end = sm_now_ns() + ns;

	while (sm_now_ns() < end)
		;
}

struct pair {
	uint32_t word;
	uint32_t seed;
	int efd;		/* if not -1, instead of the word */
};

static void pair_wait(struct pair *p, uint32_t turn)
{
	uint64_t x;

	if (p->efd >= 0) {
		if (read(p->efd, &x, sizeof(x)) != sizeof(x))
			die("read", errno);
		return;
	}
	while (sm_load(&p->word) == turn)
		sm_wait(&p->word, turn, SM_PRIVATE);
}

static void pair_wake(struct pair *p)
{
	uint64_t x = 1;

	if (p->efd >= 0) {
		if (write(p->efd, &x, sizeof(x)) != sizeof(x))
			die("write", errno);
		return;
	}
	sm_add(&p->word, 1);
	sm_wake(&p->word, 1, SM_PRIVATE);
}

/* One of each pair waits for the other one, who waits for the time. */
static void *pair_worker(void *arg)
{
	struct pair *p = arg;
	uint32_t seed = p->seed, turn;

	for (turn = 0;; turn++) {
		pair_wait(p, turn);
		compute(next_random(&seed) % (100 * 1000));
	}
	return NULL;
}

static void *pair_driver(void *arg)
{
	struct pair *p = arg;
	uint32_t seed = ~p->seed;

	for (;;) {
		sm_sleep_ns(next_random(&seed) % (8 * SM_MSEC));
		compute(next_random(&seed) % (100 * 1000));
		pair_wake(p);
	}
	return NULL;
}

static void load_process(int nr)
{
	static struct pair pairs[PAIRS_PER_PROCESS];
	pthread_t t;
	int i;

	for (i = 0; i < PAIRS_PER_PROCESS; i++) {
		pairs[i].seed = 1 + nr * PAIRS_PER_PROCESS + i;
		pairs[i].efd = i % 2 ? eventfd(0, EFD_CLOEXEC) : -1;
		if (sm_thread(&t, pair_worker, &pairs[i]) ||
		    sm_thread(&t, pair_driver, &pairs[i]))
			die("pthread_create", EAGAIN);
	}
	for (;;)
		pause();
}

static void start_load(void)
{
	int i;

	for (i = 0; i < load_processes; i++) {
		load_pid[i] = sm_fork();
		if (load_pid[i] < 0)
			die("fork", errno);
		if (!load_pid[i])
			load_process(i);
	}
}

static void stop_load(void)
{
	int i;

	for (i = 0; i < load_processes; i++) {
		kill(load_pid[i], SIGKILL);
		waitpid(load_pid[i], NULL, 0);
	}
}

/* ------------------------------------------------------------------ latency */

static struct {
	uint32_t go;
	char pad[252];
	uint32_t done;
	int64_t stamp;		/* just before the wake */
	int64_t *ns;		/* from there to the line after the wait */
} lat;

static void wait_for(uint32_t *word, uint32_t r)
{
	while (sm_load(word) != r)
		sm_wait(word, r - 1, SM_PRIVATE);
}

static void *woken(void *unused)
{
	long i;

	for (i = 0; i < nr_rounds; i++) {
		wait_for(&lat.go, i + 1);
		lat.ns[i] = sm_now_ns() - lat.stamp;
		sm_store(&lat.done, i + 1);
		sm_wake(&lat.done, 1, SM_PRIVATE);
	}
	return unused;
}

/*
 * Bounds of the histogram's columns, eight to each doubling: what @ns has in its
 * highest four bits.
 */
static int64_t column_of(int64_t ns)
{
	int shift = ns < 16 ? 0 : 60 - __builtin_clzll(ns);

	return ns >> shift << shift;
}

static void print_histogram(void)
{
	int64_t column = -1;
	long i, n = 0;

	for (i = 0; i <= nr_rounds; i++) {
		if (i < nr_rounds && column_of(lat.ns[i]) == column) {
			n++;
			continue;
		}
		if (n)
			printf("mode=histogram load=%ld ns=%lld count=%ld\n",
			       load_processes, (long long)column, n);
		if (i < nr_rounds)
			column = column_of(lat.ns[i]);
		n = 1;
	}
}

static int64_t percentile(double p)
{
	return lat.ns[(long)(p * (nr_rounds - 1))];
}

/*
 * The waker goes on only when the other one has answered, and sleeps again or waits
 * for some random time: so the other one was asleep each time.
 */
static void latency(void)
{
	uint32_t seed = 4711;
	pthread_t t;
	long i;

	lat.go = 0;
	lat.done = 0;
	lat.ns = calloc(nr_rounds, sizeof(*lat.ns));
	if (!lat.ns)
		die("no memory", ENOMEM);
	memset(lat.ns, 1, nr_rounds * sizeof(*lat.ns));	/* no faults later */
	/* The load, too, begins at the same moment each time. */
	settle();
	start_load();
	begin();
	if (sm_thread(&t, woken, NULL))
		die("pthread_create", EAGAIN);
	for (i = 0; i < nr_rounds; i++) {
		sm_sleep_ns(next_random(&seed) % SM_MSEC);
		lat.stamp = sm_now_ns();
		sm_store(&lat.go, i + 1);
		sm_wake(&lat.go, 1, SM_PRIVATE);
		wait_for(&lat.done, i + 1);
	}
	pthread_join(t, NULL);
	stop_load();
	qsort(lat.ns, nr_rounds, sizeof(*lat.ns), compare_ns);
	print_histogram();
	printf("mode=latency load=%ld rounds=%ld p50_ns=%lld p99_ns=%lld p999_ns=%lld max_ns=%lld",
	       load_processes, nr_rounds, (long long)percentile(.5),
	       (long long)percentile(.99), (long long)percentile(.999),
	       (long long)percentile(1));
	finish(true);
	free(lat.ns);
}

/* --------------------------------------------------------------------- main */

static const char usage[] =
"Usage: wakeup [OPTION]... MODE...\n"
"Measure one thing after the other; the modes are\n"
"  clone      raw clones until all are asleep in futex, then wake them all by one\n"
"             call until all have exited: ns per thread, kernel memory\n"
"  again      the same, but until all of them are asleep again\n"
"  each       the same as clone, but each has a futex word of its own, and is woken\n"
"             when the one before it has exited\n"
"  latency    percentiles of the time from a wake by futex until the thread runs\n"
BENCH_USAGE
"  --load N     latency while so many processes of eight threads wake each other\n";

int main(int argc, char **argv)
{
	bench_options(argc, argv, usage, "load", &load_processes);
	if (load_processes < 0 || load_processes > (long)ARRAY_SIZE(load_pid))
		die("--load: from 0 to 64 processes", 0);
	for (; optind < argc; optind++) {
		if (!strcmp(argv[optind], "clone")) {
			herd("clone", false, wake_all_to_exit);
		} else if (!strcmp(argv[optind], "again")) {
			herd("again", false, wake_all_to_wait);
		} else if (!strcmp(argv[optind], "each")) {
			herd("each", true, wake_each);
		} else if (!strcmp(argv[optind], "latency")) {
			latency();
		} else {
			fprintf(stderr, "wakeup: no mode '%s'\n%s", argv[optind], usage);
			return 2;
		}
	}
	return 0;
}
