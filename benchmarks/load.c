/*
 * load: both ends of a benchmark of a relay, in one program without dependencies.
 *
 *   load provider --port P --interval-ms I [--size S] [--events N] [--tick-us U] [--hold]
 *   load client   --port P --streams N [--path /v1/chat/completions] [--ramp-seconds R]
 *                 --seconds T [--warmup W] [--hold]
 *
 * The provider answers any HTTP/1.1 request with an event stream in the shape of an OpenAI chat completion:
 * one chunk = one event = one send(). It is an open loop: the schedule never waits for a reader, and each event
 * carries the time at which it was DUE, so a delay includes whatever made it late (no coordinated omission).
 * The client reads such streams, through a relay or directly, and records delay = now - stamp of each event.
 *
 * Both sides read CLOCK_MONOTONIC, so they must run on one machine. Neither may become what is measured: no
 * allocation per event, one wake-up for everything that is due, and no work on bytes that no counter needs.
 *
 * provider: --interval-ms 0 sends as fast as each reader takes; --hold leaves a stream open and silent after its
 * N events. It prints its counters as one line of JSON at SIGUSR1 and at SIGINT or SIGTERM.
 * client: prints "measuring" once all streams are open and W seconds have passed since, "measured" T seconds
 * later, and its results as one line of JSON when it exits: at once, or with --hold when its stdin ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define LENGTH(literal) (sizeof(literal) - 1)

enum {
    BACKLOG = 4096,    /* a ramp of thousands of streams must not meet SYN retries, which take a second */
    BATCH = 512,       /* readiness events taken by one epoll_wait */
    INPUT_SIZE = 65536,
    HEAD_MAX = 32768,
    STAMP_DIGITS = 19, /* what an int64_t of nanoseconds can need */
    SEQ_DIGITS = 8,
    MARKER_SIZE = 1 + STAMP_DIGITS + 1 + SEQ_DIGITS, /* @stamp.seq */
    FAIR_TURN = 16,    /* events a saturating stream may send before the others have theirs */
    RESERVED_FDS = 16, /* stdio, epoll, listener, signals, and what the caller left open */
};

static int epoll_fd;
static size_t fd_limit;
static char input[INPUT_SIZE]; /* shared by all connections: bytes are used up before the next read */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS + ts.tv_nsec;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        die("out of memory");
    return memory;
}

static void prepare(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        die("setrlimit: %s", strerror(errno));
    fd_limit = limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default of 50 us would show in every delay */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1: %s", strerror(errno));
}

static void watch(int operation, int fd, uint32_t events, uint32_t key)
{
    struct epoll_event event = {.events = events, .data.u32 = key};
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        die("epoll_ctl: %s", strerror(errno));
}

