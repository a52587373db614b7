/*
 * frames2: the frames of HTTP/2 (RFC 9113, section 4), in and out, without a socket's or a stream's meaning.
 *
 * Over cleartext TCP with prior knowledge (section 3.3). Header blocks are neither decoded nor compressed: what is sent
 * names nothing of a dynamic table, and of what comes only the first field's index is looked at.
 */
#ifndef FRAMES2_H
#define FRAMES2_H
#include "loop.h"

enum frame_type {
    FRAME_DATA, FRAME_HEADERS, FRAME_PRIORITY, FRAME_RST_STREAM, FRAME_SETTINGS, FRAME_PUSH_PROMISE, FRAME_PING,
    FRAME_GOAWAY, FRAME_WINDOW_UPDATE, FRAME_CONTINUATION,
};

enum { END_STREAM = 0x1, ACK = 0x1, END_HEADERS = 0x4, PADDED = 0x8, PRIORITY = 0x20 };

enum setting { ENABLE_PUSH = 2, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5 };

enum error_code { NO_ERROR = 0, PROTOCOL_ERROR = 1, FLOW_CONTROL_ERROR = 3, REFUSED_STREAM = 7, CANCEL = 8 };

enum {
    FRAME_HEAD = 9,
    FRAME_MAX = 16384,      /* neither end here offers to take longer ones */
    WINDOW_DEFAULT = 65535,
    WINDOW_MAX = INT32_MAX,
};

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

struct frame {
    uint8_t type, flags;
    uint32_t stream, size;
    const uint8_t *payload; /* NULL: the frame is not complete yet */
};

/* What came of a frame that is not complete. */
struct inlet {
    uint8_t *kept;
    size_t used;
};

/* Takes bytes up to the end of a frame. Returns how many were taken, -1 if the frame is longer than allowed. The
 * payload points into p or into the inlet, and holds until the next call. */
ssize_t frame_take(struct inlet *, const char *p, size_t n, struct frame *);

/* Cuts padding and priority off the payload of DATA or HEADERS. False if there is less than that. */
bool frame_strip(struct frame *);

uint32_t get32(const uint8_t *);

/* One setting after another: false at the end of the frame. *at begins with 0. */
bool setting_take(const struct frame *, uint32_t *at, uint16_t *name, uint32_t *value);

/* Frames that wait for the socket. */
struct outlet {
    uint8_t *bytes;
    size_t used, sent, room;
};

void put_frame(struct outlet *, enum frame_type, uint8_t flags, uint32_t stream, const void *payload, size_t size);
void put_number(struct outlet *, enum frame_type, uint32_t stream, uint32_t number); /* RST_STREAM, WINDOW_UPDATE */
void put_goaway(struct outlet *, uint32_t last_stream, enum error_code);
void put_settings(struct outlet *, const uint32_t (*pairs)[2], size_t count); /* name and value */
void put_bytes(struct outlet *, const void *bytes, size_t size);

/* Gives the socket what waits. 1: all of it is gone; 0: the socket is full; -1: it is broken. */
int outlet_send(struct outlet *, int fd);

#endif
