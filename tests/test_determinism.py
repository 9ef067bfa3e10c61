"""The same tree and the same history give the same backup, whatever the number of workers or the order of
a folder's listing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Backup, difference, unlike
from trees import Snapshot, change, copy_shuffled, grow

STEPS = 2
FILES = 200
SURROUNDINGS = {
    "one": {"LC_ALL": "C", "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "1"},
    "eight": {"LC_ALL": "C.UTF-8", "TZ": "America/Lima", "PYTHONHASHSEED": "2"},
}


class Variants:
    """Backups of one source, run side by side. Each in its own surroundings, one of a shuffled copy."""

    def __init__(self, base: Path) -> None:
        self.source = base / "docs"
        self.copy = base / "copy" / "docs"
        settings = {"log.skips": True, "retention.max_versions_per_file": 2}
        workers = {"one": 1, "two": 2, "eight": 8, "copied": 2}
        self.backups = {
            name: Backup(
                base / name,
                sources=[str(self.copy if name == "copied" else self.source)],
                settings={**settings, "workers.count": count},
                make_sources=False,
            )
            for name, count in workers.items()
        }

    def run(self, step: int) -> None:
        if self.copy.exists():
            shutil.rmtree(self.copy)
        copy_shuffled(self.source, self.copy, seed=step)
        with ThreadPoolExecutor(2) as pool:
            outcomes = dict(zip(self.backups, pool.map(self.run_one, self.backups), strict=True))
        log, exported, tree = outcomes["two"]
        for name, (its_log, its_export, its_tree) in outcomes.items():
            found = unlike(log, its_log) or unlike(exported, its_export) or difference(tree, its_tree)
            assert not found, f"{name}: {found}"

    def run_one(self, name: str) -> tuple[bytes, bytes, Snapshot]:
        backup = self.backups[name]
        result = backup.run(variables=SURROUNDINGS.get(name))
        return "\n".join(result.log).encode(), backup.export_bytes(), backup.tree()


def history(base: Path, steps: int, files: int, large: int) -> Variants:
    variants = Variants(base)
    grow(variants.source, files, seed=100, large=large)
    variants.run(0)
    for step in range(1, steps + 1):
        change(variants.source, seed=100 + step)
        variants.run(step)
    return variants


def test_workers_and_listing_order_change_nothing(tmp_path: Path) -> None:
    """Plan, layout, version numbers, state and log are a function of the source tree and the recorded history
    alone: not of worker count, timing, locale, time zone or directory order."""
    variants = history(tmp_path, STEPS, FILES, large=4)
    reference = variants.backups["two"]
    reference.assert_all_well()
    areas = {name.partition("/")[0] for name in reference.names()}
    assert {"versions", "_duplicates", "_deleted"} <= areas, "the history is no empty one"


@pytest.mark.slow
def test_fast_is_as_full(tmp_path: Path) -> None:
    """`durability` decides when things reach the disk, never what lies where."""
    full = Backup(tmp_path / "full", sources=[str(tmp_path / "docs")])
    fast = Backup(tmp_path / "fast", sources=[str(tmp_path / "docs")], settings={"durability": "fast"})
    grow(tmp_path / "docs", 150, seed=7)
    for step in range(2):
        logs = [backup.run().log for backup in (full, fast)]
        assert logs[0] == logs[1]
        assert full.export_bytes() == fast.export_bytes()
        assert not difference(full.tree(), fast.tree())
        change(tmp_path / "docs", seed=step)


@pytest.mark.slow
def test_a_copied_backup_goes_on(tmp_path: Path) -> None:
    """Device and inode numbers belong to no promise: a backup copied elsewhere stays valid and goes on as
    the other one does."""
    backup = Backup(tmp_path / "here", sources=[str(tmp_path / "docs")])
    grow(tmp_path / "docs", 120, seed=8)
    backup.run()
    copied = Backup(tmp_path / "there", sources=[str(tmp_path / "docs")])
    shutil.copytree(backup.root, copied.root, symlinks=True)
    change(tmp_path / "docs", seed=9)
    assert backup.run().log == copied.run().log
    assert backup.export_bytes() == copied.export_bytes()
    assert not difference(backup.tree(), copied.tree())
    copied.assert_right()
