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
#include "sockets.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 512, INPUT_SIZE = 65536 };

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

static void use(int fd, int peer, bool connecting)
{
    if ((size_t)fd >= fd_limit)
        die("more connections than the file limit");
    ends[fd] = (struct end){.peer = peer, .connecting = connecting};
}

/* A socket is read while its peer can take what comes, and waited for while it has something kept. */
static void watch_end(int fd)
{
    bool readable = !ends[ends[fd].peer].kept, writable = ends[fd].kept;
    watch(epoll_fd, EPOLL_CTL_MOD, fd, (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0));
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
    int client = accept_from(listener);
    if (client < 0)
        return;
    int provider = connect_to(provider_port, 0);
    if (provider < 0) {
        close(client);
        return;
    }
    use(client, provider, false);
    use(provider, client, true);
    watch(epoll_fd, EPOLL_CTL_ADD, client, 0); /* read once there is somebody to send to */
    watch(epoll_fd, EPOLL_CTL_ADD, provider, EPOLLOUT);
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

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'}, {"connect", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    int option, index, listen_port = 0, provider_port = 0;
    program_name = "floor";
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?')
            die("usage: floor --listen PORT --connect PORT");
        *(option == 'l' ? &listen_port : &provider_port) = (int)number_argument(options[index].name, optarg, 1, 65535);
    }
    if (optind < argc || !listen_port || !provider_port)
        die("usage: floor --listen PORT --connect PORT");
    signal(SIGPIPE, SIG_IGN);
    fd_limit = raise_fd_limit();
    ends = malloc(fd_limit * sizeof *ends); /* not touched as a whole: memory is measured, too */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!ends || epoll_fd < 0)
        die("start: %s", strerror(errno));
    int listener = listen_on(listen_port, 0);
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN);

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
