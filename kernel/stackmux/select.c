// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: select() and pselect6() that park
 *
 * select() is turned into a poll of the same descriptors, and its bitmaps are made
 * from the result. It is the set of do_select(), and the end of core_sys_select().
 */
#include <linux/fdtable.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "poll.h"

/* In the order of the bitmaps */
static const __poll_t select_events[] = { POLLIN_SET, POLLOUT_SET, POLLEX_SET };

static unsigned long *select_map(struct stackmux_poll *p, int i)
{
	return p->bits + i * BITS_TO_LONGS(p->n);
}

/* Descriptors of one word of the bitmaps that are in any of them */
static unsigned long select_word(struct stackmux_poll *p, int word)
{
	unsigned long bits = select_map(p, 0)[word] | select_map(p, 1)[word] |
			     select_map(p, 2)[word];

	if (word == p->n / BITS_PER_LONG)
		bits &= BITMAP_LAST_WORD_MASK(p->n);
	return bits;
}

/* Turns the bitmaps into a set to poll. False if there is no memory for it. */
static bool stackmux_select_set(struct stackmux_poll *p)
{
	const int words = BITS_TO_LONGS(p->n);
	unsigned long bits;
	struct pollfd *pfd;
	__poll_t want;
	int word, fd, i;

	for (p->nfds = 0, word = 0; word < words; word++)
		p->nfds += hweight_long(select_word(p, word));
	if (!stackmux_poll_alloc(p))
		return false;

	pfd = stackmux_poll_set(p);
	for (word = 0; word < words; word++) {
		for (bits = select_word(p, word); bits; bits &= bits - 1) {
			fd = word * BITS_PER_LONG + __ffs(bits);
			for (want = 0, i = 0; i < 3; i++)
				if (test_bit(fd, select_map(p, i)))
					want |= select_events[i];
			pfd->fd = fd;
			pfd->events = mangle_poll(want);
			pfd++;
		}
	}
	return true;
}

/* All descriptors have to be open when the call begins. */
static bool stackmux_select_open(struct stackmux_poll *p)
{
	struct pollfd *fds = stackmux_poll_set(p);
	bool open = true;
	unsigned int i;

	rcu_read_lock();
	for (i = 0; i < p->nfds; i++)
		open = open && files_lookup_fd_raw(current->files, fds[i].fd);
	rcu_read_unlock();
	return open;
}

/*
 * Turns the result of the poll into bitmaps. Returns the number of bits set; no
 * others remain, not even above the last descriptor.
 */
static int stackmux_select_bits(struct stackmux_poll *p)
{
	struct pollfd *fds = stackmux_poll_set(p);
	unsigned int k;
	int i, n = 0;

	if (p->n % BITS_PER_LONG)
		for (i = 0; i < 3; i++)
			select_map(p, i)[p->n / BITS_PER_LONG] &= BITMAP_LAST_WORD_MASK(p->n);
	for (k = 0; k < p->nfds; k++) {
		__poll_t mask = (__force __poll_t)(u16)fds[k].revents;

		for (i = 0; i < 3; i++) {
			if (!test_bit(fds[k].fd, select_map(p, i)))
				continue;
			if (mask & select_events[i])
				n++;
			else
				__clear_bit(fds[k].fd, select_map(p, i));
		}
	}
	return n;
}

static size_t select_bytes(int n)
{
	return BITS_TO_LONGS(n) * sizeof(long);
}

/* Ends a select(): stores the results at @sets, gives the set back. */
static int stackmux_select_result(struct stackmux_poll *p,
				  unsigned long __user *const *sets, int count)
{
	int i;

	if (count >= 0) {
		count = stackmux_select_bits(p);
		for (i = 0; i < 3; i++)
			if (sets[i] && copy_to_user(sets[i], select_map(p, i),
						    select_bytes(p->n)))
				count = -EFAULT;
	}
	stackmux_poll_free(p);
	kvfree(p->bits);
	return count;
}

static long stackmux_select_resume(struct stackmux_record *rec)
{
	struct stackmux_poll *p = stackmux_poll_of(rec);
	unsigned long args[6];
	int count;
	long ret;

	if (!stackmux_poll_again(p, &count))
		return STACKMUX_REARMED;

	syscall_get_arguments(current, current_pt_regs(), args);
	ret = stackmux_select_result(p, (unsigned long __user *const *)&args[1], count);
	return poll_select_finish(&p->end_time, p->user_time, p->time_type, ret);
}

static const struct stackmux_op stackmux_select_op = {
	.name	= "select",
	.fired	= stackmux_poll_fired,
	.resume	= stackmux_select_resume,
};

/**
 * stackmux_select - select without a stack
 * @n: number of descriptors, not negative
 * @inp: user address of a bitmap, or NULL
 * @outp: likewise
 * @exp: likewise
 * @end_time: absolute deadline of CLOCK_MONOTONIC, NULL for none, 0 for now
 * @wchan: the function in which the classic call would be seen sleeping
 * @ret: what core_sys_select() is to return
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: false if the call has to be done on the stack, nothing has happened.
 */
bool stackmux_select(int n, fd_set __user *inp, fd_set __user *outp,
		     fd_set __user *exp, struct timespec64 *end_time, void *wchan, int *ret)
{
	unsigned long __user *const sets[] = {
		(void __user *)inp, (void __user *)outp, (void __user *)exp
	};
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_poll *p = stackmux_poll_of(rec);
	int i;

	if (!stackmux_poll_wanted(end_time))
		return false;

	rcu_read_lock();
	p->n = min_t(unsigned int, n, files_fdtable(current->files)->max_fds);
	rcu_read_unlock();
	if (p->n > STACKMUX_POLL_MAX)
		return false;
	p->bits = kvcalloc(3, select_bytes(p->n) ?: sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!p->bits)
		return false;

	*ret = -EFAULT;
	for (i = 0; i < 3; i++)
		if (sets[i] && copy_from_user(select_map(p, i), sets[i], select_bytes(p->n)))
			goto out_bits;
	if (!stackmux_select_set(p)) {
		kvfree(p->bits);
		return false;
	}
	*ret = -EBADF;
	if (!stackmux_select_open(p))
		goto out_fds;

	*ret = stackmux_poll_start(p, end_time);
	if (*ret) {
		stackmux_poll_end(p);
		*ret = stackmux_select_result(p, sets, *ret);
		return true;
	}
	stackmux_arm(rec, &stackmux_select_op, (unsigned long)wchan);
	*ret = STACKMUX_ARMED;
	return true;

out_fds:
	stackmux_poll_free(p);
out_bits:
	kvfree(p->bits);
	return true;
}
