// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to processes that have parked threads, and what others see of
 * them: exit, fork, exec, signals, core dumps, job control, ptrace, freezer,
 * seccomp, /proc, registers.
 */
#include <cpuid.h>
#include <linux/elf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/procfs.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/user.h>

#include "regs.h"
#include "scenario.h"

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1
#endif

#ifndef ARCH_SET_GS
#define ARCH_SET_GS	0x1001
#define ARCH_GET_FS	0x1003
#define ARCH_GET_GS	0x1004
#endif

#define NW	8	/* waiters of most tests */

/* A call that is to be restarted, as others see it in the registers. */
#define RET_RESTARTSYS	(-512L)

/* What a child process and the test share. */
struct shared {
	uint32_t futex[4];
	uint32_t word;
	int ready;
	long result[8];
	struct sm_waiter w[NW];
};

FIXTURE(process) {
	struct sm_env env;
	struct shared *s;
};

SM_FIXTURE_SHARED(process, s);

/* Start @n waiters on the shared futex @s->futex[0] in the calling process. */
static bool start(struct shared *s, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (sm_waiter_futex(&s->w[i], &s->futex[0], 0, SM_SHARED))
			return false;
	return true;
}

static long wake(struct shared *s)
{
	return sm_wake(&s->futex[0], INT_MAX, SM_SHARED);
}

/*
 * A child with @n waiters that sleep. Its main thread lives until they are through,
 * and exits 0 if each of them was woken properly, else 1. -1 if they do not sleep.
 */
static pid_t child_with_waiters(struct sm_env *env, struct shared *s, int n)
{
	pid_t pid = sm_fork();
	int i, bad = 0;

	if (pid)
		return pid > 0 && sm_wait_asleep(env, pid, s->w, n) ? pid : -1;
	if (!start(s, n))
		_exit(2);
	for (i = 0; i < n; i++) {
		/* Not pthread_join(), which would park as well. */
		while (!sm_load(&s->w[i].done))
			sm_sleep_ms(2);
		bad |= !!s->w[i].ret;
	}
	_exit(bad);
}

/* In a child: do not go on before the test says so. */
static void until_ready(struct shared *s)
{
	while (!sm_load(&s->ready))
		sm_sleep_ms(1);
}

static int child_status(pid_t pid)
{
	int status;

	return sm_waitpid(pid, &status) ? -1 : status;
}

/* A thread of this process that waits on the shared futex, privately */
static bool start_one(struct sm_env *env, struct shared *s)
{
	sm_rebase(env);
	return !sm_waiter_futex(&s->w[0], &s->futex[0], 0, SM_PRIVATE) &&
	       sm_wait_asleep(env, getpid(), s->w, 1);
}

/* ... is woken, and is through. */
#define WAKE_ONE(s)							\
do {									\
	EXPECT_EQ(1, sm_wake(&(s)->futex[0], 1, SM_PRIVATE));		\
	SM_JOIN((s)->w, 0);						\
} while (0)

/* ------------------------------------------------------ exit, fork, exec */

TEST_F(process, exit_group)
{
	pid_t pid = SM_FORK();

	if (!pid) {
		start(self->s, NW);
		until_ready(self->s);
		_exit(7);
	}
	ASSERT_TRUE(sm_wait_asleep(&self->env, pid, self->s->w, NW));
	sm_store(&self->s->ready, 1);
	EXPECT_EQ(7 << 8, child_status(pid));
	EXPECT_EQ(0, wake(self->s));
	SM_EXPECT_NONE_PARKED(&self->env);
}

/* The last thread is a parked one: the leader has gone before. */
TEST_F(process, leader_exits_first)
{
	pid_t pid = SM_FORK();

	if (!pid) {
		start(self->s, NW);
		syscall(__NR_exit, 3);
	}
	ASSERT_TRUE(sm_wait_asleep(&self->env, pid, self->s->w, NW));
	/* The leader may still be on its way out. */
	EXPECT_TRUE(sm_wait_until(sm_task_state(pid, pid) == 'Z'));
	EXPECT_EQ(NW, wake(self->s));
	EXPECT_EQ(0, child_status(pid));
	SM_EXPECT_NONE_PARKED(&self->env);
}

TEST_F(process, fork_with_parked_siblings)
{
	struct shared *s = self->s;
	struct sm_waiter w = { 0 };
	struct timespec ts;
	pid_t pid;
	int i;

	ASSERT_TRUE(start(s, NW));
	ASSERT_TRUE(sm_wait_asleep(&self->env, getpid(), s->w, NW));
	for (i = 0; i < 3; i++) {
		pid = SM_FORK();
		if (!pid) {
			/* One thread, which can wait and have threads. */
			if (sm_nr_threads(getpid()) != 1)
				_exit(1);
			if (sm_wait_ns(&s->futex[1], 0, SM_SHARED, sm_soon_ns()) != -ETIMEDOUT)
				_exit(2);
			ts = sm_ts(sm_soon_ns());
			sm_call(&w, __NR_futex, &s->futex[1], FUTEX_WAIT | SM_PRIVATE, 0,
				&ts);
			if (sm_waiter_run(&w) || !sm_waiter_join(&w))
				_exit(3);
			_exit(w.ret == -ETIMEDOUT ? 0 : 4);
		}
		EXPECT_EQ(0, child_status(pid));
	}
	EXPECT_EQ(NW, wake(s));
	SM_JOIN_ALL(s->w, NW, 0);
	SM_EXPECT_PARKS(&self->env, NW + 3);
}

static void *exec_thread(void *p)
{
	until_ready(p);
	execl("/proc/self/exe", "process", "--after-exec", NULL);
	_exit(9);
}

/* What the new image does: be alone, wait, have a thread that waits. */
static int after_exec(void)
{
	uint32_t f = 0;
	struct sm_waiter w = { 0 };

	if (sm_nr_threads(getpid()) != 1 || getpid() != sm_gettid())
		return 1;
	if (sm_wait_ns(&f, 0, SM_PRIVATE, SM_MSEC) != -ETIMEDOUT)
		return 2;
	if (sm_waiter_futex(&w, &f, 0, SM_PRIVATE))
		return 3;
	if (!sm_wait_until(sm_wake(&f, 1, SM_PRIVATE) == 1))
		return 4;
	if (!sm_waiter_join(&w) || w.ret)
		return 5;
	return 42;
}

