/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fs/locks.c shares with kernel/stackmux/locks.c
 */
#ifndef _FS_LOCKS_H
#define _FS_LOCKS_H

#include <linux/stackmux.h>

struct file;
struct file_lock;
struct inode;

#ifdef CONFIG_STACKMUX
int flock_lock_inode(struct inode *inode, struct file_lock *request);
#endif

/* kernel/stackmux/locks.c; called only where stackmux_may_park(), or after it */
int stackmux_flock(struct file *file, struct file_lock *fl);
int stackmux_setlkw(struct file *file, struct file_lock *fl, unsigned int fd);

#endif /* _FS_LOCKS_H */
