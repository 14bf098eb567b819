// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux - let programs sleep without kernel stacks, and look at those that do
 *
 * Everything it knows comes from prctl(PR_STACKMUX), the line "Stackmux:" of
 * /proc/PID/task/TID/status, /sys/kernel/stackmux/, and, where debugfs can be read,
 * /sys/kernel/debug/stackmux/stats.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/stackmux.h>

#define SYSFS	"/sys/kernel/stackmux"
#define STATS	"/sys/kernel/debug/stackmux/stats"
#define SYSCTL	"/proc/sys/kernel/stackmux"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* Exit codes: those of env(1), nice(1) and others that run a program */
enum {
	EXIT_BAD	= 125,	/* this tool failed, or was called wrongly */
	EXIT_NOT_RUN	= 126,	/* the program is there, but could not be started */
	EXIT_NOT_FOUND	= 127,
};

static void __attribute__((format(printf, 1, 2))) complain(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("stackmux: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

#define die(...)					\
do {							\
	complain(__VA_ARGS__);				\
	exit(EXIT_BAD);					\
} while (0)

/* ------------------------------------------------------------------- files */

/* The start of a file, as a string. False, with errno: it cannot be read. */
static bool read_at(int dir, const char *path, char *buf, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n < 0)
		return false;
	buf[n] = '\0';
	return true;
}

/* A number that the kernel offers; false if it does not */
static bool read_number(const char *path, unsigned long long *val)
{
	char buf[64];

	if (!read_at(AT_FDCWD, path, buf, sizeof(buf)))
		return false;
	*val = strtoull(buf, NULL, 10);
	return true;
}

/* What everybody can read */
static unsigned long long counter(const char *name)
{
	unsigned long long val;
	char path[80];

	snprintf(path, sizeof(path), SYSFS "/%s", name);
	if (!read_number(path, &val))
		die("cannot read %s: %s%s", path, strerror(errno),
		    errno == ENOENT ? ": this kernel has no stackmux" : "");
	return val;
}

/* The counters since boot, "name value" a line. False, with errno: unreadable. */
static bool read_stats(char *buf, size_t size)
{
	return read_at(AT_FDCWD, STATS, buf, size);
}

/* One of them; false: this kernel does not count that */
static bool stat_value(const char *stats, const char *name, unsigned long long *val)
{
	size_t len = strlen(name);
	const char *p;

	for (p = stats; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		if (!strncmp(p, name, len) && p[len] == ' ') {
			*val = strtoull(p + len, NULL, 10);
			return true;
		}
	}
	return false;
}

static unsigned long long stat_or_0(const char *stats, const char *name)
{
	unsigned long long val = 0;

	stat_value(stats, name, &val);
	return val;
}

static bool kernel_has_stackmux(void)
{
	return prctl(PR_STACKMUX, PR_STACKMUX_GET, 0, 0, 0) >= 0;
}

static void need_stackmux(void)
{
	if (!kernel_has_stackmux())
		die("this kernel has no stackmux (CONFIG_STACKMUX)");
}

/* ------------------------------------------------------------------- calls */

static const struct {
	long nr;
	const char *name;
} call_names[] = {
#define CALL(name)	{ __NR_##name, #name }
	CALL(futex), CALL(futex_waitv), CALL(poll), CALL(ppoll), CALL(select),
	CALL(pselect6), CALL(epoll_wait), CALL(epoll_pwait),
#ifdef __NR_epoll_pwait2
	CALL(epoll_pwait2),
#endif
#ifdef __NR_futex_wait
	CALL(futex_wait),
#else
	{ 455, "futex_wait" },
#endif
	CALL(nanosleep), CALL(clock_nanosleep), CALL(pause), CALL(rt_sigsuspend),
	CALL(rt_sigtimedwait), CALL(wait4), CALL(waitid), CALL(read), CALL(readv),
	CALL(recvfrom), CALL(recvmsg), CALL(recvmmsg), CALL(accept), CALL(accept4),
	CALL(write), CALL(writev), CALL(sendto), CALL(sendmsg), CALL(sendmmsg),
	CALL(connect), CALL(io_uring_enter), CALL(io_getevents), CALL(io_pgetevents),
	CALL(msgrcv), CALL(msgsnd), CALL(semop), CALL(semtimedop),
	CALL(mq_timedreceive), CALL(mq_timedsend), CALL(flock), CALL(fcntl),
	CALL(splice), CALL(sendfile), CALL(fsync), CALL(fdatasync), CALL(openat),
	CALL(vfork), CALL(clone), CALL(clone3), CALL(ioctl), CALL(pread64),
	CALL(pwrite64), CALL(preadv), CALL(pwritev), CALL(close), CALL(sched_yield),
#undef CALL
};

static const char *call_name(long nr)
{
	static char buf[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(call_names); i++)
		if (call_names[i].nr == nr)
			return call_names[i].name;
	snprintf(buf, sizeof(buf), "system call %ld", nr);
	return buf;
}

/* ------------------------------------------------------------------ threads */

/* The words of the line "Stackmux:" */
enum word { PARKED, LINGERING, IN_PLACE, PINNED, READY, EXCLUDED, OFF, NR_WORDS };

static const char * const words[NR_WORDS] = {
	[PARKED]	= "parked",
	[LINGERING]	= "lingering",
	[IN_PLACE]	= "in place",
	[PINNED]	= "pinned",
	[READY]		= "ready",
	[EXCLUDED]	= "excluded",
	[OFF]		= "off",
};

struct thread {
	enum word word;
	char reason[24];	/* of EXCLUDED */
	char state;		/* as in ps(1) */
};

/* One thread, from its status; false: it is gone, or the kernel has no such line */
static bool read_thread(int task_dir, const char *tid, struct thread *t)
{
	char path[300], buf[4096], *p;
	size_t i, len;

	snprintf(path, sizeof(path), "%s/status", tid);
	if (!read_at(task_dir, path, buf, sizeof(buf)))
		return false;
	p = strstr(buf, "\nState:\t");
	t->state = p ? p[8] : '?';
	p = strstr(buf, "\nStackmux:\t");
	if (!p)
		return false;
	p += strlen("\nStackmux:\t");
	p[strcspn(p, "\n")] = '\0';
	for (i = 0; i < NR_WORDS; i++) {
		len = strlen(words[i]);
		if (!strncmp(p, words[i], len) && (!p[len] || p[len] == ' '))
			break;
	}
	if (i == NR_WORDS)
		return false;
	t->word = i;
	snprintf(t->reason, sizeof(t->reason), "%s", p[len] ? p + len + 1 : "");
	return true;
}

/* The call that a thread sleeps in: -1 if it is in none, -2 if it may not be seen */
static long thread_call(int task_dir, const char *tid)
{
	char path[300], buf[256];

	snprintf(path, sizeof(path), "%s/syscall", tid);
	if (!read_at(task_dir, path, buf, sizeof(buf)))
		return -2;
	return isdigit(buf[0]) ? atol(buf) : -1;
}

static const char *call_or(long nr)
{
	return nr == -1 ? "no call" : nr == -2 ? "a call you may not see" : call_name(nr);
}

/*
 * How many threads of a process sleep in one call: without a stack, with it, and
 * those of the latter that would park if they could do so in this call
 */
struct call {
	long nr;
	unsigned long parked, asleep, ready;
};

struct process {
	int pid;
	char comm[32];
	unsigned long threads, nr[NR_WORDS];
	struct call calls[64];
	unsigned int nr_calls;
};

static struct call *find_call(struct process *p, long nr)
{
	unsigned int i;

	for (i = 0; i < p->nr_calls; i++)
		if (p->calls[i].nr == nr)
			return &p->calls[i];
	if (i == ARRAY_SIZE(p->calls))
		return &p->calls[i - 1];
	p->nr_calls++;
	p->calls[i] = (struct call){ .nr = nr };
	return &p->calls[i];
}

typedef void (*thread_fn)(int task_dir, const char *tid, const struct thread *t, void *arg);

/*
 * All threads of a process, one after another while they run. False, with errno:
 * there is no such process. @fn may be NULL.
 */
static bool read_process(int pid, struct process *p, bool calls, thread_fn fn, void *arg)
{
	struct dirent *d;
	char path[64];
	DIR *dir;
	int fd;

	memset(p, 0, sizeof(*p));
	p->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (!read_at(AT_FDCWD, path, p->comm, sizeof(p->comm)))
		return false;
	p->comm[strcspn(p->comm, "\n")] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	fd = dirfd(dir);
	while ((d = readdir(dir))) {
		struct thread t;

		if (!isdigit(d->d_name[0]) || !read_thread(fd, d->d_name, &t))
			continue;
		p->threads++;
		p->nr[t.word]++;
		if (calls && t.state == 'S') {
			struct call *c = find_call(p, thread_call(fd, d->d_name));

			if (t.word == PARKED)
				c->parked++;
			else
				c->asleep++;
			if (t.word == READY)
				c->ready++;
		}
		if (fn)
			fn(fd, d->d_name, &t, arg);
	}
	closedir(dir);
	return true;
}

static int by_threads(const void *a, const void *b)
{
	const struct call *x = a, *y = b;
	unsigned long n = x->parked + x->asleep, m = y->parked + y->asleep;

	return n < m ? 1 : n > m ? -1 : 0;
}

static int by_parked(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	if (x->nr[PARKED] != y->nr[PARKED])
		return x->nr[PARKED] < y->nr[PARKED] ? 1 : -1;
	return x->threads < y->threads ? 1 : x->threads > y->threads ? -1 : 0;
}

/* Every process of the machine with a thread that is not "off" */
static struct process *read_machine(size_t *nr)
{
	struct process *all = NULL;
	size_t size = 0;
	struct dirent *d;
	DIR *dir = opendir("/proc");

	*nr = 0;
	if (!dir)
		die("cannot read /proc: %s", strerror(errno));
	while ((d = readdir(dir))) {
		if (!isdigit(d->d_name[0]))
			continue;
		if (*nr == size) {
			size = size ? size * 2 : 64;
			all = realloc(all, size * sizeof(*all));
			if (!all)
				die("out of memory");
		}
		if (read_process(atoi(d->d_name), &all[*nr], false, NULL, NULL) &&
		    all[*nr].threads > all[*nr].nr[OFF])
			(*nr)++;
	}
	closedir(dir);
	qsort(all, *nr, sizeof(*all), by_parked);
	return all;
}

static int parse_pid(const char *s)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(s, &end, 10);
	if (errno || *end || end == s || pid < 1 || pid > (1 << 22))
		die("'%s' is no process ID", s);
	return pid;
}

