"""The decisions of section 3 of the design, as a table: every action, every case of the planner's docstring.

The rules over all facts are in `test_planner_rules.py`.
"""

from __future__ import annotations

import stat
from typing import Any, NamedTuple

import pytest

from pipeline import planner
from pipeline.layout import SourcePlace
from pipeline.model.plan import (
    Action,
    Archive,
    DeleteVersion,
    MakeFolder,
    Move,
    OpenFolder,
    Pin,
    Plan,
    Remove,
    RemoveFolder,
    SetMetadata,
    Step,
    Store,
)
from pipeline.model.record import PENDING_MODE, Area, Entry, Kind, Record, Stat, Version, VersionStatus
from pipeline.planner import Context, Facts

CONTEXT = Context(SourcePlace(b"docs", at_root=True), run=7)
PATH = b"docs\0a"
TYPE = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.LINK: stat.S_IFLNK,
    Kind.SPECIAL: stat.S_IFIFO,
}
FILE, FOLDER, LINK, SPECIAL = Kind
LIVE, DUPLICATE, DELETED = Area


def entry(kind: Kind = FILE, content: bytes = b"one", mode: int = 0o644, **stat_fields: Any) -> Entry:
    fields = {"uid": 1, "gid": 2, "mtime_ns": 3, "ctime_ns": 4, "inode": 5, "size": len(content)}
    found = Stat(mode=TYPE[kind] | mode, **{**fields, **stat_fields})
    digest = content if kind == FILE else None
    return Entry(PATH, kind, found, digest, content if kind == LINK else None, False)


def record(kind: Kind = FILE, content: bytes | None = b"one", area: Area = LIVE, **fields: Any) -> Record:
    """As `entry` would have recorded it in run 3, after two versions. content: None for a lost one."""
    mode = fields.pop("mode", 0o644)
    known = Record(
        PATH, kind, TYPE[kind] | mode, 1, 2, 3, 4, 5, 3, content if kind == FILE else None,
        content if kind == LINK else None, area, b"docs\0b" if area == DUPLICATE else None, 3, 2, 3, 0,
    )  # fmt: skip
    return known._replace(**fields)


def version(number: int, status: VersionStatus = VersionStatus.KEPT, **fields: Any) -> Version:
    ended = None if status == VersionStatus.KEPT else CONTEXT.run
    return Version(PATH, number, FILE, 3, b"one", None, 3, 0, status, ended)._replace(**fields)


class Case(NamedTuple):
    """What is found and known, and the decision: action, reason, steps, area, closes, archived, warning.

    warning: a word of it, or None.
    """

    found: Entry
    facts: Facts
    action: Action | None
    reason: str
    steps: tuple[Step, ...]
    area: Area = LIVE
    closes: bool = False
    archived: Version | None = None
    warning: str | None = None


LINK_V3 = version(3, kind=LINK, digest=None, target=b"one")
KNOWN, GONE, TWO = Facts(record()), Facts(record(area=DELETED)), b"two"
V3, A, DUP, DEL = b"versions/a/v3.bak", b"a", b"_duplicates/a", b"_deleted/a"
TO_V3 = (Archive(A, V3), Store(A, True))

