/*
 * clients1: clients over HTTP/1.1, a connection for each reader.
 */
#include "clients.h"
#include "http1.h"
#include <sys/socket.h>
#include <unistd.h>

/* One connection; its index in `connections` is its reader's in `readers`. */
struct connection {
    int fd;    /* -1: none */
    bool last; /* the server said Connection: close */
    struct stash stash;
    struct chunked coding;
};

static struct connection *connections;
static char request[2048];
static size_t request_size;

static void prepare(void)
{
    connections = allocate(ask.streams, sizeof *connections);
    for (uint32_t i = 0; i < ask.streams; i++)
        connections[i].fd = -1;
    if (ask.streams + RESERVED_FDS > fd_limit)
        die("%" PRIu32 " streams need more descriptors than the limit of %zu", ask.streams, fd_limit);
    int used = snprintf(request, sizeof request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Accept: text/event-stream\r\nContent-Length: %zu\r\n\r\n%s",
                        ask.path, ask.port, ask_body_size, ask_body);
    if (used < 0 || (size_t)used >= sizeof request)
        die("--path is too long");
    request_size = (size_t)used;
}

static void connection_close(struct connection *c)
{
    stash_free(&c->stash);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void fail(uint32_t index, uint64_t *counter)
{
    reader_failed(&readers[index], counter);
    connection_close(&connections[index]);
}

static void connect_reader(uint32_t index)
{
    struct connection *c = &connections[index];
    c->fd = connect_to(ask.port);
    if (c->fd < 0) {
        fail(index, &result.connect);
        return;
    }
    result.connections++;
    readers[index].state = CONNECTING;
    watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, index);
}

static void send_request(uint32_t index)
{
    struct connection *c = &connections[index];
    /* The request is far smaller than an empty socket buffer: a partial send is a failure like any other. */
    ssize_t n = send(c->fd, request, request_size, MSG_NOSIGNAL);
    if (n != (ssize_t)request_size) {
        fail(index, &result.closed_early);
        return;
    }
    c->coding = (struct chunked){0};
    reader_asked(&readers[index]);
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
    if (!head_field(head, size, "transfer-encoding", value) || strcmp(value, "chunked")) {
        fail(index, &result.framing);
        return;
    }
    readers[index].state = READING;
    stash_free(&c->stash);
}

static void on_end(uint32_t index)
{
    struct connection *c = &connections[index];
    reader_finished(&readers[index]);
    if (c->last) {
        connection_close(c);
        connect_reader(index);
    } else {
        send_request(index);
    }
}

static void on_readable(uint32_t index)
{
    struct connection *c = &connections[index];
    struct reader *r = &readers[index];
    ssize_t got = read_input(c->fd);
    if (got < 0)
        return;
    if (!got) {
        fail(index, &result.closed_early);
        return;
    }
    /* A clock read for each recv(), 1 % of what the recv() costs: one for each batch would call the last of 512
     * events earlier than it was. */
    int64_t now = now_ns();
    size_t n = (size_t)got, used = 0;
    while (used < n && r->state != DEAD) {
        const char *part;
        size_t size;
        ssize_t taken;
        if (r->state == ASKED) {
            taken = head_take(&c->stash, input + used, n - used, &part, &size);
            if (taken >= 0 && part)
                on_head(index, part, size);
        } else {
            taken = chunked_take(&c->coding, input + used, n - used, &part, &size);
            if (taken >= 0 && size)
                reader_payload(r, part, size, now);
        }
        if (taken < 0) {
            fail(index, &result.framing);
            return;
        }
        used += (size_t)taken;
        if (r->state == READING && c->coding.state == CHUNK_END) {
            if (used < n) /* bytes after the end of a response that nobody asked for */
                fail(index, &result.framing);
            else
                on_end(index);
            return;
        }
    }
}

static void ready(uint32_t index, uint32_t events)
{
    (void)events;
    struct connection *c = &connections[index];
    if (readers[index].state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            fail(index, &result.connect);
            return;
        }
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, index);
        send_request(index);
    } else if (readers[index].state != DEAD) {
        on_readable(index);
    }
}

static uint64_t segments(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ask.streams; i++)
        if (connections[i].fd >= 0)
            sum += segments_received(connections[i].fd);
    return sum;
}

const struct client_protocol clients1 = {prepare, connect_reader, ready, segments};
