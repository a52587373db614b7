"""The sample configuration tells the truth: it is valid, complete, and what it shows as defaults are the defaults."""

from __future__ import annotations

import re
import subprocess
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from relay import config, schema
from tests.programs import BIN

SAMPLE = resources.files("relay").joinpath("sample.toml").read_text(encoding="utf-8")
TABLES = {
    "server": schema.Listen,
    "upstream": schema.UpstreamTable,
    "route": schema.RouteTable,
    "timeouts": schema.Timeouts,
    "limits": schema.Limits,
}


def test_command_prints_it() -> None:
    done = subprocess.run([str(BIN / "relay"), "sample"], check=True, capture_output=True, text=True)
    assert done.stdout == SAMPLE


def test_every_value_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(SAMPLE)
    loaded = config.load(str(file))
    assert loaded.server == schema.Listen()
    assert loaded.timeouts == schema.Timeouts()
    assert loaded.limits == schema.Limits()
    example = msgspec.structs.replace(loaded.upstream[0], name="x", url="https://x.test")
    assert example == schema.UpstreamTable(name="x", url="https://x.test")


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_explained(table: str) -> None:
    """Each key stands in its table, perhaps commented out, behind at least one line of prose."""
    section = re.search(rf"^\[\[?{table}\]\]?\n(.*?)(?=^\[|\Z)", SAMPLE, re.DOTALL | re.MULTILINE)
    assert section is not None
    for key in TABLES[table].__struct_fields__:
        assert re.search(rf"^(# )?{key} = ", section[1], re.MULTILINE), f"[{table}] {key} is not in the sample"
    assert len(re.findall(r"^# [A-Z]", section[1], re.MULTILINE)) >= 3 or table == "route"
