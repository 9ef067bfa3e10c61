"""The quick look at stored files: what tells a worker that something was removed or changed behind our back.

In: what the records say. Out: whether a stored file, or folder, is as it should be, as far as its name, kind,
size and mtime tell. Guarantees: no link is followed (promise 8). Fails with BackupSideFailed where the backup
can't be looked at.
"""

from __future__ import annotations

import stat

from pipeline import layout
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area, Record, same_time
from pipeline.stages.batch import VANISHED, BackupSideFailed, Batch
from pipeline.store import calls
from pipeline.store.folders import Folders
from pipeline.store.staging import Expected, damage_of


class StoredLook:
    """folders: of the backup; None where nothing is looked at, and all counts as right."""

    def __init__(self, folders: Folders | None) -> None:
        self._folders = folders

    def is_right(self, name: bytes, area: int, size: int, mtime_ns: int, batch: Batch) -> bool:
        """The hot path, of a small unchanged file; if in doubt, no."""
        if self._folders is None:
            return True
        folder = batch.stored_handles.get(area)
        try:
            if folder is None:
                at, name = batch.stored_in(name, area)
                folder = self._folders.at(at)
                # Only one: opening another folder may close it.
                batch.stored_handles = {area: folder} if batch.is_stored_together else {}
            stored = calls.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return (
            stored.st_size == size
            and stat.S_ISREG(stored.st_mode)
            and (stored.st_mtime_ns == mtime_ns or same_time(stored.st_mtime_ns, mtime_ns))
        )

    def damage(self, record: Record, name: bytes, batch: Batch) -> str | None:
        """What is wrong with the stored file of a known path: None, `gone` or `changed`."""
        if self._folders is None:
            return None
        batch.stored_handles = {}
        at = b"/".join(filter(None, batch.stored_in(name, record.area)))
        expected = Expected(record.kind, record.size, record.digest, record.target, record.mtime_ns)
        try:
            return damage_of(self._folders, at, expected)
        except OSError as error:
            raise BackupSideFailed(f"can't look at the backup: {error.strerror}") from error

    def folder_damage(self, path: bytes, place: SourcePlace) -> str | None:
        """The same of a folder."""
        if self._folders is None:
            return None
        try:
            self._folders.at(layout.stored(place, treepath.relative(path), Area.LIVE))
        except OSError as error:
            if error.errno in VANISHED:
                return "gone"
            raise BackupSideFailed(f"can't look at the backup: {error.strerror}") from error
        return None
