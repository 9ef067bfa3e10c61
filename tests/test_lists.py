"""What a list, an owner or a mode keeps private stays so: at every instant, and where a list can't be held.

Straight through the store's own calls, on whatever file system the tests are on. They need root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from everything import GROUP, USER, access_list, set_list

from pipeline.model.attributes import ACCESS_LIST, pack, unpack
from pipeline.model.record import Stat
from pipeline.store import calls, extended, metadata
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.staging_file import StagingFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CLOSED = access_list(6, 0, 6, 0, (USER, 1234, 6))  # its mode is 0660
OPEN = access_list(6, 4, 6, 4, (USER, 1234, 6))
PLAIN = 4321


def described(place: Path, mode: int, gid: int, *wanted: tuple[bytes, bytes]) -> None:
    """As a METADATA action does it."""
    folder = calls.open(place.parent, FOLDER_FLAGS)
    try:
        metadata.describe(folder, os.fsencode(place.name), False, mode, 0, gid, 5, pack(wanted))
    finally:
        calls.close(folder)


def who_gets_in(place: Path) -> tuple[object, ...]:
    """Nothing where only the owner does."""
    found = place.stat()
    if not found.st_mode & 0o077:
        return ()
    listed = os.getxattr(place, ACCESS_LIST) if "system.posix_acl_access" in os.listxattr(place) else b""
    return found.st_gid, stat.S_IMODE(found.st_mode), listed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0o660, 0, CLOSED), (0o600, 0, b"")),
        ((0o660, 0, CLOSED), (0o640, 0, b"")),
        ((0o600, 0, b""), (0o660, 0, CLOSED)),
        ((0o644, 0, b""), (0o660, 0, CLOSED)),
        ((0o660, 77, b""), (0o640, 88, b"")),
        ((0o660, 77, CLOSED), (0o664, 88, OPEN)),
    ],
)
def test_at_every_instant(
    before: tuple[int, int, bytes],
    after: tuple[int, int, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who gets in is as it was before, or nobody, or as it is in the end: never by one's mode and the other's
    list or group."""
    place = tmp_path / "stored"
    place.write_text("secret")
    os.chown(place, 0, before[1])
    place.chmod(before[0])
    if before[2]:
        set_list(place, before[2])
    moments = [who_gets_in(place)]

    def watch(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            moments.append(who_gets_in(place))
            return result

        monkeypatch.setattr(module, name, call)

    for module in (os, calls):
        watch(module, "chmod")
        watch(module, "chown")
    watch(os, "setxattr")
    watch(os, "removexattr")
    described(place, after[0], after[1], *([(ACCESS_LIST, after[2])] if after[2] else []))
    monkeypatch.undo()
    assert moments[-1] == (who_gets_in(place))
    assert stat.S_IMODE(place.stat().st_mode) == after[0]
    assert place.stat().st_gid == after[1]
    assert set(moments) <= {moments[0], (), moments[-1]}


def test_an_old_list_goes_where_the_new_one_can_t_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the new one shuts out would still get in by the old one."""
    place = tmp_path / "stored"
    place.write_text("secret")
    set_list(place, OPEN)
    os.setxattr(place, "user.a", b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left for attributes")

    monkeypatch.setattr(os, "setxattr", full)
    described(place, 0o660, 0, (ACCESS_LIST, CLOSED), (b"user.a", b"new"))
    assert os.listxattr(place) == []
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_who_is_not_root(tmp_path: Path) -> None:
    """Attributes and lists of a file that its owner may not write go, and come, all the same."""
    tmp_path.chmod(0o755)
    old, new = tmp_path / "old", tmp_path / "new"
    for place in (old, new):
        place.write_text("secret")
        os.chown(place, PLAIN, PLAIN)
        place.chmod(0o440)
    os.setxattr(old, "user.a", b"1")
    set_list(old, access_list(4, 0, 4, 0, (USER, 1234, 4)))
    wanted = [(ACCESS_LIST, access_list(4, 0, 4, 0, (GROUP, 77, 4))), (b"user.a", b"1")]
    handles = [os.open(place, os.O_RDONLY) for place in (old, new)]  # the way to them is root's
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setresgid(PLAIN, PLAIN, PLAIN)
        os.setresuid(PLAIN, PLAIN, PLAIN)
        lost = extended.give(handles[0], 0o440, [], replaces=True)
        lost += extended.give(handles[1], 0o440, wanted, replaces=True)
        os._exit(len(lost))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for handle in handles:
        os.close(handle)
    assert os.listxattr(old) == []
    assert [(os.fsencode(name), os.getxattr(new, name)) for name in sorted(os.listxattr(new))] == wanted
    assert [stat.S_IMODE(place.stat().st_mode) for place in (old, new)] == [0o440, 0o440]


def test_set_id_bits_come_with_the_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be given (a container, a share that knows no root), whoever has the file would lend it
    his rights. (Of a new file in staging; `test_fidelity` has the rest.)"""
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    for name, modes in ((b"given", 0o6755), (b"not given", 0o755)):
        file = StagingFile(folder, name)
        _, _, is_theirs = file.finish(Stat(0, 1234, 1234, 5, 0, 0, 0), 0o6755)
        assert is_theirs == (name == b"given")
        assert stat.S_IMODE((tmp_path / os.fsdecode(name)).stat().st_mode) == modes

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "not here")

        monkeypatch.setattr(calls, "chown", refused)
    calls.close(folder)


def test_xfs_says_lists_twice(tmp_path: Path) -> None:
    """To root, under names of its own, which would be junk anywhere else."""
    place = tmp_path / "one"
    place.write_text("one")
    set_list(place, OPEN)
    for name in ("trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT", "trusted.other"):
        os.setxattr(place, name, b"x")
    assert dict(unpack(extended.read(os.fsencode(place)))) == {ACCESS_LIST: OPEN, b"trusted.other": b"x"}
