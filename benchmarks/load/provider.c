#include "provider.h"
#include "tls.h"
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct provided provided;
struct answer answer = {.most_streams = 100};

void provided_stream(void)
{
    provided.requests++;
    if (++provided.streams > provided.streams_most)
        provided.streams_most = provided.streams;
}

void provided_close(int fd)
{
    close_socket(fd);
    provided.open--;
}

/* When readers left, in the order in which it was seen. */
enum { CLOSES_MOST = 20000 };
static struct {
    int64_t reader; /* -1: his gateway did not say who he is */
    int64_t at;
} closes[CLOSES_MOST];
static uint32_t close_count;

void provided_left(const struct wish *wish)
{
    provided.left_early++;
    if (!answer.closes || close_count == CLOSES_MOST)
        return;
    closes[close_count].reader = wish->has_reader ? (int64_t)wish->reader : -1;
    closes[close_count++].at = now_ns();
}

static void accept_all(int listener, const struct protocol *protocol)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
            return;
        if (fd < 0)
            die("accept: %s", strerror(errno));
        if ((size_t)fd >= fd_limit)
            die("accept: more connections than the file limit");
        provided.accepted++;
        if (++provided.open > provided.open_most)
            provided.open_most = provided.open;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd);
        if (tls_on)
            tls_begin(fd);
        protocol->accepted(fd);
    }
}

static void report_closes(void)
{
    fputs(",\"closes\":[", stdout);
    for (uint32_t i = 0; i < close_count; i++)
        printf("%s[%" PRId64 ",%" PRId64 "]", i ? "," : "", closes[i].reader, closes[i].at);
    putchar(']');
}

/* The lateness starts anew with each report, so that a window between two signals can be judged by itself. */
static void report(void)
{
    printf("{\"events\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"open\":%" PRIu64
           ",\"open_most\":%" PRIu64 ",\"streams_open\":%" PRIu64 ",\"streams_most\":%" PRIu64 ",\"writes\":%" PRIu64,
           provided.events, provided.requests, provided.accepted, provided.open, provided.open_most, provided.streams,
           provided.streams_most, provided.writes);
    printf(",\"blocked_sends\":%" PRIu64 ",\"no_window\":%" PRIu64 ",\"left_early\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"plain\":%" PRIu64 ",\"gets\":%" PRIu64 ",\"late_max_us\":%.1f",
           provided.blocked, provided.no_window, provided.left_early, provided.refused, provided.plain, provided.gets,
           (double)wheel.late_max / 1e3);
    if (answer.closes)
        report_closes();
    puts("}");
    fflush(stdout);
    wheel.late_max = 0;
}

int run_provider(int port, const struct protocol *protocol)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    int listener = listen_on(port);
    wheel.fire = protocol->fire;
    plain.fire = protocol->fire_plain;
    protocol->prepare();
    watch(EPOLL_CTL_ADD, signal_fd, EPOLLIN, (uint32_t)signal_fd);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t)listener);
    for (;;) {
        struct epoll_event ready[BATCH];
        int64_t event_at = wheel_next(), plain_at = plain_next();
        int count = wait_ready(ready, event_at < plain_at ? event_at : plain_at);
        for (int i = 0; i < count; i++) {
            int fd = (int)ready[i].data.u32;
            if (fd == listener) {
                accept_all(listener, protocol);
            } else if (fd == signal_fd) {
                struct signalfd_siginfo info;
                if (read(signal_fd, &info, sizeof info) != sizeof info)
                    continue;
                report();
                if (info.ssi_signo != SIGUSR1)
                    return 0;
            } else {
                protocol->ready(fd, ready[i].events);
                while (tls_pending(fd))
                    protocol->ready(fd, EPOLLIN);
            }
        }
        wheel_turn();
        plain_turn();
        protocol->flush();
    }
}
