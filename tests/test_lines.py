"""The words of the run log."""

from __future__ import annotations

import pytest

from pipeline.model.errors import Problem, Severity
from pipeline.model.plan import (
    Action,
    Archive,
    DeleteVersion,
    MakeFolder,
    Move,
    OpenFolder,
    Pin,
    Plan,
    Remove,
    RemoveFolder,
    SetMetadata,
    Step,
    Store,
)
from pipeline.model.record import Record
from pipeline.ui.lines import one_line, plan_lines, problem_line, skip_line

RECORD = Record(b"docs\0one.txt", 0, 0o100644, 0, 0, 0, 0, 1, 3, b"d", None, 0, None, 1, 0, 1, 0)


def plan(action: Action | None, path: bytes, reason: str, *steps: Step) -> Plan:
    return Plan(action, path, reason, steps, RECORD._replace(path=path))


ONE = b"docs\0one.txt"
EVERY_SILENT_STEP = (
    Remove(b"a"),
    MakeFolder(b"a"),
    OpenFolder(b"a", 0o755, 0, 0),
    RemoveFolder(b"a"),
    Pin(b"p"),
)
CASES = {
    "new": (
        plan(Action.BACKUP, ONE, "new path", Store(b"one.txt", False), SetMetadata(b"one.txt")),
        ["PLANNER → BACKUP: docs/one.txt (new path)", "BACKUP: docs/one.txt → one.txt"],
    ),
    "modified": (
        plan(
            Action.MODIFIED,
            ONE,
            "content differs",
            Archive(b"one.txt", b"versions/one.txt/v1.bak"),
            Store(b"one.txt", True),
            SetMetadata(b"one.txt"),
        ),
        [
            "PLANNER → MODIFIED: docs/one.txt (content differs)",
            "ARCHIVE: one.txt → versions/one.txt/v1.bak",
            "UPDATED: docs/one.txt → one.txt",
        ],
    ),
    "suspect": (
        plan(
            Action.SUSPECT,
            ONE,
            "looks like bit rot",
            Archive(b"one.txt", b"versions/one.txt/v1.bak"),
            Pin(b"p"),
            Store(b"one.txt", True),
        ),
        [
            "PLANNER → SUSPECT: docs/one.txt (looks like bit rot)",
            "ARCHIVE: one.txt → versions/one.txt/v1.bak",
            "SUSPECT: docs/one.txt → one.txt",
        ],
    ),
    "duplicate": (
        plan(
            Action.DUPLICATE,
            b"docs\0one_copy.txt",
            "same content as one.txt",
            Store(b"_duplicates/one_copy.txt", False),
        ),
        [
            "PLANNER → DUPLICATE: docs/one_copy.txt (same content as one.txt)",
            "DUPLICATE: docs/one_copy.txt → _duplicates/one_copy.txt",
        ],
    ),
    "delete": (
        plan(
            Action.DELETE, b"docs\0old.txt", "no longer in the source", Move(b"old.txt", b"_deleted/old.txt")
        ),
        [
            "PLANNER → DELETE: docs/old.txt (no longer in the source)",
            "ARCHIVE DELETE: old.txt → _deleted/old.txt",
            "STATE REMOVE: docs/old.txt",
        ],
    ),
    "promote": (
        plan(
            Action.PROMOTE,
            b"docs\0two_copy.txt",
            "original gone",
            Move(b"_duplicates/two_copy.txt", b"two_copy.txt"),
        ),
        ["PLANNER → PROMOTE: docs/two_copy.txt (original gone)", "PROMOTE: docs/two_copy.txt → two_copy.txt"],
    ),
    "came back": (
        plan(Action.BACKUP, ONE, "came back", Move(b"_deleted/one.txt", b"one.txt"), SetMetadata(b"one.txt")),
        ["PLANNER → BACKUP: docs/one.txt (came back)", "BACKUP: docs/one.txt → one.txt"],
    ),
    "came back as a duplicate": (
        plan(Action.DUPLICATE, ONE, "came back", Move(b"_deleted/one.txt", b"_duplicates/one.txt")),
        ["PLANNER → DUPLICATE: docs/one.txt (came back)", "DUPLICATE: docs/one.txt → _duplicates/one.txt"],
    ),
    "in the way": (
        plan(None, ONE, "stood in the way", Move(b"_deleted/a", b"versions/a/v1.bak")),
        ["ARCHIVE: _deleted/a → versions/a/v1.bak"],
    ),
    "metadata": (
        plan(Action.METADATA, b"docs\0two.txt", "mode differs", SetMetadata(b"two.txt")),
        ["PLANNER → METADATA: docs/two.txt (mode differs)", "METADATA: docs/two.txt → two.txt"],
    ),
    "retention": (
        plan(
            Action.RETENTION,
            ONE,
            "more than 1 version",
            DeleteVersion(b"versions/one.txt/v1.bak", None),
            DeleteVersion(b"versions/one.txt/v2.bak", b"m"),
        ),
        [
            "PLANNER → RETENTION: docs/one.txt (more than 1 version)",
            "RETENTION delete: versions/one.txt/v1.bak",
            "RETENTION delete: versions/one.txt/v2.bak",
        ],
    ),
    "silent steps": (
        plan(Action.BACKUP, ONE, "new path", *EVERY_SILENT_STEP),
        ["PLANNER → BACKUP: docs/one.txt (new path)"],
    ),
    "folder": (plan(None, b"docs\0folder", "", MakeFolder(b"folder"), Store(b"folder", False)), []),
}


@pytest.mark.parametrize("name", CASES)
def test_lines_of_a_plan(name: str) -> None:
    """A plan's lines are its decision with the reason, then those of its steps that people see."""
    made, lines = CASES[name]
    assert plan_lines(made) == lines


ODD = b"a\nb\\\xff\x1b"
SHOWN = "a\\x0ab\\x5c\\xff\\x1b"


def test_names_are_escaped() -> None:
    """Whatever a name holds, its line is one printable line, and two names never look alike."""
    made = plan(
        Action.BACKUP, b"docs\0" + ODD, f"like {ODD.decode('utf-8', 'surrogateescape')}", Store(ODD, False)
    )
    assert plan_lines(made) == [
        f"PLANNER → BACKUP: docs/{SHOWN} (like {SHOWN})",
        f"BACKUP: docs/{SHOWN} → {SHOWN}",
    ]
    assert skip_line(b"docs\0" + ODD) == f"SKIP: docs/{SHOWN}"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem(Severity.WARNING, b"docs\0x", "it changed"), "WARNING: docs/x (it changed)"),
        (Problem(Severity.ERROR, b"docs\0x", "two\nlines"), "ERROR: docs/x (two\\x0alines)"),
        (Problem(Severity.WARNING, None, "held back"), "WARNING: held back"),
        (Problem(Severity.WARNING, None, "foreign", b"x/y"), "WARNING: x/y (foreign)"),
        (Problem(Severity.WARNING, b"docs\0x", "gone", b"x"), "WARNING: docs/x (gone)"),
    ],
)
def test_problem_lines(problem: Problem, line: str) -> None:
    """A problem's line names its severity, what it is about, and its cause, escaped."""
    assert problem_line(problem) == line


def test_messages_keep_their_backslashes() -> None:
    """Text that quotes an escaped value isn't escaped twice, but no control character gets through."""
    assert one_line('"a\\nb" \x1b[31m\n\udcff') == '"a\\nb" \\x1b[31m\\x0a\\xff'
