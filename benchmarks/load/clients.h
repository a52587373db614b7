/*
 * clients: asks for streams, through a relay or directly; what HTTP/1.1 and HTTP/2 have in common.
 */
#ifndef CLIENTS_H
#define CLIENTS_H
#include "readers.h"

/* How connections are spoken with; a connection is known by a number, the key of its readiness. */
struct client_protocol {
    void (*prepare)(void);
    void (*start)(uint32_t reader);
    void (*ready)(uint32_t connection, uint32_t events);
    uint64_t (*segments)(void); /* see segments_received(), of all connections */
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
} ask;

extern const char ask_body[];
extern const size_t ask_body_size;

int run_clients(const struct client_protocol *);

#endif
