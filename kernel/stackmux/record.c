// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: the park record, and whether a task may park
 */
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <asm/stackmux.h>

#include "stackmux.h"

static struct kmem_cache *stackmux_record_cache;
static atomic_long_t stackmux_records = ATOMIC_LONG_INIT(0);

/**
 * stackmux_record_init - make the cache of park records
 *
 * Context: process context, under the start mutex.
 * Return: 0 or -ENOMEM.
 */
int stackmux_record_init(void)
{
	BUILD_BUG_ON(CONFIG_NR_CPUS > U16_MAX);	/* rec->cpu */
	if (!stackmux_record_cache)
		stackmux_record_cache = KMEM_CACHE(stackmux_record, SLAB_ACCOUNT |
						   SLAB_HWCACHE_ALIGN);
	return stackmux_record_cache ? 0 : -ENOMEM;
}

/* Park records in existence. */
long stackmux_nr_records(void)
{
	return atomic_long_read(&stackmux_records);
}

/**
 * stackmux_record_new - allocate a record
 * @tsk: the task that it is for; the caller publishes it there
 * @gfp: how to allocate it
 *
 * Return: the record, or NULL.
 */
struct stackmux_record *stackmux_record_new(struct task_struct *tsk, gfp_t gfp)
{
	struct stackmux_record *rec;

	rec = kmem_cache_zalloc(stackmux_record_cache,
				gfp | __GFP_NORETRY | __GFP_NOWARN);
	if (unlikely(!rec))
		return NULL;
	atomic_long_inc(&stackmux_records);
	rec->task = tsk;
	rec->backoff = READ_ONCE(stackmux_backoff);
	return rec;
}

/**
 * stackmux_record_alloc - give current a record, as its first park does
 * @gfp: how to allocate it
 *
 * Return: false if there is none; the task blocks on its stack then.
 */
noinline bool stackmux_record_alloc(gfp_t gfp)
{
	struct stackmux_record *rec;

	if (!task_stack_vm_area(current))
		return false;
	rec = stackmux_record_new(current, gfp);
	if (!rec)
		return false;
	/* Has its stack, which was clean, seen another address space? */
	rec->mm_id = current->flags & PF_FORKNOEXEC ? arch_stackmux_mm_id(current->mm) :
						      STACKMUX_MM_UNKNOWN;
	stackmux_stack_adopt(current);
	/* Readers of /proc find a record that is complete. */
	smp_store_release(&current->stackmux, rec);
	return true;
}

/* The task is no more, so no wake source and no reader knows the record. */
void __stackmux_free_task(struct task_struct *tsk)
{
	atomic_long_dec(&stackmux_records);
	stackmux_drop_retry(tsk->stackmux);
	kmem_cache_free(stackmux_record_cache, tsk->stackmux);
	tsk->stackmux = NULL;
}

/*
 * The policy of a task has been changed. If it must not park any more it gets its stack
 * at once, not when it is woken: its wait arms again, and blocks there.
 */
void __stackmux_set_policy(struct task_struct *tsk)
{
	enum stackmux_stack_state state = READ_ONCE(tsk->stackmux_stack);

	if (!rt_or_dl_prio(READ_ONCE(tsk->normal_prio)))
		return;
	if (state == STACKMUX_PARKED || state == STACKMUX_LINGERING)
		wake_up_state(tsk, TASK_INTERRUPTIBLE);
	if (state == STACKMUX_PARKED)
		__stackmux_hurry(tsk);
}

bool __stackmux_may_park(void)
{
	struct stackmux_record *rec = current->stackmux;

	if (likely(rec) && stackmux_wait_in_place(rec))
		return false;
	return stackmux_task_may_park(current) &&
	       (likely(rec) || stackmux_record_alloc(GFP_KERNEL));
}
