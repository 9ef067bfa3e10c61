"""`export`: the state as canonical JSON lines, in scan order.

In: a configuration. Out: one line of bytes for each path. Guarantees: nothing that may differ between two
machines (run times, inode numbers, unsettledness) is in it, so two backups of the same tree with the same
history export the same bytes; the state is read in key ranges, without a lock and without being written.
Fails with StateError where there is no state, or a damaged one.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from pipeline import layout, planner
from pipeline.config import Config
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.errors import StateError
from pipeline.model.record import KIND_NAMES, Kind, Record, Version, VersionStatus
from pipeline.store.backup import STATE_NAME, check_version
from pipeline.store.reading import Reader, read_range, read_versions
from pipeline.store.state import (
    REBUILD_ADVICE,
    source_places,
    translated_errors,
)

_LOW, _HIGH = b"", b"\xff" * 256


def export_lines(config: Config) -> Iterator[bytes]:
    path = config.backup_root / os.fsdecode(layout.OWN_FOLDER) / STATE_NAME
    if not path.is_file():
        raise StateError(f"there is no state in {config.backup_root}", REBUILD_ADVICE)
    with translated_errors():
        yield from _Export(path).lines()


class _Export:
    def __init__(self, path: Path) -> None:
        self._connection = Reader(path)
        check_version(self._connection)
        rows = self._connection.execute("SELECT name, at_root FROM sources").fetchall()
        self._places = source_places(rows)
        algorithm = self._connection.execute("SELECT value FROM settings WHERE key = 'hash_algorithm'")
        self._algorithm = algorithm.fetchall()[0][0]

    def lines(self) -> Iterator[bytes]:
        """A merge of two sorted streams: the current records, and their versions."""
        versions = groupby(read_versions(self._connection, _LOW, _HIGH), key=lambda version: version.path)
        group = next(versions, None)
        for row in read_range(self._connection, _LOW, _HIGH):
            record = Record._make(row)
            own: list[Version] = []
            while group is not None and group[0] <= record.path:
                if group[0] == record.path:
                    own = list(group[1])
                group = next(versions, None)
            yield orjson.dumps(self._entry(record, own), option=orjson.OPT_APPEND_NEWLINE)
        self._connection.close()

    def _entry(self, record: Record, versions: list[Version]) -> dict[str, Any]:
        place = self._places[treepath.source_name(record.path)]
        entry: dict[str, Any] = {}
        _put(entry, "path", treepath.with_slashes(record.path))
        entry["kind"] = KIND_NAMES[Kind(record.kind)]
        if record.kind == Kind.FILE:
            entry["size"] = record.size
            entry["digest"] = self._digest(record.digest)
        entry["mode"] = stat.S_IMODE(record.mode)
        entry["mtime_ns"] = record.mtime_ns
        _put(entry, "target", record.target)
        stored_at = planner.stored_at(record, place)
        if stored_at is None:
            entry["stored_at"] = None
        else:
            _put(entry, "stored_at", stored_at or b".")
        if record.original is not None:
            _put(entry, "original", treepath.with_slashes(record.original))
        if not record.is_present:
            entry["deleted"] = True
        kept = [v for v in versions if v.status == VersionStatus.KEPT]
        entry["versions"] = [self._version(version, place) for version in kept]
        return entry

    def _version(self, version: Version, place: SourcePlace) -> dict[str, Any]:
        entry: dict[str, Any] = {"n": version.number, "size": version.size}
        entry["digest"] = self._digest(version.digest)
        _put(entry, "target", version.target)
        _put(entry, "stored_at", layout.version(place, treepath.relative(version.path), version.number))
        return entry

    def _digest(self, digest: bytes | None) -> str | None:
        return f"{self._algorithm}:{digest.hex()}" if digest is not None else None


def _put(entry: dict[str, Any], field: str, value: bytes | None) -> None:
    """A name, lossy where it isn't UTF-8, with the exact bytes in base 64 beside it."""
    if value is None:
        return
    try:
        entry[field] = value.decode("utf-8")
    except UnicodeDecodeError:
        entry[field] = value.decode("utf-8", "replace")
        entry[f"{field}_b64"] = base64.b64encode(value).decode("ascii")
