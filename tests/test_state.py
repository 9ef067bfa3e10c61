"""The state database: what is committed is there, what isn't is not, and what a run asks often has an index.

A kill leaves the state of the last commit (promise 5); reads go in ranges while rows are written (promise 6);
the history has an interval for each state that has ended (restoring any run needs it).
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import planner
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.plan import Action, Plan
from pipeline.model.record import Area, Entry, Kind, Record, Stat, Version, VersionStatus
from pipeline.planner import Context, Facts
from pipeline.store import operation
from pipeline.store.operation import (
    Describe,
    Identity,
    MakePrivate,
    Mark,
    OpenUp,
    Operation,
    Place,
    Remove,
    RemoveEmpty,
)
from pipeline.store.reading import RANGE_ROWS, Reader, connect_reader, read_range
from pipeline.store.schema import SCHEMA
from pipeline.store.state import State, connect_writer

PLACE = SourcePlace(b"docs", at_root=True)


def record(path: bytes, **fields: Any) -> Record:
    known = Record(path, Kind.FILE, stat.S_IFREG | 0o644, 1, 2, 3, 4, 5, 3, b"one", None, 0, None, 1, 0, 1, 0)
    return known._replace(**fields)


def stored(path: bytes, **fields: Any) -> Plan:
    return Plan(Action.BACKUP, path, "new path", (), record(path, **fields))


def version(path: bytes, number: int, **fields: Any) -> Version:
    return Version(path, number, Kind.FILE, 3, b"one", None, 3, 0, VersionStatus.KEPT, None)._replace(
        **fields
    )


class Database:
    """A state with the statements that it was asked for, and readers beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect_writer(path)
        self.connection.executescript(SCHEMA)
        self.state = State(self.connection)
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def fill(self, *plans: Plan, run: int = 1) -> None:
        for plan in plans:
            self.state.write(plan, run)
        self.state.commit()

    def history(self, path: bytes) -> list[tuple[int, int, bytes, int]]:
        """From which run to which, the digest, and the permissions of each state that has ended."""
        query = "SELECT from_run, to_run, digest, mode & 4095 FROM history WHERE path = ? ORDER BY from_run"
        return self.connection.execute(query, (path,)).fetchall()

    def query_plan(self) -> list[str]:
        """How SQLite carries out the last statement."""
        rows = self.connection.execute(f"EXPLAIN QUERY PLAN {self.statements[-1]}").fetchall()
        return [row[3] for row in rows]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db")
    yield database
    database.state.close()


# -- intents ----------------------------------------------------------------------------------------------

PATHS = st.binary(max_size=8)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
MODES = st.integers(0, 0o7777)
IDENTITIES = st.builds(Identity, NUMBERS, NUMBERS, st.none() | PATHS, st.none() | PATHS)
OPERATIONS: dict[type[Operation], st.SearchStrategy[Operation]] = {
    Place: st.builds(Place, PATHS, PATHS, IDENTITIES, PATHS, st.integers(0, 99), st.none() | IDENTITIES),
    Remove: st.builds(Remove, PATHS, IDENTITIES),
    MakePrivate: st.builds(MakePrivate, PATHS),
    OpenUp: st.builds(OpenUp, PATHS, MODES, NUMBERS, NUMBERS),
    RemoveEmpty: st.builds(RemoveEmpty, PATHS),
    Describe: st.builds(Describe, PATHS, NUMBERS, st.booleans(), MODES, NUMBERS, NUMBERS, NUMBERS),
    Mark: st.builds(Mark, PATHS),
}


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_intent_is_read_as_it_was_written(kind: type[Operation], data: st.DataObject) -> None:
    """Recovery does exactly what was recorded: same class, same fields, links and bytes and all."""
    intent = data.draw(OPERATIONS[kind])
    [decoded] = operation.decode(operation.encode([intent]))
    assert type(decoded) is kind
    assert decoded == intent
    assert all(type(one) is type(other) for one, other in zip(decoded, intent, strict=True))


def test_every_operation_can_be_an_intent() -> None:
    assert set(OPERATIONS) == set(operation._CLASSES)


