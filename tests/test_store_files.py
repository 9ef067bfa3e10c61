"""The writer of final names, against a real folder: recovery does every operation again (promise 5), and what
isn't ours is never overwritten or unlinked (promise 1).

The cases of `Place` are those numbered in `store/files.py`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from stores import OWNER, Store, hash_of, place

from pipeline.model.record import Stat
from pipeline.store import calls, system
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

Group: TypeAlias = Callable[[Store], list[Operation]]
ME = (os.geteuid(), os.getegid())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "backup")
    yield store
    store.close()


# -- groups as the journal makes them ---------------------------------------------------------------------


def new_file(store: Store) -> list[Operation]:
    return [MakePrivate(b"d"), place("d/a", store.stage("s")), OpenUp(b"d", 0o755, *ME)]


def modified(store: Store) -> list[Operation]:
    store.put("a")
    staged, old, *_ = store.adopt("a")
    version = Place(staged, b"versions/a/v1.bak", old, OWNER, 1, None)
    return [version, Mark(b"versions/a/v1.pinned"), place("a", store.stage("s"), replaces=old)]


def became_duplicate(store: Store) -> list[Operation]:
    store.put("a")
    staged, old, *_ = store.adopt("a")
    version = Place(staged, b"versions/a/v1.bak", old, OWNER, 1, None)
    return [version, place("_duplicates/a", store.stage("s")), Remove(b"a", old)]


def deleted(store: Store) -> list[Operation]:
    store.put("_duplicates/d/e/a")
    staged, old, *_ = store.adopt("_duplicates/d/e/a")
    return [Place(staged, b"_deleted/d/e/a", old, OWNER, 0, None), Remove(b"_duplicates/d/e/a", old)]


def retention(store: Store) -> list[Operation]:
    identity = store.put("versions/a/v1.bak")
    return [Mark(b"versions/a/v1.pruned"), Remove(b"versions/a/v1.bak", identity)]


def metadata(store: Store) -> list[Operation]:
    identity = store.put("a")
    return [Describe(b"a", identity.inode, False, 0o640, *ME, 12_000_000_000)]


def new_link(store: Store) -> list[Operation]:
    staged = store.staging.new_link(b"/nowhere", Stat(0o120777, *ME, 5 * 10**9, 0, 0, 8))
    describe = Describe(b"l", staged.identity.inode, True, 0, *ME, 6 * 10**9)
    return [place("l", staged.identity, os.fsdecode(staged.name)), describe]


def removed_folder(store: Store) -> list[Operation]:
    (store.root / "d/e").mkdir(parents=True)
    return [RemoveEmpty(b"d/e"), RemoveEmpty(b"d")]


def full_folder(store: Store) -> list[Operation]:
    store.put("d/a")
    return [RemoveEmpty(b"d"), MakePrivate(b"f/g/h"), OpenUp(b"f", 0o700, *ME)]


GROUPS: list[Group] = [
    new_file, modified, became_duplicate, deleted, retention, metadata, new_link, removed_folder, full_folder,
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_once_or_twice_is_the_same(store: Store, group: Group) -> None:
    """Idempotent, each operation by itself and all together, as recovery does them."""
    for operation in (operations := group(store)):
        assert store.apply(operation) == []
        once = store.snapshot()
        assert store.apply(operation, redo=True) == []
        assert store.snapshot() == once
    assert store.apply(*operations, redo=True) == []
    assert store.snapshot() == once
    assert store.causes() == []
    assert list(store.staging_path.iterdir()) == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_cut_after_any_operation_is_mended(tmp_path: Path, group: Group) -> None:
    """A prefix of the group, then all of it again, gives what the group gives."""
    results = []
    for done in range(10):
        store = Store(tmp_path / str(done))
        operations = group(store)
        store.apply(*operations[:done])
        assert store.apply(*operations, redo=True) == []
        results.append((store.snapshot(), store.causes()))
        store.close()
    assert all(result == results[-1] for result in results)


def test_every_kind_of_operation_is_tried(tmp_path: Path) -> None:
    tried: set[type] = set()
    for number, group in enumerate(GROUPS):
        store = Store(tmp_path / str(number))
        tried.update(map(type, group(store)))
        store.close()
    assert tried == {Place, Remove, MakePrivate, OpenUp, RemoveEmpty, Describe, Mark}


# -- the cases of Place -----------------------------------------------------------------------------------


@pytest.mark.parametrize("redo", [False, True])
def test_case_1_the_target_is_free(store: Store, redo: bool) -> None:
    assert store.apply(place("d/e/a", store.stage("s")), redo=redo) == []
    assert store.contents("d/e/a", ".pipeline/staging/s") == ["new", None]


@pytest.mark.parametrize("redo", [False, True])
def test_case_2_both_are_names_of_one_file(store: Store, redo: bool) -> None:
    """`rename` between two names of one file does nothing and leaves both."""
    identity = store.stage("s")
    os.link(store.staging_path / "s", store.root / "a")
    assert store.apply(place("a", identity), redo=redo) == []
    assert store.contents("a", ".pipeline/staging/s") == ["new", None]
    assert store.causes() == []


@pytest.mark.parametrize("redo", [False, True])
def test_case_3_what_is_meant_is_replaced(store: Store, redo: bool) -> None:
    old = store.put("a")
    assert store.apply(place("a", store.stage("s"), replaces=old), redo=redo) == []
    assert store.contents("a", ".pipeline/staging/s") == ["new", None]
    assert (store.causes(), store.quarantine()) == ([], [])


def foreign_file(store: Store) -> None:
    store.put("a", b"foreign")


def foreign_of_the_same_size(store: Store) -> None:
    store.put("a", b"odd")


def foreign_folder(store: Store) -> None:
    store.put("a/inner", b"foreign")


def foreign_link(store: Store) -> None:
    store.put_link("a", "/nowhere")


def foreign_fifo(store: Store) -> None:
    os.mkfifo(store.root / "a")


FOREIGN = [foreign_file, foreign_of_the_same_size, foreign_folder, foreign_link, foreign_fifo]


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("put", FOREIGN)
def test_case_4_what_is_foreign_goes_to_quarantine(
    store: Store, put: Callable[[Store], None], replaces: bool, redo: bool
) -> None:
    """Also where something of ours was meant to be replaced: what stands there isn't it."""
    old = store.put("a") if replaces else None
    if old is not None:
        os.rename(store.root / "a", store.root / "kept")  # so that its inode isn't given to another file
    put(store)
    inode = (store.root / "a").lstat().st_ino
    assert store.apply(place("a", store.stage("s"), replaces=old), redo=redo) == []
    assert (store.root / "a").read_bytes() == b"new"
    assert store.quarantine() == ["1-a"]
    assert (store.quarantine_path / "1-a").lstat().st_ino == inode
    assert store.causes() == ["what stood here was not what was stored; moved to .pipeline/quarantine/1-a"]


