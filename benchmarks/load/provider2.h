/*
 * provider2: the provider over HTTP/2 (RFC 9113): provider2.c its connections and their frames, streams2.c its streams.
 *
 * What is due on one connection in one turn of the loop leaves in one write, or with --writes each in one per frame.
 * Nothing is closed while a turn is under way, for the wheel may be about to go on to another stream of the same
 * connection: whatever breaks a connection marks it, and the end of the turn closes it.
 */
#ifndef PROVIDER2_H
#define PROVIDER2_H
#include "frames2.h"
#include "provider.h"

struct connection;

struct stream {
    struct timed timed; /* first: the wheel knows a stream by it */
    struct connection *connection;
    uint32_t id; /* 0: not in use */
    bool answering, head_sent;
    bool queued;      /* the time of its answer, which is no stream, has not come */
    struct wish wish;
    const struct document *document; /* the answer; NULL: a stream */
    bool waiting;     /* has something to send that the socket or a window does not take */
    bool stalled;     /* what it is about to send has been counted as kept up by a window */
    size_t offset;    /* bytes of the current piece that have been sent */
    int64_t window;   /* what the peer takes; negative after it made its windows smaller */
    uint32_t request; /* bytes that it was not given new window for */
};

struct connection {
    int fd;
    bool broken, blocked, marked;
    struct connection *next_marked;
    struct inlet in;
    struct outlet out;
    size_t preface; /* bytes of it that have come */
    int64_t window;
    uint32_t stream_window, frame_max; /* as the peer has set them */
    uint32_t request;                  /* bytes that the connection was not given new window for */
    uint32_t last, open;               /* the highest stream so far, and how many there are */
    uint32_t continued;                /* the stream whose header block is not at its end */
    bool continued_ends;
    bool trailers; /* the last header block is behind a request's body */
    struct stream streams[];
};

/* A frame is in the outlet: it leaves now, or at the end of the turn. */
void frame_written(struct connection *);

struct stream *stream_find(struct connection *, uint32_t id); /* NULL: it has ended, or never was */
void stream_open(struct connection *, uint32_t id);           /* there is room for it */
void stream_answer(struct stream *, bool has_body); /* what has none is taken for a GET */
void stream_leave(struct stream *);              /* its reader does not want it any more */
void stream_fire(struct timed *, uint32_t most); /* see struct wheel */
void stream_fire_plain(struct timed *);          /* see struct plain */
void stream_go_on(struct stream *);              /* what it may have waited for is there */
void streams_go_on(struct connection *);

#endif
