// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that look themselves at what they have waited for: with
 * prctl(PR_STACKMUX_RETRY) a wake-up sends them to an address of their choice;
 * whatever else ends a wait, and any wait on the stack, does not.
 */
#include "scenario.h"
#include <stddef.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/user.h>

struct range {
	uint64_t start, length, address, flags;
};

/*
 * A system call inside the range, and what came of it: @ret at the address after
 * the instruction, or @why at the address of the range.
 */
struct call {
	long nr, arg[6];
	long ret, why, rcx, r12;
	pthread_t thread;
	pid_t tid;
	int done;
	const struct range *range;	/* registered first, unless NULL */
	long registered;		/* result of that */
	bool outside;			/* make it with syscall() instead */
};

#define NO_WHY		(-4711)
#define R12		0x1234567812345678

_Static_assert(offsetof(struct call, ret) == 56, "as in the assembly");
_Static_assert(offsetof(struct call, r12) == 80, "as in the assembly");

void call_in_range(struct call *c);
extern char range_start[], range_end[], range_woken[], range_elsewhere[];

asm(".pushsection .text\n"
	".globl call_in_range, range_start, range_end, range_woken, range_elsewhere\n"
	".type call_in_range, @function\n"
"call_in_range:\n"
"	push %rbx\n"
"	push %r12\n"
"	mov %rdi, %rbx\n"
"	movabs $0x1234567812345678, %r12\n"
"	mov (%rbx), %rax\n"
"	mov 8(%rbx), %rdi\n"
"	mov 16(%rbx), %rsi\n"
"	mov 24(%rbx), %rdx\n"
"	mov 32(%rbx), %r10\n"
"	mov 40(%rbx), %r8\n"
"	mov 48(%rbx), %r9\n"
"range_start:\n"
"	syscall\n"
"	mov %rax, 56(%rbx)\n"
"range_end:\n"
"1:	mov %rcx, 72(%rbx)\n"
"	mov %r12, 80(%rbx)\n"
"	pop %r12\n"
"	pop %rbx\n"
"	ret\n"
"range_woken:\n"
"	mov %rax, 64(%rbx)\n"
"	jmp 1b\n"
/* The same code at another place */
"range_elsewhere:\n"
"	mov %rax, 64(%rbx)\n"
"	jmp 1b\n"
"	.size call_in_range, . - call_in_range\n"
"	.popsection");

static struct range range_to(const void *address)
{
	return (struct range) {
		.start = (long)range_start,
		.length = range_end - range_start,
		.address = (long)address,
	};
}

static long set_range(const struct range *r, size_t size)
{
	return sm_prctl(PR_STACKMUX_RETRY, (long)r, size, 0);
}

static void make_call(struct call *c)
{
	c->ret = NO_WHY;
	c->why = NO_WHY;
	c->registered = c->range ? set_range(c->range, sizeof(*c->range)) : 0;
	sm_store(&c->tid, sm_gettid());
	if (c->outside)
		c->ret = sm_sys(c->nr, c->arg[0], c->arg[1], c->arg[2], c->arg[3],
				c->arg[4], c->arg[5]);
	else
		call_in_range(c);
	sm_store(&c->done, 1);
}

static void *call_thread(void *arg)
{
	make_call(arg);
	return NULL;
}

#define __call_set(c, nr, a1, a2, a3, a4, a5, a6, ...)			\
	(*(c) = (struct call) { nr, { (long)(a1), (long)(a2), (long)(a3), \
				      (long)(a4), (long)(a5), (long)(a6) } })

/* @c is to be this call. Arguments that are not named are 0. */
#define call_set(c, nr, ...)	__call_set(c, nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

FIXTURE(retry) {
	struct sm_env env;
	struct range range;
	struct call *c;
	uint32_t *futex;
};

SM_VARIANTS(retry);

FIXTURE_SETUP(retry)
{
	sm_setup(_metadata, &self->env, variant->parked);
	if (!self->env.present)
		SKIP(return, "this kernel has no stackmux");
	self->range = range_to(range_woken);
	self->c = sm_shared_alloc(sizeof(*self->c));
	self->futex = sm_shared_alloc(4096);
	ASSERT_NE(NULL, self->c);
	ASSERT_NE(NULL, self->futex);
}

FIXTURE_TEARDOWN(retry) { }

