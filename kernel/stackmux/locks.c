// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: flock() and fcntl() with F_SETLKW or F_OFD_SETLKW that park
 *
 * The record holds the request, an entry in its wait queue, and a reference on the
 * file. File systems that do the locking themselves wait in their own ways, and on the
 * stack.
 *
 * Copied from fs/locks.c: the loops of flock_lock_inode_wait() and
 * do_lock_file_wait(), and the end of fcntl_setlk().
 */
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/filelock.h>
#include <linux/sched/signal.h>
#include <trace/events/filelock.h>

#include "../../fs/locks.h"
#include "stackmux.h"

struct stackmux_lock {
	wait_queue_entry_t wait;
	struct file_lock *fl;
	struct file *file;
	int fd;			/* of fcntl(); -1: flock() */
};

/* Pairs with __locks_unlink_block(), which comes before the wake-up. */
static bool stackmux_lock_fired(struct stackmux_record *rec)
{
	struct stackmux_lock *l = stackmux_private(rec, struct stackmux_lock);

	return list_empty(&l->fl->c.flc_blocked_member);
}

/* The loops of do_lock_file_wait() and flock_lock_inode_wait(), after a sleep */
static long stackmux_lock_try(struct stackmux_lock *l)
{
	struct file_lock *fl = l->fl;
	int error;

	if (list_empty(&fl->c.flc_blocked_member)) {
		if (l->fd < 0)
			error = flock_lock_inode(file_inode(l->file), fl);
		else
			error = vfs_lock_file(l->file, F_SETLKW, fl, NULL);
		if (error != FILE_LOCK_DEFERRED)
			return error;
	}
	return signal_pending(current) ? -ERESTARTSYS : STACKMUX_REARMED;
}

/* The end of fcntl_setlk() */
static int stackmux_setlkw_end(struct stackmux_lock *l, int error)
{
	struct files_struct *files = current->files;
	struct file *file = NULL;

	if (!error && !(l->fl->c.flc_flags & FL_OFDLCK)) {
		/* close() has removed the locks before this one was there? */
		spin_lock(&files->file_lock);
		file = files_lookup_fd_locked(files, l->fd);
		spin_unlock(&files->file_lock);
		if (file != l->file) {
			locks_remove_posix(l->file, files);
			error = -EBADF;
		}
	}
	trace_fcntl_setlk(file_inode(l->file), l->fl, error);
	locks_free_lock(l->fl);
	return error;
}

static long stackmux_lock_resume(struct stackmux_record *rec)
{
	struct stackmux_lock *l = stackmux_private(rec, struct stackmux_lock);
	long error = stackmux_lock_try(l);

	/* Still in the queue of the request */
	if (error == STACKMUX_REARMED)
		return error;

	remove_wait_queue(&l->fl->c.flc_wait, &l->wait);
	locks_delete_block(l->fl);
	if (l->fd < 0)
		locks_free_lock(l->fl);
	else
		error = stackmux_setlkw_end(l, error);
	fput(l->file);
	return error;
}

static const struct stackmux_op stackmux_lock_op = {
	.name	= "lock",
	.fired	= stackmux_lock_fired,
	.resume	= stackmux_lock_resume,
};

/* The request is among those that its blocker wakes when it goes away. */
static void stackmux_lock_arm(struct file *file, struct file_lock *fl, int fd,
			      unsigned long wchan)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_lock *l = stackmux_private(rec, struct stackmux_lock);

	l->fl = fl;
	l->file = get_file(file);
	l->fd = fd;
	init_waitqueue_entry(&l->wait, current);
	add_wait_queue(&fl->c.flc_wait, &l->wait);
	stackmux_arm(rec, &stackmux_lock_op, wchan);
}

/**
 * stackmux_flock - lock a file, and wait without a stack
 * @file: the file, which does not do its locking itself
 * @fl: the request
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: 0, an error, or STACKMUX_ARMED.
 */
int stackmux_flock(struct file *file, struct file_lock *fl)
{
	struct file_lock *heap;
	int error;

	/* Nobody may wait for a request that is on the stack. */
	fl->c.flc_flags &= ~FL_SLEEP;
	error = flock_lock_inode(file_inode(file), fl);
	if (error != -EAGAIN)
		return error;
	fl->c.flc_flags |= FL_SLEEP;

	heap = locks_alloc_lock();
	if (!heap)
		return locks_lock_file_wait(file, fl);
	locks_copy_lock(heap, fl);
	error = flock_lock_inode(file_inode(file), heap);
	if (error == FILE_LOCK_DEFERRED) {
		stackmux_lock_arm(file, heap, -1, (unsigned long)locks_lock_inode_wait);
		return STACKMUX_ARMED;
	}
	locks_delete_block(heap);
	locks_free_lock(heap);
	return error;
}

/**
 * stackmux_setlkw - wait for a record lock without a stack
 * @file: the file
 * @fl: the request, which is waiting; belongs to the record from now on
 * @fd: the descriptor that fcntl() was given
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: STACKMUX_ARMED.
 */
int stackmux_setlkw(struct file *file, struct file_lock *fl, unsigned int fd)
{
	stackmux_lock_arm(file, fl, fd, (unsigned long)fcntl_setlk);
	return STACKMUX_ARMED;
}
