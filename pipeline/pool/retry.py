"""A batch at which a worker died, given out again one file at a time.

In: the batch's frame. Out: frames of one item each, and at the end one payload as if nothing had happened.
Guarantees: every item is answered exactly once and in order; an item at which a second worker dies becomes a
result that says so. Pure bookkeeping: processes and pipes are the line's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pipeline.model import message
from pipeline.model.message import Results
from pipeline.pool.channel import Frame

GivenUp: TypeAlias = Callable[[list[Any], bytes], Any]
"""The result of an item, given the folder that it is in, where no worker lives long enough to give it."""


class Retry:
    def __init__(self, given: Frame, given_up: GivenUp) -> None:
        self._given_up = given_up
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
        folder = self._inside[1] if self._inside is not None else b""
        self._results = self._results._replace(
            files=self._results.files + int(item[0] == message.FILE),
            items=[*self._results.items, self._given_up(item, folder)],
        )
        self._next += 1

    def results(self) -> bytes:
        return message.encode(self._results)
