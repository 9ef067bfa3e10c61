"""`bench`: what is measured, and what it recommends."""

from __future__ import annotations

import pytest
from harness import Backup
from trees import snapshot

from pipeline.views.bench import COLD, WARM, Measurement, Step, judge, steps


def measured(
    data: str, algorithm: str, workers: int, megabytes_per_s: float, files: int = 1000
) -> Measurement:
    return Measurement(Step(data, algorithm, workers), files, round(megabytes_per_s * 1_000_000), 1.0)


def warm(blake3: float, sha256: float, xxh3: float, second: float = 1.9) -> list[Measurement]:
    """With one worker, and `second` times that with two."""
    rates = {"blake3": blake3, "sha256": sha256, "xxh3_128": xxh3}
    return [
        measured(WARM, name, n, rate * (second if n == 2 else 1))
        for name, rate in rates.items()
        for n in (1, 2)
    ]


VERDICTS = [
    pytest.param(warm(1000, 500, 3000), "processor", "blake3", 2, id="hashing is what takes the time"),
    pytest.param(warm(100, 95, 105), "file count", "blake3", 2, id="all algorithms alike"),
    pytest.param(warm(500, 900, 2000), "processor", "sha256", 2, id="sha256 in hardware"),
    pytest.param(warm(100, 95, 105, second=1.02), "file count", "blake3", 1, id="one worker is enough"),
    pytest.param(
        [measured(COLD, "blake3", n, rate) for n, rate in ((1, 50), (2, 90), (4, 160), (8, 163))]
        + warm(1000, 500, 3000),
        "disk", "blake3", 4, id="waiting for the disk wants more workers",
    ),
    pytest.param(
        [measured(COLD, "blake3", n, 1800) for n in (1, 2)] + warm(1000, 500, 3000),
        "processor", "blake3", 2, id="a disk that is as fast as memory",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("measurements", "bottleneck", "algorithm", "workers"), VERDICTS)
def test_the_verdict(measurements: list[Measurement], bottleneck: str, algorithm: str, workers: int) -> None:
    """The bottleneck is named by what the figures show, and never is an algorithm recommended that proves
    nothing against tampering."""
    verdict = judge(measurements)
    assert verdict is not None
    assert (verdict.bottleneck, verdict.hash_algorithm, verdict.workers) == (bottleneck, algorithm, workers)


def test_nothing_measured_is_no_verdict() -> None:
    assert judge([]) is None


def test_cold_comes_first_and_only_with_a_folder() -> None:
    """What was read once is warm; so all cold measurements come before any other one."""
    data = [step.data for step in steps(True, 2)]
    assert data == sorted(data) and data.count(COLD) == 4
    assert COLD not in {step.data for step in steps(False, 2)}


@pytest.mark.slow
def test_a_folder_is_only_read(backup: Backup) -> None:
    """`bench PATH --json`: a line for each measurement, the summary last; the folder stays as it was."""
    backup.write({f"folder/file{number:03}": f"{number}\n" * 100 for number in range(300)})
    before = snapshot(backup.source, folder_times=True)
    result = backup.call("bench", str(backup.source), "--seconds", "0.2", "--json")
    *lines, summary = result.lines
    assert {line["data"] for line in lines} == {"cold", "warm"}
    assert {line["hash_algorithm"] if "hash_algorithm" in line else line["algorithm"] for line in lines} == {
        "blake3", "sha256", "xxh3_128",
    }  # fmt: skip
    assert all(line["files"] > 0 and line["bytes_per_s"] > 0 for line in lines)
    assert summary["status"] == "ok" and summary["hash_algorithm"] in ("blake3", "sha256")
    assert snapshot(backup.source, folder_times=True) == before


def test_a_table_and_a_recommendation_for_people(backup: Backup) -> None:
    """Without a folder, data are made; the table has a bar for each, and the end is what to write down."""
    result = backup.call("bench", "--seconds", "0.05")
    assert (
        "█" in result.stdout and "hash_algorithm = " in result.stdout and "What holds it up" in result.stdout
    )


def test_a_folder_that_is_not_there(backup: Backup) -> None:
    assert "No such file" in backup.call("bench", str(backup.base / "nowhere"), expect=1).stderr
