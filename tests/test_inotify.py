"""What a watch hears: on Linux through an emitter of our own, elsewhere through watchdog's, or by polling.

The promise behind all of it: whatever happens to a path, a hint names it, or a folder above it as a whole, or
everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import REPOSITORY, wait_until
from patterns import lines
from trees import write_tree
from watchdog.events import FileModifiedEvent
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from pipeline.config import load
from pipeline.filters import Filter
from pipeline.model import treepath
from pipeline.model.errors import ObserverError
from pipeline.watching.hints import Handler, Hints, LeftOut
from pipeline.watching.inotify import TreeEmitter
from pipeline.watching.observers import Observers, TreeRules
from pipeline.watching.pending import Delays, Pending

NEVER_S = 3600.0
DELAYS = Delays(60.0, NEVER_S, NEVER_S, NEVER_S)
SETTINGS = Path("/proc/sys/fs/inotify")


class Ears(NamedTuple):
    """A folder that is observed, and what was heard of it."""

    root: Path
    hints: Hints
    emitter: TreeEmitter | None

    def heard(self) -> dict[str, tuple[bool, bool]]:
        """Path: whether it is to be looked at as a whole, and whether it was missing by the last hint."""
        with self.hints.pending() as pending:
            waits = dict(pending._waits)
        return {path.decode().replace("\0", "/"): (w.whole, w.is_missing) for path, w in waits.items()}

    def covers(self, path: str) -> bool:
        """Whether a look at what was heard of would find what happened at a path."""
        heard = self.heard()
        above = [str(folder) for folder in Path(path).parents]
        return path in heard or any(heard.get(folder, (False, False))[0] for folder in above)

    def wait_for(self, *paths: str) -> None:
        assert wait_until(lambda: all(map(self.covers, paths)), 10), (paths, self.heard())


def listen(root: Path, observer: BaseObserver, left_out: LeftOut) -> Ears:
    hints = Hints(Pending(DELAYS, time.monotonic()))
    with hints.pending() as pending:
        pending.take(time.monotonic())
        pending.done(time.monotonic(), ())
    observer.schedule(Handler(hints, left_out, b"s", os.fsencode(root)), str(root), recursive=True)
    observer.start()
    emitter = next(iter(observer.emitters))
    return Ears(root, hints, emitter if isinstance(emitter, TreeEmitter) else None)


def own_observer(left_out: LeftOut) -> BaseObserver:
    leaves_out = partial(TreeRules, left_out, b"s")
    return BaseObserver(partial(TreeEmitter, leaves_out=leaves_out, is_over=lambda: False))  # type: ignore[arg-type]


@pytest.fixture
def observe(tmp_path: Path) -> Iterator[Callable[..., Ears]]:
    """Observe `tmp_path/root`, written from a tree before. stock: by watchdog's own observer."""
    observers: list[BaseObserver] = []

    def begin(tree: dict[str, str | None], stock: bool = False, exclude: tuple[str, ...] = ()) -> Ears:
        root = tmp_path / "root"
        write_tree(root, tree)
        left_out = LeftOut(Filter(lines(*exclude)))
        left_out.roots[b"s"] = (os.fsencode(root), root.stat().st_dev)
        observers.append(Observer() if stock else own_observer(left_out))
        return listen(root, observers[-1], left_out)

    yield begin
    for observer in observers:
        observer.stop()
        observer.join()


@pytest.mark.parametrize("stock", [False, True], ids=["own", "stock"])
def test_whatever_happens_is_heard(observe: Callable[..., Ears], stock: bool) -> None:
    """Files and folders that come, change, move, go; in folders that were there, and in new ones."""
    ears = observe({"a/one": "1", "a/two": "2", "b/deep/three": "3", "c/four": "4"}, stock)
    root = ears.root
    (root / "a/one").write_text("other")
    (root / "a/two").chmod(0o600)
    (root / "a/new").write_text("new")
    ears.wait_for("s/a/one", "s/a/two", "s/a/new", "s/a")
    (root / "a/one").rename(root / "b/moved")
    (root / "b/deep").rename(root / "c/deep")
    ears.wait_for("s/a/one", "s/b/moved", "s/b/deep", "s/c/deep/three")
    (root / "c/deep/three").write_text("written under its new name")
    (root / "made/on/the/way").mkdir(parents=True)
    (root / "made/on/the/way/file").write_text("populated before anybody could look")
    ears.wait_for("s/c/deep/three", "s/made/on/the/way/file")
    shutil.rmtree(root / "c")
    assert wait_until(lambda: ears.heard().get("s/c", (0, 0))[1] is True)


