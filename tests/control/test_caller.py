"""Who is calling: believed from trusted networks alone (robustness D5)."""

from __future__ import annotations

import ipaddress

import pytest

from relay.control import caller
from relay.wire.http1 import parse_request

TRUSTED = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))


def address(peer: str, *fields: str, trusted: tuple[caller.Network, ...] = TRUSTED) -> str:
    head = "".join(f"{field}\r\n" for field in ("GET / HTTP/1.1", "Host: relay", *fields))
    return caller.client_address(peer, parse_request(head.encode() + b"\r\n"), trusted)


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        ("192.0.2.7", ("X-Forwarded-For: 198.51.100.1",), "192.0.2.7"),  # a stranger may say what it likes
        ("127.0.0.1", ("X-Forwarded-For: 198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("X-Forwarded-For: 6.6.6.6, 198.51.100.1",), "198.51.100.1"),  # what stands left is its own word
        ("127.0.0.1", ("X-Forwarded-For: 198.51.100.1, 10.1.2.3",), "198.51.100.1"),  # two proxies of ours
        ("127.0.0.1", ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 10.1.2.3"), "198.51.100.1"),
        ("127.0.0.1", ("X-Forwarded-For: unknown, 10.1.2.3",), "10.1.2.3"),
        ("127.0.0.1", ("X-Forwarded-For: 2001:db8::1",), "2001:db8::1"),
        ("127.0.0.1", (), "127.0.0.1"),
        ("unix", ("X-Forwarded-For: 198.51.100.1",), "unix"),
    ],
)
def test_nearest_address_that_is_not_ours(peer: str, fields: tuple[str, ...], expected: str) -> None:
    assert address(peer, *fields) == expected


def test_nobody_is_trusted_by_default() -> None:
    assert address("127.0.0.1", "X-Forwarded-For: 198.51.100.1", trusted=()) == "127.0.0.1"


@pytest.mark.parametrize("given", ["abc-123", "req_1.2:3/4+5=", "x" * 128])
def test_fit_request_id_is_kept(given: str) -> None:
    head = f"GET / HTTP/1.1\r\nHost: relay\r\nX-Request-Id: {given}\r\n\r\n".encode()
    assert caller.request_id(parse_request(head)) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "é", 'a"b', "a,b"])
def test_unfit_request_id_is_replaced(given: str) -> None:
    head = b"GET / HTTP/1.1\r\nHost: relay\r\nX-Request-Id: %b\r\n\r\n" % given.encode()
    made = caller.request_id(parse_request(head))
    assert made != given
    assert len(made) == 16
