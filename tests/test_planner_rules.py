"""What holds for the plan of any entry, whatever is known about its path.

Same facts, same plan (promise 4); version numbers never go back; an old content gets its next name before its
place is given away, or its loss is named (promise 1); a path's content is under one of its names after every
single step, since a new name is made before an old one goes (promise 2). Steps are tried out on a pretended
backup.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import planner
from pipeline.layout import SourcePlace
from pipeline.model.plan import Action, Archive, Move, Pin, Plan, Remove, RemoveFolder, Step, Store
from pipeline.model.record import Area, Entry, Kind, Record, Stat, VersionStatus
from pipeline.planner import Context, Facts

RULE = settings(max_examples=100, deadline=None)

PATH = b"docs\0in\0a"
CONTEXT = Context(SourcePlace(b"docs", at_root=True), run=7)
TYPE = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.LINK: stat.S_IFLNK,
    Kind.SPECIAL: stat.S_IFIFO,
}
CONTENTS = st.sampled_from([b"one", b"two"])
FEW = st.integers(1, 2)


@st.composite
def entries(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> Entry:
    kind, content = draw(st.sampled_from(kinds)), draw(CONTENTS)
    mode = TYPE[kind] | draw(st.sampled_from([0o600, 0o755]))
    found = Stat(mode, draw(FEW), 1, draw(FEW), draw(FEW), draw(FEW), 3)
    digest, target = (content if kind == wanted else None for wanted in (Kind.FILE, Kind.LINK))
    return Entry(PATH, kind, found, digest, target, draw(st.booleans()))


@st.composite
def records(draw: st.DrawFn, found: st.SearchStrategy[Entry], is_whole: bool = False) -> Record:
    """Any record that a run can leave: only files are duplicates, and any content may have been lost.

    is_whole: the path is present and its content is not lost.
    """
    entry = draw(found)
    digest, target = entry.digest, entry.target
    areas = [Area.LIVE] if is_whole else [Area.LIVE, Area.DELETED]
    area = draw(st.sampled_from([*areas, Area.DUPLICATE] if entry.kind == Kind.FILE else areas))
    if not is_whole and area != Area.DUPLICATE and draw(st.integers(0, 4)) == 0:
        digest = target = None
    original = b"docs\0first" if area == Area.DUPLICATE else None
    number = draw(st.integers(1, 5))
    return Record(
        PATH, entry.kind, *entry.stat[:7], digest, target, area, original, number, number - 1,
        draw(st.integers(1, 6)), int(entry.unsettled),
    )  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> tuple[Entry, Facts]:
    """Anything that may be found, and anything that may be known about its path."""
    entry, record = draw(entries()), draw(st.none() | records(entries()))
    may_be_damaged = record is not None and planner.stored_at(record, CONTEXT.place) is not None
    damage = draw(st.sampled_from([None, "gone", "changed"])) if may_be_damaged else None
    return entry, Facts(record, draw(originals(entry)), damage)


@st.composite
def replacements(draw: st.DrawFn) -> tuple[Entry, Facts]:
    """A file or link where a file or link is stored, whole."""
    whole = entries((Kind.FILE, Kind.LINK))
    entry = draw(whole)
    return entry, Facts(draw(records(whole, is_whole=True)), draw(originals(entry)))


def originals(entry: Entry) -> st.SearchStrategy[bytes | None]:
    return st.sampled_from([None, b"docs\0first"] if entry.kind == Kind.FILE else [None])


def before(known: Facts) -> dict[bytes, str]:
    """What lies in the pretended backup at the path's names before the plan."""
    at = planner.stored_at(known.record, CONTEXT.place) if known.record is not None else None
    if known.record is None or at is None or known.damage == "gone" or known.record.kind == Kind.FOLDER:
        return {}
    return {at: "foreign" if known.damage == "changed" else "old"}


def carry_out(step: Step, files: dict[bytes, str]) -> None:
    match step:
        case Archive(at, to):
            assert to not in files
            files[to] = files[at]
        case Move(at, to):
            assert to not in files
            files[to] = files.pop(at)
        case Store(to, replaces):
            assert files.get(to) == "old" if replaces else files.get(to) != "old", "replaces what is meant"
            files[to] = "new"
        case Remove(at):
            assert sum(content == "old" for content in files.values()) > 1, "it has another name"
            del files[at]


def stages(plan: Plan, known: Facts) -> Iterator[dict[bytes, str]]:
    """The pretended backup before the plan and after each of its steps."""
    files = before(known)
    yield dict(files)
    for step in plan.steps:
        carry_out(step, files)
        yield dict(files)


def is_told_elsewhere(entry: Entry, known: Facts, plan: Plan) -> bool:
    """Losses that aren't named today; see the two defects below."""
    return known.damage is not None and (plan.action == Action.SUSPECT or entry.kind == Kind.FOLDER)


@RULE
@given(questions())
def test_same_facts_same_plan(question: tuple[Entry, Facts]) -> None:
    entry, known = question
    assert planner.plan_entry(entry, known, CONTEXT) == planner.plan_entry(entry, known, CONTEXT)


