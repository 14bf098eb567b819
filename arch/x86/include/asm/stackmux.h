/* SPDX-License-Identifier: GPL-2.0 */
/* What stackmux needs to know of the architecture */
#ifndef _ASM_X86_STACKMUX_H
#define _ASM_X86_STACKMUX_H

#include <linux/compat.h>
#include <linux/mm_types.h>
#include <linux/ptrace.h>
#include <linux/sched/task_stack.h>
#include <asm/frame.h>
#include <asm/kdebug.h>
#include <asm/mmu.h>
#include <asm/switch_to.h>
#include <asm/syscall.h>

asmlinkage void ret_from_park_asm(void);

/* Where a new task would be seen before it has run */
#define ARCH_STACKMUX_NEW_TASK	ret_from_fork_asm

/**
 * arch_stackmux_frame - build the first frame on a task's new stack
 * @tsk: task that has a stack again and is about to be switched to
 * @regs: its user registers, as they were when it parked
 * @arg: handed to stackmux_ret_from_park() as its third argument
 *
 * The same shape as copy_thread() builds: switch_to() "returns" into
 * ret_from_park_asm, with the user registers above it.
 *
 * Context: run-queue lock held, interrupts off.
 */
static inline void arch_stackmux_frame(struct task_struct *tsk,
				       const struct pt_regs *regs,
				       unsigned long arg)
{
	struct pt_regs *top = task_pt_regs(tsk);
	struct fork_frame *fork_frame = container_of(top, struct fork_frame, regs);
	struct inactive_task_frame *frame = &fork_frame->frame;

	*top = *regs;
	frame->bp = encode_frame_pointer(top);
	frame->bx = arg;
	frame->ret_addr = (unsigned long)ret_from_park_asm;
	tsk->thread.sp = (unsigned long)fork_frame;
}

/**
 * arch_stackmux_no_stack - a task has no stack any more
 * @tsk: the task, which is off its CPU
 * @frame: at least 128 bytes of zeroes, for debuggers that look where it was
 */
static inline void arch_stackmux_no_stack(struct task_struct *tsk, const void *frame)
{
	tsk->thread.sp = (unsigned long)frame;
}

/**
 * arch_stackmux_arg - an argument of the system call that a task is in
 * @regs: its user registers; the call is none of 32 bits
 * @n: which, from 0 to 5; a constant
 *
 * syscall_get_arguments() is for those who want them all.
 */
static __always_inline unsigned long arch_stackmux_arg(const struct pt_regs *regs,
						       unsigned int n)
{
	switch (n) {
	case 0:
		return regs->di;
	case 1:
		return regs->si;
	case 2:
		return regs->dx;
	case 3:
		return regs->r10;
	case 4:
		return regs->r8;
	default:
		return regs->r9;
	}
}

/* A system call returns to another address, with all registers as if it were there. */
static inline void arch_stackmux_jump(struct pt_regs *regs, unsigned long ip)
{
	/* SYSCALL leaves the address here, and SYSRET takes it from here. */
	if (regs->cx == regs->ip)
		regs->cx = ip;
	regs->ip = ip;
}

/* The user registers, as they end the trace of a stack */
static inline void arch_stackmux_show_regs(struct pt_regs *regs)
{
	__show_regs(regs, SHOW_REGS_SHORT, KERN_INFO);
}

/* Is @tsk of a program whose system calls are those of 32 bits? */
static inline bool arch_stackmux_compat(struct task_struct *tsk)
{
	return test_tsk_thread_flag(tsk, TIF_ADDR32);
}

/*
 * Is current in a system call of 32 bits or of x32, or on its way out of one? An
 * interrupt, too, may ask: it leaves -1 where a call leaves its number, and that has the
 * bit of x32 set.
 */
static inline bool arch_stackmux_compat_call(void)
{
	return in_ia32_syscall() ||
	       (unlikely(in_x32_syscall()) && syscall_get_nr(current, current_pt_regs()) != -1);
}

/* A number that names @mm and never another one; 0 and ~0 are no numbers. */
static inline u64 arch_stackmux_mm_id(const struct mm_struct *mm)
{
	return mm->context.ctx_id;
}

/**
 * arch_stackmux_clear_below - clear the unused part of the current stack
 * @from: lowest address to clear, aligned to 8 bytes
 *
 * Clears from @from up to the stack pointer. No call is made meanwhile, and a
 * frame that an interrupt pushes below the stack pointer is dead again before
 * the next word is written.
 */
static __always_inline void arch_stackmux_clear_below(void *from)
{
	unsigned long words = (current_stack_pointer - (unsigned long)from) / 8;

	asm volatile("rep stosq"
		     : "+D" (from), "+c" (words)
		     : "a" (0UL)
		     : "memory");
}

#endif /* _ASM_X86_STACKMUX_H */
