/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What fs/eventpoll.c shares with kernel/stackmux/epoll.c
 */
#ifndef _FS_EVENTPOLL_H
#define _FS_EVENTPOLL_H

#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/stackmux.h>
#include <linux/wait.h>

struct epitem;
struct epoll_event;

/*
 * ep_poll() and what it calls have one caller each and are inlined. With stackmux
 * there is a second one, and they are inlined into both.
 */
#ifdef CONFIG_STACKMUX
#define ep_inline	__always_inline
#else
#define ep_inline
#endif

#define EP_UNACTIVE_PTR ((void *)-1L)

/*
 * This structure is stored inside the "private_data" member of the file
 * structure and represents the main data structure for the eventpoll
 * interface.
 */
struct eventpoll {
	/*
	 * This mutex is used to ensure that files are not removed
	 * while epoll is using them. This is held during the event
	 * collection loop, the file cleanup path, the epoll file exit
	 * code and the ctl operations.
	 */
	struct mutex mtx;

	/* Wait queue used by sys_epoll_wait() */
	wait_queue_head_t wq;

	/* Wait queue used by file->poll() */
	wait_queue_head_t poll_wait;

	/* List of ready file descriptors */
	struct list_head rdllist;

	/* Lock which protects rdllist and ovflist */
	spinlock_t lock;

	/* Protect switching between rdllist and ovflist */
	seqcount_spinlock_t seq;

	/* RB tree root used to store monitored fd structs */
	struct rb_root_cached rbr;

	/*
	 * This is a single linked list that chains all the "struct epitem" that
	 * happened while transferring ready events to userspace w/out
	 * holding ->lock.
	 */
	struct epitem *ovflist;

	/* wakeup_source used when ep_send_events or __ep_eventpoll_poll is running */
	struct wakeup_source *ws;

	/* The user that created the eventpoll descriptor */
	struct user_struct *user;

	struct file *file;

	/* used to optimize loop detection check */
	u64 gen;
	struct hlist_head refs;
	u8 loop_check_depth;

	/*
	 * usage count, used together with epitem->dying to
	 * orchestrate the disposal of this struct
	 */
	refcount_t refcount;

	/* used to defer freeing past ep_get_upwards_depth_proc() RCU walk */
	struct rcu_head rcu;

#ifdef CONFIG_NET_RX_BUSY_POLL
	/* used to track busy poll napi_id */
	unsigned int napi_id;
	/* busy poll timeout */
	u32 busy_poll_usecs;
	/* busy poll packet budget */
	u16 busy_poll_budget;
	bool prefer_busy_poll;
#endif

#ifdef CONFIG_DEBUG_LOCK_ALLOC
	/* tracks wakeup nests for lockdep validation */
	u8 nests;
#endif
};

/* True iff @ep is between ep_enter_scan() and ep_exit_scan(). */
static inline bool ep_is_scanning(struct eventpoll *ep)
{
	return READ_ONCE(ep->ovflist) != EP_UNACTIVE_PTR;
}

/**
 * ep_events_available - Checks if ready events might be available.
 *
 * @ep: Pointer to the eventpoll context.
 *
 * Return: a value different than %zero if ready events are available,
 *          or %zero otherwise.
 */
static inline int ep_events_available(struct eventpoll *ep)
{
	unsigned int seq = read_seqcount_begin(&ep->seq);

	return !list_empty_careful(&ep->rdllist) || ep_is_scanning(ep) ||
		read_seqcount_retry(&ep->seq, seq);
}

/* The rest of ep_poll(), for a task whose wait has parked and has ended */
int ep_poll_parked(struct eventpoll *ep, struct epoll_event __user *events,
		   int maxevents, bool timed_out);

/* kernel/stackmux/epoll.c; called only where stackmux_may_park(), or after it */
bool stackmux_epoll_wait(struct eventpoll *ep, struct epoll_event __user *events,
			 int maxevents, ktime_t *to, u64 slack);
int stackmux_epoll_masked(void);

#endif /* _FS_EVENTPOLL_H */