/* A wait for self->futex, in the range */
static void wait_set(FIXTURE_DATA(retry) *self)
{
	call_set(self->c, __NR_futex, self->futex, FUTEX_WAIT);
	self->c->range = &self->range;
}

/* In the mode "always" all waits park, those of a classic run as well. */
static bool parks(struct sm_env *env)
{
	return env->parked || env->mode == 2;
}

static bool call_asleep(pid_t pid, struct call *c)
{
	struct sm_waiter w = {
		.entered = 1, .tid = sm_load(&c->tid), .done = sm_load(&c->done),
	};

	return w.tid && !w.done && sm_waiter_asleep(pid, &w);
}

static bool call_wait_asleep(struct sm_env *env, pid_t pid, struct call *c)
{
	return sm_wait_parked(env, 1) && sm_wait_until(call_asleep(pid, c));
}

/* Made by a thread that calls @fn with @arg, in which it makes the call @c */
static bool call_start_by(struct sm_env *env, struct call *c, void *(*fn)(void *), void *arg)
{
	c->tid = 0;
	c->done = 0;
	sm_rebase(env);
	return !sm_thread(&c->thread, fn, arg) && call_wait_asleep(env, getpid(), c);
}

static bool call_start(struct sm_env *env, struct call *c)
{
	return call_start_by(env, c, call_thread, c);
}

/* Made by a child, which exits with @code when it returns. -1 if it does not wait. */
static pid_t call_fork(struct sm_env *env, struct call *c, int code)
{
	pid_t pid;

	c->tid = 0;
	c->done = 0;
	sm_rebase(env);
	pid = sm_fork();
	if (!pid) {
		make_call(c);
		_exit(code);
	}
	return pid > 0 && call_wait_asleep(env, pid, c) ? pid : -1;
}

static bool call_join(struct call *c)
{
	return sm_wait_until(sm_load(&c->done)) && !pthread_join(c->thread, NULL);
}

static long nr_retries(void)
{
	struct sm_stats st;

	return sm_stats_read(&st) ? -1 : st.retries;
}

/* It ended in the ordinary way. */
#define EXPECT_ORDINARY(want, c)					\
do {									\
	EXPECT_EQ(NO_WHY, (c)->why);					\
	EXPECT_EQ((long)(want), (c)->ret);				\
	if (!(c)->outside) {						\
		EXPECT_EQ((long)range_start + 2, (c)->rcx);		\
		EXPECT_EQ(R12, (c)->r12);				\
	}								\
} while (0)

/* Woken: at the address of the range if it parked, else with @want */
#define EXPECT_WOKEN(want, c)						\
do {									\
	EXPECT_EQ(0, (c)->registered);					\
	if (parks(&self->env)) {					\
		EXPECT_EQ(STACKMUX_RETRY_WOKEN, (c)->why);		\
		EXPECT_EQ(NO_WHY, (c)->ret);				\
		EXPECT_EQ((c)->range->address, (c)->rcx);		\
		EXPECT_EQ(R12, (c)->r12);				\
	} else {							\
		EXPECT_ORDINARY(want, c);				\
	}								\
} while (0)

/* ------------------------------------------------------------- registration */

TEST_F(retry, arguments)
{
	struct {
		struct range r;
		uint64_t more;
	} large = { self->range, 0 };
	const uint64_t top = 1UL << 47, start = self->range.start, length = self->range.length;
	const struct range bad[] = {
		{ start, length, self->range.address, .flags = 1 },
		{ start, 0, self->range.address },
		{ start, -1, self->range.address },
		{ start, top - start, self->range.address },
		{ start, length, top },
		{ start, length, -1 },
	};
	struct range r = self->range;
	int i;

	EXPECT_EQ(0, set_range(&r, sizeof(r)));
	EXPECT_EQ(0, set_range(&r, sizeof(r)));
	EXPECT_EQ(0, set_range(NULL, 0));
	EXPECT_EQ(0, set_range(NULL, 0));
	EXPECT_EQ(-EFAULT, set_range(NULL, sizeof(r)));
	EXPECT_EQ(-EFAULT, set_range((void *)-4096L, sizeof(r)));
	EXPECT_EQ(-EINVAL, set_range(&r, 0));
	EXPECT_EQ(-EINVAL, set_range(&r, sizeof(r) - 1));
	EXPECT_EQ(-E2BIG, set_range(&r, 1 << 20));
	EXPECT_EQ(-EINVAL, sm_prctl(PR_STACKMUX_RETRY, (long)&r, sizeof(r), 1));

	/* A larger structure is one of a later header. */
	EXPECT_EQ(0, set_range(&large.r, sizeof(large)));
	large.more = 1;
	EXPECT_EQ(-E2BIG, set_range(&large.r, sizeof(large)));

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, set_range(&bad[i], sizeof(bad[i]))) {
			TH_LOG("range %d", i);
		}
	r = range_to(NULL);
	EXPECT_EQ(0, set_range(&r, sizeof(r)));
	EXPECT_EQ(0, set_range(NULL, 0));
}

