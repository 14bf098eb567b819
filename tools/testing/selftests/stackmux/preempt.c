// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that are preempted on their way to user mode: they go on as if nothing had
 * happened, and a herd of them needs few stacks.
 *
 * All threads compute in a loop that has known values in all registers. Those of a CPU
 * take turns, so each of them is off its CPU, and parked, most of the time.
 */
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/utsname.h>

#include "regs.h"
#include "scenario.h"

#define NR_SPINNERS	6
#define NR_ROUNDS	400	/* at most */

struct spinner {
	pthread_t thread;
	pid_t tid;
	struct regs_diff diff;
	uint32_t *go;
	long round;		/* the loop that it is in, or was in last */
	long rounds;
	int handled;		/* signals */
};

/* May be shared with a child process */
struct spinners {
	uint32_t go[NR_ROUNDS];	/* a word for each loop: leave it */
	long rounds;
	int nr;
	struct spinner s[NR_SPINNERS];
};

static __thread struct spinner *me;

static void handler(int sig)
{
	sm_add(&me->handled, 1);
}

static void *spin(void *arg)
{
	int avx = __builtin_cpu_supports("avx");
	struct spinner *s = arg;
	struct regs in, out;
	uint64_t seed;
	long i;

	me = s;
	sm_store(&s->tid, sm_gettid());
	seed = 0x9e3779b97f4a7c15ULL * s->tid;
	for (i = 0; i < s->rounds; i++) {
		regs_fill(&in, &seed);
		memset(&out, 0, sizeof(out));
		in.gp[6] = (long)&s->go[i];
		sm_store(&s->round, i + 1);

		regs_spin(&in, &out, avx);

		regs_compare(&s->diff, &in, &out, avx);
		regs_same(&s->diff, "rax", out.rax, in.rax);
		regs_same(&s->diff, "rcx", out.rcx, in.rcx);
		regs_same(&s->diff, "r11", out.r11, in.r11);
	}
	return NULL;
}

static bool spinners_start(struct spinners *p, int nr, long rounds)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	int i;

	if (sigaction(SIGUSR1, &sa, NULL) || nr > NR_SPINNERS || rounds > NR_ROUNDS)
		return false;
	p->nr = nr;
	p->rounds = rounds;
	for (i = 0; i < nr; i++) {
		p->s[i].go = p->go;
		p->s[i].rounds = rounds;
		if (sm_thread(&p->s[i].thread, spin, &p->s[i]))
			return false;
	}
	return true;
}

static bool spinners_in_round(struct spinners *p, long round)
{
	int i;

	for (i = 0; i < p->nr; i++)
		if (sm_load(&p->s[i].round) < round)
			return false;
	return true;
}

/* Lets all of them leave their loop, when they have been in it for a while. */
static bool spinners_next(struct spinners *p, long round)
{
	bool ok = sm_wait_until(spinners_in_round(p, round + 1));

	sm_sleep_ms(4);
	sm_store(&p->go[round], 1);
	return ok;
}

/* They leave what loops there still are, and end. */
static void spinners_end(struct spinners *p)
{
	long i;

	for (i = 0; i < p->rounds; i++)
		sm_store(&p->go[i], 1);
	for (i = 0; i < p->nr; i++)
		pthread_join(p->s[i].thread, NULL);
}

/* Every register is as it was. */
static void spinners_check(struct __test_metadata *_metadata, struct spinners *p)
{
	struct regs_diff *d;
	int i;

	for (i = 0; i < p->nr; i++) {
		d = &p->s[i].diff;
		EXPECT_EQ(NULL, d->what) {
			TH_LOG("%s: %lx instead of %lx", d->what, d->got, d->want);
		}
	}
}

FIXTURE(preempt) {
	struct sm_env env;
	struct spinners *p;
};

SM_FIXTURE_SHARED(preempt, p);

/* They leave what loops there still are, with every register as it was. */
#define SPINNERS_END(p)							\
do {									\
	spinners_end(p);						\
	spinners_check(_metadata, p);					\
} while (0)

/* ----------------------------------------------------------- one after the other */

static void spin_rounds(struct __test_metadata *_metadata, FIXTURE_DATA(preempt) *self,
			bool starve)
{
	long rounds = sm_rounds(100), i;

	sm_pin();
	if (starve)
		ASSERT_EQ(0, sm_no_idle_stacks());
	ASSERT_TRUE(spinners_start(self->p, NR_SPINNERS, rounds));
	for (i = 0; i < rounds; i++) {
		EXPECT_TRUE(spinners_next(self->p, i));
		if (starve)
			ASSERT_EQ(0, sm_shrink());
	}
	SPINNERS_END(self->p);
	SM_EXPECT_MORE(&self->env, preempted, rounds);
}

