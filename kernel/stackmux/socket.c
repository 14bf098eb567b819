// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: recvmsg(), sendmsg(), accept() and relatives that are executed again
 *
 * Part of net/socket.c. They begin where the descriptor has been turned into a
 * file; see io.c.
 */
#include <asm/stackmux.h>

#include "stackmux.h"
#include "ops.h"

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

long stackmux_sock_recv(struct file *file, const struct pt_regs *regs, int iocb)
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

/*
 * A wait for room ends with the error of the socket, if it has one, and only then
 * is looked whether the other end is still there; a send begins the other way
 * around.
 */
int stackmux_sock_error(struct file *file)
{
	struct socket *sock = sock_from_file(file);

	return sock ? sock_error(sock->sk) : 0;
}

static long stackmux_sendto(struct socket *sock, const struct pt_regs *regs,
			    unsigned int flags)
{
	void __user *addr = (void __user *)arch_stackmux_arg(regs, 4);
	struct sockaddr_storage address;
	struct msghdr msg = { };
	int err;

	err = import_ubuf(ITER_SOURCE, (void __user *)arch_stackmux_arg(regs, 1),
			  arch_stackmux_arg(regs, 2), &msg.msg_iter);
	if (err)
		return err;
	if (addr) {
		err = move_addr_to_kernel(addr, arch_stackmux_arg(regs, 5), &address);
		if (err < 0)
			return err;
		msg.msg_name = (struct sockaddr *)&address;
		msg.msg_namelen = arch_stackmux_arg(regs, 5);
	}
	if (sock->file->f_flags & O_NONBLOCK)
		flags |= MSG_DONTWAIT;
	msg.msg_flags = flags & ~MSG_INTERNAL_SENDMSG_FLAGS;
	return __sock_sendmsg(sock, &msg);
}

long stackmux_sock_send(struct file *file, const struct pt_regs *regs, int iocb)
{
	bool sendmsg = syscall_get_nr(current, (struct pt_regs *)regs) == __NR_sendmsg;
	unsigned int flags = arch_stackmux_arg(regs, sendmsg ? 2 : 3);
	struct socket *sock = sock_from_file(file);
	int err = stackmux_sock_error(file);
	struct msghdr msg;

	if (err)
		return err;
	if (iocb & IOCB_NOWAIT)
		flags |= MSG_DONTWAIT;
	if (sendmsg)
		return ___sys_sendmsg(sock, (void __user *)arch_stackmux_arg(regs, 1),
				      &msg, flags, NULL, 0);
	return stackmux_sendto(sock, regs, flags);
}

/**
 * stackmux_accept_file - keep the file that an accept() made for its result
 * @newfile: the file, whose socket is not connected yet
 *
 * For do_accept(), when the accept has armed. Each time the wait goes on it is
 * used, instead of a new one.
 *
 * Return: STACKMUX_ARMED.
 */
struct file *stackmux_accept_file(struct file *newfile)
{
	current->stackmux->io.newfile = newfile;
	return ERR_PTR(STACKMUX_ARMED);
}

/**
 * stackmux_accept_fd - the same for the descriptor
 * @newfd: reserved, but not installed
 *
 * Return: STACKMUX_ARMED.
 */
int stackmux_accept_fd(int newfd)
{
	current->stackmux->io.newfd = newfd;
	return STACKMUX_ARMED;
}

/* do_accept() from where it has made the new socket */
long stackmux_sock_accept(struct file *file, const struct pt_regs *regs, int iocb)
{
	struct socket *newsock = sock_from_file(current->stackmux->io.newfile);
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

/* The end of accept(): the descriptor, or the error @ret. */
long stackmux_sock_accepted(struct stackmux_io *io, long ret)
{
	if (ret < 0) {
		fput(io->newfile);
		put_unused_fd(io->newfd);
		return ret;
	}
	fd_install(io->newfd, io->newfile);
	return io->newfd;
}
