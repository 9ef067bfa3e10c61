"""The backend for systems without folder handles: the same backup, the same restore, and patience with what
another program holds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from everything import judged, write_everything
from harness import Backup, without_time_stamp
from restored import restore
from with_past import make_past

from pipeline.store import portable


def read_log(log: Path) -> list[str]:
    return [without_time_stamp(line) for line in log.read_text().splitlines()]


def test_the_same_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs by paths leave what four runs by handles leave: export, tree and logs; and they go on with
    what the others have begun."""
    monkeypatch.delenv("PIPELINE_PORTABLE", raising=False)
    one = make_past(tmp_path / "handles")
    monkeypatch.setenv("PIPELINE_PORTABLE", "1")
    other = make_past(tmp_path / "paths")
    different = ("mtime_ns",)  # of what was written at another moment
    exports = [
        [{key: value for key, value in line.items() if key not in different} for line in backup.export()]
        for backup in (one, other)
    ]
    assert exports[0] == exports[1]
    trees = [{name: (seen[0], seen[1], seen[3]) for name, seen in b.tree().items()} for b in (one, other)]
    assert trees[0] == trees[1]
    logs = [[planned for log in sorted(b.logs.iterdir()) for planned in read_log(log)] for b in (one, other)]
    assert logs[0] == logs[1]
    for backup in (one, other):
        assert backup.run("--json").summary["skip"] > 0
        backup.call("verify")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_everything_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_PORTABLE", "1")
    backup = Backup(tmp_path / "one", make_sources=False)
    write_everything(backup.source)
    backup.run()
    restore(backup, tmp_path / "to", "--specials")
    assert judged(backup.source, tmp_path / "to") == ""


class Held:
    """A call that another program refuses a few times, as Windows does it."""

    def __init__(self, times: int, winerror: int | None = 32) -> None:
        self.left = times
        self.winerror = winerror

    def __call__(self, *arguments: object) -> None:
        if self.left:
            self.left -= 1
            error = PermissionError(errno.EACCES, "held")
            error.winerror = self.winerror  # type: ignore[attr-defined]
            raise error


@pytest.fixture
def folder(tmp_path: Path) -> int:
    return portable.open(tmp_path, os.O_RDONLY | portable.O_DIRECTORY)


CALLS: dict[str, tuple[str, Callable[[int], None]]] = {
    "rename": ("replace", lambda at: portable.rename(b"a", b"b", src_dir_fd=at, dst_dir_fd=at)),
    "unlink": ("unlink", lambda at: portable.unlink(b"a", dir_fd=at)),
    "rmdir": ("rmdir", lambda at: portable.rmdir(b"a", dir_fd=at)),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_held_is_tried_again(folder: int, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Until it is let go, without a limit that somebody waits for in vain: then the error is told."""
    function, call = CALLS[name]
    held = Held(3)
    monkeypatch.setattr(portable.os, function, held)
    monkeypatch.setattr(portable.time, "sleep", lambda seconds: None)
    call(folder)
    assert held.left == 0
    monkeypatch.setattr(portable, "PATIENCE_S", 0.0)
    held.left = 10**9
    with pytest.raises(PermissionError):
        call(folder)


def test_other_refusals_are_told_at_once(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(1, None)
    monkeypatch.setattr(portable.os, "unlink", held)
    with pytest.raises(PermissionError):
        portable.unlink(b"a", dir_fd=folder)


def test_links_are_no_folders(tmp_path: Path) -> None:
    """Nor does one that is not a folder become one."""
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name, code in (("link", errno.ELOOP), ("file", errno.ENOTDIR)):
        with pytest.raises(OSError) as met:
            portable.open(tmp_path / name, os.O_RDONLY | portable.O_DIRECTORY | portable.O_NOFOLLOW)
        assert met.value.errno == code
