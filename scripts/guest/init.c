// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a guest that scripts/vm starts: sets up the file
 * systems, runs one command, hands its output and exit status to the host over
 * virtio-serial ports, and turns the guest off. Linked statically, since it is
 * all there is in the initramfs.
 *
 * What it has to do stands in /guest of the initramfs:
 *   args, env  strings, each ended by a NUL byte
 *   opts       five of them: root (9p or initramfs), cwd, tty (0 or 1), rows, cols
 *
 * The ports: 1 is the control channel ("exit STATUS TAINT" to the host; one
 * byte from the host asks for a dump of tasks and CPUs on the console), 2 and
 * 3 are the command's stdout and stderr. With a terminal the command has
 * /dev/hvc0 instead of 2 and 3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_STRINGS	4096

static int kmsg_fd = -1;

static struct {
	char *root;
	char *cwd;
	int tty;
	int rows;
	int cols;
} opts;

/* To the console, which the host keeps as a log. */
#define say(fmt, ...)	dprintf(kmsg_fd, "<4>guest-init: " fmt, ##__VA_ARGS__)

static noreturn void power_off(void)
{
	reboot(RB_POWER_OFF);
	/* No ACPI? A reset ends QEMU as well (-no-reboot). */
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static noreturn void fail(const char *what)
{
	say("%s: %s", what, strerror(errno));
	power_off();
}

static char *read_file(const char *path, size_t *len)
{
	size_t size = 1 << 20;
	char *buf = malloc(size);
	ssize_t n;
	int fd;

	*len = 0;
	if (!buf)
		fail("malloc");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	while ((n = read(fd, buf + *len, size - 1 - *len)) > 0)
		*len += n;
	if (n < 0)
		fail(path);
	close(fd);
	buf[*len] = '\0';
	return buf;
}

static char **read_strings(const char *path)
{
	char **list = calloc(MAX_STRINGS + 1, sizeof(*list));
	size_t len, pos, n = 0;
	char *buf = read_file(path, &len);

	if (!list)
		fail("calloc");
	for (pos = 0; pos < len && n < MAX_STRINGS; pos += strlen(buf + pos) + 1)
		list[n++] = buf + pos;
	return list;
}

static void read_opts(void)
{
	char **list = read_strings("/guest/opts");

	opts.root = list[0];
	opts.cwd = list[1];
	opts.tty = atoi(list[2]);
	opts.rows = atoi(list[3]);
	opts.cols = atoi(list[4]);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* A kernel without the file system is no reason not to run the command. */
static void mount_at(const char *dir, const char *type, const char *data)
{
	mkdir(dir, 0755);
	if (mount(type, dir, type, 0, data))
		say("cannot mount %s at %s: %s", type, dir, strerror(errno));
}

static void move_to_host_root(void)
{
	mkdir("/root", 0755);
	if (mount("hostroot", "/root", "9p", MS_RDONLY,
		  "trans=virtio,version=9p2000.L,msize=524288,cache=loose,access=any"))
		fail("cannot mount the host's root file system");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) ||
	    chroot(".") || chdir("/"))
		fail("cannot change the root directory");
}

static void set_up_files(void)
{
	if (!strcmp(opts.root, "9p")) {
		move_to_host_root();
		mount_at("/tmp", "tmpfs", "mode=1777,size=80%,nr_inodes=0");
		mount_at("/run", "tmpfs", "mode=0755");
	} else {
		/* All of it is memory anyway; files may stand there already. */
		mkdir("/tmp", 01777);
		mkdir("/run", 0755);
	}
	mkdir("/run/lock", 01777);
	mount_at("/dev", "devtmpfs", "mode=0755");
	mount_at("/proc", "proc", NULL);
	mount_at("/sys", "sysfs", NULL);
	mount_at("/dev/shm", "tmpfs", "mode=1777,size=80%,nr_inodes=0");
	mount_at("/dev/pts", "devpts", "mode=0620,ptmxmode=0666");
	mount_at("/dev/mqueue", "mqueue", NULL);
	mount_at("/sys/kernel/debug", "debugfs", NULL);
	mount_at("/sys/kernel/tracing", "tracefs", NULL);
	mount_at("/sys/fs/cgroup", "cgroup2", NULL);
	mount_at("/sys/fs/bpf", "bpf", NULL);

	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

static void set_up_system(void)
{
	static const char * const controllers[] = {
		"+cpu", "+cpuset", "+memory", "+pids",
	};
	struct rlimit files = { .rlim_cur = 1024, .rlim_max = 1 << 20 };
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	size_t i;
	int sock;

	for (i = 0; i < sizeof(controllers) / sizeof(*controllers); i++)
		write_file("/sys/fs/cgroup/cgroup.subtree_control", controllers[i]);
	setrlimit(RLIMIT_NOFILE, &files);
	/* An emulated CPU may well not run for seconds on a busy host. */
	write_file("/proc/sys/kernel/watchdog_thresh", "30");
	sethostname("stackmux", strlen("stackmux"));
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock >= 0) {
		if (ioctl(sock, SIOCSIFFLAGS, &lo))
			say("cannot bring up lo: %s", strerror(errno));
		close(sock);
	}
}