/* exec from the leader and from another thread, with all others parked. */
TEST_F(process, exec_with_parked_siblings)
{
	int from_thread;
	pthread_t t;
	pid_t pid;

	for (from_thread = 0; from_thread < 2; from_thread++) {
		memset(self->s, 0, sizeof(*self->s));
		sm_rebase(&self->env);
		pid = SM_FORK();
		if (!pid) {
			start(self->s, NW);
			if (!from_thread)
				exec_thread(self->s);
			if (sm_thread(&t, exec_thread, self->s))
				_exit(8);
			/* Leave the leader asleep, parked as the others. */
			sm_wait(&self->s->futex[1], 0, SM_SHARED);
			_exit(7);
		}
		ASSERT_TRUE(sm_wait_asleep(&self->env, pid, self->s->w, NW));
		if (from_thread)
			ASSERT_TRUE(sm_wait_queued(&self->s->futex[1], SM_SHARED, 1));
		sm_store(&self->s->ready, 1);
		EXPECT_EQ(42 << 8, child_status(pid));
		EXPECT_EQ(0, wake(self->s));
		EXPECT_EQ(0, sm_wake(&self->s->futex[1], INT_MAX, SM_SHARED));
		SM_EXPECT_NONE_PARKED(&self->env);
	}
}

/* Kill a process that has a thousand threads parked. */
TEST_F_TIMEOUT(process, kill_thousand, 60)
{
	const int nr = 1000;
	long limit = self->env.base.records + nr / 2;
	struct sm_sleepers sl;
	struct sm_stats st;
	pid_t pid;

	pid = SM_FORK();
	if (!pid) {
		sm_allow_threads(nr);
		if (sm_sleepers_create(&sl, nr, false) != nr ||
		    !sm_sleepers_wait_asleep(&sl))
			_exit(1);
		sm_store(&self->s->ready, 1);
		for (;;)
			sm_sleep_ms(100);
	}
	ASSERT_TRUE(sm_wait_until(sm_load(&self->s->ready)));
	EXPECT_EQ(nr + 1, sm_nr_threads(pid));
	ASSERT_TRUE(sm_wait_parked(&self->env, nr));
	kill(pid, SIGKILL);
	EXPECT_TRUE(sm_killed_by(child_status(pid), SIGKILL));
	SM_EXPECT_NONE_PARKED(&self->env);
	if (self->env.parked && self->env.mode != 2) {
		/* Their records go, too, as soon as nothing can look at them. */
		EXPECT_TRUE(sm_wait_until(!sm_stats_read(&st) && st.records < limit)) {
			TH_LOG("%ld records, at first %ld", st.records,
			       self->env.base.records);
		}
	}
}

/* A child that shares the memory, and a vfork child that waits. */
static int vm_child(void *p)
{
	struct shared *s = p;

	/* Private: same memory, same futex. */
	s->result[0] = sm_wait(&s->futex[2], 0, SM_PRIVATE);
	return 5;
}

TEST_F(process, clone_vm)
{
	char *stack = malloc(65536);
	pid_t pid;

	pid = clone(vm_child, stack + 65536, CLONE_VM | SIGCHLD, self->s);
	ASSERT_GE(pid, 0);
	ASSERT_TRUE(sm_wait_queued(&self->s->futex[2], SM_PRIVATE, 1));
	ASSERT_TRUE(sm_wait_until(sm_task_state(pid, pid) == 'S'));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	self->s->result[0] = -1;
	EXPECT_EQ(1, sm_wake(&self->s->futex[2], 1, SM_PRIVATE));
	EXPECT_EQ(5 << 8, child_status(pid));
	EXPECT_EQ(0, self->s->result[0]);
}

static void *vfork_waker(void *p)
{
	FIXTURE_DATA(process) *self = p;
	uint32_t *f = &self->s->futex[2];

	self->s->result[1] = sm_wait_queued(f, SM_PRIVATE, 1) &&
			     sm_wait_parked(&self->env, 1) && sm_wake(f, 1, SM_PRIVATE) == 1;
	return NULL;
}

TEST_F(process, vfork)
{
	struct shared *s = self->s;
	pthread_t t;
	pid_t pid;

	ASSERT_EQ(0, sm_thread(&t, vfork_waker, self));
	pid = vfork();
	if (!pid) {
		s->result[0] = sm_wait(&s->futex[2], 0, SM_PRIVATE);
		_exit(6);
	}
	ASSERT_GE(pid, 0);
	EXPECT_EQ(6, WEXITSTATUS(child_status(pid)));
	pthread_join(t, NULL);
	EXPECT_EQ(0, s->result[0]);
	EXPECT_EQ(1, s->result[1]);
	SM_EXPECT_PARKS(&self->env, 1);
}

/* -------------------------------------------------------------- core dump */

struct core_threads {
	int threads;
	int waiting;		/* in futex(), about to be restarted */
	bool crashed;		/* the one that caused it is there */
};

static bool core_read(const char *path, long uaddr, pid_t main_tid,
		      struct core_threads *ct)
{
	struct elf_prstatus *pr;
	struct user_regs_struct *r;
	struct stat st;
	struct elf64_hdr *eh;
	struct elf64_phdr *ph;
	struct elf64_note *nh;
	char *map, *p, *end;
	int fd, i;

	memset(ct, 0, sizeof(*ct));
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) || st.st_size < (off_t)sizeof(*eh))
		return false;
	map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return false;
	eh = (void *)map;
	if (memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_type != ET_CORE)
		return false;
	ph = (void *)(map + eh->e_phoff);
	for (i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type != PT_NOTE)
			continue;
		p = map + ph[i].p_offset;
		end = p + ph[i].p_filesz;
		while (p < end) {
			nh = (void *)p;
			p += sizeof(*nh) + ((nh->n_namesz + 3) & ~3);
			if (nh->n_type == NT_PRSTATUS) {
				pr = (void *)p;
				r = (void *)&pr->pr_reg;
				ct->threads++;
				if (pr->pr_pid == main_tid)
					ct->crashed = true;
				else if (r->orig_rax == __NR_futex &&
					 (long)r->rdi == uaddr &&
					 (long)r->rax == RET_RESTARTSYS &&
					 r->rip && r->rsp)
					ct->waiting++;
			}
			p += (nh->n_descsz + 3) & ~3;
		}
	}
	munmap(map, st.st_size);
	return true;
}

