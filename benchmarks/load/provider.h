/*
 * provider: answers requests with event streams, or with JSON; what HTTP/1.1 and HTTP/2 have in common.
 *
 * It is an open loop: the schedule never waits for a reader, and what a reader does not take in time is counted.
 */
#ifndef PROVIDER_H
#define PROVIDER_H
#include "plain.h"
#include "wish.h"

/* How connections are spoken with; a connection is known by its descriptor. */
struct protocol {
    void (*prepare)(void);
    void (*accepted)(int fd);
    void (*ready)(int fd, uint32_t events);
    void (*fire)(struct timed *, uint32_t most); /* see struct wheel */
    void (*fire_plain)(struct timed *);          /* see struct plain */
    void (*flush)(void);                         /* at the end of each turn of the loop */
};

extern const struct protocol provider1, provider2;

extern struct provided {
    uint64_t events, requests, accepted, open, open_most, streams, streams_most, writes;
    uint64_t blocked;    /* sends that the socket did not take whole */
    uint64_t no_window;  /* times that a stream had something to send, and no flow-control window for it */
    uint64_t left_early; /* streams whose reader went while they were answered */
    uint64_t plain;      /* answers that were no streams; they count as streams all the same */
    uint64_t gets;       /* answers to GET and HEAD, which do not */
    uint64_t refused;    /* requests, or connections, that broke a rule */
} provided;

extern struct answer {
    bool hold;                  /* a stream stays open and silent after its last event */
    bool closes;                /* reports when readers left */
    bool each;                  /* HTTP/2: a write for each event, not one for all of a turn */
    uint32_t most_streams;      /* HTTP/2: at once on a connection */
} answer;

int run_provider(int port, const struct protocol *);

void provided_stream(void); /* a stream has begun; provided.streams is counted down by whoever ends it */
void provided_left(const struct wish *); /* its reader has gone while it was answered */
void provided_close(int fd);

#endif
