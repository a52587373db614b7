#include "clients2.h"

static uint8_t request[1024]; /* the header block */
static size_t request_size;

/* A literal without indexing, its name from the static table (RFC 7541, 6.2.2). */
static void put_field(unsigned name, const char *value)
{
    size_t size = strlen(value);
    if (size > 126)
        die("--path is too long");
    if (name < 15) {
        request[request_size++] = (uint8_t)name;
    } else {
        request[request_size++] = 15;
        request[request_size++] = (uint8_t)(name - 15);
    }
    request[request_size++] = (uint8_t)size;
    memcpy(request + request_size, value, size);
    request_size += size;
}

void asks2_prepare(void)
{
    enum { METHOD_POST = 0x83, SCHEME_HTTP = 0x86, SCHEME_HTTPS = 0x87 };
    enum { AUTHORITY = 1, PATH = 4, ACCEPT = 19, CONTENT_LENGTH = 28, CONTENT_TYPE = 31 };
    char value[32];
    request[request_size++] = METHOD_POST;
    request[request_size++] = ask.tls ? SCHEME_HTTPS : SCHEME_HTTP;
    put_field(PATH, ask.path);
    snprintf(value, sizeof value, "127.0.0.1:%d", ask.port);
    put_field(AUTHORITY, value);
    put_field(CONTENT_TYPE, "application/json");
    put_field(ACCEPT, ask.plain ? "application/json" : "text/event-stream");
    snprintf(value, sizeof value, "%zu", ask_body_size());
    put_field(CONTENT_LENGTH, value);
}

void ask_one(struct connection *c, uint32_t i)
{
    struct reader *r = &readers[c->first + i];
    size_t size = ask_body_size();
    if (c->ended || (c->leaving && !ask.open_loop)) {
        client_failed(c->first + i, &result.closed_early);
        return;
    }
    r->state = CONNECTING;
    if (c->connecting || c->leaving || c->send_window < (int64_t)size)
        return; /* asked by ask_all() */
    c->send_window -= (int64_t)size;
    c->streams[i] = c->next;
    c->windows[i] = (int32_t)ask.window;
    put_frame(&c->out, FRAME_HEADERS, END_HEADERS, c->next, request, request_size);
    put_frame(&c->out, FRAME_DATA, END_STREAM, c->next, ask_body(c->first + i), size);
    c->next += 2;
    reader_asked(r, false);
}

void ask_all(struct connection *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (readers[c->first + i].state == CONNECTING)
            ask_one(c, i);
}

uint32_t place_of(const struct connection *c, uint32_t stream)
{
    uint32_t likely = (stream >> 1) % c->count, i = 0;
    if (!stream)
        return c->count;
    if (c->streams[likely] == stream)
        return likely;
    while (i < c->count && c->streams[i] != stream)
        i++;
    return i;
}

static void stream_fail(struct connection *c, uint32_t i, uint64_t *counter)
{
    put_number(&c->out, FRAME_RST_STREAM, c->streams[i], CANCEL);
    c->streams[i] = 0;
    client_failed(c->first + i, counter);
}

void stream_lost(struct connection *c, uint32_t i)
{
    c->streams[i] = 0;
    client_failed(c->first + i, &result.closed_early);
}

void reader_gives_up(struct connection *c, uint32_t i)
{
    client_leaves(c->first + i);
    if (c->streams[i])
        put_number(&c->out, FRAME_RST_STREAM, c->streams[i], CANCEL);
    c->streams[i] = 0;
    client_left(c->first + i);
}

static void stream_end(struct connection *c, uint32_t i)
{
    struct reader *r = &readers[c->first + i];
    if (r->state != READING) {
        stream_fail(c, i, &result.framing);
        return;
    }
    c->streams[i] = 0;
    reader_finished(r, !ask.plain);
    if (client_finished(c->first + i))
        ask_one(c, i);
}

static bool is_200(const struct frame *frame)
{
    enum { STATUS_200 = 0x88 };
    const uint8_t *p = frame->payload, *end = p + frame->size;
    while (p < end && (*p & 0xe0) == 0x20) { /* the dynamic table's size may be set before it */
        bool goes_on = (*p++ & 0x1f) == 0x1f;
        while (p < end && goes_on)
            goes_on = *p++ & 0x80;
    }
    return p < end && *p == STATUS_200;
}

void on_headers(struct connection *c, struct frame *frame)
{
    uint32_t i = place_of(c, frame->stream);
    bool ends = frame->flags & END_STREAM;
    c->served = true;
    if (frame->type == FRAME_CONTINUATION) {
        ends = c->continued_ends;
    } else if (i < c->count && readers[c->first + i].state == ASKED) {
        if (!frame_strip(frame) || !is_200(frame)) {
            stream_fail(c, i, &result.status);
            i = c->count;
        } else {
            readers[c->first + i].state = READING;
        }
    } else if (i < c->count && !ends) { /* a second head, and not trailers */
        stream_fail(c, i, &result.framing);
        i = c->count;
    }
    c->continued = frame->flags & END_HEADERS ? 0 : frame->stream;
    c->continued_ends = ends;
    if (!c->continued && ends && i < c->count)
        stream_end(c, i);
}

void on_stream_data(struct connection *c, struct frame *frame, int64_t now)
{
    uint32_t i = place_of(c, frame->stream);
    if (i == c->count)
        return; /* it failed meanwhile, or has left */
    struct reader *r = &readers[c->first + i];
    c->windows[i] -= (int32_t)frame->size;
    if (c->windows[i] < 0 || r->state != READING || !frame_strip(frame)) {
        stream_fail(c, i, &result.framing);
        return;
    }
    if (!ask.plain)
        reader_payload(r, (const char *)frame->payload, frame->size, now);
    else if (frame->size)
        reader_begun(r, now);
    if (frame->flags & END_STREAM) {
        stream_end(c, i);
    } else if (client_has_enough(r)) {
        reader_gives_up(c, i);
    } else if (c->windows[i] < (int32_t)(ask.window / 2)) {
        put_number(&c->out, FRAME_WINDOW_UPDATE, frame->stream, ask.window - (uint32_t)c->windows[i]);
        c->windows[i] = (int32_t)ask.window;
    }
}
