// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: counters and knobs in debugfs
 *
 * /sys/kernel/debug/stackmux/
 *	stats		counters, one "name value" a line
 *	linger		0: take the stack at each park, not at the next one of the CPU
 *	percpu_max	idle stacks that a CPU caches
 *	node_max	idle stacks that a node's list holds before it is trimmed
 *	node_low	... and up to which it is filled
 *	shrink		write N: empty the CPUs' caches, free up to N idle stacks
 *	reset		write anything: start stacks_max anew
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/seq_file.h>

#include "stackmux.h"

static const char * const stackmux_stat_names[STACKMUX_NR_STATS] = {
	[STACKMUX_PARKS]	= "parks",
	[STACKMUX_RESUMES]	= "resumes",
	[STACKMUX_NOSWITCH]	= "noswitch",
	[STACKMUX_LINGERED]	= "lingered",
	[STACKMUX_KEEPS]	= "keeps",
	[STACKMUX_RESERVE]	= "reserve",
	[STACKMUX_STARVATIONS]	= "starvations",
	[STACKMUX_REFILLS]	= "refills",
	[STACKMUX_TRIMS]	= "trims",
	[STACKMUX_CLONES]	= "clones",
	[STACKMUX_REARMS]	= "rearms",
};

static int stats_show(struct seq_file *m, void *unused)
{
	u64 sum[STACKMUX_NR_STATS] = {};
	int cpu, i;

	for_each_possible_cpu(cpu)
		for (i = 0; i < STACKMUX_NR_STATS; i++)
			sum[i] += READ_ONCE(per_cpu(stackmux_cpu.stats[i], cpu));

	for (i = 0; i < STACKMUX_NR_STATS; i++)
		seq_printf(m, "%s %llu\n", stackmux_stat_names[i], sum[i]);
	seq_printf(m, "stacks %ld\n", atomic_long_read(&stackmux_nr_stacks));
	seq_printf(m, "stacks_idle %lu\n", stackmux_nr_idle());
	seq_printf(m, "stacks_max %ld\n", atomic_long_read(&stackmux_max_stacks));
	seq_printf(m, "records %ld\n", stackmux_nr_records());
	seq_printf(m, "record_bytes %zu\n", sizeof(struct stackmux_record));
	/* Not read at one moment: never let the difference be seen below 0. */
	seq_printf(m, "parked %lld\n",
		   max_t(s64, 0, sum[STACKMUX_PARKS] - sum[STACKMUX_RESUMES]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int stackmux_linger_get(void *unused, u64 *val)
{
	*val = static_key_enabled(&stackmux_linger);
	return 0;
}

static int stackmux_linger_set(void *unused, u64 val)
{
	if (val > 1)
		return -EINVAL;
	if (val)
		static_branch_enable(&stackmux_linger);
	else
		static_branch_disable(&stackmux_linger);
	if (static_branch_unlikely(&stackmux_key))
		stackmux_flush();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(stackmux_linger_fops, stackmux_linger_get,
			 stackmux_linger_set, "%llu\n");

static int stackmux_shrink_set(void *unused, u64 nr)
{
	if (static_branch_unlikely(&stackmux_key)) {
		stackmux_flush();
		stackmux_shrink(nr);
	}
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(stackmux_shrink_fops, NULL, stackmux_shrink_set, "%llu\n");

static int stackmux_reset_set(void *unused, u64 val)
{
	atomic_long_set(&stackmux_max_stacks, atomic_long_read(&stackmux_nr_stacks));
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(stackmux_reset_fops, NULL, stackmux_reset_set, "%llu\n");

static int __init stackmux_debugfs_init(void)
{
	struct dentry *dir = debugfs_create_dir("stackmux", NULL);

	debugfs_create_file("stats", 0444, dir, NULL, &stats_fops);
	debugfs_create_file_unsafe("linger", 0644, dir, NULL, &stackmux_linger_fops);
	debugfs_create_u32("percpu_max", 0644, dir, &stackmux_percpu_max);
	debugfs_create_u32("node_max", 0644, dir, &stackmux_node_max);
	debugfs_create_u32("node_low", 0644, dir, &stackmux_node_low);
	debugfs_create_file_unsafe("shrink", 0200, dir, NULL, &stackmux_shrink_fops);
	debugfs_create_file_unsafe("reset", 0200, dir, NULL, &stackmux_reset_fops);
	return 0;
}
late_initcall(stackmux_debugfs_init);
