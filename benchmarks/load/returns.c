#include "returns.h"

static struct back {
    int64_t at;
    uint32_t reader;
} *heap;
static uint32_t count;

void returns_prepare(uint32_t most)
{
    heap = allocate(most, sizeof *heap);
}

/* Of those who come at the same time, the lower number is first. */
static bool is_before(const struct back *a, const struct back *b)
{
    return a->at < b->at || (a->at == b->at && a->reader < b->reader);
}

void returns_add(uint32_t reader, int64_t at)
{
    struct back back = {at, reader};
    uint32_t i = count++;
    for (; i && is_before(&back, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = back;
}

int64_t returns_next(void)
{
    return count ? heap[0].at : INT64_MAX;
}

uint32_t returns_take(void)
{
    uint32_t first = heap[0].reader, i = 0, child;
    struct back last = heap[--count];
    while ((child = 2 * i + 1) < count) {
        child += child + 1 < count && is_before(&heap[child + 1], &heap[child]);
        if (!is_before(&heap[child], &last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}