static void read_process_or_die(int pid, struct process *p, thread_fn fn, void *arg)
{
	if (!read_process(pid, p, true, fn, arg))
		die("process %d: %s", pid, errno == ENOENT || errno == ESRCH ?
		    "no such process" : strerror(errno));
	qsort(p->calls, p->nr_calls, sizeof(p->calls[0]), by_threads);
}

static double mib(double bytes)
{
	return bytes / (1 << 20);
}

/* Sizes of a stack and of a record, as the kernel states them */
static struct stackmux_stats sizes(void)
{
	struct stackmux_stats st;

	if (prctl(PR_STACKMUX, PR_STACKMUX_STATS, &st, sizeof(st), 0) < 0)
		die("this kernel cannot tell about its stacks: %s", strerror(errno));
	return st;
}

/* ---------------------------------------------------------------------- run */

static int cmd_run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "try", no_argument, NULL, 't' },
		{ }
	};
	bool try = false;
	int c, ret;

	while ((c = getopt_long(argc, argv, "+t", options, NULL)) != -1) {
		if (c != 't')
			return EXIT_BAD;
		try = true;
	}
	argv += optind;
	if (!*argv) {
		complain("run: which program? See 'stackmux --help'");
		return EXIT_BAD;
	}
	ret = prctl(PR_STACKMUX, PR_STACKMUX_ENABLE, PR_STACKMUX_F_EXEC, 0, 0);
	if (ret && errno == EOPNOTSUPP) {
		complain("kernel.stackmux is 0: '%s' runs without parking", argv[0]);
	} else if (ret && !try) {
		if (errno == EINVAL)
			complain("this kernel has no stackmux; 'stackmux run --try' goes without");
		else
			complain("cannot enable stackmux: %s", strerror(errno));
		return EXIT_BAD;
	}
	execvp(argv[0], argv);
	complain("cannot run '%s': %s", argv[0], strerror(errno));
	return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUN;
}

