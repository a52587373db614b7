#include "heap.h"
#include "sockets.h"
#include <stdlib.h>

static struct timer **heap;
static size_t heap_size, heap_room;

static void heap_put(size_t place, struct timer *timer)
{
    heap[place] = timer;
    timer->place = place;
}

/* Moves a timer from a place that is free to where it belongs. */
static void heap_settle(size_t place, struct timer *timer)
{
    while (place && heap[(place - 1) / 2]->at > timer->at) {
        heap_put(place, heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (size_t child; (child = 2 * place + 1) < heap_size; place = child) {
        if (child + 1 < heap_size && heap[child + 1]->at < heap[child]->at)
            child++;
        if (heap[child]->at >= timer->at)
            break;
        heap_put(place, heap[child]);
    }
    heap_put(place, timer);
}

void timer_clear(struct timer *timer)
{
    if (timer->place == NOWHERE)
        return;
    struct timer *last = heap[--heap_size];
    if (last != timer)
        heap_settle(timer->place, last);
    timer->place = NOWHERE;
}

void timer_set(struct timer *timer, int64_t at)
{
    timer_clear(timer);
    if (heap_size == heap_room) {
        heap_room = heap_room ? 2 * heap_room : 64;
        heap = realloc(heap, heap_room * sizeof *heap);
        if (!heap)
            die("out of memory");
    }
    timer->at = at;
    heap_settle(heap_size++, timer);
}

struct timer *timer_next(void)
{
    return heap_size ? heap[0] : NULL;
}
