/*
 * requests1: what clients say over HTTP/1.1.
 */
#ifndef REQUESTS1_H
#define REQUESTS1_H
#include "clients.h"

enum { STREAM_ID_SIZE = 65 };

void requests1_prepare(void);

/* A request of this reader; it holds until the next call. `stream` names the one that it joins or goes on with. */
const char *request_post(uint32_t reader, size_t *size);
const char *request_resume(const char *stream, uint64_t seen, size_t *size);
const char *request_join(const char *stream, size_t *size); /* what is live; see also --fan-out-plain */

#endif
