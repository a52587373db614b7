/*
 * http1: RFC 9112 as far as a benchmark needs it: where a head ends, one of its fields, the chunked coding.
 */
#ifndef HTTP1_H
#define HTTP1_H
#include "loop.h"

/* A head that did not come in one read. Most do, and then nothing is kept. */
struct stash {
    char *bytes;
    size_t used;
};

void stash_free(struct stash *);

/* Takes bytes up to the end of a head. Returns how many were taken, -1 if the head is too long. *head is NULL while
 * the head is incomplete; it points into p or into the stash, which the caller frees afterwards. */
ssize_t head_take(struct stash *, const char *p, size_t n, const char **head, size_t *size);

/* Copies the value of a field, cut to what there is room for. False if the head does not have it. */
bool head_text(const char *head, size_t size, const char *name, char *value, size_t room);

/* The same, lower-cased. */
bool head_field(const char *head, size_t size, const char *name, char value[64]);

/* The chunked transfer coding, taken apart at any split. */
struct chunked {
    enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF, CHUNK_TRAILER,
           CHUNK_TRAILER_LINE, CHUNK_END_LF, CHUNK_END } state;
    unsigned digits;
    uint64_t left;
};

/* Takes bytes until it has found one run of payload, or the end, or has used all n. Returns how many were taken,
 * -1 if the framing is broken. *size is the length of the run, 0 if there is none. */
ssize_t chunked_take(struct chunked *, const char *p, size_t n, const char **data, size_t *size);

#endif
