#include "plain.h"

enum { TOKEN_SIZE = 4, CONTENT_MAX = 65536, TURN = 64 };

struct document completion;
struct document models = {"{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\"}]}", 0};
struct document health = {"{\"status\":\"ok\"}", 0};
struct plain plain = {.after_ms = -1};

static int64_t wait_ns;
static struct timed *first, *last; /* start: when its time is */

void plain_prepare(void)
{
    static const char start[] = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,"
                                "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                "\"content\":\"";
    uint32_t tokens = wheel.events < CONTENT_MAX / TOKEN_SIZE ? wheel.events : CONTENT_MAX / TOKEN_SIZE;
    size_t content = (size_t)tokens * TOKEN_SIZE;
    completion.bytes = allocate(1, sizeof start + content + 256);
    char *p = mempcpy(completion.bytes, start, LENGTH(start));
    for (size_t i = 0; i < content; i++)
        *p++ = " tok"[i % TOKEN_SIZE];
    p += sprintf(p,
                 "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%" PRIu32
                 ",\"total_tokens\":%" PRIu32 "}}",
                 tokens, tokens + 8);
    completion.size = (size_t)(p - completion.bytes);
    models.size = strlen(models.bytes);
    health.size = strlen(health.bytes);
    wait_ns = plain.after_ms >= 0 ? (int64_t)(plain.after_ms * 1e6) : wheel.interval_ns * wheel.events;
}

void plain_wait(struct timed *timed)
{
    timed->start = now_ns() + wait_ns;
    timed->next = NULL;
    timed->previous = last;
    if (last)
        last->next = timed;
    else
        first = timed;
    last = timed;
}

void plain_unlink(struct timed *timed)
{
    if (timed->previous)
        timed->previous->next = timed->next;
    else
        first = timed->next;
    if (timed->next)
        timed->next->previous = timed->previous;
    else
        last = timed->previous;
}

int64_t plain_next(void)
{
    return first ? first->start : INT64_MAX;
}

void plain_turn(void)
{
    int64_t now = first ? now_ns() : 0;
    for (int i = 0; i < TURN && first && first->start <= now; i++) {
        struct timed *timed = first;
        plain_unlink(timed);
        plain.fire(timed);
    }
}
