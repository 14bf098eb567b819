/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Threads that sleep and are nothing else: raw clones whose user part is a few
 * instructions that touch no user stack. What memory they take is the kernel's.
 */
#ifndef STACKMUX_SLEEPER_H
#define STACKMUX_SLEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What one of them may have for itself. The stack is there because a thread has to
 * have one, and nothing ever touches it.
 */
struct sm_slot {
	uint32_t tid;		/* cleared by the kernel when it is gone */
	uint32_t futex;
	int64_t ret;		/* of its call */
	uint64_t woken_tsc;	/* when it came back from it */
	uint32_t *again;	/* where it waits next, instead of exiting */
	char stack[224];
};

#define SM_SLOT_ASLEEP	INT64_MIN

/* What many of them have in common: the call that each makes, and how many did */
struct sm_sleepers {
	long call;
	long arg[6];
	uint32_t entered;	/* have come as far as the call */
	uint32_t returned;	/* calls that have come back */
	uint32_t failed;	/* ... with something other than 0 */
	uint32_t futex;		/* all wait on this one */
	bool own;		/* ... or each on that of its slot */
	long nr;		/* clones made */
	long seen;		/* with own futexes: so many were seen waiting */
	struct sm_slot *slot;
	size_t map_size;
};

/* Have them wait on a private futex, @s->futex if nothing else is said. */
void sm_sleepers_init(struct sm_sleepers *s);

/*
 * Clone a thread that makes the call of @s, with @arg1 as its first argument, stores
 * the result in @slot, if it is not NULL, and exits; or calls once more, with
 * slot->again, if that is set by then, and exits afterwards. Thread ID or -errno.
 */
long sm_sleeper(struct sm_sleepers *s, long arg1, struct sm_slot *slot);

#endif /* STACKMUX_SLEEPER_H */