@RULE
@given(questions())
def test_numbers_never_go_back(question: tuple[Entry, Facts]) -> None:
    """A version takes exactly the number that the record held ready for it, and that number is spent."""
    plan = planner.plan_entry(*question, CONTEXT)
    old = plan.before
    if old is None:
        assert (plan.record.number, plan.record.kept_versions, plan.archived) == (1, 0, None)
        return
    assert plan.record.number == old.number + (plan.archived is not None)
    assert plan.archived is None or plan.archived.number == old.number
    counts = (
        plan.archived is not None and plan.archived.status == VersionStatus.KEPT and not plan.archived.pinned
    )
    assert plan.record.kept_versions == old.kept_versions + counts


@RULE
@given(questions())
def test_no_old_content_is_given_up_in_silence(question: tuple[Entry, Facts]) -> None:
    """After every step the old content has a name; where it was lost before, the plan says so."""
    entry, known = question
    plan = planner.plan_entry(entry, known, CONTEXT)
    for files in stages(plan, known):
        assert ("old" in files.values()) == ("old" in before(known).values())
    if plan.archived is not None:
        assert plan.archived.status == (VersionStatus.KEPT if known.damage is None else VersionStatus.LOST)
    if plan.archived is not None and known.damage is not None and not is_told_elsewhere(entry, known, plan):
        assert plan.warning is not None
        assert "lost" in plan.warning


@RULE
@given(replacements())
def test_a_path_s_content_is_there_after_every_step(question: tuple[Entry, Facts]) -> None:
    """Under its old name, or under the new one, whole: never under none, as long as it is a file or link."""
    entry, known = question
    plan = planner.plan_entry(entry, known, CONTEXT)
    assert known.record is not None
    names = {planner.stored_at(known.record, CONTEXT.place), plan.stored_at}
    for files in list(stages(plan, known))[:-1]:
        assert any(name in files for name in names)


@RULE
@given(questions())
def test_afterwards_everything_lies_where_the_state_says(question: tuple[Entry, Facts]) -> None:
    """The new record's place holds the latest content, the version's place the old one, and nothing else
    of the path is left."""
    entry, known = question
    plan = planner.plan_entry(entry, known, CONTEXT)
    *_, files = stages(plan, known)
    expected: dict[bytes, str] = {}
    if entry.kind in (Kind.FILE, Kind.LINK):
        at = planner.stored_at(plan.record, CONTEXT.place)
        assert at is not None
        assert plan.stored_at == at
        expected[at] = "new" if any(isinstance(step, Store) for step in plan.steps) else "old"
    if plan.archived is not None and plan.archived.status == VersionStatus.KEPT:
        expected[b"versions/in/a/v%d.bak" % plan.archived.number] = "old"
    assert {name: content for name, content in files.items() if content != "foreign"} == expected


@RULE
@given(questions())
def test_new_names_come_first(question: tuple[Entry, Facts]) -> None:
    """Every removal of a name comes after all that are made, but for an emptied folder's."""
    steps = planner.plan_entry(*question, CONTEXT).steps
    if RemoveFolder in map(type, steps):
        steps = steps[1:]
    made = [n for n, step in enumerate(steps) if isinstance(step, Archive | Store | Move | Pin)]
    removed = [n for n, step in enumerate(steps) if isinstance(step, Remove | RemoveFolder)]
    assert not made or not removed or max(made) < min(removed)


@RULE
@given(questions())
def test_records_are_what_the_state_can_hold(question: tuple[Entry, Facts]) -> None:
    """Only files are duplicates, each with its original; what was found is present; SKIP does nothing; an
    action has a reason."""
    entry, known = question
    plan = planner.plan_entry(entry, known, CONTEXT)
    record = plan.record
    assert record.is_present
    assert (record.kind, record.digest, record.target) == (entry.kind, entry.digest, entry.target)
    assert (record.area == Area.DUPLICATE) == (record.original is not None)
    assert record.area != Area.DUPLICATE or record.kind == Kind.FILE
    assert record.since_run in {CONTEXT.run, known.record.since_run if known.record else CONTEXT.run}
    assert plan.action is not Action.SKIP or plan.steps == ()
    assert plan.action is None or plan.reason
    assert not plan.closes or (plan.before is not None and record.since_run == CONTEXT.run)


# -- losses that aren't named -----------------------------------------------------------------------------

OLD = Record(PATH, Kind.FILE, stat.S_IFREG | 0o600, 1, 1, 1, 1, 1, 3, b"one", None, 0, None, 1, 0, 1, 0)
FILE = Entry(PATH, Kind.FILE, Stat(stat.S_IFREG | 0o600, 1, 1, 1, 1, 1, 3), b"two", None, False)
FOLDER = Entry(PATH, Kind.FOLDER, Stat(stat.S_IFDIR | 0o700, 1, 1, 1, 1, 1, 3), None, None, False)


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        pytest.param(
            FOLDER, Facts(OLD._replace(area=Area.DELETED), None, "gone"), id="comes back as a folder"
        ),
        pytest.param(FILE, Facts(OLD, None, "gone"), id="suspect"),
    ],
)
def test_every_loss_is_named(entry: Entry, known: Facts) -> None:
    """Honest (promise 7): as for any other path whose stored file is gone when it changes."""
    plan = planner.plan_entry(entry, known, CONTEXT)
    assert plan.archived is not None
    assert plan.archived.status == VersionStatus.LOST
    assert "lost" in (plan.warning or "")
