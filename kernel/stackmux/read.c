// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: read() that is executed again
 *
 * It begins where the descriptor has been turned into a file, without what was done
 * when the call began; see io.c.
 *
 * Copied from fs/read_write.c: what is left of vfs_read() and new_sync_read() then.
 */
#include <linux/fsnotify.h>
#include <linux/sched/xacct.h>
#include <linux/uio.h>

#include "io.h"

static __always_inline long stackmux_read(struct file *file, const struct pt_regs *regs,
					  int flags)
{
	void __user *buf = (void __user *)arch_stackmux_arg(regs, 1);
	size_t len = min(arch_stackmux_arg(regs, 2), MAX_RW_COUNT + 0UL);
	struct kiocb kiocb = {
		.ki_filp = file,
		.ki_flags = file->f_iocb_flags | flags,
	};
	struct iov_iter iter __uninitialized;
	long ret;

	if (file->f_op->read_iter) {
		/* That it is user memory was checked at first. */
		iov_iter_ubuf(&iter, ITER_DEST, buf, len);
		ret = file->f_op->read_iter(&kiocb, &iter);
	} else {
		ret = file->f_op->read(file, buf, len, &kiocb.ki_pos);
	}
	if (ret > 0) {
		fsnotify_access(file);
		add_rchar(current, ret);
	}
	return ret;
}

static long stackmux_read_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_read);
}

const struct stackmux_op stackmux_read_op = {
	.name	= "read",
	.fired	= stackmux_io_fired,
	.resume	= stackmux_read_resume,
};
