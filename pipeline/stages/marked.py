"""Folders whose content is left out by what they are, or hold, rather than by their names.

In: an open folder. Out: whether its content is left out. Guarantees: nothing is followed or waited for; a
cache is only one by the signature in its CACHEDIR.TAG (bford.info/cachedir), not by that name alone. Costs
nothing where no such rule is set. Never fails: what can't be read marks nothing.
"""

from __future__ import annotations

import os

from pipeline.stages.setup import FolderRules
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS

_TAG = b"CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


class Marked:
    """device: of the source."""

    def __init__(self, rules: FolderRules, device: int) -> None:
        self._rules = rules
        self._device = device if rules.one_file_system else None
        self._is_off = not (rules.caches or rules.if_present or rules.one_file_system)

    def is_closed(self, handle: int) -> bool:
        """Whether what lies in a folder is left out."""
        if self._is_off:
            return False
        if self._device is not None and calls.fstat(handle).st_dev != self._device:
            return True
        return any(_has(handle, name) for name in self._rules.if_present) or (
            self._rules.caches and _is_cache(handle)
        )


def _has(folder: int, name: bytes) -> bool:
    try:
        calls.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_cache(folder: int) -> bool:
    try:
        handle = calls.open(_TAG, READ_FLAGS, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.read(handle, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
    finally:
        os.close(handle)
