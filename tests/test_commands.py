"""The commands: who is told what, exit codes, signals, the command line as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from told import PLAN, RUN, summary

import pipeline
from pipeline.config import Config
from pipeline.engine import Task
from pipeline.model.errors import ExitCode, LockedError, PipelineError, Problem, Severity
from pipeline.model.report import Monitor, Summary
from pipeline.ui import commands

REPOSITORY = Path(__file__).parent.parent


# --- the run command, with an engine that does as it is told ------------------------------------------------


@pytest.fixture
def with_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[ExitCode, str, str, str]]:
    """Run the command on an engine whose work is `act`: exit code, both outputs, log without stamps."""
    file = tmp_path / "config.toml"
    file.write_text('sources = ["data"]')

    def run(
        act: Callable[[Monitor, Callable[[], bool]], Summary], **shown: bool
    ) -> tuple[ExitCode, str, str, str]:
        engine = ModuleType("pipeline.engine")

        def engine_run(_config: Config, monitor: Monitor, _task: Task, stop: Callable[[], bool]) -> Summary:
            return act(monitor, stop)

        engine.run, engine.Task = engine_run, Task  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pipeline.engine", engine)
        monkeypatch.setattr(pipeline, "engine", engine, raising=False)
        code = commands.run(file, (), shown.pop("dry_run", False), commands.Shown(**shown))
        told = capfdbinary.readouterr()
        logs = [path.read_text() for path in sorted(tmp_path.glob("logs/*.log"))]
        log = "\n".join(line[21:] for line in "".join(logs).splitlines())
        return code, told.out.decode(), told.err.decode(), log

    return run


Engine = Callable[..., tuple[ExitCode, str, str, str]]


@pytest.mark.parametrize(
    ("status", "code"), [("ok", 0), ("warnings", 3), ("failed", 1), ("interrupted", 130)]
)
def test_exit_code_of_a_run(with_engine: Engine, status: str, code: int) -> None:
    """The exit code says how the run ended."""

    def act(monitor: Monitor, _stop: Callable[[], bool]) -> Summary:
        monitor.started(RUN)
        monitor.finished(summary(status))
        return summary(status)

    assert with_engine(act)[0] == code


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("is_ended", [True, False])
def test_an_error_that_ends_a_run_is_told_to_everyone(
    with_engine: Engine, is_told: bool, is_ended: bool
) -> None:
    """An error that ends a run is told once, with what to do next, in JSON and to people, whether or not the
    engine has told it; the summary is the last JSON line, and its status is `failed`."""

    def act(monitor: Monitor, _stop: Callable[[], bool]) -> Summary:
        monitor.started(RUN)
        if is_told:
            monitor.problem(Problem(Severity.ERROR, None, "disk is full. Make room."))
        if is_ended:
            monitor.finished(summary("failed", files=3))
        raise PipelineError("disk is full", "Make room.")

    code, out, err, log = with_engine(act)
    told = ["ERROR: disk is full. Make room."] if is_told else ["error: disk is full", "Make room."]
    assert (code, err.splitlines()[-len(told) :]) == (1, told)
    assert err.count("disk is full") == 1
    assert "Failed." in out
    assert log.splitlines()[-1] == "Run failed"
    assert "ERROR: disk is full" in log or (is_ended and not is_told)
    code, out, err, _ = with_engine(act, json=True)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert [line["type"] for line in lines] == ["error", "summary"]
    assert lines[0] == {"type": "error", "path": None, "cause": "disk is full. Make room."}
    last = lines[1]
    assert (last["run"], last["status"], last["errors"], last["files"]) == (
        7,
        "failed",
        1,
        3 if is_ended else 0,
    )


def test_an_error_before_a_run(with_engine: Engine) -> None:
    """A run that can't begin says why, with its own exit code, without a summary table; JSON has run null."""

    def act(_monitor: Monitor, _stop: Callable[[], bool]) -> Summary:
        raise LockedError(12, "today")

    code, out, err, log = with_engine(act)
    assert (code, out, log) == (11, "", "")
    assert err.splitlines()[0] == "error: another run holds the lock: process 12, started today"
    code, out, err, _ = with_engine(act, json=True)
    assert (code, err) == (11, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["type"], last["run"], last["status"]) == ("summary", None, "failed")


