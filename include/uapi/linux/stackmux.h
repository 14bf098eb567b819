/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * stackmux: threads that sleep without a kernel stack
 *
 *	prctl(PR_STACKMUX, operation, flags, 0, 0)
 *
 * The setting belongs to the process: it is shared by all its threads, those
 * that already run included, inherited over fork(), and dropped by a
 * successful execve() unless %PR_STACKMUX_F_EXEC was given.
 *
 * An unknown operation, an unknown flag, or an unused argument that is not 0
 * gives %EINVAL; so does every call on a kernel without stackmux.
 */
#ifndef _UAPI_LINUX_STACKMUX_H
#define _UAPI_LINUX_STACKMUX_H

/* First argument of prctl(): "SMUX" */
#define PR_STACKMUX		0x534d5558

/*
 * Operations, the second argument of prctl()
 *
 * ENABLE: let the waits of this process park. flags: 0 or PR_STACKMUX_F_*.
 *	   Returns 0, or %ENOMEM when the machine has no memory for the very
 *	   first user of stackmux.
 * DISABLE: let them block on their stacks again; threads that are parked stay
 *	   so until they are woken. flags must be 0. Returns 0.
 * GET:	   flags must be 0. Returns a mask of the PR_STACKMUX_* result bits.
 */
#define PR_STACKMUX_ENABLE	1
#define PR_STACKMUX_DISABLE	2
#define PR_STACKMUX_GET		3

/* Flags of PR_STACKMUX_ENABLE, the third argument of prctl() */
#define PR_STACKMUX_F_EXEC	(1UL << 0)	/* keep the setting over execve() */

/* Result bits of PR_STACKMUX_GET */
#define PR_STACKMUX_ENABLED	(1UL << 0)	/* this process opted in */
#define PR_STACKMUX_EXEC	(1UL << 1)	/* ... and stays so over execve() */
#define PR_STACKMUX_ACTIVE	(1UL << 2)	/* its waits park: kernel.stackmux considered */

#endif /* _UAPI_LINUX_STACKMUX_H */
