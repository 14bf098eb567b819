// SPDX-License-Identifier: GPL-2.0
#define STACKMUX_HELPER
#include "forms.h"

const char *const form_names[NR_FORMS] = {
	"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2",
};

static const short select_events[] = { POLLIN, POLLOUT, POLLPRI };

void fill(struct call *c, struct sm_chan *ch, int n)
{
	int i;

	c->pfd = c->set;
	c->bits = c->map;
	c->ev = c->events;
	c->time = (void *)c->clock;
	c->n = n;
	c->max = MANY;
	c->masked = false;
	for (i = 0; i < n; i++) {
		c->set[i].fd = ch[i].rd;
		c->set[i].events = POLLIN;
	}
	if (!c->own_epfd)
		c->epfd = -1;
	c->own_epfd = true;
}

int set_bits(struct call *c)
{
	int i, j, fd, max = 0;

	memset(c->bits, 0, sizeof(c->map));
	for (i = 0; i < c->n; i++) {
		fd = c->pfd[i].fd;
		for (j = 0; j < 3; j++)
			if (c->pfd[i].events & select_events[j])
				c->bits[j][fd / 64] |= 1UL << fd % 64;
		if (fd >= max)
			max = fd + 1;
	}
	return max;
}

static void set_epoll(struct call *c)
{
	int i;

	if (c->epfd >= 0)
		close(c->epfd);
	c->epfd = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < c->n; i++)
		epoll_ctl_data(c->epfd, EPOLL_CTL_ADD, c->set[i].fd,
			       (unsigned short)c->set[i].events, i);
}

static void set_time(struct call *c, int64_t ns)
{
	c->ns = ns;
	if (ns == NONE)
		return;
	c->time->ts = sm_ts(ns);
	if (c->form == SELECT)
		c->time->tv.tv_usec = (ns % SM_SEC + 999) / 1000;
}

int64_t left_ns(struct call *c)
{
	if (c->form == SELECT)
		return c->time->tv.tv_sec * SM_SEC +
		       c->time->tv.tv_usec * 1000LL;
	return c->time->ts.tv_sec * SM_SEC + c->time->ts.tv_nsec;
}

int ready(struct call *c, int i)
{
	int j, fd, ret = 0;

	if (is_epoll(c->form)) {
		for (j = 0; j < nr_ready(c); j++)
			if (c->ev[j].data.u32 == i)
				ret |= c->ev[j].events;
		return ret;
	}
	fd = c->pfd[i].fd;
	if (!is_select(c->form))
		return c->pfd[i].revents;
	for (j = 0; j < 3; j++)
		if (c->bits[j][fd / 64] & (1UL << fd % 64))
			ret |= select_events[j];
	return ret;
}

int nr_ready(struct call *c)
{
	int i, n = 0;

	if (is_epoll(c->form)) {
		while (n < MANY && c->ev[n].events != UNTOUCHED)
			n++;
		return n;
	}
	for (i = 0; i < c->n; i++)
		n += !!ready(c, i);
	return n;
}

void prepare(struct call *c, int form, int64_t ns)
{
	const long ms = ns == NONE ? -1 : (ns + SM_MSEC - 1) / SM_MSEC;
	const long mask = c->masked ? (long)&c->mask : 0;
	const long tp = ns == NONE ? 0 : (long)c->time;
	struct sm_waiter *w = &c->w;
	int i, n = 0;

	c->form = form;
	set_time(c, ns);
	for (i = 0; i < c->n; i++)
		c->pfd[i].revents = 0x7fff;
	if (is_select(form))
		n = set_bits(c);
	if (is_epoll(form) && c->own_epfd)
		set_epoll(c);
	memset(c->events, UNTOUCHED & 0xff,
	       (c->max > 0 && c->max < MANY ? c->max + 1 : MANY) * sizeof(*c->events));
	switch (form) {
	case POLL:
		sm_waiter_set(w, __NR_poll, (long)c->pfd, c->n, ms, 0, 0, 0);
		break;
	case PPOLL:
		sm_waiter_set(w, __NR_ppoll, (long)c->pfd, c->n, tp, mask, 8, 0);
		break;
	case SELECT:
		sm_waiter_set(w, __NR_select, n, (long)c->bits[0],
			      (long)c->bits[1], (long)c->bits[2], tp, 0);
		break;
	case PSELECT:
		c->sig.set = (void *)mask;
		c->sig.size = 8;
		sm_waiter_set(w, __NR_pselect6, n, (long)c->bits[0],
			      (long)c->bits[1], (long)c->bits[2], tp,
			      (long)&c->sig);
		break;
	case WAIT:
		sm_waiter_set(w, __NR_epoll_wait, c->epfd, (long)c->ev, c->max, ms, 0, 0);
		break;
	case PWAIT:
		sm_waiter_set(w, __NR_epoll_pwait, c->epfd, (long)c->ev, c->max, ms, mask, 8);
		break;
	default:
		sm_waiter_set(w, __NR_epoll_pwait2, c->epfd, (long)c->ev, c->max, tp, mask, 8);
	}
	w->before = NULL;
	w->after = NULL;
	w->data = c;
	w->entered = 0;
	w->done = 0;
}