/* --------------------------------------------------------------------- stat */

static const char * const machine_values[] = {
	"parked", "stacks", "stacks_idle", "records", "record_bytes",
};

/* In debugfs */
static const char * const machine_stats[] = {
	"stacks_max", "parks", "resumes", "lingered", "noswitch", "pins", "reserve",
	"starvations", "refills", "trims", "clones", "newborns", "rearms", "retries",
	"preempted", "stopped",
};

static double machine_saved(const struct stackmux_stats *size)
{
	return (double)counter("parked") * size->stack_size -
	       (double)counter("records") * size->record_size;
}

static void stat_machine_json(void)
{
	struct stackmux_stats size = sizes();
	unsigned long long val;
	char stats[4096];
	size_t i;

	puts("{");
	for (i = 0; i < ARRAY_SIZE(machine_values); i++)
		printf("  \"%s\": %llu,\n", machine_values[i], counter(machine_values[i]));
	if (read_stats(stats, sizeof(stats)))
		for (i = 0; i < ARRAY_SIZE(machine_stats); i++)
			if (stat_value(stats, machine_stats[i], &val))
				printf("  \"%s\": %llu,\n", machine_stats[i], val);
	printf("  \"stack_bytes\": %llu,\n", (unsigned long long)size.stack_size);
	printf("  \"saved_bytes\": %.0f\n}\n", machine_saved(&size));
}

