// SPDX-License-Identifier: GPL-2.0
/*
 * Measures, does not judge: bytes of kernel memory that a sleeping thread takes, and
 * what they are, for each of many calls that it can sleep in.
 *
 * The threads are raw clones whose user part is a few instructions that touch no user
 * stack, and they all wait for the same object, which is made before: what free memory
 * they take is the kernel's, and is theirs. Prints lines "CALL PART BYTES", separated
 * by tabs, bytes per thread:
 *
 *   stack         KernelStack
 *   task          task_struct
 *   record        stackmux's record of a parked thread
 *   slab-CACHE    other slab objects
 *   waste         slab pages of all these that hold no object
 *   user-tables   page tables of processes
 *   kernel-tables page tables of stacks: computed, not counted by the kernel
 *   other         what else free memory has lost: whole pages
 *   sum           what free memory has lost
 *   wait          parked: what the wait itself takes: the record, slab objects which a
 *                 thread does not have anyway, whole pages; without what many threads
 *                 share, such as the stacks in the pool
 *
 * To be the only process of a system that was booted with slab_nomerge.
 *
 * The page tables of the kernel's stacks stay when the stacks go, for the next ones. So
 * later calls find them there; they are added to the sum all the same.
 */
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/select.h>

#define STACKMUX_HELPER
#include "calls.h"

#define CGROUP		"/sys/fs/cgroup/footprint"
#define MAX_CACHES	400
#define MAX_SAMPLES	64
#define NR_FDS		64
#define PAGE		4096L

/*
 * What the kernel maps for a stack: 16 KiB and a guard page, aligned to 16 KiB, so
 * 8 entries of 8 bytes in a page table.
 */
#define STACK_BYTES	16384L
#define STACK_TABLE	64L

/* More than one in accept(): it reserves its descriptor before it waits. */
#define MAX_FILES	(1 << 20)

static long nr_threads = 10000;
static int park = -1;

static void die(const char *what, int err)
{
	fprintf(stderr, "footprint: %s%s%s\n", what, err ? ": " : "", err ? strerror(err) : "");
	exit(1);
}

/* ------------------------------------------------------------------ memory */

struct cache {
	char name[64];
	long objects;
	long size;
	long pages;
};

struct snapshot {
	long free;		/* bytes */
	long stack;
	long tables;
	int nr;
	struct cache cache[MAX_CACHES];
};

/* No memory is to be had while memory is measured */
static struct snapshot before, after;
/* The most bytes of stacks so far, of all calls */
static long *most_stack;
static char text[1 << 18];

static void read_text(const char *path)
{
	ssize_t n = sm_read_file(path, text, sizeof(text));

	if (n <= 0)
		die(path, n ? -n : EINVAL);
	if (n == sizeof(text) - 1)
		die(path, EFBIG);
}

/* Pages in the lists of the CPUs are free, too, but MemFree does not know them. */
static long pages_of_cpus(void)
{
	static const char key[] = " count:";
	const char *p = text;
	long pages = 0;

	read_text("/proc/zoneinfo");
	while ((p = strstr(p, key))) {
		p += strlen(key);
		pages += atol(p);
	}
	return pages;
}

static void read_caches(struct snapshot *s)
{
	long objects, all, size, per_slab, pages, slabs;
	struct cache *c;
	char *line, *save;

	s->nr = 0;
	read_text("/proc/slabinfo");
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		c = &s->cache[s->nr];
		if (sscanf(line, "%63s %ld %ld %ld %ld %ld : tunables %*d %*d %*d : slabdata %*d %ld",
			   c->name, &objects, &all, &size, &per_slab, &pages, &slabs) != 7)
			continue;
		c->objects = objects;
		c->size = size;
		c->pages = slabs * pages;
		if (++s->nr == MAX_CACHES)
			die("too many slab caches", 0);
	}
	if (!s->nr)
		die("nothing in /proc/slabinfo", 0);
}

static void take(struct snapshot *s)
{
	s->free = pages_of_cpus() * PAGE + sm_meminfo_kb("MemFree") * 1024;
	s->stack = sm_meminfo_kb("KernelStack") * 1024;
	s->tables = sm_meminfo_kb("PageTables") * 1024;
	read_caches(s);
}

static long free_bytes(void)
{
	return pages_of_cpus() * PAGE + sm_meminfo_kb("MemFree") * 1024;
}

