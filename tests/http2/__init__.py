"""Conformance to HTTP/2 (RFC 9113) and HPACK (RFC 7541), by raw frames, section by section.

    frames       frames and field blocks as bytes, malformed ones too; the one place that knows their layout
    peers        the two ends that a script can play, and the verdicts it can ask for
    asking       a request made of the client under test: what its caller and what the script are told
    conftest     what is held against the scripts: the relay, or whatever H2_TARGET and H2_CLIENT name
    test_server_*    the relay's server side, over cleartext with prior knowledge and over TLS with ALPN
    test_client_*    the relay's client side: the script is the provider

The scripts cover what h2spec 2.6 holds in strict mode, for servers and for clients, and a little more. They were held
against hypercorn and curl first, so that they themselves are known to be right:

    H2_TARGET=127.0.0.1:8000,127.0.0.1:8443/tls pytest tests/http2 -k server
    H2_CLIENT=curl pytest tests/http2 -k client

They ask for more than h2spec does: the right code everywhere, and connections that outlive a stream's error. For other
servers and clients, H2_EXACT=0 asks for what h2spec does.

Nothing sleeps and nothing waits for silence: "nothing happens" is a PING that comes back.
"""
