/*
 * provider1: the provider over HTTP/1.1. One chunk = one event = one send().
 */
#include "event.h"
#include "http1.h"
#include "provider.h"
#include <sys/socket.h>

static const char answer_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char answer_end[] = "e\r\n" DONE "\r\n0\r\n\r\n";

/* One connection; its index in `streams` is its descriptor. */
struct stream {
    struct timed timed; /* first: the wheel knows a stream by it */
    enum { CLOSED, IN_HEAD, IN_BODY, IN_CHUNKED_BODY, ANSWERING } state;
    bool head_sent, blocked;
    struct stash stash;
    struct chunked coding;
    uint64_t body_left;
    size_t offset; /* bytes of the current piece that the socket has taken */
};

static struct stream *streams;

static void prepare(void)
{
    streams = allocate(fd_limit, sizeof *streams);
}

static void accepted(int fd)
{
    streams[fd] = (struct stream){.state = IN_HEAD};
}

static int descriptor(const struct stream *s)
{
    return (int)(s - streams);
}

/* Saturating streams are linked only while their socket takes bytes; timed ones as long as they answer. */
static bool is_linked(const struct stream *s)
{
    return s->state == ANSWERING && (wheel.interval_ns || !s->blocked);
}

static void stream_close(struct stream *s)
{
    if (is_linked(s))
        wheel_unlink(&s->timed);
    if (s->state == ANSWERING) {
        provided.left_early++;
        provided.streams--;
    }
    stash_free(&s->stash);
    s->state = CLOSED;
    provided_close(descriptor(s));
}

/* What comes next: the head, an event, the end; nothing if none is due. */
static const char *next_piece(struct stream *s, size_t *size)
{
    struct timed *timed = &s->timed;
    if (!s->head_sent) {
        *size = LENGTH(answer_head);
        return answer_head;
    }
    if (timed->sent < timed->due) {
        if (!s->offset)
            timed->stamp = wheel_stamp(timed);
        event_mark(timed->stamp, timed->sent + 1);
        *size = event.chunk_size;
        return event.chunk;
    }
    *size = LENGTH(answer_end);
    return timed->sent == wheel.events && !answer.hold ? answer_end : NULL;
}

/* Gives the socket what is due, at most `most` events, one send() each. */
static void fire(struct timed *timed, uint32_t most)
{
    struct stream *s = (struct stream *)timed;
    while (!s->blocked && s->state == ANSWERING) {
        bool is_event = s->head_sent && timed->sent < timed->due;
        if (is_event && !most--)
            return;
        size_t size;
        const char *piece = next_piece(s, &size);
        if (!piece)
            return;
        ssize_t n = send(descriptor(s), piece + s->offset, size - s->offset, MSG_NOSIGNAL);
        provided.writes++;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            stream_close(s);
            return;
        }
        s->offset += n < 0 ? 0 : (size_t)n;
        if (s->offset < size) {
            if (!wheel.interval_ns)
                wheel_unlink(timed);
            s->blocked = true;
            provided.blocked++;
            watch(EPOLL_CTL_MOD, descriptor(s), EPOLLIN | EPOLLOUT, (uint32_t)descriptor(s));
            return;
        }
        s->offset = 0;
        if (is_event) {
            timed->sent++;
            provided.events++;
        } else if (!s->head_sent) {
            s->head_sent = true;
        } else {
            wheel_unlink(timed);
            provided.streams--;
            s->state = IN_HEAD;
        }
    }
}

static void stream_answer(struct stream *s)
{
    wheel_join(&s->timed, provided.requests);
    provided_stream();
    s->state = ANSWERING;
    s->head_sent = s->blocked = false;
    s->offset = 0;
    fire(&s->timed, 1);
}

/* Takes bytes of a request. Returns how many were taken, -1 if it is broken; *complete at its last byte. */
static ssize_t request_take(struct stream *s, const char *p, size_t n, bool *complete)
{
    const char *part;
    size_t size;
    char value[64];
    ssize_t taken;
    if (s->state == IN_BODY) {
        taken = (ssize_t)(n < s->body_left ? n : s->body_left);
        s->body_left -= (uint64_t)taken;
        *complete = !s->body_left;
        return taken;
    }
    if (s->state == IN_CHUNKED_BODY) {
        taken = chunked_take(&s->coding, p, n, &part, &size);
        *complete = s->coding.state == CHUNK_END;
        return taken;
    }
    taken = head_take(&s->stash, p, n, &part, &size);
    if (taken < 0 || !part)
        return taken;
    s->body_left = 0;
    s->state = IN_BODY;
    if (head_field(part, size, "transfer-encoding", value)) {
        s->state = IN_CHUNKED_BODY;
        s->coding = (struct chunked){0};
    } else if (head_field(part, size, "content-length", value)) {
        s->body_left = strtoull(value, NULL, 10);
    }
    *complete = s->state == IN_BODY && !s->body_left;
    stash_free(&s->stash);
    return taken;
}

/* Reads requests. Bytes after a request (pipelining) are refused: no relay has a reason to send them. */
static void stream_read(struct stream *s)
{
    ssize_t got = read_input(descriptor(s));
    if (got < 0)
        return;
    if (!got) {
        stream_close(s);
        return;
    }
    size_t n = (size_t)got, used = 0;
    while (used < n && s->state != ANSWERING) {
        bool complete = false;
        ssize_t taken = request_take(s, input + used, n - used, &complete);
        if (taken < 0)
            break;
        used += (size_t)taken;
        if (complete && used == n)
            stream_answer(s);
        else if (complete)
            break;
    }
    if (used < n) {
        provided.refused++;
        stream_close(s);
    }
}

static void ready(int fd, uint32_t events)
{
    struct stream *s = &streams[fd];
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        stream_read(s);
    if (s->state == ANSWERING && s->blocked && events & EPOLLOUT) {
        watch(EPOLL_CTL_MOD, fd, EPOLLIN, (uint32_t)fd);
        s->blocked = false;
        if (!wheel.interval_ns)
            wheel_link(&s->timed);
        fire(&s->timed, wheel.interval_ns ? UINT32_MAX : FAIR_TURN);
    }
}

static void flush(void)
{
}

const struct protocol provider1 = {prepare, accepted, ready, fire, flush};
