/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What ipc/mqueue.c shares with kernel/stackmux/mqueue.c
 */
#ifndef _IPC_MQUEUE_H
#define _IPC_MQUEUE_H

#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mqueue.h>
#include <linux/rbtree.h>
#include <linux/signal_types.h>
#include <linux/spinlock.h>
#include <linux/stackmux.h>
#include <linux/wait.h>

struct msg_msg;
struct pid;
struct posix_msg_tree_node;
struct sk_buff;
struct sock;
struct task_struct;
struct ucounts;
struct user_namespace;

#define SEND		0
#define RECV		1

#define STATE_NONE	0
#define STATE_READY	1

struct ext_wait_queue {		/* queue of sleeping tasks */
	struct task_struct *task;
	struct list_head list;
	struct msg_msg *msg;	/* ptr of loaded message */
	int state;		/* one of STATE_* values */
};

struct mqueue_inode_info {
	spinlock_t lock;	/* see "Locking" in ipc/mqueue.c */
	struct inode vfs_inode;
	wait_queue_head_t wait_q;

	struct rb_root msg_tree;
	struct rb_node *msg_tree_rightmost;
	struct posix_msg_tree_node *node_cache;
	struct mq_attr attr;

	struct sigevent notify;
	struct pid *notify_owner;
	u32 notify_self_exec_id;
	struct user_namespace *notify_user_ns;
	struct ucounts *ucounts;	/* user who created, for accounting */
	struct sock *notify_sock;
	struct sk_buff *notify_cookie;

	/* for tasks waiting for free space and messages, respectively */
	struct ext_wait_queue e_wait_q[2];

	unsigned long qsize; /* size of queue in memory (sum of all msgs) */
};

static inline struct mqueue_inode_info *MQUEUE_I(struct inode *inode)
{
	return container_of(inode, struct mqueue_inode_info, vfs_inode);
}

#ifdef CONFIG_STACKMUX
void wq_add(struct mqueue_inode_info *info, int sr, struct ext_wait_queue *ewp);
int wq_sleep(struct mqueue_inode_info *info, int sr, ktime_t *timeout,
	     struct ext_wait_queue *ewp);
#endif

/* kernel/stackmux/mqueue.c; called only where stackmux_may_park_atomic() */
int stackmux_mq_receive(struct file *file, ktime_t *expires, char __user *buf,
			unsigned int __user *prio);
int stackmux_mq_send(struct file *file, ktime_t *expires, struct msg_msg *msg);

#endif /* _IPC_MQUEUE_H */