def test_names_in_quarantine_are_never_used_twice(store: Store) -> None:
    for number in range(3):
        store.put("a", b"foreign %d" % number)
        store.apply(place("a", store.stage("s")))
    names = [f"{number}-a" for number in (1, 2, 3)]
    assert store.quarantine() == names
    assert store.contents(*(f".pipeline/quarantine/{name}" for name in names)) == [
        "foreign 0",
        "foreign 1",
        "foreign 2",
    ]


def test_a_name_of_255_bytes_goes_to_quarantine_too(store: Store) -> None:
    name = "ä" * 127
    store.put(name, b"foreign")
    store.apply(place(name, store.stage("s")))
    assert (store.root / name).read_bytes() == b"new"
    assert len(store.quarantine()) == 1


def test_a_name_in_quarantine_is_cut_between_characters(store: Store) -> None:
    """A file system that holds text alone takes it, too."""
    store.put("\u65e5" * 85)
    store.apply(place("\u65e5" * 85, store.stage("s")))
    [aside] = store.quarantine()
    assert aside == "1-" + "\u65e5" * 40


@pytest.mark.parametrize("target", ["a", "d/a"])
def test_a_name_that_is_never_there(store: Store, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Some file systems say so of what they can't hold: an error, and no search without end."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    staged = store.stage("s")
    monkeypatch.setattr(system, "rename_new", refuse)
    monkeypatch.setattr(calls, "mkdir", refuse)
    with pytest.raises(FileNotFoundError):
        store.apply(place(target, staged))


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("replaces", [False, True])
def test_case_5_it_was_done_before(store: Store, replaces: bool, redo: bool) -> None:
    old = store.put("old") if replaces else None
    identity = store.put("a", b"new")
    assert store.apply(place("a", identity, replaces=old), redo=redo) == []
    assert store.contents("a") == ["new"]
    assert (store.causes(), store.quarantine()) == ([], [])


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("redo", [False, True])
def test_case_6_it_still_has_its_old_name(store: Store, foreign: bool, redo: bool) -> None:
    """An old content that staging has lost gets its new name beside the old one."""
    identity = store.put("a")
    if foreign:
        store.put("versions/a/v1.bak", b"foreign")
    assert store.apply(place("versions/a/v1.bak", identity, origin="a"), redo=redo) == []
    assert store.contents("a", "versions/a/v1.bak") == ["old", "old"]
    assert store.quarantine() == (["1-v1.bak"] if foreign else [])
    assert list(store.staging_path.iterdir()) == []


@pytest.mark.parametrize("origin", ["", "gone", "gone/too", "odd", "odd/a"])
@pytest.mark.parametrize("target", [None, b"foreign"])
@pytest.mark.parametrize("redo", [False, True])
def test_case_7_it_is_nowhere(store: Store, target: bytes | None, origin: str, redo: bool) -> None:
    """The placement is given back as lost; what stands there isn't touched, and the group goes on."""
    if target is not None:
        store.put("a", target)
    store.put("odd", b"odd")
    lost = place("a", Identity(1, 3, hash_of(b"new"), None), origin=origin)
    assert store.apply(lost, place("b", store.stage("t"), "t"), redo=redo) == [lost]
    assert store.contents("a", "b") == [target.decode() if target else None, "new"]
    assert store.quarantine() == []


# -- identities -------------------------------------------------------------------------------------------


def copied(store: Store, at: str) -> None:
    """As on another disk: the same content under another inode."""
    path = store.root / at
    shutil.copy2(path, path.with_name("copy"))
    os.rename(path, store.root / "original")
    os.rename(path.with_name("copy"), path)


@pytest.mark.parametrize("group", [modified, became_duplicate, deleted, retention, metadata])
def test_a_copied_backup_is_recovered_by_content(store: Store, group: Group) -> None:
    """Inodes differ there; size and digest tell what is ours."""
    operations = group(store)
    for at in sorted(store.snapshot()):
        if (store.root / at).is_file():
            copied(store, at)
    assert store.apply(*operations, redo=True) == []
    assert (store.causes(), store.quarantine()) == ([], [])
    (store.root / "original").unlink()
    snapshot = store.snapshot()

    again = Store(store.root.with_name("again"))
    again.apply(*group(again))
    assert snapshot == again.snapshot()
    again.close()


def test_without_a_crash_an_equal_file_of_another_inode_is_foreign(store: Store) -> None:
    """Only recovery compares contents; otherwise what is ours is known exactly."""
    old = store.put("a")
    copied(store, "a")
    store.apply(Remove(b"a", old))
    assert store.contents("a") == ["old"]
    assert store.causes() == ["left alone: it is not what was stored here"]
    store.apply(Remove(b"a", old), redo=True)
    assert store.contents("a") == [None]


def test_a_content_of_the_same_size_is_told_apart(store: Store) -> None:
    old = store.put("a")
    store.put("a2", b"odd")
    os.replace(store.root / "a2", store.root / "a")
    store.apply(Remove(b"a", old), redo=True)
    assert store.contents("a") == ["odd"]


@pytest.mark.parametrize(("target", "expected"), [("there", None), ("elsewhere", "→ elsewhere")])
def test_a_link_is_known_by_its_target(store: Store, target: str, expected: str | None) -> None:
    store.put_link("l", target)
    store.apply(Remove(b"l", Identity(1, 5, None, b"there")))
    assert store.contents("l") == [expected]
