"""Whether a state may be trusted: looked at when it is opened, before a name or a deletion is made from it.

In: a connection, and the database's path. Out: nothing, or an error that names what is wrong and `rebuild`.
Guarantees: a state with a seal that fits is what the last writer left; one without (its last writer was cut)
is looked through before a writer decides anything from it: every page, and every row. For a reader, a large
one is not looked through, since that takes seconds; damage is told when its page is read. Fails with
StateError (a newer program's) and DamagedStateError.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.model import treepath
from pipeline.model.errors import BackupSideError, DamagedStateError, StateError
from pipeline.store.reading import Readable
from pipeline.store.schema import SCHEMA_VERSION
from pipeline.store.seal import SEAL_NAME, Looked, look, opening_of
from pipeline.store.soundness import unsound_rows
from pipeline.store.state import REBUILD_ADVICE, source_places

STATE_NAME = "state.db"
STATE_FILES = (STATE_NAME, STATE_NAME + "-wal", STATE_NAME + "-shm")
_SEALED_BYTES = 64 << 20  # checking the seal takes some 20 ms
_LOOKED_THROUGH_BYTES = 8 << 20  # takes some 25 ms
_SEAL_ADVICE = f"If you have changed it yourself, remove .pipeline/{SEAL_NAME} and try again. "


def refuse_links(own: Path) -> None:
    """Before SQLite, which would follow them, and make files of its own where they lead. own: `.pipeline`."""
    if own.is_symlink():
        raise BackupSideError(f"{own} is a link", "Move it away, then run again.")
    for name in STATE_FILES:
        place = own / name
        if os.path.lexists(place) and not is_regular(place):
            raise DamagedStateError(f".pipeline/{name} is not a regular file", REBUILD_ADVICE)


def is_regular(place: Path) -> bool:
    """Whether there is a file, which no link leads to."""
    try:
        return stat.S_ISREG(place.lstat().st_mode)
    except FileNotFoundError:
        return False


def look_at_seal(path: Path, whole: bool = False) -> Looked | None:
    """To be asked before the state is connected to. whole: however large it is."""
    return look(path, None if whole else _SEALED_BYTES)


def check_for_reading(connection: Readable, looked: Looked | None) -> None:
    """What can be told in no time."""
    _check_form(connection)
    if _is_sealed(connection, looked):
        return
    pages, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchall()[0][0] for name in ("page_count", "page_size")
    )
    if pages * page_bytes <= _LOOKED_THROUGH_BYTES:
        look_through(connection)


def check_for_writing(connection: Readable, looked: Looked | None) -> None:
    """Everything, however long it takes."""
    _check_form(connection)
    if not _is_sealed(connection, looked):
        look_through(connection, "integrity_check")  # the indexes, too: decisions are made by them
        rows = connection.execute("SELECT name, at_root FROM sources").fetchall()
        for row, wrong in unsound_rows(connection, source_places(rows)):
            shown = treepath.shown(row) if isinstance(row, bytes) else repr(row)
            raise DamagedStateError(f"state.db is damaged: {shown}: {wrong}", REBUILD_ADVICE)


def _check_form(connection: Readable) -> None:
    version = connection.execute("PRAGMA user_version").fetchall()[0][0]
    if version > SCHEMA_VERSION:
        raise StateError(
            f"state.db has form {version}, this program knows form {SCHEMA_VERSION}",
            "Use the newer version of this program that made it.",
        )
    if version < 1:
        raise DamagedStateError("state.db has no valid form", REBUILD_ADVICE)


def _is_sealed(connection: Readable, looked: Looked | None) -> bool:
    """Whether there is a seal of this state that fits. Raises DamagedStateError for one that doesn't."""
    if looked is None or looked.opening != opening_of(connection):
        return False
    if not looked.fits:
        raise DamagedStateError(
            "state.db is damaged: it is not, byte for byte, what the last run left",
            _SEAL_ADVICE + REBUILD_ADVICE,
        )
    return True


def look_through(connection: Readable, pragma: str = "quick_check") -> None:
    """Every page. Raises DamagedStateError."""
    wrong = connection.execute(f"PRAGMA {pragma}(1)").fetchall()[0][0]
    if wrong != "ok":
        raise DamagedStateError(f"state.db is damaged: {' '.join(wrong.split())}", REBUILD_ADVICE)
