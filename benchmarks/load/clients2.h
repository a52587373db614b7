/*
 * clients2: clients over HTTP/2 (RFC 9113), several readers on each connection: clients2.c their connections and
 * frames, asks2.c their requests and responses.
 *
 * A response's head is known by its first field alone, which is :status by section 8.3 and, since 200 stands in the
 * static table (RFC 7541, A), one byte in any sensible encoding. Windows are given back when half of them is used.
 */
#ifndef CLIENTS2_H
#define CLIENTS2_H
#include "clients.h"
#include "frames2.h"

struct connection {
    int fd; /* -1: none, not yet or not any more */
    bool connecting, blocked, ended;
    bool leaving;          /* the server takes no more requests on it */
    bool served;           /* a response has come */
    uint32_t first, count; /* its readers */
    uint32_t next;         /* the next stream's identifier */
    uint32_t *streams;     /* of each reader; 0: none */
    int32_t *windows;      /* what the server may still send to each reader */
    int64_t window;        /* and on the whole connection */
    int64_t send_window;
    uint32_t continued; /* the stream whose header block is not at its end */
    bool continued_ends;
    struct inlet in;
    struct outlet out;
};

void asks2_prepare(void);
void ask_one(struct connection *, uint32_t place);
void ask_all(struct connection *); /* who waits to ask */

/* Which of its readers has this stream; count: none any more. */
uint32_t place_of(const struct connection *, uint32_t stream);

void on_headers(struct connection *, struct frame *);
void on_stream_data(struct connection *, struct frame *, int64_t now); /* the connection's window knows of it */
void stream_lost(struct connection *, uint32_t place);                 /* the server does not go on with it */
void reader_gives_up(struct connection *, uint32_t place);

#endif
