/*
 * clients2: clients over HTTP/2 (RFC 9113), several readers on each connection.
 *
 * A response's head is known by its first field alone, which is :status by section 8.3 and, since 200 stands in the
 * static table (RFC 7541, A), one byte in any sensible encoding. Windows are given back when half of them is used.
 */
#include "clients.h"
#include "frames2.h"
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd; /* -1: none, not yet or not any more */
    bool connecting, blocked, leaving, ended;
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

static struct connection *connections;
static uint32_t connection_count;
static int64_t connection_window;
static uint8_t request[1024]; /* the header block */
static size_t request_size;

static void ask_all(struct connection *);

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

static void prepare(void)
{
    enum { METHOD_POST = 0x83, SCHEME_HTTP = 0x86 };
    enum { AUTHORITY = 1, PATH = 4, ACCEPT = 19, CONTENT_LENGTH = 28, CONTENT_TYPE = 31 };
    char value[32];
    request[request_size++] = METHOD_POST;
    request[request_size++] = SCHEME_HTTP;
    put_field(PATH, ask.path);
    snprintf(value, sizeof value, "127.0.0.1:%d", ask.port);
    put_field(AUTHORITY, value);
    put_field(CONTENT_TYPE, "application/json");
    put_field(ACCEPT, "text/event-stream");
    snprintf(value, sizeof value, "%zu", ask_body_size);
    put_field(CONTENT_LENGTH, value);

    int64_t all = (int64_t)ask.window * ask.per_connection;
    connection_window = all < WINDOW_DEFAULT ? WINDOW_DEFAULT : all > WINDOW_MAX ? WINDOW_MAX : all;
    connection_count = (ask.streams + ask.per_connection - 1) / ask.per_connection;
    if (connection_count + RESERVED_FDS > fd_limit)
        die("%" PRIu32 " connections need more descriptors than the limit of %zu", connection_count, fd_limit);
    connections = allocate(connection_count, sizeof *connections);
    for (uint32_t i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        c->fd = -1;
        c->first = i * ask.per_connection;
        c->count = ask.streams - c->first < ask.per_connection ? ask.streams - c->first : ask.per_connection;
        c->streams = allocate(c->count, sizeof *c->streams);
        c->windows = allocate(c->count, sizeof *c->windows);
    }
}

/* Nobody on it goes on, nobody comes anew. */
static void connection_fail(struct connection *c, uint64_t *counter)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct reader *r = &readers[c->first + i];
        if (r->state != DEAD && r->state != NOT_YET)
            reader_failed(r, counter);
    }
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->ended = true;
}

static void connection_flush(struct connection *c)
{
    if (c->fd < 0 || c->connecting || c->blocked || !c->out.used)
        return;
    int done = outlet_send(&c->out, c->fd);
    if (done < 0) {
        connection_fail(c, &result.closed_early);
    } else if (!done) {
        c->blocked = true;
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, (uint32_t)(c - connections));
    }
}

static void connection_open(struct connection *c)
{
    const uint32_t settings[][2] = {{ENABLE_PUSH, 0}, {INITIAL_WINDOW_SIZE, ask.window}};
    c->fd = connect_to(ask.port);
    if (c->fd < 0) {
        connection_fail(c, &result.connect);
        return;
    }
    result.connections++;
    c->connecting = true;
    c->next = 1;
    c->window = connection_window;
    c->send_window = WINDOW_DEFAULT;
    put_bytes(&c->out, PREFACE, LENGTH(PREFACE));
    put_settings(&c->out, settings, 2);
    if (connection_window > WINDOW_DEFAULT)
        put_number(&c->out, FRAME_WINDOW_UPDATE, 0, (uint32_t)(connection_window - WINDOW_DEFAULT));
    watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, (uint32_t)(c - connections));
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static void ask_one(struct connection *c, uint32_t i)
{
    struct reader *r = &readers[c->first + i];
    if (c->leaving || c->ended) {
        reader_failed(r, &result.closed_early);
        return;
    }
    r->state = CONNECTING;
    if (c->connecting || c->send_window < (int64_t)ask_body_size)
        return; /* asked by ask_all() */
    c->send_window -= (int64_t)ask_body_size;
    c->streams[i] = c->next;
    c->windows[i] = (int32_t)ask.window;
    put_frame(&c->out, FRAME_HEADERS, END_HEADERS, c->next, request, request_size);
    put_frame(&c->out, FRAME_DATA, END_STREAM, c->next, ask_body, ask_body_size);
    c->next += 2;
    reader_asked(r);
}

static void ask_all(struct connection *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (readers[c->first + i].state == CONNECTING)
            ask_one(c, i);
}

static void start(uint32_t index)
{
    struct connection *c = &connections[index / ask.per_connection];
    readers[index].state = CONNECTING;
    if (c->fd < 0 && !c->ended)
        connection_open(c);
    if (readers[index].state == CONNECTING)
        ask_one(c, index - c->first);
    connection_flush(c);
}

/* ---- responses --------------------------------------------------------------------------------------------- */

/* Which of its readers has this stream; count: none any more. */
static uint32_t place_of(const struct connection *c, uint32_t stream)
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
    reader_failed(&readers[c->first + i], counter);
}

