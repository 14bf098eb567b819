// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits and who wakes: the accesses to memory of pairs that stackmux has a part in,
 * made by two threads of this program at the same time, over and over. With its barrier
 * a pair must never lose a wake-up. Without it some have to be lost, or else this test
 * has not met the race and says nothing.
 *
 * It needs the processors of the machine: an emulator may order what they do not. It
 * needs no particular kernel.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest.h"

#define NR_PLACES	4096	/* where a pair meets, once each in a round */
#define MIN_ROUNDS	100
#define MIN_LOST	10	/* without the barrier; or as many as come in ... */
#define MAX_SECONDS	60

/* What the two share, in lines of their own */
struct place {
	struct {
		int lock;
		long word;
	} __attribute__((aligned(64))) waiter, waker;
};

/**
 * struct pair - two that must not miss each other
 * @name: what it is about
 * @waiter: its part; true if it goes to sleep
 * @waker: its part; true if it wakes nobody. Both are told whether to leave the
 *	   barrier out that the pair needs.
 * @lost: if those two are true: was the wake-up lost? NULL: yes
 */
struct pair {
	const char *name;
	bool (*waiter)(struct place *p, bool barrier);
	bool (*waker)(struct place *p, bool barrier);
	bool (*lost)(struct place *p);
};

#define load(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define store(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#define full_barrier()	__atomic_thread_fence(__ATOMIC_SEQ_CST)

static inline void cpu_relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

/* A spinlock of the kernel: the unlock is no full barrier, the lock may be one. */
static inline void lock(int *l)
{
	while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE))
		cpu_relax();
}

static inline void unlock(int *l)
{
	__atomic_store_n(l, 0, __ATOMIC_RELEASE);
}

/*
 * A receive queues itself and looks for data, stackmux_io_queue_unlocked(); a sender
 * queues data and looks for receivers, wq_has_sleeper().
 */
static bool io_waiter(struct place *p, bool barrier)
{
	lock(&p->waiter.lock);
	store(p->waiter.word, 1);
	unlock(&p->waiter.lock);
	if (barrier)
		full_barrier();
	return !load(p->waker.word);
}

static bool io_waker(struct place *p, bool barrier)
{
	lock(&p->waker.lock);
	store(p->waker.word, 1);
	unlock(&p->waker.lock);
	full_barrier();
	return !load(p->waiter.word);
}

/* The same, and it is wq_has_sleeper() that goes without */
static bool io_waiter_ordered(struct place *p, bool barrier)
{
	return io_waiter(p, true);
}

static bool io_waker_bare(struct place *p, bool barrier)
{
	lock(&p->waker.lock);
	store(p->waker.word, 1);
	unlock(&p->waker.lock);
	if (barrier)
		full_barrier();
	return !load(p->waiter.word);
}

/*
 * A futex: the count of waiters and then the value, futex_wait_setup(); the value and
 * then the count, futex_hb_waiters_pending().
 */
static bool futex_waiter(struct place *p, bool barrier)
{
	__atomic_fetch_add(&p->waiter.word, 1, __ATOMIC_SEQ_CST);
	full_barrier();
	return !load(p->waker.word);
}

static bool futex_waker(struct place *p, bool barrier)
{
	store(p->waker.word, 1);
	if (barrier)
		full_barrier();
	return !load(p->waiter.word);
}

/*
 * A task that parks: its state and then the mark of the source, stackmux_park(); the
 * mark and then the state, try_to_wake_up().
 */
static bool park_waiter(struct place *p, bool barrier)
{
	store(p->waiter.word, 1);
	if (barrier)
		full_barrier();
	return !load(p->waker.word);
}

static bool park_waker(struct place *p, bool barrier)
{
	store(p->waker.word, 1);
	lock(&p->waker.lock);
	full_barrier();
	return !load(p->waiter.word);
}

/*
 * poll() forgets that a file has called and then asks it, stackmux_poll_again(); the
 * file becomes ready and then calls, stackmux_poll_wake(). Lost if the call is forgotten
 * and the file was not ready. So do stackmux_child_resume() and children that change,
 * stackmux_refill_run() and tasks that need a stack.
 */
static bool poll_waiter(struct place *p, bool barrier)
{
	store(p->waiter.word, 1);
	if (barrier)
		full_barrier();
	return !load(p->waker.word);
}

static bool poll_waker(struct place *p, bool barrier)
{
	store(p->waker.word, 1);
	full_barrier();
	store(p->waiter.word, 2);
	return true;
}

static bool poll_lost(struct place *p)
{
	return p->waiter.word == 1;
}

/*
 * A stack that lingers: the CPU where it does takes it, __stackmux_detach(), or that
 * which switches to the task takes the task out, stackmux_still_there(). Not both. Here
 * the barrier is that the exchange is one for other CPUs, too.
 */
