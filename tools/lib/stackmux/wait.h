/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * libstackmux: system calls after which the thread re-checks its condition itself
 */
#ifndef _STACKMUX_WAIT_H
#define _STACKMUX_WAIT_H

#pragma GCC visibility push(hidden)

/* Something may have changed: see whether this process parks now. */
void __stackmux_wait_forget(void);

/*
 * Make a waiting call. Returns its result or negative error; -EAGAIN: a wake-up has
 * ended it, and the caller is to re-check its condition.
 */
long __stackmux_wait(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

#pragma GCC visibility pop

#endif /* _STACKMUX_WAIT_H */
