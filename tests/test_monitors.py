"""Those who watch a run: log, JSON lines, terminal, several as one."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from told import PLAN, RECORD, RUN, START_S, WARNING, progress, summary

from pipeline.model.errors import PipelineError, Problem, Severity
from pipeline.model.plan import Action, Plan, Store
from pipeline.model.report import Monitor, Summary
from pipeline.ui import figures, jsonlines, runlog, terminal
from pipeline.ui.monitors import Several
from pipeline.ui.output import Output

REPOSITORY = Path(__file__).parent.parent
FOLDER = Plan(None, b"docs\0f", "", (), RECORD)
ODD = Plan(
    Action.BACKUP, b"docs\0\xff[red]\n", "new path", (Store(b"\xff", False),), RECORD, stored_at=b"\xff"
)
ODD_LINE = "PLANNER → BACKUP: docs/\\xff[red]\\x0a (new path)"
ERROR = Problem(Severity.ERROR, None, "bad \udcff disk", b"st\xffore")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the run log sees; tests move it."""
    now = [START_S + 0.5]
    monkeypatch.setattr(runlog.time, "time", lambda: now[0])
    return now


# --- the run log -----------------------------------------------------------------------------------------


def test_run_log_file(tmp_path: Path, clock: list[float]) -> None:
    """One private file per run, named by UTC time and number; every line has its stamp, the last its end."""
    log = runlog.RunLog(tmp_path / "new" / "logs", skips=True)
    log.started(RUN)
    log.acted(PLAN)
    log.acted(FOLDER)
    clock[0] += 1
    log.skipped(b"docs\0c")
    log.problem(WARNING)
    log.finished(summary())
    file = tmp_path / "new" / "logs" / "run-20261124T154842Z-7.log"
    assert file.read_text().splitlines() == [
        "2026-11-24T15:48:42Z PLANNER → BACKUP: docs/a (new path)",
        "2026-11-24T15:48:42Z BACKUP: docs/a → a",
        "2026-11-24T15:48:43Z SKIP: docs/c",
        "2026-11-24T15:48:43Z WARNING: docs/b\\x0a (no [bold]access[/bold])",
        "2026-11-24T15:48:43Z Run complete",
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("ok", "Run complete"),
        ("warnings", "Run complete"),
        ("failed", "Run failed"),
        ("interrupted", "Run interrupted"),
    ],
)
def test_run_log_says_how_it_ended(tmp_path: Path, clock: list[float], status: str, line: str) -> None:
    """The last line tells the end of the run, and nothing that differs between two machines."""
    log = runlog.RunLog(tmp_path, skips=False)
    log.started(RUN)
    log.finished(summary(status))
    (file,) = tmp_path.iterdir()
    assert file.read_text() == f"2026-11-24T15:48:42Z {line}\n"


def test_run_log_is_written_while_the_run_lasts(tmp_path: Path, clock: list[float]) -> None:
    """Lines reach the file within seconds or 64 KiB, so that a killed run leaves its log."""
    log = runlog.RunLog(tmp_path, skips=True)
    log.started(RUN)
    log.skipped(b"first")  # the first line goes out at once
    (file,) = tmp_path.iterdir()
    log.skipped(b"second")
    assert b"second" not in file.read_bytes()
    clock[0] += 3
    log.progress(progress(3))
    assert b"second" in file.read_bytes()
    for _ in range(3):
        log.skipped(b"x" * 30_000)
    assert file.stat().st_size > 64 * 1024


def test_run_log_never_touches_an_older_file(tmp_path: Path, clock: list[float]) -> None:
    """Two runs of one number in the same second, of two backups, have two files."""
    for _ in range(2):
        log = runlog.RunLog(tmp_path, skips=False)
        log.started(RUN)
        log.finished(summary())
    assert [len(file.read_bytes().splitlines()) for file in tmp_path.iterdir()] == [1, 1]


def test_no_log_of_a_dry_run(tmp_path: Path) -> None:
    """A dry run makes no log, not even the folder."""
    log = runlog.RunLog(tmp_path / "logs", skips=True)
    log.started(RUN._replace(dry_run=True))
    log.acted(PLAN)
    log.finished(summary(dry_run=True))
    assert not (tmp_path / "logs").exists()