long call_raw(struct call *c, int form, int64_t ns)
{
	struct sm_waiter *w = &c->w;

	prepare(c, form, ns);
	return sm_syscall6(w->nr, w->arg[0], w->arg[1], w->arg[2],
			   w->arg[3], w->arg[4], w->arg[5]);
}

long call_now(struct call *c, int form, int64_t ns)
{
	prepare(c, form, ns);
	sm_waiter_fn(&c->w);
	return c->w.ret;
}

bool start(struct sm_env *env, struct call *c, int form, int64_t ns)
{
	prepare(c, form, ns);
	return sm_start(env, &c->w);
}

bool child_asleep(struct sm_env *env, struct call *c, pid_t pid)
{
	return sm_wait_parked(env, 1) && sm_wait_asleep(env, pid, &c->w, 1);
}

pid_t fork_child(struct sm_env *env, struct call *c)
{
	pid_t pid;

	sm_rebase(env);
	pid = sm_fork();
	if (!pid) {
		sm_waiter_fn(&c->w);
		_exit(0);
	}
	return pid;
}

pid_t start_child(struct sm_env *env, struct call *c)
{
	pid_t pid = fork_child(env, c);

	return pid > 0 && child_asleep(env, c, pid) ? pid : -1;
}

/* ------------------------------------------------------------------- masks */

static void mask_before(struct sm_waiter *w)
{
	struct call *c = w->data;

	sm_mask_set(c->outside);
	c->handled = sm_load(&sm_handled);
}

void mask_before_pending(struct sm_waiter *w)
{
	mask_before(w);
	sm_tgkill(getpid(), sm_gettid(), SIGUSR1);
}

static void mask_after(struct sm_waiter *w)
{
	struct call *c = w->data;

	c->after = sm_mask_now();
	c->handled = sm_load(&sm_handled) - c->handled;
}

void prepare_masked(struct call *c, int form, int64_t ns, uint64_t outside, uint64_t inside)
{
	c->masked = true;
	c->mask = inside;
	c->outside = outside;
	prepare(c, form, ns);
	c->w.before = mask_before;
	c->w.after = mask_after;
}

/* ------------------------------------------------------------- descriptors */

int epoll_ctl_data(int epfd, int op, int fd, uint32_t events, uint32_t data)
{
	struct epoll_event ev = { .events = events, .data.u32 = data };

	return epoll_ctl(epfd, op, fd, &ev) ? -errno : 0;
}

int epoll_add(int epfd, struct sm_chan *ch, int n, uint32_t events)
{
	int i, ret = 0;

	for (i = 0; i < n && !ret; i++)
		ret = epoll_ctl_data(epfd, EPOLL_CTL_ADD, ch[i].rd, events, i);
	return ret;
}

long look(int epfd, struct epoll_event *ev, int max)
{
	return sm_syscall6(__NR_epoll_wait, epfd, (long)ev, max, 0, 0, 0);
}

/* Until there is no room, and none comes: TCP moves it to the other side later. */
void stuff(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	static const char buf[4096];

	sm_nonblock(fd, true);
	do {
		while (write(fd, buf, sizeof(buf)) > 0)
			;
	} while (poll(&pfd, 1, 100 * sm_slow()));
	sm_nonblock(fd, false);
}

void unstuff(int fd)
{
	char buf[4096];

	sm_nonblock(fd, true);
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	sm_nonblock(fd, false);
}
