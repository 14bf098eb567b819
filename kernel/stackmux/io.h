/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: what io.c, read.c and socket.c share
 *
 * io.c is the wait; read.c and socket.c are what goes on after it.
 */
#ifndef _KERNEL_STACKMUX_IO_H
#define _KERNEL_STACKMUX_IO_H

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/wait.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "stackmux.h"

/**
 * struct stackmux_io - a call that is executed again when it is woken
 * @wait: entry in @wq
 * @wq: where the call would sleep; @file keeps it in existence
 * @file: what it reads, receives or accepts from
 * @timeout: SO_RCVTIMEO
 * @deadline: the same, in jiffies
 * @how: STACKMUX_IO_*
 * @woken: it was woken there
 * @newfd: accept(): the descriptor that it is going to return
 * @newfile: ... and its file
 */
struct stackmux_io {
	wait_queue_entry_t wait;
	struct wait_queue_head *wq;
	struct file *file;
	struct stackmux_timer timeout;
	unsigned long deadline;
	unsigned int how;
	bool woken;
	int newfd;
	struct file *newfile;
};

static __always_inline struct stackmux_io *stackmux_io(struct stackmux_record *rec)
{
	return stackmux_private(rec, struct stackmux_io);
}

/* A call, from where it has found its file; @flags: 0 or IOCB_NOWAIT */
typedef long (*stackmux_io_fn)(struct file *file, const struct pt_regs *regs,
			       int flags);

bool stackmux_io_fired(struct stackmux_record *rec);
void __stackmux_io_unqueue(struct stackmux_io *io);
long stackmux_io_end(struct stackmux_record *rec, stackmux_io_fn fn, int flags, long ret);

extern const struct stackmux_op stackmux_read_op;

#ifdef CONFIG_NET
const struct stackmux_op *stackmux_socket_op(int nr);
#else
static inline const struct stackmux_op *stackmux_socket_op(int nr) { return NULL; }
#endif

static inline bool stackmux_io_queued(struct stackmux_io *io)
{
	/* Pairs with list_del_init_careful(), which stores ->next last. */
	return smp_load_acquire(&io->wait.entry.next) != &io->wait.entry;
}

/**
 * stackmux_io_resume - execute a call again: it has a result, or waits
 * @rec: record of current
 * @fn: the call
 *
 * Context, Return: as op->resume().
 */
static __always_inline long stackmux_io_resume(struct stackmux_record *rec,
					       stackmux_io_fn fn)
{
	struct stackmux_io *io = stackmux_io(rec);
	int late = stackmux_timer_fired(&io->timeout) ? IOCB_NOWAIT : 0;
	long ret;

	if (unlikely(stackmux_io_queued(io)))
		__stackmux_io_unqueue(io);
	rec->reexecuting = true;
	rec->rearmed = false;
	ret = fn(io->file, current_pt_regs(), late);
	rec->reexecuting = false;
	return stackmux_io_end(rec, fn, late, ret);
}

#endif /* _KERNEL_STACKMUX_IO_H */
