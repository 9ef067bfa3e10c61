"""The figures of a run in words: progress while it works, the summary after it.

In: `Progress` and `Summary`. Out: short texts for people. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline.model.plan import Action
from pipeline.model.report import Progress, Summary

_ACTION_LABELS = {
    Action.BACKUP: "new",
    Action.DUPLICATE: "duplicates",
    Action.MODIFIED: "modified",
    Action.SUSPECT: "suspect (kept for good)",
    Action.METADATA: "other metadata only",
    Action.DELETE: "deleted",
    Action.PROMOTE: "promoted",
    Action.RETENTION: "old versions dropped",
    Action.SKIP: "unchanged",
}
_RATE_WINDOW_S = 10.0


class Work(NamedTuple):
    """One station's progress. done and total: for a bar, 0 and None where there is nothing to measure by."""

    name: str
    done: int
    total: int | None
    detail: str


class Pace:
    """Bytes a second over the latest seconds, because the overall mean hides what happens now."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def rate(self, progress: Progress) -> float:
        """Bytes a second as of now; 0 where that can't be told yet."""
        self._seen.append((progress.elapsed_s, progress.bytes_done))
        while len(self._seen) > 2 and self._seen[0][0] < progress.elapsed_s - _RATE_WINDOW_S:
            self._seen.popleft()
        then_s, then_bytes = self._seen[0]
        span_s = progress.elapsed_s - then_s
        return (progress.bytes_done - then_bytes) / span_s if span_s > 0 else 0.0


def works(progress: Progress, rate: float) -> tuple[Work, Work, Work]:
    """The three stations of a run. Totals are estimates until the scan has ended, so done may pass them."""
    total = None if progress.bytes_total is None else max(progress.bytes_total, progress.bytes_done)
    files_total = None if progress.files_total is None else max(progress.files_total, progress.files_done)
    of_bytes = "" if total is None else f" of {size_text(total)}"
    hashed = f"{size_text(progress.bytes_done)}{of_bytes}, {size_text(rate)}/s{_left(progress, total, rate)}"
    hashed += _workers_text(progress)
    of_files = "" if files_total is None else f" of {files_total:,}"
    committed = f"{progress.files_done:,}{of_files} files done, {amount(progress.actions, 'action')} so far"
    return (
        Work("Scanning", 0, None, f"{amount(progress.files_found, 'file')} found"),
        Work("Hashing", progress.bytes_done, total, hashed),
        Work("Committing", progress.files_done, files_total, committed),
    )


def progress_line(progress: Progress, rate: float) -> str:
    """All of it on one line, for where no bars can be drawn."""
    details = "; ".join(work.detail for work in works(progress, rate))
    return f"{progress.phase}: {details}; {duration_text(progress.elapsed_s)} so far"


def _workers_text(progress: Progress) -> str:
    """How many there are; where they are several, from the slowest to the fastest."""
    if progress.phase == "waiting":
        return ", waiting for workers"
    if not progress.workers:
        return ""
    rates = sorted(worker.bytes_per_s for worker in progress.workers)
    text = f", {amount(len(rates), 'worker')}"
    if len(rates) < 2 or rates[-1] <= 0:
        return text
    return f"{text} ({size_text(rates[0])}/s to {size_text(rates[-1])}/s)"


def _left(progress: Progress, total: int | None, rate: float) -> str:
    if total is None or rate <= 0 or progress.phase == "finishing":
        return ""
    return f", {duration_text((total - progress.bytes_done) / rate)} left"


def is_idle(summary: Summary) -> bool:
    """Whether the run came to its end and found nothing to do."""
    return summary.counts.actions == 0 and summary.status in ("ok", "warnings")


def headline(summary: Summary) -> str:
    """How the run ended, in one sentence or two."""
    counts = summary.counts
    if is_idle(summary) and summary.only_prunes:
        text = "Nothing has to go."
    elif is_idle(summary):
        # `skip` counts links too, and a file that could not be read is not known to be backed up.
        kept = min(counts.files, counts.by_action[Action.SKIP])
        verb = "is" if kept == 1 else "are"
        text = f"Nothing changed: {amount(kept, 'file')} {verb} backed up already."
    elif summary.dry_run and summary.status in ("ok", "warnings"):
        text = f"This is what a {'prune' if summary.only_prunes else 'run'} would do."
    else:
        text = {
            "ok": f"Run {summary.run} is complete.",
            "warnings": f"Run {summary.run} is complete, with warnings.",
            "interrupted": "Interrupted. What was committed is valid, and the next run goes on from there.",
            "failed": "Failed. What was committed is valid, and the next run goes on from there.",
        }[summary.status]
    return f"Dry run, nothing was written. {text}" if summary.dry_run else text


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Label and figure, without those that are 0."""
    counts = summary.counts
    figures = [
        ("files in the sources", counts.files),
        *((label, counts.by_action[action]) for action, label in _ACTION_LABELS.items()),
        ("special files, recorded only", counts.specials),
        ("vanished meanwhile", counts.vanished),
        ("warnings", counts.warnings),
        ("errors", counts.errors),
    ]
    rows = [(label, f"{figure:,}") for label, figure in figures if figure]
    sizes = (("read", counts.bytes_read), ("stored", counts.bytes_stored))
    rows += [(label, size_text(size)) for label, size in sizes if size]
    return [*rows, ("time", duration_text(summary.seconds))]


def counts_text(counts: Mapping[str, int]) -> str:
    """What a run changed, from the figures that the state keeps of it; without those that are 0."""
    labels = {action.lower(): label for action, label in _ACTION_LABELS.items() if action is not Action.SKIP}
    labels |= {"warnings": "warnings", "errors": "errors"}
    return ", ".join(f"{counts[name]:,} {label}" for name, label in labels.items() if counts.get(name))


def amount(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size: float) -> str:
    """A number of bytes with three figures that count, in powers of 1000."""
    if size < 1000:
        return f"{size:.0f} B"
    units = ["EB", "PB", "TB", "GB", "MB", "kB"]
    size /= 1000
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop()
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {units[-1]}"


def duration_text(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment_text(moment_ns: int) -> str:
    """A moment for people, in local time. What no calendar has is told in seconds since 1970."""
    seconds = moment_ns // 10**9
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def utc_text(moment_ns: int | None) -> str | None:
    """A moment for programs: ISO 8601, UTC."""
    if moment_ns is None:
        return None
    seconds, rest_ns = divmod(moment_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.isoformat(timespec="microseconds")
