// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: poll(), ppoll(), select() and pselect6() that park
 *
 * The loop of do_poll() with its set, its wait queue entries and its timer off
 * the stack. select() is turned into a poll of the same descriptors, and its
 * bitmaps are made from the result. The set is read from user memory once.
 *
 * A file that calls sets @triggered and then wakes; the task clears it before
 * it asks the files, so a call that comes while it asks is seen by fired().
 */
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/ptrace.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>
#include <net/busy_poll.h>

#include "stackmux.h"
#include "ops.h"

/* What select() waits for, and what counts: as in fs/select.c */
#define SELECT_IN	(EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | \
			 EPOLLERR | EPOLLNVAL)
#define SELECT_OUT	(EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR | \
			 EPOLLNVAL)
#define SELECT_EX	(EPOLLPRI | EPOLLNVAL)

static int stackmux_poll_wake(wait_queue_entry_t *wait, unsigned int mode,
			      int sync, void *key)
{
	struct stackmux_poll_entry *entry =
		container_of(wait, struct stackmux_poll_entry, wait);
	struct task_struct *tsk = wait->private;

	if (key && !(key_to_poll(key) & entry->key))
		return 0;
	/* Before the task is woken, which is a full barrier if it sleeps */
	WRITE_ONCE(tsk->stackmux->poll.triggered, true);
	return default_wake_function(wait, mode, sync, key);
}

/*
 * Room for one place in a wait queue for each descriptor that has none yet. Most
 * files have one queue; for those that have several, or for big sets, there may
 * be need for more room later.
 */
static struct stackmux_poll_more *stackmux_poll_get_more(struct stackmux_poll *p)
{
	const unsigned int few = 4, most = (PAGE_SIZE - sizeof(struct stackmux_poll_more)) /
					   sizeof(struct stackmux_poll_entry);
	struct stackmux_poll_more *more;
	unsigned int max;

	max = p->nfds > p->nr_entries ? min(p->nfds - p->nr_entries, most) : few;
	more = kmalloc(struct_size(more, entries, max), GFP_KERNEL);
	if (!more)
		return NULL;
	more->next = p->more;
	more->nr = 0;
	more->max = max;
	p->more = more;
	return more;
}

static struct stackmux_poll_entry *stackmux_poll_get_entry(struct stackmux_poll *p)
{
	struct stackmux_poll_more *more = p->more;

	if (!p->nr_entries)
		return &p->entry;
	if (!more || more->nr == more->max) {
		more = stackmux_poll_get_more(p);
		if (!more)
			return NULL;
	}
	return &more->entries[more->nr++];
}

static void stackmux_poll_queue(struct file *file, struct wait_queue_head *wq,
				poll_table *pt)
{
	struct stackmux_record *rec = container_of(pt, struct stackmux_record, poll.pt);
	struct stackmux_poll_entry *entry = stackmux_poll_get_entry(&rec->poll);

	if (!entry) {
		rec->poll.nomem = true;
		return;
	}
	rec->poll.nr_entries++;
	entry->file = get_file(file);
	entry->wq = wq;
	entry->key = pt->_key;
	init_waitqueue_func_entry(&entry->wait, stackmux_poll_wake);
	entry->wait.private = rec->task;
	add_wait_queue(wq, &entry->wait);
}

static void stackmux_poll_put_entry(struct stackmux_poll_entry *entry)
{
	remove_wait_queue(entry->wq, &entry->wait);
	fput(entry->file);
}

static void stackmux_poll_unqueue(struct stackmux_poll *p)
{
	struct stackmux_poll_more *more;

	if (p->nr_entries)
		stackmux_poll_put_entry(&p->entry);
	p->nr_entries = 0;
	while ((more = p->more)) {
		while (more->nr)
			stackmux_poll_put_entry(&more->entries[--more->nr]);
		p->more = more->next;
		kfree(more);
	}
}

static struct pollfd *stackmux_poll_set(struct stackmux_poll *p)
{
	return p->nfds > 1 ? p->set : &p->one;
}

/* Asks one file, and with a queue function in @pt has it call when it is ready. */
static bool stackmux_poll_fd(struct pollfd *pfd, poll_table *pt)
{
	__poll_t mask = 0, want = (__force __poll_t)(u16)pfd->events;
	struct fd f;

	if (pfd->fd >= 0) {
		f = fdget(pfd->fd);
		mask = EPOLLNVAL;
		if (fd_file(f)) {
			pt->_key = want;
			mask = vfs_poll(fd_file(f), pt) & want;
			fdput(f);
		}
	}
	pfd->revents = mangle_poll(mask);
	return mask;
}

