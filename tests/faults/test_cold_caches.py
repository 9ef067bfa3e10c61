"""Cold caches: what waits is asked for ahead, the results are the same, and what was read once is given back.

A file system in an image is cold after it was mounted anew; nothing else of the machine is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import Disk, need

from pipeline.layout import SourcePlace
from pipeline.stages import ahead
from pipeline.stages.hasher import Hasher
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import HashSetup, ScanSetup, SourceRoot
from pipeline.store.schema import with_schema
from pipeline.store.state import connect_writer

FOLDERS, FILES = 30, 40
LARGE_BYTES = 12 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Small files in many folders, a large file, and a link to a folder; mounted, and cold."""
    need("mkfs.ext4", "mount")
    disk = Disk(tmp_path / "image", tmp_path / "disk", "ext4")
    disk.make(128)
    disk.mount()
    try:
        for folder in range(FOLDERS):
            inner = disk.mount_point / f"folder{folder:02d}"
            inner.mkdir()
            for file in range(FILES):
                (inner / f"file{file}").write_bytes(os.urandom(5_000))
        (disk.mount_point / "large").write_bytes(os.urandom(LARGE_BYTES))
        (disk.mount_point / "link").symlink_to(tmp_path)
        make_cold(disk)
        yield disk
    finally:
        close_all_below(disk.mount_point)
        disk.unmount()


def close_all_below(folder: Path) -> None:
    """What the stations have open, which end with their processes elsewhere."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if entry.readlink().is_relative_to(folder):
                os.close(int(entry.name))


def make_cold(disk: Disk) -> None:
    disk.unmount()
    disk.mount()


class Stations:
    """A scanner and a worker in this process, and what the kernel was advised to read."""

    def __init__(self, tree: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if not state.exists():
            with_schema(connect_writer(state)).close()
        found = tree.stat()
        identity = found.st_dev, found.st_ino
        self.source = SourceRoot(SourcePlace(b"disk", at_root=True), os.fsencode(tree), identity)
        self.state = state
        self.asked = 0
        monkeypatch.setattr(ahead, "ask_ahead", self._ask)

    def _ask(self, handle: int, offset: int, size_bytes: int) -> None:
        self.asked += 1
        os.posix_fadvise(handle, offset, size_bytes, os.POSIX_FADV_WILLNEED)

    def batches(self) -> list[bytes]:
        sent: list[bytes] = []
        setup = ScanSetup((self.source,), frozenset(), (), os.fspath(self.state))
        scanner = Scanner(setup, lambda payload, files, size_bytes: sent.append(payload))
        scanner.walk()
        scanner.close()
        return sent

    def answers(self, batches: list[bytes]) -> list[bytes]:
        setup = HashSetup((self.source,), "blake3", "content", None, 1, False, False, False)
        hasher = Hasher(setup, 1, lambda size_bytes: None)
        return [hasher.process(batch)[0] for batch in batches]


def test_cold_or_warm_is_the_same(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches and the same answers. Cold, files are asked for ahead; warm, none is.

    Guard: `ReadAhead` and `FoldersAhead` only advise."""
    stations = Stations(disk.mount_point, tmp_path / "state.db", monkeypatch)
    batches = stations.batches()
    answers = stations.answers(batches)
    asked_cold, stations.asked = stations.asked, 0
    assert len(batches) > 4
    assert stations.batches() == batches
    assert stations.answers(batches) == answers
    assert asked_cold > FILES
    assert stations.asked < asked_cold / 2


@pytest.mark.parametrize("was_cached", [False, True])
def test_a_large_file_is_given_back_unless_it_was_cached(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_cached: bool
) -> None:
    """A backup doesn't push out of memory what others work with. Guard: `let_go` in `Hasher._open_file`."""
    stations = Stations(disk.mount_point, tmp_path / "state.db", monkeypatch)
    batches = stations.batches()
    large = disk.mount_point / "large"
    if was_cached:
        large.read_bytes()
    assert cached_share(large) == was_cached
    stations.answers(batches)
    assert cached_share(large) == was_cached


def cached_share(file: Path) -> float:
    """How much of a file is in the page cache, without touching it (mincore(2))."""
    pages = -(-file.stat().st_size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        first = ctypes.c_char.from_buffer(view)
        length = ctypes.c_size_t(len(view))
        done = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), length, resident)
        del first  # the mapping can't be closed while somebody points at it
    assert done == 0
    return sum(page & 1 for page in resident) / pages
