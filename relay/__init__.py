"""relay carries the token streams of language models from the provider to the people who read them.

The floors
----------
Each imports only from those below it; an import contract in setup.cfg keeps it so. Below `net` there is no asyncio, no
socket, no clock and no logging: those floors are functions of the bytes and the calls that they are given.

    cli, __main__    arguments in, exit codes out
    app              wiring, signals, drain: the only file that knows every floor
    config           the file, read and checked for what no schema can say
    schema           its tables, keys and units (sample.toml explains every value)
    mistake          a schema's complaint in the terms of the file

    control/         one decision per request
        exchange     one request and its answer: admit -> errand -> listen -> deliver; the access line
        generation   what a provider is asked once, and what comes of it; what is kept of it
        audience     who reads a generation, and how long it may be without a reader
        asking       one question to a provider: connect, ask, and once more where it may be
        state        how far a generation is, and what callers are told of it
        patience     how long a provider may take
        silence      what the relay says while the provider says nothing: heartbeats, a placeholder
        streams      the streams that are known, as resources: resume, state, cancel
        polling      a long poll
        wishes       what a request asks of the relay itself
        capture      a plain answer that nobody waits for at the moment
        ended        the last state of streams that are gone
        refusal      an error as an answer
        page         the relay's own page, and the module that browsers read streams with (relay/web)
        router       which route, which upstream
        retry        may a request be sent again
        auth         who may call (so far: no foreign web page on our key)
        health       the requests that the relay answers itself
        office       what all exchanges share
        caller       who is calling, by whose word
        tokens       names that nobody guesses
        access       the record of an exchange, and the access log
    net/             the only floor with transports
        poller       which connections in the clear have something to read: one epoll for all of them; what is sent when
                     all were read
        transport    a connection in the clear: a socket that is its own transport
        server       listen, bound the connections, drain
        listener     where clients come in, in the clear
        certificate  TLS to clients: the context, the names it is for, its renewal
        greeting     a connection that has just come: which HTTP its client speaks
        service      the shapes of those that meet here: client, exchange, server; asker, call
        downstream1  a client's HTTP/1.1 connection, and the sink of its answers
        upstream1    a provider's HTTP/1.1 connection, and the sink of its requests
        connection1  what the two share: one message at a time, and its framing out
        downstream2  a client's HTTP/2 connection, and its streams: the sinks of its answers
        upstream2    a provider's HTTP/2 connection, and its streams: the sinks of its requests
        connection2  what the two share: one write a turn, whose turn it is
        stream2      one stream: DATA out by hand, windows, the rest that waits
        connection   a socket's own pace, for all of them: blocked, stalled, ended
        quiet        when a provider is told that its bytes have come
        pool         a sync function decides, async code performs
        dial         opening one connection: addresses, TLS, which HTTP it speaks
        timers       one coarse wheel for all timeouts
        pulse        time finer than the wheel's, for what is held back by milliseconds
    core/            the relay without sockets
        stream       Stream.feed: the hot path
        transfer     bodies that are not event streams
        inflated     a compressed event stream in front of a Stream
        request      a request's body, kept for one repeat
        reader       one reader's place behind a producer: direct, or through its ring
        logged       a Stream whose events are numbered and kept
        fanout       one generation's events, to all who read them
        follower     one reader of a log: live, or at his place in it
        log          what can be replayed
        hub          which streams there are, and which are let go
    flow/            who may hold how much
        ring         references to whole pieces
        overflow     how much may wait, and what then
        smooth       when held-back events leave, so that bursts come out evenly
        gate         counted read pause towards a producer
    wire/            bytes <-> protocol facts
        sse          Framer: where events begin and end
        chunked      the chunked transfer coding, both ways
        body         the other ways to end a body
        input        where connections are read into
        head         the head of a message, whatever version brought it
        http1        HTTP/1.1 heads by h11, behind a check for what h11 lets pass
        http2        one HTTP/2 connection: a frame walker in front of h2, DATA by hand
        state2       what h2 keeps of it: states, settings, header compression
        listener2    who is told what its peer said
        heads2       HTTP/2 heads: what makes one malformed
        block2       header blocks, put together
        frames       HTTP/2 frames as bytes, and the numbers in them
        flood        how often a peer may say what costs us more than it
        headers      which fields cross
        encoding     gzip, deflate, br, decoded in bounded steps
        dialect      which event ends a stream; how errors are said
        delta        which events are text, and how adjacent ones become one
    errors           one tree, each with its status; CloseReason

One token's trip
----------------
    provider socket -> Poller, once a turn           one read of each socket that has something
                    -> ChunkedBody.take(count)       strip the transfer coding
                    -> Stream.feed(payload)          whole events, counted; one that may be the last is kept
                    -> Connection1.send              re-frame, and post it
                    -> Poller, once a turn           one send to each socket for which something was posted
                    -> client socket

    provider socket -> Engine.receive(bytes)         over HTTP/2: walk the frames, join a stream's DATA
                    -> Stream.feed(payload)
                    -> Stream2.send                  a DATA frame; all streams of this turn leave in one write
                    -> client socket

Any of the two above with any of the two below: three Python frames (beside the poller's, which are for all of a turn;
and a fourth for the first event of a turn whose end must be planned: to an HTTP/2 client, or from TLS); no task, no
await, no timer object, no JSON, and nothing waits for longer than its turn. Several events in one read are one write.
What arrives in pieces waits in the framer for its end. A socket that does not take everything switches its reader to
the ring, and so does a stream without a window; a ring above its high mark closes the gate, and the provider's socket
is not read, or its stream's window not opened, until it is below the low one.
tests/core/test_budget.py and test_budget2.py count the frames, writes and copies, so that this stays true.

A stream that can be resumed takes the same three:

    provider socket -> ... -> LoggedStream.feed      the same, and: may an id stand behind it? Its number, its place in
                                                     the log; for each reader:
                    -> Connection1.send, or Stream2.send

The id is put behind an event once, whoever reads. A reader whose sink blocks is left out: he costs his place in the
log, and finds what he has missed there, merged if he wants it so, when his socket takes bytes again. Who joins late, or
comes back, begins at such a place; there is no other way from the past to the present.

One request's life
------------------
Downstream1, or a stream of Downstream2, reads a head and makes an Exchange, which knows it as its Client. The exchange
finds what is asked for: an answer of the relay's own, a stream that is known already, or a route; then it makes a
Generation and listens to it. The generation takes a place on a connection from the pool (a Call: an idle connection of
HTTP/1.1, a stream of HTTP/2), or waits for one in a task that ends with the wait. The Call sends the head with what is
there of the body and calls `answered`; the generation makes a Stream or a Transfer and hands it back, tells its
exchanges that it has opened, and from then on bytes flow without either. A generation ends with its exchange, but for
one that can be resumed: that goes on without a reader for a while, and stays to be read when it has ended.
The answer's head leaves with its first byte, so whatever fails before is still a real status; after it, only an abort
can say that an answer is not whole, and no answer that is not whole ends cleanly. Whoever leaves is noticed by the
connection he leaves, and the provider's connection is closed, or its stream reset, in the same call. (A client that is
not being read, because its own body is not taken, is looked at every tick of the wheel instead.)

Where each rule lives
---------------------
    what is an event                      wire/sse.py
    what ends a stream                    wire/dialect.py
    which headers cross                   wire/headers.py
    what is ambiguous and refused         wire/head.py, http1.py, heads2.py
    what is a flood                       wire/flood.py
    who is read, and when; what is sent   net/poller.py
    whose turn it is on a connection      net/connection2.py
    how much may wait, and what then      flow/overflow.py
    who stops reading the provider        flow/gate.py
    what a late joiner gets               core/log.py, from core/follower.py
    what may be merged                    wire/delta.py
    when a stream is let go               core/hub.py, control/generation.py, audience.py
    who may have a stream                 control/streams.py
    open, reuse, close a connection       net/pool.py
    where a request goes                  control/router.py
    may it be tried again                 control/retry.py
    who may call                          control/auth.py
"""