def test_intents_come_back_in_order_and_replace_those_before(database: Database) -> None:
    intents: list[Operation] = [Mark(b"%d" % n) for n in range(300)]
    database.state.replace_intents([RemoveEmpty(b"before"), MakePrivate(b"before")])
    database.state.commit()
    database.state.replace_intents(intents)
    database.state.commit()
    assert database.state.intents() == intents
    database.state.replace_intents([])
    database.state.commit()
    assert database.state.intents() == []


# -- transactions -----------------------------------------------------------------------------------------


def test_what_was_not_committed_is_gone_after_a_rollback(database: Database) -> None:
    database.fill(stored(b"s\0a"))
    state = database.state
    state.write(stored(b"s\0b"), 2)
    state.write(stored(b"s\0a", digest=b"two"), 2)
    state.replace_intents([Mark(b"m")])
    state.set_setting("key", "value")
    assert state.record(b"s\0b") is not None, "this run sees what it has decided"
    state.rollback()
    assert state.record(b"s\0b") is None
    assert state.record(b"s\0a") == record(b"s\0a")
    assert (state.intents(), state.setting("key")) == ([], None)


def test_readers_see_only_what_is_committed(database: Database) -> None:
    """The scanner reads while the committer writes."""
    database.fill(stored(b"s\0a"))
    reader = connect_reader(database.path)
    database.state.write(stored(b"s\0b"), 1)
    assert [row[0] for row in read_range(reader, b"", b"\xff")] == [b"s\0a"]
    database.state.commit()
    assert [row[0] for row in read_range(reader, b"", b"\xff")] == [b"s\0a", b"s\0b"]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM files")
    reader.close()


def test_a_reader_of_a_closed_state_makes_nothing_beside_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    database.fill(stored(b"s\0a"))
    database.state.close()
    before = sorted(tmp_path.iterdir())
    reader = connect_reader(tmp_path / "state.db")
    assert [row[0] for row in read_range(reader, b"", b"\xff")] == [b"s\0a"]
    assert sorted(tmp_path.iterdir()) == before == [tmp_path / "state.db"]
    reader.close()


