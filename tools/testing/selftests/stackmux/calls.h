/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of calls have in common: channels that make a descriptor ready,
 * calls that fall asleep, one CPU for oneself, signals and masks.
 */
#ifndef STACKMUX_CALLS_H
#define STACKMUX_CALLS_H

#include "stackmux_harness.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---------------------------------------------------------------- channels */

enum { SM_EVENTFD, SM_PIPE, SM_UNIX, SM_TCP, SM_NR_KINDS };

/* Something readable at one end after something was written at the other. */
struct sm_chan {
	int kind;
	int rd, wr;
};

extern const char *const sm_kind_names[];

/* A listening TCP socket of this host, its address in @sin. -1 on error. */
int sm_tcp_listen(struct sockaddr_in *sin);

/* A listening unix socket with a name that the kernel chooses. -1 on error. */
int sm_unix_listen(int type, struct sockaddr_un *sun, socklen_t *len);

int sm_chan_open(struct sm_chan *c, int kind);
int sm_chans_open(struct sm_chan *c, int n, int kind);
void sm_chan_close(struct sm_chan *c);
void sm_chans_close(struct sm_chan *c, int n);

/* Make it readable: eight bytes, or 1 more for an eventfd. */
bool sm_chan_send(struct sm_chan *c);

/* Take what was sent by one or, for an eventfd, all sends. */
bool sm_chan_take(struct sm_chan *c);
void sm_nonblock(int fd, bool on);

/* For tests with many descriptors. */
int sm_allow_files(long n);

/* Private memory, of which a part may go away; NULL on error */
void *sm_pages(size_t size);

/* ----------------------------------------------------------- waiting calls */

/*
 * See @n threads asleep in calls that they have just been started for. The
 * counters first: who looks at a thread in /proc may keep it from parking.
 */
bool sm_asleep(struct sm_env *env, struct sm_waiter *w, long n);
bool sm_start(struct sm_env *env, struct sm_waiter *w);

/* The same, on a CPU where sm_rt_begin() keeps it from running */
bool sm_start_pinned(struct sm_env *env, struct sm_waiter *w);

/* Is it asleep, though not necessarily without a stack? */
bool sm_sleeps(struct sm_waiter *w);

#define SM_JOIN(waiter, expected)					\
do {									\
	struct sm_waiter *__w = (waiter);				\
									\
	ASSERT_TRUE(sm_waiter_join(__w)) {				\
		TH_LOG("the call does not come back");			\
	}								\
	EXPECT_EQ((long)(expected), __w->ret);				\
} while (0)

int sm_nr_done(struct sm_waiter *w, int nr);

/* Give those that should not wake the time to do it wrongly. */
void sm_settle(void);

/* ------------------------------------------------------------ one's own CPU */

void sm_pin(void);
void sm_pin_waiter(struct sm_waiter *w);

/*
 * From here to sm_rt_end() those that the caller wakes, and that are pinned
 * with sm_pin(), do not get to run.
 */
int sm_rt_begin(void);
void sm_rt_end(void);

/* ----------------------------------------------------------------- signals */

extern int sm_handled;
extern uint64_t sm_mask_in_handler, sm_mask_to_restore;

uint64_t sm_mask_now(void);
uint64_t sm_mask_set(uint64_t set);

static inline uint64_t sm_bit(int sig)
{
	return 1ULL << (sig - 1);
}

/* Count @sig from now on. */
void sm_handle(int sig, int sa_flags);

/* The signals that a thread blocks at this moment, as /proc shows them. */
uint64_t sm_mask_of(pid_t pid, pid_t tid);

/* ------------------------------------------------------------------- races */

/* What producers send, numbered */
struct sm_message {
	uint32_t producer;
	uint32_t seq;
};

/* Messages of each producer; the classic run only checks the test itself. */
long sm_traffic_rounds(struct sm_env *env, long def);

/* No waiting, ever so short, or up to two milliseconds. */
int64_t sm_rnd_timeout(uint64_t *state);

#endif /* STACKMUX_CALLS_H */
