"""What is no fault of a request's is one line for the operator, and what is no fault at all is none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from relay.app import App

_FAILED = "Fatal error on SSL protocol"


def _said(message: str, error: Exception) -> list[str]:
    lines: list[str] = []
    app = cast(App, SimpleNamespace(_say=lines.append))
    context: dict[str, Any] = {"message": message, "exception": error}
    App._complain(app, cast(asyncio.AbstractEventLoop, None), context)
    return lines


def _of_a_closed_socket() -> Exception:
    """uvloop's own."""

    async def write() -> Exception:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        transport.abort()
        await asyncio.sleep(0)
        server.close()
        try:
            transport.write(b"x")
        except RuntimeError as error:
            return error
        raise AssertionError("a closed transport takes bytes")

    return uvloop.run(write())


def test_tls_on_a_socket_that_has_just_been_lost_is_no_defect() -> None:
    error = _of_a_closed_socket()
    assert _said(_FAILED, error) == []
    [line] = _said("Exception in callback", error)
    assert line.startswith("relay internal: Exception in callback: RuntimeError at ")


def test_defect_is_one_line_without_what_a_peer_has_sent() -> None:
    for message in (_FAILED, "Exception in callback"):
        assert _said(message, RuntimeError("CANARY")) == [f"relay internal: {message}: RuntimeError"]
