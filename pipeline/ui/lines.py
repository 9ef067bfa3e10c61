"""The words of a run: plans, unchanged paths and problems as lines of text.

In: plans and problems as the core hands them out. Out: the lines of the run log, which `--verbose` and
`--dry-run` print too; both together, also what is left out. Pure. Guarantees: whatever a name holds, a line
is one line without control characters.
"""

from __future__ import annotations

from pipeline.model import treepath
from pipeline.model.errors import Problem
from pipeline.model.plan import Action, Archive, DeleteVersion, Move, Plan, SetMetadata, Step, Store
from pipeline.model.report import Excluded

_NEW = Action.BACKUP
_STORED_AS = {
    Action.BACKUP: "BACKUP",
    Action.DUPLICATE: "DUPLICATE",
    Action.MODIFIED: "UPDATED",
    Action.SUSPECT: "SUSPECT",
}


def plan_lines(plan: Plan) -> list[str]:
    """What was decided and why, then one line for each step that people care about."""
    path = treepath.shown(plan.path)
    if plan.action is None:
        # Recorded silently; but a stored file that moves is always said.
        return [_archive_line(step) for step in plan.steps if isinstance(step, Archive | Move)]
    if plan.action is _NEW and plan.before is None and plan.stored_at is not None:  # most of a first run
        at = treepath.escaped(plan.stored_at)
        return [f"PLANNER → BACKUP: {path} ({_text(plan.reason)})", f"BACKUP: {path} → {at}"]
    lines = [f"PLANNER → {plan.action}: {path} ({_text(plan.reason)})"]
    for step in plan.steps:
        line = _step_line(plan, plan.action, path, step)
        if line is not None:
            lines.append(line)
    if plan.action is Action.DELETE:
        lines.append(f"STATE REMOVE: {path}")
    return lines


def _step_line(plan: Plan, action: Action, path: str, step: Step) -> str | None:
    if isinstance(step, Store):
        return f"{_STORED_AS.get(action, action)}: {path} → {treepath.escaped(step.to)}"
    match step:
        case Archive():
            return _archive_line(step)
        case Move() if plan.archived is not None:
            return _archive_line(step)
        case Move(at=at, to=to):
            return _move_line(action, path, treepath.escaped(at), treepath.escaped(to))
        case SetMetadata(at=at) if action is Action.METADATA:
            return f"METADATA: {path} → {treepath.escaped(at)}"
        case DeleteVersion(at=at):
            return f"RETENTION delete: {treepath.escaped(at)}"
    return None


def _archive_line(step: Archive | Move) -> str:
    """A stored file that becomes a version."""
    return f"ARCHIVE: {treepath.escaped(step.at)} → {treepath.escaped(step.to)}"


def _move_line(action: Action, path: str, at: str, to: str) -> str:
    if action is Action.DELETE:
        return f"ARCHIVE DELETE: {at} → {to}"
    return f"{action}: {path} → {to}"


def skip_line(path: bytes) -> str:
    return f"SKIP: {treepath.shown(path)}"


def excluded_line(entry: Excluded) -> str:
    """An entry that is left out; a folder has a slash behind it."""
    return f"EXCLUDED: {treepath.shown(entry.path)}{'/' * entry.is_folder} ({one_line(entry.why)})"


def problem_line(problem: Problem) -> str:
    """A problem names its path, else what it is about in the backup, else only its cause."""
    severity, cause = problem.severity.name, _text(problem.cause)
    if problem.path is not None:
        return f"{severity}: {treepath.shown(problem.path)} ({cause})"
    if problem.at is not None:
        return f"{severity}: {treepath.escaped(problem.at)} ({cause})"
    return f"{severity}: {cause}"


def _text(text: str) -> str:
    """Reasons and causes quote names as the file system gave them."""
    if treepath.is_plain(text):
        return text
    return treepath.escaped(text.encode("utf-8", "surrogateescape"))


def one_line(text: str) -> str:
    """A message for people on one printable line. Its backslashes stay: they are escapes already."""
    return "\\".join(map(_text, text.split("\\")))
