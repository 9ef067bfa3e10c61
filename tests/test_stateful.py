"""Any sequence of changes and runs, against a model that only knows what the source was: a state machine.

The model keeps, for each run, what each path held. Whatever a run held comes back as it was, or is named as
what retention took; what retention may not have taken is never out of reach. Runs, restores and rebuilds are
the real command line, on real files; times are set, so that nothing hangs on the clock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from harness import Backup, exact
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from restored import of_type
from trees import EPOCH_NS, Seen, Snapshot, difference, remove, snapshot

NAMES = ("a", "b", "c/a", "c/v1.bak", "versions/x", "d/e/f", "d")
CONTENTS = (b"", b"same\n", b"same\n", b"other\n", b"x" * (1 << 20), b"grown " * 1000)


class Backups(RuleBasedStateMachine):
    """One source with a handful of paths, changed and backed up."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.clock = EPOCH_NS
        self.runs: dict[int, Snapshot] = {}
        self.held: dict[str, list[tuple[str, str] | None]] = {}
        self.numbered: dict[tuple[str, int], object] = {}
        self.versions = 0

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @initialize(versions=st.sampled_from([1, 2, 3, 1000]))
    def begin(self, versions: int) -> None:
        self.versions = versions
        limits = {"retention.max_versions_per_file": versions, "safety.max_delete_percent": 100}
        self.backup = Backup(self.base / "one", settings=limits)
        self.source = self.backup.source
        self.write("a", b"the first\n")
        self.back_up()

    # -- the source changes -----------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
    def write(self, name: str, content: bytes) -> None:
        """New, other content, or the content of another path; what stands in the way goes."""
        place = self.cleared(name)
        place.write_bytes(content)
        self.tick(place)

    @rule(name=st.sampled_from(NAMES), leads_to=st.sampled_from(["a", "/etc/passwd", "nowhere"]))
    def link(self, name: str, leads_to: str) -> None:
        place = self.cleared(name)
        place.symlink_to(leads_to)
        self.tick(place)

    @rule(name=st.sampled_from(NAMES))
    def make_folder(self, name: str) -> None:
        self.cleared(name).mkdir()

    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        """A file, link or folder gets another name, with all below it."""
        origin = self.any_of(data)
        name = data.draw(st.sampled_from(NAMES))
        if origin is None or (self.source / name).is_relative_to(origin):
            return
        if origin.is_relative_to(self.source / name):
            return
        origin.rename(self.cleared(name))

    @rule(data=st.data(), mode=st.sampled_from([0o600, 0o644, 0o755, 0o4755]))
    def chmod(self, data: st.DataObject, mode: int) -> None:
        place = self.any_of(data)
        if place is not None and not place.is_symlink():
            place.chmod(mode | (0o700 if place.is_dir() else 0))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        place = self.any_of(data)
        if place is not None:
            remove(place)

    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        """A path is again what it was at some run, content and time."""
        run = data.draw(st.sampled_from(sorted(self.runs)))
        files = sorted(name for name, seen in self.runs[run].items() if seen.kind == "file")
        if not files:
            return
        name = data.draw(st.sampled_from(files))
        seen, place = self.runs[run][name], self.cleared(name)
        place.write_bytes(self.content_of(seen))
        place.chmod(seen.mode)
        os.utime(place, ns=(seen.mtime_ns, seen.mtime_ns))

    # -- what is done with it ---------------------------------------------------------------------------

    @rule()
    def back_up(self) -> None:
        """A run. An empty source is refused, since that looks like a disk that isn't there."""
        if not any(self.source.iterdir()):
            self.write("a", b"not empty\n")
        result = self.backup.run("--json", "--quiet")
        number = result.summary["run"]
        assert number not in self.runs
        self.runs[number] = snapshot(self.source, folder_times=True)
        self.remember(self.runs[number])

    def remember(self, now: Snapshot) -> None:
        """Each path's contents in order. One that comes back after something else was there counts anew."""
        for name in {*self.held, *now}:
            known, seen = self.held.setdefault(name, []), now.get(name)
            content = (seen.kind, seen.content) if seen is not None and seen.kind != "folder" else None
            if not known or known[-1] != content:
                known.append(content)

    @rule(data=st.data())
    @precondition(lambda self: self.runs)
    def restore_a_run(self, data: st.DataObject) -> None:
        """It is what the source was then; what is not there is named, and retention may have taken it."""
        self.check(data.draw(st.sampled_from(sorted(self.runs))))

    # -- rebuild ----------------------------------------------------------------------------------------

    @rule()
    def rebuild(self) -> None:
        """Without its state, all contents are found again by their numbers, a run finds nothing to do, and
        earlier runs are no longer known."""
        self.back_up()
        before = self.all_versions()
        for place in (self.backup.root / ".pipeline").glob("state.db*"):
            place.unlink()
        self.backup.call("rebuild", "--json", expect=None)
        after = self.all_versions()
        assert before.items() <= after.items(), sorted(before.items() - after.items())
        self.runs = {}
        summary = self.backup.run("--json").summary
        done = {key: summary[key] for key in ("backup", "duplicate", "modified", "delete", "promote")}
        assert not any(done.values()), summary
        self.runs[summary["run"]] = snapshot(self.source, folder_times=True)

    def all_versions(self) -> dict[tuple[str, int], object]:
        """All that a number names; it names the same content for ever."""
        found = {
            (exact(line, "path"), version["n"]): version["digest"] or exact(version, "target")
            for line in self.backup.export()
            for version in line["versions"]
        }
        for name, content in found.items():
            assert self.numbered.setdefault(name, content) == content, f"{name} was used twice"
        return found

    # -- what holds -------------------------------------------------------------------------

    def check(self, run: int) -> None:
        to = self.base / "to"
        wanted = self.runs[run]
        arguments = ("--to", str(to), "--at", str(run), "--json")
        result = self.backup.call("restore", *arguments, expect=None)
        named = of_type(result.lines, "error")
        gone = {path.partition("/")[2] for path in named}
        assert result.exit == (3 if gone else 0), result.said
        assert all("retention removed it" in line["cause"] for line in named.values()), result.said
        for name in gone:
            assert wanted[name].kind in ("file", "link")
            assert self.may_be_taken(name, wanted[name]), f"{name} of run {run} is within reach of nobody"
        found = snapshot(to, folder_times=True)
        rest = {name: seen for name, seen in wanted.items() if name not in gone}
        assert not difference(rest, found), difference(rest, found)
        shutil.rmtree(to)

    def may_be_taken(self, name: str, seen: Seen) -> bool:
        """At least as many newer contents of the path have been archived as retention leaves."""
        known = self.held[name]
        newer = known[known.index((seen.kind, seen.content)) + 1 :]
        return sum(content is not None for content in newer) >= self.versions

    # -- helpers ----------------------------------------------------------------------------------------

    def tick(self, place: Path) -> None:
        """Times that were never used before, in the past."""
        self.clock += 1_000_000_000
        os.utime(place, ns=(self.clock, self.clock), follow_symlinks=False)

    def cleared(self, name: str) -> Path:
        """A name without anything there or in its way."""
        place = self.source / name
        for above in [*place.parents][::-1]:
            if above.is_relative_to(self.source) and (above.is_symlink() or above.is_file()):
                above.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            remove(place)
        return place

    def any_of(self, data: st.DataObject) -> Path | None:
        places = sorted(self.source.rglob("*"))
        return data.draw(st.sampled_from(places)) if places else None

    def content_of(self, seen: Seen) -> bytes:
        known = {*CONTENTS, b"the first\n", b"not empty\n"}
        return next(one for one in known if hashlib.sha256(one).hexdigest() == seen.content)


def run_machine(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Backups,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks,
            derandomize=examples < 20, print_blob=True,
        ),
    )  # fmt: skip


def test_a_few_sequences() -> None:
    run_machine(examples=3, steps=12)


@pytest.mark.slow
def test_many_sequences() -> None:
    run_machine(examples=25, steps=25)
