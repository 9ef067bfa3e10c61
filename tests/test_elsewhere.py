"""On systems other than Linux: with what these lack taken away, the program does all that it does here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from elsewhere import as_macos, as_windows
from harness import Backup
from trees import Link
from watched import watched_backup, watching

DATA, MORE, HOLE_BYTES = b"data" * 20_000, b"more data" * 20_000, 1 << 20

Call = Callable[..., str]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return as_macos(tmp_path / "site")


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    backup = watched_backup(tmp_path / "it")
    backup.write(
        {"one": "one\n", "copy": "one\n", "folder": {"x": "x\n", "link": Link("x")}, "goes": "goes\n"}
    )
    with (backup.source / "sparse").open("wb") as file:
        file.write(DATA)
        file.seek(HOLE_BYTES, os.SEEK_CUR)
        file.write(MORE)
    return backup


@pytest.fixture
def call(backup: Backup, variables: dict[str, str]) -> Call:
    return lambda *words: backup.call(*words, variables=variables).stdout


def test_as_on_macos(tmp_path: Path, backup: Backup, call: Call, variables: dict[str, str]) -> None:
    """Back up, restore, keep current. No data gets lost beside a hole, though SEEK_DATA skips some there."""
    call("run")
    call("restore", "--to", str(tmp_path / "to"))
    assert sorted(os.listdir(tmp_path / "to")) == ["copy", "folder", "goes", "one", "sparse"]
    assert (tmp_path / "to/sparse").read_bytes() == DATA + bytes(HOLE_BYTES) + MORE
    (backup.source / "goes").unlink()
    (backup.source / "folder/x").chmod(0o600)
    service = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with watching(backup, variables={**variables, **service}) as watched:
        backup.write({"one": "two\n"})
        watched.wait_for(lambda: (backup.root / "versions/one/v1.bak").exists())
        watched.stop()
    assert "_deleted/goes" in backup.names()
    backup.assert_right()


@pytest.mark.slow
def test_every_other_command_as_on_macos(backup: Backup, call: Call) -> None:
    call("run")
    backup.write({"one": "two\n"})
    call("run", "--dry-run")
    call("run")
    assert "Everything that was read is as it was stored" in call("verify")
    assert "versions/one/v1.bak" in call("history", "one")
    for words in (("ls",), ("diff", "1", "2"), ("status",), ("runs",), ("duplicates",), ("config", "check")):
        assert call(*words)
    call("prune", "--set", "retention.max_versions_per_file=0")
    (backup.root / ".pipeline/state.db").unlink()
    call("rebuild")
    assert json.loads(call("run", "--json").splitlines()[-1])["skip"] == 6
    call("verify", "--repair")
    assert "hash_algorithm" in call("bench", str(backup.source))
    backup.assert_right()


@pytest.mark.parametrize("words", [("run",), ("ls",)])
def test_windows_is_told_that_it_has_to_wait(tmp_path: Path, backup: Backup, words: tuple[str, ...]) -> None:
    """One sentence, and what to do, instead of a traceback; nothing is begun."""
    result = backup.call(*words, expect=1, variables=as_windows(tmp_path / "site"))
    assert result.stderr == (
        "error: this system isn't supported yet: Python has no fork here (Windows)\n"
        "Use the program on Linux; WSL 2 has one.\n"
    )
    assert not result.stdout and not backup.root.exists() and not backup.logs.exists()
