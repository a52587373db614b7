/*
 * readers: those who read one stream each, and what they have seen. Nothing here knows how the bytes came.
 *
 * A reader finds the markers in what it is given (event.h), and records delay = now - stamp of each. Since the stamp is
 * the time at which the event was due, a delay includes whatever made it late (no coordinated omission).
 */
#ifndef READERS_H
#define READERS_H
#include "event.h"

struct reader {
    enum { NOT_YET, CONNECTING, ASKED, READING, DEAD } state;
    bool open;        /* has had an event since it connected */
    bool steady;      /* has been in one response since the window began */
    unsigned matched; /* bytes of a marker that have come */
    uint64_t stamp, seq;
    uint64_t seen;    /* the number of the last event of this response */
    int64_t asked;
    char tail[LENGTH(DONE)];
};

extern struct reader *readers;
extern uint32_t reader_count;

extern struct result {
    uint64_t requests, finished, connections;
    uint64_t connect, status, framing, closed_early, truncated, out_of_sequence, not_open; /* errors */
    uint64_t events; /* also outside the window */
} result;

void readers_prepare(uint32_t count);
bool readers_settled(void); /* each is open, or known never to be */
void readers_begin_window(void);
void readers_end_window(void);
void readers_report(double window, double segments_per_event);

void reader_asked(struct reader *);
void reader_payload(struct reader *, const char *p, size_t n, int64_t now); /* may begin and end anywhere */
void reader_finished(struct reader *);

/* A stream that failed stays away: a retry would hide the failure in the averages. */
void reader_failed(struct reader *, uint64_t *counter);

#endif
