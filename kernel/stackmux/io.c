// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: read(), recvmsg(), accept(), write(), sendmsg() and relatives that
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
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/jiffies.h>
#include <linux/pipe_fs_i.h>
#include <linux/sched/xacct.h>
#include <linux/task_io_accounting_ops.h>
#include <linux/ptrace.h>
#include <linux/uio.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "stackmux.h"
#include "ops.h"

static int stackmux_io_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int sync, void *key)
{
	struct stackmux_io *io = container_of(wait, struct stackmux_io, wait);
	int ret;

	/* Room to write is of no interest to a reader. */
	if (key && !(key_to_poll(key) & ~(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)) &&
	    !(io->how & STACKMUX_WAIT_ROOM))
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
	if (io->how & STACKMUX_WAIT_EXCLUSIVE)
		__add_wait_queue_entry_tail_exclusive(io->wq, &io->wait);
	else
		__add_wait_queue(io->wq, &io->wait);
}

static noinline enum stackmux_wait_result
stackmux_io_queue_unlocked(struct stackmux_io *io, enum stackmux_wait_result ret)
{
	unsigned long flags;

	spin_lock_irqsave(&io->wq->lock, flags);
	stackmux_io_queue_locked(io);
	spin_unlock_irqrestore(&io->wq->lock, flags);
	return ret;
}

/* Returns @ret, so that it can be the last thing that a caller does. */
static __always_inline enum stackmux_wait_result
stackmux_io_queue(struct stackmux_record *rec, enum stackmux_wait_result ret)
{
	struct stackmux_io *io = &rec->io;

	init_waitqueue_func_entry(&io->wait, stackmux_io_wake);
	io->wait.private = rec->task;
	if (!(io->how & STACKMUX_WAIT_LOCKED))
		return stackmux_io_queue_unlocked(io, ret);
	stackmux_io_queue_locked(io);
	return ret;
}

static inline bool stackmux_io_queued(struct stackmux_io *io)
{
	/* Pairs with list_del_init_careful(), which stores ->next last. */
	return smp_load_acquire(&io->wait.entry.next) != &io->wait.entry;
}

static inline void stackmux_io_unqueue(struct stackmux_io *io)
{
	unsigned long flags;

	if (likely(!stackmux_io_queued(io)))
		return;
	spin_lock_irqsave(&io->wq->lock, flags);
	list_del_init(&io->wait.entry);
	spin_unlock_irqrestore(&io->wq->lock, flags);
}

/* Is @fd this file, which somebody holds a reference on? */
static bool stackmux_io_is(struct file *file, unsigned int fd)
{
	bool same;

	rcu_read_lock();
	same = files_lookup_fd_raw(current->files, fd) == file;
	rcu_read_unlock();
	return same;
}

/* The system calls that wait for something to read, or for room to write */
static enum stackmux_op_nr stackmux_io_op(struct file *file, unsigned int how)
{
	int nr = syscall_get_nr(current, current_pt_regs());

	if (how & STACKMUX_WAIT_ROOM) {
		switch (nr) {
		case __NR_write:
			return STACKMUX_OP_WRITE;
		case __NR_writev:
			/*
			 * Without ->write_iter() it calls ->write() once for each
			 * part, so something may have been moved.
			 */
			return file->f_op->write_iter ? STACKMUX_OP_WRITEV :
							STACKMUX_NR_OPS;
		case __NR_sendto:
		case __NR_sendmsg:
			return STACKMUX_OP_SEND;
		default:
			return STACKMUX_NR_OPS;
		}
	}

	if (nr == __NR_read)
		return STACKMUX_OP_READ;
	switch (nr) {
	case __NR_readv:
		/* Likewise */
		return file->f_op->read_iter ? STACKMUX_OP_READV : STACKMUX_NR_OPS;
	case __NR_recvfrom:
	case __NR_recvmsg:
		return STACKMUX_OP_RECV;
	case __NR_accept:
	case __NR_accept4:
		return STACKMUX_OP_ACCEPT;
	default:
		return STACKMUX_NR_OPS;
	}
}

