"""The rules of debouncing: what a watch looks at, and when, given what it has heard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import treepath
from pipeline.model.scope import Part, Scope, in_scan_order
from pipeline.watching import pending as rules
from pipeline.watching.pending import GATHER_S, Delays, Pending

DELAYS = Delays(debounce_s=1.0, most_s=10.0, delete_s=3.0, rescan_s=3600.0)
SOON_S = 0.001


def tree(path: str) -> bytes:
    return path.replace("/", "\0").encode()


def parts(scope: Scope | None) -> list[str]:
    """Paths of a scope, those that are looked at as a whole with a slash behind them."""
    assert scope is not None and scope.parts is not None
    return [part.path.decode().replace("\0", "/") + "/" * part.whole for part in scope.parts]


@pytest.fixture
def pending() -> Pending:
    """A watch that has looked at everything at 0 seconds, and waits."""
    pending = Pending(DELAYS, 0.0)
    assert pending.take(0.0) is not None
    pending.done(0.0, ())
    return pending


def test_begins_with_everything() -> None:
    """The first look is at everything, and what is missing then is deleted, as in any run."""
    scope = Pending(DELAYS, 5.0).take(5.0)
    assert scope is not None and scope.is_everything and scope.gone is None


def test_a_path_is_due_when_it_was_quiet_for_so_long(pending: Pending) -> None:
    """Each hint begins the wait anew."""
    pending.note(tree("s/one"), 1.0)
    pending.note(tree("s/one"), 1.8)
    assert pending.due_s == pytest.approx(1.8 + 1.0 + GATHER_S)
    assert pending.take(2.8) is None
    assert parts(pending.take(pending.due_s)) == ["s/one"]


def test_a_path_that_is_never_quiet_is_taken_all_the_same(pending: Pending) -> None:
    """At the latest `most_s` after the first hint."""
    for tenth in range(10, 200):
        pending.note(tree("s/log"), tenth / 10)
        if (scope := pending.take(tenth / 10)) is not None:
            assert parts(scope) == ["s/log"]
            assert tenth / 10 == pytest.approx(1.0 + DELAYS.most_s + GATHER_S, abs=0.11)
            return
    pytest.fail("it was never taken")


def test_a_burst_is_taken_together_and_the_rest_left_alone(pending: Pending) -> None:
    """What is due at about the same time is one scope; what isn't due yet is named as waiting."""
    for number in range(50):
        pending.note(tree(f"s/f{number:02}"), 1.0 + number / 1000)
    pending.note(tree("s/later"), 1.9)
    scope = pending.take(pending.due_s)
    assert parts(scope) == [f"s/f{number:02}" for number in range(50)]
    assert scope is not None and scope.waiting == {tree("s/later")}


def test_what_is_gone_waits_longer(pending: Pending) -> None:
    """A deletion is due after `delete_s`, and only then counts as one."""
    pending.note(tree("s/old"), 1.0, is_missing=True)
    assert pending.due_s == pytest.approx(1.0 + DELAYS.delete_s + GATHER_S)
    scope = pending.take(pending.due_s)
    assert scope is not None and scope.gone == {tree("s/old")}


def test_what_comes_back_is_not_gone(pending: Pending) -> None:
    """The last hint decides: a file that is saved by rename is missing for a moment only."""
    pending.note(tree("s/text"), 1.0, is_missing=True)
    pending.note(tree("s/text"), 1.1)
    scope = pending.take(pending.due_s)
    assert pending.due_s == math.inf or parts(scope) == ["s/text"]
    assert scope is not None and scope.gone == frozenset()


def test_a_path_that_comes_and_goes_is_looked_at_but_not_deleted(pending: Pending) -> None:
    """Where the latest moment comes before it was missing for long enough, it doesn't count as deleted."""
    now_s = 1.0
    while (scope := pending.take(now_s)) is None:
        pending.note(tree("s/lock"), now_s, is_missing=True)
        now_s += 0.5
    assert parts(scope) == ["s/lock"] and scope.gone == frozenset()


