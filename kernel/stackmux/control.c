// SPDX-License-Identifier: GPL-2.0
/*
 * stackmux: which processes park; start, CPU hotplug
 *
 * Nothing exists until the first process opts in, or the machine-wide mode is
 * set to "always": the pool, the workers and the static key come to life then
 * and stay for good, since tasks may be parked at any later time.
 */
#define pr_fmt(fmt) "stackmux: " fmt

#include <linux/cpuhotplug.h>
#include <linux/init.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/sysctl.h>

#include "stackmux.h"

DEFINE_STATIC_KEY_FALSE(stackmux_key);

int stackmux_mode __read_mostly = STACKMUX_OPTIN;

static DEFINE_MUTEX(stackmux_start_mutex);

static void stackmux_flush_cpu(void *unused)
{
	stackmux_slot_clear(smp_processor_id());
	stackmux_pool_flush_cpu(this_cpu_ptr(&stackmux_cpu));
}

/**
 * stackmux_flush - give the stacks that CPUs cache, or that linger there, to the
 *		    node lists
 *
 * Context: process context.
 */
void stackmux_flush(void)
{
	on_each_cpu(stackmux_flush_cpu, NULL, 1);
}

/* A CPU without its reserves must not come online: a wake could not be served. */
static int stackmux_cpu_prepare(unsigned int cpu)
{
	int ret = stackmux_reserve_fill(cpu);

	if (ret)
		pr_err("no memory for the reserve stacks of CPU %u\n", cpu);
	return ret;
}

/* The CPU is gone. */
static int stackmux_cpu_dead(unsigned int cpu)
{
	local_irq_disable();
	stackmux_slot_clear(cpu);
	local_irq_enable();
	stackmux_pool_drain_cpu(cpu);
	return 0;
}

static int stackmux_hotplug_init(void)
{
	static int state;

	if (state <= 0)
		state = cpuhp_setup_state(CPUHP_BP_PREPARE_DYN, "stackmux:prepare",
					  stackmux_cpu_prepare, stackmux_cpu_dead);
	return min(state, 0);
}

/**
 * stackmux_start - make everything ready for the first task that parks
 *
 * Context: process context.
 * Return: 0, or why stackmux cannot work now; may be tried again.
 */
int stackmux_start(void)
{
	int ret = 0;

	if (static_branch_unlikely(&stackmux_key))
		return 0;

	mutex_lock(&stackmux_start_mutex);
	if (!static_key_enabled(&stackmux_key)) {
		stackmux_starve_init();
		ret = stackmux_record_init();
		if (!ret)
			ret = stackmux_pool_init(stackmux_poked);
		if (!ret)
			ret = stackmux_hotplug_init();
		if (!ret)
			ret = stackmux_refill_init();
		if (!ret)
			static_branch_enable(&stackmux_key);
	}
	mutex_unlock(&stackmux_start_mutex);
	return ret;
}

/**
 * stackmux_prctl - prctl(PR_STACKMUX)
 * @op: PR_STACKMUX_ENABLE or another operation
 * @flags: of the operation, or user address of its structure
 * @arg4: size of that structure; without one it must be 0
 * @arg5: must be 0
 *
 * See include/uapi/linux/stackmux.h.
 *
 * Context: process context.
 * Return: as documented there.
 */
long stackmux_prctl(unsigned long op, unsigned long flags, unsigned long arg4,
		    unsigned long arg5)
{
	struct signal_struct *sig = current->signal;
	unsigned int setting;
	int ret;

	if (arg5 || (arg4 && op != PR_STACKMUX_STATS && op != PR_STACKMUX_RETRY))
		return -EINVAL;
	/* The size of a structure: no later version of one will need as much. */
	if (arg4 > PAGE_SIZE)
		return -E2BIG;

	switch (op) {
	case PR_STACKMUX_ENABLE:
		if (flags & ~PR_STACKMUX_F_EXEC)
			return -EINVAL;
		if (READ_ONCE(stackmux_mode) == STACKMUX_NEVER)
			return -EOPNOTSUPP;
		ret = stackmux_start();
		if (ret)
			return ret;
		setting = STACKMUX_SIG_ENABLED;
		if (flags & PR_STACKMUX_F_EXEC)
			setting |= STACKMUX_SIG_EXEC;
		WRITE_ONCE(sig->stackmux, setting);
		return 0;
	case PR_STACKMUX_DISABLE:
		if (flags)
			return -EINVAL;
		WRITE_ONCE(sig->stackmux, 0);
		return 0;
	case PR_STACKMUX_GET:
		if (flags)
			return -EINVAL;
		ret = READ_ONCE(sig->stackmux);
		if (static_branch_unlikely(&stackmux_key) && stackmux_wanted(current))
			ret |= PR_STACKMUX_ACTIVE;
		if (current->stackmux_optout)
			ret |= PR_STACKMUX_OPTED_OUT;
		return ret;
	case PR_STACKMUX_THREAD:
		if (flags & ~PR_STACKMUX_T_OPTOUT)
			return -EINVAL;
		WRITE_ONCE(current->stackmux_optout, flags == PR_STACKMUX_T_OPTOUT);
		return 0;
	case PR_STACKMUX_STATS:
		return stackmux_process_stats((void __user *)flags, arg4);
	case PR_STACKMUX_RETRY:
		return stackmux_set_retry((void __user *)flags, arg4);
	default:
		return -EINVAL;
	}
}

