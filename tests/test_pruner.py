"""What retention looks at is enough, and no more: the tables of what is due against a look at every version.

The pruner works on a real state here, with a journal that only writes the plans down: histories of many runs
cost milliseconds. `test_retention_rules.py` has the rules, `test_retention.py` the whole program.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import planner, retention
from pipeline.layout import SourcePlace
from pipeline.model.plan import Action, Plan
from pipeline.model.record import Area, Entry, Kind, Record, Stat, Version, VersionStatus
from pipeline.planner import Context, Facts
from pipeline.planner.facts import retire
from pipeline.retention import DAY_NS, Override, Retention
from pipeline.stages.pruner import Pruner
from pipeline.store import past
from pipeline.store.prospects import Prospects
from pipeline.store.schema import SCHEMA
from pipeline.store.soundness import unsound_rows
from pipeline.store.state import State

PLACE = SourcePlace(b"docs", at_root=True)
PATHS = [b"docs\0a", b"docs\0b", b"docs\0logs\0c"]
COUNT_ONLY = Retention(max_versions_per_file=2)


class World:
    """A backup by its state alone. Each run stores, deletes, and then has retention applied."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.state = State(self.connection)
        self.state.add_source(b"docs", at_root=True)
        self.now_ns = 1_700_000_000 * 10**9
        self.taken: list[tuple[bytes, str]] = []
        self.statements: list[str] = []

    def write(self, plan: Plan) -> None:
        self.state.write(plan, self.run)
        if plan.action is Action.RETENTION:
            self.taken.append((plan.path, plan.reason))

    def store(self, path: bytes, size: int, kind: Kind = Kind.FILE) -> None:
        record, content = self.state.record(path), b"%d of %d" % (self.run, size)
        found = Stat(stat.S_IFREG | 0o644, 0, 0, 0, self.run, 1, size)
        digest, target = (content, None) if kind == Kind.FILE else (None, content)
        entry = Entry(path, kind, found, digest, target, False)
        self.write(planner.plan_entry(entry, Facts(record), self.context))

    def touch(self, path: bytes) -> None:
        """Other metadata only: closes a state of the path, but no content."""
        record = self.state.record(path)
        if record is not None and record.is_present and record.digest is not None:
            found = Stat(record.mode, 0, 0, record.mtime_ns + 1, 0, 1, record.size)
            entry = Entry(path, Kind.FILE, found, record.digest, None, False)
            self.write(planner.plan_entry(entry, Facts(record), self.context))

    def delete(self, path: bytes) -> None:
        record = self.state.record(path)
        if record is not None and record.is_present:
            self.write(planner.plan_delete(record, None, self.context, "gone"))

    def pin(self, path: bytes) -> None:
        """As a suspect's old content, with all that follows from it."""
        record = self.state.record(path)
        if record is not None and record.is_present:
            counted, version, _ = retire(record, self.context, None, pinned=True)
            content = b"%d, suspect" % self.run
            new = counted._replace(digest=content, since_run=self.run)
            self.write(Plan(Action.SUSPECT, path, "", (), new, record, True, version))

    def begin(self, days: float) -> None:
        self.now_ns += int(days * DAY_NS)
        self.run = self.state.begin_run(self.now_ns, "full", "boot")
        self.context = Context(PLACE, self.run)
        self.taken = []

    def open(self, rules: Retention) -> Prospects | None:
        wanted = rules.rules
        if wanted.only_counts:
            return None
        return Prospects(self.state, self.run, wanted.text(), bool(wanted.max_bytes))

    def prune(self, rules: Retention, prospects: Prospects | None, has_clock: bool = True) -> None:
        now_ns = self.now_ns if has_clock else None
        contexts = {b"docs": self.context}
        pruner = Pruner(self.state, prospects, rules.rules, contexts, now_ns, self.write, self.state.commit)
        self.statements.clear()
        with self.traced():
            for _ in pruner.apply():
                pass
        self.state.commit()
        self.state.follow = None

    @contextmanager
    def traced(self) -> Iterator[None]:
        self.connection.set_trace_callback(self.statements.append)
        yield
        self.connection.set_trace_callback(None)

    def kept(self) -> dict[bytes, list[int]]:
        """What is on the disk of each path: its versions, and its latest content by its own number."""
        found: dict[bytes, list[int]] = {}
        for path in PATHS:
            record = self.state.record(path)
            if record is not None:
                versions = [v.number for v in self.versions(path)]
                found[path] = versions + ([record.number] if record.digest is not None else [])
                assert record.kept_versions == sum(not v.pinned for v in self.versions(path))
        return found

    def versions(self, path: bytes) -> list[Version]:
        return [v for v in self.state.versions(path) if v.status == VersionStatus.KEPT]

    def bytes(self) -> int:
        return sum(v.size for path in PATHS for v in self.versions(path) if not v.pinned)


