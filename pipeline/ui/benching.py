"""What `bench` prints: a table with a bar for each measurement, or JSON lines.

In: the options as plain values. Out: the exit code. Guarantees: with `--json`, standard output holds JSON
lines only and the last one is the summary; an error is one or two lines without a traceback.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline import config as configuration
from pipeline.config import Config
from pipeline.model.errors import ExitCode, PipelineError
from pipeline.ui.commands import guarded
from pipeline.ui.figures import amount, size_text
from pipeline.ui.lines import one_line
from pipeline.ui.output import Output, standard_error, standard_output
from pipeline.ui.signals import stop_on_signals
from pipeline.ui.tables import Column, print_table
from pipeline.views.bench import Measurement, Verdict, bench

_BAR = 30
_COLUMNS = (
    Column("data"), Column("hash_algorithm"), Column("workers", right=True), Column("files/s", right=True),
    Column("per second", right=True), Column(""),
)  # fmt: skip
_NOTICE = "Stopping.\n"


def run_bench(
    path: Path | None, file: Path | None, settings: Sequence[str], limit_s: float, json: bool
) -> ExitCode:
    """Measure, and say what to set. file, settings: a configuration to compare with, where there is one."""
    out = standard_output()

    def run() -> ExitCode:
        config = configuration.load(file, settings) if file is not None or settings else None
        return (_as_json if json else _as_table)(path, config, limit_s, out)

    return guarded(run)


def _as_table(path: Path | None, config: Config | None, limit_s: float, out: Output) -> ExitCode:
    err, found = standard_error(), list[Measurement]()

    def tell(measured: Measurement) -> None:
        found.append(measured)
        step = measured.step
        rate = f"{size_text(measured.bytes_per_s)}/s"
        err.line(f"{step.data}, {step.algorithm}, {amount(step.workers, 'worker')}: {rate}")

    with stop_on_signals(_NOTICE) as stop:
        verdict = bench(path, limit_s, tell, stop)
        stopped = stop()
    best = max((one.bytes_per_s for one in found), default=1.0)
    print_table(out, _COLUMNS, (_row(one, best) for one in found))
    if stopped:
        return ExitCode.INTERRUPTED
    out.line(closing(verdict))
    if config is not None:
        out.line(f"Configured: hash_algorithm = {config.hash_algorithm}, count = {config.workers.count}")
    return ExitCode.OK if verdict is not None else ExitCode.FAILED


def _row(measured: Measurement, best: float) -> tuple[str, ...]:
    step = measured.step
    bar = "█" * max(1, round(_BAR * measured.bytes_per_s / best))
    rates = f"{measured.files_per_s:,.0f}", size_text(measured.bytes_per_s)
    return step.data, step.algorithm, str(step.workers), *rates, bar


def closing(verdict: Verdict | None) -> str:
    """The recommendation, as lines of a configuration."""
    if verdict is None:
        return "There was nothing to read."
    processors = os.cpu_count() or 1
    note = "as measured"
    if verdict.workers == processors:
        note = "as many as there are processors; 0 means the same"
    return (
        f"What holds it up: the {verdict.bottleneck} ({verdict.why}).\n"
        f'Recommended:\n  hash_algorithm = "{verdict.hash_algorithm}"\n'
        f"  [workers]\n  count = {verdict.workers}  # {note}"
    )


def _as_json(path: Path | None, config: Config | None, limit_s: float, out: Output) -> ExitCode:
    def print_line(line: dict[str, Any]) -> None:
        out.write(orjson.dumps(line) + b"\n")
        out.flush()

    def tell(measured: Measurement) -> None:
        print_line({"type": "measurement", **fields(measured)})

    summary: dict[str, Any] = {"type": "summary", "status": "failed"}
    try:
        with stop_on_signals("") as stop:
            verdict = bench(path, limit_s, tell, stop)
            summary["status"] = "interrupted" if stop() else "ok" if verdict is not None else "failed"
        if verdict is not None:
            summary |= verdict._asdict()
        if config is not None:
            configured = {"hash_algorithm": config.hash_algorithm, "workers": config.workers.count}
            summary["configured"] = configured
    except PipelineError as error:
        print_line({"type": "error", "path": None, "cause": one_line(error.one_line)})
        return error.exit_code
    finally:
        print_line(summary)
    return {"ok": ExitCode.OK, "interrupted": ExitCode.INTERRUPTED}.get(summary["status"], ExitCode.FAILED)


def fields(measured: Measurement) -> dict[str, Any]:
    """A measurement as the JSON line has it."""
    return {
        **measured.step._asdict(),
        "files": measured.files,
        "size_bytes": measured.size_bytes,
        "seconds": round(measured.elapsed_s, 6),
        "files_per_s": round(measured.files_per_s),
        "bytes_per_s": round(measured.bytes_per_s),
    }
