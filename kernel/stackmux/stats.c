// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: counters and limits
 *
 * /sys/kernel/stackmux/ has what users read and tune, one value per file, see
 * Documentation/ABI/testing/sysfs-kernel-stackmux.
 *
 * /sys/kernel/debug/stackmux/ is for tests:
 *	stats		all counters, one "name value" a line
 *	waits		for how long woken tasks waited for a stack: "N M" a line, M of
 *			them less than N microseconds, but not less than N/2
 *	linger		0: from now on take the stack at each park, not at the next one
 *			of the CPU
 *	backoff		waits that have to be short before one is in place
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
	STACKMUX_NR_IN_PLACE,
	STACKMUX_NR_STARVING,
	STACKMUX_RECORDS,
	STACKMUX_RECORD_BYTES,
	STACKMUX_NR_PARKED,
	STACKMUX_NR_VALUES,
};

static const char * const stackmux_value_names[STACKMUX_NR_VALUES] = {
	[STACKMUX_PARKS]	= "parks",
	[STACKMUX_RESUMES]	= "resumes",
	[STACKMUX_NOSWITCH]	= "noswitch",
	[STACKMUX_LINGERED]	= "lingered",
	[STACKMUX_WAITED_IN_PLACE] = "waited_in_place",
	[STACKMUX_PINS]		= "pins",
	[STACKMUX_RESERVE]	= "reserve",
	[STACKMUX_STARVATIONS]	= "starvations",
	[STACKMUX_REFILLS]	= "refills",
	[STACKMUX_TRIMS]	= "trims",
	[STACKMUX_CLONES]	= "clones",
	[STACKMUX_NEWBORNS]	= "newborns",
	[STACKMUX_REARMS]	= "rearms",
	[STACKMUX_RETRIES]	= "retries",
	[STACKMUX_PREEMPTED]	= "preempted",
	[STACKMUX_STOPPED]	= "stopped",
	[STACKMUX_STACKS]	= "stacks",
	[STACKMUX_STACKS_IDLE]	= "stacks_idle",
	[STACKMUX_STACKS_MAX]	= "stacks_max",
	[STACKMUX_NR_IN_PLACE]	= "in_place",
	[STACKMUX_NR_STARVING]	= "starving",
	[STACKMUX_RECORDS]	= "records",
	[STACKMUX_RECORD_BYTES]	= "record_bytes",
	[STACKMUX_NR_PARKED]	= "parked",
};

/* How long tasks waited for a stack: log2 of microseconds */
static atomic64_t stackmux_waits[32];

void stackmux_count_wait(u32 us)
{
	atomic64_inc(&stackmux_waits[min(fls(us), (int)ARRAY_SIZE(stackmux_waits) - 1)]);
}

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
	case STACKMUX_NR_IN_PLACE:
		return stackmux_nr_in_place();
	case STACKMUX_NR_STARVING:
		return stackmux_nr_starving_tasks();
	case STACKMUX_RECORDS:
		return stackmux_nr_records();
	case STACKMUX_RECORD_BYTES:
		return sizeof(struct stackmux_record);
	case STACKMUX_NR_PARKED:
		/* Not read at one moment: never let the difference fall below 0. */
		resumes = stackmux_sum(STACKMUX_RESUMES);
		parks = stackmux_sum(STACKMUX_PARKS) + stackmux_sum(STACKMUX_NEWBORNS);
		return parks > resumes ? parks - resumes : 0;
	default:
		return stackmux_sum(i);
	}
}

/* Those that are in sysfs, too */
#define STACKMUX_VALUE_RO(_name, _value)				\
static ssize_t _name##_show(struct kobject *kobj, struct kobj_attribute *attr, \
			    char *buf)					\
{									\
	return sysfs_emit(buf, "%llu\n", stackmux_value(_value));	\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

STACKMUX_VALUE_RO(parked, STACKMUX_NR_PARKED);
STACKMUX_VALUE_RO(records, STACKMUX_RECORDS);
STACKMUX_VALUE_RO(record_bytes, STACKMUX_RECORD_BYTES);
STACKMUX_VALUE_RO(stacks, STACKMUX_STACKS);
STACKMUX_VALUE_RO(stacks_idle, STACKMUX_STACKS_IDLE);

static ssize_t stackmux_limit_store(unsigned int *limit, unsigned int most,
				    const char *buf, size_t count)
{
	unsigned int value;
	int ret;

	ret = kstrtouint(buf, 0, &value);
	if (ret)
		return ret;
	if (value > most)
		return -EINVAL;
	WRITE_ONCE(*limit, value);
	stackmux_limits_changed();
	if (static_branch_unlikely(&stackmux_key))
		stackmux_refill_wake(raw_smp_processor_id());
	return count;
}

/* How many stacks are kept; bounds that no machine needs to exceed */
#define STACKMUX_LIMIT_RW(_name, _most)					\
static ssize_t _name##_show(struct kobject *kobj, struct kobj_attribute *attr, \
			    char *buf)					\
{									\
	return sysfs_emit(buf, "%u\n", READ_ONCE(stackmux_##_name));	\
}									\
static ssize_t _name##_store(struct kobject *kobj, struct kobj_attribute *attr, \
			     const char *buf, size_t count)		\
{									\
	return stackmux_limit_store(&stackmux_##_name, _most, buf, count); \
}									\
static struct kobj_attribute _name##_attr = __ATTR_RW(_name)

STACKMUX_LIMIT_RW(percpu_max, 65536);
STACKMUX_LIMIT_RW(node_max, 65536);
STACKMUX_LIMIT_RW(node_low, 4096);
STACKMUX_LIMIT_RW(preempted_max, 65536);
STACKMUX_LIMIT_RW(in_place_max, 65536);
/* No number of stacks, but the same kind of file */
STACKMUX_LIMIT_RW(threads_unlimited, 1);

static ssize_t unpark_store(struct kobject *kobj, struct kobj_attribute *attr,
			    const char *buf, size_t count)
{
	int ret = sysfs_streq(buf, "1") ? stackmux_unpark() : -EINVAL;

	return ret ?: count;
}

static struct kobj_attribute unpark_attr = __ATTR_WO(unpark);

static struct attribute *stackmux_attrs[] = {
	&parked_attr.attr,
	&records_attr.attr,
	&record_bytes_attr.attr,
	&stacks_attr.attr,
	&stacks_idle_attr.attr,
	&percpu_max_attr.attr,
	&node_max_attr.attr,
	&node_low_attr.attr,
	&preempted_max_attr.attr,
	&in_place_max_attr.attr,
	&threads_unlimited_attr.attr,
	&unpark_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(stackmux);

static int __init stackmux_sysfs_init(void)
{
	struct kobject *dir = kobject_create_and_add("stackmux", kernel_kobj);

	return dir ? sysfs_create_groups(dir, stackmux_groups) : -ENOMEM;
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

static int waits_show(struct seq_file *m, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(stackmux_waits); i++)
		if (atomic64_read(&stackmux_waits[i]))
			seq_printf(m, "%lu %lld\n", BIT(i), atomic64_read(&stackmux_waits[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(waits);

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
	debugfs_create_file("waits", 0444, dir, NULL, &waits_fops);
	debugfs_create_bool("linger", 0644, dir, &stackmux_linger);
	debugfs_create_u8("backoff", 0644, dir, &stackmux_backoff);
	debugfs_create_file_unsafe("shrink", 0200, dir, NULL, &stackmux_shrink_fops);
	debugfs_create_file_unsafe("reset", 0200, dir, NULL, &stackmux_reset_fops);
	return 0;
}
late_initcall(stackmux_debugfs_init);