def test_what_moved_keeps_its_watches(observe: Callable[..., Ears]) -> None:
    """A folder is heard of under its new name, with all that lies below it."""
    ears = observe({"old/inner/file": "1", "other": None})
    (ears.root / "old").rename(ears.root / "other/new")
    ears.wait_for("s/other/new")
    (ears.root / "other/new/inner/later").write_text("later")
    assert wait_until(lambda: "s/other/new/inner/later" in ears.heard())
    assert ears.emitter is not None and ears.emitter.watches == 4


def test_what_has_left_is_no_longer_watched(observe: Callable[..., Ears], tmp_path: Path) -> None:
    """A folder that was moved out of the source costs no watch, and makes no hint under its old name; another
    one that takes the name is watched."""
    ears = observe({"folder/inner/file": "1"})
    assert ears.emitter is not None and ears.emitter.watches == 3
    (ears.root / "folder").rename(tmp_path / "outside")
    ears.wait_for("s/folder")
    write_tree(ears.root, {"folder/x": "x"})
    emitter = ears.emitter
    assert wait_until(lambda: emitter.watches == 2 and ears.heard()["s/folder"] == (True, False))
    (tmp_path / "outside/inner/z").write_text("z")
    (ears.root / "folder/last").write_text("last")
    assert wait_until(lambda: "s/folder/last" in ears.heard())
    assert "s/folder/inner/z" not in ears.heard()


def test_a_folder_that_moves_twice_is_heard_of_where_it_is(observe: Callable[..., Ears]) -> None:
    """Also where it has gone on before anybody could look at the first new name."""
    ears = observe({"a/inner/file": "1"})
    emitter = ears.emitter
    assert emitter is not None
    with emitter._lock:  # so that both moves are there to be read at once
        (ears.root / "a").rename(ears.root / "b")
        (ears.root / "b").rename(ears.root / "c")
    ears.wait_for("s/c")
    (ears.root / "c/inner/later").write_text("later")
    assert wait_until(lambda: "s/c/inner/later" in ears.heard() and emitter.watches == 3)


def test_a_folder_that_gets_an_excluded_name_has_left(observe: Callable[..., Ears]) -> None:
    """It costs no watch any more, and makes no hint."""
    ears = observe({"b1/inner/file": "1", "other": None}, exclude=("build/",))
    emitter = ears.emitter
    assert emitter is not None
    (ears.root / "b1").rename(ears.root / "build")
    ears.wait_for("s/b1")
    (ears.root / "other/file").write_text("one more event")
    assert wait_until(lambda: emitter.watches == 2)
    (ears.root / "build/inner/x").write_text("x")
    (ears.root / "other/last").write_text("last")
    ears.wait_for("s/other/last")
    assert not any("inner" in path for path in ears.heard())


def test_folders_as_deep_as_they_like() -> None:
    """Whether a path is left out is asked without a limit on its depth, and remembered for some folders."""
    left_out = LeftOut(Filter(lines("out/")))
    deep = tree("s/" + "/".join(["d"] * 3_000))
    for number in range(10_001):
        assert not left_out.has(tree(f"s/folder{number}/file"), False)
    assert not left_out.has(deep + b"\0file", False)
    assert left_out.has(tree("s/out/" + "/".join(["d"] * 3_000)), False)
    assert left_out.has(tree("s/a/out"), True) and not left_out.has(tree("s/a/out"), False)


@pytest.mark.parametrize(("root", "shown"), [(b"/", "/mnt/x"), (b"/docs", "/docs/mnt/x")])
def test_a_source_that_is_the_root_of_all(root: bytes, shown: str) -> None:
    """Its path ends with the slash that others need one more of."""
    hints = Hints(Pending(DELAYS, time.monotonic()))
    Handler(hints, LeftOut(Filter(())), b"s", root).dispatch(FileModifiedEvent(shown))
    with hints.pending() as pending:
        assert set(pending._waits) == {tree("s/mnt/x")}


