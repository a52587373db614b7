/*
 * load: both ends of a benchmark of a relay, in one program. It needs OpenSSL, for --tls alone.
 *
 *   load provider --port P --interval-ms I [--size S] [--events N] [--tick-us U] [--hold] [--plain-ms T] [--closes]
 *                 [--http 1|2] [--streams-per-connection N] [--writes joined|each] [--tls --cert FILE --key FILE]
 *   load client   --port P --streams N [--path /v1/chat/completions] [--ramp-seconds R]
 *                 --seconds T [--warmup W] [--hold]
 *                 [--http 1|2] [--streams-per-connection N] [--window BYTES] [--tls]
 *                 [--arrivals R | --arrivals 0 --burst N] [--plain] [--leave-after N] [--leave-at-end]
 *                 [--resumable] [--again] [--break-at S --away-ms A] [--fan-out | --fan-out-plain] [--stuck K]
 *
 * The provider answers a request that says "stream":true with an event stream in the shape of an OpenAI chat
 * completion (event.h), on a schedule that never waits for a reader (wheel.h); any other with JSON, when its stream
 * would have been at its end or after T ms (plain.h); and GET at once, for health checks. The client reads such
 * answers, through a relay or directly, and records how late each event came (readers.h).
 *
 * Both sides read CLOCK_MONOTONIC, so they must run on one machine. Neither may become what is measured: no
 * allocation per event, one wake-up for everything that is due, and no work on bytes that no counter needs.
 *
 * --http 2 is cleartext with prior knowledge, or with --tls by ALPN. A provider then advertises N streams per
 * connection (100) and refuses more; a client opens N on each of its connections (100), with so much window for each
 * (1 MiB) and N times as much for the connection. --writes each: a provider's write for each frame, not one for all of
 * a turn of its loop. --tls is TLS 1.3, a session for each connection, and nobody is verified.
 *
 * provider: --interval-ms 0 sends as fast as each reader takes; --hold leaves a stream open and silent after its
 * N events. It prints its counters as one line of JSON at SIGUSR1 and at SIGINT or SIGTERM; with --closes also when it
 * saw that the reader of a running answer had gone, by the number in the request ("user":"rN").
 * client: prints "measuring" once all streams are open and W seconds have passed since, "measured" T seconds
 * later, and its results as one line of JSON when it exits: at once, or with --hold when its stdin ends.
 *
 * What a client's readers do is to read one answer after another, each on its own; and besides:
 *   --arrivals R     Each request is one answer, and R of them are due in a second, whatever became of those before
 *                    (arrivals.h). Then --streams is how many may be open at once, and what is due meanwhile waits.
 *                    The same goes on in the warm-up, unrecorded. After "measured" it waits up to 20 s for the answers
 *                    that are open, prints "drained", and counts what is left as unfinished.
 *   --burst N        N requests, all due at the start of the window.
 *   --plain          They ask for answers that are no streams.
 *   --leave-after N  A reader goes for good when it has had N events: closes, or with HTTP/2 resets its stream.
 *   --leave-at-end   All go when the window ends, one after another.
 *   --resumable      They say Relay-Resumable, and go on behind their last event when they come back from a break.
 *                    Else they ask anew: a restart, in which events are repeated.
 *   --again          Who is cut off comes back 100 to 199 ms later, and again until he succeeds. Else it is an error.
 *   --break-at S     S seconds into the window all close their connections, and A ms later all are due back.
 *   --fan-out        One asks, and when his head has come the others join his stream, as --resumable; each has one
 *                    answer.
 *   --fan-out-plain  The same, with GET /join to join whatever is sent.
 *   --stuck K        The last K read their head and nothing more. They stand in no other count than stuck_gone.
 */
#include "clients.h"
#include "provider.h"
#include "tls.h"
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

enum { FOR_PROVIDER = 1, FOR_CLIENT = 2, FOR_BOTH = 3 };

