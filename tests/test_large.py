"""Large files are hashed while they are read and written, by a helper thread where a processor is idle: the
bytes, their order and their digest are the same whoever hashes (promise 3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stages import digest, large
from pipeline.stages.large import LargeFiles, idle_processors

SIZE_BYTES = (33 << 20) + 12_345


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("large") / "file"
    with place.open("wb") as file:
        for number in range(SIZE_BYTES >> 20):
            file.write(os.urandom(1 << 16) * 15 + number.to_bytes(2, "big") * (1 << 15))
        file.write(b"x" * (SIZE_BYTES & 0xFFFFF))
        file.truncate(SIZE_BYTES)
    yield place
    place.unlink()


@pytest.mark.parametrize(
    ("algorithm", "idle"), [("blake3", 0), ("blake3", 1), ("blake3", 3), ("sha256", 1), ("xxh3_128", 1)]
)
def test_whoever_hashes_it_is_the_same(
    place: Path, algorithm: str, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digest, bytes handed on and their order; every byte is told as a sign of life but for the last few."""
    monkeypatch.setattr(large, "idle_processors", lambda: idle)
    monkeypatch.setattr(large, "_HUGE_BYTES", 1 << 20)
    told: list[int] = []
    taken = bytearray()
    with place.open("rb") as file:
        reader = LargeFiles(algorithm, told.append)
        found = reader.read(file.fileno(), 1 << 40, lambda piece, is_hole: taken.extend(piece))
    content = place.read_bytes()
    assert found == (digest.hasher(algorithm)(content).digest(), SIZE_BYTES)
    assert bytes(taken) == content
    assert SIZE_BYTES - (18 << 20) <= sum(told) <= SIZE_BYTES


def test_a_piece_that_cannot_be_written_ends_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches the caller, and what comes next is hashed right: nobody is at the buffer any more."""
    monkeypatch.setattr(large, "idle_processors", lambda: 1)
    reader, pieces = LargeFiles("sha256", lambda size_bytes: None), 0

    def fail(piece: memoryview, is_hole: bool) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 14:
            raise OSError(28, "No space left on device")

    with place.open("rb") as file:
        with pytest.raises(OSError, match="No space"):
            reader.read(file.fileno(), SIZE_BYTES, fail)
        found, _ = reader.read(file.fileno(), SIZE_BYTES, None)
    assert found == digest.hasher("sha256")(place.read_bytes()).digest()


def test_idle_processors_are_counted() -> None:
    """This process is running, so that not all of them can be idle."""
    assert 0 <= idle_processors() < len(os.sched_getaffinity(0))