/* Asks all of them. Returns how many are ready, or an error, or 0. */
static int stackmux_poll_scan(struct stackmux_poll *p)
{
	struct pollfd *fds = stackmux_poll_set(p);
	unsigned int i;
	int count = 0;

	for (i = 0; i < p->nfds; i++) {
		if (stackmux_poll_fd(&fds[i], &p->pt)) {
			count++;
			/* Nobody is going to wait. */
			p->pt._qproc = NULL;
		}
	}
	p->pt._qproc = NULL;
	if (!count && unlikely(p->nomem))
		count = -ENOMEM;
	if (!count && signal_pending(current))
		count = -ERESTARTNOHAND;
	return count;
}

/* The set is there: ask all files, be called by them. Returns as scan does. */
static int stackmux_poll_start(struct stackmux_poll *p, struct timespec64 *end_time)
{
	int count;

	init_poll_funcptr(&p->pt, stackmux_poll_queue);
	p->nr_entries = 0;
	p->more = NULL;
	p->nomem = false;
	p->triggered = false;
	p->finish = false;
	p->timeout.set = false;

	count = stackmux_poll_scan(p);
	if (count || !end_time)
		return count;

	p->end_time = *end_time;
	stackmux_timer_start(&p->timeout, CLOCK_MONOTONIC,
			     timespec64_to_ktime(*end_time),
			     select_estimate_accuracy(end_time), HRTIMER_MODE_ABS);
	return 0;
}

static void stackmux_poll_end(struct stackmux_poll *p)
{
	stackmux_timer_cancel(&p->timeout);
	stackmux_poll_unqueue(p);
}

/* Returns true when the wait is over. */
static bool __stackmux_poll_resume(struct stackmux_poll *p, int *count)
{
	bool timed_out = stackmux_timer_fired(&p->timeout);

	/* Orders it before what the files say now */
	smp_store_mb(p->triggered, false);
	*count = stackmux_poll_scan(p);
	if (!*count && !timed_out)
		return false;
	stackmux_poll_end(p);
	return true;
}

static bool stackmux_poll_wanted(struct timespec64 *end_time)
{
	/* Spinning on a device needs a stack, not waiting at all no park. */
	return !net_busy_loop_on() &&
	       !(end_time && !end_time->tv_sec && !end_time->tv_nsec);
}

/* Memory for @p->nfds elements */
static bool stackmux_poll_alloc(struct stackmux_poll *p)
{
	if (p->nfds <= 1)
		return true;
	p->set = kvmalloc_array(p->nfds, sizeof(*p->set), GFP_KERNEL);
	return p->set;
}

static void stackmux_poll_free(struct stackmux_poll *p)
{
	if (p->nfds > 1)
		kvfree(p->set);
}

/* Ends a poll(): stores the results, gives the set back. */
static int stackmux_poll_result(struct stackmux_poll *p, int count)
{
	struct pollfd __user *ufds = p->ufds;
	struct pollfd *fds = stackmux_poll_set(p);
	unsigned int i;

	if (user_write_access_begin(ufds, p->nfds * sizeof(*ufds))) {
		for (i = 0; i < p->nfds; i++)
			unsafe_put_user(fds[i].revents, &ufds[i].revents, efault);
		user_write_access_end();
	} else {
		count = -EFAULT;
	}
	stackmux_poll_free(p);
	return count;

efault:
	user_write_access_end();
	stackmux_poll_free(p);
	return -EFAULT;
}

/**
 * stackmux_poll - poll without a stack
 * @ufds: user address of the set
 * @nfds: its size, not more than RLIMIT_NOFILE
 * @end_time: absolute deadline of CLOCK_MONOTONIC, NULL for none, 0 for now
 * @ret: what do_sys_poll() is to return
 *
 * Context: outermost level of a system call for which stackmux_may_park().
 * Return: false if the call has to be done on the stack, nothing has happened.
 */
bool stackmux_poll(struct pollfd __user *ufds, unsigned int nfds,
		   struct timespec64 *end_time, int *ret)
{
	struct stackmux_record *rec = stackmux_claim(STACKMUX_OP_POLL);
	struct stackmux_poll *p = &rec->poll;
	struct pollfd *fds;
	unsigned int i;

	if (!stackmux_poll_wanted(end_time))
		return false;
	p->nfds = nfds;
	if (!stackmux_poll_alloc(p))
		return false;

	p->ufds = ufds;
	fds = stackmux_poll_set(p);
	if (copy_from_user(fds, ufds, nfds * sizeof(*ufds))) {
		stackmux_poll_free(p);
		*ret = -EFAULT;
		return true;
	}
	for (i = 0; i < nfds; i++)
		fds[i].events |= POLLERR | POLLHUP;

