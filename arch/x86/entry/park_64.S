/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way of a parked task back: a sibling of ret_from_fork_asm.
 */
#include <linux/linkage.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

/*
 * switch_to() returns here when a task that gave its stack back is switched
 * in again; arch_stackmux_frame() built the frame.
 *
 * rax: prev task we switched from
 * rbx: argument for stackmux_ret_from_park()
 */
.pushsection .text, "ax"
SYM_CODE_START(ret_from_park_asm)
	/* The bottom of the stack: nothing to unwind beyond this frame. */
	UNWIND_HINT_END_OF_STACK
	ANNOTATE_NOENDBR // arch_stackmux_frame
	CALL_DEPTH_ACCOUNT

	movq	%rax, %rdi		/* prev */
	movq	%rsp, %rsi		/* regs */
	movq	%rbx, %rdx		/* argument */
	call	stackmux_ret_from_park

	/* The registers of the user are valid and complete from here on. */
	UNWIND_HINT_REGS

#ifdef CONFIG_X86_FRED
	ALTERNATIVE "jmp swapgs_restore_regs_and_return_to_usermode", \
		    "jmp asm_fred_exit_user", X86_FEATURE_FRED
#else
	jmp	swapgs_restore_regs_and_return_to_usermode
#endif
SYM_CODE_END(ret_from_park_asm)
.popsection