/*
 * The operation that the current system call is, STACKMUX_NR_OPS if it is none
 * of those that can be executed again, or is about another file.
 */
static enum stackmux_op_nr stackmux_io_call(struct file *file, unsigned int how)
{
	enum stackmux_op_nr op;

	if (unlikely(!file))
		return STACKMUX_NR_OPS;
	op = stackmux_io_op(file, how);
	if (unlikely(op == STACKMUX_NR_OPS))
		return op;
	/* Those that ask have no position, for which another call would wait. */
	if (IS_ENABLED(CONFIG_STACKMUX_DEBUG) &&
	    WARN_ON_ONCE(file->f_mode & FMODE_ATOMIC_POS))
		return STACKMUX_NR_OPS;
	return stackmux_io_is(file, arch_stackmux_arg(current_pt_regs(), 0)) ?
	       op : STACKMUX_NR_OPS;
}

/* The call is executed again and would sleep again. */
static noinline enum stackmux_wait_result
stackmux_io_again(struct stackmux_record *rec, struct file *file,
		  struct wait_queue_head *wq, unsigned int how, long *timeo)
{
	struct stackmux_io *io = &rec->io;

	if (io->file != file)
		return STACKMUX_WAIT_ON_STACK;
	/* What is left of SO_RCVTIMEO, for the case that it sleeps here */
	if (timeo && io->timeout.set)
		*timeo = max(1L, (long)(io->deadline - jiffies));
	if (signal_pending(current))
		return STACKMUX_WAIT_ON_STACK;
	if (!stackmux_io_queued(io)) {
		io->wq = wq;
		io->how = how;
		stackmux_io_queue(rec, STACKMUX_WAIT_PARK);
	}
	return STACKMUX_WAIT_PARK;
}

static noinline enum stackmux_wait_result
stackmux_io_queue_timed(struct stackmux_record *rec, long timeo)
{
	struct stackmux_io *io = &rec->io;

	io->deadline = jiffies + timeo;
	stackmux_timer_start(&io->timeout, CLOCK_MONOTONIC, jiffies64_to_nsecs(timeo),
			     TICK_NSEC, HRTIMER_MODE_REL);
	return stackmux_io_queue(rec, STACKMUX_WAIT_PARK);
}

/* The thread has no record. */
static noinline enum stackmux_wait_result
stackmux_wait_first(struct file *file, struct wait_queue_head *wq, unsigned int how,
		    long *timeo, unsigned long wchan)
{
	if (!__stackmux_may_park(GFP_KERNEL))
		return STACKMUX_WAIT_ON_STACK;
	return __stackmux_wait(file, wq, how, timeo, wchan);
}

/*
 * The wait is likely to be short. Who the call is, and whether it could leave, is
 * of no interest until it has to.
 */
static __always_inline enum stackmux_wait_result
stackmux_wait_stay(struct stackmux_record *rec, struct file *file,
		   struct wait_queue_head *wq, unsigned int how, unsigned long wchan)
{
	struct stackmux_io *io = &rec->io;

	WRITE_ONCE(rec->op, &stackmux_ops[STACKMUX_OP_READ]);
	rec->wchan = wchan;
	io->file = file;
	io->wq = wq;
	io->how = how;
	io->timeout.set = false;
	return stackmux_io_queue(rec, STACKMUX_WAIT_STAY);
}

static noinline enum stackmux_wait_result
stackmux_wait_park(struct stackmux_record *rec, struct file *file,
		   struct wait_queue_head *wq, unsigned int how, long *timeo,
		   unsigned long wchan)
{
	enum stackmux_op_nr op;
	struct stackmux_io *io;

	if (!stackmux_task_may_park(current))
		return STACKMUX_WAIT_ON_STACK;
	op = stackmux_io_call(file, how);
	if (op == STACKMUX_NR_OPS)
		return STACKMUX_WAIT_ON_STACK;

	stackmux_arm_at(rec, op, wchan);
	io = &rec->io;
	io->file = get_file(file);
	io->wq = wq;
	io->how = how;
	io->timeout.set = false;
	if (timeo && *timeo != MAX_SCHEDULE_TIMEOUT)
		return stackmux_io_queue_timed(rec, *timeo);
	return stackmux_io_queue(rec, STACKMUX_WAIT_PARK);
}

