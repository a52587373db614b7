/*
 * heap: the timers of network.c, the next one on top.
 */
#ifndef HEAP_H
#define HEAP_H
#include <stddef.h>
#include <stdint.h>

static const size_t NOWHERE = SIZE_MAX;

struct timer {
    int64_t at;   /* ns of CLOCK_MONOTONIC */
    size_t place; /* in the heap; NOWHERE: not set */
    struct connection *connection;
    struct direction *direction; /* NULL: it is for the whole connection */
};

void timer_set(struct timer *timer, int64_t at); /* also if it is set already */
void timer_clear(struct timer *timer);           /* also if it is not set */
struct timer *timer_next(void);                  /* NULL: none is set */
#endif
