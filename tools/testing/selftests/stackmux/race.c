// SPDX-License-Identifier: GPL-2.0
/*
 * Wakes against parks, on all CPUs, with everything else that may happen at
 * the same time. The books have to balance: each waiter that a FUTEX_WAKE
 * says it woke returns 0 once, and nobody else does.
 */
#include "scenario.h"
#include <sys/timerfd.h>

FIXTURE(race) {
	struct sm_env env;
};

FIXTURE_VARIANT(race) {
	bool parked, linger;
};

FIXTURE_VARIANT_ADD(race, classic) { .parked = false };
FIXTURE_VARIANT_ADD(race, parked) { .parked = true };
/* The stack of a parked task is taken at the next park on its CPU, or never. */
FIXTURE_VARIANT_ADD(race, lingering) { .parked = true, .linger = true };

FIXTURE_SETUP(race)
{
	sm_setup(_metadata, &self->env, variant->parked);
	if (variant->linger && self->env.present)
		ASSERT_EQ(0, sm_linger(&self->env));
}

FIXTURE_TEARDOWN(race)
{
	sm_knobs_restore();
}

/* Rounds: the classic run is only there to see that the test itself is right. */
static long rounds(struct sm_env *env, long def)
{
	return sm_rounds(env->lingering ? def / 3 : env->parked ? def : def / 5);
}

/* What one thread has seen. */
struct account {
	long woken;		/* by its FUTEX_WAKEs */
	long zero;		/* of its waits: woken */
	long again;		/* value had changed */
	long timeout;
	long eintr;
	long bad;		/* a result that cannot be */
};

static void account_add(struct account *sum, const struct account *a)
{
	sum->woken += a->woken;
	sum->zero += a->zero;
	sum->again += a->again;
	sum->timeout += a->timeout;
	sum->eintr += a->eintr;
	if (!sum->bad)
		sum->bad = a->bad;
}

static void account_wait(struct account *a, long ret)
{
	switch (ret) {
	case 0:
		a->zero++;
		break;
	case -EAGAIN:
		a->again++;
		break;
	case -ETIMEDOUT:
		a->timeout++;
		break;
	case -EINTR:
		a->eintr++;
		break;
	default:
		a->bad = ret;
	}
}

static void account_wake(struct account *a, long ret)
{
	if (ret < 0)
		a->bad = ret;
	else
		a->woken += ret;
}

#define EXPECT_BALANCE(sum)						\
do {									\
	const struct account *__a = (sum);				\
									\
	EXPECT_EQ(0, __a->bad);						\
	EXPECT_EQ(__a->woken, __a->zero) {				\
		TH_LOG("woken %ld, returned %ld (again %ld, timeout %ld, eintr %ld)",\
		       __a->woken, __a->zero, __a->again, __a->timeout,	\
		       __a->eintr);					\
	}								\
} while (0)

/* ------------------------------------------------------------------- pairs */

/* Two threads that hand a number back and forth. */
struct side {
	uint32_t word;		/* the other one's last number */
	struct side *peer;
	struct pairs *pairs;
	struct account acc;
	char pad[64];
};

static void side_wait(struct side *s, uint32_t old)
{
	while (sm_load(&s->word) == old && !s->acc.bad)
		account_wait(&s->acc, sm_wait(&s->word, old, SM_PRIVATE));
}

static void side_send(struct side *s, uint32_t val)
{
	sm_store(&s->peer->word, val);
	account_wake(&s->acc, sm_wake(&s->peer->word, 1, SM_PRIVATE));
}

static long side_round(struct sm_runner *r, long i)
{
	struct side *s = r->data;
	const bool first = r->nr % 2 == 0;

	if (first)
		side_send(s, i);
	side_wait(s, i - 1);
	/* Numbers come in order and none is missing. */
	if (sm_load(&s->word) != i)
		s->acc.bad = -ERANGE;
	if (!first)
		side_send(s, i);
	return s->acc.bad;
}

/*
 * Something to do to the pairs while they run: called again and again.
 * Returns false if it cannot.
 */
typedef bool (*disturb_fn)(struct pairs *p);

struct pairs {
	int nr;			/* sides: two for each pair */
	struct side *side;
	struct sm_runner *r;	/* each side's */
	struct sm_env *env;
	uint64_t seed;
	disturb_fn disturb;
	long calls;
	long failed;
	void *data;
};

/* All sides are to start from the beginning, but for their accounts. */
static void pairs_set(struct pairs *p, long rounds)
{
	int i;

	for (i = 0; i < p->nr; i++) {
		p->side[i].peer = &p->side[i ^ 1];
		p->side[i].pairs = p;
		p->side[i].word = 0;
		p->r[i] = (struct sm_runner) {
			.nr = i, .rounds = rounds, .round = side_round, .data = &p->side[i],
		};
	}
}

static bool pairs_alloc(struct pairs *p)
{
	p->side = calloc(p->nr, sizeof(*p->side));
	p->r = calloc(p->nr, sizeof(*p->r));
	return p->side && p->r;
}

static void disturb_pairs(struct sm_runner *r, int n)
{
	struct pairs *p = ((struct side *)r->data)->pairs;

	p->calls++;
	p->failed += !p->disturb(p);
}