/* Waits until something is ready or `until` has come (INT64_MAX: no end; the past: does not wait). */
static int wait_ready(struct epoll_event *ready, int64_t until)
{
    struct timespec timeout = {0, 0};
    if (until != INT64_MAX) {
        int64_t left = until - now_ns();
        if (left > 0)
            timeout = (struct timespec){left / NS, left % NS};
    }
    int count = epoll_pwait2(epoll_fd, ready, BATCH, until == INT64_MAX ? NULL : &timeout, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll_pwait2: %s", strerror(errno));
    return count < 0 ? 0 : count;
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* ---- HTTP/1.1, as far as a benchmark needs it -------------------------------------------------------------- */

/* A head that did not come in one read. Most do, and then nothing is kept. */
struct stash {
    char *bytes;
    size_t used;
};

static void stash_free(struct stash *stash)
{
    free(stash->bytes);
    *stash = (struct stash){NULL, 0};
}

/* Takes bytes up to the end of a head. Returns how many were taken, -1 if the head is too long. *head is NULL
 * while the head is incomplete; it points into p or into the stash, which the caller frees afterwards. */
static ssize_t head_take(struct stash *stash, const char *p, size_t n, const char **head, size_t *size)
{
    const char *end;
    *head = NULL;
    if (!stash->bytes) {
        end = memmem(p, n, "\r\n\r\n", 4);
        if (end) {
            *head = p;
            *size = (size_t)(end - p) + 4;
            return (ssize_t)*size;
        }
        stash->bytes = allocate(1, HEAD_MAX);
    }
    size_t before = stash->used, add = n < HEAD_MAX - before ? n : HEAD_MAX - before;
    memcpy(stash->bytes + before, p, add);
    stash->used += add;
    size_t from = before < 3 ? 0 : before - 3; /* the end may straddle two reads */
    end = memmem(stash->bytes + from, stash->used - from, "\r\n\r\n", 4);
    if (!end)
        return stash->used == HEAD_MAX ? -1 : (ssize_t)add;
    *head = stash->bytes;
    *size = (size_t)(end - stash->bytes) + 4;
    return (ssize_t)(*size - before);
}

/* Copies the value of a field, lower-cased and cut at 63 bytes. False if the head does not have it. */
static bool head_field(const char *head, size_t size, const char *name, char value[64])
{
    size_t name_size = strlen(name);
    const char *end = head + size, *line = memchr(head, '\n', size);
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        size_t length = next ? (size_t)(next - line) : 0;
        if (length > name_size && line[name_size] == ':' && !strncasecmp(line, name, name_size)) {
            const char *from = line + name_size + 1;
            size_t used = 0;
            for (; from < next && used < 63; from++)
                if (*from != ' ' && *from != '\t' && *from != '\r')
                    value[used++] = *from >= 'A' && *from <= 'Z' ? (char)(*from | 32) : *from;
            value[used] = 0;
            return true;
        }
        line = next;
    }
    return false;
}

/* The chunked transfer coding, taken apart at any split. */
struct chunked {
    enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF, CHUNK_TRAILER,
           CHUNK_TRAILER_LINE, CHUNK_END_LF, CHUNK_END } state;
    unsigned digits;
    uint64_t left;
};

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 32;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Takes bytes until it has found one run of payload, or the end, or has used all n. Returns how many were taken,
 * -1 if the framing is broken. *size is the length of the run, 0 if there is none. */
static ssize_t chunked_take(struct chunked *coding, const char *p, size_t n, const char **data, size_t *size)
{
    size_t i = 0;
    *size = 0;
    while (i < n && coding->state != CHUNK_END) {
        if (coding->state == CHUNK_DATA) {
            *data = p + i;
            *size = n - i < coding->left ? n - i : (size_t)coding->left;
            coding->left -= *size;
            if (!coding->left)
                coding->state = CHUNK_DATA_CR;
            return (ssize_t)(i + *size);
        }
        char byte = p[i++];
        int digit = hex_digit(byte);
        switch (coding->state) {
        case CHUNK_SIZE:
            if (digit >= 0 && coding->digits++ < 8)
                coding->left = coding->left * 16 + (unsigned)digit;
            else if (coding->digits && coding->digits <= 8 && (byte == '\r' || byte == ';' || byte == ' '))
                coding->state = byte == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
            else
                return -1;
            break;
        case CHUNK_EXTENSION:
            if (byte == '\r')
                coding->state = CHUNK_SIZE_LF;
            break;
        case CHUNK_SIZE_LF:
            if (byte != '\n')
                return -1;
            coding->digits = 0;
            coding->state = coding->left ? CHUNK_DATA : CHUNK_TRAILER;
            break;
        case CHUNK_DATA_CR:
            if (byte != '\r')
                return -1;
            coding->state = CHUNK_DATA_LF;
            break;
        case CHUNK_DATA_LF:
            if (byte != '\n')
                return -1;
            coding->state = CHUNK_SIZE;
            break;
        case CHUNK_TRAILER:
            coding->state = byte == '\r' ? CHUNK_END_LF : CHUNK_TRAILER_LINE;
            break;
        case CHUNK_TRAILER_LINE:
            if (byte == '\n')
                coding->state = CHUNK_TRAILER;
            break;
        case CHUNK_END_LF:
            if (byte != '\n')
                return -1;
            coding->state = CHUNK_END;
            break;
        default:
            break;
        }
    }
    return (ssize_t)i;
}

/* ---- provider ---------------------------------------------------------------------------------------------- */

