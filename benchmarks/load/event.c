#include "event.h"

#define EVENT_START                                                                                             \
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"             \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{"
#define CONTENT "\"content\":\""
#define EVENT_END "\"},\"finish_reason\":null}]}\n\n"
#define STREAM_END EVENT_START "},\"finish_reason\":\"stop\"}]}\n\n" DONE

struct event event, event_last;

static void prepare_last(void)
{
    event_last.size = LENGTH(STREAM_END);
    event_last.chunk = allocate(1, event_last.size + 32);
    event_last.text = event_last.chunk + sprintf(event_last.chunk, "%zx\r\n", event_last.size);
    char *p = mempcpy(event_last.text, STREAM_END, LENGTH(STREAM_END));
    p = mempcpy(p, "\r\n0\r\n\r\n", 7);
    event_last.chunk_size = (size_t)(p - event_last.chunk);
}

void event_prepare(size_t size)
{
    size_t least = LENGTH(EVENT_START CONTENT) + MARKER_SIZE + LENGTH(EVENT_END);
    if (size < least || size > 1 << 20)
        die("--size must be %zu to %d", least, 1 << 20);
    event.size = size;
    event.chunk = allocate(1, size + 32);
    event.text = event.chunk + sprintf(event.chunk, "%zx\r\n", size);
    char *p = mempcpy(event.text, EVENT_START CONTENT, LENGTH(EVENT_START CONTENT));
    memset(p, '0', MARKER_SIZE);
    p[0] = '@';
    p[1 + STAMP_DIGITS] = '.';
    p += MARKER_SIZE;
    for (size_t i = 0; i < size - least; i++)
        *p++ = " token"[i % 6];
    p = mempcpy(p, EVENT_END, LENGTH(EVENT_END));
    p = mempcpy(p, "\r\n", 2);
    event.chunk_size = (size_t)(p - event.chunk);
    prepare_last();
}

static void put_digits(char *at, int count, uint64_t value)
{
    while (count--) {
        at[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void event_mark(int64_t stamp, uint32_t number)
{
    char *marker = event.text + LENGTH(EVENT_START CONTENT);
    put_digits(marker + 1, STAMP_DIGITS, (uint64_t)stamp);
    put_digits(marker + 1 + STAMP_DIGITS + 1, SEQ_DIGITS, number);
}
