"""How many workers a line has: more where they wait for their reads, and never otherwise."""

from __future__ import annotations

import os

import pytest

from pipeline.pool.crew import LOOK_S, Crew, Size, busy_ns

WORKERS = (11, 12)


class Workers:
    """Processes that have been busy for a share of the time."""

    def __init__(self) -> None:
        self.busy_ns = dict.fromkeys(range(10, 20), 0)

    def work(self, seconds: float, share: float) -> None:
        for pid in self.busy_ns:
            self.busy_ns[pid] += round(seconds * share * 1e9)


def missing(
    share: float,
    elapsed_s: float = LOOK_S,
    has_work: bool = True,
    idle: int = 0,
    most: int = 8,
    own_share: float = 0.1,
) -> int:
    """What the second look says, after the workers were busy for that share of the time between the two."""
    workers = Workers()
    crew = Crew(most, 0.0, workers.busy_ns.get)
    assert crew.missing(WORKERS, 2, True, LOOK_S, 0.0) == 0, "one look tells nothing"
    workers.work(elapsed_s, share)
    return crew.missing(WORKERS[idle:], 2, has_work, LOOK_S + elapsed_s, own_share * elapsed_s)


def test_workers_that_wait_get_company() -> None:
    """As many again, up to the most that there may be."""
    assert missing(0.2) == 2
    assert missing(0.6) == 2, "a virtual disk takes processor time, too"
    assert missing(0.2, most=3) == 1
    assert missing(0.2, most=2) == 0


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"share": 0.9}, id="they work"),
        pytest.param({"share": 0.2, "has_work": False}, id="there is nothing for one more"),
        pytest.param({"share": 0.2, "idle": 1}, id="one of them has nothing to do"),
        pytest.param({"share": 0.2, "elapsed_s": 10.0}, id="the parent stood still"),
        pytest.param({"share": 0.2, "elapsed_s": LOOK_S / 2}, id="too early to tell"),
        pytest.param({"share": 0.2, "own_share": 0.9}, id="the parent is what they wait for"),
    ],
)
def test_workers_that_do_not_wait_stay_as_many(settings: dict[str, float]) -> None:
    assert missing(**settings) == 0  # type: ignore[arg-type]


def test_a_count_that_was_asked_for_is_kept() -> None:
    """`workers.count` is a promise: memory, and the load of a disk, are planned with it."""
    assert Size.of(3) == (3, 3)
    assert Size.of(0).most > Size.of(0).least == len(os.sched_getaffinity(0))


def test_what_is_measured_is_time() -> None:
    """The kernel's own figure: it grows while this process works."""
    before = busy_ns(os.getpid())
    sum(range(300_000))
    after = busy_ns(os.getpid())
    assert before is not None and after is not None and after > before
    assert busy_ns(1 << 30) is None
