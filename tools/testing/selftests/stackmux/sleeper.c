// SPDX-License-Identifier: GPL-2.0
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include "sleeper.h"

#define CLONE_SLEEPER	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | \
			 CLONE_THREAD | CLONE_SYSVSEM)

void sm_sleepers_init(struct sm_sleepers *s)
{
	*s = (struct sm_sleepers){
		.call = __NR_futex,
		.arg = { (long)&s->futex, FUTEX_WAIT_PRIVATE },
	};
}

/* The child keeps what it needs in registers that calls leave alone. */
long sm_sleeper(struct sm_sleepers *s, long arg1, struct sm_slot *slot)
{
	register uint32_t *r10 asm("r10") = slot ? &slot->tid : NULL;
	register long r8 asm("r8") = 0;
	register struct sm_sleepers *r12 asm("r12") = s;
	register struct sm_slot *r13 asm("r13") = slot;
	register long r14 asm("r14") = arg1;
	long flags = CLONE_SLEEPER, ret;

	if (slot) {
		flags |= CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
		slot->ret = SM_SLOT_ASLEEP;
	}
	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 9f\n\t"
		     /* the child */
		     "lock incl %c[entered](%%r12)\n"
		     "1:\n\t"
		     "mov %%r14, %%rdi\n\t"
		     "mov %c[arg]+8(%%r12), %%rsi\n\t"
		     "mov %c[arg]+16(%%r12), %%rdx\n\t"
		     "mov %c[arg]+24(%%r12), %%r10\n\t"
		     "mov %c[arg]+32(%%r12), %%r8\n\t"
		     "mov %c[arg]+40(%%r12), %%r9\n\t"
		     "mov %c[call](%%r12), %%rax\n\t"
		     "syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jz 2f\n\t"
		     "lock incl %c[failed](%%r12)\n"
		     "2:\n\t"
		     "xor %%r14d, %%r14d\n\t"
		     "test %%r13, %%r13\n\t"
		     "jz 3f\n\t"
		     "mov %%rax, %c[ret](%%r13)\n\t"
		     "rdtsc\n\t"
		     "mov %%eax, %c[tsc](%%r13)\n\t"
		     "mov %%edx, %c[tsc]+4(%%r13)\n\t"
		     "mov %c[again](%%r13), %%r14\n\t"
		     "xor %%r13d, %%r13d\n"
		     "3:\n\t"
		     "lock incl %c[returned](%%r12)\n\t"
		     "test %%r14, %%r14\n\t"
		     "jnz 1b\n\t"
		     "xor %%edi, %%edi\n\t"
		     "mov %[nr_exit], %%eax\n\t"
		     "syscall\n\t"
		     "ud2\n"
		     "9:"
		     : "=a" (ret)
		     : "0" ((long)__NR_clone), "D" (flags),
		       "S" (slot ? slot->stack + sizeof(slot->stack) : NULL),
		       "d" (r10), "r" (r10), "r" (r8), "r" (r12), "r" (r13), "r" (r14),
		       [call] "i" (offsetof(struct sm_sleepers, call)),
		       [arg] "i" (offsetof(struct sm_sleepers, arg)),
		       [entered] "i" (offsetof(struct sm_sleepers, entered)),
		       [returned] "i" (offsetof(struct sm_sleepers, returned)),
		       [failed] "i" (offsetof(struct sm_sleepers, failed)),
		       [ret] "i" (offsetof(struct sm_slot, ret)),
		       [tsc] "i" (offsetof(struct sm_slot, woken_tsc)),
		       [again] "i" (offsetof(struct sm_slot, again)),
		       [nr_exit] "i" (__NR_exit)
		     : "rcx", "r9", "r11", "cc", "memory");
	return ret;
}
