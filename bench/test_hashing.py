"""Hashing throughput of one worker, through the worker's own code: `pytest bench -n 0 --benchmark-only`.

Each case reads a tree of one file size with nothing known about it, so every byte is read and hashed, and
nothing is staged. Throughput is size divided by the time that pytest-benchmark prints (`extra_info` has it).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.layout import SourcePlace
from pipeline.model import message
from pipeline.stages.hasher import Hasher
from pipeline.stages.setup import HashSetup, SourceRoot

TOTAL_BYTES = 32 << 20


@pytest.mark.parametrize("algorithm", ["blake3", "sha256", "xxh3_128"])
@pytest.mark.parametrize("size_bytes", [1 << 10, 1 << 16, 1 << 20, 1 << 25])
def test_hashing(benchmark: Any, tmp_path: Path, algorithm: str, size_bytes: int) -> None:
    """How fast one worker takes files of one size."""
    count = TOTAL_BYTES // size_bytes
    for number in range(count):
        (tmp_path / f"{number:06d}").write_bytes(os.urandom(size_bytes))
    found = tmp_path.stat()
    identity = found.st_dev, found.st_ino
    source = SourceRoot(SourcePlace(b"data", at_root=True), os.fsencode(tmp_path), identity)
    setup = HashSetup((source,), algorithm, "content", None, 1, False, False, False)
    hasher = Hasher(setup, 1, lambda size: None)
    items = [(message.INSIDE, b"data"), *((message.FILE, b"%06d" % n, None) for n in range(count))]
    payload = message.encode(items)
    _, files, read_bytes = benchmark(hasher.process, payload)
    assert (files, read_bytes) == (count, TOTAL_BYTES)
    benchmark.extra_info["megabytes_per_s"] = TOTAL_BYTES / benchmark.stats["median"] / 1e6
