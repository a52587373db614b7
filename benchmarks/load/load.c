/*
 * load: both ends of a benchmark of a relay, in one program without dependencies.
 *
 *   load provider --port P --interval-ms I [--size S] [--events N] [--tick-us U] [--hold]
 *                 [--http 1|2] [--streams-per-connection N] [--writes joined|each]
 *   load client   --port P --streams N [--path /v1/chat/completions] [--ramp-seconds R]
 *                 --seconds T [--warmup W] [--hold]
 *                 [--http 1|2] [--streams-per-connection N] [--window BYTES]
 *
 * The provider answers any request with an event stream in the shape of an OpenAI chat completion (event.h), on a
 * schedule that never waits for a reader (wheel.h). The client reads such streams, through a relay or directly, and
 * records how late each event came (readers.h).
 *
 * Both sides read CLOCK_MONOTONIC, so they must run on one machine. Neither may become what is measured: no
 * allocation per event, one wake-up for everything that is due, and no work on bytes that no counter needs.
 *
 * --http 2 is cleartext with prior knowledge. A provider then advertises N streams per connection (100) and refuses
 * more; a client opens N on each of its connections (100), with so much window for each (1 MiB) and N times as much
 * for the connection. --writes each: a provider's write for each frame, not one for all of a turn of its loop.
 *
 * provider: --interval-ms 0 sends as fast as each reader takes; --hold leaves a stream open and silent after its
 * N events. It prints its counters as one line of JSON at SIGUSR1 and at SIGINT or SIGTERM.
 * client: prints "measuring" once all streams are open and W seconds have passed since, "measured" T seconds
 * later, and its results as one line of JSON when it exits: at once, or with --hold when its stdin ends.
 */
#include "clients.h"
#include "provider.h"
#include <getopt.h>

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die("--%s must be a number from %g to %.10g", name, least, most);
    return value;
}

static bool second_of(const char *name, const char *text, const char *first, const char *second)
{
    if (strcmp(text, first) && strcmp(text, second))
        die("--%s must be %s or %s", name, first, second);
    return !strcmp(text, second);
}

static const struct option options[] = {
    {"port", required_argument, NULL, 'p'},
    {"interval-ms", required_argument, NULL, 'i'},
    {"size", required_argument, NULL, 's'},
    {"events", required_argument, NULL, 'e'},
    {"tick-us", required_argument, NULL, 'k'},
    {"hold", no_argument, NULL, 'h'},
    {"streams", required_argument, NULL, 'n'},
    {"path", required_argument, NULL, 'P'},
    {"ramp-seconds", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"warmup", required_argument, NULL, 'w'},
    {"http", required_argument, NULL, '2'},
    {"streams-per-connection", required_argument, NULL, 'c'},
    {"writes", required_argument, NULL, 'W'},
    {"window", required_argument, NULL, 'b'},
    {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    bool is_provider = !strcmp(mode, "provider"), is_http2 = false;
    if (!is_provider && strcmp(mode, "client"))
        die("first argument must be provider or client");
    const char *wanted = is_provider ? "pisekh2cW" : "pnPrtwh2cb";
    /* Not a part of the kernel's own tick: if each burst fell on the same place in it, the sampled split of a
     * relay's time into user and system would be wrong by any factor (seen: nginx at 0 % user). */
    double interval_ms = 50, tick_us = 1061;
    size_t size = 200;
    uint32_t events = 100;
    int option, index;
    ask.path = "/v1/chat/completions";
    opterr = 0;
    while ((option = getopt_long(argc - 1, argv + 1, "", options, &index)) != -1) {
        if (option == '?')
            die("unknown or incomplete option: %s", argv[optind]);
        if (!strchr(wanted, option))
            die("--%s is not for the %s", options[index].name, mode);
        const char *name = options[index].name;
        switch (option) {
        case 'p': ask.port = (int)number(name, optarg, 1, 65535); break;
        case 'i': interval_ms = number(name, optarg, 0, 3600e3); break;
        case 's': size = (size_t)number(name, optarg, 1, 1 << 20); break;
        case 'e': events = (uint32_t)number(name, optarg, 0, 99999999); break;
        case 'k': tick_us = number(name, optarg, 10, 1e6); break;
        case 'n': ask.streams = (uint32_t)number(name, optarg, 1, 1e6); break;
        case 'P': ask.path = optarg; break;
        case 'r': ask.ramp = number(name, optarg, 0, 3600); break;
        case 't': ask.seconds = number(name, optarg, 0.001, 86400); break;
        case 'w': ask.warmup = number(name, optarg, 0, 3600); break;
        case '2': is_http2 = second_of(name, optarg, "1", "2"); break;
        case 'c': ask.per_connection = answer.most_streams = (uint32_t)number(name, optarg, 1, 10000); break;
        case 'W': answer.each = second_of(name, optarg, "joined", "each"); break;
        case 'b': ask.window = (uint32_t)number(name, optarg, 1, INT32_MAX); break;
        default: answer.hold = ask.hold = true; break;
        }
    }
    if (optind < argc - 1)
        die("unexpected argument: %s", argv[optind + 1]);
    if (!ask.port)
        die("--port is needed");
    loop_prepare();
    if (!is_provider)
        return run_clients(is_http2 ? &clients2 : &clients1);
    wheel_prepare(interval_ms, tick_us, events);
    event_prepare(size);
    return run_provider(ask.port, is_http2 ? &provider2 : &provider1);
}
