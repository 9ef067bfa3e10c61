"""A batch at which a worker died, given out again one file at a time.

In: the batch's frame. Out: frames of one item each, and at the end one payload as if nothing had happened.
Guarantees: every item is answered exactly once and in order; an item at which a second worker dies becomes a
PROBLEM of its path. Pure bookkeeping: processes and pipes are the line's matter.
"""

from __future__ import annotations

from typing import Any

from pipeline.model import message
from pipeline.model.errors import Severity
from pipeline.model.message import Results
from pipeline.model.record import Kind
from pipeline.pool.channel import Frame

KILLED_TWO = "two workers died while they were at it; skipped"


class Retry:
    def __init__(self, given: Frame) -> None:
        self._number = given.number
        self._items = message.decode_items(given.payload)
        self._inside: list[Any] | None = None
        self._next = 0
        self._results = Results(0, 0, 0, 0, 0, [])

    def next_frame(self) -> Frame | None:
        """The next item, with the folder that it is in; None when all are answered."""
        while self._next < len(self._items) and self._items[self._next][0] == message.INSIDE:
            self._inside = self._items[self._next]
            self._next += 1
        if self._next == len(self._items):
            return None
        items = [self._inside] if self._inside is not None else []
        return Frame(self._number, 0, 0, message.encode([*items, self._items[self._next]]))

    def answered(self, payload: bytes) -> None:
        more, so_far = message.decode_results(payload), self._results
        self._results = Results(
            so_far.files + more.files,
            so_far.unchanged + more.unchanged,
            so_far.specials + more.specials,
            so_far.bytes_read + more.bytes_read,
            so_far.bytes_stored + more.bytes_stored,
            so_far.items + more.items,
        )
        self._next += 1

    def killed(self) -> None:
        """A second worker died, at the item that was given out last."""
        item = self._items[self._next]
        files = int(item[0] == message.FILE)
        self._results = self._results._replace(
            files=self._results.files + files, items=[*self._results.items, self._without_worker(item)]
        )
        self._next += 1

    def _without_worker(self, item: list[Any]) -> list[Any]:
        """An item's result where no worker lives long enough to give it. Only files need one to be read."""
        if item[0] == message.FOLDER:
            _, path, found, row = item
            return [
                message.FOUND,
                path,
                Kind.FOLDER,
                found,
                None,
                None,
                False,
                row is not None,
                None,
                None,
                0,
                None,
            ]
        if item[0] in (message.FILE, message.LINK, message.SPECIAL):
            assert self._inside is not None, "the scanner says it before the first name"
            return [message.PROBLEM, self._inside[1] + b"\0" + item[1], KILLED_TWO, Severity.ERROR]
        return item

    def results(self) -> bytes:
        return message.encode(self._results)
