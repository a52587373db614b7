"""Every figure that a run can give: what it means, its unit, and which way is better. Reports and verdicts ask here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Figure:
    """One quantity. `told` is a sentence for somebody who sees it for the first time."""

    name: str
    title: str
    unit: str
    told: str
    better: Better = "lower"
    digits: int = 2
    versus_direct: bool = False  # what the relay adds is this less the figure of `direct` in the same repeat


def _times(name: str, title: str, told: str) -> list[Figure]:
    """The quantiles of one time, in milliseconds."""
    shares = {"p50": "the median", "p95": "5 % exceed it", "p99": "1 % exceed it", "max": "the greatest"}
    direct = name in ("delay", "gap", "ttft", "total")
    return [
        Figure(f"{name}_{short}_ms", f"{title} {short}", "ms", f"{told}: {words}", versus_direct=direct)
        for short, words in shares.items()
    ]


_ALL = [
    Figure(
        "cpu_us", "CPU per event", "us", "time on a core that all of the relay's processes took for an event", digits=1
    ),
    Figure("user_us", "of it user", "us", "the part of the CPU per event that the relay's own code took", digits=1),
    Figure("system_us", "of it system", "us", "the part of the CPU per event that the kernel took for it", digits=1),
    Figure("cpu_ms", "CPU per request", "ms", "time on a core that the relay took for a request and its whole answer"),
    *_times("delay", "delay", "from the time an event was due at the provider to its arrival at the client"),
    *_times("gap", "gap error", "how far the time between two events was from what it was at the provider"),
    *_times("ttft", "first token", "from the time a request was due to the first byte of its answer's content"),
    *_times("total", "whole answer", "from the time a request was due to its answer's end"),
    *_times("cancel", "cancel to close", "from a client's leaving to the provider's knowing of it"),
    *_times("resume", "resume", "from a reader's coming back to the first event that was missed"),
    Figure("clean", "clean streams", "%", "streams of which every gap was within 5 ms of the provider's", "higher", 1),
    Figure("rate", "events/s", "/s", "events that arrived in a second", "higher", 0),
    Figure("requests_rate", "requests/s", "/s", "answers that were whole, in a second", "higher", 0),
    Figure("core", "core used", "%", "share of its one core that the relay took", "neither", 0),
    Figure("rss_kib", "RSS per stream", "KiB", "memory that one open stream adds to the relay", digits=1),
    Figure(
        "sent_kib",
        "sent by then",
        "KiB",
        "what a stream had sent when memory was looked at: it is part of the memory of who keeps it all",
        "neither",
        1,
    ),
    Figure("stuck_kib", "RSS per reader", "KiB", "memory that a reader adds, half of whom never read", digits=1),
    Figure("idle_mib", "RSS at rest", "MiB", "memory of the relay before its first stream", digits=0),
    Figure("stuck_gone_s", "stuck readers gone", "s", "until the last reader who never reads was cut off", digits=1),
    Figure("cancel_missed", "never cancelled", "%", "clients whose leaving the provider did not know of after 10 s"),
    Figure("lost", "events lost", "%", "events that their reader never had, though he had later ones"),
    Figure("made_again", "made again", "%", "events that the provider made once more, for readers who had had them"),
    Figure("reconnects", "reconnects", "", "connections that clients had to make again", "neither", 0),
    Figure("whole", "whole answers", "%", "answers that their readers had to the last event", "higher", 1),
    Figure("spared", "spared", "%", "events not made, of those that lay behind where their readers left", "higher", 1),
    Figure("reads", "reads/event", "", "calls of read(2) and its kin"),
    Figure("writes", "writes/event", "", "calls of write(2) and its kin"),
    Figure("connections", "provider connections", "", "open to the provider at the same time", "neither", 0),
    Figure("load_core", "load's core", "%", "share of its core that client and provider took together", "neither", 0),
]

FIGURES = {figure.name: figure for figure in _ALL}
