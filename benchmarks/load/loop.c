#include "loop.h"
#include "tls.h"
#include <arpa/inet.h>
#include <linux/tcp.h> /* for the whole struct tcp_info */
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 4096 }; /* a ramp of thousands of streams must not meet SYN retries, which take a second */

size_t fd_limit;
char input[INPUT_SIZE];
static int epoll_fd;

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(2);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        die("out of memory");
    return memory;
}

int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS + ts.tv_nsec;
}

void loop_prepare(void)
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

void watch(int operation, int fd, uint32_t events, uint32_t key)
{
    struct epoll_event event = {.events = events, .data.u32 = key};
    if (!epoll_ctl(epoll_fd, operation, fd, &event))
        return;
    if (fd == STDIN_FILENO)
        die("--hold needs a pipe or a terminal as stdin");
    die("epoll_ctl: %s", strerror(errno));
}

int wait_ready(struct epoll_event *ready, int64_t until)
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

ssize_t read_some(int fd, size_t most)
{
    ssize_t got = tls_on ? tls_read(fd, input, most) : recv(fd, input, most, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? -1 : 0;
    return got;
}

ssize_t read_input(int fd)
{
    return read_some(fd, sizeof input);
}

ssize_t send_output(int fd, const void *bytes, size_t size)
{
    return tls_on ? tls_write(fd, bytes, size) : send(fd, bytes, size, MSG_NOSIGNAL);
}

void close_socket(int fd)
{
    if (tls_on)
        tls_end(fd);
    close(fd);
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = loopback(port);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* whoever is accepted inherits it */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG))
        die("listen on port %d: %s", port, strerror(errno));
    return fd;
}

int connect_to(int port, int receive)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = loopback(port);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive) /* before connecting, for the window's scale is settled then */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    if (tls_on)
        tls_begin(fd);
    return fd;
}

uint64_t segments_received(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) ? 0 : info.tcpi_data_segs_in;
}
