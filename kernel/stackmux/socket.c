// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: recvfrom(), recvmsg() and accept() that are executed again
 *
 * Part of net/socket.c. They begin where the descriptor has been turned into a
 * file; see io.c.
 */
#include "stackmux.h"
#include "ops.h"

static long stackmux_recvfrom(struct socket *sock, const unsigned long *args,
			      unsigned int flags)
{
	struct sockaddr __user *addr = (struct sockaddr __user *)args[4];
	struct sockaddr_storage address;
	struct msghdr msg = {
		.msg_name = addr ? (struct sockaddr *)&address : NULL,
	};
	int err, ret;

	err = import_ubuf(ITER_DEST, (void __user *)args[1], args[2], &msg.msg_iter);
	if (err)
		return err;
	if (sock->file->f_flags & O_NONBLOCK)
		flags |= MSG_DONTWAIT;
	ret = sock_recvmsg(sock, &msg, flags);
	if (ret >= 0 && addr) {
		err = move_addr_to_user(&address, msg.msg_namelen, addr,
					(int __user *)args[5]);
		if (err < 0)
			ret = err;
	}
	return ret;
}

long stackmux_sock_recv(struct file *file, int nr, const unsigned long *args,
			bool nowait)
{
	unsigned int flags = nr == __NR_recvmsg ? args[2] : args[3];
	struct socket *sock = sock_from_file(file);
	struct msghdr msg;

	if (nowait)
		flags |= MSG_DONTWAIT;
	if (nr == __NR_recvmsg)
		return ___sys_recvmsg(sock, (struct user_msghdr __user *)args[1],
				      &msg, flags, 0);
	return stackmux_recvfrom(sock, args, flags);
}

long stackmux_sock_accept(struct file *file, int nr, const unsigned long *args,
			  bool nowait)
{
	struct proto_accept_arg arg = { .flags = nowait ? O_NONBLOCK : 0 };
	unsigned int flags = nr == __NR_accept4 ? args[3] : 0;
	struct file *newfile;
	int fd;

	fd = get_unused_fd_flags(flags);
	if (fd < 0)
		return fd;
	newfile = do_accept(file, &arg, (struct sockaddr __user *)args[1],
			    (int __user *)args[2], flags);
	if (IS_ERR(newfile)) {
		put_unused_fd(fd);
		return PTR_ERR(newfile);
	}
	fd_install(fd, newfile);
	return fd;
}