def test_a_look_at_everything_follows_lost_hints(pending: Pending) -> None:
    """Everything is due after the debounce; what is missing then isn't deleted unless somebody said so."""
    pending.lose(5.0)
    scope = pending.take(6.0)
    assert scope is not None and scope.is_everything and scope.gone == frozenset()


def test_hints_lost_during_a_look_at_everything_need_another_one(pending: Pending) -> None:
    """A look can't have seen what happened behind it; and looking takes at most half of the time."""
    pending.lose(5.0)
    assert pending.take(6.0) is not None
    pending.lose(8.0)
    pending.done(16.0, ())
    assert pending.due_s == pytest.approx(26.0)
    pending.take(26.0)
    pending.done(36.0, ())
    pending.lose(36.5)
    assert pending.due_s == pytest.approx(46.0)


def test_everything_is_looked_at_now_and_then(pending: Pending) -> None:
    """`rescan_s` after the end of the last look, whatever was heard."""
    assert pending.due_s == pytest.approx(DELAYS.rescan_s)
    scope = pending.take(DELAYS.rescan_s)
    assert scope is not None and scope.is_everything


def test_absent_paths_wait_as_deletions(pending: Pending) -> None:
    """What a run finds missing, though nobody had said so, is looked at again after `delete_s`."""
    pending.lose(5.0)
    pending.take(6.0)
    pending.done(7.0, [tree("s/gone")])
    scope = pending.take(pending.due_s)
    assert parts(scope) == ["s/gone/"]
    assert scope is not None and scope.gone == {tree("s/gone")}


def test_a_failed_run_is_followed_by_a_look_at_everything(pending: Pending) -> None:
    """Not before its time, whatever is heard meanwhile."""
    pending.note(tree("s/one"), 1.0)
    pending.take(3.0)
    pending.failed(3.0, retry_s=60.0)
    assert pending.note(tree("s/two"), 4.0) == 63.0
    assert pending.due_s == 63.0
    scope = pending.take(63.0)
    assert scope is not None and scope.is_everything


def test_a_run_that_could_not_begin_is_tried_again_as_it_was(pending: Pending) -> None:
    """With the lock taken by another run, nothing is forgotten; what has changed since counts, too."""
    pending.note(tree("s/one"), 1.0, whole=True)
    pending.note(tree("s/two"), 1.0, is_missing=True)
    scope = pending.take(5.0)
    pending.note(tree("s/two"), 5.1)
    pending.put_back(5.2, retry_s=0.5)
    assert pending.take(5.6) is None
    assert parts(scope) == ["s/one/", "s/two"]
    assert parts(pending.take(5.7)) == ["s/one/"]
    assert parts(pending.take(6.3)) == ["s/two"]


