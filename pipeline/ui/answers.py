"""How a command that lists something is answered: its values as JSON lines, or as a table for people.

In: a configuration, and a function that asks an open backup. Out: the exit code; standard output.
Guarantees: values are printed as they come and none is kept; with `--json`, standard output holds JSON
lines only and the last one is the summary, whatever happens; no lock is taken and nothing is written. An
error that ends the command is one or two lines without a traceback.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from pipeline import config as configuration
from pipeline.model.errors import ExitCode, PipelineError
from pipeline.ui.commands import guarded
from pipeline.ui.lines import one_line
from pipeline.ui.output import Output, standard_output
from pipeline.ui.tables import Column, Row, print_table
from pipeline.views.opening import Opened, open_for_reading

T = TypeVar("T")


class Answer(NamedTuple, Generic[T]):
    """values: what is listed. as_json: the pieces of its line, without the line's end. as_rows: its rows.

    tally: adds a value to the totals. totals: the summary's figures; filled while the values are listed.
    closing: the last line for people, made of the totals; empty for none.
    """

    values: Iterable[T]
    as_json: Callable[[T], Iterable[bytes]]
    columns: Sequence[Column]
    as_rows: Callable[[T], Iterable[Row]]
    tally: Callable[[T], None]
    totals: dict[str, Any]
    closing: Callable[[], str]


Ask = Callable[[Opened], Answer[Any]]


def answer(file: Path | None, settings: Sequence[str], json: bool, ask: Ask) -> ExitCode:
    """Open the backup, ask it, and print what it answers."""
    out = standard_output()
    if json:
        return guarded(lambda: _print_json(file, settings, ask, out))

    def print_answer() -> ExitCode:
        with open_for_reading(configuration.load(file, settings)) as opened:
            answered = ask(opened)
            print_table(out, answered.columns, _rows(answered))
            if out.is_open and (closing := answered.closing()):
                out.line(closing)
        return ExitCode.OK if out.is_open else ExitCode.FAILED

    return guarded(print_answer)


def _rows(answered: Answer[T]) -> Iterator[Row]:
    for value in answered.values:
        answered.tally(value)
        yield from answered.as_rows(value)


def _print_json(file: Path | None, settings: Sequence[str], ask: Ask, out: Output) -> ExitCode:
    totals: dict[str, Any] = {}
    status, code = "ok", ExitCode.OK
    try:
        with open_for_reading(configuration.load(file, settings)) as opened:
            answered = ask(opened)
            totals = answered.totals
            for value in answered.values:
                answered.tally(value)
                for piece in answered.as_json(value):
                    out.write(piece)
                out.write(b"\n")
                if not out.is_open:
                    return ExitCode.FAILED
    except PipelineError as error:
        if not out.is_open:  # it is standard output itself that can't be written
            raise
        out.write(json_line({"type": "error", "path": None, "cause": one_line(error.one_line)}) + b"\n")
        status, code = "failed", error.exit_code
    except KeyboardInterrupt:
        status, code = "interrupted", ExitCode.INTERRUPTED
    out.write(json_line({"type": "summary", "status": status, **totals}) + b"\n")
    out.flush()
    return code if out.is_open else ExitCode.FAILED


def json_line(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields)


def counter(*names: str) -> Counter[str]:
    """Totals in which every figure is there from the start."""
    return Counter(dict.fromkeys(names, 0))
