"""Whatever stands or appears below the backup root, no link is followed (promise 8, contained), paths may be
longer than the kernel takes at once, and handles stay few (promise 6).

Links are planted where the program has folders, with something outside that must stay as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Store, hash_of, place

from pipeline.model.record import Kind, Stat
from pipeline.store import calls
from pipeline.store.folders import Folders, Obstacle, split
from pipeline.store.metadata import permissions
from pipeline.store.operation import (
    Describe,
    Identity,
    MakePrivate,
    Mark,
    OpenUp,
    Operation,
    Remove,
    RemoveEmpty,
)
from pipeline.store.staging import Damaged, Expected, damage_of
from pipeline.store.staging_file import StagingFile, stage_small

ME = (os.geteuid(), os.getegid())
ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "backup")
    yield store
    store.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is nobody's business, with a file and an empty folder."""
    folder = tmp_path / "outside"
    (folder / "e").mkdir(parents=True)
    (folder / "a").write_bytes(b"old")
    return folder


def look(folder: Path) -> list[tuple[str, int, int, bytes]]:
    return [
        (
            path.name,
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    ]


def open_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- planted links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda store: place("d/a", store.stage("s")),
        lambda _: Mark(b"d/v1.pruned"),
        lambda _: MakePrivate(b"d"),
        lambda _: OpenUp(b"d", 0o777, *ME),
        lambda _: MakePrivate(b"d/inner"),
    ],
    ids=["Place", "Mark", "MakePrivate", "OpenUp", "MakePrivate below"],
)
@pytest.mark.parametrize("redo", [False, True])
def test_a_link_where_a_folder_is_needed_goes_to_quarantine(
    store: Store, outside: Path, make: object, redo: bool
) -> None:
    before = look(outside)
    store.put_link("d", str(outside))
    assert callable(make)
    store.apply(make(store), redo=redo)
    assert (store.root / "d").is_dir()
    assert not (store.root / "d").is_symlink()
    assert store.quarantine() == ["1-d"]
    assert len(store.causes()) == 1
    assert look(outside) == before


def removals(outside: Path) -> list[Operation]:
    inode = (outside / "a").stat().st_ino
    return [Remove(b"d/a", Identity(inode, 3, hash_of(b"old"), None)), RemoveEmpty(b"d/e"), RemoveEmpty(b"d")]


@pytest.mark.parametrize("redo", [False, True])
def test_nothing_is_removed_through_a_link(store: Store, outside: Path, redo: bool) -> None:
    before = look(outside)
    store.put_link("d", str(outside))
    store.apply(*removals(outside), redo=redo)
    assert (store.root / "d").is_symlink()
    assert look(outside) == before


@pytest.mark.parametrize("redo", [False, True])
def test_metadata_are_not_set_through_a_link(store: Store, outside: Path, redo: bool) -> None:
    """A link in a stored file's place is left alone."""
    before = look(outside)
    inode = store.put_link("a", str(outside / "a")).inode
    store.apply(Describe(b"a", inode, False, 0o777, *ME, 9), redo=redo)
    assert store.causes() == ["left alone: it is not what was stored here"]
    assert look(outside) == before


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("planted", ["link", "file"])
def test_metadata_of_a_file_whose_folder_was_replaced(
    store: Store, outside: Path, planted: str, redo: bool
) -> None:
    """As where the file itself is gone: reported, and the group goes on."""
    if planted == "link":
        store.put_link("d", str(outside))
    else:
        store.put("d")
    store.apply(Describe(b"d/a", 1, False, 0o777, *ME, 9), redo=redo)
    assert len(store.causes()) == 1


@pytest.mark.parametrize("planted", ["link", "folder"])
def test_a_foreign_thing_in_a_marker_s_place(store: Store, outside: Path, planted: str) -> None:
    """As for any other name: moved to quarantine and reported, never the end of a run."""
    if planted == "link":
        store.put_link("v1.pinned", str(outside / "new"))
    else:
        (store.root / "v1.pinned").mkdir()
    store.apply(Mark(b"v1.pinned"))
    assert store.quarantine() == ["1-v1.pinned"]


@pytest.mark.handles
def test_a_link_that_replaces_a_known_folder_is_seen(store: Store, outside: Path) -> None:
    """A kept handle still means the folder that it was opened for; nothing is written outside."""
    before = look(outside)
    store.apply(place("d/a", store.stage("s")))
    os.rename(store.root / "d", store.root / "moved")
    store.put_link("d", str(outside))
    store.apply(place("d/b", store.stage("s")))
    assert look(outside) == before


