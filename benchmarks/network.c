/*
 * network: a TCP proxy that makes a bad network between two programs on one machine.
 *
 *   network --listen P --connect P2 [--delay-ms D] [--jitter-ms J] [--loss PERCENT] [--bandwidth BYTES_PER_S]
 *           [--break-every-s S] [--seed N]
 *
 * The model, for each connection and direction. Bytes come whole and in order, as TCP delivers them. What is read is cut
 * into segments of at most 1448 bytes, as Ethernet would carry them. A segment leaves when the link is free: a token
 * bucket of one segment that fills at --bandwidth. It arrives D ms later, and a random part of J more (uniform from 0
 * to J), but never before the one ahead of it. With the probability --loss it is lost, and arrives one retransmission
 * later: 200 ms, Linux's least retransmission timeout, and twice as long each time it is lost again; all behind it wait
 * (head of line). So there is no fast retransmission, as with the sparse segments of a token stream, and no congestion
 * window. Connections are made at once; a FIN takes its place behind the bytes. With --break-every-s each connection
 * is cut by RST at both ends after a random time, exponential with the mean S.
 *
 * Memory is bounded: a direction holds HELD_MOST bytes on their way; then its sender is not read until some have
 * arrived, as a router's queue and a small window would have it. Nothing is faster than HELD_MOST in D ms, then.
 *
 * The chances of each direction come from --seed and the connection's number, so that they are the same in each run as
 * far as the reads are. One thread, timers in a heap, precise to some 100 us.
 * SIGUSR1 prints the counters as one line of JSON, SIGTERM and SIGINT print it and end.
 */
#define _GNU_SOURCE
#include "heap.h"
#include "sockets.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, INPUT_SIZE = 16384, SEGMENT = 1448, HELD_MOST = 256 << 10, VECTOR = 64, LOST_MOST = 6 };
enum { SOCKET_BUFFER = 64 << 10 }; /* the kernel's own may grow to megabytes, and would hide what is behind */
static const int64_t MS = 1000000, SECOND = 1000000000, RETRANSMIT = 200 * 1000000;
static const uint32_t UNWATCHED = UINT32_MAX;

/* What is on its way. */
struct segment {
    struct segment *next;
    int64_t due;
    size_t size, sent; /* size 0: a FIN */
    char bytes[];
};

struct direction {
    int from, to;
    struct segment *first, *last;
    size_t held; /* bytes of memory */
    int64_t free_at, last_due;
    uint64_t random;
    bool ended, done, full; /* FIN read; FIN sent; the receiver's socket takes no more */
    struct timer timer;
};

struct connection {
    int client, server;
    uint32_t client_watched, server_watched; /* for these events */
    bool connecting;
    struct direction up, down;
    struct timer cut;
};

static struct {
    int port;
    double delay_ms, jitter_ms, loss, bandwidth, break_every_s;
    uint64_t seed;
} ask = {.seed = 1};
static struct {
    uint64_t connections, open, refused, cuts, segments, lost, bytes;
    size_t held_most;
} count;

static int epoll_fd;
static int64_t now;
static struct connection **connections; /* by both descriptors */
static size_t fd_limit;

static void read_clock(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    now = time.tv_sec * SECOND + time.tv_nsec;
}

