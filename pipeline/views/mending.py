"""`verify --repair`: rotten and missing files are stored again from their sources, as a run does it.

In: a configuration, paths, a monitor. Out: figures; each repair is told. Guarantees: those of `stages.repair`
and the journal. Fails with LockedError, BackupSideError, StateError.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from pipeline import sources
from pipeline.config import Config
from pipeline.model.errors import PipelineError, Problem, Severity
from pipeline.model.report import Deed, ReadMonitor
from pipeline.stages import digest
from pipeline.stages.recovery import recover
from pipeline.stages.repair import Repair
from pipeline.stages.setup import SourceRoot
from pipeline.store.backup import Backup, open_backup
from pipeline.store.files import StoredFiles
from pipeline.store.journal import Barrier, Event, Journal
from pipeline.store.staging import Staging
from pipeline.store.system import boot_id


def mend(config: Config, paths: list[bytes], monitor: ReadMonitor) -> Counter[str]:
    """First recovery, then each rotten or missing file. Returns how many `repaired`, `warnings`, `errors`."""
    figures: Counter[str] = Counter()

    def tell(event: Event) -> None:
        if isinstance(event, Problem):
            figures["warnings" if event.severity is Severity.WARNING else "errors"] += 1
            monitor.problem(event)

    if not paths:
        return figures
    with open_backup(config.backup_root, time.time_ns()) as backup, ExitStack() as cleanup:
        journal, problems = _journal(backup, config, tell, cleanup)
        for problem in problems:
            tell(problem)
        repair = Repair(
            backup.state, journal, _handle(backup.staging_handle), _sources(config, backup),
            str(backup.state.setting("hash_algorithm")),
        )  # fmt: skip
        repaired: list[Deed] = []
        for path in paths:
            at, why_not = repair.repair(path)
            if at is None:
                tell(Problem(Severity.ERROR, path, f"can't be repaired: {why_not}"))
            else:
                repaired.append(Deed("REPAIR", path, "stored again from the source", at))
        journal.close_group()
        journal.settle()
        backup.state.commit()
        for deed in repaired:
            figures["repaired"] += 1
            monitor.did(deed)
    return figures


def _journal(
    backup: Backup, config: Config, tell: Callable[[Event], None], cleanup: ExitStack
) -> tuple[Journal, list[Problem]]:
    """A journal on a recovered backup, and what the recovery had to say."""
    algorithm = str(backup.state.setting("hash_algorithm"))
    root, staging_handle = _handle(backup.root_handle), _handle(backup.staging_handle)
    hash_file = partial(digest.of_file, new_hasher=digest.hasher(algorithm))
    files = StoredFiles(root, staging_handle, _handle(backup.quarantine_handle), hash_file)
    cleanup.callback(files.close)
    staging, barrier = Staging(staging_handle, files.folders), Barrier(root)
    problems = recover(backup.state, files, staging, barrier, boot_id())
    last = backup.state.last_run()
    return Journal(
        backup.state, staging, files, barrier, last[0] if last else 0, tell, False, False
    ), problems


def _handle(handle: int | None) -> int:
    assert handle is not None, "a backup that is open for writing has its handles"
    return handle


def _sources(config: Config, backup: Backup) -> dict[bytes, SourceRoot]:
    """The configured sources that can be read now and that this backup knows."""
    places = backup.state.places()
    found = {}
    for source in config.sources:
        try:
            resolved = sources.resolve_one(source)
        except PipelineError:
            continue  # each of its files is told as one that can't be repaired
        if resolved.name in places:
            found[resolved.name] = SourceRoot(places[resolved.name], resolved.path)
    return found
