/*
 * tls: TLS 1.3 on the sockets of either end, through OpenSSL. A session is known by its socket's descriptor.
 *
 * Nobody is verified: what is measured is the work of a relay, and both ends are this program.
 */
#ifndef TLS_H
#define TLS_H
#include "loop.h"

extern bool tls_on; /* each socket has a session */

void tls_prepare_client(bool http2);
void tls_prepare_server(const char *certificate, const char *key, bool http2);

void tls_begin(int fd);
void tls_end(int fd);

/* 1: done; 0: the peer has to answer; -1: failed. A server's happens by itself, as it reads. */
int tls_handshake(int fd);

bool tls_ready(int fd); /* its handshake is done, or it needs none */

/* As recv() and send(), 0 for what is broken as for what is at its end. */
ssize_t tls_read(int fd, char *p, size_t n);
ssize_t tls_write(int fd, const char *p, size_t n);

/* There is something to read that the socket does not know of. */
bool tls_pending(int fd);

#endif