/* splitmix64, from 0 to below 1 */
static double chance(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void forget_held(struct direction *d)
{
    for (struct segment *s = d->first, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    timer_clear(&d->timer);
}

static void close_one(int fd, bool reset)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

static void close_both(struct connection *c, bool reset)
{
    connections[c->client] = connections[c->server] = NULL;
    close_one(c->client, reset);
    close_one(c->server, reset);
    forget_held(&c->up);
    forget_held(&c->down);
    timer_clear(&c->cut);
    free(c);
    count.open--;
}

static void watch_end(int fd, uint32_t *watched, uint32_t events)
{
    if (*watched == events || (*watched == UNWATCHED && !events))
        return;
    watch(epoll_fd, *watched == UNWATCHED ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, events);
    *watched = events;
}

static bool reads(const struct connection *c, const struct direction *d)
{
    return !c->connecting && !d->ended && d->held < HELD_MOST;
}

static void watch_both(struct connection *c)
{
    watch_end(c->client, &c->client_watched, (reads(c, &c->up) ? EPOLLIN : 0) | (c->down.full ? EPOLLOUT : 0));
    watch_end(c->server, &c->server_watched,
              (reads(c, &c->down) ? EPOLLIN : 0) | (c->connecting || c->up.full ? EPOLLOUT : 0));
}

/* Puts a segment on its way: when will it arrive? */
static int64_t due(struct direction *d, size_t size)
{
    int64_t leaves = now;
    if (ask.bandwidth > 0) {
        leaves = d->free_at > now ? d->free_at : now;
        d->free_at = leaves + (int64_t)((double)size / ask.bandwidth * (double)SECOND);
    }
    double late = ask.delay_ms + ask.jitter_ms * chance(&d->random);
    int64_t at = leaves + (int64_t)(late * (double)MS), again = RETRANSMIT;
    for (int i = 0; size && i < LOST_MOST && chance(&d->random) * 100 < ask.loss; i++, again *= 2) {
        at += again;
        count.lost++;
    }
    return d->last_due = at > d->last_due ? at : d->last_due;
}

static void put(struct direction *d, const char *bytes, size_t size)
{
    struct segment *s = malloc(sizeof *s + size);
    if (!s)
        die("out of memory");
    s->next = NULL;
    s->due = due(d, size);
    s->size = size;
    s->sent = 0;
    memcpy(s->bytes, bytes, size);
    *(d->first ? &d->last->next : &d->first) = s;
    d->last = s;
    d->held += sizeof *s + size;
    count.segments++;
    if (d->held > count.held_most)
        count.held_most = d->held;
}

/* Reads once. Returns false if the connection is gone. */
static bool take(struct connection *c, struct direction *d)
{
    static char input[INPUT_SIZE];
    ssize_t got = recv(d->from, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got < 0) { /* a RST overtakes what is on its way */
        close_both(c, true);
        return false;
    }
    d->ended = !got;
    for (size_t i = 0, n = (size_t)got; i < n || d->ended; i += SEGMENT) {
        put(d, input + i, n - i < SEGMENT ? n - i : SEGMENT);
        if (d->ended)
            break;
    }
    if (!d->full && d->timer.place == NOWHERE)
        timer_set(&d->timer, d->first->due);
    return true;
}

/* Sends what has arrived. Returns false if the connection is gone. */
static bool give(struct connection *c, struct direction *d)
{
    d->full = false;
    while (d->first && d->first->due <= now) {
        struct iovec parts[VECTOR];
        struct msghdr message = {.msg_iov = parts};
        for (struct segment *s = d->first; s && s->size && s->due <= now && message.msg_iovlen < VECTOR; s = s->next)
            parts[message.msg_iovlen++] = (struct iovec){s->bytes + s->sent, s->size - s->sent};
        ssize_t sent = message.msg_iovlen ? sendmsg(d->to, &message, MSG_NOSIGNAL) : shutdown(d->to, SHUT_WR);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            d->full = true;
            break;
        }
        if (sent < 0) {
            close_both(c, true);
            return false;
        }
        count.bytes += (uint64_t)sent;
        for (struct segment *s; (s = d->first) && s->due <= now; d->first = s->next, free(s)) {
            size_t part = s->size - s->sent < (size_t)sent ? s->size - s->sent : (size_t)sent;
            s->sent += part;
            sent -= (ssize_t)part;
            if (s->sent < s->size || (!s->size && message.msg_iovlen))
                break; /* taken in part, or a FIN whose turn comes now */
            d->done = !s->size;
            d->held -= sizeof *s + s->size;
        }
    }
    if (d->first && !d->full)
        timer_set(&d->timer, d->first->due);
    if (c->up.done && c->down.done) {
        close_both(c, false);
        return false;
    }
    return true;
}

static void direction_prepare(struct connection *c, struct direction *d, int from, int to, uint64_t salt)
{
    *d = (struct direction){.from = from, .to = to, .random = ask.seed * 0x100000001b3 + count.connections * 4 + salt};
    d->timer = (struct timer){.place = NOWHERE, .connection = c, .direction = d};
}

static void accept_one(int listener)
{
    int client = accept_from(listener);
    if (client < 0)
        return;
    int server = connect_to(ask.port, SOCKET_BUFFER);
    if (server < 0) {
        count.refused++;
        close_one(client, true);
        return;
    }
    struct connection *c = malloc(sizeof *c);
    if (!c || (size_t)client >= fd_limit || (size_t)server >= fd_limit)
        die("too many connections");
    count.connections++;
    count.open++;
    *c = (struct connection){.client = client, .server = server, .connecting = true};
    direction_prepare(c, &c->up, client, server, 0);
    direction_prepare(c, &c->down, server, client, 1);
    c->cut = (struct timer){.place = NOWHERE, .connection = c};
    connections[client] = connections[server] = c;
    c->client_watched = c->server_watched = UNWATCHED; /* the client is read once there is somebody to send to */
    watch_both(c);
    if (ask.break_every_s > 0) {
        uint64_t random = ask.seed * 0x100000001b3 + count.connections * 4 + 2;
        timer_set(&c->cut, now + (int64_t)(-log1p(-chance(&random)) * ask.break_every_s * (double)SECOND));
    }
}

static void on_ready(int fd, uint32_t events)
{
    struct connection *c = connections[fd];
    struct direction *in = fd == c->client ? &c->up : &c->down, *out = fd == c->client ? &c->down : &c->up;
    if (events & EPOLLERR) { /* refused, or a RST */
        count.refused += c->connecting && fd == c->server;
        close_both(c, true);
        return;
    }
    if (c->connecting && fd == c->server)
        c->connecting = false;
    else if (events & EPOLLOUT && !give(c, out))
        return;
    if (reads(c, in) && events & (EPOLLIN | EPOLLHUP)) {
        if (!take(c, in))
            return;
    } else if (events & EPOLLHUP) { /* it says so again and again, though nobody wants to hear it now */
        watch(epoll_fd, EPOLL_CTL_DEL, fd, 0);
        *(fd == c->client ? &c->client_watched : &c->server_watched) = UNWATCHED;
    }
    watch_both(c);
}

static void run_timers(void)
{
    struct timer *timer;
    while ((timer = timer_next()) && timer->at <= now) {
        struct connection *c = timer->connection;
        timer_clear(timer);
        if (!timer->direction) {
            count.cuts++;
            close_both(c, true);
        } else if (give(c, timer->direction)) {
            watch_both(c);
        }
    }
}

static void report(void)
{
    printf("{\"connections\":%" PRIu64 ",\"open\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"cuts\":%" PRIu64
           ",\"segments\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"held_most\":%zu}\n",
           count.connections, count.open, count.refused, count.cuts, count.segments, count.lost, count.bytes,
           count.held_most);
    fflush(stdout);
}

static int parse_arguments(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'},    {"connect", required_argument, NULL, 'c'},
        {"delay-ms", required_argument, NULL, 'd'},  {"jitter-ms", required_argument, NULL, 'j'},
        {"loss", required_argument, NULL, 'p'},      {"bandwidth", required_argument, NULL, 'b'},
        {"break-every-s", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0}};
    int option, index, listen_port = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?')
            die("unknown or incomplete option: %s", argv[optind - 1]);
        const char *name = options[index].name;
        switch (option) {
        case 'l': listen_port = (int)number_argument(name, optarg, 1, 65535); break;
        case 'c': ask.port = (int)number_argument(name, optarg, 1, 65535); break;
        case 'd': ask.delay_ms = number_argument(name, optarg, 0, 60000); break;
        case 'j': ask.jitter_ms = number_argument(name, optarg, 0, 60000); break;
        case 'p': ask.loss = number_argument(name, optarg, 0, 100); break;
        case 'b': ask.bandwidth = number_argument(name, optarg, 1, 1e12); break;
        case 's': ask.break_every_s = number_argument(name, optarg, 0.001, 86400); break;
        default: ask.seed = (uint64_t)number_argument(name, optarg, 0, 1e15); break;
        }
    }
    if (optind < argc)
        die("unexpected argument: %s", argv[optind]);
    if (!listen_port || !ask.port)
        die("--listen and --connect are needed");
    return listen_port;
}