/* Give back what the last call left behind: empty slabs, objects that go by RCU. */
static void settle(void)
{
	char path[300];
	struct dirent *d;
	DIR *dir;

	sm_sleep_ms(300);
	sm_write_file("/proc/sys/vm/drop_caches", "3");
	dir = opendir("/sys/kernel/slab");
	if (!dir)
		return;
	while ((d = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", d->d_name);
		if (d->d_name[0] != '.')
			sm_write_file(path, "1");
	}
	closedir(dir);
	sm_sleep_ms(100);
}

static void print_part(const char *call, const char *part, double bytes)
{
	printf("%s\t%s\t%.1f\n", call, part, bytes);
}

static bool one_of(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(name, *list))
			return true;
	return false;
}

/* What @after has more than @before, for each of @n threads */
static void report(const char *call, long n)
{
	/* Of a thread, or of a stack, whatever it does */
	static const char *const anyway[] = {
		"task_struct", "pid", "radix_tree_node", "vmap_area", NULL
	};
	const double stack = after.stack - before.stack;
	double lost = before.free - after.free;
	double slabs = 0, waste = 0, wait = 0, tables, kernel_tables, new_tables, other;
	int i, k;

	print_part(call, "stack", stack / n);
	for (i = 0; i < after.nr; i++) {
		const struct cache *a = &after.cache[i], *b = NULL;
		double bytes, pages;
		char part[80];

		for (k = 0; k < before.nr && !b; k++)
			if (!strcmp(before.cache[k].name, a->name))
				b = &before.cache[k];
		bytes = (double)(a->objects - (b ? b->objects : 0)) * a->size;
		pages = (double)(a->pages - (b ? b->pages : 0)) * PAGE;
		slabs += pages;
		waste += pages - bytes;
		/* The measurement itself has some */
		if (bytes / n > -0.5 && bytes / n < 0.5) {
			waste += bytes;
			continue;
		}
		if (!strcmp(a->name, "task_struct"))
			snprintf(part, sizeof(part), "task");
		else if (!strcmp(a->name, "stackmux_record"))
			snprintf(part, sizeof(part), "record");
		else
			snprintf(part, sizeof(part), "slab-%s", a->name);
		print_part(call, part, bytes / n);
		if (!one_of(a->name, anyway) && bytes / n >= 4)
			wait += bytes;
	}
	tables = after.tables - before.tables;
	kernel_tables = stack / STACK_BYTES * STACK_TABLE;
	new_tables = (double)(after.stack - *most_stack) / STACK_BYTES * STACK_TABLE;
	if (new_tables < 0)
		new_tables = 0;
	if (new_tables < kernel_tables)
		lost += kernel_tables - new_tables;
	if (*most_stack < after.stack)
		*most_stack = after.stack;
	other = lost - stack - slabs - tables - kernel_tables;
	/* A page of 64 threads, or more often */
	if (other / n >= 64)
		wait += other;
	print_part(call, "waste", waste / n);
	print_part(call, "user-tables", tables / n);
	print_part(call, "kernel-tables", kernel_tables / n);
	print_part(call, "other", other / n);
	print_part(call, "sum", lost / n);
	if (park == 1)
		print_part(call, "wait", wait / n);
}

/* ------------------------------------------------------------------- calls */

static struct sm_sleepers sleepers;
static uint32_t futex_word;
static struct timespec in_a_year = { .tv_sec = 365 * 24 * 3600 };
static struct pollfd pollfds[NR_FDS];
static struct epoll_event event;
static fd_set fds;
static uint64_t usr1;
static char buf[8];

#define set_call(number, ...)						\
	(sleepers = (struct sm_sleepers){ .call = (number), .arg = { __VA_ARGS__ } })
#define ptr(p)		((long)(p))

static int check(int ret, const char *what)
{
	if (ret < 0)
		die(what, errno);
	return ret;
}

static void set_futex(void)
{
	set_call(__NR_futex, ptr(&futex_word), FUTEX_WAIT_PRIVATE);
}

static void set_futex_timeout(void)
{
	set_call(__NR_futex, ptr(&futex_word), FUTEX_WAIT_PRIVATE, 0, ptr(&in_a_year));
}

/* In a memory cgroup, each object has a pointer to the one that pays for it. */
static void set_futex_cgroup(void)
{
	mkdir(CGROUP, 0755);
	if (sm_write_long(CGROUP "/cgroup.procs", getpid()))
		die(CGROUP, errno);
	set_futex();
}

