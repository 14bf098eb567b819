// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: read(), readv(), recvfrom(), recvmsg(), accept() and accept4() that
 * park, on files that wait for somebody else: pipes, sockets, eventfd, ...
 *
 * Where such a call would sleep, with nothing moved yet, it asks
 * stackmux_wait(). That puts an entry of the park record in the same wait queue,
 * with the same exclusivity, and the call returns. When it is woken, the same
 * function of the file is called again, with the arguments that are in the user
 * registers, and either has a result or waits again.
 *
 * The call goes on with the file that it began with, whatever happens to the
 * descriptor meanwhile.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/jiffies.h>
#include <linux/pipe_fs_i.h>
#include <linux/sched/xacct.h>
#include <linux/task_io_accounting_ops.h>
#include <linux/ptrace.h>
#include <linux/uio.h>
#include <asm/syscall.h>

#include "stackmux.h"
#include "ops.h"

static int stackmux_io_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int sync, void *key)
{
	struct task_struct *tsk = wait->private;
	int ret;

	/* Room to write is of no interest to any of these calls. */
	if (key && !(key_to_poll(key) & ~(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)))
		return 0;
	WRITE_ONCE(tsk->stackmux->io.woken, true);
	/* A waiter that is awake already does not count, as in the classic call. */
	ret = default_wake_function(wait, mode, sync, key);
	/* Pairs with list_empty_careful() in stackmux_io_unqueue(). */
	list_del_init_careful(&wait->entry);
	return ret;
}

static void stackmux_io_queue(struct stackmux_record *rec)
{
	struct stackmux_io *io = &rec->io;
	bool locked = io->how & STACKMUX_WAIT_LOCKED;
	unsigned long flags = 0;

	init_waitqueue_func_entry(&io->wait, stackmux_io_wake);
	io->wait.private = rec->task;
	io->woken = false;

	if (!locked)
		spin_lock_irqsave(&io->wq->lock, flags);
	if (io->how & STACKMUX_WAIT_EXCLUSIVE)
		__add_wait_queue_entry_tail_exclusive(io->wq, &io->wait);
	else
		__add_wait_queue(io->wq, &io->wait);
	if (!locked)
		spin_unlock_irqrestore(&io->wq->lock, flags);
	io->queued = true;
}

static void stackmux_io_unqueue(struct stackmux_io *io)
{
	unsigned long flags;

	if (!io->queued)
		return;
	io->queued = false;
	if (list_empty_careful(&io->wait.entry))
		return;
	spin_lock_irqsave(&io->wq->lock, flags);
	list_del_init(&io->wait.entry);
	spin_unlock_irqrestore(&io->wq->lock, flags);
}

/*
 * The operation that the current system call is, STACKMUX_NR_OPS if it is none
 * of those that can be executed again; and the file that it was given.
 */
static enum stackmux_op_nr stackmux_io_call(struct file **file)
{
	enum stackmux_op_nr op;
	unsigned long args[6];
	int nr = syscall_get_nr(current, current_pt_regs());

	switch (nr) {
	case __NR_read:
	case __NR_readv:
		op = STACKMUX_OP_READ;
		break;
	case __NR_recvfrom:
	case __NR_recvmsg:
		op = STACKMUX_OP_RECV;
		break;
	case __NR_accept:
	case __NR_accept4:
		op = STACKMUX_OP_ACCEPT;
		break;
	default:
		return STACKMUX_NR_OPS;
	}
	syscall_get_arguments(current, current_pt_regs(), args);
	*file = fget(args[0]);
	if (!*file)
		return STACKMUX_NR_OPS;
	/*
	 * readv() calls ->read() once for each part, so something may have been
	 * moved. With a file position another call may wait for this one.
	 */
	if (((*file)->f_mode & FMODE_ATOMIC_POS) ||
	    (nr == __NR_readv && !(*file)->f_op->read_iter)) {
		fput(*file);
		return STACKMUX_NR_OPS;
	}
	return op;
}

/* The call is executed again and would sleep again. */
static bool stackmux_io_again(struct stackmux_record *rec, const void *object,
			      struct wait_queue_head *wq, unsigned int how,
			      long *timeo)
{
	struct stackmux_io *io = &rec->io;

	if (io->file->private_data != object)
		return false;
	/* What is left of SO_RCVTIMEO, for the case that it sleeps here */
	if (timeo && io->timeout.set)
		*timeo = max(1L, (long)(io->deadline - jiffies));
	if (signal_pending(current))
		return false;
	if (!io->queued) {
		io->wq = wq;
		io->how = how;
		stackmux_io_queue(rec);
	}
	return true;
}

/**
 * __stackmux_wait - park where a read, a receive or an accept would sleep
 * @object: private data of the file that is read: another file than the call
 *	    was given is not waited for
 * @wq: the queue in which the call would sleep
 * @how: STACKMUX_WAIT_EXCLUSIVE: as an exclusive waiter;
 *	 STACKMUX_WAIT_LOCKED: the lock of @wq is held
 * @timeo: how long at most, in jiffies, or NULL; may be changed to what is left
 *
 * To be asked when nothing has been moved yet. If the result is true an entry
 * is in the queue. Then what is waited for has to be looked at once more, unless
 * a lock is held that its source needs, and the caller returns STACKMUX_ARMED
 * without any further effect, or calls stackmux_wait_cancel() and tries again.
 *
 * Context: any depth of a system call; whether it is one of those that can be
 * executed again is found out here. Interrupts may be off.
 * Return: true if the caller is to return.
 */