static void stat_machine(void)
{
	struct stackmux_stats size = sizes();
	char stats[4096];

	printf("%llu threads sleep without a stack, which saves %.1f MiB\n",
	       counter("parked"), mib(machine_saved(&size)));
	printf("stacks of the pool: %llu, %llu of them idle\n", counter("stacks"),
	       counter("stacks_idle"));
	printf("park records: %llu of %llu bytes\n", counter("records"),
	       counter("record_bytes"));
	if (!read_stats(stats, sizeof(stats))) {
		printf("counters since boot are left out: cannot read " STATS ": %s\n",
		       strerror(errno));
		return;
	}
	printf("since boot: at most %llu stacks at a time\n", stat_or_0(stats, "stacks_max"));
	printf("            %llu parks, %llu waits that ended before the stack was taken\n",
	       stat_or_0(stats, "parks"), stat_or_0(stats, "lingered"));
	printf("            %llu threads had to wait for a stack when they were woken\n",
	       stat_or_0(stats, "starvations"));
}

static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20 || (unsigned char)*s > 0x7e)
			printf("\\u%04x", (unsigned char)*s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void stat_process_json(const struct process *p, double saved)
{
	unsigned int i;

	printf("{\n  \"pid\": %d,\n  \"command\": ", p->pid);
	print_json_string(p->comm);
	printf(",\n  \"threads\": %lu,\n", p->threads);
	for (i = 0; i < NR_WORDS; i++)
		printf("  \"%s\": %lu,\n", words[i], p->nr[i]);
	printf("  \"saved_bytes\": %.0f,\n  \"calls\": [", saved);
	for (i = 0; i < p->nr_calls; i++) {
		printf("%s\n    { \"call\": ", i ? "," : "");
		if (p->calls[i].nr < 0)
			printf("null");
		else
			print_json_string(call_name(p->calls[i].nr));
		printf(", \"parked\": %lu, \"on_stack\": %lu }", p->calls[i].parked,
		       p->calls[i].asleep);
	}
	puts("\n  ]\n}");
}

static int stat_process(int pid, bool json)
{
	struct stackmux_stats size = sizes();
	struct process p;
	double saved;
	unsigned int i;

	read_process_or_die(pid, &p, NULL, NULL);
	/* A parked thread has a record; whether another one has is not known. */
	saved = (double)p.nr[PARKED] * (size.stack_size - size.record_size);
	if (json) {
		stat_process_json(&p, saved);
		return 0;
	}
	printf("%d (%s): %lu threads, %lu parked, which saves %.1f MiB\n", pid, p.comm,
	       p.threads, p.nr[PARKED], mib(saved));
	for (i = LINGERING; i < NR_WORDS; i++)
		if (p.nr[i])
			printf("%10lu %s\n", p.nr[i], words[i]);
	if (p.nr_calls)
		printf("\n%-20s %10s %10s\n", "asleep in", "parked", "on stack");
	for (i = 0; i < p.nr_calls; i++)
		printf("%-20s %10lu %10lu\n",
		       call_or(p.calls[i].nr), p.calls[i].parked, p.calls[i].asleep);
	return 0;
}

static int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ }
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		if (c != 'j')
			return EXIT_BAD;
		json = true;
	}
	need_stackmux();
	if (optind + 1 < argc)
		die("stat: one process at a time");
	if (optind < argc)
		return stat_process(parse_pid(argv[optind]), json);
	if (json)
		stat_machine_json();
	else
		stat_machine();
	return 0;
}

/* ---------------------------------------------------------------------- top */

/* Parks since boot; false: debugfs cannot be read */
static bool read_parks(unsigned long long *parks)
{
	char stats[4096];

	return read_stats(stats, sizeof(stats)) && stat_value(stats, "parks", parks);
}

