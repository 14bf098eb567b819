/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: what the calls in the table of operations provide
 */
#ifndef _KERNEL_STACKMUX_OPS_H
#define _KERNEL_STACKMUX_OPS_H

struct file;
struct pt_regs;
struct stackmux_io;
struct stackmux_record;

/* The names that the entry code knows calls by */
long __x64_sys_pause(const struct pt_regs *regs);

long stackmux_newborn_resume(struct stackmux_record *rec);

bool stackmux_futex_fired(struct stackmux_record *rec);
long stackmux_futex_resume(struct stackmux_record *rec);
bool stackmux_futex_give_up(struct stackmux_record *rec);
bool stackmux_futexv_fired(struct stackmux_record *rec);
long stackmux_futexv_resume(struct stackmux_record *rec);

bool stackmux_poll_fired(struct stackmux_record *rec);
long stackmux_poll_resume(struct stackmux_record *rec);
bool stackmux_poll_give_up(struct stackmux_record *rec);
long stackmux_select_resume(struct stackmux_record *rec);

bool stackmux_epoll_fired(struct stackmux_record *rec);
long stackmux_epoll_resume(struct stackmux_record *rec);

bool stackmux_sleep_fired(struct stackmux_record *rec);
long stackmux_sleep_resume(struct stackmux_record *rec);

bool stackmux_signal_fired(struct stackmux_record *rec);
long stackmux_pause_resume(struct stackmux_record *rec);
long stackmux_sigsuspend_resume(struct stackmux_record *rec);
bool stackmux_sigtimedwait_fired(struct stackmux_record *rec);
long stackmux_sigtimedwait_resume(struct stackmux_record *rec);

bool stackmux_wait_fired(struct stackmux_record *rec);
long stackmux_wait_resume(struct stackmux_record *rec);

bool stackmux_io_fired(struct stackmux_record *rec);
long stackmux_read_resume(struct stackmux_record *rec);
long stackmux_readv_resume(struct stackmux_record *rec);
long stackmux_recv_resume(struct stackmux_record *rec);
long stackmux_accept_resume(struct stackmux_record *rec);

long stackmux_write_resume(struct stackmux_record *rec);
long stackmux_writev_resume(struct stackmux_record *rec);
long stackmux_send_resume(struct stackmux_record *rec);

bool stackmux_uring_fired(struct stackmux_record *rec);
long stackmux_uring_resume(struct stackmux_record *rec);

bool stackmux_aio_fired(struct stackmux_record *rec);
long stackmux_aio_resume(struct stackmux_record *rec);

bool stackmux_msg_fired(struct stackmux_record *rec);
long stackmux_msg_resume(struct stackmux_record *rec);

bool stackmux_sem_fired(struct stackmux_record *rec);
long stackmux_sem_resume(struct stackmux_record *rec);

bool stackmux_mq_fired(struct stackmux_record *rec);
long stackmux_mq_resume(struct stackmux_record *rec);

bool stackmux_lock_fired(struct stackmux_record *rec);
long stackmux_lock_resume(struct stackmux_record *rec);

/* socket.c, compiled with net/socket.c */
long stackmux_sock_recv(struct file *file, const struct pt_regs *regs, int iocb);
long stackmux_sock_send(struct file *file, const struct pt_regs *regs, int iocb);
long stackmux_sock_accept(struct file *file, const struct pt_regs *regs, int iocb);
long stackmux_sock_accepted(struct stackmux_io *io, long ret);

#ifdef CONFIG_NET
int stackmux_sock_error(struct file *file);
#else
static inline int stackmux_sock_error(struct file *file) { return 0; }
#endif

#endif /* _KERNEL_STACKMUX_OPS_H */
