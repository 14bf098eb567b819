/* SPDX-License-Identifier: GPL-2.0 */
/*
 * stackmux: events of kernel stacks that come and go
 *
 * park, resume and starve are emitted by the task that they are about; take,
 * pin and lend by a CPU that switches between tasks, with its run-queue lock
 * held, as sched_switch is; refill and trim by a worker; grant by a worker or in an
 * interrupt.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM stackmux

#if !defined(_TRACE_STACKMUX_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_STACKMUX_H

#include <linux/sched.h>
#include <linux/tracepoint.h>

/* Room for the name of a call. A plain array: all tools can read that. */
#define STACKMUX_NAME_LEN	16

struct stackmux_record;

/* The call of current waits from now on, and its stack is not needed for that. */
TRACE_EVENT(stackmux_park,

	TP_PROTO(const struct stackmux_record *rec),

	TP_ARGS(rec),

	TP_STRUCT__entry(
		__array(char, call, STACKMUX_NAME_LEN)
		__field(unsigned int, rearms)
	),

	TP_fast_assign(
		strscpy_pad(__entry->call, rec->op->name, STACKMUX_NAME_LEN);
		__entry->rearms = rec->rearms;
	),

	TP_printk("call=%s rearms=%u", __entry->call, __entry->rearms)
);

/* current goes on with its call, on another stack than the one it parked on. */
TRACE_EVENT(stackmux_resume,

	TP_PROTO(const struct stackmux_record *rec, bool other_mm),

	TP_ARGS(rec, other_mm),

	TP_STRUCT__entry(
		__array(char, call, STACKMUX_NAME_LEN)
		__field(bool, other_mm)
	),

	TP_fast_assign(
		strscpy_pad(__entry->call, rec->op->name, STACKMUX_NAME_LEN);
		__entry->other_mm = other_mm;
	),

	TP_printk("call=%s other_mm=%d", __entry->call, __entry->other_mm)
);

DECLARE_EVENT_CLASS(stackmux_task,

	TP_PROTO(struct task_struct *tsk),

	TP_ARGS(tsk),

	TP_STRUCT__entry(
		__array(char, comm, TASK_COMM_LEN)
		__field(pid_t, pid)
	),

	TP_fast_assign(
		memcpy(__entry->comm, tsk->comm, TASK_COMM_LEN);
		__entry->pid = tsk->pid;
	),

	TP_printk("comm=%s pid=%d", __entry->comm, __entry->pid)
);

/* The stack of a task that has parked goes to the pool. */
DEFINE_EVENT(stackmux_task, stackmux_take,
	TP_PROTO(struct task_struct *tsk),
	TP_ARGS(tsk)
);

/* It does not: something holds a reference on it. */
DEFINE_EVENT(stackmux_task, stackmux_pin,
	TP_PROTO(struct task_struct *tsk),
	TP_ARGS(tsk)
);

/* The pool is empty: a task that was woken is lent the CPU's reserve. */
DEFINE_EVENT(stackmux_task, stackmux_lend,
	TP_PROTO(struct task_struct *tsk),
	TP_ARGS(tsk)
);

/* ... and waits for a stack. */
DEFINE_EVENT(stackmux_task, stackmux_starve,
	TP_PROTO(struct task_struct *tsk),
	TP_ARGS(tsk)
);

/* It gets one, after so many microseconds. */
TRACE_EVENT(stackmux_grant,

	TP_PROTO(struct task_struct *tsk, unsigned int waited_us),

	TP_ARGS(tsk, waited_us),

	TP_STRUCT__entry(
		__array(char, comm, TASK_COMM_LEN)
		__field(pid_t, pid)
		__field(unsigned int, waited_us)
	),

	TP_fast_assign(
		memcpy(__entry->comm, tsk->comm, TASK_COMM_LEN);
		__entry->pid = tsk->pid;
		__entry->waited_us = waited_us;
	),

	TP_printk("comm=%s pid=%d waited_us=%u", __entry->comm, __entry->pid,
		  __entry->waited_us)
);

DECLARE_EVENT_CLASS(stackmux_pool,

	TP_PROTO(int nid, unsigned int idle),

	TP_ARGS(nid, idle),

	TP_STRUCT__entry(
		__field(int, nid)
		__field(unsigned int, idle)
	),

	TP_fast_assign(
		__entry->nid = nid;
		__entry->idle = idle;
	),

	TP_printk("nid=%d idle=%u", __entry->nid, __entry->idle)
);

/* A worker adds a new stack to the list of a node that has @idle ... */
DEFINE_EVENT(stackmux_pool, stackmux_refill,
	TP_PROTO(int nid, unsigned int idle),
	TP_ARGS(nid, idle)
);

/* ... or frees one from it. */
DEFINE_EVENT(stackmux_pool, stackmux_trim,
	TP_PROTO(int nid, unsigned int idle),
	TP_ARGS(nid, idle)
);

#endif /* _TRACE_STACKMUX_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
