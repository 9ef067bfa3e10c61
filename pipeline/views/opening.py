"""Opening a backup for reading, and finding what the arguments of a command mean in it.

In: a configuration; runs, times and paths as a person writes them. Out: an open state, run numbers, paths.
Guarantees: no lock is taken and nothing is written. Fails with StateError where there is no state, or a
damaged one, and with ArgumentError where an argument names nothing; that names what there is instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pipeline import layout
from pipeline.config import Config
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.errors import ArgumentError, BackupSideError, DamagedStateError, StateError
from pipeline.store.past import NOW, RunRow, runs
from pipeline.store.reading import Reader
from pipeline.store.soundness import unsound_rows
from pipeline.store.state import REBUILD_ADVICE, read_places, translated_errors
from pipeline.store.trust import (
    STATE_NAME,
    check_for_reading,
    is_regular,
    look_at_seal,
    look_through,
    refuse_links,
)

LOWEST, HIGHEST = b"", treepath.HIGHEST
"""Every tree path lies between them."""
_RUN_DIGITS = 18
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class Opened(NamedTuple):
    """A backup that is open for reading. root: resolved. algorithm: the name of its hash."""

    config: Config
    root: Path
    state_path: Path
    state: Reader
    places: dict[bytes, SourcePlace]
    algorithm: str

    def digest_text(self, digest: bytes | None) -> str | None:
        return f"{self.algorithm}:{digest.hex()}" if digest is not None else None


@contextmanager
def open_for_reading(config: Config, whole: bool = False) -> Iterator[Opened]:
    """whole: look through all of the state, however large it is."""
    path = config.backup_root / os.fsdecode(layout.OWN_FOLDER) / STATE_NAME
    try:
        refuse_links(path.parent)
        if not is_regular(path):
            raise FileNotFoundError
        looked = look_at_seal(path, whole)
        with translated_errors():
            state = Reader(path)
    except FileNotFoundError as error:
        raise StateError(f"there is no state in {config.backup_root}", REBUILD_ADVICE) from error
    except OSError as error:
        raise BackupSideError(f"can't read the backup: {error.strerror}: {path}") from error
    with translated_errors():
        try:
            check_for_reading(state, looked)
            if whole:
                look_through(state)
            places = read_places(state)
            found = state.execute("SELECT value FROM settings WHERE key = 'hash_algorithm'").fetchall()
            algorithm = str(found[0][0]) if found else config.hash_algorithm
            with _odd_rows_named(state, places):
                yield Opened(config, config.backup_root.resolve(), path, state, places, algorithm)
        finally:
            state.close()


@contextmanager
def _odd_rows_named(state: Reader, places: dict[bytes, SourcePlace]) -> Iterator[None]:
    """Whoever trips over a row that can't be says so; whether there is one is only looked for by then, since
    that takes as long as reading the whole state."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        for path, wrong in unsound_rows(state, places):
            shown = treepath.shown(path) if isinstance(path, bytes) else repr(path)
            raise DamagedStateError(f"state.db is damaged: {shown}: {wrong}", REBUILD_ADVICE) from error
        raise  # a mistake of the program


def find_run(opened: Opened, text: str | None) -> int:
    """The run that `--at` means: a number, or an ISO 8601 time (local unless it has an offset) for the last
    run that ended by then. None: NOW. Only completed runs have an end to look at."""
    if text is None:
        return NOW
    known = runs(opened.state)
    complete = [run for run in known if run.is_complete]
    if not complete:
        raise ArgumentError("no run of this backup has been completed yet")
    if text.isascii() and text.isdigit():
        return _numbered(int(text) if len(text) <= _RUN_DIGITS else -1, text, known, complete)
    moment_ns = _moment_ns(text)
    ended = [run for run in complete if run.ended_ns is not None and run.ended_ns <= moment_ns]
    if not ended:
        first = complete[0]
        raise ArgumentError(
            f"no run had been completed by {text}",
            f"The first one is run {first.number}, which ended {local_time(first.ended_ns)}.",
        )
    return ended[-1].number


