// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the wait of calls that read, receive or accept on files whose other end
 * is somebody else: pipes, sockets, eventfd, ...
 *
 * Where such a call would sleep, with nothing moved yet, it asks
 * stackmux_io_wait(). That puts an entry of the park record in the same wait queue,
 * with the same exclusivity, and the call returns. When it is woken, the same
 * function of the file is called again, with the arguments that are in the user
 * registers, and either has a result or waits again: see read.c and socket.c.
 *
 * The call goes on with the file that it began with, whatever happens to the
 * descriptor meanwhile.
 */
#include <linux/fdtable.h>
#include <linux/jiffies.h>
#include <linux/pipe_fs_i.h>
#include <linux/poll.h>

#include "io.h"

static int stackmux_io_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int sync, void *key)
{
	struct stackmux_io *io = container_of(wait, struct stackmux_io, wait);
	int ret;

	/* Write space is of no interest to a reader. */
	if (key && !(key_to_poll(key) & ~(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)))
		return 0;
	WRITE_ONCE(io->woken, true);
	/* A waiter that is awake already does not count, as in the classic call. */
	ret = default_wake_function(wait, mode, sync, key);
	/* Pairs with smp_load_acquire() in stackmux_io_queued(). */
	list_del_init_careful(&wait->entry);
	return ret;
}

static inline void stackmux_io_queue_locked(struct stackmux_io *io)
{
	io->woken = false;
	if (io->how & STACKMUX_IO_EXCLUSIVE)
		__add_wait_queue_entry_tail_exclusive(io->wq, &io->wait);
	else
		__add_wait_queue(io->wq, &io->wait);
}

static noinline bool stackmux_io_queue_unlocked(struct stackmux_io *io)
{
	unsigned long flags;

	spin_lock_irqsave(&io->wq->lock, flags);
	stackmux_io_queue_locked(io);
	spin_unlock_irqrestore(&io->wq->lock, flags);
	/*
	 * Queue, then look. Pairs with smp_mb() in wq_has_sleeper(), between what a
	 * source stores and its look at the queue.
	 */
	smp_mb();
	return true;
}

/* Returns true, so that it can be the last thing that a caller does. */
static __always_inline bool stackmux_io_queue(struct stackmux_io *io)
{
	init_waitqueue_func_entry(&io->wait, stackmux_io_wake);
	io->wait.private = current;
	if (!(io->how & STACKMUX_IO_LOCKED))
		return stackmux_io_queue_unlocked(io);
	stackmux_io_queue_locked(io);
	return true;
}

void __stackmux_io_unqueue(struct stackmux_io *io)
{
	unsigned long flags;

	spin_lock_irqsave(&io->wq->lock, flags);
	list_del_init(&io->wait.entry);
	spin_unlock_irqrestore(&io->wq->lock, flags);
}

static void stackmux_io_unqueue(struct stackmux_io *io)
{
	if (stackmux_io_queued(io))
		__stackmux_io_unqueue(io);
}

/*
 * The operation that the current system call is; NULL if it cannot be executed
 * again, or if it was given another file.
 */
static const struct stackmux_op *stackmux_io_op(struct file *file)
{
	struct pt_regs *regs = current_pt_regs();
	int nr = syscall_get_nr(current, regs);
	const struct stackmux_op *op;
	bool same;

	if (unlikely(!file))
		return NULL;
	op = likely(nr == __NR_read) ? &stackmux_read_op : stackmux_socket_op(nr);
	/* Those that ask have no position, for which another call would wait. */
	if (IS_ENABLED(CONFIG_STACKMUX_DEBUG) &&
	    WARN_ON_ONCE(op && file->f_mode & FMODE_ATOMIC_POS))
		return NULL;
	/* The caller holds a reference on the file: comparing is enough. */
	rcu_read_lock();
	same = files_lookup_fd_raw(current->files, arch_stackmux_arg(regs, 0)) == file;
	rcu_read_unlock();
	return likely(same) ? op : NULL;
}

/* The call is executed again and would sleep again. */
static noinline bool stackmux_io_wait_on(struct stackmux_record *rec, struct file *file,
					 struct wait_queue_head *wq, unsigned int how,
					 long *timeo)
{
	struct stackmux_io *io = stackmux_io(rec);

	if (io->file != file)
		return false;
	/* What is left of SO_RCVTIMEO, for the case that it sleeps here */
	if (timeo && stackmux_timer_is_set(&io->timeout))
		*timeo = max(1L, (long)(io->deadline - jiffies));
	if (signal_pending(current))
		return false;
	if (!stackmux_io_queued(io)) {
		io->wq = wq;
		io->how = how;
		stackmux_io_queue(io);
	}
	rec->rearmed = true;
	return true;
}

static noinline bool stackmux_io_queue_timed(struct stackmux_io *io, long timeo)
{
	io->deadline = jiffies + timeo;
	stackmux_timer_start(&io->timeout, CLOCK_MONOTONIC, jiffies64_to_nsecs(timeo),
			     TICK_NSEC, HRTIMER_MODE_REL);
	return stackmux_io_queue(io);
}

static noinline bool stackmux_io_park(struct stackmux_record *rec, struct file *file,
				      struct wait_queue_head *wq, unsigned int how,
				      long *timeo, unsigned long wchan)
{
	struct stackmux_io *io = stackmux_io(rec);
	const struct stackmux_op *op;

	if (unlikely(rec->reexecuting))
		return stackmux_io_wait_on(rec, file, wq, how, timeo);
	if (!stackmux_task_may_park(current))
		return false;
	op = stackmux_io_op(file);
	if (!op)
		return false;

	stackmux_arm(rec, op, wchan);
	io->file = get_file(file);
	io->wq = wq;
	io->how = how;
	stackmux_timer_none(&io->timeout);
	if (timeo && *timeo != MAX_SCHEDULE_TIMEOUT)
		return stackmux_io_queue_timed(io, *timeo);
	return stackmux_io_queue(io);
}

