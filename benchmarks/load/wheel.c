#include "wheel.h"

struct wheel wheel;

void wheel_prepare(double interval_ms, double tick_us, uint32_t events)
{
    double slots = interval_ms * 1000 / tick_us;
    wheel.count = slots < 1 ? 1 : (uint32_t)slots;
    wheel.tick_ns = (int64_t)(interval_ms * 1e6 / wheel.count);
    wheel.interval_ns = wheel.tick_ns * wheel.count; /* the stamps and the wheel must not drift apart */
    if (interval_ms > 0 && wheel.tick_ns < 1000)
        die("--interval-ms must be 0 or 0.001 and more");
    if (!wheel.tick_ns)
        wheel.tick_ns = 1;
    wheel.slots = allocate(wheel.count, sizeof(struct timed *));
    wheel.events = events;
    wheel.base = now_ns();
}

void wheel_link(struct timed *timed)
{
    struct timed *first = wheel.slots[timed->slot];
    timed->previous = NULL;
    timed->next = first;
    if (first)
        first->previous = timed;
    wheel.slots[timed->slot] = timed;
    wheel.streams++;
}

void wheel_unlink(struct timed *timed)
{
    if (timed->previous)
        timed->previous->next = timed->next;
    else
        wheel.slots[timed->slot] = timed->next;
    if (timed->next)
        timed->next->previous = timed->previous;
    wheel.streams--;
}

/* The first event is due at once, the others whenever the stream's slot comes round. Slots are dealt out by the
 * golden ratio, which spreads any number of streams evenly over the interval, however they arrived. */
void wheel_join(struct timed *timed, uint64_t request)
{
    int64_t now = now_ns();
    double phase = (double)request * 0.6180339887498949;
    phase -= (double)(uint64_t)phase;
    timed->slot = (uint32_t)(phase * wheel.count);
    timed->sent = 0;
    timed->start = now;
    timed->due = wheel.interval_ns && wheel.events ? 1 : wheel.events;
    if (!wheel.streams) /* the wheel stood still: it goes on from now */
        wheel.tick = (now - wheel.base) / wheel.tick_ns + 1;
    wheel_link(timed);
}

int64_t wheel_stamp(const struct timed *timed)
{
    if (!wheel.interval_ns)
        return now_ns();
    return timed->sent ? timed->grid + (timed->sent - 1) * wheel.interval_ns : timed->start;
}

int64_t wheel_next(void)
{
    if (!wheel.streams)
        return INT64_MAX;
    return wheel.interval_ns ? wheel.base + wheel.tick * wheel.tick_ns : 0;
}

static void fire_slot(int64_t time)
{
    struct timed *next;
    for (struct timed *timed = wheel.slots[wheel.tick % wheel.count]; timed; timed = next) {
        next = timed->next;
        if (!wheel.interval_ns) {
            wheel.fire(timed, FAIR_TURN);
        } else if (timed->due < wheel.events && time > timed->start) {
            if (++timed->due == 2)
                timed->grid = time;
            wheel.fire(timed, UINT32_MAX);
        }
    }
}

/* Fires what is due. Bounded, so that an overloaded provider still accepts and reads. */
void wheel_turn(void)
{
    if (!wheel.interval_ns) {
        fire_slot(0);
        return;
    }
    for (int ticks = 0; ticks < 64 && wheel.streams; ticks++) {
        int64_t time = wheel.base + wheel.tick * wheel.tick_ns, late = now_ns() - time;
        if (late < 0)
            return;
        if (late > wheel.late_max)
            wheel.late_max = late;
        fire_slot(time);
        wheel.tick++;
    }
}
