"""The relay's own page: for browsers alone, with the fields that keep it safe; to programs `/` is the provider's."""

from __future__ import annotations

import re

import pytest

from tests.pairs.calls import Agent
from tests.streams.ground import Ground

_HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
_FILES = {
    "/": "text/html; charset=utf-8",
    "/relay.js": "text/javascript; charset=utf-8",
    "/relay.d.ts": "text/plain; charset=utf-8",
    "/relay-page.js": "text/javascript; charset=utf-8",
    "/relay-page.css": "text/css; charset=utf-8",
}


@pytest.mark.parametrize("target", _FILES)
def test_files_of_the_page_are_served_as_what_they_are(ground: Ground, agent: Agent, target: str) -> None:
    for end in ("", "?v=1"):
        answer = agent.ask(target=f"{target}{end}", headers=_HTML).answer()
        assert (answer.status, answer.clean) == (200, True)
        assert answer.headers["content-type"] == _FILES[target]
        assert answer.headers["content-length"] == str(len(answer.body)) != "0"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]
        head = agent.ask("HEAD", f"{target}{end}", headers=_HTML).answer()
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == _FILES[target]
    assert ground.stats()["requests"] == 0


def test_page_may_load_nothing_but_its_own(agent: Agent) -> None:
    answer = agent.ask(headers=_HTML).answer()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] in ("'self'", "'none'")
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]
    # It has no need of more: no script or style stands in the page itself, and no address is another's.
    page = answer.body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page)
    for target in re.findall(r"(?:src|href)=\"(/[^\"]*)\"", page):
        assert agent.ask(target=target).answer().status == 200
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_module_is_the_one_that_the_package_has(agent: Agent) -> None:
    """An `import` from another page's script finds what the types say."""
    module = agent.ask(target="/relay.js").answer().body.decode()
    types = agent.ask(target="/relay.d.ts").answer().body.decode()
    exported = set(re.findall(r"^export (?:async )?(?:function\*?|class|const) (\w+)", module, re.M))
    for names in re.findall(r"^export (?:const )?\{([^}]*)\}", module, re.M):
        exported |= {name.strip() for name in names.split(",")}
    declared = set(re.findall(r"^export declare (?:function|class|const) (\w+)", types, re.M))
    assert exported
    assert exported == declared


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", "", "text/event-stream"])
def test_to_programs_the_root_is_the_providers(ground: Ground, agent: Agent, accept: str) -> None:
    answer = agent.ask(headers={"Accept": accept} if accept else {}).answer()
    assert b"no such path" in answer.body
    assert ground.stats()["requests"] == 1


def test_other_methods_and_paths_are_the_providers(ground: Ground, agent: Agent) -> None:
    calls = [("POST", "/"), ("POST", "/relay.js"), ("GET", "/relay.jsx"), ("GET", "/relay"), ("GET", "/x/relay.js")]
    for number, (method, target) in enumerate(calls, 1):
        assert b"no such path" in agent.ask(method, target, headers=_HTML).answer().body
        assert ground.stats()["requests"] == number


def test_without_the_page_all_of_it_is_the_providers(ground: Ground) -> None:
    with ground.agent(ground.relay_with(server="page = false")) as agent:
        for number, target in enumerate(_FILES, 1):
            assert b"no such path" in agent.ask(target=target, headers=_HTML).answer().body
            assert ground.stats()["requests"] == number
