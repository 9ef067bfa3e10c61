"""What a cluster's promises rest on, part by part and without a cluster: the proof that another machine sees
the same, bytes that are on the disk before they are told, who is blamed for a lost worker (promises 1, 3, 5).
"""

from __future__ import annotations

import errno
import os
import pickle
import selectors
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import wait_until

from pipeline.layout import SourcePlace
from pipeline.model import message
from pipeline.model.errors import PipelineError, StationError
from pipeline.model.record import NAMES_MASK
from pipeline.model.report import WorkerRate
from pipeline.pool import cluster, remote
from pipeline.pool.channel import Frame
from pipeline.pool.client import Answer, Crowd, Killed, Said, Sign
from pipeline.pool.hands import Rates, Tally
from pipeline.stages import remote_hasher
from pipeline.stages.proof import Prover, Reply, reply_to
from pipeline.stages.remote_hasher import Elsewhere, Here, RemoteHasher, RemoteSetup, settle_here
from pipeline.stages.setup import HashSetup, SourceRoot
from pipeline.store import calls
from pipeline.ui import figures

BATCH = message.encode([[message.INSIDE, b"s"], [message.FILE, b"one", None], [message.FILE, b"two", None]])


class World:
    """A source and a backup root, and what a run tells others of them."""

    def __init__(self, base: Path) -> None:
        self.source, self.root = base / "source", base / "backup"
        self.staging = self.root / ".pipeline" / "staging"
        self.source.mkdir()
        self.staging.mkdir(parents=True)
        for name in ("one", "two", "three", "four"):
            (self.source / name).write_text(name)
        found = self.source.stat()
        root = SourceRoot(SourcePlace(b"s", True), os.fsencode(self.source), (found.st_dev, found.st_ino))
        self.hashing = HashSetup((root,), "sha256", "content", str(self.root), 1, True, False, False)
        self.handle = calls.open(self.staging, os.O_RDONLY | calls.O_DIRECTORY)
        self.prover = Prover(self.hashing, self.handle, enters_mounts=True)

    def setup(self) -> RemoteSetup:
        return RemoteSetup(self.hashing, self.prover.question)

    def here(self) -> Here:
        reply, here = settle_here(self.setup())
        assert here is not None and self.prover.refusal(reply) is None
        return here

    def close(self) -> None:
        self.prover.close()
        assert os.listdir(self.staging) == [], "a proof leaves nothing"
        calls.close(self.handle)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


# -- the proof --------------------------------------------------------------------------------------------


def replace_source(world: World) -> None:
    world.source.rename(world.source.with_name("away"))
    world.source.mkdir()


def change_most(world: World) -> None:
    for name in ("one", "two", "three"):
        (world.source / name).unlink()
        (world.source / f"new {name}").touch()


def hide_source(world: World) -> None:
    world.source.rename(world.source.with_name("away"))


def hide_staging(world: World) -> None:
    world.staging.rename(world.staging.with_name("away"))
    world.staging.mkdir()


@pytest.mark.parametrize(
    ("before", "after", "refusal"),
    [
        (None, None, None),
        (lambda w: (w.source / "one").unlink(), None, None),
        (replace_source, None, "is another folder there"),
        (change_most, None, "is another folder there"),
        (hide_source, None, "No such file"),
        (hide_staging, None, "can't be read and written there: No such file"),
        (None, lambda w: next(w.staging.glob("*-*-*")).unlink(), "can't be read here: No such file"),
        (None, lambda w: next(w.staging.glob("*-*-*")).write_text("x"), "is something else here"),
        pytest.param(
            None,
            lambda w: os.chown(next(w.staging.glob("*-*-*")), 1234, -1),
            "it runs as another user: what it writes belongs to 1234, and here to 0",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give away"),
        ),
    ],
)
def test_what_proves_that_another_machine_sees_the_same(
    world: World,
    before: Callable[[World], object] | None,
    after: Callable[[World], object] | None,
    refusal: str | None,
) -> None:
    """The same folders, though something has changed in them; and the backup root, both ways. Nothing less.

    before: what is different where the question is answered. after: on the way of the answer.
    """
    names = set(os.listdir(world.source))
    if before is not None:
        before(world)
    reply = reply_to(world.prover.question)
    if before in (replace_source, change_most, hide_source):  # the other machine saw that, this one doesn't
        if (away := world.source.with_name("away")).exists():
            if world.source.exists():
                world.source.rmdir()
            away.rename(world.source)
        for name in names - set(os.listdir(world.source)):
            (world.source / name).touch()
        for name in set(os.listdir(world.source)) - names:
            (world.source / name).unlink()
    if after is not None:
        after(world)
    told = world.prover.refusal(reply)
    assert told is None if refusal is None else told is not None and refusal in told, told
    if before is hide_staging:
        world.staging.rmdir()
        world.staging.with_name("away").rename(world.staging)
    for left in world.staging.glob("*-*-*"):
        left.unlink()