/* The thread has no record. */
static noinline bool stackmux_io_wait_first(struct file *file, struct wait_queue_head *wq,
					    unsigned int how, long *timeo,
					    unsigned long wchan)
{
	bool atomic = how & (STACKMUX_IO_LOCKED | STACKMUX_IO_ATOMIC);

	return stackmux_task_may_park(current) &&
	       stackmux_record_alloc(atomic ? GFP_NOWAIT : GFP_KERNEL) &&
	       stackmux_io_park(current->stackmux, file, wq, how, timeo, wchan);
}

/**
 * __stackmux_io_wait - park where a read, a receive or an accept would sleep
 * @file: what is read; a call that was given another file does not park
 * @wq: the queue in which the call would sleep
 * @how: STACKMUX_IO_*
 * @timeo: how long at most, in jiffies, or NULL; may be changed to what is left
 * @wchan: where the classic call would be seen sleeping
 *
 * To be asked when nothing has been moved yet. If the result is true an entry
 * is in the queue. Then what is waited for has to be looked at once more, unless
 * a lock is held that its source needs, and the caller returns STACKMUX_ARMED
 * without any further effect, or calls stackmux_io_cancel() and goes on.
 *
 * Context: any depth of a system call; whether it is one of those that can be
 * executed again is found out here.
 * Return: true if the caller is to return.
 */
bool __stackmux_io_wait(struct file *file, struct wait_queue_head *wq, unsigned int how,
			long *timeo, unsigned long wchan)
{
	struct stackmux_record *rec = current->stackmux;

	/* All that is called here is called last: no register has to be saved. */
	if (unlikely(!rec))
		return stackmux_io_wait_first(file, wq, how, timeo, wchan);
	if (likely(!rec->reexecuting) && stackmux_wait_in_place(rec))
		return false;
	return stackmux_io_park(rec, file, wq, how, timeo, wchan);
}

/**
 * stackmux_io_cancel - what was waited for is there after all
 *
 * After a stackmux_io_wait() that returned true, with no lock held that it was
 * called under as STACKMUX_IO_LOCKED.
 */
void stackmux_io_cancel(void)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_io *io = stackmux_io(rec);

	stackmux_io_unqueue(io);
	rec->rearmed = false;
	if (rec->reexecuting)
		return;
	stackmux_disarm();
	stackmux_timer_cancel(&io->timeout);
	fput(io->file);
}

bool stackmux_io_fired(struct stackmux_record *rec)
{
	struct stackmux_io *io = stackmux_io(rec);

	return READ_ONCE(io->woken) || stackmux_timer_fired(&io->timeout);
}

/* The next exclusive reader of a pipe, as the classic call does after a wait */
static void stackmux_io_pass_on(struct stackmux_io *io)
{
	struct pipe_inode_info *pipe = get_pipe_info(io->file, false);

	if (pipe && !pipe_empty(READ_ONCE(pipe->head), READ_ONCE(pipe->tail)))
		wake_up_interruptible_sync_poll(&pipe->rd_wait, EPOLLIN | EPOLLRDNORM);
}

/* Does the call return @ret because it waits again? A file system may return that, too. */
static bool stackmux_io_rearmed(struct stackmux_record *rec, long ret)
{
	return unlikely(ret == STACKMUX_ARMED) && rec->rearmed;
}

/*
 * O_NONBLOCK that another task has set does not end a wait that has begun: wait in
 * its stead, and look once more when queued.
 */
static noinline long stackmux_io_nonblock(struct stackmux_record *rec,
					  stackmux_io_fn fn)
{
	struct stackmux_io *io = stackmux_io(rec);
	long ret;

	do {
		if (signal_pending(current)) {
			ret = stackmux_timer_is_set(&io->timeout) ? -EINTR : -ERESTARTSYS;
			break;
		}
		rec->rearmed = true;
		if (stackmux_io_queued(io))
			return STACKMUX_ARMED;
		io->how &= ~STACKMUX_IO_LOCKED;
		stackmux_io_queue(io);
		rec->rearmed = false;
		rec->reexecuting = true;
		ret = fn(io->file, current_pt_regs(), 0);
		rec->reexecuting = false;
	} while (ret == -EAGAIN && (io->file->f_flags & O_NONBLOCK));
	if (!stackmux_io_rearmed(rec, ret))
		stackmux_io_unqueue(io);
	return ret;
}

/* Behind stackmux_io_resume(): the call was executed with @flags, and returned @ret. */
long stackmux_io_end(struct stackmux_record *rec, stackmux_io_fn fn, int flags, long ret)
{
	struct stackmux_io *io = stackmux_io(rec);

	if (unlikely(ret == -EAGAIN) && !flags && (io->file->f_flags & O_NONBLOCK))
		ret = stackmux_io_nonblock(rec, fn);
	if (stackmux_io_rearmed(rec, ret))
		return STACKMUX_REARMED;

	/* Some protocols have a result although they were to wait (RCV_SHUTDOWN). */
	stackmux_io_unqueue(io);
	stackmux_timer_cancel(&io->timeout);
	if (io->how & STACKMUX_IO_EXCLUSIVE)
		stackmux_io_pass_on(io);
	fput(io->file);
	return ret;
}
