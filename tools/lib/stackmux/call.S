/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * long __stackmux_call(long nr, long a1, ..., long a6)
 *
 * A system call within the range of PR_STACKMUX_RETRY. Returns its result; -EAGAIN:
 * the thread has been woken and is to re-check its condition.
 */
#ifdef __x86_64__

#include <asm-generic/errno-base.h>

	.text
	.globl	__stackmux_call
	.hidden	__stackmux_call
	.type	__stackmux_call, @function
	.globl	__stackmux_range
	.hidden	__stackmux_range
	.globl	__stackmux_range_end
	.hidden	__stackmux_range_end
	.globl	__stackmux_woken
	.hidden	__stackmux_woken
__stackmux_call:
	.cfi_startproc
	endbr64
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
__stackmux_range:
	syscall
	ret
__stackmux_range_end:
__stackmux_woken:
	mov	$-EAGAIN, %rax
	ret
	.cfi_endproc
	.size	__stackmux_call, . - __stackmux_call

#endif
	.section .note.GNU-stack, "", @progbits