/* -------------------------------------------------------------------- calls */

TEST_F(retry, futex)
{
	const struct {
		long nr, op;
	} form[] = {
		{ __NR_futex, FUTEX_WAIT },
		{ __NR_futex, FUTEX_WAIT | FUTEX_PRIVATE_FLAG },
		{ __NR_futex, FUTEX_WAIT_BITSET },
		{ __NR_futex_wait },
	};
	long retries = nr_retries();
	struct call *c = self->c;
	struct timespec ts;
	int i, timed;

	for (i = 0; i < 2 * ARRAY_SIZE(form); i++) {
		timed = i % 2;
		if (form[i / 2].nr == __NR_futex) {
			/* In 1,000 s, or at a date that is far away */
			ts = sm_ts(sm_now_ns() + 1000 * SM_SEC);
			call_set(c, __NR_futex, self->futex, form[i / 2].op, 0, timed ? &ts : NULL);
			c->arg[5] = -1;
		} else {
			call_set(c, __NR_futex_wait, self->futex, 0, ~0U, FUTEX2_SIZE_U32,
				 timed ? &ts : NULL);
			c->arg[5] = CLOCK_MONOTONIC;
		}
		c->range = &self->range;
		ASSERT_TRUE(call_start(&self->env, c));
		EXPECT_EQ(1, sm_wake(self->futex, 1, form[i / 2].op & FUTEX_PRIVATE_FLAG));
		ASSERT_TRUE(call_join(c));
		EXPECT_WOKEN(0, c);
	}
	EXPECT_EQ(retries + (parks(&self->env) ? i : 0), nr_retries());
}

TEST_F(retry, poll)
{
	struct timespec ts = { 1000, 0 };
	struct call *c = self->c;
	struct pollfd pfd[3];
	struct sm_chan ch[3];
	int kind, nfds, form, i;
	uint64_t mask = 1ULL << (SIGUSR2 - 1);

	for (i = 0; i < SM_NR_KINDS * 4; i++) {
		kind = i / 4;
		nfds = i & 1 ? 3 : 1;
		form = i & 2;
		ASSERT_EQ(0, sm_chans_open(ch, 3, kind));
		for (int k = 0; k < 3; k++)
			pfd[k] = (struct pollfd){ ch[k].rd, POLLIN, 0x5a };
		if (form)
			call_set(c, __NR_ppoll, pfd, nfds, &ts, &mask, 8);
		else
			call_set(c, __NR_poll, pfd, nfds, 1000000);
		c->range = &self->range;
		ASSERT_TRUE(call_start(&self->env, c));
		ASSERT_TRUE(sm_chan_send(&ch[nfds - 1]));
		ASSERT_TRUE(call_join(c));
		EXPECT_WOKEN(1, c);
		/* No result, no time that is left */
		if (parks(&self->env)) {
			EXPECT_EQ(0x5a, pfd[nfds - 1].revents);
			EXPECT_EQ(1000, ts.tv_sec);
		} else {
			EXPECT_EQ(POLLIN, pfd[nfds - 1].revents);
			ts = (struct timespec){ 1000, 0 };
		}
		EXPECT_TRUE(sm_chan_take(&ch[nfds - 1]));
		sm_chans_close(ch, 3);
	}
}

/* The mask of ppoll() is in force while it waits, and no longer. */
static void *masked_thread(void *arg)
{
	uint64_t *mask = arg;

	sm_mask_set(1ULL << (SIGUSR1 - 1));
	make_call((struct call *)mask[1]);
	mask[0] = sm_mask_now();
	return NULL;
}