static void core_dump(struct __test_metadata *_metadata, struct sm_env *env,
		      struct shared *s, int sig)
{
	struct rlimit rl = { RLIM_INFINITY, RLIM_INFINITY };
	char dir[] = "/tmp/stackmux-core-XXXXXX";
	struct core_threads ct;
	char path[64];
	int status;
	pid_t pid;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, sm_write_file("/proc/sys/kernel/core_pattern", "core\n"));
	sm_write_file("/proc/sys/kernel/core_uses_pid", "0\n");
	pid = SM_FORK();
	if (!pid) {
		if (chdir(dir) || setrlimit(RLIMIT_CORE, &rl))
			_exit(1);
		signal(sig, SIG_DFL);
		prctl(PR_SET_DUMPABLE, 1);
		start(s, NW);
		until_ready(s);
		if (sig == SIGSEGV)
			asm volatile("movl $1, 8");
		raise(sig);
		_exit(1);
	}
	ASSERT_TRUE(sm_wait_asleep(env, pid, s->w, NW));
	sm_store(&s->ready, 1);
	status = child_status(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == sig);
	EXPECT_TRUE(WCOREDUMP(status));
	snprintf(path, sizeof(path), "%s/core", dir);
	EXPECT_TRUE(core_read(path, (long)&s->futex[0], pid, &ct)) {
		TH_LOG("no core file, or not one");
	}
	EXPECT_EQ(NW + 1, ct.threads);
	EXPECT_EQ(NW, ct.waiting);
	EXPECT_TRUE(ct.crashed);
	unlink(path);
	rmdir(dir);
	SM_EXPECT_NONE_PARKED(env);
}

TEST_F(process, core_dump_abort)
{
	core_dump(_metadata, &self->env, self->s, SIGABRT);
}

TEST_F(process, core_dump_segv)
{
	core_dump(_metadata, &self->env, self->s, SIGSEGV);
}

/* ------------------------------------------------- job control, ptrace */

static bool all_in_state(pid_t pid, struct sm_waiter *w, int n, char state)
{
	int i;

	for (i = 0; i < n; i++)
		if (sm_task_state(pid, w[i].tid) != state)
			return false;
	return true;
}

TEST_F(process, stop_and_continue)
{
	pid_t pid = child_with_waiters(&self->env, self->s, NW);
	struct shared *s = self->s;
	int i, status;

	ASSERT_GE(pid, 0);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		EXPECT_TRUE(WIFSTOPPED(status));
		EXPECT_TRUE(sm_wait_until(all_in_state(pid, s->w, NW, 'T')));
		/* Stopped, they are not waiting. */
		EXPECT_EQ(0, wake(s));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		EXPECT_TRUE(sm_wait_queued(&s->futex[0], SM_SHARED, NW));
		ASSERT_TRUE(sm_wait_asleep(&self->env, pid, s->w, NW));
	}
	EXPECT_EQ(NW, wake(s));
	EXPECT_EQ(0, child_status(pid));
	SM_EXPECT_PARKS(&self->env, 4 * NW);
}

/* Killed while stopped, without being continued. */
TEST_F(process, kill_stopped)
{
	pid_t pid = child_with_waiters(&self->env, self->s, NW);

	ASSERT_GE(pid, 0);
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	EXPECT_TRUE(sm_wait_until(all_in_state(pid, self->s->w, NW, 'T')));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_TRUE(sm_killed_by(child_status(pid), SIGKILL));
	SM_EXPECT_NONE_PARKED(&self->env);
}

static bool wait_traced(pid_t tid, int *status)
{
	return sm_wait_until(waitpid(tid, status, __WALL | WNOHANG) == tid);
}

