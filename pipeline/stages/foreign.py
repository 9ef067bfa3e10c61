"""The walk for foreign files: what lies in a backup without anything in the state that names it.

In: the backup root and a read-only state. Out: batches of STRAY items, in scan order of the backup itself.
Guarantees: links are never followed; the program's own folder is not entered; what a writer is about to name
or to remove is not foreign. Nothing is written. A folder that can't be read becomes a PROBLEM.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipeline import layout
from pipeline.layout import OWN_FOLDER
from pipeline.model import message
from pipeline.model.errors import Severity
from pipeline.stages.batches import Batches, Send
from pipeline.stages.contents import Contents
from pipeline.stages.setup import VerifySetup
from pipeline.store.folders import split
from pipeline.store.state import translated_errors

_POSITION_EVERY = 5_000


class ForeignWalk:
    def __init__(self, setup: VerifySetup, send: Send) -> None:
        self._contents = Contents(setup.places, setup.backup_root, setup.state)
        self._places = tuple(setup.places.values())
        self._batches = Batches(send)
        self._seen = 0

    def walk(self) -> None:
        """Depth first. The stack holds, for each folder on the way, what is left of its sorted names."""
        with translated_errors():
            stack = [self._list(b"")]
            while stack:
                folder = next(stack[-1], None)
                if folder is None:
                    stack.pop()
                else:
                    stack.append(self._list(folder))
        self._batches.flush()

    def _list(self, folder: bytes) -> Iterator[bytes]:
        """Pass on the foreign files of a folder; yields its subfolders, to be entered."""
        try:
            names = _names(self._contents.folders.at(folder))
        except OSError as error:
            shown = f"{os.fsdecode(folder) or 'the backup'}: can't be listed: {error.strerror}"
            self._batches.add((message.PROBLEM, None, shown, Severity.ERROR))
            return
        for name, is_folder in names:
            at = folder + b"/" + name if folder else name
            if is_folder:
                if at != OWN_FOLDER:
                    yield at
            else:
                self._look(at)

    def _look(self, at: bytes) -> None:
        self._seen += 1
        if self._seen % _POSITION_EVERY == 0:
            self._batches.add((message.POSITION, at))  # a sign of life where all is well
        parsed = layout.parse(at, self._places)
        if parsed is not None and self._contents.is_claimed(at, parsed):
            return
        try:
            folder, name = split(at)
            os.stat(name, dir_fd=self._contents.folders.at(folder), follow_symlinks=False)
        except OSError:
            return  # a writer has just moved it
        if parsed is None or not self._contents.is_claimed(at, parsed):
            self._batches.add((message.STRAY, at), 1)


def _names(handle: int) -> list[tuple[bytes, bool]]:
    """A folder's names, sorted by their bytes, and whether each is a folder."""
    with os.scandir(handle) as entries:
        return sorted((os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries)
