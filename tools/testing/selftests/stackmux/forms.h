/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls that wait until a descriptor is ready, in all their forms: poll(), select(),
 * epoll_wait() and what became of them. What is asked for, and what comes of it, is
 * said in terms of poll().
 */
#ifndef STACKMUX_FORMS_H
#define STACKMUX_FORMS_H

#include "calls.h"
#include <sys/epoll.h>
#include <sys/select.h>

#ifndef __NR_epoll_pwait2
#define __NR_epoll_pwait2	441
#endif

#define MANY		1000		/* descriptors */
#define MAX_FD		4096		/* numbers of them */
#define HOUR		(3600 * SM_SEC)
#define NONE		(-1LL)		/* no time-out */

enum { POLL, PPOLL, SELECT, PSELECT, WAIT, PWAIT, PWAIT2, NR_FORMS };

extern const char *const form_names[NR_FORMS];

#define FOR_EACH_FORM(form)	for ((form) = 0; (form) < NR_FORMS; (form)++)
#define FOR_POLL_FORMS(form)	for ((form) = POLL; (form) < WAIT; (form)++)
#define FOR_EPOLL_FORMS(form)	for ((form) = WAIT; (form) < NR_FORMS; (form)++)

static inline bool is_select(int form)
{
	return form == SELECT || form == PSELECT;
}

static inline bool is_epoll(int form)
{
	return form >= WAIT;
}

static inline bool has_mask(int form)
{
	return form == PPOLL || form == PSELECT || form == PWAIT || form == PWAIT2;
}

/* Does it write back the time that is left? */
static inline bool has_left(int form)
{
	return form == PPOLL || is_select(form);
}

/* One call of any form */
struct call {
	struct sm_waiter w;
	int form;
	int n;				/* descriptors in the set */
	int64_t ns;
	bool masked;
	uint64_t mask;
	uint64_t outside, after;	/* mask of the thread: to set, as left */
	int handled;			/* handlers run when the call returned */
	bool own_epfd;			/* made of the set when the call is prepared */
	int epfd;
	int max;			/* maxevents */
	/* What the kernel writes to; may be made inaccessible. */
	struct pollfd *pfd;
	unsigned long (*bits)[MAX_FD / 64];
	struct epoll_event *ev;
	union {
		struct timespec ts;
		struct timeval tv;
	} *time;
	struct {
		uint64_t *set;
		size_t size;
	} sig;
	/* What that points to at first */
	struct pollfd set[MANY];
	unsigned long map[3][MAX_FD / 64];
	struct epoll_event events[MANY];
	struct timespec clock[2];
};

/* What no call has written */
#define UNTOUCHED	0xeeeeeeeeU

/* The first @n of the set, all wanting POLLIN of the channels */
void fill(struct call *c, struct sm_chan *ch, int n);

/* Make ready to call @form with a time-out of @ns. */
void prepare(struct call *c, int form, int64_t ns);

/* The same with @inside as mask, from a thread with @outside */
void prepare_masked(struct call *c, int form, int64_t ns, uint64_t outside, uint64_t inside);

/* ... in which SIGUSR1 is pending */
void mask_before_pending(struct sm_waiter *w);

/* Call it here; raw: and do nothing else. */
long call_raw(struct call *c, int form, int64_t ns);
long call_now(struct call *c, int form, int64_t ns);

/* Call it in another thread, which falls asleep. */
bool start(struct sm_env *env, struct call *c, int form, int64_t ns);

/* Call it in a child, from memory that both share; and see that fall asleep. */
pid_t fork_child(struct sm_env *env, struct call *c);
pid_t start_child(struct sm_env *env, struct call *c);
bool child_asleep(struct sm_env *env, struct call *c, pid_t pid);

/* Make bitmaps of the set. Returns the number of descriptors for select(). */
int set_bits(struct call *c);
int64_t left_ns(struct call *c);

/* What came of descriptor @i */
int ready(struct call *c, int i);
int nr_ready(struct call *c);

int epoll_ctl_data(int epfd, int op, int fd, uint32_t events, uint32_t data);

/* All @n, with their numbers as data */
int epoll_add(int epfd, struct sm_chan *ch, int n, uint32_t events);

/* What an epoll_wait() finds at this moment, without waiting */
long look(int epfd, struct epoll_event *ev, int max);

/* Fill a pipe or socket until it takes no more; make it empty. */
void stuff(int fd);
void unstuff(int fd);

/* The call returns 1, for descriptor @i, with @events. */
#define EXPECT_ONE(c, i, expected)					\
do {									\
	struct call *__c = (c);						\
	int __i = (i);							\
									\
	SM_JOIN(&__c->w, 1);						\
	EXPECT_EQ(1, nr_ready(__c)) {					\
		TH_LOG("%s", form_names[__c->form]);			\
	}								\
	EXPECT_EQ((int)(expected), ready(__c, __i)) {			\
		TH_LOG("%s", form_names[__c->form]);			\
	}								\
} while (0)

/* What is sent to channel @i ends the call. */
#define EXPECT_WOKEN(c, channels, i)					\
do {									\
	struct sm_chan *__ch = &(channels)[i];				\
									\
	ASSERT_TRUE(sm_chan_send(__ch));				\
	EXPECT_ONE(c, i, POLLIN);					\
	EXPECT_TRUE(sm_chan_take(__ch));				\
} while (0)

#define EXPECT_NAMED(cond, c)						\
	EXPECT_TRUE(cond) {						\
		TH_LOG("%s, %d descriptors", form_names[(c)->form], (c)->n); \
	}

#define USR1	sm_bit(SIGUSR1)
#define USR2	sm_bit(SIGUSR2)

#endif /* STACKMUX_FORMS_H */