TEST_F(retry, ppoll_mask)
{
	uint64_t none = 0, arg[2] = { 0, (long)self->c };
	struct call *c = self->c;
	struct sm_chan ch;
	struct pollfd pfd;

	ASSERT_EQ(0, sm_chan_open(&ch, SM_PIPE));
	pfd = (struct pollfd){ ch.rd, POLLIN, 0 };
	call_set(c, __NR_ppoll, &pfd, 1, 0, &none, 8);
	c->range = &self->range;
	ASSERT_TRUE(call_start_by(&self->env, c, masked_thread, arg));
	EXPECT_EQ(0, sm_mask_of(getpid(), c->tid));
	ASSERT_TRUE(sm_chan_send(&ch));
	ASSERT_TRUE(call_join(c));
	EXPECT_WOKEN(1, c);
	EXPECT_EQ(1ULL << (SIGUSR1 - 1), arg[0]);
}

/* What is no wake-up, no wait, not in the range, or another call */
TEST_F(retry, ordinary)
{
	struct timespec soon = { 0, 20 * SM_MSEC };
	struct call *c = self->c;
	long retries = nr_retries();
	struct pollfd pfd;
	struct sm_chan ch;
	uint64_t val = 0;

	ASSERT_EQ(0, sm_chan_open(&ch, SM_EVENTFD));
	pfd = (struct pollfd){ ch.rd, POLLIN, 0x5a };

	call_set(c, __NR_futex, self->futex, FUTEX_WAIT, 1);
	c->range = &self->range;
	make_call(c);
	EXPECT_ORDINARY(-EAGAIN, c);

	call_set(c, __NR_futex, self->futex, FUTEX_WAIT, 0, &soon);
	make_call(c);
	EXPECT_ORDINARY(-ETIMEDOUT, c);

	call_set(c, __NR_poll, &pfd, 1, 20);
	make_call(c);
	EXPECT_ORDINARY(0, c);
	EXPECT_EQ(0, pfd.revents);

	call_set(c, __NR_nanosleep, &soon);
	make_call(c);
	EXPECT_ORDINARY(0, c);

	call_set(c, __NR_read, ch.rd, &val, 8);
	c->range = &self->range;
	ASSERT_TRUE(call_start(&self->env, c));
	ASSERT_TRUE(sm_chan_send(&ch));
	ASSERT_TRUE(call_join(c));
	EXPECT_ORDINARY(8, c);
	EXPECT_EQ(1, val);

	/* The same wait from elsewhere, and of a thread without a range */
	for (int i = 0; i < 2; i++) {
		call_set(c, __NR_futex, self->futex, FUTEX_WAIT);
		c->range = i ? NULL : &self->range;
		c->outside = !i;
		ASSERT_TRUE(call_start(&self->env, c));
		EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
		ASSERT_TRUE(call_join(c));
		EXPECT_ORDINARY(0, c);
	}
	EXPECT_EQ(retries, nr_retries());
}

/* The last registration counts, and none when there is none any more. */
static void *two_ranges(void *arg)
{
	struct range other = range_to(range_elsewhere);
	struct call *c = arg;

	set_range(&other, sizeof(other));
	make_call(c);
	return NULL;
}

static void *no_range(void *arg)
{
	struct range other = range_to(range_elsewhere);

	set_range(&other, sizeof(other));
	set_range(NULL, 0);
	make_call(arg);
	return NULL;
}

TEST_F(retry, change)
{
	struct call *c = self->c;
	int i;

	for (i = 0; i < 2; i++) {
		call_set(c, __NR_futex, self->futex, FUTEX_WAIT);
		c->range = i ? NULL : &self->range;
		ASSERT_TRUE(call_start_by(&self->env, c, i ? no_range : two_ranges, c));
		EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
		ASSERT_TRUE(call_join(c));
		if (i) {
			EXPECT_ORDINARY(0, c);
		} else {
			EXPECT_WOKEN(0, c);
		}
	}
}

/* ------------------------------------------------------------------ signals */