/**
 * __stackmux_wait - park where a read, a receive, an accept, a write or a send
 *		     would sleep
 * @file: what is read or written; a call that was given another file does not park
 * @wq: the queue in which the call would sleep
 * @how: STACKMUX_WAIT_EXCLUSIVE: as an exclusive waiter;
 *	 STACKMUX_WAIT_LOCKED: the lock of @wq is held;
 *	 STACKMUX_WAIT_ROOM: it writes or sends;
 *	 STACKMUX_WAIT_WOKEN: it would sleep in wait_woken();
 *	 STACKMUX_WAIT_MAY_STAY: the caller knows STACKMUX_WAIT_STAY
 * @timeo: how long at most, in jiffies, or NULL; may be changed to what is left
 * @wchan: where the classic call would be seen sleeping
 *
 * To be asked when nothing has been moved yet. If the result is not
 * STACKMUX_WAIT_ON_STACK an entry is in the queue. Then what is waited for has to be
 * looked at once more, unless a lock is held that its source needs, and the caller
 * returns STACKMUX_ARMED without any further effect, or calls
 * stackmux_wait_cancel() and tries again; or it calls stackmux_stay().
 *
 * Context: any depth of a system call; whether it is one of those that can be
 * executed again is found out here. Interrupts may be off.
 * Return: what the caller is to do.
 */
enum stackmux_wait_result __stackmux_wait(struct file *file, struct wait_queue_head *wq,
					  unsigned int how, long *timeo,
					  unsigned long wchan)
{
	struct stackmux_record *rec = current->stackmux;

	/* All that is called here is called last: no register has to be saved. */
	if (unlikely(!rec))
		return stackmux_wait_first(file, wq, how, timeo, wchan);
	if (unlikely(rec->again))
		return stackmux_io_again(rec, file, wq, how, timeo);
	if ((how & STACKMUX_WAIT_MAY_STAY) && stackmux_may_stay(rec) &&
	    (!timeo || *timeo == MAX_SCHEDULE_TIMEOUT))
		return stackmux_wait_stay(rec, file, wq, how, wchan);
	return stackmux_wait_park(rec, file, wq, how, timeo, wchan);
}

/* The stack is wanted: make of it a wait that parks, if it can be one. */
static noinline bool stackmux_io_leave(struct stackmux_record *rec)
{
	struct stackmux_io *io = &rec->io;
	enum stackmux_op_nr op = STACKMUX_NR_OPS;

	stackmux_guessed_wrong(rec);
	if (stackmux_task_may_park(current))
		op = stackmux_io_call(io->file, io->how);
	if (op == STACKMUX_NR_OPS)
		return false;
	stackmux_count(STACKMUX_EVICTIONS);
	get_file(io->file);
	stackmux_arm_at(rec, op, rec->wchan);
	return true;
}

/* A task that stays has no deadline. */
static __always_inline bool stackmux_io_woken(struct stackmux_record *rec)
{
	return READ_ONCE(rec->io.woken);
}

bool __stackmux_stay(void)
{
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_io *io = &rec->io;
	bool wanted;

	for (;;) {
		wanted = !stackmux_sit(rec, stackmux_io_woken);
		if (likely(READ_ONCE(io->woken)))
			break;
		if (signal_pending(current)) {
			/* The wait that the caller tries next sees to it. */
			rec->patience = 1;
			break;
		}
		if (wanted && stackmux_io_leave(rec))
			return false;
	}
	stackmux_io_unqueue(io);
	return true;
}

/**
 * stackmux_wait_cancel - what was waited for is there after all
 *
 * After a stackmux_wait() that did not return STACKMUX_WAIT_ON_STACK, with no lock
 * held that it was called under as STACKMUX_WAIT_LOCKED.
 */
