"""A note of where the sources lie, in plain text beside the state, so that a rebuild needn't guess.

In: `.pipeline`, what a state knows of its sources. Out: `.pipeline/sources.json`, and what it says.
Guarantees: the note is replaced in one step, and only when it says something else; nothing but a rebuild ever
trusts it. Fails with OSError where it can't be written; one that can't be read says nothing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from pipeline.model import treepath
from pipeline.store.whole import read_whole, replace_whole

NOTE_NAME = "sources.json"


class Note(NamedTuple):
    """at_root: of each source, by its name. respells: whether names that read like spellings are some
    (`pipeline.spelling`)."""

    at_root: Mapping[bytes, bool]
    respells: bool = False


def write_note(own: Path, note: Note) -> None:
    if read_note(own) == note:
        return
    lines = [
        {
            "name": treepath.escaped(name),  # for people
            "name_b64": b64encode(name).decode("ascii"),
            "at_root": at_root,
            "respells": note.respells,
        }
        for name, at_root in note.at_root.items()
    ]
    replace_whole(own, NOTE_NAME, orjson.dumps(lines, option=orjson.OPT_INDENT_2))


def read_note(own: Path) -> Note | None:
    try:
        lines = orjson.loads(read_whole(own / NOTE_NAME) or b"")
        found = {b64decode(line["name_b64"], validate=True): bool(line["at_root"]) for line in lines}
        respells = any(line.get("respells", False) for line in lines)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    is_possible = all(map(treepath.is_name, found)) and sum(found.values()) <= 1
    return Note(found, respells) if found and is_possible else None