#define EVENT_START                                                                                             \
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"             \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""
#define EVENT_END "\"},\"finish_reason\":null}]}\n\n"
#define DONE "data: [DONE]\n\n"

static const char answer_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char answer_end[] = "e\r\n" DONE "\r\n0\r\n\r\n";

enum { NONE = 0 }; /* no stream: descriptor 0 is never a connection */

/* One connection to the provider; its index in `streams` is its descriptor. */
struct stream {
    enum { CLOSED, IN_HEAD, IN_BODY, IN_CHUNKED_BODY, ANSWERING } state;
    bool head_sent, blocked;
    struct stash stash;
    struct chunked coding;
    uint64_t body_left;
    uint32_t due, sent;   /* events the schedule has reached, events wholly given to the socket */
    size_t offset;        /* bytes of the current piece that the socket has taken */
    int64_t stamp;        /* of the event being sent; a piece cut by EAGAIN is rendered again, not stored */
    int64_t start, grid;  /* when its first event was due, and its second */
    uint32_t slot, next, previous;
};

/* All streams have one interval, so the wheel is one interval long and a stream stays in its slot to the end. */
static struct {
    uint32_t *slots; /* the first stream of each */
    uint32_t count;
    int64_t tick_ns, base, tick; /* tick: the next one to fire, at base + tick * tick_ns */
    uint32_t streams;            /* linked at the moment */
} wheel;

static struct {
    int64_t interval_ns;
    uint32_t events;
    bool hold;
    char *chunk; /* one event as a chunk; the digits are overwritten for each */
    size_t chunk_size, stamp_at;
} answer;

static struct stream *streams;
static struct {
    uint64_t events, requests, accepted, open, blocked, left_early, refused;
    int64_t late_max;
} provided;

static void answer_prepare(size_t size)
{
    size_t least = LENGTH(EVENT_START) + MARKER_SIZE + LENGTH(EVENT_END);
    if (size < least || size > 1 << 20)
        die("--size must be %zu to %d", least, 1 << 20);
    answer.chunk = allocate(1, size + 32);
    char *p = answer.chunk + sprintf(answer.chunk, "%zx\r\n", size);
    p = mempcpy(p, EVENT_START, LENGTH(EVENT_START));
    answer.stamp_at = (size_t)(p - answer.chunk) + 1;
    memset(p, '0', MARKER_SIZE);
    p[0] = '@';
    p[1 + STAMP_DIGITS] = '.';
    p += MARKER_SIZE;
    for (size_t i = 0; i < size - least; i++)
        *p++ = " token"[i % 6];
    p = mempcpy(p, EVENT_END, LENGTH(EVENT_END));
    p = mempcpy(p, "\r\n", 2);
    answer.chunk_size = (size_t)(p - answer.chunk);
}