void stackmux_wait_cancel(void)
{
	struct stackmux_record *rec = current->stackmux;

	stackmux_io_unqueue(&rec->io);
	if (rec->again || !test_syscall_work(STACKMUX))
		return;
	stackmux_disarm();
	stackmux_timer_cancel(&rec->io.timeout);
	fput(rec->io.file);
}

bool stackmux_io_fired(struct stackmux_record *rec)
{
	return READ_ONCE(rec->io.woken) || stackmux_timer_fired(&rec->io.timeout);
}

/* The next exclusive reader or writer of a pipe, as these do after a wait */
static void stackmux_io_pass_on(struct stackmux_io *io)
{
	struct pipe_inode_info *pipe = get_pipe_info(io->file, false);
	unsigned int head, tail;

	if (!pipe)
		return;
	head = READ_ONCE(pipe->head);
	tail = READ_ONCE(pipe->tail);
	if (io->how & STACKMUX_WAIT_ROOM) {
		if (!pipe_full(head, tail, READ_ONCE(pipe->max_usage)))
			wake_up_interruptible_sync_poll(&pipe->wr_wait,
							EPOLLOUT | EPOLLWRNORM);
	} else if (!pipe_empty(head, tail)) {
		wake_up_interruptible_sync_poll(&pipe->rd_wait,
						EPOLLIN | EPOLLRDNORM);
	}
}

/* A call, from where it has found its file; @flags: 0 or IOCB_NOWAIT */
typedef long (*stackmux_io_fn)(struct file *file, const struct pt_regs *regs,
			       int flags);

static __always_inline long stackmux_io_execute(struct stackmux_record *rec,
						stackmux_io_fn fn, int flags)
{
	long ret;

	rec->again = true;
	ret = fn(rec->io.file, current_pt_regs(), flags);
	rec->again = false;
	return ret;
}

/*
 * O_NONBLOCK set by somebody else does not end a wait that has begun: wait in
 * its stead, and look once more when queued.
 */
static noinline long stackmux_io_nonblock(struct stackmux_record *rec,
					  stackmux_io_fn fn)
{
	struct stackmux_io *io = &rec->io;
	long ret;

	do {
		if (signal_pending(current)) {
			ret = io->timeout.set ? -EINTR : -ERESTARTSYS;
			break;
		}
		if (stackmux_io_queued(io))
			return STACKMUX_ARMED;
		io->how &= ~STACKMUX_WAIT_LOCKED;
		stackmux_io_queue(rec, STACKMUX_WAIT_PARK);
		ret = stackmux_io_execute(rec, fn, 0);
	} while (ret == -EAGAIN && (io->file->f_flags & O_NONBLOCK));
	if (ret != STACKMUX_ARMED)
		stackmux_io_unqueue(io);
	return ret;
}

/* Executes the call again: it has a result, or waits. */
static __always_inline long stackmux_io_resume(struct stackmux_record *rec,
					       stackmux_io_fn fn)
{
	struct stackmux_io *io = &rec->io;
	int late = stackmux_timer_fired(&io->timeout) ? IOCB_NOWAIT : 0;
	long ret;

	stackmux_io_unqueue(io);
	ret = stackmux_io_execute(rec, fn, late);
	if (unlikely(ret == -EAGAIN) && !late && (io->file->f_flags & O_NONBLOCK))
		ret = stackmux_io_nonblock(rec, fn);
	if (ret == STACKMUX_ARMED)
		return ret;

	/* Who queues it and has a result after all takes it out again. */
	WARN_ON_ONCE(IS_ENABLED(CONFIG_STACKMUX_DEBUG) && stackmux_io_queued(io));
	stackmux_timer_cancel(&io->timeout);
	if (io->how & STACKMUX_WAIT_EXCLUSIVE)
		stackmux_io_pass_on(io);
	fput(io->file);
	return ret;
}

static __always_inline struct kiocb stackmux_kiocb(struct file *file, int flags)
{
	return (struct kiocb){
		.ki_filp = file,
		.ki_flags = file->f_iocb_flags | flags,
	};
}

static __always_inline long stackmux_read_end(struct file *file, long ret)
{
	if (ret > 0) {
		fsnotify_access(file);
		add_rchar(current, ret);
	}
	return ret;
}

