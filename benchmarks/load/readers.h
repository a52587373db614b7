/*
 * readers: those who read one stream each, and what they have seen. Nothing here knows how the bytes came.
 *
 * A reader finds the markers in what it is given (event.h), and records delay = now - stamp of each. Since the stamp is
 * the time at which the event was due, a delay includes whatever made it late (no coordinated omission). For the same
 * reason an answer's first event and its end are timed from when its request was due, not from when it was sent.
 */
#ifndef READERS_H
#define READERS_H
#include "event.h"

enum { TAIL_MOST = LENGTH(DONE) + 96 /* an event's identifier */ };

struct reader {
    enum { NOT_YET, CONNECTING, ASKED, READING, IDLE, AWAY, GONE, DEAD } state;
    bool open;        /* has had an event since it connected */
    bool settled;     /* has been open once, or is known never to be */
    bool steady;      /* has been in one response since the window began */
    bool rough;       /* a gap of the window was too long for a clean stream */
    bool begun;       /* the first of this answer has come */
    bool follows;     /* an event of this response has come, which the next one can be measured against */
    bool unrecorded;  /* its request was due outside the window, where that matters */
    bool anywhere;    /* joins a stream that runs: its first number may be any */
    bool resumed;     /* has had an event since it came back */
    unsigned matched; /* bytes of a marker that have come */
    uint64_t stamp, seq;
    uint64_t seen;     /* the number of the last event of this answer, */
    uint32_t had;      /* how many there were, */
    int64_t came_late; /* how late that last one was, */
    int64_t came_due;  /* its stamp, */
    int64_t step;      /* and the time from the stamp before to that; 0: not known */
    uint64_t given_up; /* the number up to which it had seen an answer that it left for a new one */
    int64_t due;       /* when its request was */
    int64_t back;      /* when it was due back from a break, until it has caught up; 0: it has */
    char tail[TAIL_MOST]; /* the last bytes of the response */
};

extern struct reader *readers;
extern uint32_t reader_count;

extern struct result {
    uint64_t requests, finished, answers, connections, left, reconnects, restarts, repeated;
    uint64_t connect, status, framing, closed_early, truncated, out_of_sequence, not_open; /* errors */
    uint64_t events; /* also outside the window */
    uint64_t failed; /* requests that were to be recorded */
} result;

/* The last `apart` of them are not in the counts of the others. With identifiers DONE may have one, too. */
void readers_prepare(uint32_t count, uint32_t apart, bool identified);
bool readers_settled(void);
void readers_begin_window(bool all_open); /* whether all were to be open by now */
void readers_end_window(int64_t end); /* when it was to end */
void readers_report(double window); /* its part of the JSON object */
uint64_t readers_errors(void);

bool reader_busy(const struct reader *); /* a request of it is under way */
void reader_settle(struct reader *);

/* A request has been sent: for a new answer, or to go on with the one that it has read a part of. */
void reader_asked(struct reader *, bool goes_on);

void reader_begun(struct reader *, int64_t now);                            /* the first of an answer is here */
void reader_payload(struct reader *, const char *p, size_t n, int64_t now); /* may begin and end anywhere */
void reader_finished(struct reader *, bool is_stream);
void reader_left(struct reader *);

/* Its response is over before its end, and it will come back at that time. */
void reader_broken(struct reader *, int64_t back);

/* It can not go on with the answer it was in, and asks for a new one. */
void reader_restarts(struct reader *);

/* A stream that failed stays away: a retry would hide the failure in the averages. */
void reader_failed(struct reader *, uint64_t *counter);

#endif
