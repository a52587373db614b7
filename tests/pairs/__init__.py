"""The relay between all pairs of versions: a client of HTTP/1.1 or 2, a provider of 1.1 or 2, in the clear or over TLS.

    calls       a request and its answer, as a test sees them whatever carries them
    agent1      a client of HTTP/1.1: a connection for each request that is under way
    agent2      a client of HTTP/2: one connection for all of them
    origin      a provider of either version whose answers and whose reading a test decides
    pair        what one of the eight pairs is made of
    conftest    `pair`: every test here runs once for each

Tests say nothing about framing. Where the versions differ by right (how an answer is broken off, what a client that
leaves does), the difference is in the agents, or in a `match` that names it.
"""
