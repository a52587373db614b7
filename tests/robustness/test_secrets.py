"""Keys, prompts and addresses stay where they belong: in no output, no error, no other upstream (D1, D3 – D5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RelayMaker
from tests.programs import ROOT, Client, Provider, Relay, chat, config_text, running
from tests.robustness.peers import CHAT, Scripted, serves

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_OWN_KEY = {"upstream_extra": 'api_key_env = "RELAY_TEST_KEY"', "env": {"RELAY_TEST_KEY": "sk-CANARY-own"}}
_CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie")


def _seen(head: bytes) -> dict[str, str]:
    """The fields of a request as the provider got them; two of one name are joined."""
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
    return fields


@pytest.fixture
def recorder() -> Iterator[Scripted]:
    with Scripted(_OK) as provider:
        yield provider


# D1


# Run with a network and a hosts file of its own, where a link-local address can be had and nobody else is.
_LINK_LOCAL = """
import subprocess
from pathlib import Path
from tests.programs import Client, Relay, chat, config_text, running
from tests.robustness.peers import Scripted

hosts = Path({directory!r}) / "hosts"
hosts.write_text("169.254.7.7 provider.test\\n")
for command in ("ip link set lo up", "ip addr add 169.254.7.7/32 dev lo", "mount --bind " + str(hosts) + " /etc/hosts"):
    subprocess.run(command.split(), check=True)
provider = Scripted(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}", host="169.254.7.7")
url = provider.url.replace("169.254.7.7", {host!r})
for allowed in ("false", "true"):
    file = Path({directory!r}) / "relay.toml"
    file.write_text(config_text(url, upstream_extra="allow_link_local = " + allowed))
    try:
        with running(Relay(file)) as relay, Client(relay.address) as client:
            client.post("/v1/chat/completions", chat())
            print(allowed, client.answer().status, provider.connections)
    except AssertionError as error:
        print(allowed, "started" if "ended with 2" not in str(error) else "refused to start", provider.connections)
