"""relay carries the token streams of language models from the provider to the people who read them.

The floors
----------
Each imports only from those below it; an import contract in setup.cfg keeps it so. Below `net` there is no asyncio, no
socket, no clock and no logging: those floors are functions of the bytes and the calls that they are given.

    cli, __main__    arguments in, exit codes out
    app              wiring, signals, drain: the only file that knows every floor
    config           the file's schema; one clear error per mistake (sample.toml explains every value)

    control/         one decision per request
        exchange     admit -> route -> connect -> commit -> finish; the error answers, the access line, the timeouts
        router       which route, which upstream
        retry        may a request be sent again
        auth         who may call (so far: no foreign web page on our key)
        health       the requests that the relay answers itself
        office       what all exchanges share
        caller       who is calling, by whose word
        access       the record of an exchange, and the access log
    net/             the only floor with transports
        server       listen, bound the connections, drain
        service      what a client's connection needs of those around it
        downstream1  a client's HTTP/1.1 connection, and the sink of its answers
        upstream1    a provider's HTTP/1.1 connection, and the sink of its requests
        connection1  what the two share: framing out, the socket's pace, stalls, the end
        pool         a sync function decides, async code performs
        timers       one coarse wheel for all timeouts
    core/            the relay without sockets
        stream       Stream.feed: the hot path
        transfer     bodies that are not event streams
        inflated     a compressed event stream in front of a Stream
        request      a request's body, kept for one repeat
        reader       one reader's place behind a producer: direct, or through its ring
    flow/            who may hold how much
        ring         references to whole pieces
        overflow     how much may wait, and what then
        gate         counted read pause towards a producer
    wire/            bytes <-> protocol facts
        sse          Framer: where events begin and end
        chunked      the chunked transfer coding, both ways
        body         the other ways to end a body
        http1        heads by h11, behind a check for what h11 lets pass
        headers      which fields cross
        encoding     gzip, deflate, br, decoded in bounded steps
        dialect      which event ends a stream; how errors are said
    errors           one tree, each with its status; CloseReason

One token's trip
----------------
    provider socket -> ChunkedBody.receive(bytes)    strip the transfer coding
                    -> Stream.feed(payload)          whole events, counted; the last one remembered
                    -> Connection1._send_chunk       re-frame, one transport.write
                    -> client socket

Three Python frames; no task, no queue, no await, no timer object, no JSON. Several events in one read are one write.
What arrives in pieces waits in the framer for its end. A socket that does not take everything switches its reader to
the ring; a ring above its high mark closes the gate, and the provider's socket is not read until it is below the low
one. tests/core/test_budget.py counts the frames, writes and copies, so that this stays true.

One request's life
------------------
Downstream1 reads a head and makes an Exchange, which finds a route and takes an idle connection from the pool, or
waits for one in the only task there is. Upstream1 sends the head with what is there of the body and calls `answered`;
the exchange makes a Stream or a Transfer and hands it back, and from then on bytes flow without it. The answer's head
leaves with its first byte, so whatever fails before is still a real status; after it, only an abort can say that an
answer is not whole, and no answer that is not whole ends cleanly. Whoever leaves is noticed by the connection he
leaves, and the provider's connection is closed in the same call. (A client that is not being read, because its own body
is not taken, is looked at every tick of the wheel instead.)

Where each rule lives
---------------------
    what is an event                      wire/sse.py
    what ends a stream                    wire/dialect.py
    which headers cross                   wire/headers.py
    what is ambiguous and refused         wire/http1.py
    how much may wait, and what then      flow/overflow.py
    who stops reading the provider        flow/gate.py
    open, reuse, close a connection       net/pool.py
    where a request goes                  control/router.py
    may it be tried again                 control/retry.py
    who may call                          control/auth.py
"""