def test_a_log_that_cannot_be_made_ends_the_run(tmp_path: Path) -> None:
    """A log folder that can't be made is an error that names it; the log is silent afterwards."""
    (tmp_path / "file").touch()
    log = runlog.RunLog(tmp_path / "file" / "logs", skips=False)
    with pytest.raises(PipelineError, match=r"run log in .*file/logs can't be written"):
        log.started(RUN)
    log.finished(summary("failed"))


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the log is told once, not swallowed; the log is silent afterwards."""
    log = runlog.RunLog(tmp_path, skips=False)
    log.started(RUN)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runlog.os, "write", full)
    with pytest.raises(PipelineError, match="No space left"):
        log.acted(PLAN)
    log.acted(PLAN)
    log.finished(summary("failed"))


# --- JSON lines ------------------------------------------------------------------------------------------


def json_of(actions: bool, *calls: Callable[[jsonlines.JsonLines], None]) -> list[dict[str, Any]]:
    out = io.BytesIO()
    monitor = jsonlines.JsonLines(out, actions)
    for call in calls:
        call(monitor)
    return [json.loads(line) for line in out.getvalue().decode("utf-8").splitlines()]


def test_json_actions_only_when_asked_for() -> None:
    """Actions are lines only when asked for, folders never; odd names have their exact bytes beside them."""
    calls = (lambda m: m.acted(PLAN), lambda m: m.acted(FOLDER), lambda m: m.acted(ODD))
    assert json_of(False, *calls) == []
    plain = {"type": "action", "action": "BACKUP", "path": "docs/a", "reason": "new path", "stored_at": "a"}
    odd = plain | {
        "path": "docs/�[red]\n",
        "path_b64": "ZG9jcy//W3JlZF0K",
        "stored_at": "�",
        "stored_at_b64": "/w==",
    }
    assert json_of(True, *calls) == [plain, odd]


def test_json_problems() -> None:
    """Problems have path and cause, also when these aren't UTF-8."""
    assert json_of(False, lambda m: m.problem(WARNING), lambda m: m.problem(ERROR)) == [
        {"type": "warning", "path": "docs/b\n", "cause": "no [bold]access[/bold]"},
        {
            "type": "error",
            "path": None,
            "cause": "bad ? disk",
            "stored_at": "st�ore",
            "stored_at_b64": "c3T/b3Jl",
        },
    ]


def test_json_status_a_few_times_a_second() -> None:
    """However often progress is told, there are about four status lines a second."""
    calls = [lambda m, i=i: m.progress(progress(i / 100)) for i in range(200)]
    lines = json_of(False, *calls)
    assert 6 <= len(lines) <= 8
    assert lines[0] == {"type": "status", **progress(0)._asdict(), "workers": []}


def test_json_summary_is_last_and_has_its_keys() -> None:
    """The summary comes at the very end, after errors that are told later, with exactly the listed keys."""
    told = summary("failed", files=3, BACKUP=1, SKIP=2, warnings=4, bytes_read=5, bytes_stored=6)
    lines = json_of(False, lambda m: m.finished(told), lambda m: m.problem(ERROR), lambda m: m.close())
    assert [line["type"] for line in lines] == ["error", "summary"]
    assert list(lines[-1].items()) == [
        ("type", "summary"), ("run", 7), ("status", "failed"), ("files", 3), ("backup", 1), ("duplicate", 0),
        ("modified", 0), ("metadata", 0), ("skip", 2), ("delete", 0), ("promote", 0), ("retention", 0),
        ("suspect", 0), ("warnings", 4), ("errors", 1), ("bytes_read", 5), ("bytes_stored", 6),
        ("seconds", 1.235),
    ]  # fmt: skip


# --- the terminal ----------------------------------------------------------------------------------------


def terminal_of(
    detail: terminal.Detail, *calls: Callable[[Monitor], None], bars: bool = False
) -> tuple[str, str]:
    out, err = io.BytesIO(), io.BytesIO()
    make = terminal.ProgressBars if bars else terminal.PlainLines
    monitor = make(Output(out, "standard output"), Output(err, "standard error"), detail)
    monitor.started(RUN)
    for call in calls:
        call(monitor)
    return out.getvalue().decode(), err.getvalue().decode()


def test_plain_progress_every_twenty_seconds() -> None:
    """Without a terminal there is one line of progress every 20 seconds, on standard error."""
    calls = [lambda m, i=i: m.progress(progress(i / 2)) for i in range(121)]
    out, err = terminal_of(terminal.Detail(), *calls)
    assert out == ""
    assert len(err.splitlines()) == 3
    assert err.splitlines()[0].startswith("hashing: 200 files found; 1.00 MB of 4.00 MB, ")


def test_problems_go_to_standard_error_escaped() -> None:
    """Problems are told on standard error, one line each, whatever the detail."""
    for detail in (terminal.Detail(), terminal.Detail(quiet=True)):
        out, err = terminal_of(detail, lambda m: m.problem(WARNING), lambda m: m.problem(ERROR))
        assert out == ""
        assert err.splitlines() == [
            "WARNING: docs/b\\x0a (no [bold]access[/bold])",
            "ERROR: st\\xffore (bad \\xff disk)",
        ]


def test_plans_only_when_asked_for() -> None:
    """Plans are printed for `--verbose` and `--dry-run` only, in the words of the log."""
    assert terminal_of(terminal.Detail(), lambda m: m.acted(ODD)) == ("", "")
    out, _ = terminal_of(terminal.Detail(plans=True), lambda m: m.acted(ODD))
    assert out.splitlines() == [ODD_LINE, "BACKUP: docs/\\xff[red]\\x0a → \\xff"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (summary(files=3, SKIP=4), "Nothing changed: 3 files are backed up already.\n"),
        (summary(files=1, SKIP=1), "Nothing changed: 1 file is backed up already.\n"),
        (summary("warnings", files=3, SKIP=2, errors=1), "Nothing changed: 2 files are backed up already.\n"),
        (summary(files=1, BACKUP=1), "Run 7 is complete.\n"),
        (summary("warnings", BACKUP=1, warnings=1), "Run 7 is complete, with warnings.\n"),
        (summary("failed"), "Failed. What was committed is valid"),
        (summary("interrupted"), "Interrupted. What was committed is valid"),
        (summary(dry_run=True, BACKUP=1), "Dry run, nothing was written. This is what a run would do.\n"),
        (summary(dry_run=True, files=2, SKIP=2), "Dry run, nothing was written. Nothing changed: 2 files"),
    ],
)
def test_summary_says_how_it_went(told: Summary, words: str) -> None:
    """The end is told in words first: also that there was nothing to do, and that a dry run wrote nothing."""
    out, _ = terminal_of(terminal.Detail(), lambda m: m.finished(told))
    assert out.startswith(words)