TEST_F(retry, signals)
{
	struct call *c = self->c;
	struct sm_chan ch;
	struct pollfd pfd;

	/* A handler ends the wait, or lets it go on. */
	sm_handle(SIGUSR1, 0);
	wait_set(self);
	ASSERT_TRUE(call_start(&self->env, c));
	ASSERT_EQ(0, sm_tgkill(getpid(), c->tid, SIGUSR1));
	ASSERT_TRUE(call_join(c));
	EXPECT_ORDINARY(-EINTR, c);

	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_TRUE(call_start(&self->env, c));
	sm_rebase(&self->env);
	ASSERT_EQ(0, sm_tgkill(getpid(), c->tid, SIGUSR1));
	ASSERT_TRUE(sm_wait_until(sm_load(&sm_handled) == 1));
	ASSERT_TRUE(sm_wait_queued(self->futex, SM_SHARED, 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 0));
	EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
	ASSERT_TRUE(call_join(c));
	EXPECT_WOKEN(0, c);

	/* poll() ends with any handler, and is restarted after a stop. */
	ASSERT_EQ(0, sm_chan_open(&ch, SM_PIPE));
	pfd = (struct pollfd){ ch.rd, POLLIN, 0 };
	call_set(c, __NR_poll, &pfd, 1, -1);
	c->range = &self->range;
	ASSERT_TRUE(call_start(&self->env, c));
	ASSERT_EQ(0, sm_tgkill(getpid(), c->tid, SIGUSR1));
	ASSERT_TRUE(call_join(c));
	EXPECT_ORDINARY(-EINTR, c);
}

/* A thread that parks in its range is killed: nothing of it remains. */
TEST_F(retry, killed)
{
	struct call *c = self->c;
	int i, status;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		wait_set(self);
		pid = call_fork(&self->env, c, 0);
		ASSERT_LE(0, pid);
		/* It may be on its way already when it is killed. */
		if (i)
			EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
		kill(pid, SIGKILL);
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		if (!i)
			EXPECT_EQ(SIGKILL, WTERMSIG(status));
	}
	EXPECT_EQ(0, sm_nr_waiters(self->futex, SM_SHARED));
}

/* There is no code: as a jump there. The kernel goes on as if nothing had been. */
TEST_F(retry, bad_address)
{
	char *data = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const void *const bad[] = { NULL, data, data + 4096,
				   (void *)((1L << 47) - 8192) };
	struct call *c = self->c;
	struct range r;
	int i, status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, data);
	ASSERT_EQ(0, munmap(data + 4096, 4096));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		r = range_to(bad[i]);
		call_set(c, __NR_futex, self->futex, FUTEX_WAIT);
		c->range = &r;
		pid = call_fork(&self->env, c, 17);
		ASSERT_LE(0, pid);
		EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
		ASSERT_EQ(0, sm_waitpid(pid, &status));
		EXPECT_EQ(0, c->registered);
		if (parks(&self->env)) {
			EXPECT_TRUE(WIFSIGNALED(status));
			EXPECT_EQ(SIGSEGV, WTERMSIG(status));
		} else {
			EXPECT_EQ(17, WEXITSTATUS(status));
		}
	}
}

/* ------------------------------------------------------- fork, exec, ptrace */

TEST_F(retry, fork)
{
	struct call *c = self->c;
	pid_t pid;
	int status;

	ASSERT_EQ(0, set_range(&self->range, sizeof(self->range)));
	call_set(c, __NR_futex, self->futex, FUTEX_WAIT);
	pid = call_fork(&self->env, c, 0);
	ASSERT_LE(0, pid);
	EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_ORDINARY(0, c);
}

/*
 * The program starts itself again, at the same addresses, and waits where the one
 * before had its range.
 */
static void *wake_soon(void *arg)
{
	if (!sm_wait_queued(arg, SM_SHARED, 1))
		_exit(5);
	sm_wake(arg, 1, SM_SHARED);
	return NULL;
}

static int exec_child(char **argv)
{
	struct range r = range_to(range_woken);
	static uint32_t futex;
	pthread_t thread;
	struct call c;
	char at[32];

	if (!strcmp(argv[2], "first")) {
		if (set_range(&r, sizeof(r)))
			return 2;
		snprintf(at, sizeof(at), "%lx", (long)range_start);
		execl("/proc/self/exe", argv[0], argv[1], at, NULL);
		return 3;
	}
	if (strtoul(argv[2], NULL, 16) != (unsigned long)range_start)
		return 4;
	call_set(&c, __NR_futex, &futex, FUTEX_WAIT);
	if (sm_thread(&thread, wake_soon, &futex))
		return 6;
	make_call(&c);
	pthread_join(thread, NULL);
	return c.why == NO_WHY && !c.ret ? 0 : 7;
}