def test_a_dry_run_proves_the_backup_by_its_look(world: World) -> None:
    """Nothing is written there by it, and another backup root is refused all the same."""
    prover = Prover(world.hashing, None, enters_mounts=True)
    reply = reply_to(prover.question)
    assert prover.refusal(reply) is None
    other = reply._replace(seen=(reply.seen[0], reply.seen[1]._replace(inode=1)))
    assert "is another folder there" in str(prover.refusal(other))
    prover.close()


def test_a_refusal_of_the_other_side_is_told(world: World) -> None:
    assert world.prover.refusal(Reply("x", refusal="why")) == "why"


# -- a hasher elsewhere -----------------------------------------------------------------------------------


def test_what_was_staged_is_on_the_disk_before_it_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch that has staged anything syncs the file system of staging after its last byte and before its
    answer; one that has staged nothing doesn't. Where the sync fails, the answer is FATAL."""
    here, synced = world.here(), []

    def sync(handle: int, names: list[bytes]) -> None:
        synced.append(sorted(map(os.fsdecode, calls.listdir(handle))))

    monkeypatch.setattr(remote_hasher, "make_staged_durable", sync)
    hasher = RemoteHasher(here, 0xABC, lambda _: None)
    results = message.decode_results(hasher.process(BATCH)[0])
    staged = sorted(os.fsdecode(item[9]) for item in results.items)
    assert len(staged) == 2 and len(synced) == 1 and set(staged) <= set(synced[0])
    assert all(name.startswith("1-abc-") for name in staged)
    folder = message.encode([[message.FOLDER, b"s", [0o40755, 0, 0, 0, 0, 1, 0, 1], None, b""]])
    hasher.process(folder)
    assert len(synced) == 1

    def fail(handle: int, names: list[bytes]) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(remote_hasher, "make_staged_durable", fail)
    (world.source / "one").write_text("again")
    last = message.decode_results(hasher.process(BATCH)[0]).items[-1]
    assert last == [message.FATAL, "can't write to the backup: Input/output error"]
    hasher.close()
    for name in os.listdir(world.staging):
        if name.startswith("1-abc-"):
            (world.staging / name).unlink()


def test_disks_have_the_numbers_of_the_runs_own_machine(world: World) -> None:
    """Names of one file are told by disk and inode; so what two machines have seen has to be comparable."""
    os.link(world.source / "one", world.source / "linked")
    device = world.source.stat().st_dev & 0x7FFF_FFFF
    here = world.here()._replace(disks={device: 77})
    here = here._replace(hashing=here.hashing._replace(stage=False))
    hasher = RemoteHasher(here, 1, lambda _: None)
    one, two = message.decode_results(hasher.process(BATCH)[0]).items
    hasher.close()
    assert (one[3][7] >> 32, one[3][7] & NAMES_MASK) == (77, 2)
    assert two[3][7] == 1


def test_names_have_the_locale_of_the_worker(world: World) -> None:
    """Where text is in another encoding there, the backup root is the one that was proved."""
    as_text_elsewhere = world.setup()._replace(hashing=world.hashing._replace(backup_root="/\xc3\xbc"))
    reply, here = settle_here(as_text_elsewhere)
    assert here is not None and here.hashing.backup_root == str(world.root)
    assert world.prover.refusal(reply) is None