/* Run pairs for @n rounds each and @disturb them, at least @calls times. */
static void run_pairs(struct __test_metadata *_metadata, struct sm_env *env,
		      long n, disturb_fn disturb, long calls, void *data)
{
	struct pairs p = {
		.nr = 4 * sm_nr_cpus(),
		.env = env,
		.seed = 0x123456789abcdefULL,
		.disturb = disturb,
		.data = data,
	};
	struct account sum = { 0 };
	int i;

	ASSERT_TRUE(pairs_alloc(&p));
	do {
		pairs_set(&p, rounds(env, n));
		sm_run(_metadata, p.r, p.nr, disturb ? disturb_pairs : NULL);
		ASSERT_EQ(0, p.failed);
	} while (disturb && p.calls < calls);

	for (i = 0; i < p.nr; i++)
		account_add(&sum, &p.side[i].acc);
	EXPECT_BALANCE(&sum);
	EXPECT_GT(sum.zero + sum.again, 0);
	EXPECT_EQ(0, sum.timeout);
	SM_EXPECT_PARKS(env, 20);
	free(p.side);
	free(p.r);
}

TEST_F_TIMEOUT(race, ping_pong, 90)
{
	run_pairs(_metadata, &self->env, 1500, NULL, 0, NULL);
}

/* Threads move about while they park and wake. */
static bool move_about(struct pairs *p)
{
	struct sm_runner *s = &p->r[sm_rnd(&p->seed) % p->nr];
	cpu_set_t *all = p->data, set;
	int cpu;

	if (p->calls % 7 == 0) {
		set = *all;
	} else {
		do
			cpu = sm_rnd(&p->seed) % CPU_SETSIZE;
		while (!CPU_ISSET(cpu, all));
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
	}
	if (sm_load(&s->tid) && !sm_load(&s->done) &&
	    sched_setaffinity(s->tid, sizeof(set), &set) && errno != ESRCH)
		return false;
	sm_sleep_ns(300000);
	return true;
}

TEST_F_TIMEOUT(race, affinity, 60)
{
	cpu_set_t all;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	run_pairs(_metadata, &self->env, 400, move_about, 50, &all);
}

/* They become real-time, batch, idle, nice and ordinary again. */
static bool change_policy(struct pairs *p)
{
	static const int policies[] = {
		SCHED_OTHER, SCHED_FIFO, SCHED_BATCH, SCHED_RR, SCHED_OTHER,
	};
	struct sm_runner *s = &p->r[sm_rnd(&p->seed) % p->nr];
	int policy = policies[sm_rnd(&p->seed) % ARRAY_SIZE(policies)];
	struct sched_param sp = { 0 };

	if (policy == SCHED_FIFO || policy == SCHED_RR)
		sp.sched_priority = 1 + sm_rnd(&p->seed) % 5;
	if (sm_load(&s->tid) && !sm_load(&s->done)) {
		if (sched_setscheduler(s->tid, policy, &sp) && errno != ESRCH)
			return false;
		setpriority(PRIO_PROCESS, s->tid, sm_rnd(&p->seed) % 10);
	}
	sm_sleep_ns(300000);
	return true;
}

TEST_F_TIMEOUT(race, policy, 60)
{
	run_pairs(_metadata, &self->env, 400, change_policy, 50, NULL);
}

/* The opt-in comes and goes. */
static bool toggle_optin(struct pairs *p)
{
	if (p->env->parked && (sm_rnd(&p->seed) & 1 ? sm_enable(0) : sm_disable()))
		return false;
	sm_sleep_ns(sm_rnd(&p->seed) % 1000000);
	return true;
}

TEST_F_TIMEOUT(race, optin_toggled, 60)
{
	run_pairs(_metadata, &self->env, 400, toggle_optin, 50, NULL);
	if (self->env.parked)
		EXPECT_EQ(0, sm_enable(0));
}

/* The machine's mode changes. */
static bool toggle_mode(struct pairs *p)
{
	if (p->env->parked && sm_write_long(SM_SYSCTL, sm_rnd(&p->seed) % 3))
		return false;
	sm_sleep_ns(sm_rnd(&p->seed) % 2000000);
	return true;
}

TEST_F_TIMEOUT(race, mode_toggled, 60)
{
	run_pairs(_metadata, &self->env, 400, toggle_mode, 50, NULL);
	sm_knobs_restore();
}

/* Processes fork off, threads come and go. */
static void *short_thread(void *p)
{
	uint32_t f = 0;

	sm_wait_ns(&f, 0, SM_PRIVATE, 100000);
	return p;
}

static bool fork_and_clone(struct pairs *p)
{
	pthread_t t[4];
	int i, status;
	pid_t pid;

	for (i = 0; i < 4; i++)
		if (sm_thread(&t[i], short_thread, NULL))
			return false;
	if (p->calls % 4 == 0) {
		pid = sm_fork();
		if (!pid) {
			short_thread(NULL);
			_exit(0);
		}
		if (pid < 0 || sm_waitpid(pid, &status) || status)
			return false;
	}
	for (i = 0; i < 4; i++)
		if (pthread_join(t[i], NULL))
			return false;
	return true;
}

