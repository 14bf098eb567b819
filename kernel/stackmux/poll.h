/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: what poll.c and select.c share
 */
#ifndef _KERNEL_STACKMUX_POLL_H
#define _KERNEL_STACKMUX_POLL_H

#include <linux/poll.h>

#include "../../fs/select.h"
#include "stackmux.h"

/**
 * struct stackmux_poll_entry - a place in a wait queue
 * @wait: the entry
 * @wq: the queue
 * @file: what keeps the queue in existence
 * @key: events to wake for
 */
struct stackmux_poll_entry {
	wait_queue_entry_t wait;
	struct wait_queue_head *wq;
	struct file *file;
	__poll_t key;
};

/**
 * struct stackmux_poll_more - places in further wait queues
 * @next: those that were allocated before
 * @nr: places in use
 * @max: places there are
 * @entries: the places
 */
struct stackmux_poll_more {
	struct stackmux_poll_more *next;
	unsigned int nr;
	unsigned int max;
	struct stackmux_poll_entry entries[] __counted_by(max);
};

/**
 * struct stackmux_poll - poll(), select() and relatives
 * @pt: what ->poll() of files gets
 * @timeout: the deadline
 * @end_time: the same, as the call computed it
 * @one: a set of not more than one element
 * @set: a bigger one, from kvmalloc()
 * @entry: the first place in a wait queue
 * @more: further places
 * @nfds: elements of the set
 * @nr_entries: places in wait queues that are in use
 * @n: select: bits of a bitmap
 * @nomem: a place could not be allocated
 * @triggered: a file has called
 * @finish: ends as poll_select_finish() does
 * @time_type: ... with this
 * @user_time: as @time_type
 * @ufds: poll: where results go
 * @bits: select: three bitmaps
 */
struct stackmux_poll {
	poll_table pt;
	struct stackmux_timer timeout;
	struct timespec64 end_time;
	union {
		struct pollfd one;
		struct pollfd *set;
	};
	struct stackmux_poll_entry entry;
	struct stackmux_poll_more *more;
	unsigned int nfds;
	unsigned int nr_entries;
	int n;
	bool nomem;
	bool triggered;
	bool finish;
	u8 time_type;
	void __user *user_time;
	union {
		struct pollfd __user *ufds;
		unsigned long *bits;
	};
};

/* Elements of a set that parks: half a MiB */
#define STACKMUX_POLL_MAX	65536

static inline struct stackmux_poll *stackmux_poll_of(struct stackmux_record *rec)
{
	return stackmux_private(rec, struct stackmux_poll);
}

/* The elements of the set */
static inline struct pollfd *stackmux_poll_set(struct stackmux_poll *p)
{
	return p->nfds > 1 ? p->set : &p->one;
}

bool stackmux_poll_wanted(struct timespec64 *end_time);
bool stackmux_poll_alloc(struct stackmux_poll *p);
void stackmux_poll_free(struct stackmux_poll *p);
int stackmux_poll_start(struct stackmux_poll *p, struct timespec64 *end_time);
bool stackmux_poll_fired(struct stackmux_record *rec);
bool stackmux_poll_again(struct stackmux_poll *p, int *count);
void stackmux_poll_end(struct stackmux_poll *p);

#endif /* _KERNEL_STACKMUX_POLL_H */