def tree(path: str) -> bytes:
    return path.replace("/", "\0").encode()


def test_what_is_left_out_is_not_watched(observe: Callable[..., Ears]) -> None:
    """Excluded folders cost no watch, those that appear later either."""
    ears = observe({"kept": None, "node_modules/a/b": "b"}, exclude=("node_modules/",))
    write_tree(ears.root, {"kept/node_modules/c/d": "d", "kept/file": "file"})
    ears.wait_for("s/kept/file")
    assert ears.emitter is not None and ears.emitter.watches == 2
    assert not any("node_modules" in path for path in ears.heard())


def test_links_are_not_followed(observe: Callable[..., Ears], tmp_path: Path) -> None:
    """What lies behind a link is none of the source's."""
    (tmp_path / "outside").mkdir()
    ears = observe({"a": None})
    (ears.root / "a/link").symlink_to(tmp_path / "outside")
    ears.wait_for("s/a/link")
    (tmp_path / "outside/file").write_text("x")
    (ears.root / "a/last").write_text("last")
    ears.wait_for("s/a/last")
    assert ears.emitter is not None and ears.emitter.watches == 2
    assert not any("file" in path for path in ears.heard())


def test_names_that_are_no_utf8(observe: Callable[..., Ears]) -> None:
    """Any name that a file system gives is heard of as it is."""
    ears = observe({"a": None})
    name = os.fsdecode(b"a/\xff\n name")
    (ears.root / name).write_text("x")
    with_bytes = treepath.inside(b"s", b"a/\xff\n name")
    assert wait_until(lambda: _has(ears, with_bytes))


def _has(ears: Ears, path: bytes) -> bool:
    with ears.hints.pending() as pending:
        return path in pending._waits


def test_a_source_that_goes_is_said(observe: Callable[..., Ears]) -> None:
    """Moved or removed: whatever it was, all of it is to be looked at."""
    ears = observe({"a/b": "b"})
    with ears.hints.pending() as pending:
        due_s = pending.everything_due_s
    ears.root.rename(ears.root.with_name("elsewhere"))
    assert wait_until(lambda: bool(ears.hints.reasons))
    assert "moved, removed or unmounted" in ears.hints.reasons[0]
    with ears.hints.pending() as pending:
        assert pending.everything_due_s < due_s, "before its time"


@pytest.mark.handles
def test_deeper_than_any_path_can_be(observe: Callable[..., Ears]) -> None:
    """Folders are watched by handles, so also those whose path is longer than a system call takes."""
    ears = observe({})
    parent, depth = os.open(ears.root, os.O_RDONLY), 0
    while depth * 200 < 6000:
        os.mkdir("d" * 199, dir_fd=parent)
        inner = os.open("d" * 199, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent, depth = inner, depth + 1
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=parent))
    os.close(parent)
    path = "s/" + "/".join(["d" * 199] * depth)
    ears.wait_for(f"{path}/file")
    assert ears.emitter is not None and wait_until(lambda: ears.emitter.watches == depth + 1)  # type: ignore[union-attr]


def test_an_observer_that_dies_is_said_and_begun_anew(tmp_path: Path) -> None:
    """Whatever ends its thread: everything is due, and the next look at everything is observed again."""
    write_tree(tmp_path, {"docs/a": "a", "config.toml": 'sources = ["docs"]'})
    hints = Hints(Pending(DELAYS, time.monotonic()))
    observers = Observers(load(tmp_path / "config.toml", ()), hints, lambda text: None)
    try:
        observers.refresh()
        ((_, observer),) = observers._running.values()
        (emitter,) = observer.emitters
        assert isinstance(emitter, TreeEmitter)
        emitter._folders = None  # type: ignore[assignment]
        (tmp_path / "docs/b").write_text("b")
        assert wait_until(lambda: bool(hints.reasons))
        assert "an observer has failed" in hints.reasons[0]
        observers.refresh()
        assert observers.folders == 1
        (tmp_path / "docs/c").write_text("c")

        def is_heard() -> bool:
            with hints.pending() as pending:
                return b"docs\0c" in pending._waits

        assert wait_until(is_heard)
    finally:
        observers.close()