TEST_F_TIMEOUT(race, fork_and_clone, 60)
{
	run_pairs(_metadata, &self->env, 400, fork_and_clone, 20, NULL);
}

/* CPUs go away and come back. */
static bool hotplug(struct pairs *p)
{
	int *cpus = p->data, cpu, i, n;

	for (n = 0; cpus[n] >= 0; n++)
		;
	cpu = cpus[p->calls % n];
	/* Busy is a fair answer, and tried again. */
	for (i = 0; i < 100; i++) {
		if (sm_cpu_set_online(cpu, !sm_cpu_online(cpu)) != -EBUSY)
			break;
		sm_sleep_ms(10);
	}
	sm_sleep_ms(10 + sm_rnd(&p->seed) % 20);
	return i < 100;
}

static void run_hotplug(struct __test_metadata *_metadata, struct sm_env *env,
			disturb_fn disturb, long n)
{
	int cpus[65], nr = 0, cpu;

	if (!env->present)
		SKIP(return, "this kernel has no stackmux");
	for (cpu = 1; cpu < 64; cpu++)
		if (sm_cpu_online(cpu) == 1)
			cpus[nr++] = cpu;
	cpus[nr] = -1;
	if (!nr)
		SKIP(return, "no CPU that can be taken offline");
	run_pairs(_metadata, env, n, disturb, env->parked ? 20 : 4, cpus);
	for (cpu = 0; cpu < nr; cpu++)
		if (!sm_cpu_online(cpus[cpu]))
			EXPECT_EQ(0, sm_cpu_set_online(cpus[cpu], 1));
}

TEST_F_TIMEOUT(race, cpu_hotplug, 120)
{
	run_hotplug(_metadata, &self->env, hotplug, 400);
}

/* Sleepers keep their wakes when the CPU they went to sleep on is gone. */
TEST_F_TIMEOUT(race, cpu_hotplug_asleep, 60)
{
	struct sm_sleepers s;
	const int nr = 200;
	int cpu, n = 0;

	if (!self->env.present)
		SKIP(return, "this kernel has no stackmux");
	ASSERT_EQ(nr, sm_sleepers_create(&s, nr, false));
	ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
	ASSERT_TRUE(sm_wait_parked(&self->env, nr));
	for (cpu = 1; cpu < 64; cpu++)
		if (sm_cpu_online(cpu) == 1 && !sm_cpu_set_online(cpu, 0))
			n++;
	EXPECT_EQ(nr, sm_sleepers_wake(&s, false));
	EXPECT_EQ(nr, sm_sleepers_reap(&s));
	for (cpu = 1; cpu < 64; cpu++)
		if (!sm_cpu_online(cpu))
			EXPECT_EQ(0, sm_cpu_set_online(cpu, 1));
	if (!n)
		SKIP(return, "no CPU that can be taken offline");
}

/* ---------------------------------------------------------- memory pressure */

/* A child in a small memory cgroup that always wants more than it gets. */
static pid_t start_hog(char *dir, size_t size)
{
	char file[400], *p;
	const size_t bytes = 48 << 20;
	pid_t pid;

	snprintf(dir, size, "/sys/fs/cgroup/stackmux-hog-%d", getpid());
	sm_write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(dir, 0755)) {
		dir[0] = '\0';
	} else {
		snprintf(file, sizeof(file), "%s/memory.high", dir);
		if (sm_write_long(file, bytes / 3)) {
			rmdir(dir);
			dir[0] = '\0';
		}
	}
	pid = sm_fork();
	if (pid)
		return pid;
	if (dir[0]) {
		snprintf(file, sizeof(file), "%s/cgroup.procs", dir);
		sm_write_long(file, getpid());
	}
	for (;;) {
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED) {
			memset(p, 1, bytes);
			munmap(p, bytes);
		}
		sm_sleep_ms(1);
	}
}

static bool press(struct pairs *p)
{
	if (p->calls % 3 == 0)
		sm_write_file("/proc/sys/vm/drop_caches", p->calls % 2 ? "2\n" : "3\n");
	if (sm_shrink())
		return false;
	sm_sleep_ms(2 + sm_rnd(&p->seed) % 10);
	return true;
}

TEST_F_TIMEOUT(race, memory_pressure, 90)
{
	char dir[256];
	int status;
	pid_t hog;

	if (!self->env.present)
		SKIP(return, "this kernel has no stackmux");
	hog = start_hog(dir, sizeof(dir));
	ASSERT_GT(hog, 0);
	run_pairs(_metadata, &self->env, 400, press, 30, NULL);
	kill(hog, SIGKILL);
	waitpid(hog, &status, 0);
	EXPECT_TRUE(WIFSIGNALED(status));
	if (dir[0])
		EXPECT_TRUE(sm_wait_until(!rmdir(dir)));
	SM_EXPECT_MORE(&self->env, trims, 1);
}

/* ------------------------------------------------------------------- herds */

