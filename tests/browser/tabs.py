"""Several tabs of one Chromium. What a page comes to is waited for by the page itself: nothing polls."""

from __future__ import annotations

import json
from typing import Any

from tests.peers.browser import Browser
from tests.programs import PATIENCE

# Resolves when the document has come so far; rejects with what it shows instead, before nobody listens any more.
_UNTIL = """new Promise((resolve, reject) => {
  const look = () => (%s) && (watch.disconnect(), resolve());
  const late = () => reject(document.readyState + " " + location.href + ": " + document.body.innerText);
  setTimeout(late, %d);
  const watch = new MutationObserver(look);
  watch.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
})"""


class Tabs(Browser):
    """As the browser that it is, it speaks with one tab at a time: the one whose turn it is."""

    def tab(self, url: str) -> Tab:
        """A new one, loaded."""
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        tab.turn()
        self.watch()
        self.open(url)
        return tab

    def speak_with(self, session: str) -> None:
        self._session = session


class Tab:
    """One tab, on the relay's page: its elements by their ids."""

    def __init__(self, browser: Tabs, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def turn(self) -> None:
        self._browser.speak_with(self._session)

    def evaluate(self, script: str) -> Any:
        self.turn()
        return self._browser.evaluate(script)

    def until(self, condition: str) -> None:
        """A JavaScript expression; `$` finds an element by its id."""
        self.evaluate(_UNTIL % (condition.replace("$", "document.getElementById"), (PATIENCE - 1) * 1000))

    def until_state(self, state: str) -> None:
        self.until(f'$("state").dataset.state === "{state}"')

    def click(self, name: str) -> None:
        self.evaluate(f'document.getElementById("{name}").click()')

    def choose(self, name: str, value: str) -> None:
        self.evaluate(f'void (document.getElementById("{name}").value = {json.dumps(value)})')

    def text(self, name: str) -> str:
        text: str = self.evaluate(f'document.getElementById("{name}").textContent')
        return text

    def press(self, key: str, code: int, *, control: bool = False) -> None:
        """A key that the browser itself takes for pressed."""
        self.turn()
        what = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 2 if control else 0}
        for kind in ("rawKeyDown", "keyUp"):
            self._browser.call("Input.dispatchKeyEvent", type=kind, **what)

    def close(self) -> None:
        self._browser.speak_with("")
        self._browser.call("Target.closeTarget", targetId=self._target)
