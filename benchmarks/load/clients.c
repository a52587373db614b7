#include "clients.h"
#include <unistd.h>

struct ask ask = {.streams = 1, .per_connection = 100, .window = 1 << 20, .seconds = 5, .warmup = 1};

#define BODY "{\"model\":\"bench\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}"
const char ask_body[] = BODY;
const size_t ask_body_size = LENGTH(BODY);

static const uint32_t stdin_key = UINT32_MAX;

/* Starts those whose time in the ramp has come. Returns when the next one has his; 0: none is left. */
static int64_t ramp_up(const struct client_protocol *protocol, uint32_t *started, int64_t start, int64_t now)
{
    for (int i = 0; i < 64 && *started < ask.streams; i++) { /* and then those who are open have their turn */
        int64_t at = start + (int64_t)(ask.ramp * *started / ask.streams * NS);
        if (at > now)
            return at;
        protocol->start((*started)++);
    }
    return *started < ask.streams ? now : 0;
}

static void say(const char *phase)
{
    puts(phase);
    fflush(stdout);
}

int run_clients(const struct client_protocol *protocol)
{
    enum { RAMP, WARMUP, WINDOW, HOLD } phase = RAMP;
    readers_prepare(ask.streams);
    protocol->prepare();
    if (ask.hold)
        watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, stdin_key);
    int64_t start = now_ns(), now = start, until = 0, window_start = 0;
    int64_t patience = start + (int64_t)((ask.ramp + 15) * NS); /* then it measures what is there */
    uint32_t started = 0;
    uint64_t segments = 0, events = 0;
    double window = 0, per_event = 0;
    for (;;) {
        struct epoll_event ready[BATCH];
        if (phase == RAMP && !(until = ramp_up(protocol, &started, start, now)))
            until = patience;
        int count = wait_ready(ready, phase == HOLD ? INT64_MAX : until);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u32 != stdin_key) {
                protocol->ready(ready[i].data.u32, ready[i].events);
            } else if (read(STDIN_FILENO, input, sizeof input) <= 0) {
                readers_report(window, per_event);
                return 0;
            }
        }
        now = now_ns();
        if (phase == RAMP && started == ask.streams && (readers_settled() || now >= patience)) {
            phase = WARMUP;
            until = now + (int64_t)(ask.warmup * NS);
            segments = protocol->segments(); /* asking all sockets takes milliseconds, so not in the window */
            events = result.events;
        }
        if (phase == WARMUP && now >= until) {
            phase = WINDOW;
            readers_begin_window();
            say("measuring");
            window_start = now;
            until = now + (int64_t)(ask.seconds * NS);
        }
        if (phase == WINDOW && now >= until) {
            phase = HOLD;
            readers_end_window();
            window = (double)(now - window_start) / NS;
            say("measured");
            uint64_t after = protocol->segments();
            if (after > segments && result.events > events) /* not so if many connections have gone */
                per_event = (double)(after - segments) / (double)(result.events - events);
            if (!ask.hold) {
                readers_report(window, per_event);
                return 0;
            }
        }
    }
}
