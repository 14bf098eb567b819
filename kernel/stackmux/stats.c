// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: counters and knobs
 *
 * /sys/kernel/stackmux/ has one value per file, see
 * Documentation/ABI/testing/sysfs-kernel-stackmux: the counters, and how many
 * idle stacks are kept.
 *
 * /sys/kernel/debug/stackmux/ is for tests:
 *	stats		all counters, one "name value" a line
 *	linger		0: take the stack at each park, not at the next one of the CPU
 *	patience	waits that have to be short before a thread stays on its stack
 *	shrink		write N: empty the CPUs' caches, free up to N idle stacks
 *	reset		write anything: start stacks_max anew
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "stackmux.h"

/* What can be read, beyond the counters of the CPUs */
enum {
	STACKMUX_STACKS = STACKMUX_NR_STATS,
	STACKMUX_STACKS_IDLE,
	STACKMUX_STACKS_MAX,
	STACKMUX_RECORDS,
	STACKMUX_RECORD_BYTES,
	STACKMUX_PARKED,
	STACKMUX_NR_VALUES,
};

static const char * const stackmux_value_names[STACKMUX_NR_VALUES] = {
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
	[STACKMUX_NEWBORNS]	= "newborns",
	[STACKMUX_REARMS]	= "rearms",
	[STACKMUX_RETRIES]	= "retries",
	[STACKMUX_STAYED]	= "stayed",
	[STACKMUX_EVICTIONS]	= "evictions",
	[STACKMUX_PREEMPTED]	= "preempted",
	[STACKMUX_STACKS]	= "stacks",
	[STACKMUX_STACKS_IDLE]	= "stacks_idle",
	[STACKMUX_STACKS_MAX]	= "stacks_max",
	[STACKMUX_RECORDS]	= "records",
	[STACKMUX_RECORD_BYTES]	= "record_bytes",
	[STACKMUX_PARKED]	= "parked",
};

static u64 stackmux_sum(enum stackmux_stat stat)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(stackmux_cpu.stats[stat], cpu));
	return sum;
}

static u64 stackmux_value(unsigned int i)
{
	u64 parks, resumes;

	switch (i) {
	case STACKMUX_STACKS:
		return atomic_long_read(&stackmux_nr_stacks);
	case STACKMUX_STACKS_IDLE:
		return stackmux_nr_idle();
	case STACKMUX_STACKS_MAX:
		return atomic_long_read(&stackmux_max_stacks);
	case STACKMUX_RECORDS:
		return stackmux_nr_records();
	case STACKMUX_RECORD_BYTES:
		return sizeof(struct stackmux_record);
	case STACKMUX_PARKED:
		/* Not read at one moment: never let the difference fall below 0. */
		resumes = stackmux_sum(STACKMUX_RESUMES);
		parks = stackmux_sum(STACKMUX_PARKS) + stackmux_sum(STACKMUX_NEWBORNS);
		return parks > resumes ? parks - resumes : 0;
	default:
		return stackmux_sum(i);
	}
}

static struct kobj_attribute stackmux_value_attrs[STACKMUX_NR_VALUES];

static ssize_t stackmux_value_show(struct kobject *kobj, struct kobj_attribute *attr,
				   char *buf)
{
	return sysfs_emit(buf, "%llu\n", stackmux_value(attr - stackmux_value_attrs));
}

/* How many idle stacks are kept */
struct stackmux_knob {
	struct kobj_attribute attr;
	unsigned int *value;
};

static ssize_t stackmux_knob_show(struct kobject *kobj, struct kobj_attribute *attr,
				  char *buf)
{
	struct stackmux_knob *knob = container_of(attr, struct stackmux_knob, attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*knob->value));
}

static ssize_t stackmux_knob_store(struct kobject *kobj, struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	struct stackmux_knob *knob = container_of(attr, struct stackmux_knob, attr);
	unsigned int value;
	int ret;

	ret = kstrtouint(buf, 0, &value);
	if (ret)
		return ret;
	WRITE_ONCE(*knob->value, value);
	stackmux_refill_wake();
	return count;
}

#define STACKMUX_KNOB(name)	{					\
	.attr	= __ATTR(name, 0644, stackmux_knob_show, stackmux_knob_store), \
	.value	= &stackmux_##name,					\
}

static struct stackmux_knob stackmux_knobs[] = {
	STACKMUX_KNOB(percpu_max),
	STACKMUX_KNOB(node_max),
	STACKMUX_KNOB(node_low),
	STACKMUX_KNOB(preempted_max),
};

static int __init stackmux_sysfs_init(void)
{
	struct kobject *dir = kobject_create_and_add("stackmux", kernel_kobj);
	int i, ret = 0;

	if (!dir)
		return -ENOMEM;
	for (i = 0; i < STACKMUX_NR_VALUES && !ret; i++) {
		struct kobj_attribute *attr = &stackmux_value_attrs[i];

		sysfs_attr_init(&attr->attr);
		attr->attr.name = stackmux_value_names[i];
		attr->attr.mode = 0444;
		attr->show = stackmux_value_show;
		ret = sysfs_create_file(dir, &attr->attr);
	}
	for (i = 0; i < ARRAY_SIZE(stackmux_knobs) && !ret; i++)
		ret = sysfs_create_file(dir, &stackmux_knobs[i].attr.attr);
	if (ret)
		kobject_put(dir);
	return ret;
}
late_initcall(stackmux_sysfs_init);

static int stats_show(struct seq_file *m, void *unused)
{
	int i;

	for (i = 0; i < STACKMUX_NR_VALUES; i++)
		seq_printf(m, "%s %llu\n", stackmux_value_names[i], stackmux_value(i));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int stackmux_linger_get(void *unused, u64 *val)
{
	*val = READ_ONCE(stackmux_linger);
	return 0;
}

static int stackmux_linger_set(void *unused, u64 val)
{
	if (val > 1)
		return -EINVAL;
	WRITE_ONCE(stackmux_linger, val);
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
	debugfs_create_u8("patience", 0644, dir, &stackmux_patience);
	debugfs_create_file_unsafe("shrink", 0200, dir, NULL, &stackmux_shrink_fops);
	debugfs_create_file_unsafe("reset", 0200, dir, NULL, &stackmux_reset_fops);
	return 0;
}
late_initcall(stackmux_debugfs_init);