/* The ports come up asynchronously, from a kernel worker. */
static int open_port(int nr, int flags)
{
	const struct timespec pause = { .tv_nsec = 2 * 1000 * 1000 };
	char path[32];
	int fd, tries;

	snprintf(path, sizeof(path), "/dev/vport0p%d", nr);
	for (tries = 0; tries < 15000; tries++) {
		fd = open(path, flags | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		nanosleep(&pause, NULL);
	}
	fail(path);
}

static void write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		buf += n;
		len -= n;
	}
}

/* Wait until the host has taken everything that was written to a port. */
static void flush_port(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	poll(&p, 1, 10000);
}

/* Copy what is in the pipe to the port; false at its end. */
static bool pump(int from, int to)
{
	static char buf[1 << 16];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n > 0)
		write_all(to, buf, n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void drain(int from, int to)
{
	struct pollfd p = { .fd = from, .events = POLLIN };

	while (poll(&p, 1, 0) > 0 && pump(from, to))
		;
}

static void use_terminal(void)
{
	struct winsize size = { .ws_row = opts.rows, .ws_col = opts.cols };
	int fd = open("/dev/hvc0", O_RDWR);

	if (fd < 0)
		_exit(125);
	ioctl(fd, TIOCSCTTY, 0);
	if (opts.rows > 0 && opts.cols > 0)
		ioctl(fd, TIOCSWINSZ, &size);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
}

static noreturn void run_command(char **args, char **env, int out, int err)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (opts.tty) {
		use_terminal();
	} else {
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(out, 1);
		dup2(err, 2);
	}
	environ = env;
	if (chdir(opts.cwd)) {
		dprintf(2, "guest: cannot change to %s (%s), using /\n",
			opts.cwd, strerror(errno));
		setenv("PWD", "/", 1);
	}
	execvp(args[0], args);
	dprintf(2, "guest: cannot run %s: %s\n", args[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Whatever the command left running. */
static void kill_rest(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	time_t end = time(NULL) + 60;

	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) >= 0) {
		if (time(NULL) > end) {
			say("BUG: processes survive SIGKILL for a minute");
			write_file("/proc/sysrq-trigger", "w");
			return;
		}
		nanosleep(&pause, NULL);
	}
}

static unsigned long taint(void)
{
	char text[32] = "";
	int fd = open("/proc/sys/kernel/tainted", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		say("no /proc/sys/kernel/tainted");
	if (fd >= 0)
		close(fd);
	return strtoul(text, NULL, 10);
}

/* The host waited for too long: what are the CPUs and the tasks at? */
static void dump_state(void)
{
	struct sysinfo info = { .procs = 0 };

	sysinfo(&info);
	write_file("/proc/sysrq-trigger", info.procs > 300 ? "w" : "t");
	write_file("/proc/sysrq-trigger", "l");
}

/* Run the command to its end and return the status of waitpid(). */
static int supervise(char **args, char **env, int control)
{
	enum { SIG, CTL, OUT, ERR, NR };
	struct pollfd p[NR] = {
		[SIG] = { .events = POLLIN },
		[CTL] = { .fd = control, .events = POLLIN },
		[OUT] = { .fd = -1, .events = POLLIN },
		[ERR] = { .fd = -1, .events = POLLIN },
	};
	int port[NR] = { -1, -1, -1, -1 };
	int out[2] = { -1, -1 }, err[2] = { -1, -1 };
	int status = 0, st, i;
	bool done = false;
	sigset_t chld;
	pid_t child, pid;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	p[SIG].fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p[SIG].fd < 0)
		fail("signalfd");
	if (!opts.tty) {
		port[OUT] = open_port(2, O_WRONLY);
		port[ERR] = open_port(3, O_WRONLY);
		if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
			fail("pipe");
		p[OUT].fd = out[0];
		p[ERR].fd = err[0];
	}

	child = fork();
	if (child < 0)
		fail("fork");
	if (!child)
		run_command(args, env, out[1], err[1]);
	if (!opts.tty) {
		close(out[1]);
		close(err[1]);
	}

	while (!done) {
		struct signalfd_siginfo info;
		char c;

		if (poll(p, NR, -1) < 0)
			continue;
		for (i = OUT; i <= ERR; i++)
			if (p[i].revents && !pump(p[i].fd, port[i]))
				p[i].fd = -1;
		if ((p[CTL].revents & POLLIN) && read(control, &c, 1) == 1)
			dump_state();
		else if (p[CTL].revents & (POLLHUP | POLLERR))
			p[CTL].fd = -1;
		if (p[SIG].revents) {
			while (read(p[SIG].fd, &info, sizeof(info)) > 0)
				;
			while ((pid = waitpid(-1, &st, WNOHANG)) > 0) {
				if (pid != child)
					continue;
				status = st;
				done = true;
			}
		}
	}

	for (i = OUT; i <= ERR; i++) {
		if (p[i].fd >= 0)
			drain(p[i].fd, port[i]);
		if (port[i] >= 0)
			flush_port(port[i]);
	}
	return status;
}

int main(void)
{
	char **args, **env, line[64];
	int control, status;

	if (getpid() != 1) {
		fprintf(stderr, "this is the first process of a guest\n");
		return 1;
	}
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	kmsg_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	args = read_strings("/guest/args");
	env = read_strings("/guest/env");
	read_opts();
	environ = env;

	set_up_files();
	set_up_system();
	control = open_port(1, O_RDWR);
	status = supervise(args, env, control);
	kill_rest();

	snprintf(line, sizeof(line), "exit %d %lu\n",
		 WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
		 taint());
	write_all(control, line, strlen(line));
	flush_port(control);
	power_off();
}
