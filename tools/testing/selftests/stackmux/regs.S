/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A futex call, or a loop, with known values in all registers. The pointers and the
 * value that rsp had stay on the stack meanwhile.
 */
#include <asm/unistd.h>
#include "regs.h"

	.macro	for_16_regs insn:req, reg:req, base:req, to_memory:req
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.if	\to_memory
	\insn	%\reg\n, REGS_VEC + 32 * \n(%\base)
	.else
	\insn	REGS_VEC + 32 * \n(%\base), %\reg\n
	.endif
	.endr
	.endm

	/* regs_*(in: %rdi, out: %rsi, avx: %edx): all but rdi, rax, rcx and r11 */
	.macro	load_registers
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx			/* 16(%rsp): avx */
	push	%rsi			/* 8(%rsp): out */
	push	%rdi

	fninit
	fldcw	REGS_FCW(%rdi)
	fldl	REGS_ST0(%rdi)
	ldmxcsr	REGS_MXCSR(%rdi)
	test	%edx, %edx
	jz	.Lsse\@
	for_16_regs vmovdqu, ymm, rdi, 0
	jmp	.Lrest\@
.Lsse\@:
	for_16_regs movdqu, xmm, rdi, 0
.Lrest\@:
	mov	(%rdi), %rbx
	mov	8(%rdi), %rbp
	mov	16(%rdi), %r12
	mov	24(%rdi), %r13
	mov	32(%rdi), %r14
	mov	40(%rdi), %r15
	mov	56(%rdi), %rsi
	mov	64(%rdi), %rdx
	mov	72(%rdi), %r8
	mov	80(%rdi), %r9
	mov	88(%rdi), %r10
	pushq	REGS_FLAGS(%rdi)
	popfq
	.endm

	.text
	.globl	regs_wait
	.type	regs_wait, @function
regs_wait:
	load_registers
	mov	48(%rdi), %rdi
	mov	$__NR_futex, %eax
	mov	%rsp, -8(%rsp)		/* in the red zone, as below */
	syscall
	.globl	regs_after_call
regs_after_call:
	mov	%rax, -16(%rsp)
	mov	8(%rsp), %rax
	mov	%rbx, (%rax)
	mov	%rbp, 8(%rax)
	mov	%r12, 16(%rax)
	mov	%r13, 24(%rax)
	mov	%r14, 32(%rax)
	mov	%r15, 40(%rax)
	mov	%rdi, 48(%rax)
	mov	%rsi, 56(%rax)
	mov	%rdx, 64(%rax)
	mov	%r8, 72(%rax)
	mov	%r9, 80(%rax)
	mov	%r10, 88(%rax)
	mov	%rcx, REGS_RCX(%rax)
	mov	%r11, REGS_R11(%rax)
	mov	-16(%rsp), %rcx
	mov	%rcx, REGS_RAX(%rax)
	mov	-8(%rsp), %rcx
	pushfq				/* before anything changes them */
	popq	REGS_FLAGS(%rax)
	neg	%rcx
	add	%rsp, %rcx
	mov	%rcx, REGS_RSP_MOVED(%rax)
	stmxcsr	REGS_MXCSR(%rax)
	fnstcw	REGS_FCW(%rax)
	fstpl	REGS_ST0(%rax)
	cmpl	$0, 16(%rsp)
	je	1f
	for_16_regs vmovdqu, ymm, rax, 1
	vzeroupper
	jmp	2f
1:	for_16_regs movdqu, xmm, rax, 1
2:
	/* Back to what C code expects. */
	pushq	$0x202
	popfq
	fninit
	movl	$0x1f80, -4(%rsp)
	ldmxcsr	-4(%rsp)
	add	$24, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.size	regs_wait, . - regs_wait

	.globl	regs_spin
	.type	regs_spin, @function
regs_spin:
	load_registers
	mov	REGS_RCX(%rdi), %rcx
	mov	REGS_R11(%rdi), %r11
	mov	REGS_RAX(%rdi), %rax
	mov	48(%rdi), %rdi
	mov	%rsp, -8(%rsp)
	.globl	regs_spin_loop
regs_spin_loop:
	pause
	cmpl	$0, (%rdi)
	je	regs_spin_loop
	.globl	regs_spin_end
regs_spin_end:
	jmp	regs_after_call
	.size	regs_spin, . - regs_spin

	.globl	regs_plain_wait
	.type	regs_plain_wait, @function
regs_plain_wait:
	mov	$128, %esi		/* FUTEX_WAIT | FUTEX_PRIVATE_FLAG */
	xor	%edx, %edx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	mov	$__NR_futex, %eax
	syscall
	ret
	.size	regs_plain_wait, . - regs_plain_wait

	.section .note.GNU-stack, "", @progbits