int main(int argc, char **argv)
{
    program_name = "network";
    int listen_port = parse_arguments(argc, argv);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    fd_limit = raise_fd_limit();
    connections = calloc(fd_limit, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int told = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (!connections || epoll_fd < 0 || told < 0)
        die("start: %s", strerror(errno));
    int listener = listen_on(listen_port, SOCKET_BUFFER);
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN);
    watch(epoll_fd, EPOLL_CTL_ADD, told, EPOLLIN);

    for (;;) {
        struct epoll_event ready[BATCH];
        read_clock();
        run_timers();
        const struct timer *next = timer_next();
        int64_t left = next ? next->at - now : 0;
        struct timespec wait = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
        int got = epoll_pwait2(epoll_fd, ready, BATCH, next ? &wait : NULL, NULL);
        if (got < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        read_clock();
        bool accepting = false;
        for (int i = 0; i < got; i++) {
            int fd = ready[i].data.fd;
            struct signalfd_siginfo signal;
            if (fd == listener) {
                accepting = true;
            } else if (fd == told) {
                while (read(told, &signal, sizeof signal) == sizeof signal) {
                    report();
                    if (signal.ssi_signo != SIGUSR1)
                        return 0;
                }
            } else if (connections[fd]) { /* else closed earlier in this batch */
                on_ready(fd, ready[i].events);
            }
        }
        /* After the batch, so that no descriptor closed in it is used anew while it still has readiness there. */
        if (accepting)
            accept_one(listener);
    }
}
