"""The records of one source beside the walk through it: one merge of two sorted streams.

In: a way to read rows from a path on, then the paths that the walk comes to, in ascending order. Out: the
record of each, and those that the walk has not come to. Guarantees: a range of rows is read only when the
walk has passed the last one, and the parent writes only behind the walk, so rows of this very run are never
met here; memory holds one range (promise 6). Fails as reading the rows does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.model import treepath

Row = tuple[Any, ...]


class Known:
    """root: the path that the rows begin at."""

    def __init__(self, rows_from: Callable[[bytes], Iterator[Row]], root: bytes) -> None:
        self._rows_from = rows_from
        self._rows = rows_from(root)
        self._row: Row | None = next(self._rows, None)

    def take(self, path: bytes, missing: Callable[[Row], None]) -> Row | None:
        """The record of `path`, if there is one; `missing` is called with each record before it."""
        row = self._row
        if row is not None and row[0] == path:
            self._row = next(self._rows, None)
            return row
        while row is not None and row[0] < path:
            missing(row)
            row = self._row = next(self._rows, None)
        if row is None or row[0] != path:
            return None
        self._row = next(self._rows, None)
        return row

    def rest_below(self, path: bytes, each: Callable[[Row], None]) -> None:
        """`each` is called with the records that are left below a folder. The walk comes to none of them."""
        row = self._row
        while row is not None and treepath.is_below(row[0], path):
            each(row)
            row = self._row = next(self._rows, None)

    def skip_below(self, path: bytes) -> None:
        """Pass over what lies below a folder that isn't entered."""
        low, high = treepath.below(path)
        if self._row is not None and low < self._row[0] < high:
            self._rows = self._rows_from(high)  # with `high` itself, which is a possible sibling
            self._row = next(self._rows, None)
