"""What is compared with which peer: the contests of `versus.py`, as values.

A command is a list of words with `{tree}`, `{copy}` (the peer's side), `{list}` (the tree's files,
NUL-separated) and `{round}` in it. Peers are called with their defaults, but for what makes them compare
contents where we do.
"""

from __future__ import annotations

from typing import NamedTuple

Command = list[str]


class Peer(NamedTuple):
    """Another program. setup: before anything is timed. first, again: what is timed."""

    name: str
    first: Command
    again: Command
    setup: Command | None = None

    @property
    def program(self) -> str:
        return self.name.split()[0]


class Contest(NamedTuple):
    """kind: `unchanged`, `changed`, `first` or `restore`. tree: S (many small files), B (few large
    ones), R (a real one). source, backup: on which ground, `memory` or `disk`. drop: whether caches are
    dropped before each. at_most, aim: of our time to the peer's.
    """

    kind: str
    tree: str
    peer: Peer
    at_most: float
    aim: float
    settings: tuple[str, ...] = ()
    source: str = "memory"
    backup: str = "memory"
    drop: bool = False

    @property
    def work(self) -> str:
        words = {"unchanged": "nothing changed", "changed": "1 % changed", "first": "first run"}
        parts = [self.tree, words.get(self.kind, self.kind), *self.settings]
        parts += ["caches dropped"] if self.drop else []
        parts += [f"to {self.backup}"] if self.kind == "first" else []
        return ", ".join(parts)


def _rsync(options: str, *more: str) -> Peer:
    words = ["rsync", options, *more, "{tree}/", "{copy}/"]
    return Peer(" ".join(["rsync", options, *(word.partition("=")[0] for word in more)]), words, words)


RSYNC, RSYNC_CONTENTS = _rsync("-a"), _rsync("-ac")
RSYNC_BACKUP = _rsync("-ac", "--backup", "--backup-dir={copy}.old")
_SYNCED = ["sh", "-c", "rsync -a {tree}/ {copy}/ && sync -f {copy}"]
RSYNC_SYNCED = Peer("rsync -a && sync -f", _SYNCED, _SYNCED)
RESTIC = Peer(
    "restic backup --force",
    ["restic", "-q", "-r", "{copy}", "backup", "{tree}"],
    ["restic", "-q", "-r", "{copy}", "backup", "--force", "{tree}"],
    ["restic", "-q", "-r", "{copy}", "init"],
)
BORG = Peer(
    "borg create --files-cache=disabled",
    ["borg", "create", "{copy}::first{round}", "{tree}"],
    ["borg", "create", "--files-cache=disabled", "{copy}::again{round}", "{tree}"],
    ["borg", "init", "--encryption=none", "{copy}"],
)
_RCLONE = ["rclone", "sync", "--checksum", "{tree}", "{copy}"]
RCLONE = Peer("rclone sync --checksum", _RCLONE, _RCLONE)
_B3SUM = ["sh", "-c", "xargs -0 -a {list} -n 4096 -P 2 b3sum --no-names > /dev/null"]
B3SUM = Peer("b3sum", _B3SUM, _B3SUM)
_CP = ["cp", "-a", "{tree}", "{copy}"]
CP = Peer("cp -a", _CP, _CP)

STAT, FAST, FULL = 'detect.trust="stat"', 'durability="fast"', 'durability="full"'

CONTESTS = (
    Contest("unchanged", "S", RSYNC_CONTENTS, 0.75, 0.5),
    Contest("unchanged", "S", RSYNC_CONTENTS, 0.4, 0.2, source="disk", drop=True),
    Contest("unchanged", "S", RSYNC, 0.8, 0.4, (STAT,), source="disk", drop=True),
    Contest("unchanged", "B", RSYNC_CONTENTS, 0.6, 0.35),
    Contest("unchanged", "S", RSYNC, 1.0, 0.6, (STAT,)),
    Contest("first", "S", RSYNC, 0.7, 0.45, (FAST,)),
    Contest("first", "B", RSYNC, 0.5, 0.25, (FAST,)),
    Contest("first", "S", RSYNC_SYNCED, 0.8, 0.3, (FULL,), backup="disk"),
    Contest("changed", "S", RSYNC_BACKUP, 0.8, 0.5),
    *(
        Contest(kind, tree, peer, 0.5, 0.2)
        for peer in (RESTIC, BORG)
        for tree in ("S", "R")
        for kind in ("first", "unchanged")
    ),
    Contest("unchanged", "S", RCLONE, 0.75, 0.5),
    Contest("unchanged", "S", B3SUM, 0.6, 0.4),  # the least that hashes every file
    Contest("restore", "S", CP, 1.0, 0.5),
)