def test_a_kill_leaves_the_last_commit(database: Database, tmp_path: Path) -> None:
    """As a copy of the files at that instant shows."""
    database.fill(stored(b"s\0a"))
    database.state.write(stored(b"s\0b"), 1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("state.db", "state.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    state = State(connect_writer(copy / "state.db"))
    assert [known.path for known in state.records(b"", b"\xff")] == [b"s\0a"]
    state.close()


def test_durable_is_durable(database: Database) -> None:
    assert database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_a_run_is_interrupted_until_it_has_ended(database: Database) -> None:
    state = database.state
    assert (state.last_run(), state.begin_run(1, "full", "boot")) == (None, 1)
    state.commit()
    last = state.last_run()
    assert last is not None
    assert last[:4] == (1, "interrupted", "full", "boot")
    state.end_run(1, 2, "ok", "{}")
    ended = state.last_run()
    assert ended is not None
    assert ended[:2] == (1, "ok")
    assert state.begin_run(3, "fast", "") == 2


# -- reading in ranges ------------------------------------------------------------------------------------


def test_records_stream_across_ranges_while_rows_are_written(database: Database) -> None:
    """No statement stays open; rows that are changed, added and read behind the walk don't disturb it."""
    count = 2 * RANGE_ROWS + 5
    paths = [b"s\0%06d" % n for n in range(count)]
    database.fill(*map(stored, paths), stored(b"t\0outside"), stored(b"s"))
    seen = []
    for known in database.state.records(*treepath.below(b"s")):
        seen.append(known.path)
        if len(seen) % 500 == 0:
            behind = paths[len(seen) // 2] + b"\0new"
            database.fill(stored(known.path, since_run=2), stored(behind), run=2)
    assert seen == paths
    assert len(list(database.state.records(b"s", b"s\1"))) == count + count // 500


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (b"", b"\xff", [b"s", b"s\0a", b"s\0a\0x", b"s\0ab", b"t"]),
        (*treepath.below(b"s"), [b"s\0a", b"s\0a\0x", b"s\0ab"]),
        (*treepath.below(b"s\0a"), [b"s\0a\0x"]),
        (*treepath.below(b"s\0ab"), []),
    ],
)
def test_ranges_are_open(database: Database, low: bytes, high: bytes, expected: list[bytes]) -> None:
    database.fill(*map(stored, [b"t", b"s\0ab", b"s", b"s\0a\0x", b"s\0a"]))
    assert [known.path for known in database.state.records(low, high)] == expected


# -- questions --------------------------------------------------------------------------------------------


def test_live_at_is_the_first_in_scan_order(database: Database) -> None:
    """ "First" always means the order of the scan; what isn't at its live place doesn't count."""
    database.fill(
        stored(b"s\0deleted", area=Area.DELETED),
        stored(b"s\0duplicate", area=Area.DUPLICATE, original=b"s\0x"),
        stored(b"s\0other", digest=b"two"),
        stored(b"s\0size", size=4),
        stored(b"s\0y"),
        stored(b"s\0x-"),
        stored(b"s\0x\0z"),
    )
    state = database.state
    assert state.live_at(b"one", 3, b"s\0new") == b"s\0x\0z", "below x comes before x-"
    assert state.live_at(b"one", 3, b"s\0x\0z") == b"s\0x-"
    assert state.live_at(b"three", 3, b"s\0new") is None
    state.write(stored(b"s\0a"), 1)
    assert state.live_at(b"one", 3, b"s\0new") == b"s\0a", "what this run has planned counts"


def test_orphaned_duplicates_are_those_without_an_original(database: Database) -> None:
    def duplicate(name: bytes, original: bytes) -> Plan:
        return stored(b"s\0" + name, area=Area.DUPLICATE, original=b"s\0" + original)

    database.fill(
        stored(b"s\0live"),
        stored(b"s\0gone", area=Area.DELETED),
        stored(b"s\0folder", kind=Kind.FOLDER, digest=None),
        duplicate(b"a", b"live"),
        duplicate(b"b", b"gone"),
        duplicate(b"c", b"folder"),
        duplicate(b"d", b"never there"),
        duplicate(b"e", b"a"),
    )
    names = [known.path for known in database.state.orphaned_duplicates(b"")]
    assert names == [b"s\0b", b"s\0c", b"s\0d"]
    assert [known.path for known in database.state.orphaned_duplicates(b"s\0b")] == [b"s\0c", b"s\0d"]


@pytest.mark.parametrize(
    ("limit", "after", "expected"),
    [(0, b"", [b"b", b"c"]), (1, b"", [b"c"]), (0, b"b", [b"c"]), (5, b"", [])],
)
def test_paths_with_more_versions(
    database: Database, limit: int, after: bytes, expected: list[bytes]
) -> None:
    database.fill(*(stored(path, kept_versions=number) for number, path in enumerate([b"a", b"b", b"c"])))
    found = database.state.with_more_versions(limit, after)
    assert [known.path for known in found] == expected


def test_a_lost_version_is_counted_once(database: Database) -> None:
    state = database.state
    plan = stored(b"a", number=2, kept_versions=1)
    database.fill(plan._replace(archived=version(b"a", 1)))
    for _ in range(2):
        state.lose_version(b"a", 1, 5)
    assert state.versions(b"a") == [version(b"a", 1, status=VersionStatus.LOST, ended_run=5)]
    assert state.record(b"a") == plan.record._replace(kept_versions=0)


QUESTIONS = {
    "files_live": lambda state: state.live_at(b"one", 3, b"s\0new"),
    "files_duplicates": lambda state: state.orphaned_duplicates(b"s"),
    "files_kept_versions": lambda state: state.with_more_versions(10, b"s"),
}


@pytest.mark.parametrize("index", QUESTIONS)
def test_questions_of_every_run_use_their_index(database: Database, index: str) -> None:
    """At ten million files a run can't look at all of them. (Without ANALYZE, which the program never asks
    for: SQLite's guesses, and so its plans, stay the same for ever.)"""
    database.fill(*(stored(b"s\0%05d" % n, kept_versions=n % 50 == 0) for n in range(500)))
    QUESTIONS[index](database.state)
    plan = database.query_plan()
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN") and "INDEX" not in step for step in plan), plan
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in plan) or index == "files_kept_versions", (
        plan
    )


# -- history ----------------------------------------------------------------------------------------------


def found(content: bytes, mode: int = 0o644, mtime_ns: int = 3) -> Entry:
    return Entry(
        b"docs\0a", Kind.FILE, Stat(stat.S_IFREG | mode, 1, 2, mtime_ns, 4, 5, 3), content, None, False
    )


