"""`status`: how a backup is doing.

In: an opened backup. Out: one `Status`. Guarantees: takes no lock and writes nothing; what looks like an
unfinished run while another one begins or ends is looked at again before it is reported. Fails with SQLite's
errors, which `open_for_reading` translates.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipeline.store.lock import Holder
from pipeline.store.past import runs
from pipeline.store.totals import Totals, has_intents, totals
from pipeline.views.opening import Opened
from pipeline.views.runs import Run, list_runs, lock_holder


class Status(NamedTuple):
    """last_run, last_completed_run: None where there is none. holder: who holds the lock, if anybody does.

    is_recovery_due: a run was cut, and the next one begins by finishing what that had begun.
    """

    root: Path
    algorithm: str
    last_run: Run | None
    last_completed_run: Run | None
    totals: Totals
    holder: Holder | None
    is_recovery_due: bool


def status(opened: Opened) -> Status:
    """The state of the backup as a whole."""
    counted = totals(opened.state)
    is_due = _is_recovery_due(opened)
    known = list_runs(opened)
    complete = [run for run in known if run.status in ("ok", "warnings")]
    return Status(
        root=opened.root,
        algorithm=opened.algorithm,
        last_run=known[-1] if known else None,
        last_completed_run=complete[-1] if complete else None,
        totals=counted,
        holder=lock_holder(opened),
        is_recovery_due=is_due,
    )


def _is_recovery_due(opened: Opened) -> bool:
    """A run that is at work looks as if it had been cut; one that began or ended between two looks, too."""
    return all(lock_holder(opened) is None and _is_unfinished(opened) for _look in range(2))


def _is_unfinished(opened: Opened) -> bool:
    known = runs(opened.state)
    return has_intents(opened.state) or bool(known and not known[-1].is_complete)