static void stream_end(struct connection *c, uint32_t i)
{
    struct reader *r = &readers[c->first + i];
    if (r->state != READING) {
        stream_fail(c, i, &result.framing);
        return;
    }
    c->streams[i] = 0;
    reader_finished(r);
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

static void on_headers(struct connection *c, struct frame *frame)
{
    uint32_t i = place_of(c, frame->stream);
    bool ends = frame->flags & END_STREAM;
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

static void on_data(struct connection *c, struct frame *frame, int64_t now)
{
    uint32_t i = place_of(c, frame->stream);
    c->window -= frame->size;
    if (c->window < 0) {
        connection_fail(c, &result.framing);
        return;
    }
    if (c->window < connection_window / 2) {
        put_number(&c->out, FRAME_WINDOW_UPDATE, 0, (uint32_t)(connection_window - c->window));
        c->window = connection_window;
    }
    if (i == c->count)
        return; /* it failed meanwhile */
    c->windows[i] -= (int32_t)frame->size;
    if (c->windows[i] < 0 || readers[c->first + i].state != READING || !frame_strip(frame)) {
        stream_fail(c, i, &result.framing);
        return;
    }
    reader_payload(&readers[c->first + i], (const char *)frame->payload, frame->size, now);
    if (frame->flags & END_STREAM) {
        stream_end(c, i);
    } else if (c->windows[i] < (int32_t)(ask.window / 2)) {
        put_number(&c->out, FRAME_WINDOW_UPDATE, frame->stream, ask.window - (uint32_t)c->windows[i]);
        c->windows[i] = (int32_t)ask.window;
    }
}

static void on_settings(struct connection *c, const struct frame *frame)
{
    uint32_t at = 0, value;
    uint16_t name;
    if (frame->flags & ACK)
        return;
    while (setting_take(frame, &at, &name, &value)) {
        if (name == MAX_CONCURRENT_STREAMS && value < c->count)
            die("the server takes %" PRIu32 " streams on a connection: see --streams-per-connection", value);
        if (name == INITIAL_WINDOW_SIZE && value < ask_body_size)
            die("the server's window is smaller than a request");
    }
    put_frame(&c->out, FRAME_SETTINGS, ACK, 0, NULL, 0);
}

static void on_goaway(struct connection *c, const struct frame *frame)
{
    uint32_t last = frame->size < 8 ? 0 : get32(frame->payload) & INT32_MAX;
    c->leaving = true;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->streams[i] > last) {
            c->streams[i] = 0;
            reader_failed(&readers[c->first + i], &result.closed_early);
        }
    }
    ask_all(c); /* who waits to ask, waits in vain */
}

static void on_frame(struct connection *c, struct frame *frame, int64_t now)
{
    bool continues = frame->type == FRAME_CONTINUATION;
    if (continues != (c->continued != 0) || (continues && frame->stream != c->continued)) {
        connection_fail(c, &result.framing);
        return;
    }
    uint32_t i;
    switch (frame->type) {
    case FRAME_DATA:
        on_data(c, frame, now);
        break;
    case FRAME_HEADERS:
    case FRAME_CONTINUATION:
        on_headers(c, frame);
        break;
    case FRAME_RST_STREAM:
        if ((i = place_of(c, frame->stream)) < c->count) {
            c->streams[i] = 0;
            reader_failed(&readers[c->first + i], &result.closed_early);
        }
        break;
    case FRAME_SETTINGS:
        on_settings(c, frame);
        break;
    case FRAME_PING:
        if (!(frame->flags & ACK))
            put_frame(&c->out, FRAME_PING, ACK, 0, frame->payload, frame->size);
        break;
    case FRAME_GOAWAY:
        on_goaway(c, frame);
        break;
    case FRAME_WINDOW_UPDATE:
        if (!frame->stream && frame->size == 4) {
            c->send_window += get32(frame->payload) & INT32_MAX;
            ask_all(c);
        }
        break;
    default: /* what is unknown, and PRIORITY */
        break;
    }
}

static void on_readable(struct connection *c)
{
    ssize_t got = read_input(c->fd);
    if (!got)
        connection_fail(c, &result.closed_early);
    if (got <= 0)
        return;
    int64_t now = now_ns();
    size_t n = (size_t)got, used = 0;
    while (used < n && c->fd >= 0) {
        struct frame frame;
        ssize_t taken = frame_take(&c->in, input + used, n - used, &frame);
        if (taken < 0) {
            connection_fail(c, &result.framing);
            return;
        }
        if (frame.payload)
            on_frame(c, &frame, now);
        used += (size_t)taken;
    }
}

static void ready(uint32_t key, uint32_t events)
{
    struct connection *c = &connections[key];
    if (c->fd < 0)
        return;
    if (c->connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            connection_fail(c, &result.connect);
            return;
        }
        c->connecting = false;
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, key);
        ask_all(c);
    } else {
        if (c->blocked && events & EPOLLOUT) {
            c->blocked = false;
            watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, key);
        }
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
    }
    connection_flush(c);
}

static uint64_t segments(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < connection_count; i++)
        if (connections[i].fd >= 0)
            sum += segments_received(connections[i].fd);
    return sum;
}

const struct client_protocol clients2 = {prepare, start, ready, segments};
