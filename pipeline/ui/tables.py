"""Tables for people that may be longer than memory.

In: columns and rows of text, as an iterator. Out: lines on an output stream.
Guarantees: a bounded number of rows is held at a time: the first ones give the widths, and all others are
printed with those. Text is never taken for markup (names in it must be escaped by whoever makes the rows);
without a terminal rich is never imported. Ends early, and quietly, when the reader of the stream has gone
away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from pipeline.ui.output import Output

Row = Sequence[str]
_ROWS_AT_ONCE = 200


class Column(NamedTuple):
    """right: figures stand under each other. The last column may get wider: names belong there."""

    title: str
    right: bool = False


def print_table(out: Output, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Titles (where there are any) and rows; nothing at all where there are no rows."""
    rest = iter(rows)
    chunk = list(islice(rest, _ROWS_AT_ONCE))
    if not chunk:
        return
    widths = [max(map(len, cells)) for cells in zip([c.title for c in columns], *chunk, strict=True)]
    printed = _rich_lines if out.is_terminal else _plain_lines
    with_titles = any(column.title for column in columns)
    while chunk and out.is_open:
        for line in printed(columns, widths, chunk, with_titles):
            out.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        out.flush()
        chunk = list(islice(rest, _ROWS_AT_ONCE))
        with_titles = False


def _plain_lines(
    columns: Sequence[Column], widths: Sequence[int], rows: Iterable[Row], with_titles: bool
) -> Iterator[str]:
    titles = [[column.title for column in columns]] if with_titles else []
    for row in (*titles, *rows):
        yield "  ".join(map(_aligned, row, columns, widths)).rstrip()


def _aligned(cell: str, column: Column, width: int) -> str:
    return cell.rjust(width) if column.right else cell.ljust(width)


def _rich_lines(
    columns: Sequence[Column], widths: Sequence[int], rows: Iterable[Row], with_titles: bool
) -> Iterator[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=with_titles)
    for number, (column, width) in enumerate(zip(columns, widths, strict=True), 1):
        is_last = number == len(columns)
        table.add_column(
            Text(column.title, style="bold"),
            justify="right" if column.right else "left",
            min_width=None if is_last else width,
            no_wrap=not is_last,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    yield from (line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
