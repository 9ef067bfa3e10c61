"""`export`: the state as canonical JSON lines, in scan order.

In: a configuration. Out: one line of bytes for each path. Guarantees: nothing that may differ between two
machines (run times, inode numbers, unsettledness) is in it, so two backups of the same tree with the same
history export the same bytes; the state is read in key ranges, without a lock and without being written.
Fails with StateError where there is no state, or a damaged one.
"""

from __future__ import annotations

import stat
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import orjson

from pipeline import layout, planner
from pipeline.config import Config
from pipeline.layout import SourcePlace
from pipeline.model import attributes, treepath
from pipeline.model.record import KIND_NAMES, Kind, Record, Version, VersionStatus
from pipeline.store.reading import Remembered, read_attributes, read_range, read_versions
from pipeline.views.opening import HIGHEST, LOWEST, Opened, open_for_reading


def export_lines(config: Config) -> Iterator[bytes]:
    with open_for_reading(config) as opened:
        yield from _Export(opened).lines()


class _Export:
    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._attributes = Remembered(partial(read_attributes, opened.state))

    def lines(self) -> Iterator[bytes]:
        """A merge of two sorted streams: the current records, and their versions."""
        state = self._opened.state
        versions = groupby(read_versions(state, LOWEST, HIGHEST), key=lambda version: version.path)
        group = next(versions, None)
        for row in read_range(state, LOWEST, HIGHEST):
            record = Record._make(row)
            own: list[Version] = []
            while group is not None and group[0] <= record.path:
                if group[0] == record.path:
                    own = list(group[1])
                group = next(versions, None)
            yield orjson.dumps(self._entry(record, own), option=orjson.OPT_APPEND_NEWLINE)

    def _entry(self, record: Record, versions: list[Version]) -> dict[str, Any]:
        place = self._opened.places[treepath.source_name(record.path)]
        entry: dict[str, Any] = {}
        entry |= treepath.json_fields("path", treepath.with_slashes(record.path))
        entry["kind"] = KIND_NAMES[Kind(record.kind)]
        if record.kind == Kind.FILE:
            entry["size"] = record.size
            entry["digest"] = self._opened.digest_text(record.digest)
        entry["mode"] = stat.S_IMODE(record.mode)
        entry["mtime_ns"] = record.mtime_ns
        if record.target is not None:
            entry |= treepath.json_fields("target", record.target)
        stored_at = planner.stored_at(record, place)
        entry |= treepath.json_fields("stored_at", b"." if stored_at == b"" else stored_at)
        if record.original is not None:
            entry |= treepath.json_fields("original", treepath.with_slashes(record.original))
        if record.attributes is not None:
            pairs = attributes.unpack(self._attributes(record.attributes))
            entry["attributes"] = {treepath.escaped(n): b64encode(v).decode() for n, v in pairs}
        if record.linked_to is not None:
            entry |= treepath.json_fields("linked_to", treepath.with_slashes(record.linked_to))
        if not record.is_present:
            entry["deleted"] = True
        kept = [v for v in versions if v.status == VersionStatus.KEPT]
        entry["versions"] = [self._version(version, place) for version in kept]
        return entry

    def _version(self, version: Version, place: SourcePlace) -> dict[str, Any]:
        entry: dict[str, Any] = {"n": version.number, "size": version.size}
        entry["digest"] = self._opened.digest_text(version.digest)
        if version.target is not None:
            entry |= treepath.json_fields("target", version.target)
        at = layout.version(place, treepath.relative(version.path), version.number)
        return entry | treepath.json_fields("stored_at", at)