bool __stackmux_wait(const void *object, struct wait_queue_head *wq,
		     unsigned int how, long *timeo)
{
	struct stackmux_record *rec = current->stackmux;
	enum stackmux_op_nr op;
	struct stackmux_io *io;
	struct file *file;

	if (rec && rec->again)
		return stackmux_io_again(rec, object, wq, how, timeo);
	if (signal_pending(current) || !__stackmux_may_park())
		return false;
	op = stackmux_io_call(&file);
	if (op == STACKMUX_NR_OPS)
		return false;
	if (file->private_data != object) {
		fput(file);
		return false;
	}

	rec = stackmux_arm(op);
	rec->wchan = _RET_IP_;
	io = &rec->io;
	io->file = file;
	io->wq = wq;
	io->how = how;
	io->timeout.set = false;
	if (timeo && *timeo != MAX_SCHEDULE_TIMEOUT) {
		io->deadline = jiffies + *timeo;
		stackmux_timer_start(&io->timeout, CLOCK_MONOTONIC,
				     jiffies64_to_nsecs(*timeo), TICK_NSEC,
				     HRTIMER_MODE_REL);
	}
	stackmux_io_queue(rec);
	return true;
}

/**
 * stackmux_wait_cancel - what was waited for is there after all
 *
 * After a stackmux_wait() that returned true, with no lock held that it was
 * called under as STACKMUX_WAIT_LOCKED.
 */
void stackmux_wait_cancel(void)
{
	struct stackmux_record *rec = current->stackmux;

	stackmux_io_unqueue(&rec->io);
	if (rec->again)
		return;
	stackmux_disarm();
	stackmux_timer_cancel(&rec->io.timeout);
	fput(rec->io.file);
}

bool stackmux_io_fired(struct stackmux_record *rec)
{
	return READ_ONCE(rec->io.woken) || stackmux_timer_fired(&rec->io.timeout);
}

/* read() or readv() without what has been done when the call began */
static long stackmux_file_read(struct file *file, int nr, const unsigned long *args,
			       bool nowait)
{
	struct iovec stack[UIO_FASTIOV], *iov = stack;
	void __user *buf = (void __user *)args[1];
	loff_t pos = file->f_pos;
	struct kiocb kiocb;
	struct iov_iter iter;
	ssize_t ret;

	init_sync_kiocb(&kiocb, file);
	kiocb.ki_pos = pos;
	if (nowait)
		kiocb.ki_flags |= IOCB_NOWAIT;

	if (nr == __NR_readv) {
		ret = import_iovec(ITER_DEST, buf, args[2], ARRAY_SIZE(stack), &iov, &iter);
		if (ret < 0)
			return ret;
		ret = file->f_op->read_iter(&kiocb, &iter);
		kfree(iov);
	} else if (file->f_op->read_iter) {
		ret = import_ubuf(ITER_DEST, buf, args[2], &iter);
		if (ret < 0)
			return ret;
		ret = file->f_op->read_iter(&kiocb, &iter);
	} else {
		ret = file->f_op->read(file, buf, min(args[2], MAX_RW_COUNT + 0UL), &pos);
	}
	if (ret > 0) {
		fsnotify_access(file);
		add_rchar(current, ret);
	}
	return ret;
}

typedef long (*stackmux_io_fn)(struct file *file, int nr, const unsigned long *args,
			       bool nowait);

/* Executes the call until it has a result, or waits: then false. */
static bool stackmux_io_run(struct stackmux_record *rec, stackmux_io_fn fn, long *ret)
{
	struct stackmux_io *io = &rec->io;
	bool late = stackmux_timer_fired(&io->timeout);
	struct pt_regs *regs = current_pt_regs();
	unsigned long args[6];

	syscall_get_arguments(current, regs, args);
	stackmux_io_unqueue(io);
	for (;;) {
		rec->again = true;
		*ret = fn(io->file, syscall_get_nr(current, regs), args, late);
		rec->again = false;
		if (*ret == STACKMUX_ARMED)
			return false;
		/*
		 * O_NONBLOCK set by somebody else does not end a wait that has
		 * begun: wait in its stead, and look once more when queued.
		 */
		if (*ret != -EAGAIN || late || !(io->file->f_flags & O_NONBLOCK))
			break;
		if (signal_pending(current)) {
			*ret = io->timeout.set ? -EINTR : -ERESTARTSYS;
			break;
		}
		if (io->queued)
			return false;
		io->how &= ~STACKMUX_WAIT_LOCKED;
		stackmux_io_queue(rec);
	}
	stackmux_io_unqueue(io);
	return true;
}

/* The next exclusive reader of a pipe, as pipe_read() does after a wait */
static void stackmux_io_pass_on(struct file *file)
{
	struct pipe_inode_info *pipe = get_pipe_info(file, false);

	if (pipe && !pipe_empty(READ_ONCE(pipe->head), READ_ONCE(pipe->tail)))
		wake_up_interruptible_sync_poll(&pipe->rd_wait,
						EPOLLIN | EPOLLRDNORM);
}

static bool stackmux_io_resume(struct stackmux_record *rec, stackmux_io_fn fn, long *ret)
{
	struct stackmux_io *io = &rec->io;

	if (!stackmux_io_run(rec, fn, ret))
		return false;
	stackmux_timer_cancel(&io->timeout);
	stackmux_io_pass_on(io->file);
	fput(io->file);
	return true;
}

bool stackmux_read_resume(struct stackmux_record *rec, long *ret)
{
	return stackmux_io_resume(rec, stackmux_file_read, ret);
}

bool stackmux_recv_resume(struct stackmux_record *rec, long *ret)
{
	return stackmux_io_resume(rec, stackmux_sock_recv, ret);
}

bool stackmux_accept_resume(struct stackmux_record *rec, long *ret)
{
	return stackmux_io_resume(rec, stackmux_sock_accept, ret);
}
