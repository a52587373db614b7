#include "frames2.h"

uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void set32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t frame_size(const uint8_t *head)
{
    return get32(head) >> 8;
}

static void frame_set(struct frame *frame, const uint8_t *head)
{
    *frame = (struct frame){.size = frame_size(head),
                            .type = head[3],
                            .flags = head[4],
                            .stream = get32(head + 5) & INT32_MAX,
                            .payload = head + FRAME_HEAD};
}

ssize_t frame_take(struct inlet *in, const char *p, size_t n, struct frame *frame)
{
    const uint8_t *bytes = (const uint8_t *)p;
    size_t taken = 0;
    frame->payload = NULL;
    if (!in->used && n >= FRAME_HEAD) {
        size_t whole = FRAME_HEAD + frame_size(bytes);
        if (whole > FRAME_HEAD + FRAME_MAX)
            return -1;
        if (n >= whole) {
            frame_set(frame, bytes);
            return (ssize_t)whole;
        }
    }
    if (!in->kept)
        in->kept = allocate(1, FRAME_HEAD + FRAME_MAX);
    size_t wanted = FRAME_HEAD;
    for (int part = 0; part < 2; part++) { /* the head, which says how long the whole is; the payload */
        size_t add = wanted - in->used < n - taken ? wanted - in->used : n - taken;
        if (in->used < wanted) {
            memcpy(in->kept + in->used, bytes + taken, add);
            in->used += add;
            taken += add;
        }
        if (in->used < wanted)
            return (ssize_t)taken;
        wanted = FRAME_HEAD + frame_size(in->kept);
        if (wanted > FRAME_HEAD + FRAME_MAX)
            return -1;
    }
    frame_set(frame, in->kept);
    in->used = 0;
    return (ssize_t)taken;
}

bool frame_strip(struct frame *frame)
{
    uint32_t before = 0, after = 0;
    if (frame->flags & PADDED) {
        if (!frame->size)
            return false;
        before = 1;
        after = frame->payload[0];
    }
    if (frame->type == FRAME_HEADERS && frame->flags & PRIORITY)
        before += 5;
    if (before + after > frame->size)
        return false;
    frame->payload += before;
    frame->size -= before + after;
    return true;
}

bool setting_take(const struct frame *frame, uint32_t *at, uint16_t *name, uint32_t *value)
{
    if (frame->size - *at < 6)
        return false;
    const uint8_t *p = frame->payload + *at;
    *name = (uint16_t)(p[0] << 8 | p[1]);
    *value = get32(p + 2);
    *at += 6;
    return true;
}

/* Makes room for so many bytes more, and counts them as used. */
static uint8_t *outlet_extend(struct outlet *out, size_t size)
{
    if (out->room - out->used < size) {
        while (out->room - out->used < size)
            out->room = out->room ? out->room * 2 : 1024;
        out->bytes = realloc(out->bytes, out->room);
        if (!out->bytes)
            die("out of memory");
    }
    out->used += size;
    return out->bytes + out->used - size;
}

void put_bytes(struct outlet *out, const void *bytes, size_t size)
{
    memcpy(outlet_extend(out, size), bytes, size);
}

void put_frame(struct outlet *out, enum frame_type type, uint8_t flags, uint32_t stream, const void *payload,
               size_t size)
{
    uint8_t *p = outlet_extend(out, FRAME_HEAD + size);
    set32(p, (uint32_t)size << 8 | type);
    p[4] = flags;
    set32(p + 5, stream);
    if (size)
        memcpy(p + FRAME_HEAD, payload, size);
}

void put_number(struct outlet *out, enum frame_type type, uint32_t stream, uint32_t number)
{
    uint8_t payload[4];
    set32(payload, number);
    put_frame(out, type, 0, stream, payload, sizeof payload);
}

void put_settings(struct outlet *out, const uint32_t (*pairs)[2], size_t count)
{
    uint8_t payload[6 * 8];
    for (size_t i = 0; i < count; i++) {
        payload[6 * i] = 0;
        payload[6 * i + 1] = (uint8_t)pairs[i][0];
        set32(payload + 6 * i + 2, pairs[i][1]);
    }
    put_frame(out, FRAME_SETTINGS, 0, 0, payload, 6 * count);
}

void put_goaway(struct outlet *out, uint32_t last_stream, enum error_code code)
{
    uint8_t payload[8];
    set32(payload, last_stream);
    set32(payload + 4, code);
    put_frame(out, FRAME_GOAWAY, 0, 0, payload, sizeof payload);
}

int outlet_send(struct outlet *out, int fd)
{
    while (out->sent < out->used) {
        ssize_t n = send_output(fd, out->bytes + out->sent, out->used - out->sent);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n < 0)
            return -1;
        out->sent += (size_t)n;
    }
    out->used = out->sent = 0;
    return 1;
}
