// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: KUnit tests of the stack pool
 *
 * They run on one CPU with interrupts off, so this CPU's cache is theirs, and
 * restore it afterwards; other CPUs do not use the pool this early.
 */
#include <kunit/test.h>
#include <linux/magic.h>
#include <linux/sched/task_stack.h>

#include "stackmux.h"

#define MM_A	1001ULL

struct pool_test {
	unsigned int percpu_max, node_max, node_low;
};

static int pool_test_init(struct kunit *test)
{
	struct pool_test *saved;
	int ret = stackmux_start();

	if (ret)
		return ret;
	saved = kunit_kzalloc(test, sizeof(*saved), GFP_KERNEL);
	if (!saved)
		return -ENOMEM;
	saved->percpu_max = stackmux_percpu_max;
	saved->node_max = stackmux_node_max;
	saved->node_low = stackmux_node_low;
	/* Keep the workers out of the way. */
	stackmux_node_low = 0;
	stackmux_node_max = UINT_MAX;
	stackmux_refill_settle();
	test->priv = saved;
	return 0;
}

static void pool_test_exit(struct kunit *test)
{
	struct pool_test *saved = test->priv;

	if (!saved)
		return;
	stackmux_percpu_max = saved->percpu_max;
	stackmux_node_max = saved->node_max;
	stackmux_node_low = saved->node_low;
	stackmux_limits_changed();
	stackmux_refill_wake(raw_smp_processor_id());
}

/* Empties this CPU's cache and all lists into a chain. Interrupts off. */
static struct stackmux_stack *drain(unsigned int *nr)
{
	struct stackmux_stack *s, *chain = NULL;

	*nr = 0;
	while ((s = stackmux_pool_get())) {
		s->next = chain;
		chain = s;
		++*nr;
	}
	return chain;
}

static void undrain(struct stackmux_stack *chain)
{
	struct stackmux_stack *s;

	while ((s = chain)) {
		chain = s->next;
		stackmux_pool_put(s);
	}
}

static struct stackmux_stack *used_stack(struct kunit *test)
{
	struct stackmux_stack *s = stackmux_stack_create(NUMA_NO_NODE, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, s);
	/* As if a task had run on it */
	memset(s + 1, 0xcc, THREAD_SIZE - sizeof(*s));
	return stackmux_stack_idle(s->vm, MM_A);
}

static void test_create_is_clean(struct kunit *test)
{
	long before = atomic_long_read(&stackmux_nr_stacks);
	struct stackmux_stack *s = stackmux_stack_create(NUMA_NO_NODE, GFP_KERNEL);
	int tries;

	KUNIT_ASSERT_NOT_NULL(test, s);
	KUNIT_EXPECT_EQ(test, s->end_magic, (unsigned long)STACK_END_MAGIC);
	KUNIT_EXPECT_EQ(test, s->mm_id, STACKMUX_MM_CLEAN);
	KUNIT_EXPECT_NULL(test, memchr_inv(s + 1, 0, THREAD_SIZE - sizeof(*s)));
	KUNIT_EXPECT_TRUE(test, s->vm->flags & VM_STACKMUX);
	KUNIT_EXPECT_GE(test, atomic_long_read(&stackmux_max_stacks), before + 1);
	stackmux_stack_destroy(s);
	/* A worker may have made or freed some meanwhile. */
	for (tries = 0; tries < 10; tries++) {
		before = atomic_long_read(&stackmux_nr_stacks);
		s = stackmux_stack_create(NUMA_NO_NODE, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, s);
		stackmux_stack_destroy(s);
		if (atomic_long_read(&stackmux_nr_stacks) == before)
			break;
	}
	KUNIT_EXPECT_LT(test, tries, 10);
}

static void test_last_in_first_out(struct kunit *test)
{
	struct stackmux_stack *a = used_stack(test), *b = used_stack(test);
	struct stackmux_stack *first, *second, *chain;
	unsigned int nr;

	local_irq_disable();
	chain = drain(&nr);
	stackmux_pool_put(a);
	stackmux_pool_put(b);
	first = stackmux_pool_get();
	second = stackmux_pool_get();
	undrain(chain);
	local_irq_enable();

	KUNIT_EXPECT_PTR_EQ(test, first, b);
	KUNIT_EXPECT_PTR_EQ(test, second, a);
	KUNIT_EXPECT_EQ(test, a->mm_id, MM_A);
	stackmux_stack_destroy(a);
	stackmux_stack_destroy(b);
}

/*
 * A stack that need not be cleared comes first, if it is not far down; or else one that
 * nobody has used for long.
 */
