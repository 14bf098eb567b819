// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: one stack: created, accounted, charged, destroyed
 *
 * A stack that the pool owns carries VM_STACKMUX in its vm_struct. It counts
 * as KernelStack from its creation to its end, idle or not. It stays charged to
 * the memory cgroup of the task that used it last, through an obj_cgroup, which
 * does not keep a dead cgroup alive; the next user that is in another group charges it
 * to that.
 */
#include <linux/magic.h>
#include <linux/memcontrol.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>

#include "stackmux.h"

atomic_long_t stackmux_nr_stacks = ATOMIC_LONG_INIT(0);
atomic_long_t stackmux_max_stacks = ATOMIC_LONG_INIT(0);

static void stackmux_account(struct vm_struct *vm, int sign)
{
	unsigned int i;

	for (i = 0; i < STACKMUX_PAGES; i++)
		mod_lruvec_page_state(vm->pages[i], NR_KERNEL_STACK_KB,
				      sign * (int)(PAGE_SIZE / 1024));
}

static void stackmux_count_stack(void)
{
	long nr = atomic_long_inc_return(&stackmux_nr_stacks);
	long max = atomic_long_read(&stackmux_max_stacks);

	while (nr > max && !atomic_long_try_cmpxchg(&stackmux_max_stacks, &max, nr))
		;
}

#ifdef CONFIG_MEMCG
/**
 * stackmux_charged_to_current - is the stack charged to whom it should be?
 * @vm: a pool stack that current owns
 *
 * Context: process context.
 */
bool stackmux_charged_to_current(struct vm_struct *vm)
{
	struct folio *folio = page_folio(vm->pages[0]);
	struct obj_cgroup *objcg = NULL;

	if (!memcg_kmem_online())
		return true;
	if (folio_memcg_kmem(folio))
		objcg = __folio_objcg(folio);
	return objcg == current_obj_cgroup();
}

/**
 * stackmux_over_limit - has the group of current, or one above it, more than it may?
 *
 * Context: process context.
 */
bool stackmux_over_limit(void)
{
	struct mem_cgroup *memcg;
	bool over = false;

	rcu_read_lock();
	for (memcg = mem_cgroup_from_task(current); memcg && !mem_cgroup_is_root(memcg);
	     memcg = parent_mem_cgroup(memcg))
		if (page_counter_read(&memcg->memory) > READ_ONCE(memcg->memory.max))
			over = true;
	rcu_read_unlock();
	return over;
}

/**
 * stackmux_make_up - the stack of current was charged by force: make up for it
 *
 * One charge of the same size that may wait: the group reclaims, or its own OOM killer
 * runs, as if the stack had been charged in this way.
 *
 * Context: process context, on the way to user mode; no locks.
 */
void stackmux_make_up(void)
{
	struct obj_cgroup *objcg = get_obj_cgroup_from_current();

	if (!objcg)
		return;
	if (!obj_cgroup_charge(objcg, GFP_KERNEL, THREAD_SIZE))
		obj_cgroup_uncharge(objcg, THREAD_SIZE);
	obj_cgroup_put(objcg);
}
#else
bool stackmux_charged_to_current(struct vm_struct *vm)
{
	return true;
}

bool stackmux_over_limit(void)
{
	return false;
}

void stackmux_make_up(void) { }
#endif

/**
 * stackmux_recharge - charge a stack to the memory cgroup of current
 * @vm: a pool stack that current owns
 * @gfp: how hard to try
 *
 * Context: process context.
 * Return: 0, or -ENOMEM with the stack charged to nobody.
 */
int stackmux_recharge(struct vm_struct *vm, gfp_t gfp)
{
	unsigned int i;
	int ret = 0;

	stackmux_account(vm, -1);
	for (i = 0; i < STACKMUX_PAGES; i++)
		memcg_kmem_uncharge_page(vm->pages[i], 0);

	for (i = 0; i < STACKMUX_PAGES; i++) {
		ret = memcg_kmem_charge_page(vm->pages[i], gfp, 0);
		if (ret)
			break;
	}
	if (ret)
		while (i--)
			memcg_kmem_uncharge_page(vm->pages[i], 0);
	stackmux_account(vm, 1);
	return ret;
}

#ifdef CONFIG_STACKMUX_DEBUG
#define STACKMUX_POISON		0x5a

/* Nothing on an idle stack may matter to anybody: make a mess of it. */
void stackmux_stack_poison(struct stackmux_stack *s)
{
	WARN_ON_ONCE(s->end_magic != STACK_END_MAGIC);
	memset(s + 1, STACKMUX_POISON, THREAD_SIZE - sizeof(*s));
}

/* Has anybody written to it since? It is about to be handed out. */
void stackmux_stack_check(struct stackmux_stack *s)
{
	int fill = s->mm_id == STACKMUX_MM_CLEAN ? 0 : STACKMUX_POISON;

	WARN_ONCE(s->end_magic != STACK_END_MAGIC,
		  "stackmux: end of stack overwritten\n");
	WARN_ONCE(memchr_inv(s + 1, fill, THREAD_SIZE - sizeof(*s)),
		  "stackmux: somebody wrote to an idle stack\n");
}
#endif

/**
 * stackmux_stack_create - allocate a stack
 * @nid: preferred memory node
 * @gfp: how hard to try
 *
 * Context: process context.
 * Return: a stack full of zeroes, charged to nobody, or NULL.
 */
struct stackmux_stack *stackmux_stack_create(int nid, gfp_t gfp)
{
	struct stackmux_stack *s;
	struct vm_struct *vm;
	void *addr;

	addr = __vmalloc_node_range(THREAD_SIZE, THREAD_ALIGN,
				    VMALLOC_START, VMALLOC_END,
				    gfp | __GFP_ZERO, PAGE_KERNEL, 0, nid,
				    __builtin_return_address(0));
	if (!addr)
		return NULL;

	vm = find_vm_area(addr);
	vm->flags |= VM_STACKMUX;
	stackmux_account(vm, 1);
	stackmux_count_stack();

	s = kasan_reset_tag(addr);
	s->end_magic = STACK_END_MAGIC;
	s->vm = vm;
	s->mm_id = STACKMUX_MM_CLEAN;
	return s;
}

/**
 * stackmux_stack_destroy - free an idle stack
 * @s: the stack, in no cache and no list
 *
 * Context: process context.
 */
void stackmux_stack_destroy(struct stackmux_stack *s)
{
	struct vm_struct *vm = s->vm;
	unsigned int i;

	stackmux_stack_check(s);
	stackmux_account(vm, -1);
	for (i = 0; i < STACKMUX_PAGES; i++)
		memcg_kmem_uncharge_page(vm->pages[i], 0);
	atomic_long_dec(&stackmux_nr_stacks);
	vfree(vm->addr);
}

/**
 * stackmux_stack_adopt - make the pool the owner of a task's classic stack
 * @tsk: current
 *
 * Such a stack is accounted and charged exactly as the pool does it.
 */
void stackmux_stack_adopt(struct task_struct *tsk)
{
	struct vm_struct *vm = task_stack_vm_area(tsk);

	if (vm->flags & VM_STACKMUX)
		return;
	vm->flags |= VM_STACKMUX;
	stackmux_count_stack();
}

