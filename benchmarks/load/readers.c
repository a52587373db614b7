#include "readers.h"

/* A histogram of nanoseconds: 64 buckets for each power of two, so a value is known to 0.8 %. */
struct histogram {
    uint64_t buckets[60 * 64], count;
    int64_t max;
};

struct reader *readers;
uint32_t reader_count;
struct result result;
static bool in_window;
static uint32_t settled, throughout;
static struct histogram delays, firsts;

static void record(struct histogram *h, int64_t value)
{
    uint64_t v = value < 0 ? 0 : (uint64_t)value;
    unsigned power = v < 64 ? 0 : 63 - (unsigned)__builtin_clzll(v);
    h->buckets[v < 64 ? v : (power - 5) * 64 + ((v >> (power - 6)) & 63)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

/* The middle of the bucket that holds this quantile, in microseconds. */
static double quantile_us(const struct histogram *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->count), seen = 0;
    for (size_t i = 0; i < sizeof h->buckets / sizeof *h->buckets; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            if (i < 64)
                return (double)i / 1e3;
            unsigned shift = (unsigned)(i / 64) - 1;
            double middle = ((double)(64 + i % 64) + 0.5) * (double)(1ULL << shift) / 1e3;
            double most = (double)h->max / 1e3;
            return middle < most ? middle : most;
        }
    }
    return 0;
}

void readers_prepare(uint32_t count)
{
    reader_count = count;
    readers = allocate(count, sizeof *readers);
}

bool readers_settled(void)
{
    return settled == reader_count;
}

void readers_begin_window(void)
{
    for (uint32_t i = 0; i < reader_count; i++)
        readers[i].steady = readers[i].open;
    result.not_open = reader_count - settled;
    in_window = true;
}

void readers_end_window(void)
{
    in_window = false;
    for (uint32_t i = 0; i < reader_count; i++)
        throughout += readers[i].steady;
}

void reader_asked(struct reader *r)
{
    r->asked = now_ns();
    r->state = ASKED;
    r->matched = 0;
    r->seen = 0;
    memset(r->tail, 0, sizeof r->tail);
    result.requests++;
}

void reader_failed(struct reader *r, uint64_t *counter)
{
    ++*counter;
    if (!r->open)
        settled++;
    r->open = r->steady = false;
    r->state = DEAD;
}

void reader_finished(struct reader *r)
{
    r->steady = false;
    result.finished++;
    if (memcmp(r->tail, DONE, sizeof r->tail))
        result.truncated++;
}

static void reader_event(struct reader *r, int64_t now)
{
    if (r->seq != r->seen + 1)
        result.out_of_sequence++;
    r->seen = r->seq;
    if (r->seq == 1)
        record(&firsts, now - r->asked);
    if (!r->open) {
        r->open = true;
        settled++;
    }
    if (in_window)
        record(&delays, now - (int64_t)r->stamp);
    result.events++;
}

void reader_payload(struct reader *r, const char *p, size_t n, int64_t now)
{
    if (n >= sizeof r->tail) {
        memcpy(r->tail, p + n - sizeof r->tail, sizeof r->tail);
    } else {
        memmove(r->tail, r->tail + n, sizeof r->tail - n);
        memcpy(r->tail + sizeof r->tail - n, p, n);
    }
    const char *end = p + n;
    while (p < end) {
        if (!r->matched) {
            p = memchr(p, '@', (size_t)(end - p)); /* stands nowhere else in an event */
            if (!p)
                return;
            r->matched = 1;
            r->stamp = r->seq = 0;
            p++;
        }
        for (; p < end && r->matched < MARKER_SIZE; p++, r->matched++) {
            if (r->matched <= STAMP_DIGITS)
                r->stamp = r->stamp * 10 + (unsigned)(*p - '0');
            else if (r->matched > STAMP_DIGITS + 1)
                r->seq = r->seq * 10 + (unsigned)(*p - '0');
        }
        if (r->matched == MARKER_SIZE) {
            r->matched = 0;
            reader_event(r, now); /* changed bytes show here, as a wrong number */
        }
    }
}

void readers_report(double window, double segments_per_event)
{
    uint64_t errors = result.connect + result.status + result.framing + result.closed_early + result.truncated +
                      result.out_of_sequence + result.not_open;
    printf("{\"streams\":%" PRIu32 ",\"open_throughout\":%" PRIu32 ",\"window_seconds\":%.6f,\"events\":%" PRIu64
           ",\"delay_us\":{\"p50\":%.1f,\"p95\":%.1f,\"p99\":%.1f,\"max\":%.1f}",
           reader_count, throughout, window, delays.count, quantile_us(&delays, 0.5), quantile_us(&delays, 0.95),
           quantile_us(&delays, 0.99), (double)delays.max / 1e3);
    printf(",\"ttft_us\":{\"p50\":%.1f,\"p99\":%.1f},\"connections\":%" PRIu64 ",\"segments_per_event\":%.4f"
           ",\"requests\":%" PRIu64 ",\"finished\":%" PRIu64
           ",\"errors\":%" PRIu64 ",\"error_kinds\":{\"connect\":%" PRIu64 ",\"status\":%" PRIu64
           ",\"framing\":%" PRIu64 ",\"closed_early\":%" PRIu64 ",\"truncated\":%" PRIu64
           ",\"out_of_sequence\":%" PRIu64 ",\"not_open\":%" PRIu64 "}}\n",
           quantile_us(&firsts, 0.5), quantile_us(&firsts, 0.99), result.connections, segments_per_event,
           result.requests, result.finished, errors, result.connect, result.status, result.framing,
           result.closed_early, result.truncated, result.out_of_sequence, result.not_open);
    fflush(stdout);
}
