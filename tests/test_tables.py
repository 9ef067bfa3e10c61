"""Tables for people: aligned, streaming with bounded memory, safe from markup, plain without a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest
from harness import REPOSITORY, environment

from pipeline.ui.output import Output
from pipeline.ui.tables import Column, Row, print_table

COLUMNS = (Column("figure", right=True), Column("kind"), Column("name"))


class Terminal(io.BytesIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(rows: Iterable[Row], stream: io.BytesIO | None = None) -> list[str]:
    stream = stream or io.BytesIO()
    print_table(Output(stream, "standard output"), COLUMNS, rows)
    return stream.getvalue().decode().splitlines()


def test_plain_columns_are_aligned() -> None:
    """Figures to the right, words to the left, nothing behind the last one."""
    assert printed([("1", "file", "a"), ("1,000", "folder", "b c"), ("", "", "")]) == [
        "figure  kind    name",
        "     1  file    a",
        " 1,000  folder  b c",
        "",
    ]
    assert printed([]) == []


def test_rows_stream_with_the_widths_of_the_first() -> None:
    """Rows are printed long before the last one is made; a wider one later moves only itself."""
    stream = io.BytesIO()
    ahead = []

    def rows() -> Iterator[Row]:
        for number in range(2_000):
            ahead.append(number - stream.getvalue().count(b"name-"))
            yield ("9" * (9 if number == 1_500 else 1), "file", f"name-{number}")

    lines = printed(rows(), stream)
    assert max(ahead) <= 200
    assert len(lines) == 2_001 and lines.count("figure  kind  name") == 1
    assert lines[2_000] == "     9  file  name-1999"
    assert lines[1_501] == "999999999  file  name-1500"


def test_a_terminal_gets_rich_without_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names stay what they are, whole, also where they look like markup or are longer than a line."""
    monkeypatch.setenv("COLUMNS", "60")
    long = "x" * 150
    names = ["[bold]a[/bold]", ":smile:", long]
    lines = printed([("1", "file", name) for name in names] * 300, Terminal())
    text = "".join(line.strip() for line in lines)
    assert text.count("[bold]a[/bold]") == text.count(":smile:") == 300
    assert "".join(lines).count("figure") == 1
    assert text.count("x" * 10) >= 300 * 13
    assert lines[0].split() == ["figure", "kind", "name"]
    assert lines[0].index("kind") == lines[1].index("file")
    narrower = printed([("1,000", "folder", "name")] * 200 + [("1", "file", "name")] * 5, Terminal())
    assert {line.index("name") for line in narrower} == {len("figure  folder  ")}


def test_a_reader_that_goes_away_ends_the_rows() -> None:
    """Nobody makes rows that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    made = []

    def rows() -> Iterator[Row]:
        for number in range(100_000):
            made.append(number)
            yield ("1", "file", str(number))

    with open(writing, "wb") as stream:
        out = Output(stream, "standard output")
        print_table(out, COLUMNS, rows())
    assert not out.is_open
    assert len(made) <= 400


CODE = (
    "import sys; from pipeline.ui.output import standard_output; from pipeline.ui.tables import *;"
    "print_table(standard_output(), [Column('a'), Column('b')], [('1', '2')]);"
    "sys.stderr.write(str('rich' in sys.modules))"
)


def test_rich_is_for_terminals_only() -> None:
    """It takes longer to import than a short list takes to print."""
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("a  b\n1  2\n", "False")
    controller, terminal = pty.openpty()
    seen = subprocess.run(
        words,
        cwd=REPOSITORY,
        env=environment(),
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert seen.stderr == "True"
    assert b"1  2" in os.read(controller, 4096)
    os.close(controller)
    os.close(terminal)