def back_up(database: Database, run: int, entry: Entry) -> Plan:
    facts = Facts(database.state.record(entry.path))
    plan = planner.plan_entry(entry, facts, Context(PLACE, run))
    database.fill(plan, run=run)
    return plan


def test_states_that_have_ended_get_their_interval(database: Database) -> None:
    """From the run that began them to the run that ended them, whether by METADATA, MODIFIED or DELETE."""
    path = b"docs\0a"
    actions = [
        back_up(database, 1, found(b"one")).action,
        back_up(database, 2, found(b"one")).action,
        back_up(database, 3, found(b"one", mode=0o600)).action,
        back_up(database, 5, found(b"two", mode=0o600, mtime_ns=9)).action,
    ]
    assert actions == [Action.BACKUP, Action.SKIP, Action.METADATA, Action.MODIFIED]
    known = database.state.record(path)
    assert known is not None
    database.fill(planner.plan_delete(known, None, Context(PLACE, 8), "gone"), run=8)
    assert back_up(database, 9, found(b"two", mode=0o600, mtime_ns=9)).action is Action.BACKUP
    assert database.history(path) == [
        (1, 3, b"one", 0o644),
        (3, 5, b"one", 0o600),
        (5, 8, b"two", 0o600),
    ]
    known = database.state.record(path)
    assert known is not None
    assert (known.since_run, known.number) == (9, 2)
    assert [(v.number, v.digest) for v in database.state.versions(path)] == [(1, b"one")]


def test_a_state_that_began_in_the_same_run_leaves_no_interval(database: Database) -> None:
    """No completed run has ever had it."""
    back_up(database, 1, found(b"one"))
    back_up(database, 2, found(b"one", mode=0o600))
    back_up(database, 2, found(b"one", mode=0o640))
    back_up(database, 2, found(b"two", mode=0o640, mtime_ns=9))
    assert database.history(b"docs\0a") == [(1, 2, b"one", 0o644)]


def test_a_reader_survives_a_writer_that_begins_meanwhile(tmp_path: Path) -> None:
    """A reader takes no lock, and opens a database that nobody writes as immutable. When a writer begins,
    changes and checkpoints, the reader's next answer is of the new state, never of torn pages."""
    path = tmp_path / "state.db"
    writer = connect_writer(path)
    writer.executescript(
        "CREATE TABLE t (n INTEGER, filler BLOB); INSERT INTO t VALUES (1, zeroblob(90000));"
    )
    writer.close()
    reader = Reader(path)
    assert reader.execute("SELECT n, length(filler) FROM t").fetchall() == [(1, 90000)]
    assert not path.with_name("state.db-wal").exists()
    writer = connect_writer(path)
    writer.execute("UPDATE t SET n = 2, filler = zeroblob(500000)")
    assert reader.execute("SELECT n, length(filler) FROM t").fetchall() == [(2, 500000)]
    writer.execute("UPDATE t SET n = 3")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert reader.execute("SELECT n FROM t").fetchall() == [(3,)]
    reader.close()
    writer.close()


# -- what is asked for many paths at once -----------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.integers(0, 9), max_size=8),
    asked=st.lists(st.integers(0, 9), max_size=200),
    written=st.lists(st.integers(0, 9), max_size=8),
)
def test_looking_ahead_changes_no_answer(before: list[int], asked: list[int], written: list[int]) -> None:
    """`live_at` says after `look_ahead` what it would have said without, also of what is written since."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    state = State(connection)
    for number, content in enumerate(before):
        state.write(stored(b"s\0a%d" % number, digest=b"content %d" % content), 1)
    state.look_ahead([b"content %d" % content for content in asked])
    for number, content in enumerate(written):
        state.write(stored(b"s\0b%d" % number, digest=b"content %d" % content), 1)
    paths = [(b"s\0a%d" % n, c) for n, c in enumerate(before)]
    paths += [(b"s\0b%d" % n, c) for n, c in enumerate(written)]
    for content in range(10):
        first = min((path for path, found in paths if found == content), default=None)
        assert state.live_at(b"content %d" % content, 3, b"other") == first
    state.close()