static void put_digits(char *at, int count, uint64_t value)
{
    while (count--) {
        at[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

static void wheel_link(uint32_t fd)
{
    struct stream *s = &streams[fd];
    uint32_t first = wheel.slots[s->slot];
    s->previous = NONE;
    s->next = first;
    if (first != NONE)
        streams[first].previous = fd;
    wheel.slots[s->slot] = fd;
    wheel.streams++;
}

static void wheel_unlink(uint32_t fd)
{
    struct stream *s = &streams[fd];
    if (s->previous != NONE)
        streams[s->previous].next = s->next;
    else
        wheel.slots[s->slot] = s->next;
    if (s->next != NONE)
        streams[s->next].previous = s->previous;
    wheel.streams--;
}

/* Saturating streams are linked only while their socket takes bytes; timed ones as long as they answer. */
static bool is_linked(const struct stream *s)
{
    return s->state == ANSWERING && (answer.interval_ns || !s->blocked);
}

static void stream_close(uint32_t fd)
{
    struct stream *s = &streams[fd];
    if (s->state == ANSWERING)
        provided.left_early++;
    if (is_linked(s))
        wheel_unlink(fd);
    stash_free(&s->stash);
    s->state = CLOSED;
    close((int)fd);
    provided.open--;
}

/* Gives the socket what is due, at most `most` events, one send() each. */
static void stream_pump(uint32_t fd, uint32_t most)
{
    struct stream *s = &streams[fd];
    while (!s->blocked && s->state == ANSWERING) {
        const char *piece;
        size_t size;
        bool is_event = false;
        if (!s->head_sent) {
            piece = answer_head;
            size = LENGTH(answer_head);
        } else if (s->sent < s->due) {
            if (!most--)
                return;
            if (!s->offset) {
                if (!answer.interval_ns)
                    s->stamp = now_ns();
                else
                    s->stamp = s->sent ? s->grid + (s->sent - 1) * answer.interval_ns : s->start;
            }
            put_digits(answer.chunk + answer.stamp_at, STAMP_DIGITS, (uint64_t)s->stamp);
            put_digits(answer.chunk + answer.stamp_at + STAMP_DIGITS + 1, SEQ_DIGITS, s->sent + 1);
            piece = answer.chunk;
            size = answer.chunk_size;
            is_event = true;
        } else if (s->sent == answer.events && !answer.hold) {
            piece = answer_end;
            size = LENGTH(answer_end);
        } else {
            return;
        }
        ssize_t n = send((int)fd, piece + s->offset, size - s->offset, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            stream_close(fd);
            return;
        }
        s->offset += n < 0 ? 0 : (size_t)n;
        if (s->offset < size) {
            if (!answer.interval_ns)
                wheel_unlink(fd);
            s->blocked = true;
            provided.blocked++;
            watch(EPOLL_CTL_MOD, (int)fd, EPOLLIN | EPOLLOUT, fd);
            return;
        }
        s->offset = 0;
        if (!s->head_sent) {
            s->head_sent = true;
        } else if (is_event) {
            s->sent++;
            provided.events++;
        } else {
            wheel_unlink(fd);
            s->state = IN_HEAD;
        }
    }
}

/* The first event is due at once, the others whenever the stream's slot comes round. Slots are dealt out by the
 * golden ratio, which spreads any number of streams evenly over the interval, however they arrived. */
static void stream_answer(uint32_t fd, int64_t now)
{
    struct stream *s = &streams[fd];
    double phase = (double)provided.requests++ * 0.6180339887498949;
    phase -= (double)(uint64_t)phase;
    s->slot = (uint32_t)(phase * wheel.count);
    s->state = ANSWERING;
    s->head_sent = s->blocked = false;
    s->sent = 0;
    s->offset = 0;
    s->start = now;
    s->due = answer.interval_ns && answer.events ? 1 : answer.events;
    if (!wheel.streams) /* the wheel stood still: it goes on from now */
        wheel.tick = (now - wheel.base) / wheel.tick_ns + 1;
    wheel_link(fd);
    stream_pump(fd, 1);
}

static void wheel_fire(int64_t time)
{
    uint32_t next;
    for (uint32_t fd = wheel.slots[wheel.tick % wheel.count]; fd != NONE; fd = next) {
        struct stream *s = &streams[fd];
        next = s->next;
        if (!answer.interval_ns) {
            stream_pump(fd, FAIR_TURN);
        } else if (s->due < answer.events && time > s->start) {
            if (++s->due == 2)
                s->grid = time;
            stream_pump(fd, UINT32_MAX);
        }
    }
}

/* Fires what is due. Bounded, so that an overloaded provider still accepts and reads. */
static void wheel_turn(void)
{
    if (!answer.interval_ns) {
        wheel_fire(0);
        return;
    }
    for (int ticks = 0; ticks < 64 && wheel.streams; ticks++) {
        int64_t time = wheel.base + wheel.tick * wheel.tick_ns, late = now_ns() - time;
        if (late < 0)
            return;
        if (late > provided.late_max)
            provided.late_max = late;
        wheel_fire(time);
        wheel.tick++;
    }
}

/* Reads requests. Bytes after a request (pipelining) are refused: no relay has a reason to send them. */
static void stream_read(uint32_t fd)
{
    struct stream *s = &streams[fd];
    ssize_t got = recv((int)fd, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        stream_close(fd);
        return;
    }
    size_t n = (size_t)got, used = 0;
    while (used < n && s->state != ANSWERING) {
        ssize_t taken;
        bool complete = false;
        if (s->state == IN_HEAD) {
            const char *head;
            size_t size;
            char value[64];
            taken = head_take(&s->stash, input + used, n - used, &head, &size);
            if (taken >= 0 && head) {
                s->body_left = 0;
                s->state = IN_BODY;
                if (head_field(head, size, "transfer-encoding", value)) {
                    s->state = IN_CHUNKED_BODY;
                    s->coding = (struct chunked){0};
                } else if (head_field(head, size, "content-length", value)) {
                    s->body_left = strtoull(value, NULL, 10);
                }
                complete = s->state == IN_BODY && !s->body_left;
                stash_free(&s->stash);
            }
        } else if (s->state == IN_BODY) {
            taken = (ssize_t)(n - used < s->body_left ? n - used : s->body_left);
            s->body_left -= (uint64_t)taken;
            complete = !s->body_left;
        } else {
            const char *data;
            size_t size;
            taken = chunked_take(&s->coding, input + used, n - used, &data, &size);
            complete = s->coding.state == CHUNK_END;
        }
        if (taken < 0)
            break;
        used += (size_t)taken;
        if (complete && used == n)
            stream_answer(fd, now_ns());
        else if (complete)
            break;
    }
    if (used < n) {
        provided.refused++;
        stream_close(fd);
    }
}

static void accept_all(int listener)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
            return;
        if (fd < 0)
            die("accept: %s", strerror(errno));
        if ((size_t)fd >= fd_limit)
            die("accept: more connections than the file limit");
        no_delay(fd);
        streams[fd] = (struct stream){.state = IN_HEAD};
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd);
        provided.accepted++;
        provided.open++;
    }
}

