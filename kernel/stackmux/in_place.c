// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: tasks that wait in place
 *
 * To leave a call and to enter it again costs some hundred instructions, for nothing if
 * the task is woken before its stack is taken. So a task whose last waits were short
 * does not park: it waits in the classic way, in the code of the call itself. A few
 * tasks of each CPU may do so at a time; one that guessed wrong keeps its place until it
 * is woken, and nothing wakes it for the place. switch.c counts them.
 */
#include <linux/percpu.h>

#include "stackmux.h"

/* In waits; 0: every wait is thought to be short. Writable in debugfs. */
u8 stackmux_backoff __read_mostly = 8;

/* Tasks of each CPU that wait in place. Writable in sysfs. */
unsigned int stackmux_in_place_max __read_mostly = STACKMUX_BATCH;

/* Tasks that went to sleep in place on this CPU, and have not run since */
DEFINE_PER_CPU(atomic_t, stackmux_in_place);

/* Tasks that wait in place: a snapshot. */
long stackmux_nr_in_place(void)
{
	long nr = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		nr += atomic_read(per_cpu_ptr(&stackmux_in_place, cpu));
	return nr;
}