def test_a_folder_with_another_disk_is_left_to_others(world: World) -> None:
    here = world.here()._replace(others=(os.fsencode(world.source / "disk"),))
    hasher = RemoteHasher(here, 1, lambda _: None)
    for path in (b"s\0disk", b"s\0disk\0below"):
        with pytest.raises(Elsewhere, match="disk: something else is mounted there"):
            hasher.process(message.encode([[message.INSIDE, path], [message.FILE, b"x", None]]))
    with pytest.raises(Elsewhere, match="disk: something else is mounted there"):
        hasher.process(message.encode([[message.INSIDE, b"s"], [message.FILE, b"disk", None]]))
    hasher.process(message.encode([[message.INSIDE, b"s\0disk2"], [message.FILE, b"disk", None]]))
    hasher.close()


# -- the process of a worker ------------------------------------------------------------------------------


def open_handles(place: Path) -> int:
    """How many handles of this process are of that folder."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(place) for link in links)


@pytest.mark.handles
def test_a_run_that_is_over_holds_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a worker serves many runs: a newer one on the same backup ends the older one, and one that
    was told of its end takes up nothing that comes late."""
    setup = pickle.dumps(world.setup())
    before = open_handles(world.source)
    for token, place in (("first", "here"), ("other", "there"), ("second", "here")):
        _, run = remote._known(token, place, setup)
        assert run is not None and world.prover.refusal(run.reply) is None
        assert remote._known(token, place, setup)[1] is run
        run.process("1-1", message.encode([[message.INSIDE, b"s"], [message.FILE, b"none", None]]))
    assert open_handles(world.source) == before + 2, "the first one of them has ended"
    for token in ("other", "second"):
        remote.forget(token)
    assert open_handles(world.source) == before
    assert remote._known("second", "here", setup)[1] is None


def test_who_is_refused_ends_nobody(world: World) -> None:
    """A backup of another machine under the same path can't be proved here: the run of this one goes on."""
    _, run = remote._known("right", "here", pickle.dumps(world.setup()))
    assert run is not None and world.prover.refusal(run.reply) is None
    lost = world.prover.question._replace(secret=b"proof-of-another-disk")
    assert remote._known("wrong", "here", pickle.dumps(RemoteSetup(world.hashing, lost)))[1] is None
    assert remote._known("right", "here", b"")[1] is run
    remote.forget("right")


def test_a_run_that_says_nothing_any_more_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's machine is gone: after a while nothing of it is open here."""
    monkeypatch.setattr(remote, "IDLE_S", 0.05)
    _, run = remote._known("killed", "here", pickle.dumps(world.setup()))
    assert run is not None and world.prover.refusal(run.reply) is None
    run.process("1-1", message.encode([[message.INSIDE, b"s"], [message.FILE, b"none", None]]))
    assert wait_until(lambda: "killed" not in remote._runs and not run._free)


class Told:
    """A worker of Dask's as a task sees it."""

    address = "tcp://here:1"

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def log_event(self, topic: str, event: dict[str, Any]) -> None:
        self.events.append(event)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr("distributed.get_worker", lambda: told)
    return told


def missing_source(world: World) -> None:
    world.source.rename(world.source.with_name("away"))


def missing_staging(world: World) -> None:
    world.staging.rename(world.staging.with_name("away"))


def broken_payload(world: World) -> None:
    """Nothing that could be seen on the disk."""


@pytest.mark.parametrize(
    ("what", "kind", "cause"),
    [
        (missing_source, remote.FAILED, "has changed since the run began: No such file or directory"),
        (missing_staging, remote.REFUSED, "staging: No such file or directory"),
        (broken_payload, remote.FAILED, "a worker failed:\nTraceback"),
    ],
)
def test_what_ends_a_task_is_told_in_words(
    world: World, told: Told, what: Callable[[World], None], kind: str, cause: str
) -> None:
    """Exceptions don't travel: known errors as they are, an operating system's with the file (it is about
    this machine: others may do it), the program's own with their traceback; nothing is open afterwards."""
    setup = pickle.dumps(world.setup())
    reply, _ = remote._known(what.__name__, "here", setup)
    assert world.prover.refusal(reply) is None
    before = open_handles(world.source)
    what(world)
    payload = b"\xc1" if what is broken_payload else BATCH
    found, address, said, *_ = remote.hash_batch(what.__name__, "1-1", payload)
    assert (found, address) == (kind, "tcp://here:1") and cause in said, said
    remote.forget(what.__name__)
    assert remote.hash_batch(what.__name__, "1-1", payload)[0] == remote.UNKNOWN
    assert open_handles(world.source) == before
    for place in (world.source, world.staging):
        if (away := place.with_name("away")).exists():
            away.rename(place)