/* Options by what getopt_long() returns for them. */
enum {
    PORT, INTERVAL, SIZE, EVENTS, TICK, HOLD, STREAMS, PATH, RAMP, SECONDS, WARMUP, HTTP, PER_CONNECTION, WRITES,
    WINDOW, PLAIN_MS, CLOSES, ARRIVALS, BURST, PLAIN, LEAVE_AFTER, LEAVE_AT_END, RESUMABLE, AGAIN, BREAK_AT,
    AWAY_MS, FAN_OUT, FAN_OUT_PLAIN, STUCK, TLS,
    CERT, KEY,
};

static const struct option options[] = {
    {"port", required_argument, NULL, PORT},
    {"interval-ms", required_argument, NULL, INTERVAL},
    {"size", required_argument, NULL, SIZE},
    {"events", required_argument, NULL, EVENTS},
    {"tick-us", required_argument, NULL, TICK},
    {"hold", no_argument, NULL, HOLD},
    {"streams", required_argument, NULL, STREAMS},
    {"path", required_argument, NULL, PATH},
    {"ramp-seconds", required_argument, NULL, RAMP},
    {"seconds", required_argument, NULL, SECONDS},
    {"warmup", required_argument, NULL, WARMUP},
    {"http", required_argument, NULL, HTTP},
    {"streams-per-connection", required_argument, NULL, PER_CONNECTION},
    {"writes", required_argument, NULL, WRITES},
    {"window", required_argument, NULL, WINDOW},
    {"plain-ms", required_argument, NULL, PLAIN_MS},
    {"closes", no_argument, NULL, CLOSES},
    {"arrivals", required_argument, NULL, ARRIVALS},
    {"burst", required_argument, NULL, BURST},
    {"plain", no_argument, NULL, PLAIN},
    {"leave-after", required_argument, NULL, LEAVE_AFTER},
    {"leave-at-end", no_argument, NULL, LEAVE_AT_END},
    {"resumable", no_argument, NULL, RESUMABLE},
    {"again", no_argument, NULL, AGAIN},
    {"break-at", required_argument, NULL, BREAK_AT},
    {"away-ms", required_argument, NULL, AWAY_MS},
    {"fan-out", no_argument, NULL, FAN_OUT},
    {"fan-out-plain", no_argument, NULL, FAN_OUT_PLAIN},
    {"stuck", required_argument, NULL, STUCK},
    {"tls", no_argument, NULL, TLS},
    {"cert", required_argument, NULL, CERT},
    {"key", required_argument, NULL, KEY},
    {NULL, 0, NULL, 0},
};

/* Whose option it is. */
static int side_of(int option)
{
    switch (option) {
    case PORT: case HTTP: case HOLD: case PER_CONNECTION: case TLS:
        return FOR_BOTH;
    case INTERVAL: case SIZE: case EVENTS: case TICK: case WRITES: case PLAIN_MS: case CLOSES:
    case CERT: case KEY:
        return FOR_PROVIDER;
    default:
        return FOR_CLIENT;
    }
}

/* Not a part of the kernel's own tick: if each burst fell on the same place in it, the sampled split of a relay's time
 * into user and system would be wrong by any factor (seen: nginx at 0 % user). */
static double interval_ms = 50, tick_us = 1061;
static size_t size = 200;
static uint32_t events = 100;
static bool is_http2;
static const char *certificate, *key;

static uint32_t count(const char *name, double least, double most)
{
    return (uint32_t)number(name, optarg, least, most);
}

