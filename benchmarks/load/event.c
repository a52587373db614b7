#include "event.h"

#define EVENT_START                                                                                             \
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"             \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""
#define EVENT_END "\"},\"finish_reason\":null}]}\n\n"

struct event event;

void event_prepare(size_t size)
{
    size_t least = LENGTH(EVENT_START) + MARKER_SIZE + LENGTH(EVENT_END);
    if (size < least || size > 1 << 20)
        die("--size must be %zu to %d", least, 1 << 20);
    event.size = size;
    event.chunk = allocate(1, size + 32);
    event.text = event.chunk + sprintf(event.chunk, "%zx\r\n", size);
    char *p = mempcpy(event.text, EVENT_START, LENGTH(EVENT_START));
    memset(p, '0', MARKER_SIZE);
    p[0] = '@';
    p[1 + STAMP_DIGITS] = '.';
    p += MARKER_SIZE;
    for (size_t i = 0; i < size - least; i++)
        *p++ = " token"[i % 6];
    p = mempcpy(p, EVENT_END, LENGTH(EVENT_END));
    p = mempcpy(p, "\r\n", 2);
    event.chunk_size = (size_t)(p - event.chunk);
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
    char *marker = event.text + LENGTH(EVENT_START);
    put_digits(marker + 1, STAMP_DIGITS, (uint64_t)stamp);
    put_digits(marker + 1 + STAMP_DIGITS + 1, SEQ_DIGITS, number);
}
