/*
 * wish: what the body of a request asks for, found at any split of its bytes: "stream":true and "user":"rN".
 */
#ifndef WISH_H
#define WISH_H
#include "loop.h"

struct wish {
    enum { WISH_TEXT, WISH_NAME, WISH_COLON, WISH_VALUE, WISH_TRUE, WISH_READER } state;
    bool stream;     /* wants a stream */
    bool is_user;    /* the name whose value is looked at; else it is "stream" */
    bool has_reader; /* the next is set */
    uint32_t reader;
    unsigned size; /* of what has matched */
    char name[6];
};

void wish_take(struct wish *, const char *p, size_t n);

#endif