static void top_once(unsigned long long *parks, double seconds, int rows)
{
	struct stackmux_stats size = sizes();
	unsigned long long now;
	struct process *all;
	size_t nr, i;

	all = read_machine(&nr);
	printf("%llu parked, %.1f MiB saved, %llu stacks (%llu idle)", counter("parked"),
	       mib(machine_saved(&size)), counter("stacks"), counter("stacks_idle"));
	if (read_parks(&now)) {
		printf(", %.0f parks/s\n\n", seconds > 0 ? (now - *parks) / seconds : 0.0);
		*parks = now;
	} else {
		printf("\n(parks/s are left out: cannot read " STATS ")\n\n");
	}
	printf("%8s %9s %9s %9s %9s %9s  %s\n", "PID", "THREADS", "PARKED", "READY",
	       "EXCLUDED", "MIB", "COMMAND");
	for (i = 0; i < nr && (rows <= 0 || i < (size_t)rows); i++)
		printf("%8d %9lu %9lu %9lu %9lu %9.1f  %s\n", all[i].pid, all[i].threads,
		       all[i].nr[PARKED], all[i].nr[READY], all[i].nr[EXCLUDED],
		       mib((double)all[i].nr[PARKED] *
			   (size.stack_size - size.record_size)), all[i].comm);
	free(all);
	fflush(stdout);
}

static double parse_positive(const char *what, const char *s)
{
	char *end;
	double val = strtod(s, &end);

	if (*end || end == s || !(val > 0) || val > 1e6)
		die("top: %s '%s' is no positive number", what, s);
	return val;
}

