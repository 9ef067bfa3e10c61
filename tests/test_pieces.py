"""Sparse files: what is read of them, and that their holes stay holes, in the backup and restored."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from harness import Backup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.store.pieces import pieces

LAYOUTS = st.lists(st.tuples(st.booleans(), st.integers(1, 20_000)), max_size=8)


def write_sparse(place: Path, layout: list[tuple[bool, int]]) -> None:
    """Holes (true) and data, one after the other."""
    with place.open("wb") as file:
        for number, (is_hole, size_bytes) in enumerate(layout):
            if is_hole:
                file.seek(size_bytes, os.SEEK_CUR)
            else:
                file.write(bytes([number + 1]) * size_bytes)
        file.truncate(file.tell())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUTS, limit=st.integers(0, 200_000), buffer_bytes=st.sampled_from([1000, 4096, 100_000]))
def test_pieces_are_what_reading_gives(
    tmp_path: Path, layout: list[tuple[bool, int]], limit: int, buffer_bytes: int
) -> None:
    """The pieces of a file, holes included, are its bytes up to the limit; a piece called a hole is zero."""
    place = tmp_path / "file"
    write_sparse(place, layout)
    with place.open("rb") as file:
        found = [
            (bytes(piece), hole) for piece, hole in pieces(file.fileno(), bytearray(buffer_bytes), limit)
        ]
    assert b"".join(piece for piece, _ in found) == place.read_bytes()[:limit]
    assert not any(piece.strip(b"\0") for piece, is_hole in found if is_hole)


def test_a_file_system_that_cannot_tell_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lseek knows nothing of holes, all is data, and the read ends. Guard: `_tells_holes`."""
    place = tmp_path / "file"
    write_sparse(place, [(True, 300_000), (False, 10), (True, 300_000)])

    def lseek(_handle: int, _offset: int, _what: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    with place.open("rb") as file:
        monkeypatch.setattr(os, "lseek", lseek)
        found = [(bytes(piece), hole) for piece, hole in pieces(file.fileno(), bytearray(4096), 1 << 62)]
    assert b"".join(piece for piece, _ in found) == place.read_bytes()
    assert not any(is_hole for _, is_hole in found)


@pytest.mark.slow
def test_holes_stay_holes(backup: Backup) -> None:
    """A sparse file takes the space of its data, in the backup, as an older version, and where it is
    restored; its bytes are the same. Guard: `pieces`, and `StagingFile.write` that skips a hole."""
    layout = [(True, 40 << 20), (False, 3 << 20), (True, 60 << 20), (False, 5), (True, 1 << 20)]
    place = backup.source / "sparse"
    write_sparse(place, layout)
    content = place.read_bytes()
    backup.run()
    with place.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    backup.run()
    target = backup.base / "there"
    backup.call("restore", "--to", str(target), "--at", "1", "--quiet")
    assert (target / "sparse").read_bytes() == backup.read("versions/sparse/v1.bak") == content
    assert backup.read("sparse") == place.read_bytes()
    for stored in (backup.root / "sparse", backup.root / "versions/sparse/v1.bak", target / "sparse"):
        found = stored.stat()
        assert found.st_size == len(content) and found.st_blocks * 512 < 4 << 20
    backup.assert_all_well()
