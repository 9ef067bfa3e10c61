"""What the scanner sends, for tests of the walk alone.

In: a backup, and what is to be looked at. Out: tag and path of each item, in order.
"""

from __future__ import annotations

import os
from typing import Any

from harness import Backup

from pipeline.layout import SourcePlace
from pipeline.model import message, treepath
from pipeline.model.scope import EVERYTHING, Part, Scope, in_scan_order
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import ScanSetup, SourceRoot


def tree(path: str) -> bytes:
    return os.fsencode(path.replace("/", "\0"))


def parts(*paths: str) -> Scope:
    """A slash behind a path asks for all that lies below it, too."""
    asked = (Part(tree(path.rstrip("/")), path.endswith("/")) for path in paths)
    return Scope(in_scan_order(asked), frozenset())


def scan_setup(backup: Backup, scope: Scope = EVERYTHING, **more: Any) -> ScanSetup:
    found = backup.source.stat()
    place = SourcePlace(b"docs", True, frozenset())
    root = SourceRoot(place, str(backup.source).encode(), (found.st_dev, found.st_ino))
    state = str(backup.root / ".pipeline/state.db")
    return ScanSetup((root,), frozenset(), more.pop("patterns", ()), state, scope, **more)


def scan(backup: Backup, scope: Scope = EVERYTHING, **more: Any) -> list[tuple[int, str]]:
    """more: of the ScanSetup."""
    items: list[list[Any]] = []
    scanner = Scanner(
        scan_setup(backup, scope, **more),
        lambda payload, _files, _bytes: items.extend(message.decode_items(payload)),
    )
    try:
        scanner.walk()
    finally:
        scanner.close()
    out, folder = [], b""
    for item in items:
        if item[0] == message.INSIDE:
            folder = item[1]
        else:
            by_name = item[0] in (message.FILE, message.LINK, message.SPECIAL)
            path = treepath.join(folder, item[1]) if by_name else item[1]
            out.append((item[0], os.fsdecode(path).replace("\0", "/")))
    return out