static bool slot_waiter(struct place *p, bool barrier)
{
	long old;

	if (barrier)
		return __atomic_exchange_n(&p->waiter.word, 1, __ATOMIC_SEQ_CST) == 0;
	old = load(p->waiter.word);
#ifdef __x86_64__
	/* As this_cpu_xchg() */
	asm volatile("1: cmpxchgq %2, %1; jnz 1b"
		     : "+a" (old), "+m" (p->waiter.word) : "r" (1L) : "memory");
#else
	store(p->waiter.word, 1);
#endif
	return old == 0;
}

static bool slot_waker(struct place *p, bool barrier)
{
	long task = 0;

	return __atomic_compare_exchange_n(&p->waiter.word, &task, 2, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static const struct pair pairs[] = {
	{ "receive and sender", io_waiter, io_waker, NULL },
	{ "sender and receive", io_waiter_ordered, io_waker_bare, NULL },
	{ "futex wait and wake", futex_waiter, futex_waker, NULL },
	{ "park and wake", park_waiter, park_waker, NULL },
	{ "poll and file", poll_waiter, poll_waker, poll_lost },
	{ "stack taken and task switched to", slot_waiter, slot_waker, NULL },
};

/* ------------------------------------------------------------------ two threads */

static struct place places[NR_PLACES];
static bool sleeps[NR_PLACES], wakes_nobody[NR_PLACES];

static const struct pair *pair;
static bool with_barrier;
static long round_nr, waker_round;	/* begun by the waiter, ended by the waker */
static int waiter_at, waker_at;		/* places */

/* Wait for the other one, but not for long: it may be off its CPU. */
static inline void meet(int *other, int i)
{
	int tries = 2000;

	while (load(*other) < i - 1 && --tries)
		cpu_relax();
}

static void *run_waker(void *unused)
{
	long r;
	int i;

	for (r = 1; ; r++) {
		while (__atomic_load_n(&round_nr, __ATOMIC_ACQUIRE) < r)
			sched_yield();
		if (!pair)
			return NULL;
		for (i = 0; i < NR_PLACES; i++) {
			store(waker_at, i);
			meet(&waiter_at, i);
			wakes_nobody[i] = pair->waker(&places[i], with_barrier);
		}
		store(waker_at, NR_PLACES);
		__atomic_store_n(&waker_round, r, __ATOMIC_RELEASE);
	}
}

/* Wake-ups that were lost in one round */
static long run_round(void)
{
	long r = round_nr + 1, lost = 0;
	int i;

	memset(places, 0, sizeof(places));
	waiter_at = 0;
	waker_at = 0;
	__atomic_store_n(&round_nr, r, __ATOMIC_RELEASE);
	for (i = 0; i < NR_PLACES; i++) {
		store(waiter_at, i);
		meet(&waker_at, i);
		sleeps[i] = pair->waiter(&places[i], with_barrier);
	}
	store(waiter_at, NR_PLACES);
	while (__atomic_load_n(&waker_round, __ATOMIC_ACQUIRE) < r)
		sched_yield();
	for (i = 0; i < NR_PLACES; i++)
		lost += sleeps[i] && wakes_nobody[i] &&
			(!pair->lost || pair->lost(&places[i]));
	return lost;
}

static time_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void test_pair(void)
{
	time_t end = seconds() + MAX_SECONDS;
	long rounds, lost = 0, i;

	with_barrier = false;
	for (rounds = 0; lost < MIN_LOST && seconds() < end; rounds++)
		lost += run_round();
	ksft_test_result(lost > 0, "%s: without a barrier wake-ups are lost: %ld of %ld\n",
			 pair->name, lost, rounds * NR_PLACES);

	/* Far more often than it took to lose some */
	rounds *= 20;
	if (rounds < MIN_ROUNDS)
		rounds = MIN_ROUNDS;
	with_barrier = true;
	for (lost = 0, i = 0; i < rounds; i++)
		lost += run_round();
	ksft_test_result(!lost, "%s: with it none is: %ld of %ld\n", pair->name, lost,
			 rounds * NR_PLACES);
}

/* The @n-th of the processors that this program may use, modulo their number */
static void use_cpu(const cpu_set_t *all, int n)
{
	cpu_set_t one;
	int cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, all) && !n--)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

int main(void)
{
	pthread_t waker;
	cpu_set_t all;
	unsigned int i;

	ksft_print_header();
	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		ksft_exit_skip("one processor: two are needed to race\n");
	ksft_set_plan(2 * ARRAY_SIZE(pairs));
	use_cpu(&all, 1);
	if (pthread_create(&waker, NULL, run_waker, NULL))
		ksft_exit_fail_msg("no second thread\n");
	use_cpu(&all, 0);
	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		pair = &pairs[i];
		test_pair();
	}
	pair = NULL;
	__atomic_store_n(&round_nr, round_nr + 1, __ATOMIC_RELEASE);
	pthread_join(waker, NULL);
	ksft_finished();
}
