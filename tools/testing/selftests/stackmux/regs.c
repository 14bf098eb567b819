// SPDX-License-Identifier: GPL-2.0
#include "regs.h"
#include "stackmux_test.h"

uint64_t regs_random(uint64_t *state)
{
	return sm_rnd(state);
}

void regs_fill(struct regs *r, uint64_t *seed)
{
	int i;

	memset(r, 0, sizeof(*r));
	for (i = 0; i < 12; i++)
		r->gp[i] = sm_rnd(seed);
	r->rcx = sm_rnd(seed);
	r->r11 = sm_rnd(seed);
	r->rax = sm_rnd(seed);
	for (i = 0; i < (int)sizeof(r->vec); i++)
		r->vec[i / 32][i % 32] = sm_rnd(seed);
	r->mxcsr = 0x1f80 | ((sm_rnd(seed) & 3) << 13);
	r->fcw = 0x037f | ((sm_rnd(seed) & 3) << 10);
	r->st0 = (double)(sm_rnd(seed) >> 20);
	r->flags = 0x202;
}

void regs_same(struct regs_diff *d, const char *what, long got, long want)
{
	if (got == want || d->what)
		return;
	d->what = what;
	d->got = got;
	d->want = want;
}

void regs_compare(struct regs_diff *d, const struct regs *in, const struct regs *out, int avx)
{
	static const char * const gp_name[] = {
		"rbx", "rbp", "r12", "r13", "r14", "r15",
		"rdi", "rsi", "rdx", "r8", "r9", "r10",
	};
	int i;

	regs_same(d, "rsp", out->rsp_moved, 0);
	for (i = 0; i < 12; i++)
		regs_same(d, gp_name[i], out->gp[i], in->gp[i]);
	regs_same(d, "mxcsr", out->mxcsr, in->mxcsr);
	regs_same(d, "fcw", out->fcw, in->fcw);
	if (memcmp(&out->st0, &in->st0, sizeof(in->st0)) && !d->what)
		d->what = "st0";
	for (i = 0; i < 16; i++)
		if (memcmp(out->vec[i], in->vec[i], avx ? 32 : 16) && !d->what)
			d->what = "vector register";
}
