// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * A server with a thread per connection, each of which waits through liburing
 *
 *	cc uring_echo.c -o uring_echo $(pkg-config --cflags --libs stackmux liburing) -pthread
 *
 * The clients are in the same program: every connection is a pair of sockets, and
 * what the server receives it sends back.
 */
#include <liburing.h>
#include <pthread.h>
#include <stackmux.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
	pthread_t thread;
	int server, client;
	long echoed;		/* messages, or a negative errno value */
};

/* One request, and the wait for it */
static int complete(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int ret = io_uring_submit_and_wait(ring, 1);

	if (ret < 0)
		return ret;
	ret = io_uring_peek_cqe(ring, &cqe);
	if (ret)
		return ret;
	ret = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct io_uring ring;
	char buf[64];
	int ret;

	ret = io_uring_queue_init(2, &ring, 0);
	if (ret) {
		c->echoed = ret;
		return NULL;
	}
	for (;;) {
		io_uring_prep_recv(io_uring_get_sqe(&ring), c->server, buf, sizeof(buf), 0);
		ret = complete(&ring);
		if (ret == -EINTR || ret == -EAGAIN)
			continue;
		if (ret <= 0)
			break;
		io_uring_prep_send(io_uring_get_sqe(&ring), c->server, buf, ret, 0);
		ret = complete(&ring);
		if (ret < 0)
			break;
		c->echoed++;
	}
	if (ret < 0)
		c->echoed = ret;
	io_uring_queue_exit(&ring);
	close(c->server);
	return NULL;
}

static bool ask(struct connection *c, int round)
{
	char question[64], answer[64];
	ssize_t n = snprintf(question, sizeof(question), "%d", round);

	return send(c->client, question, n, 0) == n &&
	       recv(c->client, answer, sizeof(answer), 0) == n &&
	       !memcmp(question, answer, n);
}

int main(int argc, char **argv)
{
	int nr = argc > 1 ? atoi(argv[1]) : 100, rounds = argc > 2 ? atoi(argv[2]) : 10;
	struct connection *all = calloc(nr > 0 ? nr : 1, sizeof(*all));
	struct stackmux_stats st;
	int i, j, sv[2], bad = 0;

	if (nr < 1 || rounds < 1 || !all)
		return 1;
	if (stackmux_enable(0))
		puts("no parking here: the threads keep their stacks");
	for (i = 0; i < nr; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv)) {
			perror("socketpair");
			return 1;
		}
		all[i].server = sv[0];
		all[i].client = sv[1];
		if (pthread_create(&all[i].thread, NULL, serve, &all[i])) {
			perror("pthread_create");
			return 1;
		}
	}
	for (j = 0; j < rounds; j++)
		for (i = 0; i < nr; i++)
			bad += !ask(&all[i], j);
	usleep(200000);
	if (!stackmux_get_stats(&st))
		printf("%llu of %llu threads sleep without a stack\n",
		       (unsigned long long)st.parked, (unsigned long long)st.threads);
	for (i = 0; i < nr; i++) {
		close(all[i].client);
		pthread_join(all[i].thread, NULL);
		bad += all[i].echoed != rounds;
	}
	free(all);
	printf("%d connections, %d echoes each, %d wrong\n", nr, rounds, bad);
	return bad != 0;
}