/**
 * stackmux_exec - a new program starts in this process
 * @secure: it gains privileges, and so decides for itself
 *
 * Context: begin_new_exec(), beyond the point of no return; current is the only
 * thread.
 */
void stackmux_exec(bool secure)
{
	struct signal_struct *sig = current->signal;

	if (secure || !(sig->stackmux & STACKMUX_SIG_EXEC))
		WRITE_ONCE(sig->stackmux, 0);
	WRITE_ONCE(current->stackmux_optout, false);
	if (!current->stackmux)
		return;
	stackmux_drop_retry(current->stackmux);
	/* The stack has seen two address spaces by the time it is left. */
	current->stackmux->mm_id = STACKMUX_MM_UNKNOWN;
}

/* While all processes park: may their threads exceed threads-max? Writable in sysfs. */
unsigned int stackmux_threads_unlimited __read_mostly;

/*
 * threads-max follows from what stacks would cost if each thread had one, at a
 * time when it is not known which threads will park. The threads of a process that asked
 * for parking are held by RLIMIT_NPROC, the pids cgroup, its memory cgroup and
 * kernel.pid_max instead. A child of fork() begins on a stack.
 */
bool __stackmux_exceeds_threads_max(u64 clone_flags)
{
	if (!(clone_flags & CLONE_THREAD) || !stackmux_wanted(current))
		return false;
	return READ_ONCE(stackmux_mode) == STACKMUX_OPTIN || READ_ONCE(stackmux_threads_unlimited);
}

static int stackmux_sysctl(const struct ctl_table *table, int write, void *buffer,
			   size_t *lenp, loff_t *ppos)
{
	struct ctl_table t = *table;
	int mode = READ_ONCE(stackmux_mode);
	int ret;

	t.data = &mode;
	ret = proc_dointvec_minmax(&t, write, buffer, lenp, ppos);
	if (ret || !write)
		return ret;
	if (mode == STACKMUX_ALWAYS) {
		ret = stackmux_start();
		if (ret)
			return ret;
	}
	WRITE_ONCE(stackmux_mode, mode);
	return 0;
}

static struct ctl_table stackmux_sysctls[] = {
	{
		.procname	= "stackmux",
		.maxlen		= sizeof(int),
		.mode		= 0644,
		.proc_handler	= stackmux_sysctl,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_TWO,
	},
};

static const char * const stackmux_mode_names[] __initconst = {
	[STACKMUX_NEVER]	= "off",
	[STACKMUX_OPTIN]	= "optin",
	[STACKMUX_ALWAYS]	= "always",
};

static int __init stackmux_setup(char *str)
{
	int mode = match_string(stackmux_mode_names,
				ARRAY_SIZE(stackmux_mode_names), str);

	if (mode < 0)
		pr_err("unknown boot parameter stackmux=%s: expected off, optin or always; using optin\n",
		       str);
	else
		stackmux_mode = mode;
	return 1;
}
__setup("stackmux=", stackmux_setup);

static int __init stackmux_init(void)
{
	int ret = 0;

	if (stackmux_mode == STACKMUX_ALWAYS) {
		ret = stackmux_start();
		if (ret) {
			pr_err("cannot start: %d; using optin\n", ret);
			stackmux_mode = STACKMUX_OPTIN;
		}
	}
	register_sysctl("kernel", stackmux_sysctls);
	return ret;
}
late_initcall(stackmux_init);
