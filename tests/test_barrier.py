"""The barrier where no call syncs a whole file system: what is synced, what may refuse, what may not.

That the journal and the recovery give it the right operations is looked at in `faults/test_one_by_one.py`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Backup
from stores import Store, place

from pipeline.store import barrier as under_test
from pipeline.store import calls, portable, system
from pipeline.store.backup import open_backup
from pipeline.store.barrier import Barrier
from pipeline.store.operation import Identity, MakePrivate, Mark
from pipeline.store.state import connect_writer

OWN = ["", ".pipeline", ".pipeline/quarantine", ".pipeline/staging"]
NOTHING = Identity(1, 0, b"", None)


class Syncs:
    """Stands for `os.fsync`, and refuses where it is told to. seen: what was synced, by backup path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: dict[str, int] = {}
        self.seen: list[str] = []

    def __call__(self, handle: int) -> None:
        place = os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), self.root).removeprefix(".")
        place = place if not place.startswith("pipeline") else f".{place}"
        if place in self.refused:
            raise OSError(self.refused[place], os.strerror(self.refused[place]))
        self.seen.append(place)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "backup")
    yield store
    store.close()


@pytest.fixture
def syncs(store: Store, monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """No call for a whole file system, and these for files."""
    syncs = Syncs(store.root)
    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(calls, "fsync", syncs)
    monkeypatch.setattr(system, "_syncfs", None)
    return syncs


@pytest.fixture
def barrier(store: Store) -> Barrier:
    return Barrier(store.handles[0], store.files.folders)


def answering(code: int) -> Callable[[int], int]:
    """A `syncfs` that fails."""

    def syncfs(handle: int) -> int:
        ctypes.set_errno(code)
        return -1

    return syncfs


def test_what_is_synced(store: Store, barrier: Barrier, syncs: Syncs) -> None:
    """Staged files, the folders on the way to each name, what was described; each once, the drive last. What
    is gone by now, or is a link, is no error."""
    staged = store.stage("s")
    store.put_link(".pipeline/staging/l", "target")
    link = Identity(1, 6, None, b"target")
    store.put("a/b/c")
    store.put("a/d")
    barrier(
        coming=[place("x", staged), place("y", link, "l"), place("z", NOTHING, "gone")],
        done=[place("a/b/c", NOTHING), Mark(b"a/d"), MakePrivate(b"a/b"), MakePrivate(b"gone/inside")],
    )
    assert sorted(syncs.seen) == sorted([*OWN, "a", "a/b", "a/d", ".pipeline/staging/s"])
    assert syncs.seen[-1] == ".pipeline/staging"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_that_refuses(
    store: Store, barrier: Barrier, syncs: Syncs, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It is asked once. From then on each barrier is told what was done, and goes by that."""
    monkeypatch.setattr(system, "_syncfs", answering(code))
    assert system.syncs_at_once()
    barrier(coming=[place("x", store.stage("s"))])
    assert sorted(syncs.seen) == sorted([*OWN, ".pipeline/staging/s"])
    assert not system.syncs_at_once()


def test_the_only_sync_of_a_fast_run_is_of_everything(
    barrier: Barrier, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is refused at the end of a run, nobody has kept a list."""
    all_synced = []
    monkeypatch.setattr(system, "_syncfs", answering(errno.ENOTSUP))
    monkeypatch.setattr(os, "sync", lambda: all_synced.append(True))
    barrier.for_all()
    assert all_synced and not syncs.seen


def test_a_lost_write_is_told(
    store: Store, barrier: Barrier, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either way, and nothing is tried in its place; only folders may refuse to be synced."""
    syncs.refused = {"": errno.EINVAL, ".pipeline/quarantine": errno.ENOTSUP}
    barrier()
    assert syncs.seen == [".pipeline", ".pipeline/staging"]
    for refused in ({".pipeline": errno.EIO}, {".pipeline/staging/s": errno.EINVAL}):
        syncs.refused = refused
        with pytest.raises(OSError):
            barrier(coming=[place("x", store.stage("s"))])
    syncs.seen.clear()
    monkeypatch.setattr(system, "_syncfs", answering(errno.EIO))
    with pytest.raises(OSError):
        barrier()
    assert not syncs.seen


def test_what_is_closed_to_us(
    store: Store, barrier: Barrier, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that its own owner may not read was written by us all the same: then everything is synced."""
    closed, all_synced, real = b"closed", [], calls.open

    def refusing(name: bytes, flags: int, *, dir_fd: int) -> int:
        if name == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return real(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(under_test.calls, "open", refusing)
    monkeypatch.setattr(os, "sync", lambda: all_synced.append(True))
    barrier(coming=[place("x", store.stage("closed"), "closed"), place("y", store.stage("s"))])
    assert all_synced
    assert ".pipeline/staging/s" in syncs.seen
    all_synced.clear()
    barrier(coming=[place("y", store.stage("s"))])
    assert not all_synced


@pytest.mark.parametrize("refusing", [None, "new"])
def test_the_way_to_a_new_backup(tmp_path: Path, syncs: Syncs, refusing: str | None) -> None:
    """Whatever has to be made for the backup root has its name on the disk before anything counts; a folder
    may refuse, as at every barrier."""
    syncs.root = tmp_path
    syncs.refused = {refusing: errno.EINVAL} if refusing is not None else {}
    with open_backup(tmp_path / "new/newer/backup", 0):
        assert syncs.seen == [folder for folder in ("new/newer", "new", "") if folder != refusing]


def test_one_that_others_may_not_look_into(
    tmp_path: Path, user_backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in which names may be made, and not read, takes a backup as it does with `syncfs`."""
    monkeypatch.setenv("PIPELINE_PORTABLE", "1")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o300)
    user_backup.configure(backup_root=str(closed / "backup"))
    user_backup.write({"a": "a\n"})
    user_backup.run()
    assert (closed / "backup/a").read_text() == "a\n"


def test_the_state_is_not_left_in_the_drive(tmp_path: Path) -> None:
    """SQLite asks for `F_FULLFSYNC`, where there is one, at each commit and checkpoint."""
    connection = connect_writer(tmp_path / "state.db")
    assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(("answer", "goes_on"), [(0, False), (errno.ENOTSUP, True), (errno.EIO, None)])
def test_the_cache_of_the_drive(monkeypatch: pytest.MonkeyPatch, answer: int, goes_on: bool | None) -> None:
    """`F_FULLFSYNC`, where there is one, in the place of fsync; which does it where a file system doesn't
    know the call, and not after a failure."""
    asked, synced = [], []

    def fcntl(handle: int, command: int) -> None:
        asked.append((handle, command))
        if answer:
            raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(portable.fcntl, "fcntl", fcntl)
    monkeypatch.setattr(portable, "_FLUSH_DRIVE", 51)
    monkeypatch.setattr(os, "fsync", synced.append)
    if goes_on is None:
        with pytest.raises(OSError):
            portable.fsync(7)
    else:
        portable.fsync(7)
    assert asked == [(7, 51)]
    assert synced == ([7] if goes_on else [])