def test_too_many_paths_become_their_folders(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded: a crowded folder stands for what lies in it, else the sources do."""
    monkeypatch.setattr(rules, "MOST_PATHS", 400)
    for number in range(401):
        pending.note(tree(f"s/crowded/f{number:03}"), 1.0)
    assert parts(pending.take(9.0)) == ["s/crowded/"]
    for number in range(401):
        pending.note(tree(f"s/d{number:03}/file"), 1.0)
    assert parts(pending.take(9.0)) == ["s/"]


@pytest.mark.parametrize("folders", [1, 300, 21_000])
def test_many_that_are_missing_come_to_an_end(pending: Pending, folders: int) -> None:
    """More than are kept apart, from folders that stay: whatever stands for them, all of them are deleted, by
    a handful of looks. (The rest is what the scanner would do.)"""
    left = {tree(f"s/folder{number % folders}/f{number}") for number in range(21_000)}
    for path in left:
        pending.note(path, 1.0, is_missing=True)
    looks = 0
    while left and looks < 10:
        now_s, looks = pending.due_s, looks + 1
        scope = pending.take(now_s)
        assert scope is not None
        waiting = {path for path in left if scope.is_waiting(path)}
        missing = left - waiting if scope.parts is None else {p for p in left - waiting if _is_in(p, scope)}
        deleted = {path for path in missing if scope.is_gone(path)}
        left -= deleted
        pending.done(now_s + 0.1, missing - deleted)
    assert not left, f"{len(left)} are left after {looks} looks"


def _is_in(path: bytes, scope: Scope) -> bool:
    """Whether a path belongs to the parts that are looked at."""
    assert scope.parts is not None
    asked, whole = set(scope.parts), {part.path for part in scope.parts if part.whole}
    return Part(path, False) in asked or path in whole or not whole.isdisjoint(treepath.parents(path))


def test_what_waits_below_a_path_that_is_gone_is_not_deleted() -> None:
    """A younger hint below it counts: two folders may have changed their names."""
    scope = Scope((Part(tree("s/b"), True),), frozenset([tree("s/b")]), frozenset([tree("s/b/file")]))
    assert scope.is_gone(tree("s/b/other")) and not scope.is_waiting(tree("s/b/other"))
    assert scope.is_waiting(tree("s/b/file"))


@dataclass
class World:
    """What a watch has heard, in the words of the rules: a second implementation, by the definitions."""

    first: dict[bytes, float] = field(default_factory=dict)
    last: dict[bytes, float] = field(default_factory=dict)
    missing: dict[bytes, bool] = field(default_factory=dict)

    def hear(self, path: bytes, now_s: float, is_missing: bool) -> None:
        self.first.setdefault(path, now_s)
        self.last[path] = now_s
        self.missing[path] = is_missing

    def due(self, now_s: float) -> set[bytes]:
        out = set()
        for path, last_s in self.last.items():
            quiet_s = DELAYS.delete_s if self.missing[path] else DELAYS.debounce_s
            if now_s >= last_s + quiet_s or now_s >= self.first[path] + DELAYS.most_s:
                out.add(path)
        return out

    def forget(self, paths: set[bytes]) -> None:
        for path in paths:
            del self.first[path], self.last[path], self.missing[path]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"s\0a", b"s\0b", b"s\0b\0c", b"s\0d"]), st.integers(0, 40), st.booleans()
        ),
        max_size=60,
    )
)
def test_every_hint_is_answered_in_time_and_none_too_early(events: list[tuple[bytes, int, bool]]) -> None:
    """Whatever is heard: each path is taken when it is due by the definitions, within GATHER_S, never before,
    and nothing is left over."""
    pending, world, now_s = Pending(DELAYS, 0.0), World(), 0.0
    pending.take(0.0)
    pending.done(0.0, ())
    for path, tenths, is_missing in [*events, (b"s\0end", 0, False)]:
        for _ in range(tenths):
            now_s += 0.1
            _take(pending, world, now_s)
        world.hear(path, now_s, is_missing)
        pending.note(path, now_s, is_missing=is_missing)
    for _ in range(150):
        now_s += 0.1
        _take(pending, world, now_s)
    assert not world.last and len(pending) == 0


def _take(pending: Pending, world: World, now_s: float) -> None:
    scope = pending.take(now_s)
    if scope is None:
        late = world.due(now_s - GATHER_S - SOON_S)
        assert not late, f"{late} should have been taken"
        return
    assert scope.parts is not None and scope.gone is not None
    taken = {part.path for part in scope.parts}
    assert taken <= world.due(now_s + SOON_S), "nothing before its time"
    assert world.due(now_s - SOON_S) <= taken
    for path in scope.gone:
        assert world.missing[path] and now_s + SOON_S >= world.last[path] + DELAYS.delete_s
    world.forget(taken)
    assert scope.waiting == set(world.last)
    pending.done(now_s, ())


@given(st.lists(st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.booleans())))
def test_parts_are_in_scan_order_and_none_is_inside_another(asked: list[tuple[list[str], bool]]) -> None:
    """Every path that was asked for is covered, once, in the order of a scan."""
    wanted = [Part("\0".join(names).encode(), whole) for names, whole in asked]
    out = in_scan_order(wanted)
    paths = [part.path for part in out]
    assert paths == sorted(set(paths))
    for part in out:
        inside = [p for p in paths if p.startswith(part.path + b"\0")]
        assert not (part.whole and inside)
    for part in wanted:
        covering = [p for p in out if p.whole and (part.path + b"\0").startswith(p.path + b"\0")]
        assert covering or (part in out and not part.whole)
