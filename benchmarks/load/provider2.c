#include "provider2.h"
#include "tls.h"

enum { WRITE_MAX = 131072 }; /* a saturating stream's output leaves by then, also within a turn */

static struct connection **connections; /* by descriptor */
static struct connection *marked;       /* to be flushed or closed at the end of the turn */

static void prepare(void)
{
    connections = allocate(fd_limit, sizeof(struct connection *));
}

static void mark(struct connection *c)
{
    if (c->marked)
        return;
    c->marked = true;
    c->next_marked = marked;
    marked = c;
}

static void break_off(struct connection *c)
{
    c->broken = true;
    mark(c);
}

static void connection_send(struct connection *c)
{
    if (c->blocked || c->broken || !c->out.used || !tls_ready(c->fd))
        return;
    int done = outlet_send(&c->out, c->fd);
    provided.writes++;
    if (done < 0) {
        break_off(c);
    } else if (!done) {
        c->blocked = true;
        provided.blocked++;
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, (uint32_t)c->fd);
    }
}

void frame_written(struct connection *c)
{
    if (answer.each || c->out.used >= WRITE_MAX)
        connection_send(c);
    else
        mark(c);
}

static void protocol_error(struct connection *c)
{
    if (c->broken)
        return;
    provided.refused++;
    put_goaway(&c->out, c->last, PROTOCOL_ERROR);
    connection_send(c);
    break_off(c);
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

/* A request's body is read at once, so its window is given back when half of it is used. */
static void give_window(struct connection *c, uint32_t id, uint32_t *used, uint32_t size)
{
    *used += size;
    if (*used < WINDOW_DEFAULT / 2)
        return;
    put_number(&c->out, FRAME_WINDOW_UPDATE, id, *used);
    mark(c);
    *used = 0;
}

static void on_data(struct connection *c, struct frame *frame)
{
    struct stream *s = stream_find(c, frame->stream);
    uint32_t whole = frame->size; /* windows count padding, too */
    if (!frame->stream || frame->stream > c->last || (s && s->answering)) {
        protocol_error(c);
        return;
    }
    if (!frame_strip(frame)) {
        protocol_error(c);
        return;
    }
    give_window(c, 0, &c->request, whole);
    if (s)
        wish_take(&s->wish, (const char *)frame->payload, frame->size);
    if (s && frame->flags & END_STREAM)
        stream_answer(s, true);
    else if (s)
        give_window(c, s->id, &s->request, whole);
}

/* The end of a header block: of a request, or of trailers after its body. */
static void on_block(struct connection *c, uint32_t id, bool ends)
{
    struct stream *s = stream_find(c, id);
    if (s && ends && !s->answering)
        stream_answer(s, c->trailers);
}

static void on_headers(struct connection *c, const struct frame *frame)
{
    uint32_t id = frame->stream;
    bool ends = frame->flags & END_STREAM;
    if (frame->type == FRAME_CONTINUATION) {
        ends = c->continued_ends;
    } else if (!(id & 1)) {
        protocol_error(c);
        return;
    } else if (id > c->last) {
        c->last = id;
        c->trailers = false;
        if (c->open < answer.most_streams) {
            stream_open(c, id);
        } else {
            provided.refused++;
            put_number(&c->out, FRAME_RST_STREAM, id, REFUSED_STREAM);
            mark(c);
        }
    } else {
        c->trailers = true;
    }
    c->continued = frame->flags & END_HEADERS ? 0 : id;
    c->continued_ends = ends;
    if (!c->continued)
        on_block(c, id, ends);
}

static void on_settings(struct connection *c, const struct frame *frame)
{
    uint32_t at = 0, value;
    uint16_t name;
    if (frame->flags & ACK)
        return;
    while (setting_take(frame, &at, &name, &value)) {
        if (name == INITIAL_WINDOW_SIZE && value <= WINDOW_MAX) {
            for (uint32_t i = 0; i < answer.most_streams; i++)
                c->streams[i].window += (int64_t)value - c->stream_window;
            c->stream_window = value;
        } else if (name == MAX_FRAME_SIZE && value >= FRAME_MAX && value < 1 << 24) {
            c->frame_max = value;
        } else if (name == INITIAL_WINDOW_SIZE || name == MAX_FRAME_SIZE) {
            protocol_error(c);
            return;
        }
    }
    put_frame(&c->out, FRAME_SETTINGS, ACK, 0, NULL, 0);
    mark(c);
    streams_go_on(c);
}

static void on_window(struct connection *c, const struct frame *frame)
{
    uint32_t more = frame->size == 4 ? get32(frame->payload) & INT32_MAX : 0;
    struct stream *s = frame->stream ? stream_find(c, frame->stream) : NULL;
    int64_t *window = s ? &s->window : &c->window;
    if (!more || frame->stream > c->last) {
        protocol_error(c);
        return;
    }
    if (frame->stream && !s)
        return; /* it has ended meanwhile */
    *window += more;
    if (*window > WINDOW_MAX)
        protocol_error(c);
    else if (s)
        stream_go_on(s);
    else
        streams_go_on(c);
}

static void on_frame(struct connection *c, struct frame *frame)
{
    bool continues = frame->type == FRAME_CONTINUATION;
    if (continues != (c->continued != 0) || (continues && frame->stream != c->continued)) {
        protocol_error(c);
        return;
    }
    struct stream *s;
    switch (frame->type) {
    case FRAME_DATA:
        on_data(c, frame);
        break;
    case FRAME_HEADERS:
    case FRAME_CONTINUATION:
        on_headers(c, frame);
        break;
    case FRAME_RST_STREAM:
        if (frame->stream && (s = stream_find(c, frame->stream)))
            stream_leave(s);
        break;
    case FRAME_SETTINGS:
        on_settings(c, frame);
        break;
    case FRAME_PING:
        if (!(frame->flags & ACK) && frame->size == 8) {
            put_frame(&c->out, FRAME_PING, ACK, 0, frame->payload, frame->size);
            mark(c);
        }
        break;
    case FRAME_WINDOW_UPDATE:
        on_window(c, frame);
        break;
    default: /* PRIORITY, GOAWAY and what is unknown: nothing to be done */
        break;
    }
}

/* ---- connections ------------------------------------------------------------------------------------------- */

static void accepted(int fd)
{
    const uint32_t limit[][2] = {{MAX_CONCURRENT_STREAMS, answer.most_streams}};
    struct connection *c = allocate(1, sizeof *c + answer.most_streams * sizeof *c->streams);
    c->fd = fd;
    c->window = c->stream_window = WINDOW_DEFAULT;
    c->frame_max = FRAME_MAX;
    connections[fd] = c;
    put_settings(&c->out, limit, 1);
    mark(c);
}

static void connection_close(struct connection *c)
{
    for (uint32_t i = 0; i < answer.most_streams; i++)
        if (c->streams[i].id)
            stream_leave(&c->streams[i]);
    connections[c->fd] = NULL;
    provided_close(c->fd);
    free(c->in.kept);
    free(c->out.bytes);
    free(c);
}

static void connection_read(struct connection *c)
{
    ssize_t got = read_input(c->fd);
    if (!got)
        break_off(c);
    if (got <= 0)
        return;
    mark(c); /* with TLS the settings have waited for the handshake */
    size_t n = (size_t)got, used = 0;
    for (; used < n && c->preface < LENGTH(PREFACE); used++) {
        if (input[used] != PREFACE[c->preface++]) {
            protocol_error(c);
            return;
        }
    }
    while (used < n && !c->broken) {
        struct frame frame;
        ssize_t taken = frame_take(&c->in, input + used, n - used, &frame);
        if (taken < 0)
            protocol_error(c);
        else if (frame.payload)
            on_frame(c, &frame);
        used += taken < 0 ? 0 : (size_t)taken;
    }
}

static void ready(int fd, uint32_t events)
{
    struct connection *c = connections[fd];
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        connection_read(c);
    if (c->blocked && !c->broken && events & EPOLLOUT) {
        watch(EPOLL_CTL_MOD, fd, EPOLLIN, (uint32_t)fd);
        c->blocked = false;
        connection_send(c);
        if (!c->blocked)
            streams_go_on(c);
    }
}

static void flush(void)
{
    struct connection *c;
    while ((c = marked)) {
        connection_send(c); /* may mark it anew, which it is as yet */
        marked = c->next_marked;
        c->marked = false;
        if (c->broken)
            connection_close(c);
    }
}

const struct protocol provider2 = {prepare, accepted, ready, stream_fire, stream_fire_plain, flush};