#define PTRACE(req, tid, data)						\
	ASSERT_EQ(0, ptrace(PTRACE_##req, tid, NULL, data))

/* It goes on, and stops at the entry or the exit of a system call. */
#define NEXT_SYSCALL_STOP(tid)						\
do {									\
	int __status;							\
									\
	ASSERT_TRUE(wait_traced(tid, &__status));			\
	ASSERT_TRUE(WIFSTOPPED(__status));				\
	EXPECT_EQ(SIGTRAP | 0x80, WSTOPSIG(__status));			\
} while (0)

/* Registers of a thread stopped in its futex call. */
static void check_regs(struct __test_metadata *_metadata, struct shared *s,
		       struct sm_waiter *w, struct user_regs_struct *r)
{
	PTRACE(GETREGS, w->tid, r);
	EXPECT_EQ(__NR_futex, (long)r->orig_rax);
	EXPECT_EQ(RET_RESTARTSYS, (long)r->rax);
	EXPECT_EQ((long)&s->futex[0], (long)r->rdi);
	EXPECT_EQ(FUTEX_WAIT, (long)r->rsi);
	EXPECT_EQ(0, (long)r->rdx);
	EXPECT_NE(0, (long)r->rip);
	EXPECT_NE(0, (long)r->rsp);
	EXPECT_EQ(0x33, (long)r->cs);
}

/* PTRACE_ATTACH or SEIZE + INTERRUPT, look, let go: it waits as before. */
static void trace_and_let_go(struct __test_metadata *_metadata,
			     struct sm_env *env, struct shared *s, bool seize)
{
	pid_t tid, pid = child_with_waiters(env, s, NW);
	struct user_fpregs_struct fp;
	struct user_regs_struct r;
	int i, round, status;

	ASSERT_GE(pid, 0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < NW; i += 3) {
			tid = s->w[i].tid;
			if (seize) {
				PTRACE(SEIZE, tid, NULL);
				EXPECT_EQ('S', sm_task_state(pid, tid));
				PTRACE(INTERRUPT, tid, NULL);
			} else {
				PTRACE(ATTACH, tid, NULL);
			}
			ASSERT_TRUE(wait_traced(tid, &status));
			EXPECT_TRUE(WIFSTOPPED(status));
			EXPECT_EQ('t', sm_task_state(pid, tid));
			check_regs(_metadata, s, &s->w[i], &r);
			PTRACE(GETFPREGS, tid, &fp);
			/* It is not waiting while it is stopped. */
			EXPECT_EQ(NW - 1, sm_nr_waiters(&s->futex[0], SM_SHARED));
			PTRACE(DETACH, tid, NULL);
			ASSERT_TRUE(sm_wait_queued(&s->futex[0], SM_SHARED, NW));
		}
	}
	ASSERT_TRUE(sm_wait_asleep(env, pid, s->w, NW));
	EXPECT_EQ(NW, wake(s));
	EXPECT_EQ(0, child_status(pid));
}

TEST_F(process, ptrace_attach)
{
	trace_and_let_go(_metadata, &self->env, self->s, false);
}

TEST_F(process, ptrace_seize)
{
	trace_and_let_go(_metadata, &self->env, self->s, true);
}

/* Seized, never stopped: a wake goes through as always. */
TEST_F(process, ptrace_seize_and_wake)
{
	pid_t pid = child_with_waiters(&self->env, self->s, NW);
	struct shared *s = self->s;
	int i, status;

	ASSERT_GE(pid, 0);
	for (i = 0; i < NW; i++)
		PTRACE(SEIZE, s->w[i].tid, NULL);
	EXPECT_EQ(NW, wake(s));
	/* A traced thread is reaped by its tracer. */
	for (i = 0; i < NW; i++) {
		ASSERT_TRUE(wait_traced(s->w[i].tid, &status));
		EXPECT_TRUE(WIFEXITED(status));
	}
	EXPECT_EQ(0, child_status(pid));
}

/* System call stops of a traced waiter: one pair for one call. */
TEST_F(process, ptrace_syscall)
{
	pid_t pid = child_with_waiters(&self->env, self->s, 1);
	struct shared *s = self->s;
	struct user_regs_struct r;
	struct sm_stats st;
	int status;
	pid_t tid;

	ASSERT_GE(pid, 0);
	tid = s->w->tid;
	PTRACE(SEIZE, tid, PTRACE_O_TRACESYSGOOD);
	PTRACE(INTERRUPT, tid, NULL);
	ASSERT_TRUE(wait_traced(tid, &status));
	check_regs(_metadata, s, s->w, &r);

	/* On to the restarted call's entry ... */
	PTRACE(SYSCALL, tid, NULL);
	NEXT_SYSCALL_STOP(tid);
	PTRACE(GETREGS, tid, &r);
	EXPECT_EQ(__NR_futex, (long)r.orig_rax);
	EXPECT_EQ(-SM_NOSYS, (long)r.rax);

	/* ... into its wait, where a traced task keeps its stack ... */
	sm_rebase(&self->env);
	PTRACE(SYSCALL, tid, NULL);
	ASSERT_TRUE(sm_wait_queued(&s->futex[0], SM_SHARED, 1));
	ASSERT_TRUE(sm_wait_until(sm_task_state(pid, tid) == 'S'));
	sm_settle();
	EXPECT_EQ(0, waitpid(tid, &status, __WALL | WNOHANG));
	if (self->env.parked && self->env.mode != 2) {
		ASSERT_EQ(0, sm_stats_read(&st));
		EXPECT_LE(st.parked, self->env.base.parked);
	}

	/* ... and out of it. */
	EXPECT_EQ(1, wake(s));
	NEXT_SYSCALL_STOP(tid);
	PTRACE(GETREGS, tid, &r);
	EXPECT_EQ(__NR_futex, (long)r.orig_rax);
	EXPECT_EQ(0, (long)r.rax);
	PTRACE(DETACH, tid, NULL);
	EXPECT_EQ(0, child_status(pid));
}

/* A debugger that runs a function in a waiting thread and puts it back. */
static struct shared *injected_shared;	/* set before the child is there */

static void injected(void)
{
	injected_shared->word = 0x1234;
	asm volatile("int3");
}

TEST_F(process, ptrace_inject_call)
{
	struct user_regs_struct saved, r;
	struct shared *s = self->s;
	int i, status;
	pid_t pid, tid;

	injected_shared = s;
	pid = child_with_waiters(&self->env, s, 1);
	ASSERT_GE(pid, 0);
	tid = s->w->tid;
	for (i = 0; i < 5; i++) {
		s->word = 0;
		PTRACE(ATTACH, tid, NULL);
		ASSERT_TRUE(wait_traced(tid, &status));
		check_regs(_metadata, s, s->w, &saved);
		r = saved;
		r.rip = (long)injected;
		r.rsp = ((r.rsp - 512) & ~15L) - 8;
		r.orig_rax = -1;
		PTRACE(SETREGS, tid, &r);
		PTRACE(CONT, tid, NULL);
		ASSERT_TRUE(wait_traced(tid, &status));
		ASSERT_TRUE(WIFSTOPPED(status));
		EXPECT_EQ(SIGTRAP, WSTOPSIG(status));
		EXPECT_EQ(0x1234, (int)s->word);
		PTRACE(SETREGS, tid, &saved);
		PTRACE(DETACH, tid, NULL);
		ASSERT_TRUE(sm_wait_queued(&s->futex[0], SM_SHARED, 1));
		ASSERT_TRUE(sm_wait_asleep(&self->env, pid, s->w, 1));
	}
	EXPECT_EQ(1, wake(s));
	EXPECT_EQ(0, child_status(pid));
}

/* ---------------------------------------------------------------- freezer */

static bool cgroup2_path(char *buf, size_t size)
{
	char line[512], dir[256], type[64];
	bool found = false;
	FILE *f;

	f = fopen("/proc/mounts", "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %255s %63s", dir, type) == 2 &&
		    !strcmp(type, "cgroup2")) {
			snprintf(buf, size, "%s", dir);
			found = true;
		}
	}
	fclose(f);
	return found;
}

/* In the cgroup @dir; 0 or an error */
static int cgroup_write(const char *dir, const char *name, long val)
{
	char file[330];

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	return sm_write_long(file, val);
}

static bool cgroup_freeze(const char *dir, int frozen)
{
	char events[330];

	snprintf(events, sizeof(events), "%s/cgroup.events", dir);
	return !cgroup_write(dir, "cgroup.freeze", frozen) &&
	       sm_wait_until(sm_read_key(events, "frozen") == frozen);
}

