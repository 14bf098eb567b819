// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: recvfrom(), recvmsg(), accept() and accept4() that are executed again
 *
 * They begin where the descriptor has been turned into a file; see io.c.
 *
 * Copied from net/socket.c: __sys_recvfrom() and do_accept() from there on, and the end
 * of __sys_accept4_file().
 */
#include <linux/file.h>
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <net/sock.h>
#include <asm/stackmux.h>
#include <asm/syscall.h>

#include "../../net/socket.h"
#include "io.h"
#include "stackmux.h"

static long stackmux_recvfrom(struct socket *sock, const struct pt_regs *regs,
			      unsigned int flags)
{
	struct sockaddr __user *addr = (void __user *)arch_stackmux_arg(regs, 4);
	struct sockaddr_storage address;
	struct msghdr msg = {
		.msg_name = addr ? (struct sockaddr *)&address : NULL,
	};
	int err, ret;

	err = import_ubuf(ITER_DEST, (void __user *)arch_stackmux_arg(regs, 1),
			  arch_stackmux_arg(regs, 2), &msg.msg_iter);
	if (err)
		return err;
	if (sock->file->f_flags & O_NONBLOCK)
		flags |= MSG_DONTWAIT;
	ret = sock_recvmsg(sock, &msg, flags);
	if (ret >= 0 && addr) {
		err = move_addr_to_user(&address, msg.msg_namelen, addr,
					(int __user *)arch_stackmux_arg(regs, 5));
		if (err < 0)
			ret = err;
	}
	return ret;
}

static long stackmux_sock_recv(struct file *file, const struct pt_regs *regs, int iocb)
{
	bool recvmsg = syscall_get_nr(current, (struct pt_regs *)regs) == __NR_recvmsg;
	unsigned int flags = arch_stackmux_arg(regs, recvmsg ? 2 : 3);
	struct socket *sock = sock_from_file(file);
	struct msghdr msg;

	if (iocb & IOCB_NOWAIT)
		flags |= MSG_DONTWAIT;
	if (recvmsg)
		return ___sys_recvmsg(sock, (void __user *)arch_stackmux_arg(regs, 1),
				      &msg, flags, 0);
	return stackmux_recvfrom(sock, regs, flags);
}

/* do_accept() from where it has made the new socket */
static long stackmux_sock_accept(struct file *file, const struct pt_regs *regs, int iocb)
{
	struct socket *newsock = sock_from_file(stackmux_io(current->stackmux)->newfile);
	struct sockaddr __user *addr = (void __user *)arch_stackmux_arg(regs, 1);
	struct socket *sock = sock_from_file(file);
	struct proto_accept_arg arg = {
		.flags = file->f_flags | (iocb & IOCB_NOWAIT ? O_NONBLOCK : 0),
	};
	struct sockaddr_storage address;
	int ret;

	ret = newsock->ops->accept(sock, newsock, &arg);
	if (ret < 0 || !addr)
		return ret;
	ret = newsock->ops->getname(newsock, (struct sockaddr *)&address, 2);
	if (ret < 0)
		return -ECONNABORTED;
	return move_addr_to_user(&address, ret, addr,
				 (int __user *)arch_stackmux_arg(regs, 2));
}

static long stackmux_recv_resume(struct stackmux_record *rec)
{
	return stackmux_io_resume(rec, stackmux_sock_recv);
}

static long stackmux_accept_resume(struct stackmux_record *rec)
{
	struct stackmux_io *io = stackmux_io(rec);
	long ret = stackmux_io_resume(rec, stackmux_sock_accept);

	if (ret == STACKMUX_REARMED)
		return ret;
	if (ret < 0) {
		fput(io->newfile);
		put_unused_fd(io->newfd);
		return ret;
	}
	fd_install(io->newfd, io->newfile);
	return io->newfd;
}

static const struct stackmux_op stackmux_recv_op = {
	.name	= "recv",
	.fired	= stackmux_io_fired,
	.resume	= stackmux_recv_resume,
};

static const struct stackmux_op stackmux_accept_op = {
	.name	= "accept",
	.fired	= stackmux_io_fired,
	.resume	= stackmux_accept_resume,
};

/**
 * stackmux_socket_op - the operation of a system call on a socket
 * @nr: number of the system call
 *
 * Context: any.
 * Return: the operation; NULL if it is none that can be executed again.
 */
const struct stackmux_op *stackmux_socket_op(int nr)
{
	switch (nr) {
	case __NR_recvfrom:
	case __NR_recvmsg:
		return &stackmux_recv_op;
	case __NR_accept:
	case __NR_accept4:
		return &stackmux_accept_op;
	default:
		return NULL;
	}
}

/**
 * stackmux_accept_file - keep the file that an accept() made for its result
 * @newfile: the file, whose socket is not connected yet
 *
 * For do_accept(), when the accept has armed. Each time the wait goes on it is
 * used, instead of a new one.
 *
 * Context: as stackmux_io_wait().
 * Return: STACKMUX_ARMED.
 */
struct file *stackmux_accept_file(struct file *newfile)
{
	stackmux_io(current->stackmux)->newfile = newfile;
	return ERR_PTR(STACKMUX_ARMED);
}

/**
 * stackmux_accept_fd - the same for the descriptor
 * @newfd: reserved, but not installed
 *
 * Context: as stackmux_io_wait().
 * Return: STACKMUX_ARMED.
 */
int stackmux_accept_fd(int newfd)
{
	stackmux_io(current->stackmux)->newfd = newfd;
	return STACKMUX_ARMED;
}