class Step(NamedTuple):
    """What happens in a run. rules: which of two configurations it has. is_cut: before retention is done."""

    days: float
    deeds: tuple[tuple[str, int], ...]
    rules: int
    has_clock: bool
    is_cut: bool


NUMBERS = st.integers(0, 3)
AGES = st.sampled_from([0, 1, 5, 40])
OVERRIDES = st.sampled_from([(), (Override("logs/", max_age_days=1),), (Override("/a", keep_daily=2),)])
CONFIGURATIONS = st.builds(
    Retention, st.integers(0, 6), AGES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, AGES,
    st.sampled_from([0, 0, 1, 12, 30]), OVERRIDES,
)  # fmt: skip
DEEDS = st.sampled_from(["store", "store", "store", "touch", "delete", "pin"])
STEPS = st.builds(
    Step, st.sampled_from([0.0, 0.3, 1.0, 4.0, 41.0]),
    st.lists(st.tuples(DEEDS, st.integers(0, 2)), max_size=4, unique_by=lambda deed: deed[1]).map(tuple),
    st.sampled_from([0, 0, 0, 1]), st.booleans() | st.just(True), st.integers(0, 6).map(lambda n: n == 0),
)  # fmt: skip


def live(world: World, steps: list[Step], configurations: list[Retention], from_scratch: bool) -> None:
    """from_scratch: every version is looked at in each run, as if nothing were known of them."""
    for step in steps:
        world.begin(step.days)
        rules = configurations[step.rules]
        prospects = world.open(rules)
        if prospects is not None and from_scratch:
            prospects.is_complete = False
        for deed, path in step.deeds:
            if deed == "store":
                world.store(PATHS[path], 1 + (world.run * 7 + path) % 9)
            else:
                getattr(world, deed)(PATHS[path])
        if step.is_cut:
            world.state.commit()
            world.state.follow = None
        else:
            world.prune(rules, prospects, step.has_clock)
            if prospects is not None:
                prospects.keep(world.run)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=14), CONFIGURATIONS, CONFIGURATIONS | st.just(COUNT_ONLY))
def test_looking_at_what_is_due_is_enough(steps: list[Step], one: Retention, other: Retention) -> None:
    """Whatever happened, whatever the rules were in between, and wherever runs were cut: the same stays as if
    every version had been judged in every run; and a budget is kept to as far as it may be."""
    worlds = World(), World()
    for from_scratch, world in enumerate(worlds):
        live(world, steps, [one, other], bool(from_scratch))
    known, anew = worlds
    assert known.kept() == anew.kept()
    assert known.connection.execute("SELECT * FROM versions").fetchall() == (
        anew.connection.execute("SELECT * FROM versions").fetchall()
    )
    rules, last = (one, other)[steps[-1].rules], steps[-1]
    if rules.max_versions_bytes and not last.is_cut and (last.has_clock or not rules.rules.keeps):
        used = known.bytes()
        assert known.state.setting("versions_bytes") == used
        spare = [
            v for path in PATHS for v in known.versions(path)
            if not v.pinned and v.number != retention.newest(known.versions(path))
        ]  # fmt: skip
        assert used <= rules.max_versions_bytes or not spare


def filled(rules: Retention, paths: int = 30) -> World:
    """Many paths with three versions each, all of them judged once."""
    world = World()
    for _ in range(4):
        world.begin(1)
        prospects = world.open(rules)
        for number in range(paths):
            world.store(b"docs\0p%03d" % number, 5)
        world.prune(rules, prospects)
    return world