def test_a_folder_that_was_removed_behind_our_back_is_made_again(store: Store) -> None:
    store.apply(place("d/e/a", store.stage("s")))
    shutil.rmtree(store.root / "d")
    assert store.apply(place("d/e/a", store.stage("s"))) == []
    assert store.contents("d/e/a") == ["new"]


# -- folders ----------------------------------------------------------------------------------------------


def test_folders_are_private_until_they_are_opened_up(store: Store) -> None:
    store.apply(place("d/e/a", store.stage("s")))
    assert store.snapshot()["d/e"] == ("folder", 0o700)
    store.apply(MakePrivate(b"d"), OpenUp(b"d", 0o755, *ME))
    assert store.snapshot()["d"] == ("folder", 0o755)
    store.apply(MakePrivate(b"d"))
    assert store.snapshot()["d"] == ("folder", 0o700)


def test_only_empty_folders_are_removed(store: Store) -> None:
    store.put("d/foreign", b"foreign")
    store.apply(RemoveEmpty(b"d"), RemoveEmpty(b"gone"), RemoveEmpty(b"gone/too"))
    assert store.contents("d/foreign") == ["foreign"]
    assert store.causes() == []


@pytest.mark.parametrize(
    ("area", "pruned"), [("_duplicates", True), ("_deleted", True), ("versions", False), ("live", False)]
)
def test_no_empty_folder_is_left_in_the_mirroring_areas(store: Store, area: str, pruned: bool) -> None:
    """There a later file could need its name; the area itself stays."""
    identity = store.put(f"{area}/d/e/a")
    store.apply(Remove(f"{area}/d/e/a".encode(), identity))
    assert (store.root / area).is_dir()
    assert (store.root / area / "d").exists() is not pruned


def test_handles_stay_within_the_capacity(store: Store) -> None:
    folders = Folders(store.handles[0], capacity=3)
    before = open_handles()
    for number in range(12):
        calls.fstat(folders.make(b"a/b/c/%d" % number))
        assert open_handles() <= before + 3
    for path in (b"a/b/c/1", b"a", b"a/b/c/2", b"a/b", b""):
        calls.fstat(folders.at(path))
        assert open_handles() <= before + 3
    folders.close()
    assert open_handles() == before


def test_a_forgotten_folder_is_looked_up_again(store: Store) -> None:
    folders = Folders(store.handles[0])
    folders.make(b"d/e")
    folders.make(b"de")
    os.rename(store.root / "d", store.root / "moved")
    folders.forget(b"d")
    with pytest.raises(FileNotFoundError):
        folders.at(b"d/e")
    assert os.path.samestat(calls.fstat(folders.at(b"de")), (store.root / "de").stat())
    folders.close()


@pytest.mark.parametrize("planted", ["file", "link", "dangling link"])
def test_an_obstacle_is_told_with_its_place(store: Store, outside: Path, planted: str) -> None:
    if planted == "file":
        store.put("d/x")
    else:
        store.put_link("d/x", str(outside if planted == "link" else outside / "nothing"))
    folders = Folders(store.handles[0])
    with pytest.raises(Obstacle) as met:
        folders.make(b"d/x/y")
    assert (met.value.path, met.value.name) == (b"d/x", b"x")
    assert os.path.samestat(calls.fstat(met.value.parent), (store.root / "d").stat())
    folders.close()


@pytest.mark.handles
def test_paths_may_be_longer_than_the_kernel_takes(store: Store) -> None:
    deep = "/".join(["d" * 250] * 20)
    target = f"{deep}/a"
    assert len(target) > 4096
    identity = store.stage("s")
    operation = place(target, identity)
    assert store.apply(operation) == []
    assert store.apply(operation, redo=True) == []
    folder, name = split(target.encode())
    assert os.stat(name, dir_fd=store.files.folders.at(folder)).st_ino == identity.inode
    store.apply(Describe(target.encode(), identity.inode, False, 0o640, *ME, 5 * 10**9))
    assert os.stat(name, dir_fd=store.files.folders.at(folder)).st_mode & 0o777 == 0o640
    store.apply(Remove(target.encode(), identity))
    while folder:
        store.apply(RemoveEmpty(folder))
        folder = split(folder)[0]
    assert store.snapshot().keys() == {".pipeline", ".pipeline/quarantine", ".pipeline/staging"}
    assert store.causes() == []


# -- staging ----------------------------------------------------------------------------------------------


def test_a_stored_file_gets_a_second_name(store: Store) -> None:
    identity = store.put("d/a")
    staged = store.adopt("d/a")
    assert staged.identity == identity
    assert (store.staging_path / os.fsdecode(staged.name)).stat().st_ino == identity.inode
    store.staging.discard(staged.name)
    assert store.contents("d/a") == ["old"]


