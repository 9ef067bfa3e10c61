"""A backup that an earlier version of this program has made: readable, and brought up to date by a run."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Backup, exact
from restored import keep, restore, unlike
from with_past import make_past

from pipeline.model.attributes import pack
from pipeline.store.reading import Reader, read_attributes
from pipeline.store.schema import SCHEMA, SCHEMA_VERSION, bring_up_to_date
from pipeline.store.seal import OPENING
from pipeline.store.state import connect_writer, keep_attributes

SINCE_1 = {
    "files": ("links", "attributes", "linked_to"),
    "history": ("attributes", "linked_to", "links"),
    "versions": ("ended_why",),
    "runs": ("has_doubted_clock",),
}


def make_older(state: Path, form: int) -> None:
    """The state as an earlier form had it, without a seal, as if its last run had been cut after all was
    done."""
    with sqlite3.connect(state, isolation_level=None) as connection:
        connection.executescript("DROP TABLE respelled; PRAGMA user_version = 2; VACUUM")
        if form == 1:
            take_away_what_2_added(connection)
    connection.close()
    (state.parent / "state.seal").unlink()


def take_away_what_2_added(connection: sqlite3.Connection) -> None:
    connection.execute("DROP INDEX files_names")
    for table, columns in SINCE_1.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.executescript("DROP TABLE attributes; DROP TABLE owners; PRAGMA user_version = 1; VACUUM")


@pytest.fixture(scope="module", params=range(1, SCHEMA_VERSION))
def older(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Backup, bytes, int]]:
    """A backup with a state of an earlier form, what was exported before, and that form."""
    backup = make_past(tmp_path_factory.mktemp("older"))
    os.setxattr(backup.source / "one", "user.colour", b"blue")
    backup.run()
    exported = backup.export_bytes()
    make_older(backup.root / ".pipeline/state.db", request.param)
    yield backup, exported, request.param


@pytest.mark.parametrize(
    "command", ["export", "ls", "history docs/one", "verify", "status", "diff 1 3", "runs"]
)
def test_readers_know_it(older: tuple[Backup, bytes, int], command: str) -> None:
    """They answer, and write nothing."""
    backup, exported, _ = older
    state = backup.root / ".pipeline/state.db"
    before = state.read_bytes()
    result = backup.call(*command.split())
    assert result.stdout
    if command == "export":
        known = [{**json.loads(line), "attributes": None} for line in exported.splitlines()]
        assert [{**line, "attributes": None} for line in result.lines] == known
    assert state.read_bytes() == before


def test_a_run_brings_it_up_to_date(older: tuple[Backup, bytes, int], tmp_path: Path) -> None:
    """The same tables, columns and indexes as in a new one; nothing of the past is lost; what no run had
    looked at until now is looked at, though nothing has changed since."""
    backup, exported, form = older
    for at in ("2", "5"):
        restore(backup, tmp_path / f"before {at}", "--at", at)
    dry = backup.run("--dry-run", "--verbose")
    result = backup.run("--json", "--verbose")
    changed = [exact(line, "path") for line in result.lines if line["type"] == "action"]
    assert changed == (["docs/one"] if form == 1 else []) and result.summary["metadata"] == len(changed)
    assert ("docs/one (attributes differ)" in dry.stdout) == (form == 1)
    assert backup.call("export").stdout.encode("utf-8", "surrogateescape") == exported
    with sqlite3.connect(backup.root / ".pipeline/state.db") as state:
        form = {row[1] for row in state.execute("SELECT * FROM sqlite_master")}
        columns = {t: [row[1] for row in state.execute(f"PRAGMA table_info({t})")] for t in SINCE_1}
        assert state.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    state.close()
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(SCHEMA)
    assert form == {row[1] for row in fresh.execute("SELECT * FROM sqlite_master")}
    for table, names in columns.items():
        assert names == [row[1] for row in fresh.execute(f"PRAGMA table_info({table})")]
    fresh.close()
    assert backup.run("--json").summary["metadata"] == 0
    backup.call("verify")
    for at in ("2", "5"):
        restore(backup, tmp_path / f"after {at}", "--at", at)
        assert not unlike(keep(tmp_path / f"before {at}"), keep(tmp_path / f"after {at}"))


def test_a_reader_beside_the_run(backup: Backup) -> None:
    """What covers an earlier state for a reader goes when a writer has altered it."""
    backup.write({"one": "one"})
    backup.run()
    path = backup.root / ".pipeline/state.db"
    make_older(path, 1)
    writer = connect_writer(path)
    writer.execute("REPLACE INTO settings VALUES ('x', 1)")  # leaves a WAL, as a writer that was cut does
    reader = Reader(path)
    assert reader.execute("SELECT count(*) FROM files").fetchall() == [(2,)]
    bring_up_to_date(writer, (OPENING, 1))
    name = keep_attributes(writer, pack([(b"user.a", b"1")]))
    writer.execute("UPDATE files SET attributes = ? WHERE kind = 0", (name,))
    rows = reader.execute("SELECT attributes FROM files WHERE kind = 0").fetchall()
    assert read_attributes(reader, rows[0][0]) == pack([(b"user.a", b"1")])
    writer.close()
