#include "outcome.h"
#include "arrivals.h"

enum { LEFT_LEAST = 20000 };

struct outcome outcome;
static struct {
    uint32_t reader;
    int64_t at;
} *lefts;
static uint32_t left_count, left_most;

void outcome_prepare(uint32_t count)
{
    left_most = count > LEFT_LEAST ? count : LEFT_LEAST;
    lefts = allocate(left_most, sizeof *lefts);
}

void outcome_left(uint32_t reader, int64_t at)
{
    if (left_count == left_most)
        return;
    lefts[left_count].reader = reader;
    lefts[left_count++].at = at;
}

static void print_lefts(void)
{
    fputs(",\"left_at\":[", stdout);
    for (uint32_t i = 0; i < left_count; i++)
        printf("%s[%" PRIu32 ",%" PRId64 "]", i ? "," : "", lefts[i].reader, lefts[i].at);
    putchar(']');
}

static void print_stuck(void)
{
    printf(",\"stuck_gone\":%" PRIu64 ",\"stuck_last_gone_s\":", outcome.stuck_gone);
    if (outcome.stuck_gone)
        printf("%.3f", (double)(outcome.stuck_last_gone - outcome.window_start) / NS);
    else
        fputs("null", stdout);
}

void outcome_report(double window, double segments_per_event)
{
    putchar('{');
    readers_report(window);
    printf(",\"connections\":%" PRIu64 ",\"segments_per_event\":%.4f,\"requests\":%" PRIu64 ",\"finished\":%" PRIu64
           ",\"answers\":%" PRIu64 ",\"left\":%" PRIu64 ",\"reconnects\":%" PRIu64 ",\"restarts\":%" PRIu64
           ",\"repeated\":%" PRIu64,
           result.connections, segments_per_event, result.requests, result.finished, result.answers, result.left,
           result.reconnects, result.restarts, result.repeated);
    if (ask.open_loop)
        printf(",\"due\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"unfinished\":%" PRIu64, arrivals.due, result.failed,
               arrivals.unfinished);
    if (ask.leave_after || ask.leave_at_end)
        print_lefts();
    if (ask.stuck)
        print_stuck();
    printf(",\"errors\":%" PRIu64 ",\"error_kinds\":{\"connect\":%" PRIu64 ",\"status\":%" PRIu64
           ",\"framing\":%" PRIu64 ",\"closed_early\":%" PRIu64 ",\"truncated\":%" PRIu64
           ",\"out_of_sequence\":%" PRIu64 ",\"not_open\":%" PRIu64 "}}\n",
           readers_errors(), result.connect, result.status, result.framing, result.closed_early, result.truncated,
           result.out_of_sequence, result.not_open);
    fflush(stdout);
}