static int cmd_top(int argc, char **argv)
{
	static const struct option options[] = {
		{ "delay", required_argument, NULL, 'd' },
		{ "count", required_argument, NULL, 'n' },
		{ "batch", no_argument, NULL, 'b' },
		{ }
	};
	bool batch = !isatty(STDOUT_FILENO);
	unsigned long long parks = 0;
	double delay = 2;
	long count = -1, i;
	int c;

	while ((c = getopt_long(argc, argv, "d:n:b", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			delay = parse_positive("delay", optarg);
			break;
		case 'n':
			count = parse_positive("count", optarg);
			break;
		case 'b':
			batch = true;
			break;
		default:
			return EXIT_BAD;
		}
	}
	if (optind != argc)
		die("top: '%s' is one argument too many", argv[optind]);
	need_stackmux();
	read_parks(&parks);
	for (i = 0; count < 0 || i < count; i++) {
		struct timespec ts = { delay, (delay - (long)delay) * 1e9 };

		if (i)
			nanosleep(&ts, NULL);
		if (!batch)
			fputs("\033[H\033[2J", stdout);
		else if (i)
			putchar('\n');
		top_once(&parks, i ? delay : 0, batch ? 0 : 20);
	}
	return 0;
}

/* ------------------------------------------------------------------- doctor */

/* Why threads are excluded: the word of the kernel, and what it means */
static const struct {
	const char *reason, *text;
} reasons[] = {
	{ "optout", "opted out, by PR_STACKMUX_THREAD" },
	{ "traced", "are traced" },
	{ "realtime", "have a real-time or deadline policy" },
	{ "compat", "are of a 32-bit program" },
	{ "kernel", "work for the kernel, or are exiting" },
};

struct diagnosis {
	unsigned long excluded[ARRAY_SIZE(reasons)], other;
	unsigned long running, uninterruptible, stopped;
};

static void diagnose(int task_dir, const char *tid, const struct thread *t, void *arg)
{
	struct diagnosis *d = arg;
	size_t i;

	(void)task_dir;
	(void)tid;
	if (t->word == EXCLUDED) {
		for (i = 0; i < ARRAY_SIZE(reasons); i++)
			if (!strcmp(t->reason, reasons[i].reason))
				break;
		if (i < ARRAY_SIZE(reasons))
			d->excluded[i]++;
		else
			d->other++;
	} else if (t->word == READY) {
		switch (t->state) {
		case 'R':
			d->running++;
			break;
		case 'D':
			d->uninterruptible++;
			break;
		case 'T':
			d->stopped++;
			break;
		}
	}
}

static int doctor_process(int pid)
{
	struct diagnosis d = { };
	struct process p;
	unsigned int i;

	read_process_or_die(pid, &p, diagnose, &d);
	printf("%d (%s): %lu threads, %lu parked\n", pid, p.comm, p.threads, p.nr[PARKED]);
	if (p.nr[OFF])
		printf("%10lu are not to park: the process has not opted in, see 'stackmux run'\n",
		       p.nr[OFF]);
	if (p.nr[LINGERING])
		printf("%10lu sleep, and their stack is there for the next thread that needs it\n",
		       p.nr[LINGERING]);
	if (p.nr[IN_PLACE])
		printf("%10lu sleep with it, since their last waits were short\n",
		       p.nr[IN_PLACE]);
	if (p.nr[PINNED])
		printf("%10lu sleep with it: something refers to it, or they wake for nothing\n",
		       p.nr[PINNED]);
	for (i = 0; i < ARRAY_SIZE(reasons); i++)
		if (d.excluded[i])
			printf("%10lu keep theirs: they %s\n", d.excluded[i], reasons[i].text);
	if (d.other)
		printf("%10lu keep theirs for a reason that this program does not know\n",
		       d.other);
	if (d.running)
		printf("%10lu run\n", d.running);
	if (d.uninterruptible)
		printf("%10lu wait uninterruptibly inside the kernel (disk, page fault)\n",
		       d.uninterruptible);
	if (d.stopped)
		printf("%10lu are stopped\n", d.stopped);
	for (i = 0; i < p.nr_calls; i++)
		if (p.calls[i].ready)
			printf("%10lu sleep where stackmux cannot park them: in %s\n",
			       p.calls[i].ready, call_or(p.calls[i].nr));
	return 0;
}

/* Is the pool large enough? */
static void doctor_pool(void)
{
	unsigned long long starvations, resumes;
	char stats[4096];

	if (!read_stats(stats, sizeof(stats))) {
		printf("whether threads find a stack when they are woken is not known: cannot read "
		       STATS ": %s\n", strerror(errno));
		return;
	}
	starvations = stat_or_0(stats, "starvations");
	resumes = stat_or_0(stats, "resumes");
	if (!stat_or_0(stats, "parks"))
		puts("no stack has been given up since boot");
	if (starvations > 1000 && starvations > resumes / 100)
		printf("%llu of %llu resumed threads had to wait for a stack: a larger\n"
		       SYSFS "/node_low (now %llu) has more of them ready\n",
		       starvations, resumes, counter("node_low"));
	else
		puts("threads that are woken find their stacks");
}

static int cmd_doctor(int argc, char **argv)
{
	static const char * const modes[] = {
		"0: nobody parks; 'sysctl kernel.stackmux=1' lets processes opt in",
		"1: processes opt in, see 'stackmux run'",
		"2: all processes park",
	};
	unsigned long long mode;

	if (argc > 2)
		die("doctor: one process at a time");
	if (!kernel_has_stackmux()) {
		puts("this kernel has no stackmux: it needs one built with CONFIG_STACKMUX");
		return 1;
	}
	if (argc == 2)
		return doctor_process(parse_pid(argv[1]));
	puts("this kernel has stackmux");
	if (read_number(SYSCTL, &mode) && mode < ARRAY_SIZE(modes))
		printf("kernel.stackmux is %s\n", modes[mode]);
	doctor_pool();
	return 0;
}

/* --------------------------------------------------------------------- main */

static const char usage_text[] =
"usage: stackmux run [--try] [--] PROGRAM [ARGUMENT...]\n"
"       stackmux stat [--json] [PID]\n"
"       stackmux top [--delay SECONDS] [--count N] [--batch]\n"
"       stackmux doctor [PID]\n"
"\n"
"run     start a program whose threads, and those of its children, park: they\n"
"        sleep without a kernel stack; --try: also where the kernel cannot do that\n"
"stat    parked threads, the calls that they sleep in, and the memory that saves\n"
"top     the same for all processes, again and again\n"
"doctor  can this kernel do it, and why do threads have stacks of their own?\n"
"\n"
"Exit status: that of PROGRAM; 125: stackmux itself failed, 126: PROGRAM cannot\n"
"be started, 127: there is no PROGRAM. doctor: 1 if the kernel has no stackmux.\n";

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*fn)(int argc, char **argv);
	} commands[] = {
		{ "run", cmd_run },
		{ "stat", cmd_stat },
		{ "top", cmd_top },
		{ "doctor", cmd_doctor },
	};
	size_t i;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage_text, stdout);
		return 0;
	}
	for (i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].fn(argc - 1, argv + 1);
	if (argc > 1)
		complain("no command '%s'", argv[1]);
	fputs(usage_text, stderr);
	return EXIT_BAD;
}