RULES = {
    "age": Retention(max_age_days=90),
    "age, days kept": Retention(max_age_days=90, keep_daily=2, deleted_max_age_days=9),
    "bytes": Retention(max_versions_bytes=10**6),
    "override": Retention(override=(Override("a", max_versions_per_file=1),)),
}


@pytest.mark.parametrize("name", RULES)
def test_where_nothing_is_due_no_version_is_read(name: str) -> None:
    """The nothing-changed run asks what is due, and no more, however many versions there are."""
    world = filled(RULES[name])
    world.begin(1)
    world.prune(RULES[name], world.open(RULES[name]))
    asked = [statement for statement in world.statements if statement not in ("COMMIT", "BEGIN IMMEDIATE")]
    assert 0 < len(asked) <= 2 and not world.taken, asked
    assert all(" FROM prospects " in asking or " FROM settings " in asking for asking in asked), asked


def test_only_a_limit_of_numbers_asks_what_it_always_did() -> None:
    """One query, answered by an index; no table of what is due is made."""
    world = filled(Retention(max_versions_per_file=9))
    world.begin(1)
    world.prune(COUNT_ONLY, world.open(COUNT_ONLY))
    assert len(world.taken) == 30 and {reason for _, reason in world.taken} == {
        "version 1: more than 2 versions"
    }
    reads = {
        statement.split(" WHERE ")[0] for statement in world.statements if statement.startswith("SELECT")
    }
    assert not any("history" in read or "runs" in read for read in reads), reads
    world.begin(1)
    world.prune(COUNT_ONLY, world.open(COUNT_ONLY))
    assert len(world.statements) == 1
    tables = {name for (name,) in world.connection.execute("SELECT name FROM sqlite_master")}
    assert not tables & {"prospects", "spare_versions"}


def test_a_path_is_looked_at_when_it_is_due_and_not_before() -> None:
    """Of many, only the paths in which a version has come of age are read."""
    rules = Retention(max_age_days=30)
    world = filled(rules)
    world.begin(1)
    prospects = world.open(rules)
    world.store(b"docs\0early", 5)
    world.prune(rules, prospects)
    world.begin(26.5)
    world.prune(rules, world.open(rules))
    assert not world.taken
    world.begin(1)
    world.prune(rules, world.open(rules))
    assert {reason for _, reason in world.taken} == {"version 1: not the latest for more than 30 days"}
    assert len(world.taken) == 30
    world.begin(0)
    world.prune(rules, world.open(rules))
    assert not world.taken and len(world.statements) <= 2


def test_a_run_of_another_program_in_between_is_noticed() -> None:
    """What was stored while nobody kept the tables is judged all the same: the numbers of the runs tell."""
    rules = Retention(max_versions_per_file=9, keep_daily=1, max_age_days=1)
    world = filled(rules)
    world.begin(1)
    world.store(b"docs\0p000", 5)
    world.state.commit()
    world.begin(10)
    prospects = world.open(rules)
    assert prospects is not None and not prospects.is_complete
    world.prune(rules, prospects)
    assert [reason for path, reason in world.taken if path == b"docs\0p000"] == [
        f"version {number}: not the latest for more than 1 day" for number in (2, 3)
    ]
    world.begin(1)
    prospects = world.open(rules)
    assert prospects is not None and prospects.is_complete


def test_a_lost_version_is_counted_anew() -> None:
    """What is found lost, also by recovery, no longer counts in a budget."""
    rules = Retention(max_versions_bytes=10**6)
    world = filled(rules, paths=2)
    assert world.state.setting("versions_bytes") == 30
    world.state.lose_version(b"docs\0p000", 2, world.run)
    world.begin(1)
    world.prune(rules, world.open(rules))
    assert world.state.setting("versions_bytes") == 25


