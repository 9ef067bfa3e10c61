"""Folders that are read ahead: never more handles than will do, and nothing of it is a folder's problem."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from pipeline.stages import folders_ahead
from pipeline.stages.folders_ahead import FoldersAhead

NAMES = [b"folder%d" % number for number in range(100)]


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every listing seems to have waited for the disk."""
    ticks = count()
    monkeypatch.setattr(folders_ahead, "waits_until_now", lambda: next(ticks))


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("cold")
def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of waiting work holds a handle: with a disk that doesn't answer there are a few, not one for
    each folder that the walk has come to. Guard: the look at `_MOST_WAITING`."""
    answers = threading.Event()

    def read(parent: int, _names: Sequence[bytes]) -> None:
        answers.wait(30)
        os.close(parent)

    monkeypatch.setattr(folders_ahead, "_read", read)
    before, ahead = handles(), FoldersAhead()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(50):
            ahead.before_listing()
            ahead.after_listing(folder, NAMES)
        assert before < handles() <= before + 20
    finally:
        answers.set()
        ahead.close()
        os.close(folder)


@pytest.mark.usefixtures("cold")
def test_too_few_handles_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk goes on by itself where nothing can be read ahead."""

    def refuse(_handle: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(folders_ahead.calls, "dup", refuse)
    ahead, folder = FoldersAhead(), os.open(tmp_path, os.O_RDONLY)
    try:
        ahead.before_listing()
        ahead.after_listing(folder, NAMES)
    finally:
        ahead.close()
        os.close(folder)