TEST_F(process, cgroup_freeze)
{
	char root[256], dir[300];
	struct shared *s = self->s;
	int i;
	pid_t pid;

	if (!cgroup2_path(root, sizeof(root)))
		SKIP(return, "no cgroup2 is mounted");
	snprintf(dir, sizeof(dir), "%s/stackmux-%d", root, getpid());
	ASSERT_EQ(0, mkdir(dir, 0755));
	pid = child_with_waiters(&self->env, s, NW);
	ASSERT_GE(pid, 0);
	EXPECT_EQ(0, cgroup_write(dir, "cgroup.procs", pid));

	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(cgroup_freeze(dir, 1));
		/* Frozen, they have left the futex. */
		EXPECT_EQ(0, wake(s));
		SM_EXPECT_WAITS(s->w, NW);
		EXPECT_TRUE(cgroup_freeze(dir, 0));
		EXPECT_TRUE(sm_wait_queued(&s->futex[0], SM_SHARED, NW));
		EXPECT_TRUE(sm_wait_asleep(&self->env, pid, s->w, NW));
	}
	EXPECT_EQ(NW, wake(s));
	EXPECT_EQ(0, child_status(pid));

	/* Killed while frozen. */
	memset(s, 0, sizeof(*s));
	sm_rebase(&self->env);
	pid = child_with_waiters(&self->env, s, NW);
	ASSERT_GE(pid, 0);
	EXPECT_EQ(0, cgroup_write(dir, "cgroup.procs", pid));
	EXPECT_TRUE(cgroup_freeze(dir, 1));
	kill(pid, SIGKILL);
	EXPECT_TRUE(sm_killed_by(child_status(pid), SIGKILL));
	EXPECT_TRUE(sm_wait_until(!rmdir(dir)));
}

/* ---------------------------------------------------------------- seccomp */

/*
 * A filter that hands each futex call on one address to a supervisor, which
 * counts them and lets them go on.
 */
static int seccomp_listen(void *uaddr)
{
	uint64_t a = (uintptr_t)uaddr;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_futex, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)a, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[0]) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(a >> 32), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {
		.len = ARRAY_SIZE(code),
		.filter = code,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
		       SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

struct seccomp_arg {
	int fd;
	int entries;
};

static void seccomp_before(struct sm_waiter *w)
{
	struct seccomp_arg *a = w->data;

	sm_store(&a->fd, seccomp_listen((void *)w->arg[0]));
}

static void *seccomp_supervisor(void *p)
{
	struct seccomp_arg *a = p;
	struct seccomp_notif_resp resp;
	struct seccomp_notif req;

	for (;;) {
		memset(&req, 0, sizeof(req));
		if (ioctl(a->fd, SECCOMP_IOCTL_NOTIF_RECV, &req)) {
			if (errno == EINTR)
				continue;
			return NULL;
		}
		sm_add(&a->entries, 1);
		memset(&resp, 0, sizeof(resp));
		resp.id = req.id;
		resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(a->fd, SECCOMP_IOCTL_NOTIF_SEND, &resp);
	}
}

/* The filter sees each call once, and a restarted one once more. */
TEST_F(process, seccomp_entries)
{
	struct seccomp_arg a = { .fd = -1 };
	struct sm_waiter *w = &self->s->w[0];
	uint32_t *f = &self->s->futex[0];
	pthread_t t;
	int i;

	sm_handle(SIGUSR1, SA_RESTART);
	w->before = seccomp_before;
	w->data = &a;
	ASSERT_EQ(0, sm_waiter_futex(w, f, 0, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_until(sm_load(&w->entered)));
	ASSERT_GE(a.fd, 0) {
		TH_LOG("seccomp user notification: error %d", a.fd);
	}
	ASSERT_EQ(0, sm_thread(&t, seccomp_supervisor, &a));
	ASSERT_TRUE(sm_wait_queued(f, SM_PRIVATE, 1));
	ASSERT_TRUE(sm_wait_asleep(&self->env, getpid(), w, 1));
	EXPECT_EQ(1, sm_load(&a.entries));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, sm_signal(w, SIGUSR1));
		ASSERT_TRUE(sm_wait_until(sm_load(&a.entries) == 2 + i));
		ASSERT_TRUE(sm_wait_queued(f, SM_PRIVATE, 1));
		ASSERT_TRUE(sm_wait_asleep(&self->env, getpid(), w, 1));
	}
	WAKE_ONE(self->s);
	EXPECT_EQ(4, sm_load(&a.entries));
	SM_EXPECT_PARKS(&self->env, 4);
}

/* -------------------------------------------------------------- scheduling */

static void be_fifo(struct sm_waiter *w)
{
	struct sched_param sp = { .sched_priority = 5 };

	if (sched_setscheduler(0, SCHED_FIFO, &sp))
		w->data = (void *)(long)errno;
}

/* Real-time threads keep their stack. */
TEST_F(process, fifo_keeps_stack)
{
	struct sm_waiter *w = &self->s->w[0];
	uint32_t *f = &self->s->futex[0];
	char buf[4096];

	w->before = be_fifo;
	w->data = NULL;
	ASSERT_EQ(0, sm_waiter_futex(w, f, 0, SM_PRIVATE));
	ASSERT_TRUE(sm_wait_until(sm_waiter_asleep(getpid(), w)));
	ASSERT_TRUE(sm_wait_queued(f, SM_PRIVATE, 1));
	ASSERT_EQ(NULL, w->data) {
		TH_LOG("sched_setscheduler: error %ld", (long)w->data);
	}
	sm_settle();
	/* A parked thread has no more to show than where it parked. */
	ASSERT_LT(0, sm_task_read(getpid(), w->tid, "stack", buf, sizeof(buf)));
	EXPECT_NE(NULL, strstr(buf, "futex"));
	EXPECT_EQ(NULL, strstr(buf, "stackmux_syscall_exit"));
	WAKE_ONE(self->s);
}

/* Sleeping costs no CPU time, and counts as a voluntary switch. */
struct usage {
	struct rusage before, after;
	int64_t clock_ns;	/* by the clock of the thread */
};

static void usage_before(struct sm_waiter *w)
{
	struct usage *u = w->data;

	getrusage(RUSAGE_THREAD, &u->before);
}

