/*
 * clients1: clients over HTTP/1.1, a connection for each reader.
 */
#include "clients.h"
#include "http1.h"
#include "outcome.h"
#include "peers.h"
#include "requests1.h"
#include "tls.h"
#include <sys/socket.h>

enum {
    STUCK_WINDOW = 4096, /* the receive buffer of a stuck reader, */
    STUCK_READS = 1024,  /* and what it reads in all */
};

/* One connection; its index in `connections` is its reader's in `readers`. */
struct connection {
    int fd;       /* -1: none */
    bool last;    /* the server said Connection: close */
    bool reused;  /* it has carried an answer before this one */
    bool visible; /* of a stuck reader: the kernel told of the other end */
    bool chunked; /* the answer's framing; else there are `left` bytes of it */
    struct stash stash;
    struct chunked coding;
    uint64_t left;
    char *stream; /* its identifier, if streams have one */
};

static struct connection *connections;

static void prepare(void)
{
    connections = allocate(ask.streams, sizeof *connections);
    char *names = ask.resumable ? allocate(ask.streams, STREAM_ID_SIZE) : NULL;
    for (uint32_t i = 0; i < ask.streams; i++) {
        connections[i].fd = -1;
        connections[i].stream = names ? names + (size_t)i * STREAM_ID_SIZE : NULL;
    }
    if (ask.streams + RESERVED_FDS > fd_limit)
        die("%" PRIu32 " streams need more descriptors than the limit of %zu", ask.streams, fd_limit);
    requests1_prepare();
}

static bool is_stuck(uint32_t index)
{
    return index >= ask.streams - ask.stuck;
}

static void connection_close(struct connection *c)
{
    stash_free(&c->stash);
    if (c->fd >= 0)
        close_socket(c->fd);
    c->fd = -1;
}

static void fail(uint32_t index, uint64_t *counter)
{
    connection_close(&connections[index]);
    client_failed(index, counter);
}

static void connect_reader(uint32_t index)
{
    struct connection *c = &connections[index];
    c->reused = false;
    c->fd = connect_to(ask.port, is_stuck(index) ? STUCK_WINDOW : 0);
    if (c->fd < 0) {
        fail(index, &result.connect);
        return;
    }
    result.connections++;
    readers[index].state = CONNECTING;
    watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, index);
}

/* The connection broke. A server may close one that was idle just as it is used again, and then the request has not
 * been seen by anybody: it is sent anew. */