TEST_F(preempt, registers)
{
	spin_rounds(_metadata, self, false);
}

/* No stack is left when they are to go on: each has to wait for one. */
TEST_F_TIMEOUT(preempt, starved, 60)
{
	spin_rounds(_metadata, self, self->env.present);
	SM_EXPECT_MORE(&self->env, starvations, 1);
}

/* A handler runs on the user's stack, and the loop goes on after it. */
TEST_F(preempt, signals)
{
	long rounds = sm_rounds(100), i;
	struct spinner *s;
	int n, k;

	sm_pin();
	ASSERT_TRUE(spinners_start(self->p, NR_SPINNERS, 1));
	ASSERT_TRUE(sm_wait_until(spinners_in_round(self->p, 1)));
	for (i = 0; i < rounds; i++) {
		s = &self->p->s[i % NR_SPINNERS];
		n = sm_load(&s->handled);
		ASSERT_EQ(0, sm_tgkill(getpid(), s->tid, SIGUSR1));
		EXPECT_TRUE(sm_wait_until(sm_load(&s->handled) == n + 1));
		for (k = 0; k < NR_SPINNERS; k++)
			EXPECT_EQ(1, self->p->s[k].round);
	}
	SPINNERS_END(self->p);
	SM_EXPECT_MORE(&self->env, preempted, rounds);
}

/* Each runs on another CPU now and then. */
TEST_F(preempt, migrate)
{
	long rounds = sm_rounds(100), i;
	cpu_set_t all, one;
	int cpu = 0, k;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	if (CPU_COUNT(&all) == 1)
		SKIP(return, "one CPU");
	ASSERT_TRUE(spinners_start(self->p, NR_SPINNERS, rounds));
	for (i = 0; i < rounds; i++) {
		do
			cpu = (cpu + 1) % CPU_SETSIZE;
		while (!CPU_ISSET(cpu, &all));
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		ASSERT_TRUE(sm_wait_until(spinners_in_round(self->p, i + 1)));
		for (k = 0; k < NR_SPINNERS; k++)
			ASSERT_EQ(0, sched_setaffinity(self->p->s[k].tid,
						       sizeof(one), &one));
		EXPECT_TRUE(spinners_next(self->p, i));
	}
	SPINNERS_END(self->p);
	SM_EXPECT_MORE(&self->env, preempted, rounds);
}

/* The CPU on which they are parked, or one's stack lingers, goes. */
TEST_F_TIMEOUT(preempt, cpu_hotplug, 60)
{
	cpu_set_t all, two;
	int cpu, other, i;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = CPU_SETSIZE - 1; cpu > 0; cpu--)
		if (CPU_ISSET(cpu, &all) && sm_cpu_online(cpu) == 1)
			break;
	if (!cpu || CPU_COUNT(&all) < 2)
		SKIP(return, "no CPU that can be taken offline");
	for (other = 0; other == cpu || !CPU_ISSET(other, &all); other++)
		;
	/* However many there are, these threads have to share two. */
	CPU_ZERO(&two);
	CPU_SET(cpu, &two);
	CPU_SET(other, &two);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(two), &two));
	ASSERT_TRUE(spinners_start(self->p, NR_SPINNERS, 20));
	for (i = 0; i < 10; i++) {
		EXPECT_TRUE(spinners_next(self->p, 2 * i));
		ASSERT_EQ(0, sm_cpu_set_online(cpu, 0));
		EXPECT_TRUE(spinners_next(self->p, 2 * i + 1));
		ASSERT_EQ(0, sm_cpu_set_online(cpu, 1));
	}
	SPINNERS_END(self->p);
	SM_EXPECT_MORE(&self->env, preempted, 10);
}

/* Who computes and calls nothing is preempted by the tick. */
TEST_F(preempt, tick)
{
	struct sm_stats st;

	sm_pin();
	ASSERT_TRUE(spinners_start(self->p, 2, 1));
	ASSERT_TRUE(sm_wait_until(spinners_in_round(self->p, 1)));
	sm_rebase(&self->env);
	if (self->env.parked)
		EXPECT_TRUE(sm_wait_until(!sm_stats_read(&st) &&
					  st.preempted - self->env.base.preempted >= 20));
	SPINNERS_END(self->p);
}

#define X32_CALL(nr)	((nr) | 0x40000000)

/* A call of x32 keeps its stack. Afterwards its thread is like any other. */
static void *wait_and_spin(void *arg)
{
	struct spinners *p = arg;
	struct spinner *s = &p->s[0];

	sm_store(&s->tid, sm_gettid());
	while (!sm_load(&p->go[0]))
		sm_sys(X32_CALL(__NR_futex), &p->go[0], FUTEX_WAIT | SM_PRIVATE, 0);
	sm_store(&s->round, 1);
	while (!sm_load(&p->go[1]))
		;
	return NULL;
}

