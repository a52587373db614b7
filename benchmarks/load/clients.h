/*
 * clients: asks for answers, through a relay or directly; what HTTP/1.1 and HTTP/2 have in common.
 */
#ifndef CLIENTS_H
#define CLIENTS_H
#include "readers.h"

/* How connections are spoken with; a connection is known by a number, the key of its readiness. */
struct client_protocol {
    void (*prepare)(void);
    void (*start)(uint32_t reader); /* asks, on a connection that is there or on a new one */
    void (*ready)(uint32_t connection, uint32_t events);
    uint64_t (*segments)(void);    /* see segments_received(), of all connections */
    bool (*kept)(uint32_t reader); /* the connection that it asks on is there already */
    void (*leave)(uint32_t reader);
    void (*break_off)(uint32_t reader); /* HTTP/1.1: closes its connection; it will be back */
    void (*look_at_stuck)(void);        /* HTTP/1.1: every now and then, if there are any */
};

extern const struct client_protocol clients1, clients2;

extern struct ask {
    int port;
    uint32_t streams;
    uint32_t per_connection; /* HTTP/2: streams */
    uint32_t window;         /* HTTP/2: bytes, of each stream */
    double ramp, seconds, warmup;
    bool hold;
    const char *path;
    bool open_loop;  /* requests come on a schedule: arrivals of them in a second, or a burst */
    double arrivals;
    uint32_t burst;
    bool plain;      /* asks for answers that are no streams */
    uint32_t leave_after;
    bool leave_at_end;
    bool resumable, again;
    double break_at; /* seconds into the window; negative: never */
    double away_ms;
    bool fan_out, fan_out_plain;
    uint32_t stuck;
    bool tls;
} ask;

/* The body of a request, with the number of its reader in it. It holds until the next call. */
const char *ask_body(uint32_t reader);
size_t ask_body_size(void);

int run_clients(const struct client_protocol *);

/* ---- what the protocols say ---- */

/* An answer is at its end. True if the reader is to ask again at once. */
bool client_finished(uint32_t reader);

void client_failed(uint32_t reader, uint64_t *counter);

/* Its connection broke. False if it stays away for that. */
bool client_comes_back(uint32_t reader);

/* It has had as many events as it wanted. */
bool client_has_enough(const struct reader *);

void client_leaves(uint32_t reader); /* just before it goes */
void client_left(uint32_t reader);

#endif