/* Many waiters on one word or two, wakers, and whoever moves them around. */
struct herd {
	uint32_t word[2];
	int stop;
	int nr;
	bool requeue;		/* waiters are moved between the words */
	bool timeouts;		/* waits end by themselves */
	bool signals;		/* ... or by a signal */
	long want;		/* waits each waiter makes */
	struct sm_runner *r;	/* of the waiters */
};

/* Or one of those that wake, move and signal them */
struct waiter {
	struct herd *h;
	pthread_t thread;
	uint64_t seed;
	struct account acc;
	char pad[64];
};

static long herd_wait(struct sm_runner *r, long i)
{
	struct waiter *w = r->data;
	uint32_t *word = &w->h->word[0];

	if (w->h->timeouts && sm_rnd(&w->seed) % 8)
		account_wait(&w->acc, sm_wait_ns(word, 0, SM_PRIVATE, sm_rnd(&w->seed) % 500000));
	else
		account_wait(&w->acc, sm_wait(word, 0, SM_PRIVATE));
	return w->acc.bad;
}

static void *herd_waker(void *p)
{
	struct waiter *w = p;
	struct herd *h = w->h;
	int n;

	while (!sm_load(&h->stop)) {
		n = h->timeouts ? 1 + sm_rnd(&w->seed) % 3 : 1;
		account_wake(&w->acc, sm_wake(&h->word[sm_rnd(&w->seed) % 2], n, SM_PRIVATE));
		if (sm_rnd(&w->seed) % 16 == 0)
			sched_yield();
	}
	return NULL;
}

static void *herd_mover(void *p)
{
	struct waiter *w = p;
	struct herd *h = w->h;
	int from, wake;
	long ret;

	while (!sm_load(&h->stop)) {
		from = sm_rnd(&w->seed) % 2;
		wake = sm_rnd(&w->seed) % 4 == 0;
		/* Returns how many were woken and moved: take those woken off. */
		ret = sm_sys(__NR_futex, &h->word[from], FUTEX_REQUEUE | SM_PRIVATE, wake,
			     wake ? 0 : 1 + sm_rnd(&w->seed) % 4, &h->word[!from]);
		if (wake || ret < 0)
			account_wake(&w->acc, ret);
		sched_yield();
	}
	return NULL;
}

static void *herd_signaller(void *p)
{
	struct waiter *w = p;
	struct herd *h = w->h;
	struct sm_runner *r;

	while (!sm_load(&h->stop)) {
		r = &h->r[sm_rnd(&w->seed) % h->nr];
		if (sm_load(&r->tid) && !sm_load(&r->done))
			sm_tgkill(getpid(), r->tid, SIGUSR1);
		sm_sleep_ns(sm_rnd(&w->seed) % 200000);
	}
	return NULL;
}

/* How the waits have ended goes to @sum. */
static void run_herd(struct __test_metadata *_metadata, struct sm_env *env,
		     struct herd *h, struct account *sum)
{
	const struct {
		void *(*fn)(void *p);
		bool helps;
	} helpers[] = {
		{ herd_waker, true },
		{ herd_waker, true },
		{ herd_mover, h->requeue },
		{ herd_signaller, h->signals },
	};
	struct waiter helper[ARRAY_SIZE(helpers)] = { 0 };
	struct waiter *waiter = calloc(h->nr, sizeof(*waiter));
	int i;

	memset(sum, 0, sizeof(*sum));
	h->stop = 0;
	h->r = calloc(h->nr, sizeof(*h->r));
	ASSERT_NE(NULL, waiter);
	ASSERT_NE(NULL, h->r);
	sm_handle(SIGUSR1, 0);
	for (i = 0; i < ARRAY_SIZE(helpers); i++) {
		helper[i].h = h;
		helper[i].seed = 0x777 * (i + 1);
		if (helpers[i].helps)
			ASSERT_EQ(0, sm_thread(&helper[i].thread, helpers[i].fn, &helper[i]));
	}
	for (i = 0; i < h->nr; i++) {
		waiter[i].h = h;
		waiter[i].seed = 0xabcdef * (i + 1);
		h->r[i] = (struct sm_runner) {
			.nr = i, .rounds = h->want, .round = herd_wait, .data = &waiter[i],
		};
	}
	sm_run(_metadata, h->r, h->nr, NULL);
	sm_store(&h->stop, 1);
	for (i = 0; i < ARRAY_SIZE(helpers); i++) {
		if (helpers[i].helps)
			pthread_join(helper[i].thread, NULL);
		account_add(sum, &helper[i].acc);
	}
	for (i = 0; i < h->nr; i++)
		account_add(sum, &waiter[i].acc);
	EXPECT_BALANCE(sum);
	EXPECT_EQ(0, sum->again);
	EXPECT_GT(sum->zero, 0);
	EXPECT_EQ(h->nr * h->want, sum->zero + sum->timeout + sum->eintr);
	if (!h->timeouts)
		EXPECT_EQ(0, sum->timeout);
	if (!h->signals)
		EXPECT_EQ(0, sum->eintr);
	EXPECT_EQ(0, sm_wake(&h->word[0], INT_MAX, SM_PRIVATE));
	EXPECT_EQ(0, sm_wake(&h->word[1], INT_MAX, SM_PRIVATE));
	SM_EXPECT_PARKS(env, 20);
	free(waiter);
	free(h->r);
}

