"""The relay's streams as resources: what of /v1/streams and its kin is promised, over real sockets, to clients of
HTTP/1.1 and 2 alike.

    ground      a pair of versions with its relays (as tests/pairs), and what nearly every test here asks of them
    heard       a body taken apart as an EventSource does, which ids may stand where
    script      a provider of HTTP/1.1 that says each piece when the test says so

A file is named after what it is about: the ids, reading (resume and late join), the refusals of a read, whose a stream
is, a request that is sent twice, respond-async, who leaves, long polls, OpenAI's own resources, cancelling, ends,
retention, the relay's own events (placeholder and heartbeat), the access lines, the drain, the page.
"""
