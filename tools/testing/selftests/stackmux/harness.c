// SPDX-License-Identifier: GPL-2.0
#define STACKMUX_HELPER
#include "stackmux_harness.h"

int sm_linger(struct sm_env *env)
{
	env->lingering = true;
	sm_lingering = true;
	return sm_write_long(SM_LINGER, 1);
}

const char *sm_env_setup(struct sm_env *env, bool parked)
{
	int active;

	sm_knobs_restore();
	memset(env, 0, sizeof(*env));
	env->parked = parked;
	env->present = sm_present();
	env->mode = sm_read_long(SM_SYSCTL);
	if (!env->present)
		return NULL;
	if (sm_stats_read(&env->base))
		return "cannot read " SM_STATS ": be root, mount debugfs";
	if (getenv("STACKMUX_LINGER") && sm_linger(env))
		return "cannot write " SM_LINGER;
	if (!parked) {
		active = env->mode == 2 ? PR_STACKMUX_ACTIVE : 0;
		return sm_disable() || sm_get() != active ? "cannot opt out" : NULL;
	}
	if (sm_enable(0))
		return "cannot opt in";
	if (sm_get() != (PR_STACKMUX_ENABLED | PR_STACKMUX_ACTIVE))
		return "opted in, but not active: see " SM_SYSCTL;
	sm_judged = true;
	/* The opt-in must not have made anything park by itself. */
	return sm_stats_read(&env->base) ? "cannot read " SM_STATS : NULL;
}

void sm_rebase(struct sm_env *env)
{
	if (env->present)
		sm_stats_read(&env->base);
}

/* A park ends when the stack is taken, or with the thread back on it. */
static long sm_all_parks(const struct sm_stats *st)
{
	return st->parks + st->lingered + st->lingering - st->preempted;
}

long sm_parks(struct sm_env *env, const struct sm_stats *st)
{
	return sm_all_parks(st) - sm_all_parks(&env->base);
}

static long sm_parked(struct sm_env *env, const struct sm_stats *st)
{
	return st->parked + st->lingering - env->base.parked - env->base.lingering;
}

bool sm_check_parked(struct sm_env *env, long n, struct sm_stats *st)
{
	long gone = 0;

	/* Where all processes park, others that were parked may have gone on. */
	if (env->mode == 2)
		gone = env->base.parked < n / 16 ? env->base.parked : n / 16;
	return !sm_stats_read(st) && sm_parks(env, st) >= n && sm_parked(env, st) >= n - gone;
}

bool sm_check_none_parks(struct sm_env *env, long n)
{
	struct sm_stats st;

	if (env->mode == 2 || (!sm_stats_read(&st) && sm_parks(env, &st) < n))
		return true;
	fprintf(stderr, "# wanted fewer than %ld parks, but there were %ld\n", n,
		sm_parks(env, &st));
	return false;
}

/* Does a thread that sleeps in a call do so where the test expects it? */
static bool sm_is_right(struct sm_env *env, pid_t pid, pid_t tid)
{
	return !env->parked || !env->on_stack ||
	       (!sm_task_is(pid, tid, "parked") && !sm_task_is(pid, tid, "lingering") &&
		!sm_task_is(pid, tid, "pinned"));
}

bool sm_wait_parked(struct sm_env *env, long n)
{
	struct sm_stats st;
	int64_t ns = sm_patience_ns() + n * SM_MSEC * sm_slow();

	if (env->parked && env->on_stack)
		return sm_check_none_parks(env, 1);
	if (!env->parked || sm_wait_until_ns(sm_check_parked(env, n, &st), ns))
		return true;
	fprintf(stderr,
		"# wanted %ld parked: parks +%ld, parked +%ld, %ld linger, pins +%ld, noswitch +%ld\n",
		n, sm_parks(env, &st), sm_parked(env, &st), st.lingering,
		st.pins - env->base.pins, st.noswitch - env->base.noswitch);
	return false;
}

bool sm_wait_asleep(struct sm_env *env, pid_t pid, struct sm_waiter *w, long n)
{
	long i;

	for (i = 0; i < n; i++) {
		if (!sm_wait_until(sm_waiter_asleep(pid, &w[i]))) {
			fprintf(stderr, "# thread %ld: entered %d, state %c\n",
				i, w[i].entered,
				sm_task_state(pid, w[i].tid));
			return false;
		}
		if (w[i].done) {
			fprintf(stderr, "# thread %ld: came back with %ld instead of sleeping\n",
				i, w[i].ret);
			return false;
		}
		if (!sm_is_right(env, pid, w[i].tid)) {
			fprintf(stderr, "# thread %ld: does not stay on its stack\n", i);
			return false;
		}
	}
	return sm_wait_parked(env, n);
}

bool sm_wait_none_parked(struct sm_env *env)
{
	struct sm_stats st;

	if (!env->present || env->mode == 2)
		return true;
	if (sm_wait_until(!sm_stats_read(&st) && sm_parked(env, &st) <= 0))
		return true;
	fprintf(stderr, "# %ld are still parked, and %ld linger; %ld and %ld were before\n",
		st.parked, st.lingering, env->base.parked, env->base.lingering);
	return false;
}

/* What all tests rely on, and what there was before */
static struct {
	const char *path, *value;
	char saved[32];
} sm_settings[] = {
	/*
	 * Each park is to lose its stack: a single sleeper would never. For those
	 * that linger there is a variant of some tests, and for the others the
	 * environment variable STACKMUX_LINGER.
	 */
	{ SM_LINGER, "0\n" },
	/* So is each preemption: all tests are tests of that, too. */
	{ SM_PREEMPTED_MAX, "0\n" },
	/* Nor does anybody wait in place. */
	{ SM_IN_PLACE_MAX, "0\n" },
};

static void sm_machine_restore(void)
{
	size_t i;

	sm_knobs_restore();
	for (i = 0; i < ARRAY_SIZE(sm_settings); i++)
		if (sm_settings[i].saved[0])
			sm_write_file(sm_settings[i].path, sm_settings[i].saved);
}

void sm_machine_prepare(void)
{
	size_t i;

	sm_mount_debugfs();
	sm_knobs_save();
	for (i = 0; i < ARRAY_SIZE(sm_settings); i++)
		if (sm_read_file(sm_settings[i].path, sm_settings[i].saved,
				 sizeof(sm_settings[i].saved)) > 0)
			sm_knob_set(sm_settings[i].path, sm_settings[i].value);
	sm_knobs_restore();
	atexit(sm_machine_restore);
}