/* The lateness starts anew with each report, so that a window between two signals can be judged by itself. */
static void provider_report(void)
{
    printf("{\"events\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"open\":%" PRIu64
           ",\"blocked_sends\":%" PRIu64 ",\"left_early\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"late_max_us\":%.1f}\n",
           provided.events, provided.requests, provided.accepted, provided.open, provided.blocked,
           provided.left_early, provided.refused, (double)provided.late_max / 1e3);
    fflush(stdout);
    provided.late_max = 0;
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = loopback(port);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG))
        die("listen on port %d: %s", port, strerror(errno));
    return fd;
}

static int run_provider(int port)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    int listener = listen_on(port);
    streams = allocate(fd_limit, sizeof *streams);
    watch(EPOLL_CTL_ADD, signal_fd, EPOLLIN, (uint32_t)signal_fd);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t)listener);
    wheel.base = now_ns();
    for (;;) {
        struct epoll_event ready[BATCH];
        int64_t until = INT64_MAX;
        if (wheel.streams)
            until = answer.interval_ns ? wheel.base + wheel.tick * wheel.tick_ns : 0;
        int count = wait_ready(ready, until);
        for (int i = 0; i < count; i++) {
            uint32_t fd = ready[i].data.u32;
            if (fd == (uint32_t)listener) {
                accept_all(listener);
            } else if (fd == (uint32_t)signal_fd) {
                struct signalfd_siginfo info;
                if (read(signal_fd, &info, sizeof info) != sizeof info)
                    continue;
                provider_report();
                if (info.ssi_signo != SIGUSR1)
                    return 0;
            } else {
                if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    stream_read(fd);
                if (streams[fd].state == ANSWERING && streams[fd].blocked && ready[i].events & EPOLLOUT) {
                    watch(EPOLL_CTL_MOD, (int)fd, EPOLLIN, fd);
                    streams[fd].blocked = false;
                    if (!answer.interval_ns)
                        wheel_link(fd);
                    stream_pump(fd, answer.interval_ns ? UINT32_MAX : FAIR_TURN);
                }
            }
        }
        wheel_turn();
    }
}

/* ---- client ------------------------------------------------------------------------------------------------ */

/* A histogram of nanoseconds: 64 buckets for each power of two, so a value is known to 0.8 %. */
struct histogram {
    uint64_t buckets[60 * 64], count;
    int64_t max;
};

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

