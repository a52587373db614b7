/*
 * floor: the least that a relay can do, as the mark that others are compared with.
 *
 *   floor --listen P --connect P2
 *
 * One thread, one epoll. Each client connection gets a fresh connection to the provider, and then bytes are only
 * received and sent on, in both directions. It looks at no byte, knows no HTTP, and sets no timer: what it costs,
 * the kernel costs. Whatever a socket does not take is kept, and its source is not read until it is gone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, BATCH = 512, INPUT_SIZE = 65536 };

/* One end of a pair; its index in `ends` is its descriptor. */
struct end {
    int peer; /* -1: not in use */
    bool connecting;
    char *kept; /* what this socket has not taken yet */
    size_t kept_size;
};

static int epoll_fd;
static struct end *ends;
static size_t fd_limit;
static char input[INPUT_SIZE];

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(2);
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        die("epoll_ctl: %s", strerror(errno));
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void use(int fd, int peer, bool connecting)
{
    int on = 1;
    if ((size_t)fd >= fd_limit)
        die("more connections than the file limit");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ends[fd] = (struct end){.peer = peer, .connecting = connecting};
}

/* A socket is read while its peer can take what comes, and waited for while it has something kept. */
static void watch_end(int fd)
{
    bool readable = !ends[ends[fd].peer].kept, writable = ends[fd].kept;
    watch(EPOLL_CTL_MOD, fd, (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0));
}

static void close_pair(int fd)
{
    int both[] = {fd, ends[fd].peer};
    for (int i = 0; i < 2; i++) {
        free(ends[both[i]].kept);
        ends[both[i]] = (struct end){.peer = -1};
        close(both[i]);
    }
}

static void accept_pair(int listener, int provider_port)
{
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
        return;
    if (client < 0)
        die("accept: %s", strerror(errno));
    int provider = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (provider < 0)
        die("socket: %s", strerror(errno));
    use(client, provider, false);
    use(provider, client, true);
    watch(EPOLL_CTL_ADD, client, 0); /* read once there is somebody to send to */
    struct sockaddr_in address = loopback(provider_port);
    if (connect(provider, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        close_pair(client);
    else
        watch(EPOLL_CTL_ADD, provider, EPOLLOUT);
}

static void on_readable(int fd)
{
    ssize_t got = recv(fd, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int peer = ends[fd].peer;
    if (got <= 0) {
        close_pair(fd);
        return;
    }
    ssize_t sent = send(peer, input, (size_t)got, MSG_NOSIGNAL);
    if (sent == got)
        return;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        close_pair(fd);
        return;
    }
    size_t done = sent < 0 ? 0 : (size_t)sent;
    struct end *end = &ends[peer];
    end->kept_size = (size_t)got - done;
    end->kept = malloc(end->kept_size);
    if (!end->kept)
        die("out of memory");
    memcpy(end->kept, input + done, end->kept_size);
    watch_end(fd);
    watch_end(peer);
}

static void on_writable(int fd)
{
    struct end *end = &ends[fd];
    if (end->connecting) {
        end->connecting = false;
        watch_end(fd);
        watch_end(end->peer);
        return;
    }
    if (!end->kept)
        return;
    ssize_t sent = send(fd, end->kept, end->kept_size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            close_pair(fd);
        return;
    }
    end->kept_size -= (size_t)sent;
    memmove(end->kept, end->kept + sent, end->kept_size);
    if (end->kept_size)
        return;
    free(end->kept);
    end->kept = NULL;
    watch_end(fd);
    watch_end(end->peer);
}

static int port_argument(const char *name, const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < 1 || value > 65535)
        die("--%s must be a port", name);
    return (int)value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'}, {"connect", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    int option, index, listen_port = 0, provider_port = 0, on = 1;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?')
            die("usage: floor --listen PORT --connect PORT");
        *(option == 'l' ? &listen_port : &provider_port) = port_argument(options[index].name, optarg);
    }
    if (optind < argc || !listen_port || !provider_port)
        die("usage: floor --listen PORT --connect PORT");

    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        die("setrlimit: %s", strerror(errno));
    fd_limit = limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;
    signal(SIGPIPE, SIG_IGN);
    ends = malloc(fd_limit * sizeof *ends); /* not touched as a whole: memory is measured, too */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!ends || epoll_fd < 0 || listener < 0)
        die("start: %s", strerror(errno));
    struct sockaddr_in address = loopback(listen_port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG))
        die("listen on port %d: %s", listen_port, strerror(errno));
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);

    for (;;) {
        struct epoll_event ready[BATCH];
        int count = epoll_wait(epoll_fd, ready, BATCH, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        bool accepting = false;
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                accepting = true;
                continue;
            }
            if (ends[fd].peer < 0)
                continue; /* closed by its peer earlier in this batch */
            const struct end *peer = &ends[ends[fd].peer];
            bool unread = ends[fd].connecting || peer->connecting || peer->kept;
            if (unread && ready[i].events & (EPOLLHUP | EPOLLERR)) {
                close_pair(fd); /* gone while nobody would have read it */
                continue;
            }
            if (ready[i].events & EPOLLOUT)
                on_writable(fd);
            if (ends[fd].peer >= 0 && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                on_readable(fd);
        }
        /* After the batch, so that no descriptor closed in it is used anew while it still has readiness there. */
        if (accepting)
            accept_pair(listener, provider_port);
    }
}
