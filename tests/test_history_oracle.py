"""Any run of a long history comes back exactly: what the source was at each run is kept, and is the oracle.

By default over a grown tree with changes of every kind; behind the slow marker over ten releases of Django.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from harness import Backup
from restored import Kept, assert_same, keep, of_type, restore, unlike
from trees import change, files_below, grow, remove, set_times_of_new, walk

RELEASES = ("2.0", "2.2", "3.0", "3.2", "4.0", "4.1", "4.2", "5.0", "5.1", "5.2")


def rename_and_come_back(source: Path, run: int, aside: Path) -> None:
    """A folder with everything in it moves; some files go, and those of the run before come back."""
    generator = random.Random(run)
    folders = sorted(place for place in source.iterdir() if place.is_dir() and not place.is_symlink())
    folders[run % len(folders)].rename(source / f"all of it, moved in run {run}")
    for kept in sorted(aside.iterdir()) if aside.exists() else []:
        shutil.move(kept, source / kept.name)
    aside.mkdir(exist_ok=True)
    for number, path in enumerate(generator.sample(files_below(source), 4)):
        shutil.move(path, aside / f"away{number}.dat" if run % 2 else aside / f"gone in run {run}, {number}")
    set_times_of_new(source, generator)


class Past:
    """A backup, and what its source was at each run."""

    def __init__(self, backup: Backup) -> None:
        self.backup = backup
        self.kept: dict[int, Kept] = {}

    def run(self) -> None:
        self.backup.run("--quiet")
        self.kept[len(self.kept) + 1] = keep(self.backup.source)

    def assert_every_run(self, to: Path) -> None:
        """Every run comes back exactly, the folder's own mode and time included."""
        for number, wanted in self.kept.items():
            restore(self.backup, to / str(number), "--at", str(number))
            assert_same(wanted, to / str(number))
            shutil.rmtree(to / str(number))

    def assert_every_run_but_for_retention(self, to: Path) -> int:
        """What doesn't come back is named with its path, and is what retention took by its own log; all else
        is exact. Returns how many were named."""
        pruned, named = self.pruned(), 0
        for number, wanted in self.kept.items():
            arguments = ("--at", str(number), "--json")
            result = self.backup.call("restore", "--to", str(to / str(number)), *arguments, expect=None)
            errors = of_type(result.lines, "error")
            missing = {path.partition("/")[2] for path in errors}
            for path, line in errors.items():
                version = re.match(
                    r"version (\d+) is gone: retention removed it in run (\d+)$", line["cause"]
                )
                assert version is not None, line
                assert (path, int(version[1]), int(version[2])) in pruned
            found = keep(to / str(number))
            assert not missing & found.seen.keys()
            assert not unlike(wanted, found, missing), unlike(wanted, found, missing)
            assert result.exit == (3 if errors else 0)
            named += len(errors)
            shutil.rmtree(to / str(number))
        return named

    def pruned(self) -> set[tuple[str, int, int]]:
        """Path, version, and the run whose log says that retention took it."""
        found = set()
        for log in self.backup.log_names():
            number = int(log.removesuffix(".log").rpartition("-")[2])
            for line in self.backup.read_log(log):
                if line.startswith("RETENTION delete: versions/"):
                    at, _, version = line.removeprefix("RETENTION delete: versions/").rpartition("/")
                    found.add((at, int(version[1:].partition(".")[0]), number))
        return {(f"docs/{unescaped(at)}", number, run) for at, number, run in found}


def unescaped(at: str) -> str:
    """A backup path below `versions/` as the log shows it, back to the path inside the source."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), at.encode("utf-8"))
    text = raw.decode("utf-8", "surrogateescape")
    return re.sub(r"(^|/)_escaped/", r"\1", text)


def make_past(backup: Backup, runs: int, files: int) -> Past:
    past = Past(backup)
    grow(backup.source, files, seed=7, large=1)
    past.run()
    for run in range(2, runs + 1):
        change(backup.source, seed=run, share=0.05)
        rename_and_come_back(backup.source, run, backup.base / "aside")
        past.run()
    return past


def test_every_run_of_a_history(tmp_path: Path) -> None:
    """Five runs with changes of every kind: contents, metadata, new, gone, folders renamed, files that
    become folders or links, files that come back. Each run comes back exactly."""
    settings = {"retention.max_versions_per_file": 1000, "safety.max_delete_percent": 100}
    past = make_past(Backup(tmp_path / "one", settings=settings), runs=5, files=100)
    past.assert_every_run(tmp_path / "to")


@pytest.mark.slow
def test_every_run_but_for_what_retention_took(tmp_path: Path) -> None:
    """With two versions a file, and some files that change in every run: whatever isn't restored is
    named, with the version and the run that took it, as that run's log says; all else is exact."""
    settings = {"retention.max_versions_per_file": 2, "safety.max_delete_percent": 100}
    backup = Backup(tmp_path / "one", settings=settings)
    past = Past(backup)
    grow(backup.source, 80, seed=8)
    often = files_below(backup.source)[:12]
    for run in range(1, 7):
        for number, path in enumerate(often):
            remove(path)
            path.write_text(f"{number} in run {run}\n")
        set_times_of_new(backup.source, random.Random(run))
        past.run()
    assert past.assert_every_run_but_for_retention(tmp_path / "to") == 12 * 3


# -- ten releases of Django ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels")
    options = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check")
    found = []
    for release in RELEASES:
        words = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), f"django=={release}"]
        try:
            pip = subprocess.run(words, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip(f"django {release} did not come within two minutes")
        if pip.returncode:
            pytest.skip(f"django {release} can't be downloaded: {pip.stderr.strip().splitlines()[-1:]}")
        found += [path for path in folder.iterdir() if path not in found]
    return found


def unpack(wheel: Path, source: Path) -> None:
    """The source becomes this release: the same bytes and time aren't written again, what is gone goes."""
    with zipfile.ZipFile(wheel) as archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        for name, info in members.items():
            place, content = source / name, archive.read(info)
            moment_ns = int(time.mktime((*info.date_time, 0, 0, 0))) * 10**9
            if place.is_file() and place.stat().st_mtime_ns == moment_ns and place.read_bytes() == content:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            os.utime(place, ns=(moment_ns, moment_ns))
    for relative, entry in sorted(walk(source), reverse=True):
        if entry.is_dir(follow_symlinks=False):
            if not any(Path(entry.path).iterdir()):
                Path(entry.path).rmdir()
        elif relative not in members:
            Path(entry.path).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("versions", [1000, 2])
def test_ten_releases_of_django(tmp_path: Path, wheels: list[Path], versions: int) -> None:
    """Real trees of thousands of files: each release is what it was, also with two versions a file, but for
    what retention took, which is named."""
    settings = {"retention.max_versions_per_file": versions, "safety.max_delete_percent": 100}
    past = Past(Backup(tmp_path / "one", settings=settings))
    for wheel in wheels:
        unpack(wheel, past.backup.source)
        past.run()
    if versions == 2:
        assert past.assert_every_run_but_for_retention(tmp_path / "to") > 1000
    else:
        past.assert_every_run(tmp_path / "to")
