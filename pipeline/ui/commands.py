"""What the commands do, once the command line is understood.

In: the options as plain values. Out: the exit code, and what a person or a script is told.
Guarantees: an error that ends a command is one or two lines without a traceback; with `--json`, standard
output holds JSON lines only, and the last one is the summary.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pipeline import config as configuration
from pipeline.config import Config
from pipeline.model.errors import ExitCode, PipelineError, Problem, Severity, SourceError
from pipeline.model.report import Counts, Monitor, Summary
from pipeline.toml import toml_text
from pipeline.ui.jsonlines import lossy
from pipeline.ui.lines import one_line
from pipeline.ui.monitors import Several
from pipeline.ui.output import Output, standard_error, standard_output
from pipeline.workers import check_installed

if TYPE_CHECKING:
    from pipeline.ui.watching import WatchShown

T = TypeVar("T")

EXIT_CODES = {
    "ok": ExitCode.OK,
    "warnings": ExitCode.WARNINGS,
    "failed": ExitCode.FAILED,
    "interrupted": ExitCode.INTERRUPTED,
}


class Shown(NamedTuple):
    """The options that say what a writing command tells."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False


def run(file: Path | None, settings: Sequence[str], dry_run: bool, shown: Shown) -> ExitCode:
    """Back up once."""
    return guarded(lambda: _Run(shown, dry_run).code(file, settings))


def prune(
    file: Path | None, settings: Sequence[str], dry_run: bool, accept_clock: bool, shown: Shown
) -> ExitCode:
    """Apply retention, and nothing else."""
    return guarded(lambda: _Run(shown, dry_run, True, accept_clock).code(file, settings))


class _Run:
    """One run and those who are told of it: the log, then JSON lines or the terminal."""

    def __init__(
        self, shown: Shown, dry_run: bool, only_prunes: bool = False, accepts_clock: bool = False
    ) -> None:
        from pipeline.ui.jsonlines import JsonLines

        self._begin_s = time.monotonic()
        self._dry_run = dry_run
        self._only_prunes = only_prunes
        self._accepts_clock = accepts_clock
        self._shown = shown
        self._out = standard_output()
        plans, self._excluded = shown.verbose or dry_run, shown.verbose and dry_run
        self._json = JsonLines(self._out, plans, self._excluded) if shown.json else None
        # They are told of an error that ends the run; a person gets it from `guarded`.
        self._records: list[Monitor] = [self._json] if self._json else []
        self._monitor = Several(self._records)

    def code(self, file: Path | None, settings: Sequence[str]) -> ExitCode:
        """Run to whatever end, and see to it that everybody has been told of it."""
        try:
            return self._run(configuration.load(file, settings))
        except PipelineError as error:
            already_told = self._monitor.last_cause == error.one_line
            if not already_told:
                _tell(Several(self._records).problem, Problem(Severity.ERROR, None, error.one_line))
            self._end("failed")
            if self._json is None and not already_told:
                raise
            return error.exit_code
        except KeyboardInterrupt:
            self._end("interrupted")
            return ExitCode.INTERRUPTED
        except Exception:
            self._end("failed")
            raise
        finally:
            if self._json is not None:
                self._json.close()

    def _run(self, config: Config) -> ExitCode:
        from pipeline import engine
        from pipeline.ui.signals import stop_on_signals

        if not self._dry_run:
            from pipeline.ui.runlog import RunLog

            # First, so that nobody after it says what could not be logged.
            self._records.insert(0, RunLog(config.log_dir, config.log.skips))
        self._monitor = Several(self._records if self._json else [*self._records, self._terminal()])
        with stop_on_signals() as stop:
            task = engine.Task(
                self._dry_run, only_prunes=self._only_prunes, accepts_clock=self._accepts_clock
            )
            summary = engine.run(config, self._monitor, task, stop)
        return EXIT_CODES[summary.status]

    def _terminal(self) -> Monitor:
        from pipeline.ui.terminal import Detail, PlainLines, ProgressBars

        err = standard_error()
        plans = self._shown.verbose or self._dry_run
        detail = Detail(plans, self._shown.quiet, self._out.is_terminal, self._excluded)
        # Plans that scroll by are progress enough, and bars between them would only be torn apart.
        draws_bars = err.is_terminal and not self._shown.quiet and not (plans and self._out.is_terminal)
        return (ProgressBars if draws_bars else PlainLines)(self._out, err, detail)

    def _end(self, status: str) -> None:
        """Tell the end of a run that ended before the engine could tell it."""
        if self._monitor.ended:
            return
        summary = self._monitor.summary
        if summary is None:
            run = self._monitor.run
            seconds = time.monotonic() - self._begin_s
            summary = Summary(
                run.number if run else None, status, Counts(), seconds, self._dry_run, (), self._only_prunes
            )
        _tell(self._monitor.finished, summary._replace(status=status))


def watch(file: Path | None, settings: Sequence[str], dry_run: bool, shown: Shown) -> ExitCode:
    """Keep the backup current until a signal comes."""
    view = _watch_view(dry_run, shown)

    def begin() -> ExitCode:
        status = "failed"
        try:
            _watch(configuration.load(file, settings), view, dry_run)
            status = "ok"
        except KeyboardInterrupt:  # the second signal: at once
            status = "interrupted"
        except PipelineError as error:
            if not view.ended_by(error):
                raise
            return error.exit_code
        finally:
            view.finished(status)
        return ExitCode.OK

    return guarded(begin)


