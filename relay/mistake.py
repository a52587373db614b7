"""What msgspec says of a configuration file, said in the terms of the file: its line, its table, its key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec


def nearest(name: str, known: list[str]) -> str:
    """The known name that was probably meant, as the end of a message; else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


class Mistake:
    """msgspec's message, said in the terms of the file."""

    def __init__(self, path: str, text: str, message: str, tables: Mapping[str, type[msgspec.Struct]]) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._tables = tables
        what, _, place = message.partition(" - at `$")
        self._what = what
        self._keys = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", place.rstrip("`"))

    def text(self) -> str:
        tables: list[str] = []
        index = 0
        for name, number in self._keys:
            if number:
                index = int(number)
            else:
                tables.append(name)
        unknown = re.match(r"Object contains unknown field `(.*)`", self._what)
        key = unknown[1] if unknown else ""
        section = tables[0] if tables else ""
        if not unknown and tables:
            key = tables[-1] if len(tables) > 1 else ""
        if unknown:
            what = f"unknown key {key!r}{nearest(key, self._known(section))}"
        elif self._what.startswith("Object missing required field"):
            missing = self._what.partition("`")[2].rstrip("`")
            what = f"the key {missing!r} is missing"
        elif key and self._what.startswith("Invalid enum value"):
            # The value is not quoted: a key may have got there.
            what = f"{key}: expected one of {', '.join(self._choices(section, key))}"
        elif key and self._what.startswith("Expected `array`"):
            what = f'{key}: write it as a list, as {key} = ["…"]'
        elif self._keys and not key and section in ("upstream", "route"):
            what = f"write [[{section}]], in double brackets: there may be several"
        elif self._keys and not key and self._what.startswith("Expected `object`"):
            what = f"write [{section}], in single brackets: there is one"
        else:
            what = self._what[0].lower() + self._what[1:].replace("`", "")
            what = f"{key}: {what}" if key else what
        where = f"[{section}] " if section else ""
        if section in ("upstream", "route"):
            where = f"[[{section}]] number {index + 1}: "
        line = self._line(section, index, key)
        return f"{self._path}{f':{line}' if line else ''}: {where}{what}"

    def _known(self, section: str) -> list[str]:
        return list(self._tables.get(section, self._tables[""]).__struct_fields__)

    def _choices(self, section: str, key: str) -> list[str]:
        hint = get_type_hints(self._tables[section])[key]
        kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
        return [json.dumps(choice) for kind in kinds for choice in get_args(kind)]

    def _line(self, section: str, index: int, key: str) -> int:
        """The line of a key, or else of its table; 0 where the file writes it in another way."""
        header = re.compile(rf"\s*\[\[?\s*{re.escape(section)}\s*\]\]?")
        entry = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*(=|\])") if key else None
        seen = -1
        start = 0
        inside = not section
        for number, line in enumerate(self._lines, 1):
            if section and header.match(line):
                seen += 1
                inside = section not in ("upstream", "route") or seen == index
                start = number if inside else start
            elif section and line.lstrip().startswith("["):
                inside = False
            elif inside and entry is not None and entry.match(line):
                return number
            if not section and entry is not None and entry.match(line):
                return number
        return start