static void set_poll_of(int n)
{
	int i;

	for (i = 0; i < n; i++) {
		pollfds[i].fd = check(eventfd(0, 0), "eventfd");
		pollfds[i].events = POLLIN;
	}
	set_call(__NR_poll, ptr(pollfds), n, -1);
}

static void set_poll_1(void)  { set_poll_of(1); }
static void set_poll_2(void)  { set_poll_of(2); }
static void set_poll_64(void) { set_poll_of(64); }

static void set_select(void)
{
	int fd = check(eventfd(0, 0), "eventfd");

	FD_ZERO(&fds);
	FD_SET(fd, &fds);
	set_call(__NR_select, fd + 1, ptr(&fds));
}

static void set_epoll(void)
{
	int fd = check(eventfd(0, 0), "eventfd"), ep = check(epoll_create1(0), "epoll_create1");
	struct epoll_event ev = { .events = EPOLLIN };

	check(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "epoll_ctl");
	set_call(__NR_epoll_wait, ep, ptr(&event), 1, -1);
}

static void set_read(int kind, long nr)
{
	struct sm_chan ch;

	check(sm_chan_open(&ch, kind), sm_kind_names[kind]);
	set_call(nr, ch.rd, ptr(buf), sizeof(buf));
}

static void set_eventfd(void) { set_read(SM_EVENTFD, __NR_read); }
static void set_pipe(void)    { set_read(SM_PIPE, __NR_read); }
static void set_unix(void)    { set_read(SM_UNIX, __NR_recvfrom); }

static void set_accept(void)
{
	struct sockaddr_un addr;
	socklen_t len;

	set_call(__NR_accept, check(sm_unix_listen(SOCK_STREAM, &addr, &len), "listen"));
}

static void set_nanosleep(void)
{
	set_call(__NR_nanosleep, ptr(&in_a_year));
}

static void set_sigtimedwait(void)
{
	usr1 = 1ULL << (SIGUSR1 - 1);
	set_call(__NR_rt_sigtimedwait, ptr(&usr1), 0, 0, sizeof(usr1));
}

static void set_wait4(void)
{
	pid_t pid = check(fork(), "fork");

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	set_call(__NR_wait4, -1);
}

static const struct {
	const char *name;
	void (*set)(void);
} calls[] = {
	{ "futex", set_futex },
	{ "futex-timeout", set_futex_timeout },
	{ "poll-1", set_poll_1 },
	{ "poll-2", set_poll_2 },
	{ "poll-64", set_poll_64 },
	{ "select", set_select },
	{ "epoll", set_epoll },
	{ "eventfd", set_eventfd },
	{ "pipe", set_pipe },
	{ "unix", set_unix },
	{ "accept", set_accept },
	{ "nanosleep", set_nanosleep },
	{ "sigtimedwait", set_sigtimedwait },
	{ "wait4", set_wait4 },
	/* The last: from then on all slabs have these pointers. */
	{ "futex-cgroup", set_futex_cgroup },
};

/* ---------------------------------------------------------------- sleepers */

/* Until every task but this one sleeps */
static void until_asleep(void)
{
	while (sm_read_key("/proc/stat", "procs_running") > 1)
		sm_sleep_ms(2);
}

static long create(long from, long to)
{
	long i, tid = 0;

	for (i = from; i < to; i++) {
		tid = sm_sleeper(&sleepers, sleepers.arg[0], NULL);
		if (tid < 0)
			die("clone", -tid);
		if (i % 1000 == 999)
			until_asleep();
	}
	until_asleep();
	return tid;
}

