"""The program under test, driven through its real command line, and what its backup then looks like.

In: a folder for one backup (sources, configuration, backup root, logs). Out: exit codes, log lines without
time stamps, the exported state, snapshots of the backup root.
Guarantees: every call is a process of its own with the real command line, has a time limit and ends its
whole process group; a traceback is always a failure.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeAlias, cast

import blake3
import warm
import xxhash
from trees import Snapshot, Tree, difference, snapshot, walk, write_tree

BACKEND = os.environ.get("PIPELINE_PORTABLE")
"""What a warm process has loaded: a call by another backend begins cold."""
REPOSITORY = Path(__file__).resolve().parent.parent
TIME_LIMIT_S = 120.0
OWN_FOLDER = frozenset({".pipeline"})
DONE_KEYS = ("backup", "duplicate", "modified", "metadata", "delete", "promote", "retention", "suspect")
SUMMARY_KEYS = frozenset(
    ("type", "run", "status", "files", "skip", "bytes_read", "bytes_stored", "seconds", "warnings", "errors")
).union(DONE_KEYS)
NOTHING_DONE = dict.fromkeys((*DONE_KEYS, "warnings", "errors"), 0)
RESTRICT = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fsetid")
"""Takes from root what lets it read everything (for it, too, a file of mode 0 can't be read then), and keep
set-id bits over a write."""
_TIME_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00) ")
_HASHES: dict[str, Callable[[bytes], str]] = {
    "blake3": lambda data: blake3.blake3(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "xxh3_128": lambda data: xxhash.xxh3_128_hexdigest(data),
}

Line: TypeAlias = dict[str, Any]
"""A line of JSON as the program printed it."""


def without_time_stamp(line: str) -> str:
    return _TIME_STAMP.sub("", line)


def digest_of(algorithm: str, content: bytes) -> str:
    return f"{algorithm}:{_HASHES[algorithm](content)}"


def exact(line: Line, name: str) -> str:
    """A field that may not be UTF-8, exact, with surrogate escapes."""
    encoded = line.get(f"{name}_b64")
    return os.fsdecode(base64.b64decode(encoded)) if encoded is not None else line[name]


@dataclass(frozen=True)
class Result:
    """What one call of the program left. log: the lines of its run log, none where it wrote no log."""

    exit: int
    stdout: str
    stderr: str
    log: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[Line]:
        """Standard output of `--json`: every line of it has to be JSON."""
        return [json.loads(line) for line in self.stdout.removesuffix("\n").split("\n")]

    @property
    def summary(self) -> Line:
        """The last line; those before it may be cut where somebody read a part of them already."""
        return cast(Line, json.loads(self.stdout.removesuffix("\n").rpartition("\n")[2]))

    @property
    def said(self) -> str:
        """All that a person could have read."""
        return "\n".join([self.stdout, self.stderr, *self.log])

    def planned(self) -> list[str]:
        """The PLANNER lines of the log, without their arrow."""
        return [line.removeprefix("PLANNER → ") for line in self.log if line.startswith("PLANNER → ")]

    def decisions(self) -> list[str]:
        """The PLANNER lines without their reasons: `BACKUP: docs/one.txt`."""
        return [re.sub(r" \(.*\)$", "", line) for line in self.planned()]


def normalized(log: Sequence[str], expected: Sequence[str]) -> list[str]:
    """The log with `(…)` for the reasons of those lines where `expected` leaves the reason open."""
    lines = list(log)
    for number, wanted in enumerate(expected[: len(lines)]):
        if wanted.endswith(" (…)"):
            lines[number] = re.sub(r" \(.+\)$", " (…)", lines[number])
    return lines


def unlike(one: bytes, other: bytes) -> str:
    """The first lines in which two texts differ, for people; empty when they are equal.

    (pytest's own comparison of texts of some MiB takes hours.)
    """
    if one == other:
        return ""
    pairs = zip_longest(one.split(b"\n"), other.split(b"\n"))
    return "\n".join(f"{a!r}\n!= {b!r}" for a, b in islice((pair for pair in pairs if len({*pair}) > 1), 5))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return {**variables, **(changes or {})}


def end_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to everything that the call started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether the condition became true within the time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Backup:
    """One backup: `<base>/<source>` folders, `config.toml`, `backup/`, `logs/`, and the program run on them.

    sources: folder names below `base`, or absolute paths; a pair is (path, name).
    settings: dotted keys of the configuration, `{"log.skips": True}`.
    restricted: a field; True runs the program without root's right to read everything.
    is_warm: a field; False has every call begin from nothing (see `warm`).
    program: a field; the words that start the program, where a test runs it changed.
    """

    def __init__(
        self,
        base: Path,
        sources: Sequence[str | tuple[str, str]] = ("docs",),
        settings: Mapping[str, Any] | None = None,
        make_sources: bool = True,
    ) -> None:
        self.base = base
        self.base.mkdir(parents=True, exist_ok=True)
        self.config = base / "config.toml"
        self.root = base / "backup"
        self.logs = base / "logs"
        self.sources: list[str | tuple[str, str]] = list(sources)
        self.settings: dict[str, Any] = {"workers.count": 2, **(settings or {})}
        self.restricted = False
        self.is_warm = True
        self.program = command()
        self._exported: bytes | None = None
        if make_sources:
            for source in self.sources:
                path = source if isinstance(source, str) else source[0]
                (base / path).mkdir(parents=True, exist_ok=True)
        self.write_config()

    def twin(self, base: Path) -> Backup:
        """A copy of all of it, source, backup and logs, with its times and owners, to be tried on."""
        subprocess.run(["cp", "-a", f"{self.base}/.", f"{base}"], check=True)
        return Backup(base, sources=self.sources, settings=self.settings, make_sources=False)

    @property
    def source(self) -> Path:
        """The first source's folder."""
        first = self.sources[0]
        return self.base / (first if isinstance(first, str) else first[0])

    @property
    def algorithm(self) -> str:
        return str(self.settings.get("hash_algorithm", "blake3"))

    def configure(self, **settings: Any) -> None:
        """Change settings; a double underscore stands for the dot: `retention__max_versions_per_file=3`."""
        self.settings.update({key.replace("__", "."): value for key, value in settings.items()})
        self.write_config()

    def write_config(self) -> None:
        tables: dict[str, list[str]] = {"": []}
        for key, value in {"backup_root": "backup", "log_dir": "logs", **self.settings}.items():
            table, _, name = key.rpartition(".")
            tables.setdefault(table, []).append(f"{name} = {json.dumps(value)}")
        lines = tables.pop("")
        if all(isinstance(source, str) for source in self.sources):
            lines.insert(0, f"sources = {json.dumps(self.sources)}")
        else:
            pairs = [source if isinstance(source, tuple) else (source, None) for source in self.sources]
            for path, name in pairs:
                lines += ["[[source]]", f"path = {json.dumps(path)}"]
                lines += [f"name = {json.dumps(name)}"] if name is not None else []
        for table, keys in tables.items():
            lines += [f"[{table}]", *keys]
        self.config.write_text("\n".join(lines) + "\n")

    def write(self, tree: Tree) -> None:
        """Write files into the first source."""
        write_tree(self.source, tree)

    # Calls: cold ones are what a person's are; where nothing hangs on the start, they begin warm.

    def start(
        self, *arguments: str, variables: Mapping[str, str] | None = None, under: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start the program in a session of its own and don't wait for it. under: words before its own."""
        words = [*under, *self.program, *self._words(arguments)]
        return subprocess.Popen(
            [*RESTRICT, *words] if self.restricted else words, cwd=REPOSITORY, env=environment(variables),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            errors="surrogateescape", start_new_session=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], known_logs: frozenset[str] = frozenset()) -> Result:
        """Wait for a started call and collect what it left."""
        try:
            stdout, stderr = process.communicate(timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            end_group(process)
            stdout, stderr = process.communicate()
            raise AssertionError(f"no end after {TIME_LIMIT_S} s\n{stdout}\n{stderr}") from None
        return self._result(process.returncode, stdout, stderr, known_logs)

    def _words(self, arguments: Sequence[str]) -> list[str]:
        if arguments[0] != "export":
            self._exported = None
        return [*arguments, "--config", str(self.config)]

    def _call_warm(self, arguments: Sequence[str], known_logs: frozenset[str]) -> Result:
        code, *streams = warm.call(self._words(arguments), REPOSITORY, environment(), TIME_LIMIT_S)
        stdout, stderr = (stream.decode("utf-8", "surrogateescape") for stream in streams)
        assert code is not None, f"no end after {TIME_LIMIT_S} s\n{stdout}\n{stderr}"
        return self._result(code, stdout, stderr, known_logs)

    def _result(self, code: int, stdout: str, stderr: str, known_logs: frozenset[str]) -> Result:
        new_logs = sorted(self.log_names() - known_logs)
        log = self.read_log(new_logs[-1]) if new_logs else []
        result = Result(code, stdout, stderr, log)
        assert "Traceback (most recent call last)" not in result.said, result.said
        return result

    def call(
        self,
        *arguments: str,
        expect: int | None = 0,
        variables: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Result:
        """One call of the program from start to end. expect: its exit code, None for any."""
        known = self.log_names()
        is_usual = not (self.restricted or under or variables) and self.program == command()
        if self.is_warm and is_usual and os.environ.get("PIPELINE_PORTABLE") == BACKEND:
            result = self._call_warm(arguments, known)
        else:
            result = self.finish(self.start(*arguments, variables=variables, under=under), known)
        wrong = f"{arguments}: exit {result.exit} instead of {expect}\n{result.said}"
        assert expect is None or result.exit == expect, wrong
        return result

    def run(
        self,
        *arguments: str,
        expect: int | None = 0,
        variables: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Result:
        return self.call("run", *arguments, expect=expect, variables=variables, under=under)

    # What is there afterwards

    def log_names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.logs))
        except FileNotFoundError:
            return frozenset()

    def read_log(self, name: str) -> list[str]:
        text = (self.logs / name).read_bytes().decode("utf-8")
        return [without_time_stamp(line) for line in text.removesuffix("\n").split("\n")]

    def export_bytes(self) -> bytes:
        """What `export` prints; asked once after each run, since nothing else changes it."""
        if self._exported is None:
            self._exported = self.call("export").stdout.encode("utf-8", "surrogateescape")
        return self._exported

    def export(self) -> list[Line]:
        return [json.loads(line) for line in self.export_bytes().splitlines()]

    def entries(self) -> dict[str, Line]:
        """The exported lines by their exact path."""
        return {exact(line, "path"): line for line in self.export()}

    def entry(self, path: str) -> Line:
        return self.entries()[path]

    def tree(self) -> Snapshot:
        """The backup root without the program's own folder."""
        return snapshot(self.root, OWN_FOLDER) if self.root.exists() else {}

    def names(self) -> list[str]:
        """All files and links in the backup root, sorted by bytes."""
        found = (name for name, seen in self.tree().items() if seen.kind != "folder")
        return sorted(found, key=os.fsencode)

    def read(self, stored_at: str) -> bytes:
        return (self.root / stored_at).read_bytes()

    def all_contents(self) -> set[bytes]:
        """Every file content that a person could still find in the backup, the quarantine included."""
        files = [name for name, entry in walk(self.root) if entry.is_file(follow_symlinks=False)]
        own, kept = ".pipeline/", ".pipeline/quarantine/"
        return {self.read(name) for name in files if name.startswith(kept) or not name.startswith(own)}

    def forget(self) -> None:
        """Away with the backup root and the logs, as if nothing had ever been backed up."""
        for folder in (self.root, self.logs):
            if folder.exists():
                shutil.rmtree(folder)

    # Checks that hold after every completed run

    def assert_sound(self, lines: list[Line] | None = None, foreign: str = "") -> None:
        """Every stored thing is what the export says, and nothing lies in the backup that it doesn't name.

        foreign: the start of backup paths of which the export needn't know.
        """
        claims = dict(self.claims(self.export() if lines is None else lines))
        seen = self.tree()
        unclaimed = {name for name, thing in seen.items() if thing.kind != "folder" and name not in claims}
        markers = {name for name in unclaimed if re.search(r"/v\d+\.(pinned|pruned)$", name)}
        others = {name for name in unclaimed if not (foreign and name.startswith(foreign))}
        assert others <= markers, f"stored, but not in the export: {sorted(others - markers)}"
        for stored_at, (line, described) in claims.items():
            assert stored_at in seen, f"in the export, but not stored: {stored_at!r} of {line}"
            if described.get("digest") is not None:
                content = self.read(stored_at)
                assert described["digest"] == digest_of(self.algorithm, content), f"{stored_at!r}: {line}"
                assert described["size"] == len(content), f"{stored_at!r}: {line}"

    def claims(self, lines: list[Line]) -> Iterator[tuple[str, tuple[Line, Line]]]:
        """Each backup path that the export names for a file or link, with its line and what describes it."""
        taken: set[str] = set()
        for line in lines:
            own = [line] if line["kind"] in ("file", "link") else []
            for described in [*own, *line.get("versions", [])]:
                if described.get("stored_at") is None:
                    continue
                stored_at = exact(described, "stored_at")
                assert stored_at not in taken, f"two things at {stored_at!r}"
                taken.add(stored_at)
                yield stored_at, (line, described)

    def assert_mirrors_sources(self, lines: list[Line] | None = None) -> None:
        """Each source's latest state lies in the backup, metadata included; nothing else is current."""
        exported = self.export() if lines is None else lines
        current = {exact(line, "path"): line for line in exported if not line.get("deleted")}
        found: set[str] = set()
        for path, place in self.source_roots().items():
            for relative, entry in walk(place):
                found.add(f"{path}/{relative}")
                self._assert_stored(current.get(f"{path}/{relative}"), entry)
        assert current.keys() - set(self.source_roots()) == found

    def source_roots(self) -> dict[str, Path]:
        pairs = [source if isinstance(source, tuple) else (source, None) for source in self.sources]
        return {name or (self.base / path).name: self.base / path for path, name in pairs}

    def _assert_stored(self, line: Line | None, entry: os.DirEntry[str]) -> None:
        assert line is not None, f"not in the export: {entry.path!r}"
        found = entry.stat(follow_symlinks=False)
        assert line["mode"] == stat.S_IMODE(found.st_mode), f"{entry.path!r}: {line}"
        assert line["mtime_ns"] == found.st_mtime_ns, f"{entry.path!r}: {line}"
        if line["kind"] not in ("file", "link"):
            return
        stored = self.root / exact(line, "stored_at")
        kept = stored.lstat()
        assert kept.st_mtime_ns == found.st_mtime_ns, f"{entry.path!r}: {line}"
        if entry.is_symlink():
            assert line["kind"] == "link" and os.readlink(stored) == os.readlink(entry.path)
            assert exact(line, "target") == os.readlink(entry.path)
            return
        assert line["kind"] == "file" and stat.S_ISREG(kept.st_mode), f"{entry.path!r}: {line}"
        assert stat.S_IMODE(kept.st_mode) == stat.S_IMODE(found.st_mode) & ~0o6000
        assert stored.read_bytes() == Path(entry.path).read_bytes(), f"{entry.path!r}: {line}"

    def assert_nothing_left_to_do(self) -> None:
        """One more run finds nothing to do, changes nothing, and says so."""
        before = self.tree()
        result = self.run("--json")
        done = {key: result.summary[key] for key in NOTHING_DONE}
        assert done == NOTHING_DONE, result.said
        assert [line for line in result.log if not line.startswith("SKIP: ")] == ["Run complete"], result.log
        assert not difference(before, self.tree()), difference(before, self.tree())

    def assert_right(self, foreign: str = "") -> None:
        """The backup is sound and mirrors the sources."""
        lines = self.export()
        self.assert_sound(lines, foreign)
        self.assert_mirrors_sources(lines)

    def assert_all_well(self, foreign: str = "") -> None:
        """The backup is right, and one more run finds it so."""
        self.assert_right(foreign)
        self.assert_nothing_left_to_do()


def assert_log(result: Result, expected: Sequence[str]) -> None:
    """The whole log, line by line; ` (…)` at a line's end stands for a reason that is not fixed."""
    assert normalized(result.log, expected) == list(expected)