@pytest.mark.skipif(not os.access(SETTINGS / "max_user_watches", os.W_OK), reason="needs root")
@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_the_limit_on_watches_is_said(observe: Callable[..., Ears]) -> None:
    """Where the system allows no more, what is watched stays so, and the rest is named, once."""
    limit = SETTINGS / "max_user_watches"
    before = limit.read_text()
    try:
        in_use = _watches_in_use()
        limit.write_text(str(in_use + 10))
        ears = observe({f"folder{number}/inner": None for number in range(20)})
        assert wait_until(lambda: bool(ears.hints.reasons))
        (reason,) = ears.hints.reasons
        assert "max_user_watches" in reason
        (ears.root / "at the top").write_text("x")
        ears.wait_for("s/at the top")
        write_tree(ears.root, {"new/folder": None, "new2/folder": None})
        ears.wait_for("s/new", "s/new2")
        assert len(ears.hints.reasons) == 1
    finally:
        limit.write_text(before)


def _watches_in_use() -> int:
    """Of this user: what the kernel counts, summed over all processes."""
    count = 0
    for info in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            count += info.read_text().count("inotify wd:")
        except OSError:
            continue
    return count


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / {share} rw - nfs4 server:/x rw
31 22 0:41 / {phone} rw - fuse.sshfs phone: rw
32 22 8:2 / {disk} rw - fuseblk /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("auto", {"docs": "native", "docs/share": "polling", "docs/phone": "polling"}),
        ("native", {"docs": "native"}),
        ("polling", {"docs": "polling"}),
    ],
)
def test_what_lies_on_another_machine_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, expected: dict[str, str]
) -> None:
    """The system doesn't hear of what others change there; unless the configuration says what to do."""
    docs = tmp_path / "docs"
    write_tree(docs, {"share/a": "a", "phone/b": "b", "disk/c": "c"})
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(share=docs / "share", phone=docs / "phone", disk=docs / "disk"))
    monkeypatch.setattr("pipeline.store.mounts._TABLE", table)
    (tmp_path / "config.toml").write_text('sources = ["docs"]')
    hints = Hints(Pending(DELAYS, time.monotonic()))
    observers = Observers(
        load(tmp_path / "config.toml", [f"watch.backend={backend}"]), hints, lambda text: None
    )
    try:
        observers.refresh()
        seen = {os.path.relpath(os.fsdecode(o.path), tmp_path): o.backend for o in observers.observed}
        assert seen == expected
    finally:
        observers.close()


@pytest.mark.skipif(not os.access(SETTINGS / "max_user_instances", os.W_OK), reason="needs root")
@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_where_the_system_refuses_it_is_polled_and_said(tmp_path: Path) -> None:
    """No more inotify instances: with `auto` it is polled, with `native` it is an error."""
    write_tree(tmp_path, {"docs/a": "a", "config.toml": 'sources = ["docs"]'})
    limit, told = SETTINGS / "max_user_instances", list[str]()
    before = limit.read_text()
    try:
        limit.write_text("0")
        hints = Hints(Pending(DELAYS, time.monotonic()))
        observers = Observers(load(tmp_path / "config.toml", ()), hints, told.append)
        try:
            observers.refresh()
            assert [o.backend for o in observers.observed] == ["polling"]
            assert len(told) == 1 and "looked at again and again" in told[0]
        finally:
            observers.close()
        observers = Observers(load(tmp_path / "config.toml", ["watch.backend=native"]), hints, told.append)
        try:
            with pytest.raises(ObserverError, match="can't tell of changes"):
                observers.refresh()
        finally:
            observers.close()
    finally:
        limit.write_text(before)


def test_elsewhere_nothing_of_linux_is_needed() -> None:
    """Where there is no inotify, watchdog's own observers serve: what needs it is only loaded on Linux."""
    check = (
        "import sys, pipeline.ui.watching, pipeline.watching.watch;"
        "sys.exit('pipeline.watching.inotify' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, check=True, timeout=60)
