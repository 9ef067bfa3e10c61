"""What a call of `restore` asks for, in terms of the backup: paths, contents, figures.

In: an opened backup and a request. Out: paths in scan order, rows of contents, how much is to come.
Guarantees: nothing is written; what is not known is refused before anything is. Fails with ArgumentError,
which says what there is instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.model import treepath
from pipeline.model.errors import ArgumentError
from pipeline.model.record import Held, Kind
from pipeline.store import past
from pipeline.views.opening import HIGHEST, Opened, find_path


class Request(NamedTuple):
    """paths: as people write them; none for everything. at: a run or a time. version: a content's number.

    overwrite: `never`, `if-different` or `always`. specials: also fifos, sockets and devices. numeric_ids:
    owners by their numbers, and not by their names first.
    """

    paths: tuple[str, ...]
    to: Path
    at: str | None = None
    version: int | None = None
    overwrite: str = "never"
    dry_run: bool = False
    specials: bool = False
    numeric_ids: bool = False


def parts_of(opened: Opened, request: Request) -> tuple[bytes, ...]:
    """The paths that are wanted, in scan order; none that lies below another. Empty: everything."""
    if request.version is not None and (request.at is not None or not request.paths):
        raise ArgumentError("--version needs the path of a file, and can't be used together with --at")
    found = sorted(find_path(opened, text) or b"" for text in request.paths) or [b""]
    if found[0] == b"" or (len(opened.places) == 1 and found[0] in opened.places):
        return (b"",)
    parts: list[bytes] = []
    for path in found:
        if not parts or (path != parts[-1] and not treepath.is_below(path, parts[-1])):
            parts.append(path)
    return tuple(parts)


def refuse_unknown(opened: Opened, run: int, parts: tuple[bytes, ...]) -> None:
    """Each path that was named was there at that time; otherwise it is said when it was."""
    for path in parts:
        if not path or next(past.read_held(opened.state, run, path, path + b"\0", with_low=True), None):
            continue
        states = past.held_of(opened.state, path)
        when = "; ".join(_interval_words(states[-3:]))
        shown = treepath.shown(path)
        moment = "is not in the source now" if run == past.NOW else f"was not there at the end of run {run}"
        advice = f"It was there {when}. `history` tells more." if states else ""
        deleted = past.deleted_content(opened.state, path)
        if not states and deleted is not None:
            advice = f"Its last content is still kept: --version {deleted.number} brings it back."
        raise ArgumentError(f"{shown} {moment}", advice)


def _interval_words(states: list[Held]) -> list[str]:
    words = []
    for held in states:
        last = "now" if held.to_run is None else f"run {held.to_run - 1}"
        words.append(f"from run {held.from_run} to {last}")
    return words


def contents(opened: Opened, parts: tuple[bytes, ...], number: int) -> tuple[Held, ...]:
    """One content of each path, by its number, with the metadata that it had last; each folder once."""
    rows: dict[bytes, Held] = {}
    for path in parts:
        states = [held for held in past.held_of(opened.state, path) if held.number == number]
        files = [held for held in states if Kind(held.kind).has_content]
        unknown = [v for v in past.versions_of(opened.state, path) if v.number == number and not files]
        deleted = past.deleted_content(opened.state, path)
        if not files and deleted is not None and deleted.number == number:
            files = [deleted]  # no history knows it, as after a rebuild
        if files:
            rows |= {folder.path: folder for folder in _folders_above(opened, files[-1])}
            rows[path] = files[-1]
        elif unknown:
            rows[path] = Held.of_version(unknown[0])
        else:
            raise ArgumentError(
                f"{treepath.shown(path)} has no version {number}", "`history` lists those that it has."
            )
    return tuple(rows[path] for path in sorted(rows))


def _folders_above(opened: Opened, held: Held) -> Iterator[Held]:
    """The folders that a content lay in, as they were then."""
    for folder in treepath.parents(held.path):
        yield from past.read_held(opened.state, held.from_run, folder, folder + b"\0", with_low=True)


def expected(opened: Opened, run: int, parts: tuple[bytes, ...]) -> tuple[int, int]:
    """Files and links that are to come, and their bytes."""
    found = [past.figures(opened.state, run, part, part + b"\1" if part else HIGHEST) for part in parts]
    return sum(files for files, _ in found), sum(size for _, size in found)
