"""Two runs at once, Ctrl-C, and children whose parent is gone."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

from at_work import at_work, held_up, many_files
from harness import Backup, difference, wait_until
from processes import alive, descendants


def test_a_second_run_is_refused(backup: Backup) -> None:
    """Another run that holds the lock: exit 11, nothing touched."""
    backup.write({"a": "a\n"})
    backup.run()
    before = backup.tree()
    backup.write({"a": "changed\n"})
    with (backup.root / ".pipeline" / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        backup.run(expect=11)
        assert not difference(before, backup.tree())
    backup.run()
    backup.assert_right()


def test_a_second_run_names_the_first(tmp_path: Path) -> None:
    """A run that is held off by another says which process that is, also while that one is stopped; the
    first one isn't disturbed."""
    backup = many_files(tmp_path)
    with held_up(backup) as first:
        os.killpg(first.pid, signal.SIGSTOP)
        refused = backup.run(expect=11)
        assert str(first.pid) in refused.stderr
        os.killpg(first.pid, signal.SIGCONT)
        assert backup.finish(first).exit == 0
    backup.assert_right()


def test_ctrl_c_leaves_a_consistent_backup(tmp_path: Path) -> None:
    """Ctrl-C once: the group is finished, exit 130, the backup is consistent, and the next run ends as if
    nothing had been."""
    backup = many_files(tmp_path / "cut")
    with at_work(backup) as first:
        below = descendants(first.pid)
        os.killpg(first.pid, signal.SIGINT)
        result = backup.finish(first)
        assert result.exit == 130, result.said[-3000:]
        assert result.summary["type"] == "summary" and result.summary["status"] == "interrupted"
        assert wait_until(lambda: not any(alive(child) for child in below))
    backup.assert_sound()
    backup.run()
    whole = Backup(tmp_path / "whole", sources=[str(backup.source)], make_sources=False)
    whole.run()
    assert whole.export_bytes() == backup.export_bytes()
    assert not difference(whole.tree(), backup.tree())


def test_sigint_to_the_main_process_alone(tmp_path: Path) -> None:
    """SIGINT that only the parent gets ends the run just as well."""
    backup = many_files(tmp_path)
    with at_work(backup) as first:
        first.send_signal(signal.SIGINT)
        assert backup.finish(first).exit == 130
    backup.run()
    backup.assert_right()


def test_children_never_outlive_the_parent(tmp_path: Path) -> None:
    """Children never outlive the parent, even one that is killed; the lock is free then, and the next run
    completes."""
    backup = many_files(tmp_path)
    with at_work(backup) as first:
        os.killpg(first.pid, signal.SIGSTOP)
        below = descendants(first.pid)
        assert below, "a run has children"
        first.kill()
        os.killpg(first.pid, signal.SIGCONT)
        assert wait_until(lambda: not any(alive(child) for child in below)), "children are left"
    backup.run()
    backup.assert_right()