def test_a_budget_s_table_holds_what_may_go_and_no_more() -> None:
    """Neither the newest of a path nor what has gone: the table doesn't grow with what has ever been. A
    version that has become the newest since, because later ones were lost, is passed over."""
    rules = Retention(max_versions_per_file=9, max_versions_bytes=10**6)
    world = filled(rules, paths=3)
    table = "SELECT path, number FROM spare_versions ORDER BY path, number"
    paths = [b"docs\0p%03d" % number for number in range(3)]
    assert world.connection.execute(table).fetchall() == [(path, n) for path in paths for n in (1, 2)]
    for limit, max_bytes, left in (
        (2, 10**6, [(path, 2) for path in paths]),
        (2, 25, [(path, 2) for path in paths[1:]]),
    ):
        rules = Retention(max_versions_per_file=limit, max_versions_bytes=max_bytes)
        world.begin(1)
        world.prune(rules, world.open(rules))
        assert world.connection.execute(table).fetchall() == left
    world.begin(1)
    prospects = world.open(rules)
    world.state.lose_version(paths[2], 3, world.run)
    rules = Retention(max_versions_per_file=2, max_versions_bytes=1)
    world.prune(rules, prospects)
    assert [path for path, _ in world.taken] == [paths[1]]
    assert [v.number for v in world.versions(paths[2])] == [2]


def test_what_was_deleted_is_the_latest_content_until_its_path_comes_back() -> None:
    """The age of a version counts from the run that gave the path its next content, not from the deletion."""
    rules = Retention(max_age_days=30)
    world = World()
    for days, deed in ((0, "store"), (1, "store"), (1, "delete"), (40, "store"), (1, "store"), (30, "touch")):
        world.begin(days)
        prospects = world.open(rules)
        if deed == "store":
            world.store(PATHS[0], 5)
        else:
            getattr(world, deed)(PATHS[0])
        world.prune(rules, prospects)
        if days == 40:
            why = "not the latest for more than 30 days"
            assert [reason for _, reason in world.taken] == [f"version 1: {why}"]
        elif days == 30:
            assert [reason for _, reason in world.taken] == [f"version 2: {why}"]
        else:
            assert not world.taken


def test_a_deleted_path_goes_with_its_numbers_kept() -> None:
    """What lies in `_deleted/`, and its versions; the number of the content that went isn't given again, and
    the history still names it."""
    rules = Retention(deleted_max_age_days=10)
    world = World()
    for size in (1, 2):
        world.begin(1)
        prospects = world.open(rules)
        world.store(PATHS[0], size)
        world.prune(rules, prospects)
    world.begin(1)
    prospects = world.open(rules)
    world.delete(PATHS[0])
    world.prune(rules, prospects)
    for days in (10, 1):
        assert not world.taken
        world.begin(days)
        world.prune(rules, world.open(rules))
    why = "deleted for more than 10 days"
    assert world.taken == [(PATHS[0], why), (PATHS[0], f"version 1: {why}")]
    record = world.state.record(PATHS[0])
    assert record is not None
    assert (record.digest, record.number, record.kept_versions, record.area) == (None, 3, 0, Area.DELETED)
    statuses = [(v.number, v.status, v.ended_run, v.ended_why) for v in world.state.versions(PATHS[0])]
    assert statuses == [(number, VersionStatus.PRUNED, 5, why) for number in (1, 2)]
    assert past.first_runs(world.state, Record._make(record)) == {1: 1, 2: 2, 3: 3}
    world.begin(1)
    prospects = world.open(rules)
    world.store(PATHS[0], 3)
    world.prune(rules, prospects)
    assert world.kept()[PATHS[0]] == [3]


def test_what_has_gone_from_deleted_paths_leaves_a_sound_state() -> None:
    """A file or link without a content of its own is no damage: after a cut, every row is looked at."""
    world = World()
    for deed in ("store", "delete"):
        world.begin(1)
        for path, kind in zip(PATHS, (Kind.LINK, Kind.FILE), strict=False):
            if deed == "store":
                world.store(path, 5, kind)
            else:
                world.delete(path)
                deleted = world.state.record(path)
                assert deleted is not None and (deleted.digest or deleted.target)
                world.write(planner.plan_drop_deleted(deleted, "old", world.context))
    assert list(unsound_rows(world.state, [b"docs"])) == []