def test_a_log_that_fails_leaves_the_summary_last(
    with_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When the log can't be made, the run fails, says so, and JSON still ends with its summary."""
    (tmp_path / "logs").touch()

    def act(monitor: Monitor, _stop: Callable[[], bool]) -> Summary:
        monitor.started(RUN)
        raise AssertionError("not reached")

    code, out, _, _ = with_engine(act, json=True)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert "run log" in lines[0]["cause"]
    assert (lines[-1]["type"], lines[-1]["status"]) == ("summary", "failed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_insists(with_engine: Engine, number: signal.Signals) -> None:
    """The first signal only sets what the engine asks; the second ends the run at once with 130."""
    before = signal.getsignal(number)

    def act(monitor: Monitor, stop: Callable[[], bool]) -> Summary:
        monitor.started(RUN)
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        signal.raise_signal(number)
        raise AssertionError("not reached")

    code, out, err, log = with_engine(act)
    assert code == 130
    assert err == "Stopping after the current group; press Ctrl-C again to stop at once.\n"
    assert "Interrupted." in out
    assert log.splitlines()[-1] == "Run interrupted"
    assert signal.getsignal(number) is before


def test_dry_run_prints_plans_and_leaves_no_log(with_engine: Engine) -> None:
    """A dry run prints every plan, on a terminal or not, and has no log."""

    def act(monitor: Monitor, _stop: Callable[[], bool]) -> Summary:
        monitor.started(RUN._replace(dry_run=True))
        monitor.acted(PLAN)
        monitor.finished(summary(dry_run=True, files=1, BACKUP=1))
        return summary(dry_run=True)

    code, out, _, log = with_engine(act, dry_run=True)
    assert (code, log) == (0, "")
    assert out.splitlines()[:3] == [
        "PLANNER → BACKUP: docs/a (new path)",
        "BACKUP: docs/a → a",
        "Dry run, nothing was written. This is what a run would do.",
    ]
    code, out, _, _ = with_engine(act, dry_run=True, json=True)
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["action", "summary"]


# --- the command line as a process -----------------------------------------------------------------------


def program(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


LISTS = ["runs", "history", "ls", "diff", "duplicates", "status"]


@pytest.mark.parametrize("command", [["run"], ["export"], ["config", "check"], *([name] for name in LISTS)])
def test_help_has_an_example(command: list[str]) -> None:
    """The help of every command shows how it is called."""
    told = program(*command, "--help")
    assert told.returncode == 0
    assert f"python -m pipeline {' '.join(command)}" in told.stdout.partition("Example")[2]


@pytest.mark.parametrize(
    "arguments", [["run", "--bogus"], ["bogus"], ["run", "--config"], ["run", "--quiet", "--verbose"]]
)
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    """A command line that can't be understood is 2, like a configuration that can't."""
    told = program(*arguments)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr


def test_help_is_light() -> None:
    """`--help` imports neither rich nor the core, so that it is there at once."""
    code = (
        "import sys, pipeline.ui.cli; print(*(m for m in sys.modules if m.startswith(('rich', 'pipeline'))))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(told.stdout.split()) - {"pipeline", "pipeline.ui", "pipeline.ui.options"}
    assert {name.removeprefix("pipeline.ui.").partition("_")[0] for name in loaded} == {"cli"}


def test_config_check(tmp_path: Path) -> None:
    """`config check` prints what the configuration comes to and finds sources that can't be read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text('sources = ["data"]')
    good = program("config", "check", cwd=tmp_path)
    assert good.returncode == 0
    assert f'backup_root = "{tmp_path}/backup"' in good.stdout.splitlines()
    missing = program("config", "check", "--set", 'sources=["none"]', cwd=tmp_path)
    assert missing.returncode == 1
    assert "No such file or directory" in missing.stderr
    wrong = program("config", "check", "--json", "--set", "workers.count=-1", cwd=tmp_path)
    assert wrong.returncode == 2
    assert [json.loads(line)["type"] for line in wrong.stdout.splitlines()] == ["error", "summary"]


def test_config_error_of_a_run(tmp_path: Path) -> None:
    """A mistake in the configuration is two lines on standard error and exit 2; in JSON a failed summary."""
    (tmp_path / "config.toml").write_text('sources = ["data"]\nretention.max_versions_per_file = -1')
    told = program("run", cwd=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.splitlines() == [
        "error: config.toml: retention.max_versions_per_file: must be at least 0, not -1",
        "For example: retention.max_versions_per_file = 10",
    ]
    told = program("run", "--json", cwd=tmp_path)
    assert (told.returncode, told.stderr) == (2, "")
    assert [json.loads(line)["type"] for line in told.stdout.splitlines()] == ["error", "summary"]
