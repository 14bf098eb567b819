// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the table of calls that can park
 *
 * A new one is a row here, a file of its own for its functions, and a call of
 * stackmux_may_park() where the classic call would wait.
 */
#include "stackmux.h"
#include "futex.h"

const struct stackmux_op stackmux_ops[STACKMUX_NR_OPS] = {
	[STACKMUX_OP_FUTEX] = {
		.name		= "futex",
		.fired		= stackmux_futex_fired,
		.resume		= stackmux_futex_resume,
		.wchan		= futex_wait_queue,
	},
	[STACKMUX_OP_FUTEXV] = {
		.name		= "futex_waitv",
		.fired		= stackmux_futexv_fired,
		.resume		= stackmux_futexv_resume,
		.wchan		= futex_wait_multiple,
	},
};