"""


@pytest.mark.parametrize(
    ("host", "refused"),
    [("169.254.7.7", "refused to start"), ("provider.test", "502"), ("[::ffff:169.254.7.7]", "refused to start")],
    ids=["literal", "by-name", "v4-in-v6"],
)
def test_link_local_addresses_are_refused_unless_configured(tmp_path: Path, host: str, refused: str) -> None:
    """Cloud machines hand out their credentials there. Nothing leaves this test's own network."""
    # Root needs no user namespace for it, and would not get one inside a chroot.
    alone = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "--mount"]
    allowed = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    assert allowed, "this test needs a network namespace: run it as root, or allow unprivileged user namespaces"
    script = _LINK_LOCAL.format(host=host, directory=str(tmp_path))
    result = subprocess.run(
        [*alone, sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=40, check=False
    )
    assert re.fullmatch(f"false {refused} 0\ntrue 200 1\n", result.stdout), result.stdout + result.stderr


def test_no_proxy_is_taken_from_the_environment(provider: Provider, tmp_path: Path, recorder: Scripted) -> None:
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    file = tmp_path / "relay.toml"
    file.write_text(config_text(provider.url))
    with running(Relay(file, env=dict.fromkeys(names, recorder.url) | {"no_proxy": "", "NO_PROXY": ""})) as relay:
        serves(relay.address)
    assert recorder.connections == 0


# D3: in no output


@pytest.mark.parametrize("log", ["json", "text"])
def test_no_secret_is_in_any_output_or_error(tmp_path: Path, provider: Provider, log: str) -> None:
    """Every way a request can go wrong, and some in which it goes right, each with a canary in every place."""
    file = tmp_path / "relay.toml"
    file.write_text(
        config_text(
            provider.url,
            server=f'access_log = "{log}"',
            upstream_extra='api_key_env = "RELAY_TEST_KEY"',
            path="/v1/*",
            timeouts='request_head = 1\nrequest_body = 1\nhead = 1\nidle = 1\nheartbeat = "500ms"',
            limits="request_body = 4096",
        )
    )
    target = "/v1/chat/completions?key=CANARY-query"
    fields = {
        "Authorization": "Bearer CANARY-bearer",
        "X-Api-Key": "CANARY-key",
        "Cookie": "session=CANARY-cookie",
        "X-Request-Id": "CANARY id with spaces",
        "X-Note": "CANARY-note",
    }
    simulations = (
        *("lie=" + lie for lie in "close reset garbage switch huge-head nul-header obs-fold cl-te head-close".split()),
        *("lie=" + lie + "; at=2; interval=0" for lie in "cut bad-chunk error half-event mid-stall".split()),
        *(
            "status=400",
            "status=500",
            "status=429; retry_after=1",
            "lie=stall",
            "encoding=gzip",
            "events=2; interval=0",
        ),
    )
    raw = b"Authorization: Bearer CANARY-raw\r\nX-Api-Key: CANARY-raw\r\n"
    spoiled = (
        b"GET /v1/x?key=CANARY-raw HTTP/9.9\r\nHost: a\r\n" + raw + b"\r\n",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\n" + raw + b"\r\n",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\n" + raw + b"X: CANARY-raw\x00\r\n\r\n",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: CANARY-raw b\r\n" + raw + b"\r\n",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nCANARY-raw\r\n\r\n",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nCANARY (raw: x\r\n\r\n",
        b"GET http://CANARY-raw/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /elsewhere?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + raw + b"\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nContent-Length: CANARY-raw\r\n" + raw + b"\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CANARY-raw\r\n" + raw + b"\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nExpect: CANARY-raw\r\n" + raw + b"\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n" + raw + b"\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nCANARY-raw\r\n",
        b"POST /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n" + raw + b"\r\nCANARY-raw",
        b"GET /v1/x?key=CANARY-raw HTTP/1.1\r\nHost: a\r\n" + raw,
    )
    said = b""
    with running(Relay(file, env={"RELAY_TEST_KEY": "sk-CANARY-own"})) as relay:
        document = chat(messages=[{"role": "user", "content": "CANARY-prompt"}])
        clients = []
        for simulate in simulations:
            client = Client(relay.address)
            clients.append(client)
            client.post(target, document, simulate, {**fields, "Connection": "close"})
        for data in spoiled:
            client = Client(relay.address)
            clients.append(client)
            client.send(data)
        for client in clients:
            with client:
                said += client.read_to_end()
        serves(relay.address)
        assert relay.stop() == 0
    assert said.count(b"HTTP/1.1 ") >= len(simulations) + len(spoiled)
    assert b"CANARY" not in said
    lines = b"".join(relay.output)
    assert lines.count(b"\n") >= len(simulations) + len(spoiled)
    assert b"CANARY" not in lines
    assert "CANARY" not in "\n".join(relay.lines)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_key_of_the_relay_is_in_no_field_of_an_answer(make_relay: RelayMaker, stream: bool) -> None:
    relay = make_relay(**_OWN_KEY)
    with Client(relay.address) as client:
        client.post(CHAT.path, CHAT.asked(stream=stream), "events=2; interval=0")
        answer = client.answer()
        assert answer.status == 200
        assert "CANARY" not in f"{answer.headers}{answer.body!r}"


# Credentials upstream


def _send_credentials(relay: Relay) -> None:
    with Client(relay.address) as client:
        fields = {name: f"mine-{name}" for name in _CREDENTIALS}
        client.request("POST", "/v1/x", b"{}", {**fields, "Proxy-Authorization": "mine-proxy"})
        assert client.answer().status == 200


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("bearer", "authorization", "Bearer sk-CANARY-own"),
        ("x-api-key", "x-api-key", "sk-CANARY-own"),
        ("api-key", "api-key", "sk-CANARY-own"),
    ],
)
def test_route_with_a_key_of_its_own_passes_no_credential_of_the_client(
    make_relay: RelayMaker, recorder: Scripted, header: str, name: str, value: str
) -> None:
    extra = f'{_OWN_KEY["upstream_extra"]}\napi_key_header = "{header}"'
    relay = make_relay(upstream=recorder.url, upstream_extra=extra, env=_OWN_KEY["env"])
    _send_credentials(relay)
    seen = _seen(recorder.heads[0])
    assert {field: seen[field] for field in _CREDENTIALS if field in seen} == {name: value}
    assert "mine" not in recorder.heads[0].decode()


def test_route_without_a_key_passes_the_client_credentials(make_relay: RelayMaker, recorder: Scripted) -> None:
    _send_credentials(make_relay(upstream=recorder.url))
    seen = _seen(recorder.heads[0])
    assert {name: seen[name] for name in _CREDENTIALS} == {name: f"mine-{name}" for name in _CREDENTIALS}
    # For a proxy on the way, which is the relay: it ends here.
    assert "proxy-authorization" not in seen


def test_key_reaches_its_own_upstream_alone(tmp_path: Path) -> None:
    with Scripted(_OK) as first, Scripted(_OK) as second, Scripted(_OK) as third:
        tables = [
            f'[[upstream]]\nname = "{name}"\nurl = "{upstream.url}"\n{key}'
            f'[[route]]\npath = "/{name}/*"\nupstream = "{name}"\n'
            for name, upstream, key in (
                ("first", first, 'api_key_env = "FIRST_KEY"\n'),
                ("second", second, 'api_key_env = "SECOND_KEY"\n'),
                ("third", third, ""),
            )
        ]
        file = tmp_path / "relay.toml"
        file.write_text('[server]\nlisten = ["127.0.0.1:0"]\n' + "".join(tables))
        keys = {"FIRST_KEY": "sk-first", "SECOND_KEY": "sk-second"}
        with running(Relay(file, env=keys)) as relay, Client(relay.address) as client:
            for name in ("first", "second", "third", "first"):
                client.request("GET", f"/{name}/x")
                assert client.answer().status == 200
        assert [_seen(head)["authorization"] for head in first.heads] == ["Bearer sk-first"] * 2
        assert [_seen(head)["authorization"] for head in second.heads] == ["Bearer sk-second"]
        assert b"sk-" not in b"".join(third.heads)


