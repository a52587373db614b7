/*
 * streams2: the streams of the provider over HTTP/2. One event = one DATA frame, as long as it has window for it.
 */
#include "event.h"
#include "provider2.h"

/* :status 200, content-type: text/event-stream, cache-control: no-cache; by the static table, without indexing. */
static const char answer_head[] = "\x88\x0f\x10\x11text/event-stream\x0f\x09\x08no-cache";

/* The same with application/json. */
static const char document_head[] = "\x88\x0f\x10\x10" "application/json";

struct stream *stream_find(struct connection *c, uint32_t id)
{
    struct stream *likely = &c->streams[(id >> 1) % answer.most_streams];
    if (likely->id == id)
        return likely;
    for (uint32_t i = 0; i < answer.most_streams; i++)
        if (c->streams[i].id == id)
            return &c->streams[i];
    return NULL;
}

void stream_open(struct connection *c, uint32_t id)
{
    struct stream *s = &c->streams[(id >> 1) % answer.most_streams];
    if (s->id)
        s = stream_find(c, 0);
    *s = (struct stream){.connection = c, .id = id, .window = c->stream_window};
    c->open++;
}

/* Saturating streams are linked only while something takes their bytes; timed ones as long as they answer. */
static void stream_end(struct stream *s)
{
    if (s->queued)
        plain_unlink(&s->timed);
    if (s->answering) {
        provided.streams--;
        if (!s->document && (wheel.interval_ns || !s->waiting))
            wheel_unlink(&s->timed);
    }
    s->id = 0;
    s->answering = s->queued = false;
    s->connection->open--;
}

void stream_leave(struct stream *s)
{
    if (s->answering && s->document != &health)
        provided_left(&s->wish);
    stream_end(s);
}

static void stream_wait(struct stream *s, bool for_window)
{
    s->waiting = true;
    if (!wheel.interval_ns && !s->document)
        wheel_unlink(&s->timed);
    if (for_window && !s->stalled) {
        provided.no_window++;
        s->stalled = true;
    }
}

/* Sends as much of a piece as the windows take, in one frame. False if that is nothing. */
static bool send_part(struct stream *s, const char *piece, size_t size, bool is_last)
{
    struct connection *c = s->connection;
    int64_t left = (int64_t)(size - s->offset), part = left;
    int64_t window = s->window < c->window ? s->window : c->window;
    if (part > window)
        part = window;
    if (part > c->frame_max)
        part = c->frame_max;
    if (part <= 0)
        return false;
    put_frame(&c->out, FRAME_DATA, is_last && part == left ? END_STREAM : 0, s->id, piece + s->offset, (size_t)part);
    s->window -= part;
    c->window -= part;
    s->offset += (size_t)part;
    return true;
}

static void send_head(struct stream *s, const char *head, size_t size)
{
    put_frame(&s->connection->out, FRAME_HEADERS, END_HEADERS, s->id, head, size);
    s->head_sent = true;
    frame_written(s->connection);
}

/* Sends what can be sent of an answer that is no stream. */
static void send_document(struct stream *s)
{
    struct connection *c = s->connection;
    if (!s->head_sent)
        send_head(s, document_head, LENGTH(document_head));
    while (!s->waiting && !c->broken) {
        if (c->blocked) {
            stream_wait(s, false);
        } else if (!send_part(s, s->document->bytes, s->document->size, true)) {
            stream_wait(s, true);
        } else {
            frame_written(c);
            if (s->offset == s->document->size) {
                stream_end(s);
                return;
            }
        }
    }
}

/* Sends what is due, at most `most` events. */
void stream_fire(struct timed *timed, uint32_t most)
{
    struct stream *s = (struct stream *)timed;
    struct connection *c = s->connection;
    if (!s->head_sent)
        send_head(s, answer_head, LENGTH(answer_head));
    while (!s->waiting && !c->broken) {
        bool is_event = timed->sent < timed->due;
        if (!is_event && (timed->sent < wheel.events || answer.hold))
            return;
        if (is_event && !s->offset && !most--)
            return;
        if (c->blocked) {
            stream_wait(s, false);
            return;
        }
        if (!s->offset)
            timed->stamp = wheel_stamp(timed);
        event_mark(timed->stamp, timed->sent + 1);
        const struct event *piece = is_event ? &event : &event_last;
        size_t size = piece->size;
        if (!send_part(s, piece->text, size, !is_event)) {
            stream_wait(s, true);
            return;
        }
        frame_written(c);
        if (s->offset < size)
            continue;
        s->offset = 0;
        s->stalled = false;
        if (!is_event) {
            stream_end(s);
            return;
        }
        timed->sent++;
        provided.events++;
    }
}

void stream_go_on(struct stream *s)
{
    if (!s->id || !s->waiting)
        return;
    s->waiting = false;
    if (s->document) {
        send_document(s);
        return;
    }
    if (!wheel.interval_ns)
        wheel_link(&s->timed);
    stream_fire(&s->timed, wheel.interval_ns ? UINT32_MAX : FAIR_TURN);
}

void streams_go_on(struct connection *c)
{
    for (uint32_t i = 0; i < answer.most_streams && !c->broken; i++)
        stream_go_on(&c->streams[i]);
}

void stream_fire_plain(struct timed *timed)
{
    struct stream *s = (struct stream *)timed;
    s->queued = false;
    send_document(s);
}

void stream_answer(struct stream *s, bool has_body)
{
    s->answering = true;
    if (!has_body) {
        provided.gets++;
        provided.streams++; /* until its end, which is the same for all */
        s->document = &health;
        send_document(s);
    } else if (s->wish.stream) {
        wheel_join(&s->timed, provided.requests);
        provided_stream();
        stream_fire(&s->timed, 1);
    } else {
        provided_stream();
        provided.plain++;
        s->document = &completion;
        s->queued = true;
        plain_wait(&s->timed);
    }
}
