"""The walk for foreign files: what lies in a backup without anything in the state that names it.

In: the backup root and a read-only state. Out: batches of STRAY items, in scan order of the backup itself.
Guarantees: as for every walk through a backup (`stages.stored_tree`); what a writer is about to name or to
remove is not foreign.
"""

from __future__ import annotations

import errno
import stat

from pipeline import layout
from pipeline.model import message
from pipeline.model.errors import Severity
from pipeline.stages.batches import Batches, Send
from pipeline.stages.contents import Contents
from pipeline.stages.setup import VerifySetup
from pipeline.stages.stored_tree import walk_backup
from pipeline.store.state import translated_errors

_POSITION_EVERY = 5_000


class ForeignWalk:
    """Lists the files that are foreign."""

    def __init__(self, setup: VerifySetup, send: Send) -> None:
        self._contents = Contents(setup.places, setup.backup_root, setup.state)
        self._batches = Batches(send)

    def walk(self) -> None:
        with translated_errors():
            walk = walk_backup(self._contents.folders, self._cant_list, self._batches.beat)
            for number, (at, is_folder) in enumerate(walk):
                if number % _POSITION_EVERY == 0:
                    self._batches.add((message.POSITION, at))  # a sign of life where all is well
                self._batches.beat()
                if not is_folder and self._is_foreign(at):
                    self._batches.add((message.STRAY, at), 1)
        self._batches.flush()

    def _cant_list(self, at: bytes, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # a writer has just removed it, or put something else there
        self._batches.add((message.PROBLEM, at, f"can't be listed: {error.strerror}", Severity.ERROR))

    def _is_foreign(self, at: bytes) -> bool:
        """Asked twice, because a writer may have moved it between the two, or made a folder in its place."""
        if self._is_claimed(at):
            return False
        try:
            if stat.S_ISDIR(self._contents.stat(at).st_mode):
                return False
        except OSError:
            return False
        self._contents.read_places()
        return not self._is_claimed(at)

    def _is_claimed(self, at: bytes) -> bool:
        parsed = layout.parse(at, tuple(self._contents.places.values()))
        return parsed is not None and self._contents.is_claimed(at, parsed)