def _numbered(number: int, text: str, known: list[RunRow], complete: list[RunRow]) -> int:
    if any(run.number == number for run in complete):
        return number
    before = max((run.number for run in complete if run.number < number), default=None)
    after = min((run.number for run in complete if run.number > number), default=None)
    around = " and ".join(str(run) for run in (before, after) if run is not None)
    what = "was not completed" if any(run.number == number for run in known) else "is not known"
    raise ArgumentError(f"run {text[:_RUN_DIGITS]} {what}", f"The nearest completed runs: {around}.")


def _moment_ns(text: str) -> int:
    """The end of the second, or microsecond, that a time names: as the ends of runs are shown, cut to it."""
    try:
        moment = datetime.fromisoformat(text).astimezone()
        seconds = int(moment.replace(microsecond=0).timestamp())
        if moment.microsecond == 0:
            return seconds * 10**9 + 999_999_999
        return seconds * 10**9 + moment.microsecond * 1000 + 999
    except (ValueError, OverflowError) as error:
        raise ArgumentError(
            f"{text!r} is neither a run number nor a time",
            "For example: 12, 2026-11-24, 2026-11-24T18:30, 2026-11-24T18:30:00+01:00.",
        ) from error


def local_time(moment_ns: int | None) -> str:
    """A moment for people, in local time."""
    if moment_ns is None:
        return "never"
    return datetime.fromtimestamp(moment_ns // 10**9).astimezone().isoformat(" ")


def find_path(opened: Opened, text: str) -> bytes | None:
    """The tree path that an argument means; None for the whole backup.

    1. as everything shows it, the source's name first; 2. inside the only source that has it;
    3. absolute, as it is or was on the disk below a configured source; 4. the same with escapes.
    """
    written = os.fsencode(text)
    components = [name for name in written.split(b"/") if name not in (b"", b".")]
    if not written:
        raise ArgumentError("an empty PATH names nothing", "Leave it out, or write `.`, for everything.")
    if not components:
        return None
    if not all(map(treepath.is_name, components)):
        raise ArgumentError(f"{_shown(text)} can't be a path in a backup")
    if written.startswith(b"/"):
        absolute = _below_source(opened, text)
        if absolute is not None and _is_known(opened, absolute):
            return absolute
    path = treepath.SEPARATOR.join(components)
    if _is_known(opened, path):
        return path
    found = [p for name in opened.places if _is_known(opened, p := treepath.join(name, path))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(map(treepath.shown, found))
        raise ArgumentError(
            f"{_shown(text)} is in several sources: {names}", "Write the source's name first."
        )
    if _ESCAPE.search(text):
        return find_path(opened, os.fsdecode(_unescaped(text)))
    raise ArgumentError(
        f"there is no {_shown(text)} in this backup, and never was",
        "`python -m pipeline ls` lists what there is.",
    )


def _unescaped(text: str) -> bytes:
    """A name as the log and `ls` show it, `\\xNN` for what can't be printed, as the bytes that it has."""
    pieces = _ESCAPE.split(text)  # text and digits in turn
    return b"".join(
        bytes.fromhex(piece) if number % 2 else os.fsencode(piece) for number, piece in enumerate(pieces)
    )


def _is_known(opened: Opened, path: bytes) -> bool:
    return bool(opened.state.execute("SELECT 1 FROM files WHERE path = ?", (path,)).fetchall())


def _below_source(opened: Opened, text: str) -> bytes | None:
    for source in opened.config.sources:
        for root in (source.path, source.path.resolve()):
            if Path(text).is_relative_to(root):
                relative = os.fsencode(Path(text).relative_to(root))
                names = [] if relative == b"." else relative.split(b"/")
                return treepath.SEPARATOR.join([os.fsencode(source.name), *names])
    return None


def _shown(text: str) -> str:
    return repr(treepath.escaped(os.fsencode(text)))