static bool x32_sleeps(struct spinners *p)
{
	pid_t tid = sm_load(&p->s[0].tid);

	return tid && sm_nr_waiters(&p->go[0], SM_PRIVATE) == 1 &&
	       sm_task_state(getpid(), tid) == 'S';
}

TEST_F(preempt, x32)
{
	struct spinner *s = &self->p->s[0];
	pthread_t t[2];
	struct sm_stats st;

	if (sm_sys(X32_CALL(__NR_getpid)) != getpid())
		SKIP(return, "this kernel has no x32 system calls");
	sm_pin();
	ASSERT_EQ(0, sm_thread(&t[0], wait_and_spin, self->p));
	ASSERT_TRUE(sm_wait_until(x32_sleeps(self->p)));
	sm_settle();
	EXPECT_FALSE(sm_task_is(getpid(), s->tid, "parked"));
	sm_store(&self->p->go[0], 1);
	EXPECT_EQ(1, sm_wake(&self->p->go[0], 1, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_until(sm_load(&s->round) == 1));
	/* Another one, for which the tick preempts it */
	ASSERT_EQ(0, sm_thread(&t[1], wait_and_spin, self->p));
	sm_rebase(&self->env);
	if (self->env.parked)
		EXPECT_TRUE(sm_wait_until(!sm_stats_read(&st) &&
					  st.preempted - self->env.base.preempted >= 20));
	sm_store(&self->p->go[1], 1);
	EXPECT_EQ(0, sm_threads_join(t, 2));
}

/* ------------------------------------------------------------------- many of them */

struct herd {
	uint32_t futex, end;
	uint32_t awake, nr;
};

/*
 * When it is woken it computes until all others have had their turn. It does not exit
 * before all are through: in there it may block.
 */
static void *join_herd(void *arg)
{
	struct herd *h = arg;

	while (!sm_load(&h->futex))
		sm_wait(&h->futex, 0, SM_PRIVATE);
	sm_add(&h->awake, 1);
	while (sm_load(&h->awake) < h->nr)
		;
	while (!sm_load(&h->end))
		sm_wait(&h->end, 0, SM_PRIVATE);
	return NULL;
}

/* Is this a kernel that preempts itself? Then it says so. */
static bool kernel_is_preemptible(void)
{
	struct utsname name;

	return !uname(&name) && strstr(name.version, "PREEMPT");
}

/*
 * As many threads are runnable as there are, but few have a stack. Those that are
 * preempted inside the kernel do have one: in a debug kernel that preempts itself these
 * may be half of them.
 */
TEST_F_TIMEOUT(preempt, herd, 120)
{
	const char * const limits[] = { "0\n", "8\n" };
	int nr = 200 * sm_nr_cpus(), k;
	int bound = kernel_is_preemptible() ? nr * 9 / 10 : 64 * sm_nr_cpus();
	pthread_t *t = calloc(nr, sizeof(*t));
	struct sm_stats before, st;
	struct herd h;

	ASSERT_NE(NULL, t);
	for (k = 0; k < 2; k++) {
		if (self->env.present)
			ASSERT_EQ(0, sm_write_file(SM_PREEMPTED_MAX, limits[k]));
		sm_rebase(&self->env);
		memset(&h, 0, sizeof(h));
		h.nr = nr;
		SM_THREADS(t, nr, join_herd, &h);
		ASSERT_TRUE(sm_wait_parked(&self->env, nr));
		if (self->env.present) {
			ASSERT_EQ(0, sm_shrink());
			ASSERT_EQ(0, sm_write_file(SM_DEBUGFS "reset", "1\n"));
			ASSERT_EQ(0, sm_stats_read(&before));
		}
		sm_store(&h.futex, 1);
		sm_wake(&h.futex, INT_MAX, SM_PRIVATE);
		ASSERT_TRUE(sm_wait_until_ns(sm_nr_waiters(&h.end, SM_PRIVATE) == nr,
					     sm_patience_ns() + nr * 20 * SM_MSEC * sm_slow()));
		if (self->env.present)
			ASSERT_EQ(0, sm_stats_read(&st));
		sm_store(&h.end, 1);
		sm_wake(&h.end, INT_MAX, SM_PRIVATE);
		sm_threads_join(t, nr);
		if (!self->env.parked)
			continue;
		TH_LOG("%d threads runnable: stacks +%ld, preempted +%ld", nr,
		       st.stacks_max - before.stacks, st.preempted - before.preempted);
		EXPECT_GE(bound, st.stacks_max - before.stacks);
		EXPECT_LE(nr / 2, st.preempted - before.preempted);
	}
	free(t);
}

/* ----------------------------------------------------------- seen from outside */

/* "pinned" was parked when somebody looked at its stack. */
static bool is_parked(const char *word)
{
	return word && (!strcmp(word, "parked") || !strcmp(word, "pinned"));
}

#define EXPECT_PROC(text, tid, name)					\
do {									\
	char __buf[4096];						\
									\
	ASSERT_LT(0, sm_task_read(getpid(), tid, name, __buf, sizeof(__buf))); \
	EXPECT_STREQ(text, __buf);					\
} while (0)

/* They are in no system call, and run, as far as others can see. */
TEST_F(preempt, proc)
{
	long rounds = sm_rounds(100), i, parked = 0;
	pid_t tid, pid = getpid();
	char buf[4096];

	sm_pin();
	ASSERT_TRUE(spinners_start(self->p, NR_SPINNERS, 1));
	ASSERT_TRUE(sm_wait_until(spinners_in_round(self->p, 1)));
	for (i = 0; i < rounds; i++) {
		tid = self->p->s[i % NR_SPINNERS].tid;
		EXPECT_EQ('R', sm_task_state(pid, tid));
		parked += is_parked(sm_task_status(pid, tid, "Stackmux", buf, sizeof(buf)));
		EXPECT_PROC("running\n", tid, "syscall");
		EXPECT_PROC("0", tid, "wchan");
		ASSERT_LE(0, sm_task_read(pid, tid, "stack", buf, sizeof(buf)));
		EXPECT_NE(NULL, strstr(buf, "to_user_mode")) {
			TH_LOG("%s", buf);
		}
	}
	SPINNERS_END(self->p);
	if (self->env.parked)
		EXPECT_LE(rounds / 2, parked);
}

static pid_t spinning_child(struct spinners *p)
{
	pid_t pid = sm_fork();

	if (!pid) {
		sm_pin();
		if (!spinners_start(p, NR_SPINNERS, 1))
			_exit(1);
		pthread_join(p->s[0].thread, NULL);
		spinners_end(p);
		_exit(0);
	}
	if (pid > 0 && !sm_wait_until(spinners_in_round(p, 1)))
		return -1;
	return pid;
}

/* A tracer sees the registers of the loop, and changes one of them. */
TEST_F(preempt, ptrace)
{
	struct user_regs_struct r;
	struct spinner *s;
	int status, i;
	pid_t pid;

	self->p->nr = NR_SPINNERS;
	pid = spinning_child(self->p);
	ASSERT_LT(0, pid);
	for (i = 0; i < NR_SPINNERS; i++) {
		s = &self->p->s[i];
		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, s->tid, NULL, NULL));
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL));
		ASSERT_EQ(s->tid, waitpid(s->tid, &status, __WALL));
		EXPECT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, ptrace(PTRACE_GETREGS, s->tid, NULL, &r));
		EXPECT_EQ(-1L, (long)r.orig_rax);
		EXPECT_LE((long)regs_spin_loop, (long)r.rip);
		EXPECT_GT((long)regs_spin_end, (long)r.rip);
		EXPECT_EQ((long)&self->p->go[0], (long)r.rdi);
		r.r12 = 1000 + i;
		ASSERT_EQ(0, ptrace(PTRACE_SETREGS, s->tid, NULL, &r));
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, s->tid, NULL, NULL));
	}
	sm_sleep_ms(20);
	sm_store(&self->p->go[0], 1);
	SM_EXPECT_STATUS(0, pid);
	for (i = 0; i < NR_SPINNERS; i++) {
		ASSERT_NE(NULL, self->p->s[i].diff.what);
		EXPECT_STREQ("r12", self->p->s[i].diff.what);
		EXPECT_EQ(1000 + i, self->p->s[i].diff.got);
	}
	SM_EXPECT_MORE(&self->env, preempted, 1);
}

TEST_F(preempt, stop_and_kill)
{
	int status, i;
	pid_t pid;

	self->p->nr = NR_SPINNERS;
	pid = spinning_child(self->p);
	ASSERT_LT(0, pid);
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		EXPECT_TRUE(sm_wait_until(sm_task_state(pid, self->p->s[i].tid) == 'T'));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		EXPECT_TRUE(sm_wait_until(sm_task_state(pid, self->p->s[i].tid) == 'R'));
	}
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_TRUE(sm_killed_by(status, SIGKILL));
	SM_EXPECT_NONE_PARKED(&self->env);
}

SM_MAIN(1);
