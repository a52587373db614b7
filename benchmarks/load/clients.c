#include "clients.h"
#include "arrivals.h"
#include "outcome.h"
#include "returns.h"
#include <unistd.h>

struct ask ask = {.streams = 1, .per_connection = 100, .window = 1 << 20, .seconds = 5, .warmup = 1, .break_at = -1};

enum { TURN = 64 /* readers started at once; then those who are open have their turn */ };

static const uint32_t stdin_key = UINT32_MAX;

/* One run of the program, from the first request to the report. */
static struct run {
    const struct client_protocol *protocol;
    enum { RAMP, WARMUP, WINDOW, DRAIN, HOLD } phase;
    int64_t start, until, patience, window_start, window_end; /* until: the end of the phase */
    uint32_t started;
    bool broken_off;
    uint64_t segments, events;
    double window, per_event;
} run;

/* ---- requests ---------------------------------------------------------------------------------------------- */

enum { READER_DIGITS = 8 };

const char *ask_body(uint32_t reader)
{
#define BODY(stream) "{\"model\":\"bench\",\"stream\":" stream ",\"user\":\"r00000000\","                       \
                     "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}"
    static char streamed[] = BODY("true"), plain[] = BODY("false");
    char *body = ask.plain ? plain : streamed;
    char *digits = body + (ask.plain ? LENGTH("{\"model\":\"bench\",\"stream\":false,\"user\":\"r")
                                     : LENGTH("{\"model\":\"bench\",\"stream\":true,\"user\":\"r"));
    for (int i = READER_DIGITS - 1; i >= 0; i--, reader /= 10)
        digits[i] = (char)('0' + reader % 10);
    return body;
}

size_t ask_body_size(void)
{
    return ask.plain ? LENGTH(BODY("false")) : LENGTH(BODY("true"));
}

bool client_finished(uint32_t reader)
{
    struct reader *r = &readers[reader];
    if (ask.open_loop) {
        arrivals_free(reader);
        return false;
    }
    if (ask.fan_out || ask.fan_out_plain) { /* there is nothing to join any more */
        r->state = GONE;
        return false;
    }
    r->due = now_ns();
    return true;
}

void client_failed(uint32_t reader, uint64_t *counter)
{
    reader_failed(&readers[reader], counter);
    if (ask.open_loop)
        arrivals_free(reader);
}

bool client_comes_back(uint32_t reader)
{
    if (!ask.again)
        return false;
    int64_t back = now_ns() + (100 + reader % 100) * (NS / 1000);
    reader_broken(&readers[reader], back);
    returns_add(reader, back);
    return true;
}

bool client_has_enough(const struct reader *r)
{
    return ask.leave_after && r->had >= ask.leave_after;
}

void client_leaves(uint32_t reader)
{
    outcome_left(reader, now_ns());
}

void client_left(uint32_t reader)
{
    reader_left(&readers[reader]);
    if (ask.open_loop)
        arrivals_free(reader);
}

/* ---- phases ------------------------------------------------------------------------------------------------ */

static void say(const char *phase)
{
    puts(phase);
    fflush(stdout);
}

/* With a fan-out the others have something to join when the first one has its head. */
static bool ramp_waits(int64_t now)
{
    if (!(ask.fan_out || ask.fan_out_plain) || run.started != 1 || run.start)
        return false;
    if (readers[0].state == READING)
        run.start = now;
    return !run.start;
}

/* Starts those whose time in the ramp has come. Returns when the next one has his; INT64_MAX: none is left. */
static int64_t ramp_up(int64_t now)
{
    for (int i = 0; i < TURN && run.started < ask.streams; i++) {
        if (ramp_waits(now))
            return INT64_MAX;
        int64_t at = run.start + (int64_t)(ask.ramp * run.started / ask.streams * NS);
        if (at > now && run.started)
            return at;
        readers[run.started].due = run.started ? at : now;
        run.protocol->start(run.started++);
    }
    return run.started < ask.streams ? now : INT64_MAX;
}

/* All connections go at once, and all are due back at one time. */
static void break_all(int64_t now)
{
    int64_t back = now + (int64_t)(ask.away_ms * (NS / 1000));
    run.broken_off = true;
    for (uint32_t i = 0; i < ask.streams - ask.stuck; i++) {
        if (!reader_busy(&readers[i]))
            continue;
        run.protocol->break_off(i);
        reader_broken(&readers[i], back);
        returns_add(i, back);
    }
}

static int64_t take_back(int64_t now)
{
    for (int i = 0; i < TURN && returns_next() <= now; i++) {
        result.reconnects++;
        run.protocol->start(returns_take());
    }
    return returns_next();
}

