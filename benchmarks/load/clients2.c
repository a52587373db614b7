#include "clients2.h"
#include "tls.h"
#include <sys/socket.h>

static struct connection *connections;
static uint32_t connection_count;
static int64_t connection_window;

static void prepare(void)
{
    asks2_prepare();
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

/* ---- connections ------------------------------------------------------------------------------------------- */

static void connection_open(struct connection *);

static bool has_readers(const struct connection *c, bool waiting)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (waiting ? readers[c->first + i].state == CONNECTING : c->streams[i] != 0)
            return true;
    return false;
}

/* Closes it, and opens it anew for those who wait to ask. */
static void connection_renew(struct connection *c)
{
    if (c->fd >= 0)
        close_socket(c->fd);
    c->fd = -1;
    c->connecting = c->blocked = c->leaving = c->served = false;
    c->continued = 0;
    c->in.used = c->out.used = c->out.sent = 0;
    if (has_readers(c, true))
        connection_open(c);
}

/* Nobody on it goes on. With arrivals it can be opened anew; and a server may close one that was idle just as it is
 * used again, so what is not answered yet is asked anew if others were answered. Without, nobody comes anew. */
static void connection_fail(struct connection *c, uint64_t *counter)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct reader *r = &readers[c->first + i];
        bool unseen = ask.open_loop && c->served && (r->state == CONNECTING || r->state == ASKED);
        c->streams[i] = 0;
        if (unseen)
            r->state = CONNECTING;
        else if (reader_busy(r))
            client_failed(c->first + i, counter);
    }
    if (ask.open_loop) {
        connection_renew(c);
        return;
    }
    if (c->fd >= 0)
        close_socket(c->fd);
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
    c->fd = connect_to(ask.port, 0);
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

/* What the server has no more requests for ends with its last response; only with arrivals others may wait then. */
static void connection_retire(struct connection *c)
{
    if (c->leaving && ask.open_loop && !has_readers(c, false))
        connection_renew(c);
}

static void start(uint32_t index)
{
    struct connection *c = &connections[index / ask.per_connection];
    readers[index].state = CONNECTING;
    if (c->fd < 0 && !c->ended)
        connection_open(c);
    if (readers[index].state == CONNECTING)
        ask_one(c, index - c->first);
    connection_retire(c);
    connection_flush(c);
}

static bool kept(uint32_t index)
{
    const struct connection *c = &connections[index / ask.per_connection];
    return c->fd >= 0 && !c->leaving;
}

static void leave(uint32_t index)
{
    struct connection *c = &connections[index / ask.per_connection];
    reader_gives_up(c, index - c->first);
    connection_flush(c);
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

static void on_data(struct connection *c, struct frame *frame, int64_t now)
{
    c->window -= frame->size;
    if (c->window < 0) {
        connection_fail(c, &result.framing);
        return;
    }
    if (c->window < connection_window / 2) {
        put_number(&c->out, FRAME_WINDOW_UPDATE, 0, (uint32_t)(connection_window - c->window));
        c->window = connection_window;
    }
    on_stream_data(c, frame, now);
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
        if (name == INITIAL_WINDOW_SIZE && value < ask_body_size())
            die("the server's window is smaller than a request");
    }
    put_frame(&c->out, FRAME_SETTINGS, ACK, 0, NULL, 0);
}

static void on_goaway(struct connection *c, const struct frame *frame)
{
    uint32_t last = frame->size < 8 ? 0 : get32(frame->payload) & INT32_MAX;
    c->leaving = true;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->streams[i] > last && ask.open_loop) {
            c->streams[i] = 0;
            readers[c->first + i].state = CONNECTING; /* nobody has seen its request */
        } else if (c->streams[i] > last) {
            stream_lost(c, i);
        }
    }
    ask_all(c); /* without arrivals who waits to ask waits in vain */
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
        if ((i = place_of(c, frame->stream)) < c->count)
            stream_lost(c, i);
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
    while (used < n && c->fd >= 0 && !c->connecting) { /* it may be opened anew meanwhile */
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
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, key);
        int done = tls_on ? tls_handshake(c->fd) : 1;
        if (done < 0)
            connection_fail(c, &result.connect);
        if (done <= 0)
            return;
        c->connecting = false;
        ask_all(c);
    } else {
        if (c->blocked && events & EPOLLOUT) {
            c->blocked = false;
            watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, key);
        }
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c);
        while (c->fd >= 0 && !c->connecting && tls_pending(c->fd))
            on_readable(c);
    }
    connection_retire(c);
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

const struct client_protocol clients2 = {prepare, start, ready, segments, kept, leave, NULL, NULL};
