"""Every mistake in a configuration gets one line that says where it is and what would be right, and shows no key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from relay import config, schema
from relay.errors import ConfigError
from relay.schema import Config

GOOD = """\
[[upstream]]
name = "openai"
url = "https://api.openai.com"

[[route]]
path = "/*"
upstream = "openai"
"""
KEY = "sk-canary-0123456789"


def mistake(tmp_path: Path, text: str) -> str:
    """What is said of a file, less its path."""
    file = tmp_path / "relay.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    message = caught.value.message
    assert message.startswith(str(file))
    assert "\n" not in message
    assert "canary" not in message
    return message.removeprefix(str(file))


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_least_file_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(GOOD)
    read = config.load(str(file))
    assert read.upstream[0].url == "https://api.openai.com"
    assert read.server.listen == ["127.0.0.1:8080"]


UNKNOWN = [
    ("sever = 1\n" + GOOD, 1, "'sever'", "'server'"),
    (GOOD + '[server]\nlisen = ["127.0.0.1:1"]\n', 9, "'lisen'", "'listen'"),
    (edited("url =", "ulr ="), 3, "'ulr'", "'url'"),
    (edited("path =", "pth ="), 6, "'pth'", "'path'"),
    (GOOD + "[timeouts]\n# a comment\nidel = 1\n", 10, "'idel'", "'idle'"),
    (GOOD + "[limits]\nevents = 1\n", 9, "'events'", "'event'"),
    (edited("url =", f'api_key = "{KEY}"\nurl ='), 3, "'api_key'", "'api_key_env'"),
    (GOOD + '[[upstream]]\nname = "b"\nurl = "http://b"\nca_fil = ""\n', 11, "'ca_fil'", "'ca_file'"),
]


@pytest.mark.parametrize(("text", "line", "key", "nearest"), UNKNOWN)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(
    tmp_path: Path, text: str, line: int, key: str, nearest: str
) -> None:
    said = mistake(tmp_path, text)
    assert said.startswith(f":{line}: ")
    assert f"unknown key {key}; did you mean {nearest}?" in said


def test_an_unknown_key_that_is_like_none_lists_those_there_are(tmp_path: Path) -> None:
    said = mistake(tmp_path, GOOD + "[limits]\nzzz = 1\n")
    assert "known are event, inflated, replay_body, request_body, waiting" in said


WRONG = [
    ("[timeouts]\nidle = '5 parsecs'\n", ":9: [timeouts] idle: ", '"30s"'),
    ("[timeouts]\nidle = true\n", ":9: [timeouts] idle: ", "duration"),
    ("[timeouts]\nidle = nan\n", ":9: [timeouts] idle: ", "duration"),
    ("[timeouts]\nconnect = inf\n", ":9: [timeouts] connect: ", "duration"),
    ("[limits]\nevent = '3 XB'\n", ":9: [limits] event: ", '"64KiB"'),
    ("[limits]\nevent = 1.5\n", ":9: [limits] event: ", "size"),
    ("[limits]\nwaiting = 'x'\n", ":9: [limits] waiting: ", "expected int, got str"),
    ("[server]\nlisten = 'x'\n", ":9: [server] listen: ", "write it as a list"),
    ("[server]\naccess_log = 'xml'\n", ":9: [server] access_log: ", '"json", "text", "off"'),
    ("[[server]]\n", ":8: [server] ", "single brackets"),
    ("[[upstream]]\nname = 5\nurl = 'http://x'\n", ":9: [[upstream]] number 2: name: ", "expected str, got int"),
    ("[[upstream]]\nname = 'b'\n", ":8: [[upstream]] number 2: ", "'url' is missing"),
    ("[[route]]\nupstream = 'openai'\n", ":8: [[route]] number 2: ", "'path' is missing"),
]


@pytest.mark.parametrize(("lines", "where", "expected"), WRONG)
def test_a_wrong_value_is_named_with_its_line_and_what_was_expected(
    tmp_path: Path, lines: str, where: str, expected: str
) -> None:
    said = mistake(tmp_path, GOOD + lines)
    assert said.startswith(where)
    assert expected in said


def test_single_brackets_where_there_may_be_several(tmp_path: Path) -> None:
    assert "[[upstream]], in double brackets" in mistake(tmp_path, edited("[[upstream]]", "[upstream]"))


def upstream(extra: str = "", url: str = "https://api.openai.com") -> str:
    return GOOD.replace("https://api.openai.com", url).replace("\n\n", f"\n{extra}\n\n", 1)


_TLS = '[server]\nlisten_tls = ["127.0.0.1:8443"]\n'
SENSE = [
    (GOOD + '[server]\nlisten = ["127.0.0.1:1", "127.0.0.1:1"]\n', "are the same port"),
    (GOOD + '[server]\nlisten = ["0.0.0.0:1", "127.0.0.1:1"]\n', "are the same port"),
    (GOOD + '[server]\nlisten = ["[::]:1", "[::1]:1"]\n', "are the same port"),
    (GOOD + "[server]\nmax_streams = 0\n", "max_streams must be at least 1"),
    (GOOD + "[server]\nmax_streams = 2147483647\n", "max_streams may be at most 10000"),
    (upstream("max_streams = 20000"), "upstream 'openai': max_streams may be at most 10000"),
    (upstream('http = "3"'), 'http: expected one of "auto", "1.1", "2"'),
    (GOOD + _TLS, "certificate is missing"),
    (GOOD + _TLS + 'certificate = "/no"\ncertificate_key = "/no"\n', "certificate '/no' is not a file"),
    (GOOD + _TLS + 'certificate = "/etc/hostname"\ncertificate_key = "/etc/hostname"\n', "holds no certificate in PEM"),
    (upstream('ca_file = "/etc/hostname"'), "holds no certificates in PEM"),
    (GOOD + "[timeouts]\npong = 0\n", "pong must be above 0"),
    ("", "no [[upstream]]"),
    (GOOD[: GOOD.index("[[route]]")], "no [[route]]"),
    (GOOD + '[[upstream]]\nname = "openai"\nurl = "http://b"\n', "two upstreams are named 'openai'"),
    (edited('upstream = "openai"', 'upstream = "opnai"'), "no upstream 'opnai'; did you mean 'openai'?"),
    (edited('path = "/*"', 'path = "v1"'), "begins with /"),
    (edited('path = "/*"', 'path = "/*/x"'), "may end in *"),
    (GOOD + '[[route]]\npath = "/v1/*"\nupstream = "openai"\n', "route '/v1/*': never reached, because '/*'"),
    (edited('path = "/*"', 'path = "/x/*"\nstrip_prefix = "x/"'), "strip_prefix"),
    (upstream(url="https://api.openai.com/v1"), "write url = 'https://api.openai.com' for upstream 'openai'"),
    (upstream(url="api.openai.com"), "is not a url"),
    (upstream(url="ftp://api.openai.com"), "is not a url"),
    (upstream(url="http://h:99999"), "http://h:99999"),
    (upstream(url="http://h h"), "http://h h"),
    (upstream(url=f"https://user:{KEY}@h"), "api_key_env"),
    (upstream(url=f"https://user:{KEY}@h:99999"), "api_key_env"),
    (upstream(url=f"ftp://user:{KEY}@h"), "api_key_env"),
    (upstream(url=f"https://h/?key={KEY}"), "api_key_env"),
    (upstream(url="http://127.0.0.1:8080"), "where the relay itself listens"),
    (upstream(url="http://localhost:8080"), "where the relay itself listens"),
    (upstream(url="http://127.0.0.1") + '[server]\nlisten = ["127.0.0.1:80"]\n', "where the relay itself listens"),
    (upstream(url="http://127.0.0.1:9") + '[server]\nlisten = ["0.0.0.0:9"]\n', "where the relay itself listens"),
    (upstream('ca_file = "/nowhere/ca.pem"'), "is not a file"),
    (upstream('api_key_env = "RELAY_TEST_UNSET"'), "RELAY_TEST_UNSET is not set"),
    (upstream(f'api_key_env = "{KEY}"'), "the name of an environment variable"),
    (upstream(f'api_key_header = "{KEY}"'), '"bearer", "x-api-key", "api-key"'),
    (upstream('api_key_env = "RELAY_TEST_BROKEN"'), "holds characters that no key has"),
    (upstream("max_connections = 0"), "max_connections must be at least 1"),
    (GOOD + "[server]\nlisten = []\n", "listen is empty"),
    (GOOD + '[server]\nlisten = ["localhost:80"]\n', "is not an address"),
    (GOOD + '[server]\nlisten = ["127.0.0.1"]\n', "is not an address"),
    (GOOD + '[server]\nlisten = ["127.0.0.1:70000"]\n', "needs a port"),
    (GOOD + '[server]\ntrusted = ["10.0.0.0/99"]\n', "is not a network"),
    (GOOD + "[timeouts]\nconnect = 0\n", "connect must be above 0"),
    (GOOD + "[timeouts]\nidle = -1\n", "idle must not be negative"),
    (GOOD + "[limits]\nreplay_body = -1\n", "replay_body must not be negative"),
    (GOOD + "[limits]\nevent = 0\n", "event must be at least 1"),
    ("x = \n", "not valid TOML: Invalid value (at line 1, column 5)"),
    (f'[[upstream]]\napi_key_env = "{KEY}\n', "not valid TOML"),
]


@pytest.mark.parametrize(("text", "expected"), SENSE)
def test_what_no_schema_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.delenv("RELAY_TEST_UNSET", raising=False)
    monkeypatch.setenv("RELAY_TEST_BROKEN", KEY + "\n")
    assert expected in mistake(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        upstream(url="http://localhost:8080") + '[server]\nlisten = ["192.0.2.1:8080"]\n',
        upstream(url="http://127.0.0.1:8081"),
        upstream(url="http://127.0.0.1:8080") + '[server]\nlisten = ["127.0.0.1:0"]\n',
        upstream(url="https://api.openai.com/"),
        upstream(url="https://host/v1").replace('path = "/*"', 'path = "/v1/*"\nstrip_prefix = "/v1"'),
        edited('path = "/*"', 'path = "/v1/*"') + '[[route]]\npath = "/*"\nupstream = "openai"\n',
        GOOD + "[timeouts]\nidle = '250ms'\ntotal = '1.5h'\nhead = 0\n[limits]\nevent = '64 KiB'\nreplay_body = 0\n",
    ],
)
def test_what_is_no_mistake(tmp_path: Path, text: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    config.load(str(file))


OPEN = upstream('api_key_env = "RELAY_TEST_KEY"') + '[server]\nlisten = ["{}"]\n{}\n'


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"])
def test_a_key_that_anybody_could_spend_has_to_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    monkeypatch.setenv("RELAY_TEST_KEY", KEY)
    said = mistake(tmp_path, OPEN.format(listen, ""))
    assert listen in said
    assert "allow_open = true" in said
    (tmp_path / "relay.toml").write_text(OPEN.format(listen, "allow_open = true"))
    config.load(str(tmp_path / "relay.toml"))
    (tmp_path / "relay.toml").write_text(OPEN.format("127.0.0.1:8080", ""))
    config.load(str(tmp_path / "relay.toml"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        config.load(str(tmp_path / "latin.toml"))


def test_units() -> None:
    def read(timeout: object, size: object) -> tuple[float, int]:
        raw = {"timeouts": {"idle": timeout}, "limits": {"event": size}}
        made = msgspec.convert(raw, Config, dec_hook=schema.decode)
        return made.timeouts.idle, made.limits.event

    assert read("250ms", "1KiB") == (0.25, 1024)
    assert read("2m", "3MB") == (120.0, 3_000_000)
    assert read(1, 7) == (1.0, 7)
    assert read("0.5h", "2 MiB") == (1800.0, 2 << 20)


def test_one_upstream_without_a_file() -> None:
    made = config.of_upstream("http://127.0.0.1:9", listen=["127.0.0.1:0"])
    assert (made.route[0].path, made.upstream[0].url) == ("/*", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="is not a url"):
        config.of_upstream("nonsense")