/* Returns when it is to be done again. */
static int64_t look_at_stuck(int64_t now)
{
    enum { LOOK_NS = 100000000 };
    static int64_t next;
    if (now >= next) {
        run.protocol->look_at_stuck();
        next = now + LOOK_NS;
    }
    return next;
}

/* Does what is due. Returns when there will be something again. */
static int64_t turn(int64_t now)
{
    int64_t wake = run.phase == HOLD ? INT64_MAX : run.until, at = INT64_MAX;
    if (ask.open_loop)
        at = arrivals_turn(run.protocol, now);
    else if (run.phase == RAMP)
        at = ramp_up(now);
    wake = at < wake ? at : wake;
    if (run.phase == WINDOW && ask.break_at >= 0 && !run.broken_off) {
        at = run.window_start + (int64_t)(ask.break_at * NS);
        if (at <= now)
            break_all(now);
        else
            wake = at < wake ? at : wake;
    }
    at = run.phase == HOLD && ask.leave_at_end ? INT64_MAX : take_back(now); /* who has left does not come back */
    wake = at < wake ? at : wake;
    at = ask.stuck ? look_at_stuck(now) : INT64_MAX;
    return at < wake ? at : wake;
}

static void leave_all(void)
{
    for (uint32_t i = 0; i < ask.streams - ask.stuck; i++)
        if (reader_busy(&readers[i]))
            run.protocol->leave(i);
}

static void end_window(int64_t now)
{
    readers_end_window(run.window_end);
    run.window = (double)(now - run.window_start) / NS;
    if (ask.leave_at_end)
        leave_all();
    say("measured");
    uint64_t after = run.protocol->segments();
    if (!ask.open_loop && after > run.segments && result.events > run.events) /* not so if many connections have gone */
        run.per_event = (double)(after - run.segments) / (double)(result.events - run.events);
}

/* Goes to the next phase when it is time. True at the end of the last one. */
static bool phase_over(int64_t now)
{
    enum { DRAIN_SECONDS = 20 };
    if (run.phase == RAMP && ((run.started == ask.streams && readers_settled()) || now >= run.patience)) {
        run.phase = WARMUP;
        run.until = now + (int64_t)(ask.warmup * NS);
        run.segments = run.protocol->segments(); /* asking all sockets takes milliseconds, so not in the window */
        run.events = result.events;
    }
    if (run.phase == WARMUP && now >= run.until) {
        run.phase = WINDOW;
        readers_begin_window(!ask.open_loop);
        say("measuring");
        run.window_start = outcome.window_start = ask.open_loop ? run.until : now; /* a schedule begins on time */
        run.until = run.window_end = run.window_start + (int64_t)(ask.seconds * NS);
    }
    if (run.phase == WINDOW && now >= run.until) {
        run.phase = ask.open_loop ? DRAIN : HOLD;
        run.until = now + DRAIN_SECONDS * NS;
        end_window(now);
    }
    if (run.phase == DRAIN && (arrivals_drained() || now >= run.until)) {
        run.phase = HOLD;
        arrivals_end();
        say("drained");
    }
    return run.phase == HOLD && !ask.hold;
}

/* True when stdin is at its end. */
static bool take_ready(int64_t wake)
{
    struct epoll_event ready[BATCH];
    int count = wait_ready(ready, wake);
    for (int i = 0; i < count; i++) {
        if (ready[i].data.u32 != stdin_key)
            run.protocol->ready(ready[i].data.u32, ready[i].events);
        else if (read(STDIN_FILENO, input, sizeof input) <= 0)
            return true;
    }
    return false;
}

int run_clients(const struct client_protocol *protocol)
{
    run.protocol = protocol;
    readers_prepare(ask.streams, ask.stuck, ask.resumable);
    outcome_prepare(ask.streams);
    returns_prepare(ask.streams);
    protocol->prepare();
    if (ask.hold)
        watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, stdin_key);
    int64_t now = now_ns();
    run.patience = run.until = now + (int64_t)((ask.ramp + 15) * NS); /* then it measures what is there */
    if (ask.open_loop) {
        arrivals_prepare(now);
        run.phase = WARMUP;
        run.until = now + (int64_t)(ask.warmup * NS);
    } else if (!ask.fan_out && !ask.fan_out_plain) {
        run.start = now;
    }
    while (!phase_over(now) && !take_ready(turn(now)))
        now = now_ns();
    outcome_report(run.window, run.per_event);
    return 0;
}
