// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#include <pthread.h>
#include <stackmux.h>
#include <stdio.h>
#include <unistd.h>

#define NR	100

static struct stackmux_event start = STACKMUX_EVENT_INIT;

static void *sleeper(void *unused)
{
	stackmux_event_wait(&start, NULL);
	return unused;
}

int main(void)
{
	struct stackmux_stats st = { 0 };
	pthread_t threads[NR];
	int i;

	if (stackmux_enable(0))
		printf("no parking here: threads keep their stacks\n");
	for (i = 0; i < NR; i++)
		if (pthread_create(&threads[i], NULL, sleeper, NULL))
			return 1;
	sleep(1);
	stackmux_get_stats(&st);
	printf("%llu threads sleep without a stack\n", st.parked);
	stackmux_event_set(&start);
	for (i = 0; i < NR; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