def test_summary_table_of_plain_text() -> None:
    """Without a terminal the figures are aligned text, without those that are 0."""
    told = summary(files=1234, BACKUP=1, bytes_read=2_500_000)
    out, _ = terminal_of(terminal.Detail(), lambda m: m.finished(told))
    assert out.splitlines()[1:] == [
        "  files in the sources    1,234",
        "  new                         1",
        "  read                  2.50 MB",
        "  time                    1.2 s",
    ]


def test_quiet_tells_problems_only() -> None:
    """`--quiet` has no progress and no summary."""
    calls = (lambda m: m.progress(progress(100)), lambda m: m.finished(summary(files=1, BACKUP=1)))
    assert terminal_of(terminal.Detail(quiet=True), *calls) == ("", "")


def test_bars_show_names_as_they_are(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars start when a run lasts, are gone at its end, and never take a name for markup."""
    monkeypatch.setenv("COLUMNS", "200")
    calls = (
        lambda m: m.progress(progress(0.1)),
        lambda m: m.progress(progress(1)),
        lambda m: m.problem(WARNING),
        lambda m: m.finished(summary(files=1, BACKUP=1)),
    )
    out, err = terminal_of(terminal.Detail(table=True), *calls, bars=True)
    drawn = capfd.readouterr().err
    assert "WARNING: docs/b\\x0a (no [bold]access[/bold])" in drawn + err
    assert "files in the sources" in out and "\x1b" not in out.split("\n")[0]


def test_figures_in_words() -> None:
    """Sizes keep three figures, times stay readable, the rate is that of the latest seconds."""
    sizes = {0: "0 B", 999: "999 B", 1000: "1.00 kB", 99_960: "100 kB", 999_600: "1.00 MB", 10**20: "100 EB"}
    assert {size: figures.size_text(size) for size in sizes} == sizes
    times = {0.04: "0.0 s", 59.9: "59.9 s", 59.97: "1 min 00 s", 3600: "1 h 00 min", 90_061: "25 h 01 min"}
    assert {time_s: figures.duration_text(time_s) for time_s in times} == times
    pace = figures.Pace()
    for second in range(100):
        rate = pace.rate(progress(float(second))._replace(bytes_done=max(0, second - 50) * 10))
    assert rate == 10


def test_totals_never_lie_below_what_is_done() -> None:
    """Totals come from the run before and may be too small; then what is done counts as the total."""
    told = progress(1)._replace(files_done=300, bytes_done=5_000_000)
    _, hashing, committing = figures.works(told, 1e6)
    assert (hashing.total, committing.total) == (5_000_000, 300)
    unknown = told._replace(files_total=None, bytes_total=None)
    assert [work.total for work in figures.works(unknown, 0)] == [None, None, None]


# --- output that breaks, several monitors ----------------------------------------------------------------


class BrokenStream(io.BytesIO):
    """A stream that can't be written. Its descriptor is one that may be pointed elsewhere."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.descriptor = os.open(os.devnull, os.O_WRONLY)

    def write(self, _data: object) -> int:
        raise self.error

    def fileno(self) -> int:
        return self.descriptor


def test_a_reader_that_goes_away_does_not_end_a_run() -> None:
    """With `| head` the rest of the output is dropped and the backup goes on; other faults are errors."""
    gone = Output(BrokenStream(BrokenPipeError(32, "Broken pipe")), "standard output")
    gone.write(b"x")
    gone.line("y")
    assert not gone.is_open
    full = Output(BrokenStream(OSError(28, "No space left on device")), "standard output")
    with pytest.raises(PipelineError, match="standard output can't be written: No space left"):
        full.write(b"x")


def test_several_monitors_hear_the_same() -> None:
    """Every monitor gets every call; unchanged files go only to those who want them."""
    streams = [io.BytesIO(), io.BytesIO()]
    monitors = [jsonlines.JsonLines(stream, actions=True) for stream in streams]
    several = Several(monitors)
    assert not several.wants_skips
    assert Several([*monitors, runlog.RunLog(Path("logs"), skips=True)]).wants_skips
    several.started(RUN)
    several.skipped(b"x")
    several.acted(PLAN)
    several.problem(WARNING)
    assert (several.run, several.last_cause, several.ended) == (RUN, WARNING.cause, False)
    several.finished(summary())
    assert several.ended
    assert streams[0].getvalue() == streams[1].getvalue() != b""