def _watch(config: Config, view: WatchShown, dry_run: bool) -> None:
    from pipeline.ui.signals import stop_on_signals
    from pipeline.watching.watch import Watch

    if not dry_run:
        view.log_dir = config.log_dir
    watching = Watch(config, view, dry_run)
    with stop_on_signals("Stopping after what is under way.\n", watching.wake) as stop:
        watching.run(stop)


def _watch_view(dry_run: bool, shown: Shown) -> WatchShown:
    from pipeline.ui.terminal import Detail
    from pipeline.ui.watching import WatchJson, WatchLines, WatchView

    out, err = standard_output(), standard_error()
    plans = shown.verbose or dry_run
    if shown.json:
        return WatchJson(out, plans)
    is_live = err.is_terminal and out.is_terminal and not shown.quiet
    return (WatchView if is_live else WatchLines)(out, err, Detail(plans=plans, quiet=shown.quiet))


def _tell(call: Callable[[T], None], what: T) -> None:
    """Tell all. A monitor that fails (a log on a full disk) is silent from then on, and the rest hear it."""
    try:
        call(what)
    except PipelineError:
        call(what)


def export(file: Path | None, settings: Sequence[str]) -> ExitCode:
    """Print the state as canonical JSON lines."""

    def print_lines() -> ExitCode:
        config = configuration.load(file, settings)
        from pipeline.views.export import export_lines

        out = standard_output()
        for line in export_lines(config):
            out.write(line)
            if not out.is_open:
                break
        out.flush()
        return ExitCode.OK if out.is_open else ExitCode.FAILED

    return guarded(print_lines)


def check(file: Path | None, settings: Sequence[str], json: bool) -> ExitCode:
    """Print the configuration as it is understood, and whether its sources can be read."""
    out = standard_output()
    if json:
        return _check_json(file, settings, out)

    def print_config() -> ExitCode:
        config = configuration.load(file, settings)
        check_installed(config.workers, config.file)
        for source in config.sources:
            out.line(f"source {toml_text(source.name)}: {toml_text(source.path)}")
        for key, value in configuration.settings_of(config):
            out.line(f"{key} = {toml_text(value)}")
        problems = list(_source_problems(config))
        for problem in problems:
            _print_error(problem, standard_error())
        if not problems:
            out.line("The configuration is right, and every source is a folder that can be read.")
        return ExitCode.FAILED if problems else ExitCode.OK

    return guarded(print_config)


def explain(file: Path | None, settings: Sequence[str], json: bool, paths: Sequence[Path]) -> ExitCode:
    """Print for each path whether it is backed up, and why not."""

    def print_fates() -> ExitCode:
        config = configuration.load(file, settings)
        import orjson

        from pipeline.views.fate import fate_of

        out = standard_output()
        for fate in (fate_of(config, path) for path in paths):
            if json:
                line = {"type": "path", "path": lossy(fate.path), "backed_up": fate.is_backed_up}
                out.write(orjson.dumps(line | {"why": lossy(fate.why)}) + b"\n")
            else:
                verdict = "is backed up" if fate.is_backed_up else "is left out"
                out.line(one_line(f"{fate.path} {verdict}: {fate.why}"))
        out.flush()
        return ExitCode.OK

    return guarded(print_fates)


def _check_json(file: Path | None, settings: Sequence[str], out: Output) -> ExitCode:
    import orjson

    resolved: dict[str, object] = {}
    problems: list[PipelineError] = []
    try:
        config = configuration.load(file, settings)
        check_installed(config.workers, config.file)
        sources = [{"name": one_line(s.name), "path": one_line(str(s.path))} for s in config.sources]
        resolved = {"sources": sources, **dict(configuration.settings_of(config))}
        problems += _source_problems(config)
    except PipelineError as error:
        problems.append(error)
    lines: list[dict[str, object]] = [
        {"type": "error", "path": None, "cause": one_line(problem.cause)} for problem in problems
    ]
    lines.append({"type": "summary", "status": "failed" if problems else "ok", "config": resolved})
    for line in lines:
        out.write(orjson.dumps(line, default=lambda path: one_line(str(path))) + b"\n")
    out.flush()
    return problems[0].exit_code if problems else ExitCode.OK


def _source_problems(config: Config) -> Iterator[SourceError]:
    """What a run would find wrong with the sources at its start."""
    for source in config.sources:
        try:
            with os.scandir(source.path) as entries:
                next(entries, None)
        except OSError as error:
            cause = f"source {toml_text(source.name)}: {source.path}: {error.strerror}"
            yield SourceError(cause, "Mend its path in the configuration, or mount or make the folder.")


def guarded(command: Callable[[], ExitCode]) -> ExitCode:
    """The command's exit code; an error that ends it is printed for people."""
    try:
        return command()
    except PipelineError as error:
        _print_error(error, standard_error())
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _print_error(error: PipelineError, err: Output) -> None:
    err.line(f"error: {one_line(error.cause)}")
    for advice in error.advice.splitlines():
        err.line(one_line(advice))
