"""Where the last partial `verify` ended, so that the next one goes on from there.

In: the log folder, a backup root. Out: a tree path. Guarantees: nothing in the backup is written; a note that
can't be read or written only means that the next call begins anew, which is said.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path

import orjson

from pipeline.model import treepath
from pipeline.store.whole import read_whole, replace_whole

_NAME = "verify-position.json"


def read_position(log_dir: Path, root: Path) -> bytes:
    """The path up to which all has been verified; empty for none."""
    try:
        return b64decode(_positions(log_dir).get(_key(root), ""))
    except (ValueError, TypeError):  # somebody has been at the note
        return b""


def write_position(log_dir: Path, root: Path, path: bytes) -> str | None:
    """Remember it. Returns why that was not possible."""
    positions = _positions(log_dir) | {_key(root): b64encode(path).decode("ascii")}
    try:
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(log_dir, _NAME, orjson.dumps(positions))
    except OSError as error:
        return f"{log_dir} can't be written: {error.strerror}"
    return None


def _key(root: Path) -> str:
    """A backup's path as text, also where it isn't UTF-8."""
    return treepath.escaped(os.fsencode(root))


def _positions(log_dir: Path) -> dict[str, str]:
    try:
        found = orjson.loads(read_whole(log_dir / _NAME) or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