/* Do all @n sleep in the call, and, if they are to, without a stack? */
static void check_asleep(const char *name, long n, long tid)
{
	struct sm_stats stats;
	char path[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/syscall", tid);
	len = sm_read_file(path, text, sizeof(text));
	if (len <= 0 || atol(text) != sleepers.call) {
		fprintf(stderr, "footprint: %s: the last thread is not in call %ld: %s\n",
			name, sleepers.call, len > 0 ? text : strerror(-len));
		exit(1);
	}
	if (sm_read_key("/proc/self/status", "Threads") != n + 1)
		die("not all threads sleep: some have left", 0);
	if (park == 1 && (sm_stats_read(&stats) || stats.parked < n - 2 * sm_nr_cpus())) {
		fprintf(stderr, "footprint: %s: %ld of %ld threads are parked\n", name,
			stats.parked, n);
		exit(1);
	}
}

static void opt_in(void)
{
	int ret;

	if (park == 1) {
		ret = sm_enable(0);
		if (ret)
			die("prctl(PR_STACKMUX, PR_STACKMUX_ENABLE)", -ret);
		if (!(sm_get() & PR_STACKMUX_ACTIVE))
			die("opted in, but kernel.stackmux is 0", 0);
	} else if (!park && sm_present()) {
		sm_disable();
	}
}

/* The child of measure() and of samples(): its threads die with it. */
static void child(size_t k, const long *sample, int nr_samples)
{
	long n = 0, tid = 0, start;
	int i;

	opt_in();
	calls[k].set();
	settle();
	/* Once for what these need themselves */
	take(&after);
	take(&before);
	start = before.free;
	for (i = 0; i < nr_samples; i++) {
		tid = create(n, sample[i]);
		n = sample[i];
		printf("%s\tat-%ld\t%ld\n", calls[k].name, n, start - free_bytes());
	}
	if (!nr_samples) {
		n = nr_threads;
		tid = create(0, n);
	}
	take(&after);
	check_asleep(calls[k].name, n, tid);
	report(calls[k].name, n);
	fflush(stdout);
	_exit(0);
}

static void measure(size_t k, const long *sample, int nr_samples)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = check(fork(), "fork");
	if (!pid)
		child(k, sample, nr_samples);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
		die(calls[k].name, ECHILD);
}

static int find_call(const char *name)
{
	size_t k;

	for (k = 0; k < ARRAY_SIZE(calls); k++)
		if (!strcmp(calls[k].name, name))
			return k;
	return -1;
}

/* "N,N,...", ascending */
static int parse_samples(char *list, long *sample)
{
	char *word, *save;
	int nr = 0;

	for (word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (nr == MAX_SAMPLES)
			die("too many samples", 0);
		sample[nr] = atol(word);
		if (sample[nr] <= (nr ? sample[nr - 1] : 0))
			die("--samples must be positive and ascending", 0);
		nr++;
	}
	return nr;
}

static const char usage[] =
"Usage: footprint [--park | --no-park] [--threads N] [--samples N,N,...] CALL...\n"
"Put threads to sleep in each CALL, and say what a thread takes of kernel memory.\n"
"  --park        opt in with prctl(PR_STACKMUX), fail if the kernel has not got it\n"
"  --no-park     opt out\n"
"  --threads N   how many (default 10000)\n"
"  --samples ... so many after each other, and free memory lost with each\n"
"Calls:";

static void print_usage(FILE *f)
{
	size_t k;

	fputs(usage, f);
	for (k = 0; k < ARRAY_SIZE(calls); k++)
		fprintf(f, " %s", calls[k].name);
	fputs(", all\n", f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "park", no_argument, &park, 1 },
		{ "no-park", no_argument, &park, 0 },
		{ "threads", required_argument, NULL, 't' },
		{ "samples", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	long sample[MAX_SAMPLES];
	struct rlimit files;
	int opt, i, nr_samples = 0;
	size_t k;

	while ((opt = getopt_long(argc, argv, "t:s:h", options, NULL)) != -1) {
		switch (opt) {
		case 0:
			break;
		case 't':
			nr_threads = atol(optarg);
			break;
		case 's':
			nr_samples = parse_samples(optarg, sample);
			break;
		case 'h':
			print_usage(stdout);
			return 0;
		default:
			print_usage(stderr);
			return 2;
		}
	}
	if (optind == argc || nr_threads < 1) {
		print_usage(stderr);
		return 2;
	}
	for (i = optind; i < argc; i++) {
		if (strcmp(argv[i], "all") && find_call(argv[i]) < 0) {
			fprintf(stderr, "footprint: no call '%s'\n", argv[i]);
			print_usage(stderr);
			return 2;
		}
	}
	sm_mount_debugfs();
	files.rlim_cur = MAX_FILES;
	files.rlim_max = MAX_FILES;
	setrlimit(RLIMIT_NOFILE, &files);
	most_stack = sm_shared_alloc(sizeof(*most_stack));
	*most_stack = sm_meminfo_kb("KernelStack") * 1024;
	sm_write_file("/proc/sys/kernel/pid_max", "4194304");
	/* For the classic ones; a process that parks is not held by it. */
	sm_write_file("/proc/sys/kernel/threads-max", "4194304");
	for (; optind < argc; optind++) {
		if (strcmp(argv[optind], "all")) {
			measure(find_call(argv[optind]), sample, nr_samples);
			continue;
		}
		for (k = 0; k < ARRAY_SIZE(calls); k++)
			measure(k, sample, nr_samples);
	}
	return 0;
}
