/* SPDX-License-Identifier: GPL-2.0 */
/* All registers a program can see, as regs.S loads and stores them. */
#ifndef STACKMUX_REGS_H
#define STACKMUX_REGS_H

#define REGS_RCX	96
#define REGS_R11	104
#define REGS_RAX	112
#define REGS_RSP_MOVED	120
#define REGS_VEC	128
#define REGS_MXCSR	640
#define REGS_FCW	644
#define REGS_ST0	648
#define REGS_FLAGS	656

#ifndef __ASSEMBLER__

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct regs {
	/* rbx rbp r12 r13 r14 r15 rdi rsi rdx r8 r9 r10 */
	uint64_t gp[12];
	uint64_t rcx, r11, rax;
	uint64_t rsp_moved;	/* after the call - before */
	uint8_t vec[16][32];	/* ymm0 ... or xmm0 ... */
	uint32_t mxcsr;
	uint16_t fcw, pad;
	double st0;
	uint64_t flags;
};

static_assert(offsetof(struct regs, rcx) == REGS_RCX, "rcx");
static_assert(offsetof(struct regs, r11) == REGS_R11, "r11");
static_assert(offsetof(struct regs, rax) == REGS_RAX, "rax");
static_assert(offsetof(struct regs, rsp_moved) == REGS_RSP_MOVED, "rsp_moved");
static_assert(offsetof(struct regs, vec) == REGS_VEC, "vec");
static_assert(offsetof(struct regs, mxcsr) == REGS_MXCSR, "mxcsr");
static_assert(offsetof(struct regs, fcw) == REGS_FCW, "fcw");
static_assert(offsetof(struct regs, st0) == REGS_ST0, "st0");
static_assert(offsetof(struct regs, flags) == REGS_FLAGS, "flags");

/*
 * Load everything from @in, make the futex call that is in there, store
 * everything to @out. @avx: ymm instead of xmm registers.
 */
void regs_wait(const struct regs *in, struct regs *out, int avx);

/* Address of the instruction that follows the call. */
extern char regs_after_call[];

/* The same, but read the word that rdi points to in a loop until it is not 0. */
void regs_spin(const struct regs *in, struct regs *out, int avx);

/* The first instruction of that loop, and the one after it */
extern char regs_spin_loop[], regs_spin_end[];

/* FUTEX_WAIT (private) while *@uaddr is 0: one instruction makes all calls. */
long regs_plain_wait(uint32_t *uaddr);

/* The first thing that was not the same */
struct regs_diff {
	const char *what;
	long got, want;
};

uint64_t regs_random(uint64_t *state);
void regs_fill(struct regs *r, uint64_t *seed);
void regs_same(struct regs_diff *d, const char *what, long got, long want);

/* What neither a call nor a loop changes */
void regs_compare(struct regs_diff *d, const struct regs *in, const struct regs *out, int avx);

#endif /* __ASSEMBLER__ */
#endif /* STACKMUX_REGS_H */
