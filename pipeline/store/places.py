"""A note of where the sources lie, in plain text beside the state, so that a rebuild needn't guess.

In: `.pipeline`, the sources that a state knows. Out: `.pipeline/sources.json`, and what it says. Guarantees:
the note is replaced in one step, and only when it says something else; nothing but a rebuild ever trusts it.
Fails with OSError where it can't be written; one that can't be read says nothing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

import orjson

from pipeline.model import treepath
from pipeline.store.whole import read_whole, replace_whole

NOTE_NAME = "sources.json"


def write_note(own: Path, sources: list[tuple[bytes, bool]]) -> None:
    """sources: names, and whether each lies at the root."""
    if read_note(own) == dict(sources):
        return
    lines = [
        {
            "name": treepath.escaped(name),  # for people
            "name_b64": b64encode(name).decode("ascii"),
            "at_root": at_root,
        }
        for name, at_root in sources
    ]
    replace_whole(own, NOTE_NAME, orjson.dumps(lines, option=orjson.OPT_INDENT_2))


def read_note(own: Path) -> dict[bytes, bool] | None:
    try:
        lines = orjson.loads(read_whole(own / NOTE_NAME) or b"")
        found = {b64decode(line["name_b64"], validate=True): bool(line["at_root"]) for line in lines}
    except (ValueError, TypeError, KeyError):
        return None
    is_possible = all(map(treepath.is_name, found)) and sum(found.values()) <= 1
    return found if found and is_possible else None