/* read() without what was done when the call began */
static __always_inline long stackmux_file_read(struct file *file,
					       const struct pt_regs *regs, int flags)
{
	void __user *buf = (void __user *)arch_stackmux_arg(regs, 1);
	size_t len = min(arch_stackmux_arg(regs, 2), MAX_RW_COUNT + 0UL);
	struct kiocb kiocb = stackmux_kiocb(file, flags);
	struct iov_iter iter __uninitialized;
	long ret;

	if (file->f_op->read_iter) {
		/* That it is user memory was checked at first. */
		iov_iter_ubuf(&iter, ITER_DEST, buf, len);
		ret = file->f_op->read_iter(&kiocb, &iter);
	} else {
		ret = file->f_op->read(file, buf, len, &kiocb.ki_pos);
	}
	return stackmux_read_end(file, ret);
}

/* The vector of readv() or writev(); @iov: room for UIO_FASTIOV parts */
static ssize_t stackmux_import(int direction, const struct pt_regs *regs,
			       struct iovec **iov, struct iov_iter *iter)
{
	return import_iovec(direction, (void __user *)arch_stackmux_arg(regs, 1),
			    arch_stackmux_arg(regs, 2), UIO_FASTIOV, iov, iter);
}

static long stackmux_file_readv(struct file *file, const struct pt_regs *regs,
				int flags)
{
	struct kiocb kiocb = stackmux_kiocb(file, flags);
	struct iovec stack[UIO_FASTIOV], *iov = stack;
	struct iov_iter iter;
	ssize_t ret;

	ret = stackmux_import(ITER_DEST, regs, &iov, &iter);
	if (ret < 0)
		return ret;
	ret = file->f_op->read_iter(&kiocb, &iter);
	kfree(iov);
	return stackmux_read_end(file, ret);
}

static __always_inline long stackmux_write_end(struct file *file, long ret)
{
	if (ret > 0) {
		fsnotify_modify(file);
		add_wchar(current, ret);
	}
	return ret;
}

static long stackmux_file_write(struct file *file, const struct pt_regs *regs, int flags)
{
	void __user *buf = (void __user *)arch_stackmux_arg(regs, 1);
	size_t len = min(arch_stackmux_arg(regs, 2), MAX_RW_COUNT + 0UL);
	struct kiocb kiocb = stackmux_kiocb(file, flags);
	struct iov_iter iter;
	long ret;

	ret = stackmux_sock_error(file);
	if (ret)
		return ret;
	if (file->f_op->write_iter) {
		iov_iter_ubuf(&iter, ITER_SOURCE, buf, len);
		ret = file->f_op->write_iter(&kiocb, &iter);
	} else {
		ret = file->f_op->write(file, buf, len, &kiocb.ki_pos);
	}
	return stackmux_write_end(file, ret);
}

static long stackmux_file_writev(struct file *file, const struct pt_regs *regs,
				 int flags)
{
	struct kiocb kiocb = stackmux_kiocb(file, flags);
	struct iovec stack[UIO_FASTIOV], *iov = stack;
	struct iov_iter iter;
	ssize_t ret;

	ret = stackmux_sock_error(file);
	if (ret)
		return ret;
	ret = stackmux_import(ITER_SOURCE, regs, &iov, &iter);
	if (ret < 0)
		return ret;
	ret = file->f_op->write_iter(&kiocb, &iter);
	kfree(iov);
	return stackmux_write_end(file, ret);
}

long stackmux_read_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_file_read);
}

long stackmux_readv_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_file_readv);
}

long stackmux_write_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_file_write);
}

long stackmux_writev_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_file_writev);
}

#ifdef CONFIG_NET
long stackmux_recv_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_sock_recv);
}

long stackmux_accept_resume(struct stackmux_record *rec)
{
	long ret = stackmux_io_resume(rec, stackmux_sock_accept);

	return ret == STACKMUX_ARMED ? ret : stackmux_sock_accepted(&rec->io, ret);
}

long stackmux_send_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_sock_send);
}
#endif
