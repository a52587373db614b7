#include "requests1.h"

static char post[2048], get[1024];
static size_t post_head, post_size;

void requests1_prepare(void)
{
    int used = snprintf(post, sizeof post,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Accept: %s\r\n%sContent-Length: %zu\r\n\r\n",
                        ask.path, ask.port, ask.plain ? "application/json" : "text/event-stream",
                        ask.resumable ? "Relay-Resumable: 1\r\n" : "", ask_body_size());
    if (used < 0 || (size_t)used + ask_body_size() > sizeof post)
        die("--path is too long");
    post_head = (size_t)used;
    post_size = post_head + ask_body_size();
}

const char *request_post(uint32_t reader, size_t *size)
{
    memcpy(post + post_head, ask_body(reader), ask_body_size());
    *size = post_size;
    return post;
}

static const char *put_get(const char *target, const char *stream, const char *last, size_t *size)
{
    int used = snprintf(get, sizeof get,
                        "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n%s%s%s\r\n", target,
                        stream, ask.port, last ? "Last-Event-ID: " : "", last ? last : "", last ? "\r\n" : "");
    *size = (size_t)used; /* all of its parts are bounded far below the buffer's size */
    return get;
}

const char *request_resume(const char *stream, uint64_t seen, size_t *size)
{
    char last[STREAM_ID_SIZE + 24];
    snprintf(last, sizeof last, "%s-%" PRIu64, stream, seen);
    return put_get("/v1/streams/", stream, last, size);
}

const char *request_join(const char *stream, size_t *size)
{
    return ask.fan_out_plain ? put_get("/join", "", NULL, size) : put_get("/v1/streams/", stream, "latest", size);
}