CASES: dict[str, Case] = {
    # 1. new, or nothing of it is stored
    "1 new path": Case(entry(), Facts(None), Action.BACKUP, "new path", (Store(A, False),)),
    "1 new duplicate": Case(
        entry(), Facts(None, b"docs\0b"), Action.DUPLICATE, "same content as b", (Store(DUP, False),),
        DUPLICATE
    ),
    "1 new link": Case(entry(LINK), Facts(None), Action.BACKUP, "new path", (Store(A, False),)),
    "1 a link is never a duplicate": Case(
        entry(LINK), Facts(None, b"docs\0b"), Action.BACKUP, "new path", (Store(A, False),)
    ),
    "1 new special": Case(entry(SPECIAL), Facts(None), None, "new path", ()),
    "1 deleted, nothing stored": Case(
        entry(), Facts(record(content=None, area=DELETED)), Action.BACKUP, "came back", (Store(A, False),)
    ),
    "1 deleted folder comes back as a file": Case(
        entry(), Facts(record(FOLDER, area=DELETED)), Action.BACKUP, "came back",
        (RemoveFolder(A), Store(A, False)),
    ),
    # 2. comes back with the same content
    "2 came back": Case(entry(), GONE, Action.BACKUP, "came back", (Move(DEL, A),)),
    "2 came back with other metadata": Case(
        entry(mode=0o600), GONE, Action.BACKUP, "came back", (Move(DEL, A), SetMetadata(A))
    ),
    "2 came back as a duplicate": Case(
        entry(), Facts(record(area=DELETED), b"docs\0b"), Action.DUPLICATE, "came back, same content as b",
        (Move(DEL, DUP),), DUPLICATE,
    ),
    # 3. comes back as something else
    "3 other content": Case(
        entry(content=TWO), GONE, Action.BACKUP, "came back with other content", (Move(DEL, V3),
        Store(A, False)),
        archived=version(3),
    ),
    "3 as a link": Case(
        entry(LINK), GONE, Action.BACKUP, "came back with other content", (Move(DEL, V3), Store(A, False)),
        archived=version(3),
    ),
    "3 as a special": Case(
        entry(SPECIAL), GONE, None, "came back with other content", (Move(DEL, V3),), archived=version(3)
    ),
    "3 as a folder": Case(
        entry(FOLDER), GONE, None, "folder", (Move(DEL, V3), MakeFolder(A)), archived=version(3)
    ),
    "3 what was kept is damaged": Case(
        entry(), Facts(record(area=DELETED), None, "gone"), Action.BACKUP, "came back with other content",
        (Store(A, False),), archived=version(3, VersionStatus.LOST), warning="lost",
    ),
    # 4. same content, stored file damaged
    "4 gone": Case(
        entry(), Facts(record(), None, "gone"), Action.BACKUP, "stored file was gone", (Store(A, False),),
        warning="gone behind our back",
    ),
    "4 a changed duplicate": Case(
        entry(), Facts(record(area=DUPLICATE), b"docs\0b", "changed"), Action.DUPLICATE,
        "stored file was changed", (Store(DUP, False),), DUPLICATE, warning="changed behind our back",
    ),
    "4 with other metadata": Case(
        entry(mode=0o600), Facts(record(), None, "gone"), Action.BACKUP, "stored file was gone",
        (Store(A, False),), closes=True, warning="stored again",
    ),
    # 5. same content
    "5 unchanged": Case(entry(), KNOWN, Action.SKIP, "unchanged", ()),
    "5 other ctime and inode": Case(entry(ctime_ns=9, inode=9), KNOWN, Action.SKIP, "unchanged", ()),
    "5 unchanged duplicate": Case(
        entry(), Facts(record(area=DUPLICATE)), Action.SKIP, "unchanged", (), DUPLICATE
    ),
    "5 mode": Case(entry(mode=0o600), KNOWN, Action.METADATA, "mode differs", (SetMetadata(A),), closes=True),
    "5 owner": Case(entry(uid=9), KNOWN, Action.METADATA, "owner differs", (SetMetadata(A),), closes=True),
    "5 group": Case(entry(gid=9), KNOWN, Action.METADATA, "owner differs", (SetMetadata(A),), closes=True),
    "5 all three": Case(
        entry(mode=0, uid=9, mtime_ns=9), KNOWN, Action.METADATA, "mode and owner and mtime differ",
        (SetMetadata(A),), closes=True,
    ),
    "5 a duplicate stays one, its original untouched": Case(
        entry(mtime_ns=9), Facts(record(area=DUPLICATE), b"docs\0c"), Action.METADATA, "mtime differs",
        (SetMetadata(DUP),), DUPLICATE, closes=True,
    ),
    "5 special": Case(
        entry(SPECIAL, mtime_ns=9), Facts(record(SPECIAL)), None, "mtime differs", (), closes=True
    ),
    # 6. other content or another kind
    "6 modified": Case(
        entry(content=TWO, mtime_ns=9), KNOWN, Action.MODIFIED, "content differs", TO_V3,
        closes=True, archived=version(3),
    ),
    "6 the original becomes a duplicate": Case(
        entry(content=TWO, mtime_ns=9), Facts(record(), b"docs\0b"), Action.MODIFIED, "content differs",
        (Archive(A, V3), Store(DUP, False), Remove(A)), DUPLICATE, True, version(3),
    ),
    "6 a duplicate gets a content of its own": Case(
        entry(content=TWO, mtime_ns=9), Facts(record(area=DUPLICATE)), Action.MODIFIED, "content differs",
        (Archive(DUP, V3), Store(A, False), Remove(DUP)), LIVE, True, version(3),
    ),
    "6 other target": Case(
        entry(LINK, TWO), Facts(record(LINK)), Action.MODIFIED, "target differs", TO_V3, closes=True,
        archived=LINK_V3,
    ),
    "6 the old content is damaged": Case(
        entry(content=TWO, mtime_ns=9), Facts(record(), None, "changed"), Action.MODIFIED, "content differs",
        (Store(A, False),), closes=True, archived=version(3, VersionStatus.LOST), warning="lost",
    ),
    "6 suspect": Case(
        entry(content=TWO), KNOWN, Action.SUSPECT, "content differs, metadata unchanged",
        (Archive(A, V3), Pin(b"versions/a/v3.pinned"), Store(A, True)), closes=True,
        archived=version(3, pinned=1), warning="bit rot",
    ),
    "6 other size": Case(
        entry(content=b"three"), KNOWN, Action.MODIFIED, "content differs", TO_V3, closes=True,
        archived=version(3),
    ),
    "6 never suspect while unsettled": Case(
        entry(content=TWO), Facts(record(unsettled=1)), Action.MODIFIED, "content differs", TO_V3,
        closes=True,
        archived=version(3),
    ),
    "6 the lost content is stored again": Case(
        entry(), Facts(record(content=None)), Action.BACKUP, "its stored content was lost", (Store(A, False),)
    ),
    "6 file became a link": Case(
        entry(LINK), KNOWN, Action.MODIFIED, "file became a link", TO_V3, closes=True, archived=version(3)
    ),
    "6 link became a file": Case(
        entry(), Facts(record(LINK)), Action.MODIFIED, "link became a file", TO_V3, closes=True,
        archived=LINK_V3,
    ),
    "6 file became a special": Case(
        entry(SPECIAL), KNOWN, Action.MODIFIED, "file became a special", (Archive(A, V3), Remove(A)),
        closes=True, archived=version(3),
    ),
    "6 file became a folder": Case(
        entry(FOLDER), KNOWN, Action.MODIFIED, "file became a folder",
        (Archive(A, V3), Remove(A), MakeFolder(A)), closes=True, archived=version(3),
    ),
    "6 duplicate became a folder": Case(
        entry(FOLDER), Facts(record(area=DUPLICATE)), Action.MODIFIED, "file became a folder",
        (Archive(DUP, V3), Remove(DUP), MakeFolder(A)), closes=True, archived=version(3),
    ),
    "6 folder became a file": Case(
        entry(), Facts(record(FOLDER)), Action.BACKUP, "folder became a file",
        (RemoveFolder(A), Store(A, False)), closes=True,
    ),
    "6 folder became a duplicate": Case(
        entry(), Facts(record(FOLDER), b"docs\0b"), Action.DUPLICATE,
        "folder became a file, same content as b", (RemoveFolder(A), Store(DUP, False)), DUPLICATE, True,
    ),
    "6 special became a file": Case(
        entry(), Facts(record(SPECIAL)), Action.BACKUP, "special became a file", (Store(A, False),),
        closes=True,
    ),
    # folders
    "folder new": Case(entry(FOLDER), Facts(None), None, "folder", (MakeFolder(A),)),
    "folder came back": Case(
        entry(FOLDER), Facts(record(FOLDER, area=DELETED)), None, "folder", (MakeFolder(A),)
    ),
    "folder unchanged": Case(entry(FOLDER), Facts(record(FOLDER)), None, "", ()),
    "folder mtime": Case(
        entry(FOLDER, mtime_ns=9), Facts(record(FOLDER)), None, "mtime differs", (), closes=True
    ),
    "folder mode": Case(
        entry(FOLDER, mode=0o700), Facts(record(FOLDER)), None, "folder", (MakeFolder(A),), closes=True
    ),
    "folder gone in the backup": Case(
        entry(FOLDER), Facts(record(FOLDER), None, "gone"), None, "folder", (MakeFolder(A),)
    ),
    "folder left pending by a cut run": Case(
        entry(FOLDER), Facts(record(FOLDER)._replace(mode=PENDING_MODE)), None, "folder", (MakeFolder(A),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_decided_for_an_entry(name: str) -> None:
    case = CASES[name]
    plan = planner.plan_entry(case.found, case.facts, CONTEXT)
    assert (plan.action, plan.reason) == (case.action, case.reason)
    assert plan.steps == case.steps
    assert (plan.record.area, plan.closes, plan.archived) == (case.area, case.closes, case.archived)
    assert plan.warning is None if case.warning is None else case.warning in (plan.warning or "")
    assert plan.before == case.facts.record


def test_every_action_of_the_scan_is_in_the_table() -> None:
    after_the_scan = {Action.DELETE, Action.PROMOTE, Action.RETENTION}
    assert {case.action for case in CASES.values()} - {None} == set(Action) - after_the_scan


# -- after the scan ---------------------------------------------------------------------------------------


class After(NamedTuple):
    """A plan that is made from the state alone, and what it should be. changes: of the record."""

    plan: Plan
    action: Action | None
    reason: str
    steps: tuple[Step, ...]
    changes: dict[str, Any]
    archived: Version | None = None
    warning: str | None = None


LOST = {"digest": None, "target": None, "number": 4}
AFTER: dict[str, After] = {
    "delete": After(
        planner.plan_delete(record(), None, CONTEXT, "gone"), Action.DELETE, "gone", (Move(A, DEL),),
        {"area": DELETED, "since_run": 7},
    ),
    "delete a duplicate": After(
        planner.plan_delete(record(area=DUPLICATE), None, CONTEXT, "gone"), Action.DELETE, "gone",
        (Move(DUP, DEL),), {"area": DELETED, "original": None, "since_run": 7},
    ),
    "delete a damaged one": After(
        planner.plan_delete(record(), "gone", CONTEXT, "why"), Action.DELETE, "why", (),
        {"area": DELETED, "since_run": 7, **LOST}, version(3, VersionStatus.LOST), "lost",
    ),
    "delete a folder": After(
        planner.plan_delete(record(FOLDER), None, CONTEXT, "gone"), None, "gone", (RemoveFolder(A),),
        {"area": DELETED, "since_run": 7},
    ),
    "delete a special": After(
        planner.plan_delete(record(SPECIAL), None, CONTEXT, "gone"), None, "gone", (),
        {"area": DELETED, "since_run": 7},
    ),
    "make way": After(
        planner.plan_make_way(record(area=DELETED), None, CONTEXT), None, "stood in the way",
        (Move(DEL, V3),),
        {**LOST, "kept_versions": 3}, version(3),
    ),
    "make way, damaged": After(
        planner.plan_make_way(record(area=DELETED), "gone", CONTEXT), None, "stood in the way", (), LOST,
        version(3, VersionStatus.LOST), "lost",
    ),
    "promote": After(
        planner.plan_promote(record(area=DUPLICATE), None, CONTEXT), Action.PROMOTE, "its original b is gone",
        (Move(DUP, A),), {"area": LIVE, "original": None},
    ),
    "promote a damaged one": After(
        planner.plan_promote(record(area=DUPLICATE), "gone", CONTEXT), None, "forgotten", (),
        {"area": LIVE, "original": None, "since_run": 7, **LOST}, version(3, VersionStatus.LOST), "again",
    ),
    "new original": After(
        planner.plan_new_original(record(area=DUPLICATE), b"docs\0c"), None, "new original", (),
        {"original": b"docs\0c"},
    ),
    "forget": After(
        planner.plan_forget(record(), "lost", CONTEXT), None, "forgotten", (), {"since_run": 7, **LOST},
        version(3, VersionStatus.LOST), "again",
    ),
    "retention": After(
        planner.plan_retention(record(), version(1), "more than 1 versions", CONTEXT), Action.RETENTION,
        "version 1: more than 1 versions", (DeleteVersion(b"versions/a/v1.bak", None),), {"kept_versions": 1},
        version(1, VersionStatus.PRUNED, ended_why="more than 1 versions"),
    ),
    "retention of the highest": After(
        planner.plan_retention(record(), version(2), "more than 0 versions", CONTEXT), Action.RETENTION,
        "version 2: more than 0 versions", (DeleteVersion(b"versions/a/v2.bak", b"versions/a/v2.pruned"),),
        {"kept_versions": 1}, version(2, VersionStatus.PRUNED, ended_why="more than 0 versions"),
    ),
    "drop what was deleted": After(
        planner.plan_drop_deleted(record(area=DELETED), "old", CONTEXT), Action.RETENTION, "old",
        (DeleteVersion(DEL, b"versions/a/v3.pruned"),), LOST,
        version(3, VersionStatus.PRUNED, ended_why="old"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER)
def test_what_is_decided_after_the_scan(name: str) -> None:
    case = AFTER[name]
    plan = case.plan
    assert plan.before is not None
    assert (plan.action, plan.reason, plan.steps) == (case.action, case.reason, case.steps)
    assert plan.record == plan.before._replace(**case.changes)
    assert plan.archived == case.archived
    assert plan.warning is None if case.warning is None else case.warning in (plan.warning or "")


def test_a_deleted_path_stays_deleted_when_its_kept_content_is_lost() -> None:
    """Nothing can be stored again for it: the source doesn't have it any more."""
    assert not planner.plan_forget(record(area=DELETED), "lost", CONTEXT).record.is_present


def test_a_folder_is_opened_up_without_set_id_bits_and_never_closed_to_its_owner() -> None:
    pending = record(FOLDER)._replace(mode=PENDING_MODE)
    plan = planner.plan_open_folder(pending, entry(FOLDER, mode=0o6055), CONTEXT)
    assert plan.steps == (OpenFolder(A, 0o755, 1, 2),)
    assert plan.record == pending._replace(mode=stat.S_IFDIR | 0o6055)


@pytest.mark.parametrize(
    ("change", "stays"), [({}, True), ({"mode": 0o600}, False), ({"mtime_ns": 9}, False)]
)
def test_a_name_of_a_file_stays_one_while_all_is_as_it_was(change: dict[str, int], stays: bool) -> None:
    """What has changed of one name alone may not be brought back as the first one was; a look at all names
    finds out whether they are still one."""
    known = record(links=2, linked_to=b"docs\0first")
    plan = planner.plan_entry(entry(links=2, **change), Facts(known), CONTEXT)
    assert plan.record.linked_to == (b"docs\0first" if stays else None)
