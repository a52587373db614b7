/*
 * loop: the clock, the readiness loop and the sockets of both ends. Included first everywhere.
 */
#ifndef LOOP_H
#define LOOP_H
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/types.h>

#define NS 1000000000LL
#define LENGTH(literal) (sizeof(literal) - 1)

enum {
    BATCH = 512,       /* readiness events taken by one epoll_wait */
    INPUT_SIZE = 65536,
    RESERVED_FDS = 16, /* stdio, epoll, listener, signals, and what the caller left open */
};

extern size_t fd_limit;
extern char input[INPUT_SIZE]; /* shared by all connections: bytes are used up before the next read */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
void *allocate(size_t count, size_t size); /* zeroed; never NULL */
int64_t now_ns(void);

void loop_prepare(void);
void watch(int operation, int fd, uint32_t events, uint32_t key);

/* Waits until something is ready or `until` has come (INT64_MAX: no end; the past: does not wait). */
int wait_ready(struct epoll_event *ready, int64_t until);

/* What a socket has to read, into `input`. 0: it is at its end or broken; -1: nothing yet. */
ssize_t read_input(int fd);
ssize_t read_some(int fd, size_t most);

ssize_t send_output(int fd, const void *bytes, size_t size); /* as send() */
void close_socket(int fd);

int listen_on(int port);
int connect_to(int port, int receive); /* non-blocking; -1 if it failed at once; receive: the buffer, 0: the usual */
uint64_t segments_received(int fd);    /* TCP segments with data: at least one for each write of the peer */

#endif