static void take_option(int option, const char *name)
{
    switch (option) {
    case PORT: ask.port = (int)count(name, 1, 65535); break;
    case INTERVAL: interval_ms = number(name, optarg, 0, 3600e3); break;
    case SIZE: size = count(name, 1, 1 << 20); break;
    case EVENTS: events = count(name, 0, 99999999); break;
    case TICK: tick_us = number(name, optarg, 10, 1e6); break;
    case HOLD: answer.hold = ask.hold = true; break;
    case STREAMS: ask.streams = count(name, 1, 1e6); break;
    case PATH: ask.path = optarg; break;
    case RAMP: ask.ramp = number(name, optarg, 0, 3600); break;
    case SECONDS: ask.seconds = number(name, optarg, 0.001, 86400); break;
    case WARMUP: ask.warmup = number(name, optarg, 0, 3600); break;
    case HTTP: is_http2 = second_of(name, optarg, "1", "2"); break;
    case PER_CONNECTION: ask.per_connection = answer.most_streams = count(name, 1, 10000); break;
    case WRITES: answer.each = second_of(name, optarg, "joined", "each"); break;
    case WINDOW: ask.window = count(name, 1, INT32_MAX); break;
    case PLAIN_MS: plain.after_ms = number(name, optarg, 0, 3600e3); break;
    case CLOSES: answer.closes = true; break;
    case ARRIVALS: ask.arrivals = number(name, optarg, 0, 1e6); ask.open_loop = true; break;
    case BURST: ask.burst = count(name, 1, 1e6); break;
    case PLAIN: ask.plain = true; break;
    case LEAVE_AFTER: ask.leave_after = count(name, 1, 99999999); break;
    case LEAVE_AT_END: ask.leave_at_end = true; break;
    case RESUMABLE: ask.resumable = true; break;
    case AGAIN: ask.again = true; break;
    case BREAK_AT: ask.break_at = number(name, optarg, 0, 86400); break;
    case AWAY_MS: ask.away_ms = number(name, optarg, 0, 3600e3); break;
    case FAN_OUT: ask.fan_out = ask.resumable = true; break;
    case FAN_OUT_PLAIN: ask.fan_out_plain = true; break;
    case CERT: certificate = optarg; break;
    case KEY: key = optarg; break;
    case STUCK: ask.stuck = count(name, 0, 1e6); break;
    default: ask.tls = true; break;
    }
}

/* What does not go together. */
static void check_client(void)
{
    bool breaks = ask.break_at >= 0 || ask.again, fans_out = ask.fan_out || ask.fan_out_plain;
    bool only1 = breaks || fans_out || ask.resumable || ask.stuck;
    if (is_http2 && only1)
        die("--resumable, --again, --break-at, --fan-out, --fan-out-plain and --stuck need --http 1");
    if (ask.open_loop && (only1 || ask.leave_at_end))
        die("--arrivals does not go with --resumable, --again, --break-at, --fan-out, --fan-out-plain, --stuck "
            "or --leave-at-end");
    if (ask.open_loop && (ask.arrivals > 0) == (ask.burst > 0))
        die("--arrivals needs a rate, or 0 with --burst");
    if (ask.burst && !ask.open_loop)
        die("--burst needs --arrivals 0");
    if (ask.plain && (only1 || ask.leave_after))
        die("--plain does not go with what is for streams");
    if (ask.fan_out && ask.fan_out_plain)
        die("--fan-out or --fan-out-plain");
    if (ask.fan_out_plain && ask.resumable)
        die("--fan-out-plain does not go with --resumable");
    if (ask.stuck >= ask.streams && ask.stuck)
        die("--stuck must be less than --streams");
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    bool is_provider = !strcmp(mode, "provider");
    if (!is_provider && strcmp(mode, "client"))
        die("first argument must be provider or client");
    int option, index;
    ask.path = "/v1/chat/completions";
    opterr = 0;
    while ((option = getopt_long(argc - 1, argv + 1, "", options, &index)) != -1) {
        if (option == '?')
            die("unknown or incomplete option: %s", argv[optind]);
        if (!(side_of(option) & (is_provider ? FOR_PROVIDER : FOR_CLIENT)))
            die("--%s is not for the %s", options[index].name, mode);
        take_option(option, options[index].name);
    }
    if (optind < argc - 1)
        die("unexpected argument: %s", argv[optind + 1]);
    if (!ask.port)
        die("--port is needed");
    if (!is_provider)
        check_client();
    else if (ask.tls != (certificate && key) || !certificate != !key)
        die("--tls needs --cert and --key, and they need it");
    loop_prepare();
    if (ask.tls && !is_provider)
        tls_prepare_client(is_http2);
    if (!is_provider)
        return run_clients(is_http2 ? &clients2 : &clients1);
    if (ask.tls)
        tls_prepare_server(certificate, key, is_http2);
    wheel_prepare(interval_ms, tick_us, events);
    event_prepare(size);
    plain_prepare();
    return run_provider(ask.port, is_http2 ? &provider2 : &provider1);
}
