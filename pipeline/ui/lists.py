"""What the commands that list something do: values of the views as JSON or as rows for people.

In: the options as plain values. Out: the exit code; `pipeline.ui.answers` prints.
Guarantees: every name in a row is escaped and on one line; every name in JSON that isn't UTF-8 has its
exact bytes beside it in base64.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.model import treepath
from pipeline.model.errors import ArgumentError, ExitCode
from pipeline.model.record import KIND_NAMES, Held, Kind
from pipeline.ui.answers import Answer, answer, counter, json_line
from pipeline.ui.figures import amount, moment_text, size_text, utc_text
from pipeline.ui.tables import Column, Row
from pipeline.views.diff import Difference, What, diff
from pipeline.views.history import Past, history
from pipeline.views.listing import Listed, listing
from pipeline.views.opening import Opened, find_path, find_run

_TYPE_BITS = {Kind.FILE: stat.S_IFREG, Kind.FOLDER: stat.S_IFDIR, Kind.LINK: stat.S_IFLNK}
UNKNOWN = "?"


def ls(file: Path | None, settings: Sequence[str], json: bool, path: str | None, at: str | None) -> ExitCode:
    """List a path, or everything, as it is or as a run held it."""

    def ask(opened: Opened) -> Answer[Listed]:
        run = find_run(opened, at)
        wanted = find_path(opened, path) if path is not None else None
        totals = counter("entries", "files", "links", "folders", "specials", "bytes")
        return Answer(
            values=listing(opened, wanted, run),
            as_json=lambda listed: [_listed_json(opened, listed)],
            columns=(Column("mode"), Column("size", right=True), Column("modified"), Column("path")),
            as_rows=_listed_rows,
            tally=lambda listed: _tally_held(totals, listed.held),
            totals=totals,
            closing=lambda: f"{amount(totals['entries'], 'path')}, {size_text(totals['bytes'])}",
        )

    return answer(file, settings, json, ask)


def _tally_held(totals: dict[str, Any], held: Held) -> None:
    totals["entries"] += 1
    totals[f"{KIND_NAMES[Kind(held.kind)]}s"] += 1
    if held.kind == Kind.FILE:
        totals["bytes"] += held.size


def _listed_json(opened: Opened, listed: Listed) -> bytes:
    held = listed.held
    line: dict[str, Any] = {"type": "entry"}
    line |= treepath.json_fields("path", treepath.with_slashes(held.path))
    line["kind"] = KIND_NAMES[Kind(held.kind)]
    line["size"] = held.size if held.kind == Kind.FILE else None
    line["digest"] = opened.digest_text(held.digest)
    line["mode"] = stat.S_IMODE(held.mode) if held.mode >= 0 else None
    line["mtime_ns"] = held.mtime_ns
    line |= treepath.json_fields("target", held.target)
    return json_line(line | stored_fields(listed.stored_at))


def stored_fields(stored_at: bytes | None) -> dict[str, str | None]:
    """A backup path for JSON. A source's own folder may be the backup root itself."""
    return treepath.json_fields("stored_at", b"." if stored_at == b"" else stored_at)


def _listed_rows(listed: Listed) -> list[Row]:
    held = listed.held
    name = treepath.shown(held.path)
    if held.target is not None:
        name += f" -> {treepath.escaped(held.target)}"
    if not held.is_within_reach:
        name += " (content no longer kept)"
    mode = held.mode if held.mode >= 0 else None
    return [(mode_text(Kind(held.kind), mode), _size_of(held), moment_text(held.mtime_ns), name)]


def mode_text(kind: Kind, mode: int | None) -> str:
    """A mode as `ls -l` has it."""
    if mode is None:
        return stat.filemode(_TYPE_BITS.get(kind, 0))[0] + UNKNOWN * 9
    return stat.filemode(mode if stat.S_IFMT(mode) else mode | _TYPE_BITS.get(kind, 0))


def _size_of(held: Held) -> str:
    return size_text(held.size) if held.kind == Kind.FILE else ""


def history_of(file: Path | None, settings: Sequence[str], json: bool, path: str, why: bool) -> ExitCode:
    """List every content and entry state that a path had. why: also what keeps each."""

    def ask(opened: Opened) -> Answer[Past]:
        wanted = find_path(opened, path)
        if wanted is None:
            raise ArgumentError("history needs a path", "`python -m pipeline ls` lists what there is.")
        totals: dict[str, Any] = treepath.json_fields("path", treepath.with_slashes(wanted))
        totals |= {"contents": 0, "states": 0, "deleted": False}
        pasts = _Pasts(totals, why)
        return Answer(
            values=history(opened, wanted, time.time_ns() if why else None),
            as_json=lambda past: [_past_json(opened, past, why)],
            columns=(
                Column("content", right=True),
                Column("runs"),
                Column("from"),
                Column("kind"),
                Column("size", right=True),
                Column("mode"),
                Column("modified"),
                Column("owner"),
                Column("digest"),
                *((Column("why"),) if why else ()),
                Column("where it lies now"),
            ),
            as_rows=lambda past: pasts.rows(opened, past),
            tally=pasts.tally,
            totals=totals,
            closing=lambda: (
                f"{treepath.shown(wanted)}: {amount(totals['contents'], 'content')},"
                f" {amount(totals['states'], 'state')}"
            ),
        )

    return answer(file, settings, json, ask)


