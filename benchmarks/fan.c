/*
 * fan: the least that a fan-out of one stream to many readers can do, as the mark that others are compared with.
 *
 *   fan --listen P --connect P2
 *
 * One thread, one epoll. The first client that asks is relayed to the provider byte by byte. Each later one that asks,
 * for whatever, while that answer lasts gets a minimal head of a chunked event stream, and then all that comes from the
 * provider for the first one, from the next read on that begins a chunk: one send() for each reader and each read.
 * It knows of HTTP the end of a head and the length of a chunk. It keeps nothing: whoever does not take all that he is
 * sent is closed, and with the first client the whole stream. It is a mark, not a product.
 */
#define _GNU_SOURCE
#include "sockets.h"
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 512, INPUT_SIZE = 65536, CONNECT_MS = 5000 };
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

/* What a descriptor is. Those of closed connections are GONE until they are used anew. */
enum kind { GONE, UNASKED, FIRST, PROVIDER, READER };

/* Where the provider's answer is. */
static struct {
    int client, provider; /* -1: nobody has asked */
    const char *head_end; /* what of the head's end is still to come */
    bool in_head, in_size;
    size_t size, left; /* of the chunk: as far as its line is read; with the line's end behind it */
} stream = {.client = -1, .provider = -1};

static int epoll_fd, provider_port;
static enum kind *kinds;
static int *readers; /* in no order */
static size_t *places, reader_count, joined_count, fd_limit; /* the first `joined_count` of them get what comes */
static char input[INPUT_SIZE];

static void swap_readers(size_t a, size_t b)
{
    int fd = readers[a];
    readers[a] = readers[b];
    readers[b] = fd;
    places[readers[a]] = a;
    places[readers[b]] = b;
}

static void forget(int fd)
{
    if (kinds[fd] == READER) {
        if (places[fd] < joined_count) {
            swap_readers(places[fd], joined_count - 1);
            joined_count--;
        }
        swap_readers(places[fd], reader_count - 1);
        reader_count--;
    }
    kinds[fd] = GONE;
    close(fd);
}

/* The stream is over: for the first client, the provider and all readers. */
static void end_stream(void)
{
    forget(stream.client);
    forget(stream.provider);
    while (reader_count)
        forget(readers[reader_count - 1]);
    stream.client = stream.provider = -1;
}

/* Whether the socket took it all at once. */
static bool send_all(int fd, const char *bytes, size_t size)
{
    return send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Follows the answer so far that it is known where a chunk begins. Returns how many bytes belong to the head. */
static size_t follow(const char *p, size_t n)
{
    size_t i = 0;
    while (stream.in_head && i < n) {
        char byte = p[i++];
        stream.head_end = byte == *stream.head_end ? stream.head_end + 1 : byte == '\r' ? "\n\r\n" : "\r\n\r\n";
        if (!*stream.head_end) {
            stream.in_head = false;
            stream.in_size = true;
            stream.size = 0;
        }
    }
    size_t head = i;
    while (i < n) {
        if (stream.in_size) {
            char byte = p[i++];
            const char *digits = "0123456789abcdef", *digit = strchr(digits, byte >= 'A' ? byte | 32 : byte);
            if (byte && digit)
                stream.size = stream.size * 16 + (size_t)(digit - digits);
            if (byte == '\n') {
                stream.in_size = false;
                stream.left = stream.size + 2;
                stream.size = 0;
            }
        } else {
            size_t part = n - i < stream.left ? n - i : stream.left;
            i += part;
            stream.left -= part;
            stream.in_size = !stream.left;
        }
    }
    return head;
}

static void from_provider(void)
{
    ssize_t got = recv(stream.provider, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        end_stream();
        return;
    }
    bool begins = !stream.in_head && stream.in_size && !stream.size;
    size_t n = (size_t)got, head = follow(input, n);
    if (!send_all(stream.client, input, n)) {
        end_stream();
        return;
    }
    if (begins || head) /* a head's end begins a chunk, too */
        joined_count = stream.in_head ? 0 : reader_count;
    for (size_t i = joined_count; head < n && i-- > 0;) /* downwards: who is closed changes places with the last */
        if (!send_all(readers[i], input + head, n - head))
            forget(readers[i]);
}

static void on_question(int fd, size_t n)
{
    if (stream.client >= 0) {
        if (!send_all(fd, HEAD, sizeof HEAD - 1)) {
            forget(fd);
            return;
        }
        kinds[fd] = READER;
        places[fd] = reader_count;
        readers[reader_count++] = fd;
        return;
    }
    int provider = connect_to(provider_port, 0);
    if (provider < 0 || (size_t)provider >= fd_limit)
        die("no connection to the provider");
    kinds[fd] = FIRST;
    kinds[provider] = PROVIDER;
    stream.client = fd;
    stream.provider = provider;
    stream.in_head = true;
    stream.head_end = "\r\n\r\n";
    watch(epoll_fd, EPOLL_CTL_ADD, provider, EPOLLIN);
    struct pollfd connected = {.fd = provider, .events = POLLOUT};
    if (poll(&connected, 1, CONNECT_MS) != 1 || !send_all(provider, input, n))
        end_stream();
}

static void on_readable(int fd)
{
    if (kinds[fd] == PROVIDER) {
        from_provider();
        return;
    }
    ssize_t got = recv(fd, input, sizeof input, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (kinds[fd] == UNASKED && got > 0)
        on_question(fd, (size_t)got);
    else if (kinds[fd] == FIRST && (got <= 0 || !send_all(stream.provider, input, (size_t)got)))
        end_stream();
    else if (got <= 0) /* what else a reader says is of no interest */
        forget(fd);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'}, {"connect", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    int option, index, listen_port = 0;
    program_name = "fan";
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?')
            die("usage: fan --listen PORT --connect PORT");
        *(option == 'l' ? &listen_port : &provider_port) = (int)number_argument(options[index].name, optarg, 1, 65535);
    }
    if (optind < argc || !listen_port || !provider_port)
        die("usage: fan --listen PORT --connect PORT");
    signal(SIGPIPE, SIG_IGN);
    fd_limit = raise_fd_limit();
    kinds = calloc(fd_limit, sizeof *kinds);
    readers = calloc(fd_limit, sizeof *readers);
    places = calloc(fd_limit, sizeof *places);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!kinds || !readers || !places || epoll_fd < 0)
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
            if (fd == listener)
                accepting = true;
            else if (kinds[fd] != GONE) /* else closed earlier in this batch */
                on_readable(fd);
        }
        /* After the batch, so that no descriptor closed in it is used anew while it still has readiness there. (The
         * provider's, opened within it, replaces none that was closed in it but harmlessly: a spare recv().) */
        int client = accepting ? accept_from(listener) : -1;
        if (client < 0)
            continue;
        if ((size_t)client >= fd_limit)
            die("more connections than the file limit");
        kinds[client] = UNASKED;
        watch(epoll_fd, EPOLL_CTL_ADD, client, EPOLLIN);
    }
}