static void usage_after(struct sm_waiter *w)
{
	struct usage *u = w->data;

	getrusage(RUSAGE_THREAD, &u->after);
	u->clock_ns = sm_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int64_t cpu_ns(const struct rusage *ru)
{
	return (ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) * SM_SEC +
	       (ru->ru_utime.tv_usec + ru->ru_stime.tv_usec) * 1000;
}

TEST_F(process, cpu_time)
{
	struct sm_waiter *w = &self->s->w[0];
	struct usage u;
	clockid_t clock;
	int64_t ns;

	w->before = usage_before;
	w->after = usage_after;
	w->data = &u;
	ASSERT_TRUE(start_one(&self->env, self->s));
	ASSERT_EQ(0, pthread_getcpuclockid(w->thread, &clock));
	ns = sm_clock_ns(clock);
	EXPECT_LT(0, ns);
	sm_sleep_ms(500);
	EXPECT_EQ(ns, sm_clock_ns(clock));
	WAKE_ONE(self->s);
	ns = cpu_ns(&u.after) - cpu_ns(&u.before);
	EXPECT_GE(ns, 0);
	EXPECT_LT(ns, 250 * SM_MSEC);
	EXPECT_LT(u.clock_ns, 300 * SM_MSEC);
	/* The wait itself, and whatever the fresh thread had to wait for. */
	EXPECT_GE(u.after.ru_nvcsw - u.before.ru_nvcsw, 1);
	EXPECT_LE(u.after.ru_nvcsw - u.before.ru_nvcsw, 5);
}

/* -------------------------------------------------------------------- /proc */

struct proc_text {
	char stat[512], status[4096], syscall[256], wchan[128], stack[4096];
};

static void proc_read(pid_t tid, struct proc_text *t)
{
#define PROC_READ(name)	sm_task_read(getpid(), tid, #name, t->name, sizeof(t->name))
	PROC_READ(stat);
	PROC_READ(status);
	PROC_READ(syscall);
	PROC_READ(wchan);
	PROC_READ(stack);
#undef PROC_READ
}

/* Field @n (3 is the state) of a stat line, as a number. */
static long stat_field(const char *stat, int n)
{
	const char *p = strrchr(stat, ')');
	int i;

	for (i = 2; p && i < n; i++)
		p = strchr(p + 1, ' ');
	return p ? atol(p + 1) : -1;
}

/* A thread that waits again and again at the same place, on one stack. */
struct proc_loop {
	uint32_t futex[2];
	pid_t tid;
	int rounds;
};

static void *proc_loop_fn(void *p)
{
	struct proc_loop *l = p;

	sm_store(&l->tid, sm_gettid());
	for (;;) {
		if (regs_plain_wait(&l->futex[0]))
			return NULL;
		sm_add(&l->rounds, 1);
	}
}

/* ... and sleeps there for the time after @rounds times */
static bool proc_loop_waits(struct proc_loop *l, int rounds)
{
	return sm_wait_until(sm_load(&l->tid) && sm_load(&l->rounds) == rounds) &&
	       sm_wait_queued(&l->futex[0], SM_PRIVATE, 1) &&
	       sm_wait_until(sm_task_state(getpid(), l->tid) == 'S');
}

/* What /proc tells of a waiting thread is the same, parked or not. */
TEST_F(process, proc_files)
{
	/* priority, nice, threads; wchan, flags, policy */
	static const int fields[] = { 18, 19, 20, 29, 30, 35, 41 };
	struct proc_text *a = calloc(2, sizeof(*a)), *b = a + 1;
	struct proc_loop l = { 0 };
	pthread_t t;
	int i;

	/* The first half does not park, not even where everybody does. */
	if (self->env.present) {
		ASSERT_EQ(0, sm_disable());
		if (self->env.mode == 2)
			ASSERT_EQ(0, sm_write_file(SM_SYSCTL, "1\n"));
	}
	ASSERT_EQ(0, sm_thread(&t, proc_loop_fn, &l));
	ASSERT_TRUE(proc_loop_waits(&l, 0));
	proc_read(l.tid, a);

	sm_knobs_restore();
	if (variant->parked)
		ASSERT_EQ(0, sm_enable(0));
	sm_rebase(&self->env);
	EXPECT_EQ(1, sm_wake(&l.futex[0], 1, SM_PRIVATE));
	ASSERT_TRUE(proc_loop_waits(&l, 1));
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	proc_read(l.tid, b);

	/* "202 0x... (six) 0xsp 0xpc", to the last digit. */
	EXPECT_EQ(__NR_futex, atol(a->syscall));
	EXPECT_STREQ(a->syscall, b->syscall);
	EXPECT_NE('\0', a->wchan[0]);
	EXPECT_STREQ(a->wchan, b->wchan);
	EXPECT_NE(NULL, strstr(a->status, "State:\tS (sleeping)"));
	EXPECT_NE(NULL, strstr(b->status, "State:\tS (sleeping)"));
	EXPECT_NE(NULL, strstr(a->stack, "futex"));
	EXPECT_NE(NULL, strstr(b->stack, "futex")) {
		TH_LOG("stack: '%s'", b->stack);
	}
	EXPECT_EQ('S', sm_task_state(getpid(), l.tid));
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		EXPECT_EQ(stat_field(a->stat, fields[i]), stat_field(b->stat, fields[i])) {
			TH_LOG("field %d of stat", fields[i]);
		}
	/* The readers have not woken it, and it is still parked. */
	ASSERT_TRUE(sm_wait_parked(&self->env, 1));
	EXPECT_EQ(1, sm_load(&l.rounds));

	l.futex[0] = 1;
	EXPECT_EQ(1, sm_wake(&l.futex[0], 1, SM_PRIVATE));
	pthread_join(t, NULL);
	free(a);
}

/* SysRq-T lists it as it lists any sleeping task. */
TEST_F_TIMEOUT(process, sysrq_t, 60)
{
	struct sm_waiter *w = &self->s->w[0];
	char name[16], line[32], *buf, *p, *next;
	const int size = 16 << 20;
	char path[64];
	long n;

	if (access("/proc/sysrq-trigger", W_OK))
		SKIP(return, "no /proc/sysrq-trigger");
	buf = malloc(size);
	ASSERT_TRUE(start_one(&self->env, self->s));
	snprintf(name, sizeof(name), "smq%d", w->tid);
	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", w->tid);
	ASSERT_EQ(0, sm_write_file(path, name));

	/* Into the log only: the console would take minutes. */
	sm_write_file("/proc/sys/kernel/printk", "1");
	ASSERT_EQ(0, sm_write_file("/proc/sysrq-trigger", "t"));
	n = klogctl(3 /* read all */, buf, size - 1);
	ASSERT_GT(n, 0);
	buf[n] = '\0';
	snprintf(line, sizeof(line), "task:%s", name);
	p = strstr(buf, line);
	EXPECT_NE(NULL, p) {
		TH_LOG("SysRq-T does not show %s", name);
	}
	if (p) {
		next = strstr(p + 1, "task:");
		if (next)
			*next = '\0';
		EXPECT_NE(NULL, strstr(p, "state:S")) {
			TH_LOG("%.300s", p);
		}
		EXPECT_NE(NULL, strstr(p, "futex")) {
			TH_LOG("%.600s", p);
		}
	}
	WAKE_ONE(self->s);
	free(buf);
}

/* Read everything of threads that park and wake all the time. */
struct proc_storm {
	struct proc_loop loop[32];
	int nr;
	int stop;
	long reads;
};

static void *proc_storm_reader(void *p)
{
	struct proc_storm *ps = p;
	struct proc_text *t = malloc(sizeof(*t));
	int i = 0;

	while (!sm_load(&ps->stop)) {
		proc_read(ps->loop[i % ps->nr].tid, t);
		sm_add(&ps->reads, 1);
		i++;
	}
	free(t);
	return NULL;
}

TEST_F_TIMEOUT(process, proc_storm, 60)
{
	struct proc_storm *ps = calloc(1, sizeof(*ps));
	pthread_t t[32], reader[2];
	int64_t end;
	long wakes = 0, rounds = 0;
	int i;

	ps->nr = 32;
	for (i = 0; i < ps->nr; i++)
		ASSERT_EQ(0, sm_thread(&t[i], proc_loop_fn, &ps->loop[i]));
	for (i = 0; i < ps->nr; i++)
		ASSERT_TRUE(sm_wait_until(sm_load(&ps->loop[i].tid)));
	SM_THREADS(reader, 2, proc_storm_reader, ps);
	end = sm_now_ns() + 3 * SM_SEC;
	for (i = 0; sm_now_ns() < end || sm_load(&ps->reads) < 500; i++)
		wakes += sm_wake(&ps->loop[i % ps->nr].futex[0], 1, SM_PRIVATE);
	sm_store(&ps->stop, 1);
	sm_threads_join(reader, 2);
	for (i = 0; i < ps->nr; i++) {
		ASSERT_TRUE(sm_wait_queued(&ps->loop[i].futex[0], SM_PRIVATE, 1));
		rounds += sm_load(&ps->loop[i].rounds);
	}
	EXPECT_EQ(wakes, rounds);
	EXPECT_GT(wakes, 100);
	for (i = 0; i < ps->nr; i++) {
		sm_store(&ps->loop[i].futex[0], 1);
		EXPECT_EQ(1, sm_wake(&ps->loop[i].futex[0], 1, SM_PRIVATE));
		pthread_join(t[i], NULL);
	}
	SM_EXPECT_PARKS(&self->env, 100);
	SM_EXPECT_NONE_PARKED(&self->env);
	free(ps);
}

/* ------------------------------------------------------------------ signals */

static struct {
	siginfo_t info;
	long rax, rip, rsp;
	pid_t tid;
	void *frame;
	int calls;
} seen;

static void info_handler(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	int local;

	seen.info = *info;
	seen.rax = uc->uc_mcontext.gregs[REG_RAX];
	seen.rip = uc->uc_mcontext.gregs[REG_RIP];
	seen.rsp = uc->uc_mcontext.gregs[REG_RSP];
	seen.tid = sm_gettid();
	seen.frame = &local;
	sm_add(&seen.calls, 1);
}

static void use_altstack(struct sm_waiter *w)
{
	stack_t ss = { .ss_sp = w->data, .ss_size = 65536 };

	if (w->data)
		sigaltstack(&ss, NULL);
}

TEST_F(process, siginfo_and_altstack)
{
	struct sigaction sa = { .sa_sigaction = info_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sm_waiter *w = &self->s->w[0];
	char *stack = malloc(65536);
	int alt, on_alt;

	sigaction(SIGQUIT, &sa, NULL);
	for (alt = 0; alt < 2; alt++) {
		memset(&seen, 0, sizeof(seen));
		w->before = use_altstack;
		w->data = alt ? stack : NULL;
		ASSERT_TRUE(start_one(&self->env, self->s));
		ASSERT_EQ(0, pthread_sigqueue(w->thread, SIGQUIT,
					      (union sigval){ .sival_int = 77 }));
		SM_JOIN(w, -EINTR);
		EXPECT_EQ(1, seen.calls);
		EXPECT_EQ(w->tid, seen.tid);
		EXPECT_EQ(SIGQUIT, seen.info.si_signo);
		EXPECT_EQ(SI_QUEUE, seen.info.si_code);
		EXPECT_EQ(77, seen.info.si_value.sival_int);
		EXPECT_EQ(getpid(), seen.info.si_pid);
		EXPECT_EQ(-EINTR, seen.rax);
		EXPECT_NE(0, seen.rip);
		on_alt = (char *)seen.frame >= stack && (char *)seen.frame < stack + 65536;
		EXPECT_EQ(alt, on_alt);
		EXPECT_FALSE(seen.rsp >= (long)stack && seen.rsp < (long)stack + 65536);
	}
	/* kill -QUIT to the process: one of the threads gets it. */
	memset(&seen, 0, sizeof(seen));
	ASSERT_EQ(0, kill(getpid(), SIGQUIT));
	EXPECT_TRUE(sm_wait_until(sm_load(&seen.calls) == 1));
	EXPECT_EQ(SI_USER, seen.info.si_code);
	free(stack);
}

/* A timer that aims at a waiting thread. */
TEST_F(process, timer_signal)
{
	struct sigaction sa = { .sa_sigaction = info_handler, .sa_flags = SA_SIGINFO };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2 };
	struct itimerspec its = { .it_value.tv_nsec = 100 * SM_MSEC };
	struct sm_waiter *w = &self->s->w[0];
	timer_t timer;

	memset(&seen, 0, sizeof(seen));
	sigaction(SIGUSR2, &sa, NULL);
	ASSERT_TRUE(start_one(&self->env, self->s));
	ev._sigev_un._tid = w->tid;
	ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &ev, &timer));
	ASSERT_EQ(0, timer_settime(timer, 0, &its, NULL));
	SM_JOIN(w, -EINTR);
	EXPECT_EQ(SI_TIMER, seen.info.si_code);
	EXPECT_EQ(w->tid, seen.tid);
	timer_delete(timer);
}

