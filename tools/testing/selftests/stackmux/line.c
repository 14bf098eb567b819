// SPDX-License-Identifier: GPL-2.0
#define STACKMUX_HELPER
#include "line.h"

const char *const line_names[NR_BY] = {
	"futex", "poll", "epoll", "eventfd", "pipe", "unix socket", "accept",
};

int line_open(struct line *l, int by)
{
	static const int kinds[] = {
		[BY_POLL] = SM_EVENTFD, [BY_EPOLL] = SM_EVENTFD, [BY_EVENTFD] = SM_EVENTFD,
		[BY_PIPE] = SM_PIPE, [BY_UNIX] = SM_UNIX,
	};

	memset(l, 0, sizeof(*l));
	l->by = by;
	l->ep = -1;
	if (by == BY_ACCEPT) {
		l->c.rd = sm_unix_listen(SOCK_STREAM, &l->addr, &l->addr_len);
		l->c.wr = l->c.rd;
		if (l->c.rd < 0)
			return -1;
	} else if (by != BY_FUTEX && sm_chan_open(&l->c, kinds[by])) {
		return -1;
	}
	switch (by) {
	case BY_FUTEX:
		sm_waiter_set(&l->w, __NR_futex, (long)&l->word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
		break;
	case BY_POLL:
		l->pfd = (struct pollfd){ .fd = l->c.rd, .events = POLLIN };
		sm_waiter_set(&l->w, __NR_poll, (long)&l->pfd, 1, -1, 0, 0, 0);
		break;
	case BY_EPOLL:
		l->ev.events = EPOLLIN;
		l->ep = epoll_create1(EPOLL_CLOEXEC);
		if (l->ep < 0 || epoll_ctl(l->ep, EPOLL_CTL_ADD, l->c.rd, &l->ev))
			return -1;
		sm_waiter_set(&l->w, __NR_epoll_wait, l->ep, (long)&l->ev, 1, -1, 0, 0);
		break;
	case BY_ACCEPT:
		sm_waiter_set(&l->w, __NR_accept, l->c.rd, 0, 0, 0, 0, 0);
		break;
	default:
		sm_waiter_set(&l->w, __NR_read, l->c.rd, (long)&l->buf, 8, 0, 0, 0);
	}
	return 0;
}

void line_close(struct line *l)
{
	if (l->by == BY_ACCEPT && l->w.ret > 0)
		close(l->w.ret);
	close(l->ep);
	if (l->by != BY_FUTEX)
		sm_chan_close(&l->c);
}

bool line_send(struct line *l)
{
	int fd, ret;

	if (l->by == BY_FUTEX) {
		sm_add(&l->word, 1);
		sm_wake(&l->word, 1, SM_PRIVATE);
		return true;
	}
	if (l->by != BY_ACCEPT)
		return sm_chan_send(&l->c);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret = connect(fd, (void *)&l->addr, l->addr_len);
	close(fd);
	return !ret;
}

bool line_heard(struct line *l)
{
	const long ret = l->w.ret;

	switch (l->by) {
	case BY_FUTEX:
		return !ret;
	case BY_POLL:
	case BY_EPOLL:
		return ret == 1;
	case BY_ACCEPT:
		return ret >= 0;
	default:
		return ret == 8;
	}
}

bool line_receive(struct line *l)
{
	struct sm_waiter *w = &l->w;

	if (l->by == BY_FUTEX) {
		while (!sm_load(&l->word))
			sm_wait(&l->word, 0, SM_PRIVATE);
		sm_add(&l->word, -1);
		return true;
	}
	w->ret = sm_syscall6(w->nr, w->arg[0], w->arg[1], w->arg[2], w->arg[3], w->arg[4],
			     w->arg[5]);
	if (l->by == BY_ACCEPT && w->ret >= 0)
		close(w->ret);
	return line_heard(l) &&
	       ((l->by != BY_POLL && l->by != BY_EPOLL) || sm_chan_take(&l->c));
}

void *line_play(void *arg)
{
	struct line_player *p = arg;
	struct rusage usage;
	long i;

	for (i = 0; i < p->rounds; i++)
		p->bad += !line_receive(p->in) || !line_send(p->out);
	if (!getrusage(RUSAGE_THREAD, &usage))
		p->waits = usage.ru_nvcsw;
	return NULL;
}
