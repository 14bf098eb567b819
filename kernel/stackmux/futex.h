/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _KERNEL_STACKMUX_FUTEX_H
#define _KERNEL_STACKMUX_FUTEX_H

struct stackmux_record;

bool stackmux_futex_fired(struct stackmux_record *rec);
bool stackmux_futex_resume(struct stackmux_record *rec, long *ret);
bool stackmux_futexv_fired(struct stackmux_record *rec);
bool stackmux_futexv_resume(struct stackmux_record *rec, long *ret);

#endif /* _KERNEL_STACKMUX_FUTEX_H */