/* ---------------------------------------------------------------- registers */

/* ID, OF, SF, ZF, AF, PF, CF */
#define FLAGS_RANDOM	0x2008d5UL

static __thread long tls_canary;

struct regs_arg {
	uint32_t futex, pad;
	pid_t tid;
	int round, stop, pkey;
	struct regs_diff diff;
};

static inline uint32_t rdpkru(void)
{
	uint32_t eax, edx;

	asm volatile(".byte 0x0f,0x01,0xee" : "=a" (eax), "=d" (edx) : "c" (0));
	return eax;
}

static inline void wrpkru(uint32_t val)
{
	asm volatile(".byte 0x0f,0x01,0xef" : : "a" (val), "c" (0), "d" (0));
}

static void *regs_thread(void *p)
{
	struct regs_arg *a = p;
	struct regs in, out;
	uint64_t seed = 0x9e3779b97f4a7c15ULL;
	unsigned long fs, gs, fs2, gs2;
	int avx = __builtin_cpu_supports("avx");
	uint32_t pkru = 0;
	long canary;

	sm_store(&a->tid, sm_gettid());
	while (!sm_load(&a->stop) && !a->diff.what) {
		memset(&out, 0, sizeof(out));
		regs_fill(&in, &seed);
		in.gp[6] = (long)&a->futex;
		in.gp[7] = FUTEX_WAIT | SM_PRIVATE;
		in.gp[8] = 0;
		in.gp[11] = 0;		/* no time-out */
		in.flags |= (regs_random(&seed) & FLAGS_RANDOM);
		tls_canary = regs_random(&seed);
		gs = regs_random(&seed) >> 18;
		syscall(__NR_arch_prctl, ARCH_SET_GS, gs);
		syscall(__NR_arch_prctl, ARCH_GET_FS, &fs);
		if (a->pkey > 0) {
			pkru = (rdpkru() & ~(3U << (2 * a->pkey))) |
			       (regs_random(&seed) & 3) << (2 * a->pkey);
			wrpkru(pkru);
		}
		canary = tls_canary;

		regs_wait(&in, &out, avx);

		if (a->pkey > 0)
			regs_same(&a->diff, "pkru", rdpkru(), pkru);
		syscall(__NR_arch_prctl, ARCH_GET_FS, &fs2);
		syscall(__NR_arch_prctl, ARCH_GET_GS, &gs2);
		regs_same(&a->diff, "result", out.rax, 0);
		regs_compare(&a->diff, &in, &out, avx);
		regs_same(&a->diff, "rcx", out.rcx, (long)regs_after_call);
		regs_same(&a->diff, "flags", out.flags, in.flags);
		regs_same(&a->diff, "r11", out.r11, in.flags);
		regs_same(&a->diff, "TLS", tls_canary, canary);
		regs_same(&a->diff, "fs", fs2, fs);
		regs_same(&a->diff, "gs", gs2, gs);
		sm_add(&a->round, 1);
	}
	return NULL;
}

