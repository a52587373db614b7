"""What the simulated provider says to a seed: the same text in every dialect, streamed or not."""

from __future__ import annotations

import contextlib
import http.client
import json

from tests.programs import PATIENCE, Provider, chat

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def told(provider: Provider, simulate: str = "") -> str:
    """All of it. Its counters count this request, too."""
    with contextlib.closing(http.client.HTTPConnection(*provider.address, timeout=2 * PATIENCE)) as connection:
        connection.request("POST", PATHS["chat"], json.dumps(chat(stream=False)), {"Simulate": simulate})
        text: str = json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
    assert text
    return text
