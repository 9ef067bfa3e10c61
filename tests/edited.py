"""The state's database, edited between two runs, for what nothing else can bring about.

In: a backup. Out: a connection. Guarantees: the seal goes with the edit, as a person is told who does the
same; with it, every command would notice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from harness import Backup


@contextmanager
def edited_state(backup: Backup) -> Iterator[sqlite3.Connection]:
    own = backup.root / ".pipeline"
    backup._exported = None
    with closing(sqlite3.connect(own / "state.db")) as connection, connection:
        yield connection
    (own / "state.seal").unlink(missing_ok=True)