def test_signs_of_life_are_few(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a second at the most, with all that was read since the last one."""
    now_s = iter((0.0, 0.5, 0.9, 1.1, 1.1, 1.2))
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: next(now_s)))
    signs = remote._Signs("token")
    signs.begin("1-1")
    for size_bytes in (1, 2, 4):
        signs.alive(size_bytes)
    assert told.events == [
        {"token": "token", "key": "1-1", "address": "tcp://here:1", "size_bytes": 7},
    ]


def test_another_version_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    call, _ = remote.by_value()
    told = "it has version 0.1.0 of this package, and this run has 0.2.0"
    assert call("0.2.0", "forget", "x") == (remote.REFUSED, "", told)


# -- the line's side --------------------------------------------------------------------------------------


class Desk:
    """A line that remembers what it was told."""

    has_work = True

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def answered(self, frame: Frame, payload: bytes) -> None:
        self.told.append(("answered", frame.number))

    def killed(self, frame: Frame) -> None:
        self.told.append(("killed", frame.number))

    def take_back(self, frames: Any) -> None:
        raise AssertionError("Dask gives out again by itself")


class Client:
    """In the place of a client: what was submitted."""

    def __init__(self, address: str, told: Any, refusal: object, say: Callable[[Said], None]) -> None:
        self.say = say
        self.told = told
        self.keys: list[str] = []
        self.given_up: list[str] = []

    def give_up(self, cause: str) -> None:
        self.given_up.append(cause)

    def run(self) -> None:
        """Nothing of its own."""

    def stop(self) -> None:
        """Nothing to stop."""

    def submit(self, key: str, payload: bytes) -> None:
        self.keys.append(key)


class Hands:
    """A `Cluster` with such a client, and the line around it. staging: None for a dry run."""

    def __init__(self, world: World, staging: int | None = None, **patience: float) -> None:
        self.desk = Desk()
        self.selector = selectors.DefaultSelector()
        self.cluster = cluster.Cluster("tcp://host:1", world.hashing, staging, True, **patience)
        self.cluster.start(self.selector, self.desk)
        self.client: Client = self.cluster._client  # type: ignore[assignment]

    def say(self, *said: Said) -> None:
        for one in said:
            self.client.say(one)
        for key, _ in self.selector.select(0):
            key.data()

    def give(self, *numbers: int) -> list[bool]:
        return [self.cluster.give(Frame(number, 1, 1, b"")) for number in numbers]


@pytest.fixture
def hands(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hands]]:
    made: list[Hands] = []
    monkeypatch.setattr(cluster, "ClusterClient", Client)

    def make(**how: Any) -> Hands:
        made.append(Hands(world, **how))
        return made[-1]

    yield make
    for one in made:
        one.cluster.close(is_done=False)
        one.selector.close()


def test_in_flight_is_what_the_cluster_can_take(hands: Callable[..., Hands]) -> None:
    """Four batches for each thread, as many as there are at the moment; none without workers."""
    it = hands()
    assert it.give(0) == [False] and it.cluster.is_waiting
    it.say(Crowd(1, ("a",)))
    assert it.give(*range(5)) == [True] * 4 + [False]
    it.say(Crowd(3, ("a", "b")))
    assert it.give(*range(4, 13)) == [True] * 8 + [False]
    it.say(Crowd(1, ("a",)), Answer("0-1", "a", b"", 1, 10))
    assert it.give(12) == [False]
    assert it.desk.told == [("answered", 0)]
    assert it.cluster.tallies() == [Tally("a", 1, 10)]


def test_a_file_that_may_be_deadly_is_alone(hands: Callable[..., Hands]) -> None:
    """Dask blames all that a lost worker had. So what goes file by file is given when nothing else is there,
    and nothing is given beside it."""
    it = hands()
    it.say(Crowd(4, ("a",)))
    assert it.give(0, 1) == [True, True]
    it.say(Killed("0-1"))
    assert it.desk.told == [("killed", 0)]
    assert it.give(0) == [False], "the other one isn't answered yet"
    it.say(Answer("1-2", "a", b"", 1, 1))
    assert it.give(0, 2) == [True, False]
    it.say(Killed("0-3"))
    assert it.desk.told[-1] == ("killed", 0)
    assert it.give(2) == [True]


def test_patience_has_an_end(hands: Callable[..., Hands]) -> None:
    """Without workers, and without an answer or a sign from those who have something; a process that stood
    still itself begins to count anew."""
    it = hands(silence_s=10.0, stuck_s=20.0)
    it.cluster.look_after(0.0, False)
    it.cluster.look_after(9.0, False)
    it.cluster.look_after(30.0, True)
    with pytest.raises(StationError, match=r"at tcp://host:1 has had no workers for 11 s"):
        it.cluster.look_after(41.0, False)
    it.say(Crowd(1, ("a",)))
    it.give(0)
    for now_s in (100.0, 115.0):
        it.cluster.look_after(now_s, False)
        it.say(Sign("0-1", "a", 5))
    it.cluster.look_after(116.0, False)
    assert it.cluster.bytes_in_progress == 10
    assert it.cluster.tallies() == [Tally("a", 0, 10)]
    it.say(Sign("0-1", "b", 3), Sign("of another run", "b", 3))
    assert it.cluster.bytes_in_progress == 3, "another worker has begun it anew"
    it.cluster.look_after(116.0, False)
    for now_s in (137.0, 138.0):
        it.cluster.look_after(now_s, False)
    assert it.client.given_up == ["the cluster at tcp://host:1 has answered nothing for 21 s"]
    with pytest.raises(StationError, match="doesn't answer"):
        it.cluster.look_after(137.0 + cluster._CLOSING_S, False)


def test_what_ends_the_run_is_raised_in_the_lines_thread(hands: Callable[..., Hands]) -> None:
    with pytest.raises(PipelineError, match="lost"):
        hands().say(StationError("the scheduler is lost"))


def test_a_dry_run_stands_beside_all_others(world: World, hands: Callable[..., Hands]) -> None:
    """A newer run on a backup ends the older one, which was killed: else it would have the lock. Dry runs
    share theirs."""
    dry, other, run = hands(), hands(), hands(staging=world.handle)
    assert run.client.told.place == str(world.root)
    assert len({one.client.told.place for one in (dry, other, run)}) == 3


def test_nothing_is_open_before_it_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never starts, or can't for too few handles, leaves no handle and no secret; and that is told."""

    def left() -> tuple[int, list[str]]:
        return len(os.listdir("/proc/self/fd")), os.listdir(world.staging)

    before = left()
    made = cluster.Cluster("tcp://host:1", world.hashing, world.handle, True)
    made.close(is_done=False)
    assert left() == before

    def fail() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", fail)
    with selectors.DefaultSelector() as selector:
        with pytest.raises(StationError, match="Too many open files"):
            made.start(selector, Desk())
        made.close(is_done=False)
    assert left() == before


# -- rates ------------------------------------------------------------------------------------------------


def test_rates_are_of_the_latest_seconds() -> None:
    """Who has gone is not told of any more; who has just come has none yet."""
    rates, told = Rates(), []
    for second in range(20):
        done = min(second, 10) * 10
        tallies = [Tally("a", done, done * 100)] + [Tally("b", 5, 5)] * (second >= 15)
        told.append(rates.now(tallies, float(second)))
    assert told[0] == (WorkerRate("a", 0.0, 0.0),)
    assert told[8] == (WorkerRate("a", 10.0, 1000.0),)
    assert told[19] == (WorkerRate("a", 0.0, 0.0), WorkerRate("b", 0.0, 0.0))
    assert rates.now([Tally("b", 5, 5)], 20.0) == (WorkerRate("b", 0.0, 0.0),)


def test_a_person_sees_how_many_work_and_how_fast() -> None:
    from told import progress

    def hashing(**changes: Any) -> str:
        return figures.works(progress(1)._replace(**changes), 0)[1].detail

    two = (WorkerRate("a", 1, 2_000_000), WorkerRate("b", 1, 500_000))
    assert hashing(workers=two).endswith("B/s, 2 workers (500 kB/s to 2.00 MB/s)")
    assert hashing(workers=two[:1]).endswith(", 1 worker")
    assert hashing(phase="waiting").endswith(", waiting for workers")