struct reader {
    enum { NOT_YET, CONNECTING, ASKED, READING, DEAD } state;
    bool open;        /* has had an event since it connected */
    bool steady;      /* has been in one response since the window began */
    bool last;        /* the server said Connection: close */
    int fd;
    struct stash stash;
    struct chunked coding;
    unsigned matched; /* bytes of a marker that have come */
    uint64_t stamp, seq;
    uint64_t seen;    /* the number of the last event of this response */
    int64_t asked;
    char tail[LENGTH(DONE)];
};

static struct {
    int port;
    uint32_t streams;
    double ramp, seconds, warmup;
    bool hold;
    char request[2048];
    size_t request_size;
} ask = {.streams = 1, .ramp = 0, .seconds = 5, .warmup = 1};

static struct reader *readers;
static bool in_window;
static uint32_t settled; /* streams that are open, or known never to be */
static struct histogram delays, firsts;
static struct {
    uint64_t requests, finished, connect, status, framing, closed_early, truncated, out_of_sequence, not_open;
} result;

static void reader_connect(uint32_t index);

static void reader_close(struct reader *r)
{
    stash_free(&r->stash);
    close(r->fd);
    r->fd = -1;
    r->steady = false;
}

/* A stream that failed stays away: a retry would hide the failure in the averages. */
static void reader_fail(struct reader *r, uint64_t *counter)
{
    ++*counter;
    if (!r->open)
        settled++;
    r->open = false;
    reader_close(r);
    r->state = DEAD;
}

static void reader_ask(struct reader *r)
{
    /* The request is far smaller than an empty socket buffer: a partial send is a failure like any other. */
    ssize_t n = send(r->fd, ask.request, ask.request_size, MSG_NOSIGNAL);
    if (n != (ssize_t)ask.request_size) {
        reader_fail(r, &result.closed_early);
        return;
    }
    r->asked = now_ns();
    r->state = ASKED;
    r->matched = 0;
    r->seen = 0;
    r->coding = (struct chunked){0};
    memset(r->tail, 0, sizeof r->tail);
    result.requests++;
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
}

/* Finds the markers in a piece of payload, which may begin and end anywhere. */
static void reader_payload(struct reader *r, const char *p, size_t n, int64_t now)
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

static void reader_head(struct reader *r, const char *head, size_t size)
{
    char value[64];
    if (size < 13 || strncmp(head, "HTTP/1.1 200 ", 13)) {
        reader_fail(r, &result.status);
        return;
    }
    r->last = head_field(head, size, "connection", value) && !strcmp(value, "close");
    if (!head_field(head, size, "transfer-encoding", value) || strcmp(value, "chunked")) {
        reader_fail(r, &result.framing);
        return;
    }
    r->state = READING;
    stash_free(&r->stash);
}

static void reader_end(uint32_t index)
{
    struct reader *r = &readers[index];
    r->steady = false;
    result.finished++;
    if (memcmp(r->tail, DONE, sizeof r->tail))
        result.truncated++;
    if (r->last) {
        reader_close(r);
        reader_connect(index);
    } else {
        reader_ask(r);
    }
}

static void reader_read(uint32_t index)
{
    struct reader *r = &readers[index];
    ssize_t got = recv(r->fd, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        reader_fail(r, &result.closed_early);
        return;
    }
    /* A clock read for each recv(), 1 % of what the recv() costs: one for each batch would call the last of 512
     * events earlier than it was. */
    int64_t now = now_ns();
    size_t n = (size_t)got, used = 0;
    while (used < n && r->state != DEAD) {
        const char *part;
        size_t size;
        ssize_t taken;
        if (r->state == ASKED) {
            taken = head_take(&r->stash, input + used, n - used, &part, &size);
            if (taken >= 0 && part)
                reader_head(r, part, size);
        } else {
            taken = chunked_take(&r->coding, input + used, n - used, &part, &size);
            if (taken >= 0 && size)
                reader_payload(r, part, size, now);
        }
        if (taken < 0) {
            reader_fail(r, &result.framing);
            return;
        }
        used += (size_t)taken;
        if (r->state == READING && r->coding.state == CHUNK_END) {
            if (used < n) /* bytes after the end of a response that nobody asked for */
                reader_fail(r, &result.framing);
            else
                reader_end(index);
            return;
        }
    }
}

