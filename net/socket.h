/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What net/socket.c shares with kernel/stackmux/socket.c
 */
#ifndef _NET_SOCKET_H
#define _NET_SOCKET_H

#include <linux/socket.h>
#include <linux/stackmux.h>

struct file;
struct socket;

#ifdef CONFIG_STACKMUX
int move_addr_to_user(struct sockaddr_storage *kaddr, int klen,
		      void __user *uaddr, int __user *ulen);
int ___sys_recvmsg(struct socket *sock, struct user_msghdr __user *msg,
		   struct msghdr *msg_sys, unsigned int flags, int nosec);
#endif

/* kernel/stackmux/socket.c; called only after stackmux_io_wait() */
struct file *stackmux_accept_file(struct file *newfile);
int stackmux_accept_fd(int newfd);

#endif /* _NET_SOCKET_H */