	*ret = stackmux_poll_start(p, end_time);
	if (*ret) {
		stackmux_poll_end(p);
		*ret = stackmux_poll_result(p, *ret);
		return true;
	}
	stackmux_arm_at(rec, STACKMUX_OP_POLL, _RET_IP_);
	/* Who looks itself at what it waited for spares the files the question. */
	while (!rec->retry && stackmux_stay_armed(rec)) {
		if (__stackmux_poll_resume(p, ret)) {
			*ret = stackmux_poll_result(p, *ret);
			return true;
		}
	}
	*ret = STACKMUX_ARMED;
	return true;
}

/**
 * stackmux_poll_finish_later - poll_select_finish() at the end of the wait
 * @p: user address for the time that is left, or NULL
 * @type: enum poll_time_type
 *
 * For ppoll(), select() and pselect6(), after they have armed.
 * Return: STACKMUX_ARMED.
 */
int stackmux_poll_finish_later(void __user *p, int type)
{
	struct stackmux_poll *poll = &current->stackmux->poll;

	poll->finish = true;
	poll->user_time = p;
	poll->time_type = type;
	return STACKMUX_ARMED;
}

bool stackmux_poll_fired(struct stackmux_record *rec)
{
	return READ_ONCE(rec->poll.triggered) ||
	       stackmux_timer_fired(&rec->poll.timeout);
}

static long stackmux_poll_set_restart(struct stackmux_poll *p)
{
	struct restart_block *restart = &current->restart_block;

	restart->poll.ufds = p->ufds;
	restart->poll.nfds = p->nfds;
	restart->poll.has_timeout = p->timeout.set;
	if (p->timeout.set) {
		restart->poll.tv_sec = p->end_time.tv_sec;
		restart->poll.tv_nsec = p->end_time.tv_nsec;
	}
	return set_restart_fn(restart, stackmux_poll_restart);
}

long stackmux_poll_resume(struct stackmux_record *rec)
{
	struct stackmux_poll *p = &rec->poll;
	int count;
	long ret;

	if (!__stackmux_poll_resume(p, &count))
		return STACKMUX_ARMED;

	ret = stackmux_poll_result(p, count);
	if (p->finish)
		ret = stackmux_poll_select_finish(&p->end_time, p->user_time,
						  p->time_type, ret);
	else if (ret == -ERESTARTNOHAND)
		ret = stackmux_poll_set_restart(p);
	return ret;
}

/* A file has called: the task is going to ask it. */
bool stackmux_poll_give_up(struct stackmux_record *rec)
{
	struct stackmux_poll *p = &rec->poll;

	if (!READ_ONCE(p->triggered))
		return false;
	stackmux_poll_end(p);
	stackmux_poll_free(p);
	/* The time that is left is a result, too; the signal mask is not. */
	if (p->finish)
		stackmux_poll_select_finish(&p->end_time, NULL, p->time_type, 1);
	return true;
}

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
	const __poll_t events[] = { SELECT_IN, SELECT_OUT, SELECT_EX };
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
					want |= events[i];
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
	const __poll_t events[] = { SELECT_IN, SELECT_OUT, SELECT_EX };
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
			if (mask & events[i])
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
	struct stackmux_poll *p = &stackmux_claim(STACKMUX_OP_SELECT)->poll;
	int i;

	if (!stackmux_poll_wanted(end_time))
		return false;

	rcu_read_lock();
	p->n = min_t(unsigned int, n, files_fdtable(current->files)->max_fds);
	rcu_read_unlock();
	p->bits = kvcalloc(3, select_bytes(p->n) ?: sizeof(long), GFP_KERNEL);
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
	stackmux_arm_at(current->stackmux, STACKMUX_OP_SELECT, (unsigned long)wchan);
	*ret = STACKMUX_ARMED;
	return true;

out_fds:
	stackmux_poll_free(p);
out_bits:
	kvfree(p->bits);
	return true;
}

long stackmux_select_resume(struct stackmux_record *rec)
{
	struct stackmux_poll *p = &rec->poll;
	unsigned long args[6];
	int count;
	long ret;

	if (!__stackmux_poll_resume(p, &count))
		return STACKMUX_ARMED;

	syscall_get_arguments(current, current_pt_regs(), args);
	ret = stackmux_select_result(p, (unsigned long __user *const *)&args[1], count);
	return stackmux_poll_select_finish(&p->end_time, p->user_time,
					   p->time_type, ret);
}