def test_redirect_takes_no_key_elsewhere(make_relay: RelayMaker, recorder: Scripted) -> None:
    there = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b/\r\nContent-Length: 0\r\n\r\n" % recorder.url.encode()
    with Scripted(there) as provider:
        relay = make_relay(upstream=provider.url, **_OWN_KEY)
        with Client(relay.address) as client:
            client.request("POST", "/v1/x", b"{}")
            assert client.answer().status == 307
    assert recorder.connections == 0


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://relay.test.evil.test", "http://relay.test:81"])
def test_other_origins_may_not_spend_the_key(make_relay: RelayMaker, counted: Provider, origin: str) -> None:
    relay = make_relay(**_OWN_KEY, server='hosts = ["relay.test"]')
    with Client(relay.address) as client:
        client.post(CHAT.path, chat(), headers={"Origin": origin})
        answer = client.answer()
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
        client.post(CHAT.path, chat(), "events=2; interval=0", headers={"Origin": "http://relay.test"})
        assert client.answer().status == 200
    assert counted.stats()["requests"] == 1


# D4


@pytest.mark.parametrize("log", ["json", "text"])
def test_log_holds_printable_characters_only(make_relay: RelayMaker, log: str) -> None:
    odd = b"HTTP/1.1 200 OK\r\nX-Request-Id: \xff\xfe\x85\xc2\x9b\r\nContent-Length: 2\r\n\r\n{}"
    with Scripted(odd) as provider:
        relay = make_relay(upstream=provider.url, server=f'access_log = "{log}"')
        for sent in (
            b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\r\nforged line HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x1b]0;title\x07 / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\x1bb\r\n\r\n",
            b'GET /%0a%1b"\'\\ HTTP/1.1\r\nHost: a\r\nX-Request-Id: \xff"\\ x\r\nConnection: close\r\n\r\n',
            b"G\"\\'T /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + b"a" * 1000 + b"\r\nConnection: close\r\n\r\n",
        ):
            with Client(relay.address) as client:
                client.send(sent)
                assert client.read_to_end().startswith(b"HTTP/1.1 ")
        assert relay.stop() == 0
    lines = b"".join(relay.output)
    assert lines.count(b"\n") == 7
    # A replacement character may stand for a byte that is no text; nothing that moves a cursor may.
    assert all(line.isprintable() for line in lines.decode().splitlines()), lines
    if log == "json":
        assert all(json.loads(line) for line in lines.splitlines())


# D5

_FORWARDED = {
    "Forwarded": "for=203.0.113.1",
    "X-Forwarded-For": "203.0.113.2",
    "X-Forwarded-Host": "public.test",
    "X-Forwarded-Proto": "https",
    "X-Real-Ip": "203.0.113.3",
}


@pytest.mark.parametrize(
    ("forward", "trusted", "expected"),
    [
        ("false", "", {}),
        ("false", "127.0.0.0/8", {}),
        ("true", "", {"x-forwarded-for": "127.0.0.1"}),
        ("true", "10.0.0.0/8", {"x-forwarded-for": "127.0.0.1"}),
        (
            "true",
            "127.0.0.0/8",
            {
                "x-forwarded-for": "203.0.113.2, 127.0.0.1",
                "x-forwarded-host": "public.test",
                "x-forwarded-proto": "https",
            },
        ),
    ],
)
def test_word_on_the_client_is_believed_from_trusted_networks_alone(
    make_relay: RelayMaker, recorder: Scripted, forward: str, trusted: str, expected: dict[str, str]
) -> None:
    relay = make_relay(
        upstream=recorder.url,
        server=f'trusted = ["{trusted}"]' if trusted else "",
        upstream_extra=f"forward_client = {forward}",
    )
    with Client(relay.address) as client:
        client.request("GET", "/x", headers=_FORWARDED)
        assert client.answer().status == 200
    seen = _seen(recorder.heads[0])
    assert {name: seen[name] for name in map(str.lower, _FORWARDED) if name in seen} == expected


def test_environment_of_a_check_shows_no_key(tmp_path: Path) -> None:
    """`relay check` prints the configuration in force; a key's variable is named, its value never read."""
    file = tmp_path / "relay.toml"
    file.write_text(config_text("http://127.0.0.1:9", upstream_extra='api_key_env = "RELAY_TEST_KEY"'))
    result = subprocess.run(
        [str(Path(sys.executable).parent / "relay"), "check", "-c", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "RELAY_TEST_KEY": "sk-CANARY-own"},
        check=True,
    )
    assert "RELAY_TEST_KEY" in result.stdout
    assert "CANARY" not in result.stdout + result.stderr
