"""Reading ahead where reads wait: a disk is fast when it is asked for many things at once.

In: the batches of a worker, before and after. Out: advice to the kernel. Guarantees: no result depends on it;
where nothing waits (warm caches), it costs two calls for each batch. How a worker notices: it goes to sleep
in its reads (voluntary context switches, getrusage(2)).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipeline.model import message, treepath
from pipeline.stages.batch import Source
from pipeline.stages.digest import READ_BYTES
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS
from pipeline.store.page_cache import ask_ahead

_THIS_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
_FILES_PER_WAIT = 8
"""It begins where every so many files a read has waited."""
_ENDS_AT = 64
"""It ends where it is so many: what was asked for is there by then, so that few waits are left."""


class ReadAhead:
    """known_too: whether files that the state knows are read, too."""

    def __init__(self, sources: Mapping[bytes, Source], known_too: bool) -> None:
        self._sources = sources
        self._known_too = known_too
        self._is_on = False
        self._waits = 0

    def before(self, items: list[list[Any]]) -> None:
        """Ask for all that the batch is going to read."""
        if self._is_on:
            with suppress(OSError):  # whoever reads it meets the same error, and tells
                self._ask(items)
        self._waits = waits_until_now()

    def after(self, files: int) -> None:
        waits = waits_until_now() - self._waits
        self._is_on = waits * (_ENDS_AT if self._is_on else _FILES_PER_WAIT) > files

    def _ask(self, items: list[list[Any]]) -> None:
        folder = -1
        for item in items:
            if item[0] == message.INSIDE:
                source = self._sources[treepath.source_name(item[1])]
                folder = source.folders.at(treepath.relative(item[1]))
            elif item[0] == message.FILE and (self._known_too or item[2] is None):
                handle = calls.open(item[1], READ_FLAGS, dir_fd=folder)
                ask_ahead(handle, 0, READ_BYTES)
                os.close(handle)


def waits_until_now() -> int:
    """How often this thread has gone to sleep."""
    return resource.getrusage(_THIS_THREAD).ru_nvcsw