static void test_own_first(struct kunit *test)
{
	struct stackmux_stack *mine[STACKMUX_LOOK + 1], *near, *far, *chain;
	const unsigned int own = STACKMUX_LOOK / 2;
	unsigned int i, nr, left;

	for (i = 0; i < ARRAY_SIZE(mine); i++)
		mine[i] = used_stack(test);
	stackmux_percpu_max = ARRAY_SIZE(mine);
	stackmux_limits_changed();
	local_irq_disable();
	chain = drain(&nr);
	for (i = 0; i < ARRAY_SIZE(mine); i++) {
		mine[i]->mm_id = i == own ? MM_A : MM_A + 1;
		stackmux_pool_put(mine[i]);
	}
	near = stackmux_pool_get_for(MM_A);
	/* Now one that is below those that are looked at. */
	mine[0]->mm_id = MM_A;
	stackmux_pool_put(near);
	near->mm_id = MM_A + 1;
	far = stackmux_pool_get_for(MM_A);
	left = this_cpu_read(stackmux_cpu.nr_idle);
	while (stackmux_pool_get())
		;
	undrain(chain);
	local_irq_enable();

	KUNIT_EXPECT_PTR_EQ(test, near, mine[own]);
	KUNIT_EXPECT_PTR_EQ(test, far, mine[1]);
	KUNIT_EXPECT_EQ(test, left, ARRAY_SIZE(mine) - 1);
	for (i = 0; i < ARRAY_SIZE(mine); i++)
		stackmux_stack_destroy(mine[i]);
}

static void test_empty_pool_gives_null(struct kunit *test)
{
	struct stackmux_stack *chain, *s;
	unsigned long idle;
	unsigned int nr;

	local_irq_disable();
	chain = drain(&nr);
	s = stackmux_pool_get();
	idle = this_cpu_read(stackmux_cpu.nr_idle);
	undrain(chain);
	local_irq_enable();

	KUNIT_EXPECT_NULL(test, s);
	KUNIT_EXPECT_EQ(test, idle, 0UL);
}

/* More than a CPU caches goes to the node's list, and comes back from there. */
static void test_overflow_to_node(struct kunit *test)
{
	const unsigned int max = 10, total = 3 * STACKMUX_BATCH + max;
	struct stackmux_stack *chain, *s, **mine;
	unsigned int i, nr, cached, listed, back = 0;

	mine = kunit_kcalloc(test, total, sizeof(*mine), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, mine);
	for (i = 0; i < total; i++)
		mine[i] = used_stack(test);

	stackmux_percpu_max = max;
	stackmux_limits_changed();
	local_irq_disable();
	chain = drain(&nr);
	for (i = 0; i < total; i++)
		stackmux_pool_put(mine[i]);
	cached = this_cpu_read(stackmux_cpu.nr_idle);
	listed = stackmux_nodes[numa_mem_id()].nr_idle;
	while (back < total && (s = stackmux_pool_get())) {
		s->mm_id = MM_A + 1;
		back++;
	}
	undrain(chain);
	local_irq_enable();

	KUNIT_EXPECT_LE(test, cached, max);
	KUNIT_EXPECT_GT(test, listed, 0U);
	KUNIT_EXPECT_EQ(test, cached + listed, total);
	KUNIT_EXPECT_EQ(test, back, total);
	for (i = 0; i < total; i++) {
		KUNIT_EXPECT_EQ(test, mine[i]->mm_id, MM_A + 1);
		stackmux_stack_destroy(mine[i]);
	}
}

static void test_shrink(struct kunit *test)
{
	long before = atomic_long_read(&stackmux_nr_stacks);
	int nid = numa_mem_id(), i;
	unsigned long freed;

	for (i = 0; i < 5; i++)
		stackmux_node_give(nid, used_stack(test));
	KUNIT_EXPECT_GE(test, stackmux_nr_idle(), 5UL);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&stackmux_nr_stacks), before + 5);
	freed = stackmux_shrink(5);
	KUNIT_EXPECT_EQ(test, freed, 5UL);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&stackmux_nr_stacks), before);
}

static void test_reserves(struct kunit *test)
{
	int cpu, i;

	for_each_online_cpu(cpu)
		for (i = 0; i < STACKMUX_RESERVES; i++)
			KUNIT_EXPECT_NOT_NULL(test, per_cpu(stackmux_cpu.reserve[i], cpu));
}

static struct kunit_case pool_test_cases[] = {
	KUNIT_CASE(test_create_is_clean),
	KUNIT_CASE(test_last_in_first_out),
	KUNIT_CASE(test_own_first),
	KUNIT_CASE(test_empty_pool_gives_null),
	KUNIT_CASE(test_overflow_to_node),
	KUNIT_CASE(test_shrink),
	KUNIT_CASE(test_reserves),
	{}
};

static struct kunit_suite pool_test_suite = {
	.name = "stackmux_pool",
	.init = pool_test_init,
	.exit = pool_test_exit,
	.test_cases = pool_test_cases,
};

kunit_test_suites(&pool_test_suite);
