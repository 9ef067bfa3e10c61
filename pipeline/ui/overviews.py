"""What the commands that look at a backup as a whole do: runs, status and duplicates as JSON or for people.

In: the options as plain values. Out: the exit code; `pipeline.ui.answers` prints.
Guarantees: every name in a row is escaped and on one line; every name in JSON that isn't UTF-8 has its
exact bytes beside it in base64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from pipeline.model import treepath
from pipeline.model.errors import ExitCode
from pipeline.store.totals import Amount
from pipeline.ui.answers import Answer, answer, counter, json_line
from pipeline.ui.figures import amount, counts_text, duration_text, moment_text, size_text, utc_text
from pipeline.ui.tables import Column, Row
from pipeline.views.duplicates import Group, Groups, duplicates
from pipeline.views.opening import Opened
from pipeline.views.runs import Run, list_runs
from pipeline.views.status import Status, status

_AREAS = ("live", "duplicates", "deleted", "versions")


def list_of_runs(file: Path | None, settings: Sequence[str], json: bool) -> ExitCode:
    """List the runs of a backup."""

    def ask(opened: Opened) -> Answer[Run]:
        totals = counter("runs")

        def tally(_run: Run) -> None:
            totals["runs"] += 1

        return Answer(
            values=list_runs(opened),
            as_json=lambda run: [json_line({"type": "run", **_run_fields(run)})],
            columns=(
                Column("run", right=True),
                Column("started"),
                Column("took", right=True),
                Column("status"),
                Column("what changed"),
            ),
            as_rows=_run_rows,
            tally=tally,
            totals=totals,
            closing=lambda: "" if totals["runs"] else "There has been no run yet.",
        )

    return answer(file, settings, json, ask)


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "run": run.number,
        "started": utc_text(run.started_ns),
        "ended": utc_text(run.ended_ns),
        "seconds": round(run.seconds, 3) if run.seconds is not None else None,
        "status": run.status,
        "counts": run.counts,
    }


def _run_rows(run: Run) -> list[Row]:
    took = duration_text(run.seconds) if run.seconds is not None else ""
    changed = counts_text(run.counts) if run.counts is not None else ""
    return [(str(run.number), moment_text(run.started_ns), took, run.status, changed)]


def list_of_duplicates(file: Path | None, settings: Sequence[str], json: bool) -> ExitCode:
    """List the groups of equal content."""

    def ask(opened: Opened) -> Answer[Group]:
        groups = duplicates(opened)
        totals = counter("groups", "files", "cost_bytes")

        def tally(group: Group) -> None:
            totals["groups"] += 1
            totals["files"] += group.members
            totals["cost_bytes"] += group.cost_bytes

        return Answer(
            values=_then_closed(groups),
            as_json=lambda group: _group_json(opened, groups, group),
            columns=(
                Column("costs", right=True),
                Column("size", right=True),
                Column("files", right=True),
                Column("path"),
            ),
            as_rows=lambda group: _group_rows(groups, group),
            tally=tally,
            totals=totals,
            closing=lambda: _duplicates_words(totals),
        )

    return answer(file, settings, json, ask)


def _then_closed(groups: Groups) -> Iterator[Group]:
    with closing(groups):
        yield from groups.groups()


def _duplicates_words(totals: dict[str, int]) -> str:
    if not totals["groups"]:
        return "No two files in the source have the same content."
    return (
        f"{amount(totals['files'], 'file')} in {amount(totals['groups'], 'group')} of equal content;"
        f" the copies take {size_text(totals['cost_bytes'])}"
    )


def _group_rows(groups: Groups, group: Group) -> Iterator[Row]:
    first = (size_text(group.cost_bytes), size_text(group.size), f"{group.members:,}")
    for path in groups.paths(group):
        yield (*first, treepath.shown(path))
        first = ("", "", "")


def _group_json(opened: Opened, groups: Groups, group: Group) -> Iterator[bytes]:
    """In pieces, because a group can be larger than memory. `paths_b64` has null where a path is UTF-8."""
    head = {
        "type": "group",
        "digest": opened.digest_text(group.digest),
        "size": group.size,
        "count": group.members,
        "cost_bytes": group.cost_bytes,
    }
    yield json_line(head)[:-1] + b',"paths":['
    is_all_text = True
    comma = b""
    for path in groups.paths(group):
        fields = treepath.json_fields("path", treepath.with_slashes(path))
        is_all_text = is_all_text and len(fields) == 1
        yield comma + orjson.dumps(fields["path"])
        comma = b","
    yield b"]"
    if not is_all_text:
        yield b',"paths_b64":['
        comma = b""
        for path in groups.paths(group):
            fields = treepath.json_fields("path", treepath.with_slashes(path))
            yield comma + orjson.dumps(fields.get("path_b64"))
            comma = b","
        yield b"]"
    yield b"}"


def status_of(file: Path | None, settings: Sequence[str], json: bool) -> ExitCode:
    """Tell how the backup is doing."""

    def ask(opened: Opened) -> Answer[Status]:
        return Answer(
            values=[status(opened)],
            as_json=lambda found: [_status_json(found)],
            columns=(Column(""), Column("")),
            as_rows=_status_rows,
            tally=lambda _: None,
            totals={},
            closing=lambda: "",
        )

    return answer(file, settings, json, ask)


def _status_json(found: Status) -> bytes:
    totals, holder = found.totals, found.holder
    line: dict[str, Any] = {"type": "status"}
    line |= treepath.json_fields("backup_root", os.fsencode(found.root))
    line["hash_algorithm"] = found.algorithm
    for field, run in (("last_run", found.last_run), ("last_completed_run", found.last_completed_run)):
        line[field] = _run_fields(run) if run is not None else None
    line["source"] = {name: getattr(totals, name) for name in ("files", "links", "folders", "specials")}
    areas: list[tuple[str, Amount]] = [(area, getattr(totals, area)) for area in _AREAS]
    line["space"] = {name: {"files": of.files, "bytes": of.size_bytes} for name, of in areas}
    line["lock"] = holder._asdict() if holder is not None else None
    line["recovery_due"] = found.is_recovery_due
    return json_line(line)


def _status_rows(found: Status) -> Iterator[Row]:
    totals, holder = found.totals, found.holder
    yield "backup root", treepath.escaped(os.fsencode(found.root))
    yield "hash algorithm", found.algorithm
    yield "last run", _run_words(found.last_run)
    if found.last_completed_run != found.last_run:
        yield "last completed run", _run_words(found.last_completed_run)
    source = [amount(totals.files, "file"), amount(totals.links, "link"), amount(totals.folders, "folder")]
    if totals.specials:
        source.append(amount(totals.specials, "special file"))
    yield "in the source", ", ".join(source)
    for area in _AREAS:
        of: Amount = getattr(totals, area)
        yield f"stored, {area}", f"{amount(of.files, 'file')}, {size_text(of.size_bytes)}"
    if holder is not None:
        is_known = holder.pid is not None
        yield "at work", f"process {holder.pid}, started {holder.start}" if is_known else "another process"
    if found.is_recovery_due:
        yield "recovery", "due: the last run was cut, and the next one goes on from there"


def _run_words(run: Run | None) -> str:
    if run is None:
        return "none"
    took = f", took {duration_text(run.seconds)}" if run.seconds is not None else ""
    return f"run {run.number}, {run.status}, started {moment_text(run.started_ns)}{took}"
