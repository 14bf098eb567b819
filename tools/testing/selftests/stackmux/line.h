/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A line: where a thread waits, in one call or another, for what another one sends
 */
#ifndef STACKMUX_LINE_H
#define STACKMUX_LINE_H

#include "calls.h"
#include <sys/epoll.h>

enum { BY_FUTEX, BY_POLL, BY_EPOLL, BY_EVENTFD, BY_PIPE, BY_UNIX, BY_ACCEPT, NR_BY };

extern const char *const line_names[NR_BY];

struct line {
	int by;
	uint32_t word;
	struct sm_chan c;
	int ep;
	struct pollfd pfd;
	struct epoll_event ev;
	struct sockaddr_un addr;
	socklen_t addr_len;
	uint64_t buf;
	struct sm_waiter w;
};

int line_open(struct line *l, int by);
void line_close(struct line *l);
bool line_send(struct line *l);

/* Did the call of l->w see the message? */
bool line_heard(struct line *l);

/* Receive one message here. */
bool line_receive(struct line *l);

/* Receives what comes in, and sends something each time */
struct line_player {
	struct line *in, *out;
	long rounds;
	long bad;
	long waits;		/* how often it has slept */
};

void *line_play(void *arg);

#endif /* STACKMUX_LINE_H */