static void broken(uint32_t index, uint64_t *counter)
{
    struct connection *c = &connections[index];
    bool unseen = ask.open_loop && c->reused && readers[index].state == ASKED && !c->stash.bytes;
    connection_close(c);
    if (unseen)
        connect_reader(index);
    else if (!client_comes_back(index))
        client_failed(index, counter);
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

/* What a reader has to say: it goes on with what it has read a part of, or joins another's stream, or asks for its
 * own. */
static const char *next_request(uint32_t index, size_t *size, bool *goes_on)
{
    struct connection *c = &connections[index];
    struct reader *r = &readers[index];
    bool joins = index && (ask.fan_out || ask.fan_out_plain);
    *goes_on = r->back && r->had && c->stream && *c->stream;
    if (*goes_on)
        return request_resume(c->stream, r->seen, size);
    if (r->back && r->had)
        reader_restarts(r);
    r->anywhere = joins;
    if (joins)
        return request_join(connections[0].stream, size);
    if (c->stream)
        *c->stream = 0;
    return request_post(index, size);
}

static void send_request(uint32_t index)
{
    struct connection *c = &connections[index];
    bool goes_on;
    size_t size;
    const char *request = next_request(index, &size, &goes_on);
    c->coding = (struct chunked){0};
    reader_asked(&readers[index], goes_on);
    /* The request is far smaller than an empty socket buffer: a partial send is a failure like any other. */
    ssize_t n = send_output(c->fd, request, size);
    if (n != (ssize_t)size)
        broken(index, &result.closed_early);
}

static void start(uint32_t index)
{
    struct connection *c = &connections[index];
    c->reused = true;
    if (c->fd < 0)
        connect_reader(index);
    else
        send_request(index);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

/* How the end of the answer will be known. */
static bool take_framing(struct connection *c, const char *head, size_t size)
{
    char value[64], *end;
    c->chunked = head_field(head, size, "transfer-encoding", value);
    if (c->chunked)
        return !strcmp(value, "chunked");
    if (!ask.plain || !head_field(head, size, "content-length", value))
        return false;
    c->left = strtoull(value, &end, 10);
    return !*end && end != value;
}

static void on_head(uint32_t index, const char *head, size_t size)
{
    struct connection *c = &connections[index];
    char value[64];
    if (size < 13 || strncmp(head, "HTTP/1.1 200 ", 13)) {
        fail(index, &result.status);
        return;
    }
    c->last = head_field(head, size, "connection", value) && !strcmp(value, "close");
    if (!take_framing(c, head, size)) {
        fail(index, &result.framing);
        return;
    }
    if (c->stream)
        head_text(head, size, "relay-stream-id", c->stream, STREAM_ID_SIZE);
    readers[index].state = READING;
    stash_free(&c->stash);
}

static ssize_t take_body(struct connection *c, const char *p, size_t n, const char **part, size_t *size)
{
    if (c->chunked)
        return chunked_take(&c->coding, p, n, part, size);
    *part = p;
    *size = n < c->left ? n : (size_t)c->left;
    c->left -= *size;
    return (ssize_t)*size;
}

static bool at_end(const struct connection *c)
{
    return c->chunked ? c->coding.state == CHUNK_END : !c->left;
}

static void on_end(uint32_t index)
{
    struct connection *c = &connections[index];
    reader_finished(&readers[index], !ask.plain);
    if (c->last)
        connection_close(c);
    if (client_finished(index))
        start(index);
    else if (!ask.open_loop)
        connection_close(c);
}

static void leave(uint32_t index)
{
    client_leaves(index);
    connection_close(&connections[index]);
    client_left(index);
}

static void on_payload(uint32_t index, const char *part, size_t size, int64_t now)
{
    struct reader *r = &readers[index];
    if (ask.plain) {
        reader_begun(r, now);
        return;
    }
    reader_payload(r, part, size, now);
    if (client_has_enough(r))
        leave(index);
}

/* Takes what has come for a request. */
static void take_answer(uint32_t index, const char *p, size_t n, int64_t now)
{
    struct connection *c = &connections[index];
    struct reader *r = &readers[index];
    size_t used = 0;
    while (used < n && (r->state == ASKED || r->state == READING)) {
        const char *part;
        size_t size;
        ssize_t taken;
        if (r->state == ASKED) {
            taken = head_take(&c->stash, p + used, n - used, &part, &size);
            if (taken >= 0 && part)
                on_head(index, part, size);
        } else {
            taken = take_body(c, p + used, n - used, &part, &size);
            if (taken >= 0 && size)
                on_payload(index, part, size, now);
        }
        if (taken < 0) {
            fail(index, &result.framing);
            return;
        }
        used += (size_t)taken;
        if (r->state == READING && at_end(c)) {
            if (used < n) /* bytes after the end of a response that nobody asked for */
                fail(index, &result.framing);
            else
                on_end(index);
            return;
        }
    }
}

static void read_once(uint32_t index)
{
    ssize_t got = read_input(connections[index].fd);
    if (!got)
        broken(index, &result.closed_early);
    /* A clock read for each recv(), 1 % of what the recv() costs: one for each batch would call the last of 512
     * events earlier than it was. */
    if (got > 0)
        take_answer(index, input, (size_t)got, now_ns());
}

static void on_readable(uint32_t index)
{
    do
        read_once(index);
    while (reader_busy(&readers[index]) && tls_pending(connections[index].fd));
}

/* ---- stuck readers ----------------------------------------------------------------------------------------- */

static void stuck_gone(uint32_t index)
{
    outcome.stuck_gone++;
    outcome.stuck_last_gone = now_ns();
    connection_close(&connections[index]);
    readers[index].state = GONE;
}

/* Finds out who was closed without being told, for his buffer is full. */
static void look_at_stuck(void)
{
    for (uint32_t i = ask.streams - ask.stuck; i < ask.streams; i++)
        if (connections[i].visible && readers[i].state == READING && peer_state(connections[i].fd) == PEER_CLOSED)
            stuck_gone(i);
}

/* It reads a little, and from then on is only told when it is cut off. */
static void on_stuck(uint32_t index)
{
    struct connection *c = &connections[index];
    struct reader *r = &readers[index];
    if (r->state == READING) {
        stuck_gone(index);
        return;
    }
    ssize_t got = read_some(c->fd, STUCK_READS);
    if (got < 0)
        return;
    if (got < 13 || strncmp(input, "HTTP/1.1 200 ", 13)) {
        fail(index, got > 0 ? &result.status : &result.closed_early);
        return;
    }
    r->state = READING;
    reader_settle(r);
    c->visible = peer_state(c->fd) == PEER_OPEN;
    watch(EPOLL_CTL_MOD, c->fd, EPOLLRDHUP, index);
}

/* ---- readiness --------------------------------------------------------------------------------------------- */

/* Nothing is asked on it: it is of no use any more, whatever the server has to say. */
static void on_idle(uint32_t index)
{
    if (read_input(connections[index].fd) >= 0)
        connection_close(&connections[index]);
}

static void on_connected(uint32_t index)
{
    struct connection *c = &connections[index];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        broken(index, &result.connect);
        return;
    }
    watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, index);
    int done = tls_on ? tls_handshake(c->fd) : 1;
    if (done < 0)
        broken(index, &result.connect);
    else if (done)
        send_request(index);
}

static void ready(uint32_t index, uint32_t events)
{
    (void)events;
    struct reader *r = &readers[index];
    if (connections[index].fd < 0)
        return;
    if (r->state == CONNECTING)
        on_connected(index);
    else if (!reader_busy(r))
        on_idle(index);
    else if (is_stuck(index))
        on_stuck(index);
    else
        on_readable(index);
}

static bool kept(uint32_t index)
{
    return connections[index].fd >= 0;
}

static void break_off(uint32_t index)
{
    connection_close(&connections[index]);
}

static uint64_t segments(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ask.streams; i++)
        if (connections[i].fd >= 0)
            sum += segments_received(connections[i].fd);
    return sum;
}

const struct client_protocol clients1 = {prepare, start, ready, segments, kept, leave, break_off, look_at_stuck};
