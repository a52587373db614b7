"""A headless Chromium, told what to do over its debugging pipe: JSON messages that end with NUL, and no websocket."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.peers.conftest import find
from tests.programs import PATIENCE

# Nothing that would open connections of its own.
_QUIET = """
--headless=new --no-sandbox --disable-gpu --ignore-certificate-errors --remote-debugging-pipe --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-default-apps --disable-extensions
--disable-dev-shm-usage --no-default-browser-check --no-proxy-server --metrics-recording-only --mute-audio
--disable-domain-reliability --disable-client-side-phishing-detection
--disable-features=NetworkPrediction,OptimizationHints,BackForwardCache,Translate,MediaRouter
"""


class Browser:
    """Until it is left, with one page open."""

    def __init__(self, profile: Path) -> None:
        to_it, from_it = os.pipe(), os.pipe()
        # It reads from descriptor 3 and writes to 4, whatever numbers these have here (a shell takes one digit alone).
        command = f'exec "$@" 3</dev/fd/{to_it[0]} 4>/dev/fd/{from_it[1]}'
        arguments = [find("chromium", "chromium"), *_QUIET.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["sh", "-c", command, "sh", *arguments],
            pass_fds=(to_it[0], from_it[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)},
        )
        os.close(to_it[0])
        os.close(from_it[1])
        self._write, self._read = to_it[1], from_it[0]
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session = ""
        self._responses: list[dict[str, Any]] = []
        self._loaded: set[str] = set()

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.watch()
            self.call("Network.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def watch(self) -> None:
        """What the page loads is told from here on."""
        self.call("Page.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def open(self, url: str) -> None:
        """Until the page has loaded: this one, and not the empty one before it or that of another tab."""
        self._responses.clear()
        said = self.call("Page.navigate", url=url)
        assert "errorText" not in said, said
        while said["loaderId"] not in self._loaded:
            self._until(lambda message: message.get("method") == "Page.lifecycleEvent")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        said = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def connections(self, path: str) -> set[int]:
        """Those that the page's responses from a path came on. (It may open others, and ask nothing on them.)"""
        return {int(response["connectionId"]) for response in self._responses if path in response["url"]}

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self._buffer:
                raw, _, self._buffer = self._buffer.partition(b"\0")
                message: dict[str, Any] = json.loads(raw)
                if message.get("method") == "Network.responseReceived":
                    self._responses.append(message["params"]["response"])
                elif message.get("method") == "Page.lifecycleEvent" and message["params"]["name"] == "load":
                    self._loaded.add(message["params"]["loaderId"])
                if wanted(message):
                    return message
            left = max(deadline - time.monotonic(), 0)
            assert select.select([self._read], [], [], left)[0], "the browser says nothing"
            data = os.read(self._read, 65536)
            assert data, f"the browser has ended: {self._process.poll()}"
            self._buffer += data

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._write, b'{"id": 0, "method": "Browser.close"}\0')
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