/* One futex, many waiters, one woken at a time. */
TEST_F_TIMEOUT(race, wake_one_of_many, 90)
{
	struct herd h = { .nr = 24, .want = rounds(&self->env, 400) };
	struct account sum;

	run_herd(_metadata, &self->env, &h, &sum);
}

/* Time-outs and signals compete with the wakes. */
TEST_F_TIMEOUT(race, wake_timeout_signal, 90)
{
	struct herd h = {
		.nr = 12, .want = rounds(&self->env, 800), .timeouts = true, .signals = true,
	};
	int64_t end = sm_now_ns() + 40 * SM_SEC;
	long timeout = 0, eintr = 0;
	struct account sum;

	/* Until each of the three has won once */
	do {
		run_herd(_metadata, &self->env, &h, &sum);
		timeout += sum.timeout;
		eintr += sum.eintr;
	} while ((!timeout || !eintr) && sm_now_ns() < end);
	EXPECT_GT(timeout, 0);
	EXPECT_GT(eintr, 0);
}

/* They are moved to another futex and back meanwhile. */
TEST_F_TIMEOUT(race, requeue, 90)
{
	struct herd h = { .nr = 16, .want = rounds(&self->env, 400), .requeue = true };
	struct account sum;

	run_herd(_metadata, &self->env, &h, &sum);
}

TEST_F_TIMEOUT(race, requeue_timeout_signal, 90)
{
	struct herd h = {
		.nr = 12, .want = rounds(&self->env, 600),
		.requeue = true, .timeouts = true, .signals = true,
	};
	struct account sum;

	run_herd(_metadata, &self->env, &h, &sum);
}

/* ------------------------------------------------------------------- vectors */

#define VEC	5

struct vec {
	struct futex_waitv wv[VEC];
	uint32_t word[VEC];
	pthread_t thread, waker;
	pid_t tid;
	long want;		/* wakes to be sent */
	long sent;
	long got;		/* waits that returned an index */
	int last;		/* the last one */
	long timeout, eintr, bad;
	long wrong_index;
	int stop, done;
};

static void *vec_waiter(void *p)
{
	struct vec *v = p;
	uint64_t seed = 0x31415926 + (long)p;
	struct timespec ts;
	long ret;
	bool to;

	sm_store(&v->tid, sm_gettid());
	while (!sm_load(&v->stop) && !v->bad) {
		to = sm_rnd(&seed) % 4;
		ts = sm_ts(sm_now_ns() + sm_rnd(&seed) % 500000);
		ret = sm_sys(__NR_futex_waitv, v->wv, VEC, 0, to ? &ts : NULL,
			     CLOCK_MONOTONIC);
		if (ret >= 0) {
			v->last = ret;
			sm_add(&v->got, 1);
		} else if (ret == -ETIMEDOUT) {
			v->timeout++;
		} else if (ret == -EINTR) {
			v->eintr++;
		} else {
			v->bad = ret;
		}
	}
	sm_store(&v->done, 1);
	return NULL;
}

/* Each wake that found the waiter has to be returned, with its index. */
static void *vec_waker(void *p)
{
	struct vec *v = p;
	uint64_t seed = 0x27182818 + (long)p;
	int64_t end;
	int i;

	while (v->sent < v->want && !v->bad) {
		i = sm_rnd(&seed) % VEC;
		/* Leave some of its waits the time to end by themselves. */
		if (sm_rnd(&seed) % 8 == 0)
			sm_sleep_ns(sm_rnd(&seed) % 1000000);
		if (sm_rnd(&seed) % 16 == 0 && sm_load(&v->tid))
			sm_tgkill(getpid(), v->tid, SIGUSR1);
		if (sm_wake(&v->word[i], 1, SM_PRIVATE) != 1) {
			sched_yield();
			continue;
		}
		v->sent++;
		end = sm_now_ns() + sm_patience_ns();
		while (sm_load(&v->got) != v->sent && sm_now_ns() < end)
			sched_yield();
		if (sm_load(&v->got) != v->sent) {
			v->bad = -EIO;
			break;
		}
		if (v->last != i)
			v->wrong_index++;
	}
	sm_store(&v->stop, 1);
	/* One last wake, in case it waits without time-out. */
	while (!sm_load(&v->done)) {
		if (sm_wake(&v->word[0], 1, SM_PRIVATE) == 1)
			v->sent++;
		sched_yield();
	}
	return NULL;
}

