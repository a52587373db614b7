/*
 * wheel: when each stream of the provider has its next event.
 *
 * All streams have one interval, so the wheel is one interval long and a stream stays in its slot to the end. It is an
 * open loop: the schedule never waits for a reader. With an interval of 0 there is no schedule, and each stream sends
 * as fast as its reader takes.
 */
#ifndef WHEEL_H
#define WHEEL_H
#include "loop.h"

enum { FAIR_TURN = 16 }; /* events a saturating stream may send before the others have theirs */

/* The part of a stream that the wheel knows. */
struct timed {
    struct timed *next, *previous;
    uint32_t slot;
    uint32_t due, sent;  /* events the schedule has reached, events wholly given to the socket */
    int64_t stamp;       /* of the event being sent; a piece cut off is rendered again, not stored */
    int64_t start, grid; /* when its first event was due, and its second */
};

extern struct wheel {
    int64_t interval_ns;
    uint32_t events;   /* of each stream */
    uint32_t streams;  /* linked at the moment */
    int64_t late_max;
    void (*fire)(struct timed *, uint32_t most); /* sends what is due, at most so many events; may unlink it */
    struct timed **slots; /* the first stream of each */
    uint32_t count;
    int64_t tick_ns, base, tick; /* tick: the next one to fire, at base + tick * tick_ns */
} wheel;

void wheel_prepare(double interval_ms, double tick_us, uint32_t events);
void wheel_join(struct timed *, uint64_t request); /* its schedule begins now, with the first event due at once */
void wheel_link(struct timed *);
void wheel_unlink(struct timed *);
int64_t wheel_stamp(const struct timed *); /* when the next event that is to be sent was due */
int64_t wheel_next(void);                  /* when the provider must wake up */
void wheel_turn(void);

#endif
