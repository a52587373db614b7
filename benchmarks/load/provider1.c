/*
 * provider1: the provider over HTTP/1.1. One chunk = one event = one send(); an answer that is no stream is one too.
 */
#include "event.h"
#include "http1.h"
#include "provider.h"

static const char answer_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

enum { REPLY_HEAD = 128 };

/* A whole answer, its head before it. */
static struct reply {
    char *bytes;
    size_t head, size;
} completion_reply, models_reply, health_reply;

/* One connection; its index in `streams` is its descriptor. */
struct stream {
    struct timed timed; /* first: the wheel knows a stream by it */
    enum { CLOSED, IN_HEAD, IN_BODY, IN_CHUNKED_BODY, WAITING, ANSWERING } state;
    bool head_sent, blocked;
    bool get, head_only; /* the request's method: GET or HEAD, and which of them */
    bool last;           /* its connection is closed behind the answer */
    bool counted;        /* it is a stream, or would be one */
    struct wish wish;
    const struct reply *reply; /* NULL: a stream */
    size_t reply_size;         /* without its body to HEAD */
    struct stash stash;
    struct chunked coding;
    uint64_t body_left;
    size_t offset; /* bytes of the current piece that the socket has taken */
};

static struct stream *streams;

static void prepare_reply(struct reply *reply, const struct document *document)
{
    reply->bytes = allocate(1, REPLY_HEAD + document->size);
    reply->head = (size_t)sprintf(reply->bytes,
                                  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                                  document->size);
    memcpy(reply->bytes + reply->head, document->bytes, document->size);
    reply->size = reply->head + document->size;
}

static void prepare(void)
{
    streams = allocate(fd_limit, sizeof *streams);
    prepare_reply(&completion_reply, &completion);
    prepare_reply(&models_reply, &models);
    prepare_reply(&health_reply, &health);
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
    return s->state == ANSWERING && !s->reply && (wheel.interval_ns || !s->blocked);
}

static void stream_close(struct stream *s)
{
    if (is_linked(s))
        wheel_unlink(&s->timed);
    if (s->state == WAITING)
        plain_unlink(&s->timed);
    if ((s->state == ANSWERING || s->state == WAITING) && s->counted) {
        provided_left(&s->wish);
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
    if (s->reply) {
        *size = s->reply_size;
        return s->reply->bytes;
    }
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
    *size = event_last.chunk_size;
    return timed->sent == wheel.events && !answer.hold ? event_last.chunk : NULL;
}

/* The answer is whole. */
static void stream_end(struct stream *s)
{
    if (!s->reply)
        wheel_unlink(&s->timed);
    provided.streams -= s->counted;
    s->state = IN_HEAD;
    s->wish = (struct wish){0};
    if (s->last)
        stream_close(s);
}

/* Gives the socket what is due, at most `most` events, one send() each. */
static void fire(struct timed *timed, uint32_t most)
{
    struct stream *s = (struct stream *)timed;
    while (!s->blocked && s->state == ANSWERING) {
        bool is_event = !s->reply && s->head_sent && timed->sent < timed->due;
        if (is_event && !most--)
            return;
        size_t size;
        const char *piece = next_piece(s, &size);
        if (!piece)
            return;
        ssize_t n = send_output(descriptor(s), piece + s->offset, size - s->offset);
        provided.writes++;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            stream_close(s);
            return;
        }
        s->offset += n < 0 ? 0 : (size_t)n;
        if (s->offset < size) {
            if (!wheel.interval_ns && !s->reply)
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
        } else if (!s->reply && !s->head_sent) {
            s->head_sent = true;
        } else {
            stream_end(s);
        }
    }
}

static void fire_plain(struct timed *timed)
{
    struct stream *s = (struct stream *)timed;
    s->state = ANSWERING;
    fire(timed, 0);
}

static void stream_answer(struct stream *s)
{
    s->counted = !s->get;
    s->head_sent = s->blocked = false;
    s->offset = 0;
    if (s->get) {
        provided.gets++;
        fire_plain(&s->timed);
    } else if (s->wish.stream) {
        s->reply = NULL;
        wheel_join(&s->timed, provided.requests);
        provided_stream();
        s->state = ANSWERING;
        fire(&s->timed, 1);
    } else {
        s->reply = &completion_reply;
        s->reply_size = completion_reply.size;
        provided_stream();
        provided.plain++;
        s->state = WAITING;
        plain_wait(&s->timed);
    }
}

static bool begins(const char *head, size_t size, const char *with)
{
    size_t length = strlen(with);
    return size >= length && !memcmp(head, with, length);
}

/* What the head of a request says besides how long its body is. */
static void take_head(struct stream *s, const char *head, size_t size)
{
    char value[64];
    s->head_only = begins(head, size, "HEAD ");
    s->get = s->head_only || begins(head, size, "GET ");
    if (s->get) {
        const char *path = head + (s->head_only ? 5 : 4);
        s->reply = begins(path, (size_t)(head + size - path), "/v1/models") ? &models_reply : &health_reply;
        s->reply_size = s->head_only ? s->reply->head : s->reply->size;
    }
    bool named = head_field(head, size, "connection", value);
    const char *line_end = memchr(head, '\r', size);
    bool is_old = line_end - head >= 8 && !memcmp(line_end - 8, "HTTP/1.0", 8);
    s->last = named ? !strcmp(value, "close") : is_old;
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
        wish_take(&s->wish, p, (size_t)taken);
        s->body_left -= (uint64_t)taken;
        *complete = !s->body_left;
        return taken;
    }
    if (s->state == IN_CHUNKED_BODY) {
        taken = chunked_take(&s->coding, p, n, &part, &size);
        if (taken >= 0 && size)
            wish_take(&s->wish, part, size);
        *complete = s->coding.state == CHUNK_END;
        return taken;
    }
    taken = head_take(&s->stash, p, n, &part, &size);
    if (taken < 0 || !part)
        return taken;
    take_head(s, part, size);
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
    while (used < n && s->state != ANSWERING && s->state != WAITING && s->state != CLOSED) {
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
    if (used < n && s->state != CLOSED) {
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
        if (!wheel.interval_ns && !s->reply)
            wheel_link(&s->timed);
        fire(&s->timed, wheel.interval_ns ? UINT32_MAX : FAIR_TURN);
    }
}

static void flush(void)
{
}

const struct protocol provider1 = {prepare, accepted, ready, fire, fire_plain, flush};
