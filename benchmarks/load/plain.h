/*
 * plain: answers that are no streams: JSON, whole at once, at the time at which a stream would have been at its end.
 *
 * All of them take equally long, so those that wait are in the order in which they came.
 */
#ifndef PLAIN_H
#define PLAIN_H
#include "wheel.h"

struct document {
    char *bytes;
    size_t size;
};

/* The answer to a request, to GET /v1/models, and to any other GET: health checks of gateways. */
extern struct document completion, models, health;

extern struct plain {
    double after_ms; /* negative: as long as a stream takes */
    void (*fire)(struct timed *); /* it is time; the answer does not wait any more */
} plain;

void plain_prepare(void); /* after the wheel */
void plain_wait(struct timed *);
void plain_unlink(struct timed *);
int64_t plain_next(void); /* when the provider must wake up */
void plain_turn(void);

#endif
