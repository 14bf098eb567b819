// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: poll() and ppoll() that park, and what select() has in common with them
 *
 * The loop of do_poll() with its set, its wait queue entries and its timer off
 * the stack. The set is read from user memory once.
 *
 * A file that calls sets @triggered and then wakes; the task clears it before
 * it asks the files, so a call that comes while it asks is seen by fired().
 */
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <net/busy_poll.h>

#include "poll.h"

static int stackmux_poll_wake(wait_queue_entry_t *wait, unsigned int mode,
			      int sync, void *key)
{
	struct stackmux_poll_entry *entry =
		container_of(wait, struct stackmux_poll_entry, wait);
	struct task_struct *tsk = wait->private;

	if (key && !(key_to_poll(key) & entry->key))
		return 0;
	/* Before the task is woken, which is a full barrier if it sleeps */
	WRITE_ONCE(stackmux_poll_of(tsk->stackmux)->triggered, true);
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
	more = kmalloc(struct_size(more, entries, max), GFP_KERNEL_ACCOUNT);
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
	struct stackmux_poll *p = container_of(pt, struct stackmux_poll, pt);
	struct stackmux_poll_entry *entry = stackmux_poll_get_entry(p);

	if (!entry) {
		p->nomem = true;
		return;
	}
	p->nr_entries++;
	entry->file = get_file(file);
	entry->wq = wq;
	entry->key = pt->_key;
	init_waitqueue_func_entry(&entry->wait, stackmux_poll_wake);
	entry->wait.private = current;
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

/* Asks one file, and with a queue function in @pt has it call when it is ready. */
static bool stackmux_poll_fd(struct pollfd *pfd, poll_table *pt)
{
	__poll_t mask = 0, want = demangle_poll(pfd->events);
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
int stackmux_poll_start(struct stackmux_poll *p, struct timespec64 *end_time)
{
	int count;

	init_poll_funcptr(&p->pt, stackmux_poll_queue);
	p->nr_entries = 0;
	p->more = NULL;
	p->nomem = false;
	p->triggered = false;
	p->finish = false;
	stackmux_timer_none(&p->timeout);

	count = stackmux_poll_scan(p);
	if (count || !end_time)
		return count;

	p->end_time = *end_time;
	stackmux_timer_start(&p->timeout, CLOCK_MONOTONIC,
			     timespec64_to_ktime(*end_time),
			     select_estimate_accuracy(end_time), HRTIMER_MODE_ABS);
	return 0;
}

/* Takes all wake sources down. */
void stackmux_poll_end(struct stackmux_poll *p)
{
	stackmux_timer_cancel(&p->timeout);
	stackmux_poll_unqueue(p);
}

/* After a wake-up: returns true when the wait is over, with the result of the scan. */
bool stackmux_poll_again(struct stackmux_poll *p, int *count)
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

bool stackmux_poll_wanted(struct timespec64 *end_time)
{
	/* Spinning on a device needs a stack, not waiting at all no park. */
	return !net_busy_loop_on() &&
	       !(end_time && !end_time->tv_sec && !end_time->tv_nsec);
}

/*
 * Memory for @p->nfds elements. Nothing big is allocated before user memory has been
 * read: such a set is left to the classic call, which allocates page by page.
 */
bool stackmux_poll_alloc(struct stackmux_poll *p)
{
	if (p->nfds <= 1)
		return true;
	if (p->nfds > STACKMUX_POLL_MAX)
		return false;
	p->set = kvmalloc_array(p->nfds, sizeof(*p->set), GFP_KERNEL_ACCOUNT);
	return p->set;
}

void stackmux_poll_free(struct stackmux_poll *p)
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

bool stackmux_poll_fired(struct stackmux_record *rec)
{
	struct stackmux_poll *p = stackmux_poll_of(rec);

	return READ_ONCE(p->triggered) || stackmux_timer_fired(&p->timeout);
}

static long stackmux_poll_set_restart(struct stackmux_poll *p)
{
	struct restart_block *restart = &current->restart_block;

	restart->poll.ufds = p->ufds;
	restart->poll.nfds = p->nfds;
	restart->poll.has_timeout = stackmux_timer_is_set(&p->timeout);
	if (stackmux_timer_is_set(&p->timeout)) {
		restart->poll.tv_sec = p->end_time.tv_sec;
		restart->poll.tv_nsec = p->end_time.tv_nsec;
	}
	return set_restart_fn(restart, do_restart_poll);
}

static long stackmux_poll_resume(struct stackmux_record *rec)
{
	struct stackmux_poll *p = stackmux_poll_of(rec);
	int count;
	long ret;

	if (!stackmux_poll_again(p, &count))
		return STACKMUX_REARMED;

	ret = stackmux_poll_result(p, count);
	if (p->finish)
		ret = poll_select_finish(&p->end_time, p->user_time, p->time_type, ret);
	else if (ret == -ERESTARTNOHAND)
		ret = stackmux_poll_set_restart(p);
	return ret;
}

/* A file has called: the task is going to ask it. */
static bool stackmux_poll_cancel(struct stackmux_record *rec)
{
	struct stackmux_poll *p = stackmux_poll_of(rec);

	if (!READ_ONCE(p->triggered))
		return false;
	stackmux_poll_end(p);
	stackmux_poll_free(p);
	/* The time that is left is a result, too; the signal mask is not. */
	if (p->finish)
		poll_select_finish(&p->end_time, NULL, p->time_type, 1);
	return true;
}

static const struct stackmux_op stackmux_poll_op = {
	.name	= "poll",
	.fired	= stackmux_poll_fired,
	.resume	= stackmux_poll_resume,
	.cancel	= stackmux_poll_cancel,
};

/* The set, from user memory. What is in the record is no target of copy_from_user(). */
static bool stackmux_poll_read(struct pollfd *fds, struct pollfd __user *ufds,
			       unsigned int nfds)
{
	struct pollfd one;

	if (nfds != 1)
		return !copy_from_user(fds, ufds, nfds * sizeof(*ufds));
	if (copy_from_user(&one, ufds, sizeof(one)))
		return false;
	*fds = one;
	return true;
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
	struct stackmux_record *rec = current->stackmux;
	struct stackmux_poll *p = stackmux_poll_of(rec);
	struct pollfd *fds;
	unsigned int i;

	if (!stackmux_poll_wanted(end_time))
		return false;
	p->nfds = nfds;
	if (!stackmux_poll_alloc(p))
		return false;

	p->ufds = ufds;
	fds = stackmux_poll_set(p);
	if (!stackmux_poll_read(fds, ufds, nfds)) {
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
	stackmux_arm(rec, &stackmux_poll_op, _RET_IP_);
	*ret = STACKMUX_ARMED;
	return true;
}

/**
 * stackmux_poll_finish_later - poll_select_finish() at the end of the wait
 * @p: user address for the time that is left, or NULL
 * @type: what is there
 *
 * For ppoll(), select() and pselect6(), after they have armed.
 * Return: STACKMUX_ARMED.
 */
int stackmux_poll_finish_later(void __user *p, enum poll_time_type type)
{
	struct stackmux_poll *poll = stackmux_poll_of(current->stackmux);

	poll->finish = true;
	poll->user_time = p;
	poll->time_type = type;
	return STACKMUX_ARMED;
}
