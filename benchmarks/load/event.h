/*
 * event: what the provider says and the client counts, in the shape of an OpenAI chat completion.
 *
 * Each event carries a marker, @stamp.number: the stamp is the time at which the event was DUE, the number counts the
 * events of its stream from 1. There is one event, in which the digits are overwritten: nothing is built per event.
 */
#ifndef EVENT_H
#define EVENT_H
#include "loop.h"

#define DONE "data: [DONE]\n\n"

enum {
    STAMP_DIGITS = 19, /* what an int64_t of nanoseconds can need */
    SEQ_DIGITS = 8,
    MARKER_SIZE = 1 + STAMP_DIGITS + 1 + SEQ_DIGITS,
};

extern struct event {
    char *chunk; /* the event as one chunk of HTTP/1.1, */
    size_t chunk_size;
    char *text;  /* and within it the event alone */
    size_t size;
} event, event_last; /* the last: what a whole stream ends with, and its chunk with the end of the chunked coding */

void event_prepare(size_t size);
void event_mark(int64_t stamp, uint32_t number);

#endif