TEST_F_TIMEOUT(race, waitv, 90)
{
	int nr = 2 * sm_nr_cpus(), i, j;
	long timeout = 0;
	struct vec *v;

	sm_handle(SIGUSR1, 0);
	v = calloc(nr, sizeof(*v));
	for (i = 0; i < nr; i++) {
		v[i].want = rounds(&self->env, 300);
		for (j = 0; j < VEC; j++) {
			v[i].wv[j].uaddr = (uintptr_t)&v[i].word[j];
			v[i].wv[j].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
		}
		ASSERT_EQ(0, sm_thread(&v[i].thread, vec_waiter, &v[i]));
		ASSERT_EQ(0, sm_thread(&v[i].waker, vec_waker, &v[i]));
	}
	for (i = 0; i < nr; i++) {
		pthread_join(v[i].thread, NULL);
		pthread_join(v[i].waker, NULL);
		EXPECT_EQ(0, v[i].bad);
		EXPECT_EQ(v[i].sent, v[i].got);
		EXPECT_EQ(0, v[i].wrong_index);
		EXPECT_GE(v[i].sent, v[i].want);
		timeout += v[i].timeout;
	}
	EXPECT_GT(timeout, 0);
	SM_EXPECT_PARKS(&self->env, 20);
	free(v);
}

/* ------------------------------------------------------- ways through the pool */

/*
 * A herd wakes up and there is not one stack to be had: each task has to wait
 * for the refill worker, and each gets through.
 */
TEST_F_TIMEOUT(race, starvation, 90)
{
	struct sm_sleepers s;
	const int nr = 256;
	int i;

	if (self->env.present)
		ASSERT_EQ(0, sm_no_idle_stacks());
	for (i = 0; i < 3; i++) {
		sm_rebase(&self->env);
		ASSERT_EQ(nr, sm_sleepers_create(&s, nr, i == 2));
		ASSERT_TRUE(sm_sleepers_wait_asleep(&s));
		ASSERT_TRUE(sm_wait_parked(&self->env, nr));
		if (self->env.present)
			ASSERT_EQ(0, sm_no_idle_stacks());
		EXPECT_EQ(nr, sm_sleepers_wake(&s, i == 1));
		EXPECT_EQ(nr, sm_sleepers_reap(&s));
		SM_EXPECT_MORE(&self->env, reserve, 1);
		SM_EXPECT_MORE(&self->env, starvations, 1);
		EXPECT_TRUE(sm_wait_none_parked(&self->env));
	}
}

/* The same for threads that park and wake all the time. */
static bool keep_starving(struct pairs *p)
{
	if (p->env->present && sm_no_idle_stacks())
		return false;
	sm_sleep_ms(5);
	return true;
}

TEST_F_TIMEOUT(race, starved_ping_pong, 90)
{
	if (self->env.present)
		ASSERT_EQ(0, sm_no_idle_stacks());
	run_pairs(_metadata, &self->env, 200, keep_starving, 10, NULL);
	SM_EXPECT_MORE(&self->env, reserve, 1);
	SM_EXPECT_MORE(&self->env, starvations, 1);
}

/*
 * The CPU whose worker they wait for goes away, again and again: those who wait are
 * handed over to another one.
 */
static bool starve_and_hotplug(struct pairs *p)
{
	return keep_starving(p) && hotplug(p);
}

TEST_F_TIMEOUT(race, starved_cpu_hotplug, 120)
{
	if (self->env.present)
		ASSERT_EQ(0, sm_no_idle_stacks());
	run_hotplug(_metadata, &self->env, starve_and_hotplug, 200);
	if (sm_nr_cpus() > 1)
		SM_EXPECT_MORE(&self->env, starvations, 1);
}

/*
 * A wake that comes between arming and switching away: the task goes on
 * without ever having given its stack up. Time-outs that are over at once do
 * that on one CPU, too, if the interrupt is not late.
 */
static void *instant_timeouts(void *p)
{
	struct account *a = p;
	uint32_t f = 0;
	long i;

	/* Not 50 us later */
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	for (i = 0; i < 200; i++)
		account_wait(a, sm_wait_ns(&f, 0, SM_PRIVATE, i % 50));
	return NULL;
}

/*
 * To arm a poll() of many files takes long: a timer that is the first of them expires
 * meanwhile. How long it is to run depends on the machine, so all times are tried.
 */
#define NR_POLLED	2000

static int poll_while_timer_expires(struct pollfd *set, long turn)
{
	struct itimerspec its = { .it_value = sm_ts(5000L << turn % 12) };
	int i, n;

	set[0].fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	set[1].fd = eventfd(0, EFD_CLOEXEC);
	for (i = 0; i < NR_POLLED; i++)
		set[i] = (struct pollfd){ .fd = set[!!i].fd, .events = POLLIN };
	if (timerfd_settime(set[0].fd, 0, &its, NULL))
		return -1;
	n = poll(set, NR_POLLED, -1);
	close(set[0].fd);
	close(set[1].fd);
	return n == 1 && set[0].revents == POLLIN ? 0 : -1;
}

TEST_F_TIMEOUT(race, noswitch, 90)
{
	struct pollfd *set = calloc(NR_POLLED, sizeof(*set));
	int64_t end = sm_now_ns() + 30 * SM_SEC * sm_slow();
	struct account acc[4];
	struct sm_stats st;
	long turns = 0;
	pthread_t t[4];
	int i;

	ASSERT_EQ(0, sm_allow_files(NR_POLLED));
	do {
		ASSERT_EQ(0, poll_while_timer_expires(set, turns));
		memset(acc, 0, sizeof(acc));
		for (i = 0; i < 4; i++)
			ASSERT_EQ(0, sm_thread(&t[i], instant_timeouts, &acc[i]));
		for (i = 0; i < 4; i++) {
			pthread_join(t[i], NULL);
			EXPECT_EQ(200, acc[i].timeout);
			EXPECT_EQ(0, acc[i].bad);
		}
		turns++;
		if (!self->env.parked)
			return;
		ASSERT_EQ(0, sm_stats_read(&st));
	} while (st.noswitch == self->env.base.noswitch && sm_now_ns() < end);
	EXPECT_GT(st.noswitch, self->env.base.noswitch) {
		TH_LOG("none in %ld turns of 801 waits", turns);
	}
	free(set);
}

