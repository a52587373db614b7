/*
 * arrivals: requests on a schedule that waits for nobody. A reader is a place for one request at a time.
 *
 * What is due and finds no place waits in the order of the schedule, and is timed from when it was due all the same.
 */
#ifndef ARRIVALS_H
#define ARRIVALS_H
#include "clients.h"

extern struct arrivals {
    uint64_t before, due; /* requests of the warm-up, and of the window */
    uint64_t issued;      /* of both */
    uint64_t unfinished;
} arrivals;

void arrivals_prepare(int64_t start);

/* Issues what is due. Returns when the next one is; INT64_MAX: none, or there is no place for it. */
int64_t arrivals_turn(const struct client_protocol *, int64_t now);

void arrivals_free(uint32_t reader); /* there is place for another request */
bool arrivals_drained(void);         /* each request of the schedule is over */
void arrivals_end(void);             /* what is not over by now is unfinished */

#endif
