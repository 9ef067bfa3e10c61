"""Batches on their way out of a walk: items are collected, and sent when there are enough of them.

In: items (`model.message`). Out: encoded batches, in the order in which the items came. Guarantees: a batch
has at most BATCH_ITEMS items, and is sent once its files, and what is attached to its items, have BATCH_BYTES
(promise 6). A walk that finds nothing for long says so by an empty one: `beat`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.model import message

BATCH_ITEMS = 256
BATCH_BYTES = 16 << 20
BEAT_S = 10.0

Row = tuple[Any, ...]
Send = Callable[[bytes, int, int], None]
"""Takes an encoded batch, its number of files and their bytes."""


class Batches:
    """Collects items and sends them when a batch is full, by count or by bytes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._items: list[tuple[Any, ...]] = []
        self._inside: bytes | None = None
        self._files = 0
        self._bytes = 0
        self._sent_s = time.monotonic()

    def beat(self) -> None:
        """Called now and then by a walk, also where it has nothing to send: a sign of life."""
        if time.monotonic() - self._sent_s > BEAT_S:
            self._flush()

    def add(self, item: tuple[Any, ...], files: int = 0, size_bytes: int = 0) -> None:
        self._items.append(item)
        self._files += files
        self._bytes += size_bytes
        if len(self._items) >= BATCH_ITEMS or self._bytes >= BATCH_BYTES:
            self.flush()

    def add_file(self, folder: bytes, name: bytes, row: Row | None, size_bytes: int) -> None:
        """The one item that there are very many of."""
        if self._inside != folder:
            self.inside(folder)
        self._items.append((message.FILE, name, row))
        self._files += 1
        self._bytes += size_bytes
        if len(self._items) >= BATCH_ITEMS or self._bytes >= BATCH_BYTES:
            self.flush()

    def inside(self, folder: bytes) -> None:
        """The items that follow lie in `folder`. Said anew in each batch."""
        if self._inside != folder:
            self._items.append((message.INSIDE, folder))
            self._inside = folder

    def flush(self) -> None:
        if self._items:
            self._flush()

    def _flush(self) -> None:
        self._sent_s = time.monotonic()
        self._send(message.encode(self._items), self._files, self._bytes)
        self._items, self._inside, self._files, self._bytes = [], None, 0, 0