class _Pasts:
    """The entry states of one path in turn: those that differ in metadata only stand below their content."""

    def __init__(self, totals: dict[str, Any], why: bool) -> None:
        self._totals = totals
        self._why = why
        self._before: Past | None = None
        self._is_same = False

    def tally(self, past: Past) -> None:
        before = self._before
        self._is_same = before is not None and before.content == past.content
        self._before = past
        self._totals["contents"] += not self._is_same
        self._totals["states"] += 1
        self._totals["deleted"] = past.is_deleted

    def rows(self, opened: Opened, past: Past) -> Iterator[Row]:
        number = str(past.number) if past.number is not None else ""
        size = size_text(past.size) if past.kind is Kind.FILE else ""
        digest = (opened.digest_text(past.digest) or "")[: len(opened.algorithm) + 13]
        content = ("", "", "", "") if self._is_same else (number, KIND_NAMES[past.kind], size, digest)
        owner = f"{past.uid}:{past.gid}" if past.uid is not None else UNKNOWN
        yield (
            content[0], _runs_text(past), moment_text(past.from_ns) if past.from_ns else UNKNOWN, content[1],
            content[2], mode_text(past.kind, past.mode), moment_text(past.mtime_ns), owner, content[3],
            *self._why_cell("" if self._is_same else past.why or ""),
            "" if self._is_same else _where_text(past),
        )  # fmt: skip
        if past.is_deleted:
            since = f"{past.to_run} -" if past.to_run is not None else UNKNOWN
            yield ("", since, "", "deleted", *[""] * 5, *self._why_cell(""), "no longer in the source")

    def _why_cell(self, text: str) -> tuple[str, ...]:
        return (text,) if self._why else ()


def _runs_text(past: Past) -> str:
    """Both ends included, as people count."""
    if past.from_run is None:
        return UNKNOWN
    if past.to_run is None:
        return f"{past.from_run} -"
    last = past.to_run - 1
    return str(last) if last == past.from_run else f"{past.from_run} - {last}"


def _where_text(past: Past) -> str:
    if past.pruned_by is not None:
        where = f"dropped by run {past.pruned_by}" + (f": {past.pruned_why}" if past.pruned_why else "")
    elif past.is_lost:
        where = "lost"
    elif past.stored_at is None:
        where = ""
    else:
        where = treepath.escaped(past.stored_at or b".")
    if past.target is not None:
        where += f" -> {treepath.escaped(past.target)}"
    return f"{where} (pinned)" if past.is_pinned else where


def _past_json(opened: Opened, past: Past, why: bool) -> bytes:
    line: dict[str, Any] = {
        "type": "content",
        "n": past.number,
        "kind": KIND_NAMES[past.kind],
        "size": past.size if past.kind is Kind.FILE else None,
        "digest": opened.digest_text(past.digest),
        **treepath.json_fields("target", past.target),
        "mode": stat.S_IMODE(past.mode) if past.mode is not None else None,
        "mtime_ns": past.mtime_ns,
        "uid": past.uid,
        "gid": past.gid,
        "from_run": past.from_run,
        "to_run": past.to_run,
        "from_time": utc_text(past.from_ns),
        **stored_fields(past.stored_at),
        "pinned": past.is_pinned,
        "pruned_by": past.pruned_by,
        "pruned_why": past.pruned_why,
        "lost": past.is_lost,
        "current": past.is_current,
        "deleted": past.is_deleted,
    }
    return json_line(line | ({"why": past.why} if why else {}))


def differences(file: Path | None, settings: Sequence[str], json: bool, first: str, second: str) -> ExitCode:
    """List what differs between the ends of two runs."""

    def ask(opened: Opened) -> Answer[Difference]:
        runs = find_run(opened, first), find_run(opened, second)
        totals = {"from_run": runs[0], "to_run": runs[1], **counter(*(what.value for what in What))}

        def tally(difference: Difference) -> None:
            totals[difference.what.value] += 1

        return Answer(
            values=diff(opened, *runs),
            as_json=lambda difference: [_difference_json(opened, difference)],
            columns=(Column("what"), Column("size", right=True), Column("path")),
            as_rows=_difference_rows,
            tally=tally,
            totals=totals,
            closing=lambda: _difference_words(totals),
        )

    return answer(file, settings, json, ask)


def _difference_words(totals: dict[str, int]) -> str:
    counts = ", ".join(f"{totals[what.value]:,} {what}" for what in What if totals[what.value])
    old, new = totals["from_run"], totals["to_run"]
    back = ", backwards in time" if old > new else ""
    return f"From run {old} to run {new}{back}: {counts or 'no difference'}"


def _difference_json(opened: Opened, difference: Difference) -> bytes:
    old, new = difference.old, difference.new
    line: dict[str, Any] = {"type": "difference", "what": difference.what}
    line |= treepath.json_fields("path", treepath.with_slashes(difference.path))
    if difference.from_path is not None:
        line |= treepath.json_fields("from_path", treepath.with_slashes(difference.from_path))
    for prefix, held in (("", new), ("old_", old)):
        is_file = held is not None and held.kind == Kind.FILE
        line[f"{prefix}kind"] = KIND_NAMES[Kind(held.kind)] if held is not None else None
        line[f"{prefix}size"] = held.size if held is not None and is_file else None
        line[f"{prefix}digest"] = opened.digest_text(held.digest) if held is not None else None
    return json_line(line)


def _difference_rows(difference: Difference) -> list[Row]:
    old, new = difference.old, difference.new
    name = treepath.shown(difference.path)
    if difference.from_path is not None:
        name = f"{treepath.shown(difference.from_path)} -> {name}"
    elif old is not None and new is not None and old.kind != new.kind:
        name += f" ({KIND_NAMES[Kind(old.kind)]} became {KIND_NAMES[Kind(new.kind)]})"
    sizes = [_size_of(held) for held in (old, new) if held is not None]
    size = " -> ".join(filter(None, sizes)) if difference.what is What.CHANGED else sizes[-1]
    return [(difference.what, size, name)]