/* Somebody else who uses all of these registers on the same CPU. */
static void *regs_noise(void *p)
{
	struct regs_arg *a = p;
	double x = 1.0;
	long i;

	while (!sm_load(&a->stop)) {
		for (i = 0; i < 1000; i++)
			asm volatile("sqrtsd %1, %0" : "+x" (x) : "x" (x + i));
		sm_sleep_ns(200000);
	}
	return NULL;
}

static long run_regs(struct regs_arg *a, long rounds)
{
	long i;

	for (i = 0; i < rounds && !a->diff.what; i++) {
		if (!sm_wait_until(sm_wake(&a->futex, 1, SM_PRIVATE) == 1))
			break;
		if (!sm_wait_until(sm_load(&a->round) == i + 1))
			break;
		if (i % 4)
			sm_wait_until(sm_task_state(getpid(), a->tid) == 'S');
	}
	sm_store(&a->stop, 1);
	if (a->diff.what)
		return i;
	sm_wait_until(sm_wake(&a->futex, 1, SM_PRIVATE) == 1);
	return i;
}

/* Every register a program can see comes back as it was. */
TEST_F_TIMEOUT(process, registers, 60)
{
	long rounds = sm_rounds(400);
	struct regs_arg a = { 0 };
	unsigned int eax, ebx, ecx, edx;
	pthread_t t, noise;

	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & (1 << 4)))
		a.pkey = pkey_alloc(0, 0);
	TH_LOG("with%s pkeys, with%s avx", a.pkey > 0 ? "" : "out",
	       __builtin_cpu_supports("avx") ? "" : "out");
	ASSERT_EQ(0, sm_thread(&noise, regs_noise, &a));
	ASSERT_EQ(0, sm_thread(&t, regs_thread, &a));
	EXPECT_EQ(rounds, run_regs(&a, rounds));
	pthread_join(t, NULL);
	pthread_join(noise, NULL);
	EXPECT_EQ(NULL, a.diff.what) {
		TH_LOG("%s: %lx instead of %lx", a.diff.what, a.diff.got, a.diff.want);
	}
	SM_EXPECT_PARKS(&self->env, rounds / 2);
}

/* ---------------------------------------------------------------------- rseq */

static void rseq_after(struct sm_waiter *w)
{
	const struct rseq *rs = (void *)((char *)__builtin_thread_pointer() +
					 __rseq_offset);
	unsigned int cpu = ~0U;

	syscall(__NR_getcpu, &cpu, NULL, NULL);
	w->data = (void *)(long)(cpu == rs->cpu_id && cpu == rs->cpu_id_start);
	w->cpu = cpu;
}

/* Moved to another CPU while it sleeps, a thread's rseq area tells so. */
TEST_F(process, rseq_and_affinity)
{
	struct sm_waiter *w = &self->s->w[0];
	cpu_set_t all, one;
	int cpu;

	if (!__rseq_size)
		SKIP(return, "libc did not register rseq");
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		w->after = rseq_after;
		ASSERT_TRUE(start_one(&self->env, self->s));
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		ASSERT_EQ(0, sched_setaffinity(w->tid, sizeof(one), &one));
		WAKE_ONE(self->s);
		EXPECT_EQ(cpu, w->cpu);
		EXPECT_EQ(1, (long)w->data);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--after-exec"))
		return after_exec();
	sm_harness_prepare(1);
	return test_harness_run(argc, argv);
}
