/*
 * sockets: what the small programs beside `load` share: floor, fan and network.
 */
#ifndef SOCKETS_H
#define SOCKETS_H
#include <stddef.h>
#include <stdint.h>

extern const char *program_name; /* for die() */

/* Says why on stderr and exits with 2. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
void watch(int epoll_fd, int operation, int fd, uint32_t events);
/* The number of an option within its bounds, or the end. */
double number_argument(const char *name, const char *text, double least, double most);
/* Descriptors that this process may have at once, raised as far as it may; at most a million. */
size_t raise_fd_limit(void);
/* Listens on loopback. `buffer`: bytes of each accepted socket's receive buffer; 0: what the kernel finds right. */
int listen_on(int port, int buffer);
/* A socket that is on its way to a port of loopback; -1: not even that. */
int connect_to(int port, int buffer);
/* The next client; -1: none for now. */
int accept_from(int listener);
#endif
