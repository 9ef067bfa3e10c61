"""Opening a backup: its own folder, its lock, its state.

In: the backup root's path. Out: an open `Backup`; for a dry run, one that leaves no trace.
Guarantees: nothing is made, moved or swept before it is sure that the root is empty or ours; the program's
own folders are 0700 and never links; a dry run works on a copy of the state outside the backup.
Fails with `StateError` (not ours, or no valid state), `LockedError`, `BackupSideError`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.layout import OWN_FOLDER
from pipeline.model.errors import BackupSideError, StateError
from pipeline.store import calls, extended, lock
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.reading import connect_reader
from pipeline.store.schema import bring_up_to_date, with_schema
from pipeline.store.seal import OPENING, set_seal
from pipeline.store.staging_file import unshare
from pipeline.store.state import (
    REBUILD_ADVICE,
    State,
    connect_writer,
    translated_errors,
)
from pipeline.store.system import backup_side_errors, sync_names
from pipeline.store.trust import (
    STATE_FILES,
    STATE_NAME,
    check_for_reading,
    check_for_writing,
    look_at_seal,
    refuse_links,
)

_OWN_FOLDERS = (b"staging", b"quarantine")


class Backup(NamedTuple):
    """An open backup. Handles are None in a dry run, where nothing may be written.

    root: the resolved path, None where there is no backup yet. state_path: the database that others may read.
    """

    root: Path | None
    state: State
    state_path: Path
    root_handle: int | None = None
    staging_handle: int | None = None
    quarantine_handle: int | None = None


@contextmanager
def open_backup(root: Path, now_ns: int) -> Iterator[Backup]:
    """For a run that writes. Holds the lock until the end."""
    with ExitStack() as cleanup, translated_errors():
        with backup_side_errors():
            backup = _open_for_writing(cleanup, root, now_ns)
        yield backup


def _open_for_writing(cleanup: ExitStack, root: Path, now_ns: int) -> Backup:
    _refuse_foreign(root)
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_names(made)
    root = root.resolve()
    root_handle = _open(cleanup, os.fsencode(root), None)
    own = _own_folder(cleanup, OWN_FOLDER, root_handle)
    cleanup.callback(os.close, lock.acquire(own, now_ns))
    staging, quarantine = (_own_folder(cleanup, name, own) for name in _OWN_FOLDERS)
    path = root / os.fsdecode(OWN_FOLDER) / STATE_NAME
    state = _open_state(cleanup, path, root, own, now_ns)
    return Backup(root, state, path, root_handle, staging, quarantine)


class Tree(NamedTuple):
    """A backup whose state is not to be trusted, under the lock.

    own: its `.pipeline`. new_state_in: the folder for a new state. Handles are None in a dry run.
    """

    root: Path
    own: Path
    new_state_in: Path
    staging_handle: int | None = None
    quarantine_handle: int | None = None


@contextmanager
def open_tree(root: Path, now_ns: int, dry_run: bool) -> Iterator[Tree]:
    """For a rebuild: the lock and the folders of the program, and no look at the state."""
    with ExitStack() as cleanup, translated_errors(), backup_side_errors():
        root = root.resolve(strict=True)
        if dry_run:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="backup-dry-run-"))
            yield Tree(root, root / os.fsdecode(OWN_FOLDER), Path(folder))
            return
        own = _own_folder(cleanup, OWN_FOLDER, _open(cleanup, os.fsencode(root), None))
        cleanup.callback(os.close, lock.acquire(own, now_ns))
        staging, quarantine = (_own_folder(cleanup, name, own) for name in _OWN_FOLDERS)
        folder_of_state = root / os.fsdecode(OWN_FOLDER)
        yield Tree(root, folder_of_state, folder_of_state, staging, quarantine)


@contextmanager
def open_scratch(root: Path) -> Iterator[Backup]:
    """For a dry run: a copy of the state in a temporary folder; the backup itself is only read."""
    with ExitStack() as cleanup, translated_errors():
        _refuse_foreign(root)
        folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="backup-dry-run-"))
        path = Path(folder) / STATE_NAME
        stored = root / os.fsdecode(OWN_FOLDER) / STATE_NAME
        if _is_fresh(root):
            state = State(with_schema(connect_writer(path)))
            cleanup.callback(state.close)
            yield Backup(root.resolve() if root.exists() else None, state, path)
            return
        own = _open(cleanup, OWN_FOLDER, _open(cleanup, os.fsencode(root), None))
        held = lock.acquire_for_reading(own)
        if held is not None:
            cleanup.callback(os.close, held)
        looked = look_at_seal(stored)
        source = connect_reader(stored)
        cleanup.callback(source.close)
        check_for_reading(source, looked)
        connection = sqlite3.connect(path)
        source.backup(connection)
        connection.close()
        connection = connect_writer(path)
        bring_up_to_date(connection, (OPENING, 0))
        state = State(connection)
        cleanup.callback(state.close)
        yield Backup(root.resolve(), state, path)


def refuse_missing(root: Path) -> None:
    """For what needs a backup that is there: opening one for writing would begin it."""
    if not (root / os.fsdecode(OWN_FOLDER) / STATE_NAME).is_file():
        raise StateError(f"there is no state in {root}", REBUILD_ADVICE)


def _open(cleanup: ExitStack, name: bytes, parent: int | None) -> int:
    handle = calls.open(name, FOLDER_FLAGS, dir_fd=parent)
    cleanup.callback(calls.close, handle)
    return handle


def _own_folder(cleanup: ExitStack, name: bytes, parent: int) -> int:
    """A folder of the program's own, made where it is missing."""
    try:
        calls.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(calls.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise BackupSideError(
                f"{os.fsdecode(name)} in the backup is not a folder", "Move it away, then run again."
            ) from None
    handle = _open(cleanup, name, parent)
    extended.give(handle, 0o700, (), replaces=True)  # nor an access list, which what is made in it would get
    return handle


def _is_fresh(root: Path) -> bool:
    """Whether no run has stored anything yet: no root, an empty one, or a first run that was cut at once.

    A staging that isn't empty belongs to a state that was there and is lost.
    """
    if not root.exists():
        return True
    own = root / os.fsdecode(OWN_FOLDER)
    state = own / STATE_NAME
    if state.exists() and not _is_without_schema(state):
        return False
    if any(
        entry.name != os.fsdecode(OWN_FOLDER) and not _is_of_file_system(entry) for entry in root.iterdir()
    ):
        return False
    staging = own / "staging"
    return not staging.exists() or not any(staging.iterdir())


def _is_of_file_system(entry: Path) -> bool:
    """What mkfs has put at the top of a disk of its own, with nothing in it."""
    return entry.name == "lost+found" and entry.is_dir() and not any(entry.iterdir())


def _is_without_schema(state: Path) -> bool:
    """A database that was never given its tables: they come in one transaction."""
    if state.stat().st_size == 0:
        wal = state.with_name(state.name + "-wal")
        return not wal.exists() or wal.stat().st_size == 0
    connection = connect_reader(state)
    try:
        return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def _refuse_foreign(root: Path) -> None:
    """A root that isn't empty needs a valid state; without one, nothing in it is touched."""
    if root.exists() and not root.is_dir():
        raise BackupSideError(f"backup_root {root} is not a folder", "Choose another backup_root.")
    refuse_links(root / os.fsdecode(OWN_FOLDER))
    state = root / os.fsdecode(OWN_FOLDER) / STATE_NAME
    if not _is_fresh(root) and not state.is_file():
        raise StateError(
            f"backup_root {root} is not empty and has no .pipeline/state.db",
            f"Nothing was touched. {REBUILD_ADVICE} A folder that is no backup can't be used as backup_root.",
        )


def _open_state(cleanup: ExitStack, path: Path, root: Path, own: int, now_ns: int) -> State:
    """Looked at first: a writer would write into an empty file."""
    fresh = _is_fresh(root)
    if not fresh:
        looked = look_at_seal(path, whole=True)
        reader = connect_reader(path)
        try:
            check_for_writing(reader, looked)
        finally:
            reader.close()
    _unshare_state(own)
    connection = connect_writer(path)
    os.chmod(path, 0o600)
    if fresh:
        with_schema(connection)
    else:
        bring_up_to_date(connection, (OPENING, now_ns))
    state = State(connection)
    cleanup.callback(_close_and_seal, state, path)
    state.set_setting(OPENING, now_ns)  # committed with whatever comes first
    return state


def _unshare_state(own: int) -> None:
    """A twin of the backup, made of hard links, keeps its state: SQLite would write into it."""
    for name in map(os.fsencode, STATE_FILES):
        with suppress(FileNotFoundError):
            calls.unlink(b"own-" + name, dir_fd=own)  # of a run that was killed
        with suppress(FileNotFoundError):
            if calls.stat(name, dir_fd=own, follow_symlinks=False).st_nlink > 1:
                unshare(own, name, own, b"own-" + name)


def _close_and_seal(state: State, path: Path) -> None:
    """Where that fails (no space, a disk that is gone, a reader of an older state) there is no seal, and the
    next run looks through all."""
    try:
        with suppress(OSError, sqlite3.Error):
            state.rollback()
            opening = state.setting(OPENING)
            is_whole = state.empty_wal()
            state.close()
            if is_whole and opening is not None:
                set_seal(path, int(opening))
    finally:
        state.close()
