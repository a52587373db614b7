#include "arrivals.h"

enum { TURN = 64 }; /* requests issued at once; then those who are open have their turn */

struct arrivals arrivals;
static int64_t begin, window_begin;

/* Places that nobody has: with a connection when they were left, and without one. The last one left is taken first,
 * as connection pools do. */
static uint32_t *warm, *cold, warm_count, cold_count;

void arrivals_prepare(int64_t start)
{
    begin = start;
    window_begin = start + (int64_t)(ask.warmup * NS);
    warm = allocate(ask.streams, sizeof *warm);
    cold = allocate(ask.streams, sizeof *cold);
    while (cold_count < ask.streams) {
        cold[cold_count] = ask.streams - 1 - cold_count;
        cold_count++;
    }
    double before = ask.warmup * ask.arrivals, within = ask.seconds * ask.arrivals;
    arrivals.before = (uint64_t)before + (before > (double)(uint64_t)before);
    arrivals.due = ask.burst ? ask.burst : (uint64_t)within + (within > (double)(uint64_t)within);
}

static int64_t due_at(uint64_t request)
{
    bool is_before = request < arrivals.before;
    double place = (double)(is_before ? request : request - arrivals.before);
    return (is_before ? begin : window_begin) + (ask.burst ? 0 : (int64_t)(place * NS / ask.arrivals));
}

static bool take_place(const struct client_protocol *protocol, uint32_t *reader)
{
    while (warm_count) {
        *reader = warm[--warm_count];
        if (protocol->kept(*reader))
            return true;
        cold[cold_count++] = *reader; /* the server has closed its connection meanwhile */
    }
    if (!cold_count)
        return false;
    *reader = cold[--cold_count];
    return true;
}

int64_t arrivals_turn(const struct client_protocol *protocol, int64_t now)
{
    for (int i = 0; arrivals.issued < arrivals.before + arrivals.due; i++) {
        int64_t due = due_at(arrivals.issued);
        uint32_t reader;
        if (due > now)
            return due;
        if (i == TURN)
            return now;
        if (!take_place(protocol, &reader))
            return INT64_MAX;
        readers[reader].due = due;
        readers[reader].unrecorded = arrivals.issued++ < arrivals.before;
        protocol->start(reader);
    }
    return INT64_MAX;
}

void arrivals_free(uint32_t reader)
{
    warm[warm_count++] = reader;
}

bool arrivals_drained(void)
{
    return arrivals.issued == arrivals.before + arrivals.due && warm_count + cold_count == ask.streams;
}

void arrivals_end(void)
{
    arrivals.unfinished = arrivals.before + arrivals.due - arrivals.issued;
    arrivals.issued += arrivals.unfinished;
    for (uint32_t i = 0; i < ask.streams; i++) {
        if (!reader_busy(&readers[i]) || readers[i].unrecorded)
            continue;
        arrivals.unfinished++;
        readers[i].unrecorded = true; /* its end comes too late to count */
    }
}
