/*
 * peers: what the kernel knows of the other end of a connection, which is on this machine, too.
 *
 * Whoever does not read never learns that he was closed: the end waits behind the bytes that he has no room for.
 */
#ifndef PEERS_H
#define PEERS_H
#include "loop.h"

enum peer_state { PEER_UNKNOWN, PEER_OPEN, PEER_CLOSED };

enum peer_state peer_state(int fd);

#endif