TEST_F(retry, exec)
{
	pid_t pid;

	pid = SM_FORK();
	if (!pid) {
		if (self->env.parked && sm_enable(PR_STACKMUX_F_EXEC))
			_exit(1);
		personality(ADDR_NO_RANDOMIZE);
		execl("/proc/self/exe", "retry", "--exec-child", "first", NULL);
		_exit(8);
	}
	SM_EXPECT_STATUS(0, pid);
}

/* A tracer that comes while it is parked sees an ordinary call. */
TEST_F(retry, traced)
{
	struct call *c = self->c;
	struct user_regs_struct r;
	int status;
	pid_t pid;

	wait_set(self);
	pid = call_fork(&self->env, c, 0);
	ASSERT_LE(0, pid);
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACESYSGOOD));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	ASSERT_EQ(0, ptrace(PTRACE_SYSCALL, pid, NULL, NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	ASSERT_EQ(0, ptrace(PTRACE_SYSCALL, pid, NULL, NULL));
	ASSERT_TRUE(sm_wait_queued(self->futex, SM_SHARED, 1));
	EXPECT_EQ(1, sm_wake(self->futex, 1, SM_SHARED));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	ASSERT_EQ(0, ptrace(PTRACE_GETREGS, pid, NULL, &r));
	EXPECT_EQ(0, (long)r.rax);
	EXPECT_EQ((long)range_start + 2, (long)r.rip);
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, pid, NULL, NULL));
	ASSERT_EQ(0, sm_waitpid(pid, &status));
	EXPECT_ORDINARY(0, c);
}

/* -------------------------------------------------------------------- races */

struct turns {
	uint32_t ping, pong;
	long rounds, retried, ordinary, bad;
	int end;
};

/* Wait until *@f is @want: whatever way a wait ends, it is no more than a hint. */
static void wait_for(struct turns *t, struct call *c, uint32_t *f, uint32_t want)
{
	uint32_t val;

	while ((val = sm_load(f)) != want) {
		call_set(c, __NR_futex, f, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, val);
		c->ret = NO_WHY;
		c->why = NO_WHY;
		call_in_range(c);
		if (c->why == STACKMUX_RETRY_WOKEN && c->ret == NO_WHY)
			t->retried++;
		else if (c->why == NO_WHY && (!c->ret || c->ret == -EAGAIN ||
					      c->ret == -EINTR))
			t->ordinary++;
		else
			t->bad++;
		if (c->r12 != R12)
			t->bad++;
	}
}

static void *ponger(void *arg)
{
	struct turns *t = arg;
	struct range range = range_to(range_woken);
	struct turns mine = { };
	struct call c;
	long i;

	if (set_range(&range, sizeof(range)))
		mine.bad++;
	for (i = 1; i <= t->rounds; i++) {
		wait_for(&mine, &c, &t->ping, i);
		sm_store(&t->pong, i);
		sm_wake(&t->pong, 1, SM_PRIVATE);
	}
	sm_add(&t->retried, mine.retried);
	sm_add(&t->ordinary, mine.ordinary);
	sm_add(&t->bad, mine.bad);
	sm_store(&t->end, 1);
	return NULL;
}

TEST_F_TIMEOUT(retry, race, 90)
{
	struct turns t = { .rounds = sm_rounds(20000) }, mine = { };
	struct call c;
	pthread_t thread;
	long i, n = 0;

	/* Signals that come at any moment, also on the way to the address */
	sm_handle(SIGUSR1, SA_RESTART);
	ASSERT_EQ(0, set_range(&self->range, sizeof(self->range)));
	ASSERT_EQ(0, sm_thread(&thread, ponger, &t));
	for (i = 1; i <= t.rounds; i++) {
		sm_store(&t.ping, i);
		sm_wake(&t.ping, 1, SM_PRIVATE);
		if (i % 8 == 0)
			n += !pthread_kill(thread, SIGUSR1);
		wait_for(&mine, &c, &t.pong, i);
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&t.end)));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, t.bad + mine.bad);
	EXPECT_LT(0, sm_load(&sm_handled));
	EXPECT_GE(n, sm_load(&sm_handled));
	if (parks(&self->env)) {
		EXPECT_LT(t.rounds / 20, t.retried + mine.retried);
	} else {
		EXPECT_EQ(0, t.retried + mine.retried);
	}
	SM_EXPECT_PARKS(&self->env, 20);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--exec-child"))
		return exec_child(argv);
	sm_harness_prepare(sm_rounds_factor());
	return test_harness_run(argc, argv);
}