/*
 * Readers of /proc hold a reference on the stack of a thread that is about to
 * park. It has to keep the stack then, and go on where it stood.
 */
struct pins {
	pid_t tid[4];
	int stop;
	long waits, bad;
};

static void *pins_waiter(void *p)
{
	struct pins *k = p;
	uint64_t seed = (long)&seed;
	uint32_t f = 0;
	int64_t until;
	int me;

	for (me = 0; ; me++) {
		pid_t none = 0;

		if (__atomic_compare_exchange_n(&k->tid[me], &none, sm_gettid(), false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			break;
	}
	while (!sm_load(&k->stop)) {
		/* Some time awake, when its stack can be referenced ... */
		until = sm_now_ns() + sm_rnd(&seed) % 60000;
		while (sm_now_ns() < until)
			;
		/* ... and then a short sleep. */
		if (sm_wait_ns(&f, 0, SM_PRIVATE, sm_rnd(&seed) % 60000) != -ETIMEDOUT)
			sm_add(&k->bad, 1);
		sm_add(&k->waits, 1);
	}
	return NULL;
}

static void *pins_reader(void *p)
{
	static const char * const files[] = { "stack", "syscall", "wchan" };
	struct pins *k = p;
	uint64_t seed = (long)&seed;
	char path[64], buf[4096];
	int fd[4][3], i, j;

	for (i = 0; i < 4; i++) {
		sm_wait_until(sm_load(&k->tid[i]));
		for (j = 0; j < 3; j++) {
			snprintf(path, sizeof(path), "/proc/self/task/%d/%s",
				 k->tid[i], files[j]);
			fd[i][j] = open(path, O_RDONLY | O_CLOEXEC);
		}
	}
	while (!sm_load(&k->stop)) {
		i = sm_rnd(&seed) % 4;
		j = sm_rnd(&seed) % 4;
		if (pread(fd[i][j > 2 ? 0 : j], buf, sizeof(buf), 0) < 0 &&
		    errno != ESRCH && errno != EAGAIN)
			sm_add(&k->bad, 1);
	}
	for (i = 0; i < 4; i++)
		for (j = 0; j < 3; j++)
			close(fd[i][j]);
	return NULL;
}

TEST_F_TIMEOUT(race, pins, 90)
{
	struct pins *k = calloc(1, sizeof(*k));
	/* On one CPU it may never happen, as the end of the test says. */
	int64_t patience = (sm_nr_cpus() > 1 ? 40 : 5) * SM_SEC * sm_slow();
	int64_t end = sm_now_ns() + patience;
	pthread_t waiter[4], reader[2];
	struct sm_stats st = { 0 };

	SM_THREADS(waiter, 4, pins_waiter, k);
	SM_THREADS(reader, 2, pins_reader, k);
	if (self->env.parked) {
		do {
			sm_sleep_ms(50);
			ASSERT_EQ(0, sm_stats_read(&st));
		} while (st.pins - self->env.base.pins < 3 && sm_now_ns() < end);
	} else {
		sm_sleep_ms(300);
	}
	sm_store(&k->stop, 1);
	sm_threads_join(waiter, 4);
	sm_threads_join(reader, 2);
	EXPECT_GT(k->waits, 0);
	EXPECT_EQ(0, k->bad);
	if (!self->env.parked)
		return;
	SM_EXPECT_PARKS(&self->env, 20);
	/* On one CPU a reader is seldom preempted just then. */
	if (st.pins == self->env.base.pins && sm_nr_cpus() == 1)
		SKIP(return, "one CPU: no reader was preempted holding a reference");
	EXPECT_GT(st.pins, self->env.base.pins) {
		TH_LOG("none refused in %ld waits", k->waits);
	}
	free(k);
}

/* --------------------------------------------------------- stacks that linger */

/*
 * Two CPUs want one stack: that where it lingers, since another thread parks there, and
 * that which switches to its owner. There are two threads and two CPUs. Each waits
 * on one of them and is woken on the other one, where the other thread has just waited.
 */
struct mover {
	uint32_t word;
	long seen;
	pid_t tid;
	int stop;
	struct account acc;
	pthread_t thread;
};

static void *mover_fn(void *arg)
{
	struct mover *m = arg;
	uint32_t val;

	sm_store(&m->tid, sm_gettid());
	while (!sm_load(&m->stop)) {
		val = sm_load(&m->word);
		sm_store(&m->seen, val);
		account_wait(&m->acc, sm_wait(&m->word, val, SM_PRIVATE));
	}
	return NULL;
}

static void mover_wake(struct mover *m, struct account *acc)
{
	sm_store(&m->word, m->word + 1);
	account_wake(acc, sm_wake(&m->word, 1, SM_PRIVATE));
}

/* Has it seen the last wake-up, and does it wait again? */
static bool mover_waits(struct mover *m)
{
	int64_t end = sm_now_ns() + sm_patience_ns();

	while (sm_load(&m->seen) != m->word || sm_nr_waiters(&m->word, SM_PRIVATE) != 1) {
		if (sm_now_ns() > end)
			return false;
		sched_yield();
	}
	return true;
}

static int mover_to(struct mover *m, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(m->tid, sizeof(set), &set);
}

TEST_F_TIMEOUT(race, two_cpus_one_stack, 120)
{
	long i, k, n = rounds(&self->env, 6000);
	struct account woken = { 0 };
	struct mover m[2] = { 0 };
	uint64_t seed = 0xfeedbeef;
	int cpu[2] = { -1, -1 };
	struct sm_stats st;
	cpu_set_t all;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && cpu[1] < 0)
			cpu[cpu[0] >= 0] = i;
	if (cpu[1] < 0)
		SKIP(return, "one CPU");
	for (k = 0; k < 2; k++) {
		ASSERT_EQ(0, sm_thread(&m[k].thread, mover_fn, &m[k]));
		ASSERT_TRUE(sm_wait_until(sm_load(&m[k].tid)));
	}
	sm_rebase(&self->env);
	for (i = 0; i < n; i++) {
		for (k = 0; k < 2; k++) {
			ASSERT_TRUE(mover_waits(&m[k])) {
				TH_LOG("round %ld: thread %ld hangs", i, k);
			}
			ASSERT_EQ(0, mover_to(&m[k], cpu[(i + k) % 2]));
		}
		mover_wake(&m[i / 2 % 2], &woken);
		for (k = sm_rnd(&seed) % 3000; k; k--)
			__asm__ volatile("");
		mover_wake(&m[!(i / 2 % 2)], &woken);
	}
	for (k = 0; k < 2; k++) {
		ASSERT_TRUE(mover_waits(&m[k]));
		sm_store(&m[k].stop, 1);
		mover_wake(&m[k], &woken);
		pthread_join(m[k].thread, NULL);
		account_add(&woken, &m[k].acc);
	}
	EXPECT_BALANCE(&woken);
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
	if (!self->env.lingering)
		return;
	/* Both of them win now and then. */
	ASSERT_EQ(0, sm_stats_read(&st));
	TH_LOG("%ld rounds: %ld kept, %ld taken", n, st.lingered - self->env.base.lingered,
	       st.parks - self->env.base.parks);
	EXPECT_LE(n / 20, st.lingered - self->env.base.lingered);
	EXPECT_LE(n / 20, st.parks - self->env.base.parks);
}

/* ---------------------------------------------------------------------- death */

/* A process is killed at any moment of its threads' parking and waking. */
TEST_F_TIMEOUT(race, kill, 90)
{
	long i, n = rounds(&self->env, 40);
	uint64_t seed = 0x1234567;
	struct pairs p = { .nr = 8 };
	int j, status;
	pid_t pid;

	for (i = 0; i < n; i++) {
		pid = SM_FORK();
		if (!pid) {
			if (!pairs_alloc(&p))
				_exit(1);
			pairs_set(&p, LONG_MAX);
			sm_runners_start(p.r, p.nr);
			for (j = 0; i % 4 == 0 && j < 50; j++)
				sm_sleep_ns(100000);
			if (i % 4 == 0)
				_exit(0);	/* by itself */
			for (;;)
				sm_sleep_ms(100);
		}
		sm_sleep_ns(sm_rnd(&seed) % (20 * SM_MSEC));
		if (i % 4)
			kill(pid, SIGKILL);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
	}
	SM_EXPECT_PARKS(&self->env, 20);
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

/* Threads that end and begin while others wake and sleep. */
struct churn {
	uint32_t word;
	int stop;
	long made;
};

static void *churn_fn(void *p)
{
	struct churn *c = p;
	pthread_t t[8];
	int i;

	while (!sm_load(&c->stop)) {
		for (i = 0; i < 8; i++)
			if (sm_thread(&t[i], short_thread, NULL))
				break;
		while (i-- > 0) {
			pthread_join(t[i], NULL);
			sm_add(&c->made, 1);
		}
	}
	return NULL;
}

TEST_F_TIMEOUT(race, thread_churn, 90)
{
	int64_t end = sm_now_ns() + (self->env.parked ? 3 : 1) * SM_SEC;
	struct churn c = { 0 };
	pthread_t t[4];

	SM_THREADS(t, 4, churn_fn, &c);
	while (sm_now_ns() < end || sm_load(&c.made) < 100)
		sm_sleep_ms(20);
	sm_store(&c.stop, 1);
	sm_threads_join(t, 4);
	SM_EXPECT_PARKS(&self->env, 50);
	EXPECT_TRUE(sm_wait_none_parked(&self->env));
}

SM_MAIN(sm_rounds_factor());