static void reader_connect(uint32_t index)
{
    struct reader *r = &readers[index];
    struct sockaddr_in address = loopback(ask.port);
    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (r->fd < 0)
        die("socket: %s", strerror(errno));
    no_delay(r->fd);
    r->state = CONNECTING;
    int failed = connect(r->fd, (struct sockaddr *)&address, sizeof address);
    if (failed && errno != EINPROGRESS) {
        reader_fail(r, &result.connect);
        return;
    }
    watch(EPOLL_CTL_ADD, r->fd, EPOLLOUT, index);
}

static void reader_ready(uint32_t index)
{
    struct reader *r = &readers[index];
    if (r->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            reader_fail(r, &result.connect);
            return;
        }
        watch(EPOLL_CTL_MOD, r->fd, EPOLLIN, index);
        reader_ask(r);
    } else if (r->state != DEAD) {
        reader_read(index);
    }
}

static void client_report(double window, uint32_t throughout)
{
    uint64_t errors = result.connect + result.status + result.framing + result.closed_early + result.truncated +
                      result.out_of_sequence + result.not_open;
    printf("{\"streams\":%" PRIu32 ",\"open_throughout\":%" PRIu32 ",\"window_seconds\":%.6f,\"events\":%" PRIu64
           ",\"delay_us\":{\"p50\":%.1f,\"p95\":%.1f,\"p99\":%.1f,\"max\":%.1f}",
           ask.streams, throughout, window, delays.count, quantile_us(&delays, 0.5), quantile_us(&delays, 0.95),
           quantile_us(&delays, 0.99), (double)delays.max / 1e3);
    printf(",\"ttft_us\":{\"p50\":%.1f,\"p99\":%.1f},\"requests\":%" PRIu64 ",\"finished\":%" PRIu64
           ",\"errors\":%" PRIu64 ",\"error_kinds\":{\"connect\":%" PRIu64 ",\"status\":%" PRIu64
           ",\"framing\":%" PRIu64 ",\"closed_early\":%" PRIu64 ",\"truncated\":%" PRIu64
           ",\"out_of_sequence\":%" PRIu64 ",\"not_open\":%" PRIu64 "}}\n",
           quantile_us(&firsts, 0.5), quantile_us(&firsts, 0.99), result.requests, result.finished, errors,
           result.connect, result.status, result.framing, result.closed_early, result.truncated,
           result.out_of_sequence, result.not_open);
    fflush(stdout);
}

static uint32_t count_steady(void)
{
    uint32_t steady = 0;
    for (uint32_t i = 0; i < ask.streams; i++)
        steady += readers[i].steady;
    return steady;
}

static void begin_window(void)
{
    for (uint32_t i = 0; i < ask.streams; i++)
        readers[i].steady = readers[i].open;
    result.not_open = ask.streams - settled;
    in_window = true;
    puts("measuring");
    fflush(stdout);
}

static int run_client(void)
{
    enum { RAMP, WARMUP, WINDOW, HOLD } phase = RAMP;
    const uint32_t stdin_key = UINT32_MAX;
    readers = allocate(ask.streams, sizeof *readers);
    if (ask.hold) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = stdin_key};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event))
            die("--hold needs a pipe or a terminal as stdin");
    }
    int64_t start = now_ns(), now = start, until = 0, window_start = 0;
    int64_t patience = start + (int64_t)((ask.ramp + 15) * NS); /* then it measures what is there */
    uint32_t started = 0, throughout = 0;
    double window = 0;
    for (;;) {
        struct epoll_event ready[BATCH];
        if (phase == RAMP) {
            for (int i = 0; i < 64 && started < ask.streams; i++) {
                until = start + (int64_t)(ask.ramp * started / ask.streams * NS);
                if (until > now)
                    break;
                reader_connect(started++);
            }
            if (started == ask.streams)
                until = patience;
        }
        int count = wait_ready(ready, phase == HOLD ? INT64_MAX : until);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u32 != stdin_key) {
                reader_ready(ready[i].data.u32);
            } else if (read(STDIN_FILENO, input, sizeof input) <= 0) {
                client_report(window, throughout);
                return 0;
            }
        }
        now = now_ns();
        if (phase == RAMP && started == ask.streams && (settled == ask.streams || now >= patience)) {
            phase = WARMUP;
            until = now + (int64_t)(ask.warmup * NS);
        }
        if (phase == WARMUP && now >= until) {
            phase = WINDOW;
            begin_window();
            window_start = now;
            until = now + (int64_t)(ask.seconds * NS);
        }
        if (phase == WINDOW && now >= until) {
            phase = HOLD;
            in_window = false;
            window = (double)(now - window_start) / NS;
            throughout = count_steady();
            puts("measured");
            fflush(stdout);
            if (!ask.hold) {
                client_report(window, throughout);
                return 0;
            }
        }
    }
}

