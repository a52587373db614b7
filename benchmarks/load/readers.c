#include "readers.h"
#include "histogram.h"

enum {
    CLEAN_NS = 5000000,  /* the longest gap of a clean stream */
    CAUGHT_NS = 5000000, /* who has an event earlier than that has caught up */
};

struct reader *readers;
uint32_t reader_count;
struct result result;
static bool in_window;
static size_t tail_size; /* what is kept of TAIL_MOST */
static uint32_t counted, settled, throughout, clean;
static uint64_t events; /* in the window */
static struct histogram delays, gaps, firsts, totals, resumes, catches;

void readers_prepare(uint32_t count, uint32_t apart, bool identified)
{
    tail_size = identified ? TAIL_MOST : LENGTH(DONE);
    reader_count = count;
    counted = count - apart;
    readers = allocate(count, sizeof *readers);
}

bool readers_settled(void)
{
    return settled == reader_count;
}

bool reader_busy(const struct reader *r)
{
    return r->state == CONNECTING || r->state == ASKED || r->state == READING;
}

void reader_settle(struct reader *r)
{
    settled += !r->settled;
    r->settled = true;
}

void readers_begin_window(bool all_open)
{
    for (uint32_t i = 0; i < counted; i++) {
        readers[i].steady = readers[i].open;
        readers[i].rough = false;
    }
    result.not_open = all_open ? reader_count - settled : 0;
    in_window = true;
}

/* A gap that has not ended by now is one too: else who hears nothing any more would be clean. */
static bool is_clean(const struct reader *r, int64_t end)
{
    return r->steady && !r->rough && (!r->step || end - (r->came_due + r->step) - r->came_late <= CLEAN_NS);
}

void readers_end_window(int64_t end)
{
    in_window = false;
    for (uint32_t i = 0; i < counted; i++) {
        throughout += readers[i].steady;
        clean += is_clean(&readers[i], end);
    }
}

void reader_asked(struct reader *r, bool goes_on)
{
    r->state = ASKED;
    r->matched = 0;
    r->follows = false;
    r->step = 0;
    if (!goes_on) {
        r->seen = r->had = 0;
        r->begun = false;
    }
    memset(r->tail, 0, tail_size);
    result.requests++;
}

/* A response is over: what was steady is so no more. */
static void reader_ended(struct reader *r)
{
    r->steady = false;
    r->follows = false;
    r->step = 0;
}

void reader_failed(struct reader *r, uint64_t *counter)
{
    ++*counter;
    result.failed += !r->unrecorded;
    reader_settle(r);
    reader_ended(r);
    r->open = false;
    r->state = DEAD;
}

void reader_left(struct reader *r)
{
    result.left++;
    reader_settle(r);
    reader_ended(r);
    r->open = false;
    r->state = GONE;
}

void reader_broken(struct reader *r, int64_t back)
{
    reader_ended(r);
    r->open = false;
    r->state = AWAY;
    r->resumed = false;
    if (!r->back)
        r->back = back;
}

void reader_restarts(struct reader *r)
{
    if (r->seen > r->given_up)
        r->given_up = r->seen;
    r->due = r->back;
    result.restarts++;
}

/* The response ends with DONE, or with that and an identifier in one event. */
static bool has_done(const struct reader *r)
{
    const char *end = r->tail + tail_size;
    const char *done = memmem(r->tail, tail_size, DONE, LENGTH(DONE) - 1);
    if (!done)
        return false;
    done += LENGTH(DONE) - 1;
    if (end - done > 4 && !memcmp(done, "id: ", 4)) {
        const char *line_end = memchr(done, '\n', (size_t)(end - done));
        done = line_end ? line_end + 1 : end;
    }
    return end - done == 1 && *done == '\n';
}

void reader_finished(struct reader *r, bool is_stream)
{
    bool whole = !is_stream || has_done(r);
    if (r->back && whole) /* there is no more to catch up with */
        histogram_add(&catches, now_ns() - r->back);
    r->back = 0;
    reader_ended(r);
    r->given_up = 0;
    r->state = IDLE;
    result.finished++;
    result.truncated += !whole;
    if (r->unrecorded)
        return;
    result.answers += whole;
    result.failed += !whole;
    if (whole)
        histogram_add(&totals, now_ns() - r->due);
}

void reader_begun(struct reader *r, int64_t now)
{
    if (r->begun)
        return;
    r->begun = true;
    if (!r->unrecorded)
        histogram_add(&firsts, now - r->due);
    if (!r->open) {
        r->open = true;
        reader_settle(r);
    }
}

/* An event after a break, which may be one of those that were missed. */
static void reader_returns(struct reader *r, int64_t now, int64_t late)
{
    r->open = true;
    if (!r->resumed)
        histogram_add(&resumes, now - r->back);
    r->resumed = true;
    if (late >= CAUGHT_NS)
        return;
    histogram_add(&catches, now - r->back);
    r->back = 0;
    r->follows = false; /* a gap to a missed one says nothing */
}

static void reader_event(struct reader *r, int64_t now)
{
    int64_t late = now - (int64_t)r->stamp;
    if (r->anywhere)
        r->seen = r->seq - 1;
    r->anywhere = false;
    if (r->seq != r->seen + 1)
        result.out_of_sequence++;
    r->seen = r->seq;
    r->had++;
    result.events++;
    if (!r->begun)
        reader_begun(r, now);
    if (r->seq <= r->given_up)
        result.repeated++;
    if (r->back)
        reader_returns(r, now, late);
    if (in_window) {
        events++;
        if (!r->back) {
            histogram_add(&delays, late);
            if (r->follows) { /* (now - then) - (stamp - its stamp) */
                int64_t gap = late < r->came_late ? r->came_late - late : late - r->came_late;
                histogram_add(&gaps, gap);
                r->rough |= gap > CLEAN_NS;
            }
        }
    }
    r->step = r->follows ? (int64_t)r->stamp - r->came_due : 0;
    r->came_due = (int64_t)r->stamp;
    r->came_late = late;
    r->follows = true;
}

void reader_payload(struct reader *r, const char *p, size_t n, int64_t now)
{
    if (n >= tail_size) {
        memcpy(r->tail, p + n - tail_size, tail_size);
    } else {
        memmove(r->tail, r->tail + n, tail_size - n);
        memcpy(r->tail + tail_size - n, p, n);
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

uint64_t readers_errors(void)
{
    return result.connect + result.status + result.framing + result.closed_early + result.truncated +
           result.out_of_sequence + result.not_open;
}

void readers_report(double window)
{
    printf("\"streams\":%" PRIu32 ",\"open_throughout\":%" PRIu32 ",\"clean\":%" PRIu32
           ",\"window_seconds\":%.6f,\"events\":%" PRIu64 ",", counted, throughout, clean, window, events);
    histogram_print("delay_us", &delays);
    putchar(',');
    histogram_print("gap_us", &gaps);
    putchar(',');
    histogram_print("ttft_us", &firsts);
    putchar(',');
    histogram_print("total_us", &totals);
    putchar(',');
    histogram_print("resume_us", &resumes);
    putchar(',');
    histogram_print("caught_up_us", &catches);
}
