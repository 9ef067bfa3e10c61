"""The hash functions, loaded when they are first used."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from pipeline.model.errors import StationError
from pipeline.stages import digest


class Missing:
    """A finder that finds nothing, for want of handles or of the module."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def find_spec(self, *names: object) -> None:
        raise self._error


@pytest.mark.parametrize("algorithm", ["blake3", "xxh3_128", "sha256"])
@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ImportError("Too many open files")]
)
def test_one_that_can_not_be_loaded(
    monkeypatch: pytest.MonkeyPatch, algorithm: str, error: Exception
) -> None:
    """It may be loaded late, when few handles are left: words, no traceback."""
    for module in ("blake3", "xxhash", "hashlib"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(error)])
    with pytest.raises(StationError) as met:
        digest.hasher(algorithm)
    assert met.value.cause == f"can't load {algorithm}: Too many open files"
    assert "ulimit -n" in met.value.advice
