"""`verify --repair`: rotten and missing files are stored again from their sources, as a run does it.

In: a configuration, paths, a monitor. Out: figures; each repair is told. Guarantees: those of `stages.repair`
and the journal. Fails with LockedError, BackupSideError, StateError.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from pipeline import sources
from pipeline.config import Config
from pipeline.model.errors import PipelineError, Problem, Severity
from pipeline.model.plan import Plan
from pipeline.model.report import Deed, ReadMonitor
from pipeline.stages import digest
from pipeline.stages.recovery import recover
from pipeline.stages.repair import Repair
from pipeline.stages.setup import SourceRoot
from pipeline.store.backup import Backup, open_backup
from pipeline.store.barrier import Barrier
from pipeline.store.files import StoredFiles
from pipeline.store.journal import Event, Journal
from pipeline.store.staging import Staging
from pipeline.store.system import boot_id


def mend(config: Config, paths: Iterable[bytes], monitor: ReadMonitor, figures: Counter[str]) -> None:
    """First recovery, then each rotten or missing file. figures: counts what is repaired and told."""

    def tell(event: Event) -> None:
        if isinstance(event, Problem):
            figures["warnings" if event.severity is Severity.WARNING else "errors"] += 1
            monitor.problem(event)
        elif isinstance(event, Plan):
            figures["repaired"] += 1
            monitor.did(Deed("REPAIR", event.path, "stored again from the source", event.stored_at))

    with open_backup(config.backup_root, time.time_ns()) as backup, ExitStack() as cleanup:
        journal, files, problems = _journal(backup, config, tell, cleanup)
        for problem in problems:
            tell(problem)
        found, why_not = _sources(config, backup)
        repair = Repair(
            backup.state, journal, files, _handle(backup.staging_handle), found, why_not,
            str(backup.state.setting("hash_algorithm")),
        )  # fmt: skip
        for path in paths:
            cause = repair.repair(path)
            if cause is not None:
                tell(Problem(Severity.ERROR, path, f"can't be repaired: {cause}"))
        journal.close_group()
        journal.settle()
        backup.state.commit()


def _journal(
    backup: Backup, config: Config, tell: Callable[[Event], None], cleanup: ExitStack
) -> tuple[Journal, StoredFiles, list[Problem]]:
    """A journal on a recovered backup, and what the recovery had to say."""
    algorithm = str(backup.state.setting("hash_algorithm"))
    root, staging_handle = _handle(backup.root_handle), _handle(backup.staging_handle)
    hash_file = partial(digest.of_file, new_hasher=digest.hasher(algorithm))
    files = StoredFiles(root, staging_handle, _handle(backup.quarantine_handle), hash_file)
    cleanup.callback(files.close)
    staging, barrier = Staging(staging_handle, files.folders), Barrier(root, files.folders)
    problems = recover(backup.state, files, staging, barrier, boot_id())
    last = backup.state.last_run()
    run = last[0] if last is not None else 0
    return Journal(backup.state, staging, files, barrier, run, tell, False, False), files, problems


def _handle(handle: int | None) -> int:
    assert handle is not None, "a backup that is open for writing has its handles"
    return handle


def _sources(config: Config, backup: Backup) -> tuple[dict[bytes, SourceRoot], dict[bytes, str]]:
    """The configured sources that this backup knows, and why some of them can't be read now."""
    places, found, why_not = backup.state.places(), {}, {}
    for source in config.sources:
        try:
            resolved = sources.resolve_one(source)
        except PipelineError as error:
            why_not[os.fsencode(source.name)] = error.cause
            continue
        if resolved.name in places:
            found[resolved.name] = SourceRoot(places[resolved.name], resolved.path, resolved.identity)
    return found, why_not