@pytest.mark.parametrize(
    ("replace", "how"),
    [
        (None, "gone"),
        (b"other", "changed"),
        (b"odd", "changed"),
        ("link", "changed"),
        ("folder", "changed"),
        ("parent", "gone"),
    ],
)
def test_damage_is_seen_before_anything_is_done(store: Store, replace: bytes | str | None, how: str) -> None:
    """By name, kind, size and mtime: the quick look."""
    store.put("d/a")
    os.utime(store.root / "d/a", ns=(1, 10**18))
    expected = store.expected("d/a")
    (store.root / "d/a").unlink()
    if isinstance(replace, bytes):
        store.put("d/a", replace)
    elif replace == "link":
        store.put_link("d/a", "b")
    elif replace == "folder":
        (store.root / "d/a").mkdir()
    elif replace == "parent":
        (store.root / "d").rmdir()
        store.put_link("d", str(store.root))
        store.put("a")
        os.utime(store.root / "a", ns=(1, 10**18))
    with pytest.raises(Damaged) as met:
        store.staging.adopt(b"d/a", expected)
    assert met.value.how == how
    assert damage_of(store.files.folders, b"d/a", expected) == how
    assert list(store.staging_path.iterdir()) == []


def test_staged_files_are_made_exclusively_and_get_their_metadata_first(store: Store) -> None:
    store.put_link(".pipeline/staging/planted", str(store.root / "elsewhere"))
    with pytest.raises(FileExistsError):
        StagingFile(store.handles[1], b"planted")
    staged = StagingFile(store.handles[1], b"1-1")
    assert (store.staging_path / "1-1").stat().st_mode & 0o777 == 0o600
    staged.write(memoryview(b"content"))
    inode, _, _ = staged.finish(Stat(0o106755, *ME, 7 * 10**9, 0, 0, 7), permissions(0o106755))
    found = (store.staging_path / "1-1").stat()
    assert (found.st_ino, found.st_mode & 0o7777, found.st_mtime_ns) == (inode, 0o755, 7 * 10**9)
    assert not (store.root / "elsewhere").exists()


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o644, 0o1777, 0o400, 0])
def test_small_files_are_staged_as_large_ones_are(store: Store, mode: int, umask: int) -> None:
    """Whatever the umask: mode, owner, time, bytes; and nothing is written through what was planted."""
    store.put_link(".pipeline/staging/planted", str(store.root / "elsewhere"))
    found = Stat(mode, *ME, 7 * 10**9, 0, 0, 7)
    before = os.umask(umask)
    try:
        inode = stage_small(store.handles[1], b"1-1", b"content", found, mode)
        with pytest.raises(FileExistsError):
            stage_small(store.handles[1], b"planted", b"content", found, mode)
    finally:
        os.umask(before)
    made = (store.staging_path / "1-1").stat()
    assert (made.st_ino, made.st_mode & 0o7777, made.st_mtime_ns) == (inode, mode, 7 * 10**9)
    assert (made.st_uid, made.st_gid) == ME
    os.chmod(store.staging_path / "1-1", 0o600)
    assert (store.staging_path / "1-1").read_bytes() == b"content"
    assert not (store.root / "elsewhere").exists()


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o104755, 0o755), (0o102644, 0o644), (0o101777, 0o1777), (0, 0)]
)
def test_nothing_in_a_backup_runs_with_somebody_s_rights(mode: int, expected: int) -> None:
    assert permissions(mode) == expected


def test_sweeping_leaves_nothing(store: Store) -> None:
    """Whatever a cut run has left there; what else has the same inode keeps it."""
    store.put("a")
    store.adopt("a")
    store.stage("1-1")
    store.put_link(".pipeline/staging/l", "/nowhere")
    store.staging.sweep()
    assert list(store.staging_path.iterdir()) == []
    assert store.contents("a") == ["old"]


def test_a_sweep_beside_somebody_who_tidies_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine, a task of a run that was cut may still be at work, and take away what it has
    written in the moment in which that is swept."""
    store.stage("1-1")
    store.stage("1-2")
    unlink = calls.unlink

    def unlink_twice(name: bytes, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(calls, "unlink", unlink_twice)
    store.staging.sweep()
    assert list(store.staging_path.iterdir()) == []


def test_a_link_is_expected_by_its_target(store: Store) -> None:
    store.put_link("l", "there")
    for target, damage in ((b"there", None), (b"elsewhere", "changed")):
        expected = Expected(Kind.LINK, 5, None, target, 0)
        assert damage_of(store.files.folders, b"l", expected) == damage
