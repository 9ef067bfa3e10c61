"""What the state knows of earlier runs: by the primary keys alone, and the same as a plain model knows it."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import planner
from pipeline.layout import SourcePlace
from pipeline.model.record import Area, Entry, Held, Kind, Stat
from pipeline.planner import Context, Facts
from pipeline.store.past import NOW, held_of, read_begun, read_ended, read_held, versions_of
from pipeline.store.reading import RANGE_ROWS, read_range, read_versions
from pipeline.store.schema import SCHEMA
from pipeline.store.state import State

HIGHEST = b"\xff" * 9
PLACE = SourcePlace(b"s", at_root=True)


class Rows(NamedTuple):
    rows: list[Any]

    def fetchall(self) -> list[Any]:
        return self.rows


class Asked:
    """A connection that keeps the plan of each statement that it was asked for."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.steps: list[str] = []
        self.after_each: Callable[[], object] = list

    def execute(self, query: str, values: Any = (), /) -> Rows:
        plan = self.connection.execute(f"EXPLAIN QUERY PLAN {query}", values)
        self.steps += [row[3] for row in plan]
        rows = self.connection.execute(query, values).fetchall()
        self.after_each()
        return Rows(rows)


QUESTIONS: dict[str, Callable[[Asked], object]] = {
    "HELD": lambda state: list(read_held(state, 5, b"", HIGHEST)),
    "HELD with its low end": lambda state: list(read_held(state, 5, b"", HIGHEST, with_low=True)),
    "HELD now": lambda state: list(read_held(state, NOW, b"", HIGHEST)),
    "BEGUN": lambda state: list(read_begun(state, 1, 5, b"", HIGHEST)),
    "ENDED": lambda state: list(read_ended(state, 1, 5, b"", HIGHEST)),
    "states of a path": lambda state: held_of(state, b"s\0a"),
    "versions of a path": lambda state: versions_of(state, b"s\0a"),
    "records": lambda state: list(read_range(state, b"", HIGHEST, with_low=True)),
    "versions": lambda state: list(read_versions(state, b"", HIGHEST)),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_go_along_the_primary_keys(question: str) -> None:
    """Whatever the size: no table is read from its beginning, nothing is sorted. (Without ANALYZE, which the
    program never asks for, SQLite's plans stay the same for ever.)"""
    state = Asked()
    QUESTIONS[question](state)
    assert any(step.startswith("SEARCH") for step in state.steps), state.steps
    assert not [step for step in state.steps if step.startswith("SCAN")], state.steps
    assert not [step for step in state.steps if "TEMP B-TREE" in step], state.steps
    assert all("PRIMARY KEY" in step for step in state.steps if step.startswith("SEARCH")), state.steps


# -- against a plain model -----------------------------------------------------------------------------------


class Thing(NamedTuple):
    """What a source holds at a path. kind: its letter; content and mode: small numbers."""

    kind: Kind
    content: int
    mode: int


THINGS = st.builds(
    Thing,
    st.sampled_from([Kind.FILE, Kind.FILE, Kind.LINK, Kind.SPECIAL]),
    st.integers(0, 2),
    st.integers(0, 1),
)
NAMES = [b"s\0a", b"s\0a\0x", b"s\0a-", b"s\0b", b"s\0b\0\xff"]
TREES = st.dictionaries(st.sampled_from(NAMES), THINGS)


def entry(path: bytes, thing: Thing) -> Entry:
    content = b"%d" % thing.content
    mode = stat.S_IFREG | (0o600, 0o644)[thing.mode]
    return Entry(
        path, thing.kind, Stat(mode, 1, 2, 3, 4, 5, 6), content if thing.kind == Kind.FILE else None,
        content if thing.kind == Kind.LINK else None, False,
    )  # fmt: skip


def seen(held: Held) -> tuple[bytes, Thing]:
    content = held.digest if held.kind == Kind.FILE else held.target
    return held.path, Thing(Kind(held.kind), int(content or b"0"), int(held.mode & 0o777 == 0o644))


def known(tree: dict[bytes, Thing]) -> dict[bytes, Thing]:
    """As the state can know it: a special file has no content."""
    return {p: t if t.kind != Kind.SPECIAL else t._replace(content=0) for p, t in sorted(tree.items())}


class Backups:
    """A state that the planner's own decisions are written into, run by run."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.state = State(self.asked.connection)

    def run(self, number: int, tree: dict[bytes, Thing]) -> None:
        context = Context(PLACE, number)
        for path, thing in sorted(tree.items()):
            record = self.state.record(path)
            self.state.write(planner.plan_entry(entry(path, thing), Facts(record), context), number)
        for record in list(self.state.records(b"", HIGHEST)):
            if record.is_present and record.path not in tree:
                self.state.write(planner.plan_delete(record, None, context, "gone"), number)
        self.state.commit()

    def held(self, run: int, low: bytes = b"", high: bytes = HIGHEST) -> Iterator[Held]:
        return read_held(self.asked.connection, run, low, high)


@settings(max_examples=60, deadline=None)
@given(st.lists(TREES, max_size=6))
def test_every_run_is_as_it_was(trees: list[dict[bytes, Thing]]) -> None:
    """Whatever the history: each run's end is what the source was then, in scan order, and all that differs
    between two of them is among what began and what ended between them."""
    backups = Backups()
    for number, tree in enumerate(trees, 1):
        backups.run(number, tree)
    ends = [{}, *map(known, trees)]
    for run, tree in enumerate(ends):
        found = [seen(held) for held in backups.held(run)]
        assert found == list(tree.items())
        assert all(held.is_within_reach for held in backups.held(run))
    assert [seen(held) for held in backups.held(NOW)] == list(ends[-1].items())
    connection = backups.asked.connection
    for old in range(len(ends)):
        for new in range(old, len(ends)):
            begun = dict(map(seen, read_begun(connection, old, new, b"", HIGHEST)))
            ended = dict(map(seen, read_ended(connection, old, new, b"", HIGHEST)))
            unchanged = {path: thing for path, thing in ends[old].items() if path not in ended}
            assert unchanged | begun == ends[new]
            assert ended.items() <= ends[old].items()


@settings(max_examples=30, deadline=None)
@given(st.lists(TREES, min_size=1, max_size=5), st.sampled_from(NAMES))
def test_the_states_of_a_path_are_those_of_the_runs(trees: list[dict[bytes, Thing]], path: bytes) -> None:
    """A path's own past, its intervals laid end to end, is what the runs held there."""
    backups = Backups()
    for number, tree in enumerate(trees, 1):
        backups.run(number, tree)
    states = held_of(backups.asked.connection, path)
    for number, tree in enumerate(trees, 1):
        then = [s for s in states if s.from_run <= number and (s.to_run is None or number < s.to_run)]
        assert [seen(held)[1] for held in then] == [t for p, t in known(tree).items() if p == path]


def test_pieces_join_without_gap_or_repetition() -> None:
    """More rows than a piece holds, from both tables, and a low end that belongs to the range or not."""
    backups = Backups()
    count = RANGE_ROWS + 700
    names = [b"s\0%05d" % number for number in range(count)]
    backups.run(1, {name: Thing(Kind.FILE, 0, 0) for name in names})
    backups.run(2, {name: Thing(Kind.FILE, number % 2, 0) for number, name in enumerate(names)})
    assert [held.path for held in backups.held(1)] == names
    assert [held.path for held in backups.held(2)] == names
    assert [held.path for held in read_ended(backups.asked.connection, 1, 2, b"", HIGHEST)] == names[1::2]
    part = read_held(backups.asked.connection, 1, names[3], names[9], with_low=True)
    assert [held.path for held in part] == names[3:9]
    assert [held.path for held in backups.held(1, names[3], names[9])] == names[4:9]


@pytest.fixture(scope="module")
def sizes() -> list[Backups]:
    """Two states, one some pieces larger than the other; each path has a row in both tables."""
    sizes = [Backups(), Backups()]
    for backups, pieces in zip(sizes, (2, 5), strict=True):
        for run in (1, 2):
            backups.run(run, {b"s\0%05d" % n: Thing(Kind.FILE, run, 0) for n in range(pieces * RANGE_ROWS)})
    return sizes


WITHOUT_ANSWER: dict[str, Callable[[Asked], Iterator[Held]]] = {
    "HELD": lambda state: read_held(state, 0, b"", HIGHEST),
    "BEGUN": lambda state: read_begun(state, 2, 3, b"", HIGHEST),
    "ENDED": lambda state: read_ended(state, 2, 3, b"", HIGHEST),
}


@pytest.mark.parametrize("question", WITHOUT_ANSWER)
def test_no_statement_walks_along_the_rest_of_a_table(sizes: list[Backups], question: str) -> None:
    """A statement's work has a bound, also where it finds nothing: none stays open for long, and the work of
    all of them grows with the rows and no faster."""
    longest = []
    for backups in sizes:
        ticks: list[None] = []
        backups.asked.connection.set_progress_handler(partial(ticks.append, None), 1_000)
        backups.asked.after_each = partial(_take_count, ticks, work := [0])
        assert list(WITHOUT_ANSWER[question](backups.asked)) == []
        longest.append(max(work))
    assert 0 < longest[1] <= longest[0] * 1.1 + 1, longest


def _take_count(ticks: list[None], work: list[int]) -> None:
    work.append(len(ticks))
    ticks.clear()


def test_where_a_content_lies_follows_its_path() -> None:
    """An older state of a content that is still the latest one has the area of the path's record."""
    backups = Backups()
    backups.run(1, {b"s\0a": Thing(Kind.FILE, 1, 0)})
    backups.run(2, {b"s\0a": Thing(Kind.FILE, 1, 1)})
    assert [held.area for held in backups.held(1)] == [Area.LIVE]
    backups.run(3, {})
    assert [held.area for held in backups.held(1)] == [Area.DELETED]
    assert list(backups.held(3)) == []