/* ---- arguments --------------------------------------------------------------------------------------------- */

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        die("--%s must be a number from %g to %.10g", name, least, most);
    return value;
}

static const struct option options[] = {
    {"port", required_argument, NULL, 'p'},         {"interval-ms", required_argument, NULL, 'i'},
    {"size", required_argument, NULL, 's'},         {"events", required_argument, NULL, 'e'},
    {"tick-us", required_argument, NULL, 'k'},      {"hold", no_argument, NULL, 'h'},
    {"streams", required_argument, NULL, 'n'},      {"path", required_argument, NULL, 'P'},
    {"ramp-seconds", required_argument, NULL, 'r'}, {"seconds", required_argument, NULL, 't'},
    {"warmup", required_argument, NULL, 'w'},       {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    bool is_provider = !strcmp(mode, "provider");
    if (!is_provider && strcmp(mode, "client"))
        die("first argument must be provider or client");
    const char *path = "/v1/chat/completions", *wanted = is_provider ? "pisekh" : "pnPrtwh";
    /* Not a part of the kernel's own tick: if each burst fell on the same place in it, the sampled split of a
     * relay's time into user and system would be wrong by any factor (seen: nginx at 0 % user). */
    double interval_ms = 50, tick_us = 1061;
    size_t size = 200;
    int option, index;
    answer.events = 100;
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
        case 'e': answer.events = (uint32_t)number(name, optarg, 0, 99999999); break;
        case 'k': tick_us = number(name, optarg, 10, 1e6); break;
        case 'n': ask.streams = (uint32_t)number(name, optarg, 1, 1e6); break;
        case 'P': path = optarg; break;
        case 'r': ask.ramp = number(name, optarg, 0, 3600); break;
        case 't': ask.seconds = number(name, optarg, 0.001, 86400); break;
        case 'w': ask.warmup = number(name, optarg, 0, 3600); break;
        default: answer.hold = ask.hold = true; break;
        }
    }
    if (optind < argc - 1)
        die("unexpected argument: %s", argv[optind + 1]);
    if (!ask.port)
        die("--port is needed");
    prepare();
    if (is_provider) {
        double slots = interval_ms * 1000 / tick_us;
        wheel.count = slots < 1 ? 1 : (uint32_t)slots;
        wheel.tick_ns = (int64_t)(interval_ms * 1e6 / wheel.count);
        answer.interval_ns = wheel.tick_ns * wheel.count; /* the stamps and the wheel must not drift apart */
        if (interval_ms > 0 && wheel.tick_ns < 1000)
            die("--interval-ms must be 0 or 0.001 and more");
        if (!wheel.tick_ns)
            wheel.tick_ns = 1;
        wheel.slots = allocate(wheel.count, sizeof *wheel.slots);
        answer_prepare(size);
        return run_provider(ask.port);
    }
    if (ask.streams + RESERVED_FDS > fd_limit)
        die("%" PRIu32 " streams need more descriptors than the limit of %zu", ask.streams, fd_limit);
    static const char body[] =
        "{\"model\":\"bench\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}";
    int used = snprintf(ask.request, sizeof ask.request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Accept: text/event-stream\r\nContent-Length: %zu\r\n\r\n%s",
                        path, ask.port, LENGTH(body), body);
    if (used < 0 || (size_t)used >= sizeof ask.request)
        die("--path is too long");
    ask.request_size = (size_t)used;
    return run_client();
}
