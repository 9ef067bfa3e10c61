"""Folders whose content is left out by what they are, or hold, rather than by their names.

In: an open folder. Out: why its content is left out, if it is. Guarantees: nothing is followed or waited for;
a cache is only one by the signature in its CACHEDIR.TAG (bford.info/cachedir), not by that name alone. Costs
nothing where no such rule is set. Never fails: what can't be read marks nothing.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from pipeline.model import treepath
from pipeline.stages.setup import FolderRules
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS

CACHE_TAG = b"CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


class Closed(NamedTuple):
    """Why the content of a folder is left out. is_meant: somebody has put a mark there, while a disk that is
    mounted says nothing about what had been there."""

    why: str
    is_meant: bool


class Marked:
    """device: of the source."""

    def __init__(self, rules: FolderRules, device: int) -> None:
        self._rules = rules
        self._device = device if rules.one_file_system else None
        self._is_off = not (rules.caches or rules.if_present or rules.one_file_system)

    def closed_by(self, handle: int) -> Closed | None:
        """Why what lies in a folder is left out; None where it isn't."""
        if self._is_off:
            return None
        if self._device is not None and calls.fstat(handle).st_dev != self._device:
            return Closed("another disk: filters.one_file_system", False)
        for name in self._rules.if_present:
            if _has(handle, name):
                return Closed(f"{treepath.escaped(name)} in it", True)
        if self._rules.caches and _is_cache(handle):
            return Closed(f"{CACHE_TAG.decode()} in it", True)
        return None


def _has(folder: int, name: bytes) -> bool:
    try:
        calls.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_cache(folder: int) -> bool:
    try:
        handle = calls.open(CACHE_TAG, READ_FLAGS, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.read(handle, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
    finally:
        os.close(handle)
