"""The hashing worker on another machine: the same `Hasher`, between what differs there.

In: batches, and what the proof has shown about this machine. Out: the results that a local worker would give.
Guarantees: no batch is looked at in a folder where something else is mounted here (`Elsewhere`); what a batch
has staged is on the disk before its results are told, in both durabilities, since the barrier of the run's
own machine can't reach what another one still holds in memory; disks have the numbers of the run's own
machine, which tell the names of one file from others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from pipeline import layout
from pipeline.model import message, treepath
from pipeline.model.record import NAMES_MASK, Kind, Stat
from pipeline.stages.batch import Batch
from pipeline.stages.hasher import Hasher
from pipeline.stages.proof import Question, Reply, devices_here, others_here, reply_to
from pipeline.stages.setup import HashSetup
from pipeline.store import calls
from pipeline.store.barrier import make_staged_durable

_DISK_MASK = 0x7FFF_FFFF


class Elsewhere(Exception):
    """What a batch is about can't be seen on this machine."""


class RemoteSetup(NamedTuple):
    """What a run tells the workers of other machines."""

    hashing: HashSetup
    question: Question


class Here(NamedTuple):
    """The setup as it holds on this machine. disks: their numbers here, and on the run's own machine, both as
    `Stat.links` has them. others: where something else is mounted."""

    hashing: HashSetup
    disks: dict[int, int]
    others: tuple[bytes, ...]


def settle_here(setup: RemoteSetup) -> tuple[Reply, Here | None]:
    """The reply to the proof's question; None where it is a refusal."""
    reply = reply_to(setup.question)
    if reply.refusal is not None:
        return reply, None
    sources = []
    for source, seen in zip(setup.hashing.sources, reply.seen, strict=False):
        sources.append(source._replace(identity=(os.stat(source.path).st_dev, seen.inode)))
    devices = devices_here(setup.question).items()
    disks = {here & _DISK_MASK: there & _DISK_MASK for here, there in devices}
    root = setup.question.backup_root
    decoded = os.fsdecode(root) if root is not None else None  # as this machine's locale has it
    hashing = setup.hashing._replace(sources=tuple(sources), backup_root=decoded)
    return reply, Here(hashing, disks, others_here(setup.question))


class RemoteHasher:
    """worker, alive: as for `Hasher`."""

    given_up = staticmethod(Hasher.given_up)

    def __init__(self, here: Here, worker: int, alive: Callable[[int], None]) -> None:
        self._here = here
        self._hasher = Hasher(here.hashing, worker, alive)
        self._paths = {source.name: source.path for source in here.hashing.sources}
        self._staging = -1
        if here.hashing.stage and here.hashing.backup_root is not None:
            staging = os.path.join(os.fsencode(here.hashing.backup_root), layout.OWN_FOLDER, b"staging")
            try:
                self._staging = calls.open(staging, os.O_RDONLY | calls.O_DIRECTORY | calls.O_CLOEXEC)
            except OSError:
                self._hasher.close()
                raise

    def close(self) -> None:
        """Nothing of the sources or of the backup stays open."""
        self._hasher.close()
        if self._staging >= 0:
            calls.close(self._staging)
            self._staging = -1

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """As `Hasher.process`. Raises Elsewhere."""
        if self._here.others:
            self._refuse_others(payload)
        batch = self._hasher.work(payload)
        staged = []
        for number, item in enumerate(batch.items):
            if item[0] == message.FOUND and item[2] == Kind.FILE:
                if item[9] is not None:
                    staged.append(item[9])
                if item[3].links > NAMES_MASK:
                    batch.items[number] = (*item[:3], self._translated(item[3]), *item[4:])
        if staged:
            self._make_durable(staged, batch)
        return batch.encoded(), batch.files, batch.bytes_read

    def _translated(self, found: Stat) -> Stat:
        disk, names = found.links >> 32, found.links & NAMES_MASK
        return found._replace(links=self._here.disks.get(disk, disk) << 32 | names)

    def _make_durable(self, staged: list[bytes], batch: Batch) -> None:
        try:
            make_staged_durable(self._staging, staged)
        except OSError as error:
            batch.items.append((message.FATAL, f"can't write to the backup: {error.strerror}"))

    def _refuse_others(self, payload: bytes) -> None:
        folder = b""
        for item in message.decode_items(payload):
            if item[0] in (message.INSIDE, message.FOLDER):
                path = os.path.join(self._paths[treepath.source_name(item[1])], treepath.relative(item[1]))
                folder = path if item[0] == message.INSIDE else folder
            elif item[0] in (message.FILE, message.LINK, message.SPECIAL):
                path = os.path.join(folder, item[1])
            else:
                continue
            for other in self._here.others:
                if path == other or path.startswith(other + b"/"):
                    raise Elsewhere(f"{treepath.escaped(other)}: something else is mounted there")
