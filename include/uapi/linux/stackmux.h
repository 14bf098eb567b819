/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * stackmux: threads that sleep without a kernel stack
 *
 *	prctl(PR_STACKMUX, operation, flags, 0, 0)
 *	prctl(PR_STACKMUX, PR_STACKMUX_STATS, &stats, sizeof(stats), 0)
 *	prctl(PR_STACKMUX, PR_STACKMUX_RETRY, &retry, sizeof(retry), 0)
 *
 * The setting belongs to the process: all its threads share it, also those that
 * run already. A child of fork() inherits it. A successful execve() drops it
 * unless %PR_STACKMUX_F_EXEC was given; that of a set-user-ID or set-group-ID
 * program or of one with file capabilities always does. A single thread can opt out.
 *
 * An unknown operation, an unknown flag, or an unused argument that is not 0
 * gives %EINVAL; so does every call on a kernel without stackmux.
 */
#ifndef _UAPI_LINUX_STACKMUX_H
#define _UAPI_LINUX_STACKMUX_H

#include <linux/types.h>

/* First argument of prctl(): "SMUX" */
#define PR_STACKMUX		0x534d5558

/*
 * Operations, the second argument of prctl()
 *
 * ENABLE: let the waits of this process park. flags: 0 or PR_STACKMUX_F_*.
 *	   Returns 0. %EOPNOTSUPP: kernel.stackmux is 0, and nothing has changed;
 *	   %ENOMEM: the machine has no memory for the very first user of stackmux.
 * DISABLE: let them block on their stacks again; threads that are parked stay
 *	   so until they are woken. flags must be 0. Returns 0.
 * GET:	   flags must be 0. Returns a mask of the PR_STACKMUX_* result bits.
 * THREAD: flags: PR_STACKMUX_T_OPTOUT: the calling thread opts out and blocks on
 *	   its stack, whatever the process does; 0: no longer. Neither threads
 *	   that it creates nor children have this setting, and execve() drops it.
 *	   Returns 0.
 * STATS:  fill a struct stackmux_stats; its size is the fourth argument. Returns
 *	   the size of the kernel's structure. If that is larger, the members
 *	   that the caller knows are filled; if it is smaller, the rest is set
 *	   to 0. %EINVAL: the size is smaller than %STACKMUX_STATS_SIZE_VER0;
 *	   %E2BIG: it is larger than a page; %EFAULT: the structure cannot be
 *	   written to. A signal that kills ends it.
 * RETRY:  register a struct stackmux_retry for the calling thread, or with NULL
 *	   and size 0 none; see there. Returns 0. %EINVAL: the size is smaller
 *	   than %STACKMUX_RETRY_SIZE_VER0, a flag is unknown, or an address is
 *	   not one of user space; %E2BIG: the structure is larger than a page, or
 *	   larger than the kernel's and the rest is not 0; %EFAULT: it cannot be
 *	   read; %EOPNOTSUPP: kernel.stackmux is 0; %ENOMEM.
 */
#define PR_STACKMUX_ENABLE	1
#define PR_STACKMUX_DISABLE	2
#define PR_STACKMUX_GET		3
#define PR_STACKMUX_THREAD	4
#define PR_STACKMUX_STATS	5
#define PR_STACKMUX_RETRY	6

/* Flags of PR_STACKMUX_ENABLE, the third argument of prctl() */
#define PR_STACKMUX_F_EXEC	(1UL << 0)	/* execve() does not drop the setting */

/* Flags of PR_STACKMUX_THREAD */
#define PR_STACKMUX_T_OPTOUT	(1UL << 0)	/* this thread blocks on its stack */

/* Result bits of PR_STACKMUX_GET */
#define PR_STACKMUX_ENABLED	(1UL << 0)	/* this process opted in */
#define PR_STACKMUX_EXEC	(1UL << 1)	/* ... and stays so over execve() */
#define PR_STACKMUX_ACTIVE	(1UL << 2)	/* its waits park: kernel.stackmux considered */
#define PR_STACKMUX_OPTED_OUT	(1UL << 3)	/* the calling thread opted out */

/**
 * struct stackmux_stats - the threads of the calling process, by PR_STACKMUX_STATS
 * @threads: how many there are
 * @parked: ... of these sleep without a kernel stack
 * @lingering: ... sleep, and their stack is there for the next thread that needs it
 * @pinned: ... sleep in a call that parks, but with a stack that cannot be taken now
 * @excluded: ... do not park although the process does: opted out, real-time,
 *	      traced, ...
 * @records: ... have a park record, since they have parked before
 * @stack_size: bytes of a kernel stack
 * @record_size: bytes of a park record
 *
 * The kernel looks at one thread after another while they run. What parking saves
 * right now is @parked * @stack_size - @records * @record_size bytes.
 */
struct stackmux_stats {
	__u64 threads;
	__u64 parked;
	__u64 lingering;
	__u64 pinned;
	__u64 excluded;
	__u64 records;
	__u64 stack_size;
	__u64 record_size;
};

#define STACKMUX_STATS_SIZE_VER0	64	/* sizeof the first of these */

/**
 * struct stackmux_retry - code that re-checks the condition of a wait itself
 * @start: address of the first byte of the range
 * @length: bytes of the range, not 0
 * @address: where the thread goes on
 * @flags: must be 0
 *
 * A wait belongs to this range if the address after its system call instruction
 * lies in it. If the thread parks and is then woken by what it waits for, the kernel
 * only ends the wait: it neither checks the condition nor stores any result. The
 * thread goes on in user mode at @address, with all registers as the system call
 * leaves them, and with a mask of STACKMUX_RETRY_* as the result.
 *
 * futex(FUTEX_WAIT, FUTEX_WAIT_BITSET), futex_wait(), poll() and ppoll() do so.
 * A time-out, a signal, a tracer, a wait that did not park, and all other calls
 * give their result in the ordinary way, at the address after the instruction. So
 * the code has to be ready for both.
 *
 * The kernel reads this structure once. If there is no code at @address, the thread
 * gets %SIGSEGV, as for any jump there. Threads and children that the thread creates
 * have no range; execve() drops it.
 */
struct stackmux_retry {
	__u64 start;
	__u64 length;
	__u64 address;
	__u64 flags;
};

#define STACKMUX_RETRY_SIZE_VER0	32	/* sizeof the first of these */

/* Why the thread goes on */
#define STACKMUX_RETRY_WOKEN	(1UL << 0)	/* what it waits for has woken it */

#endif /* _UAPI_LINUX_STACKMUX_H */
