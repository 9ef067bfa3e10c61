"""This program and its peers at the same work, in turns: one Markdown table of medians and ratios.

    python bench/versus.py [--rounds 5] [--only WORD …] [--real PATH] [--json FILE]
                           [--files 100000] [--memory /dev/shm] [--disk /var/tmp]

Whole processes, alternating, after a round that doesn't count; the ratio is the median of the pairs' ratios.
S is `--files` small files, B is 16 files of 128 MiB, R is the tree at `--real`. Peers that aren't installed
are left out, and so is what drops caches, unless it is run as root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from contests import CONTESTS, Command, Contest
from pairs import timed
from trees import make_large, make_tree

OURS = [sys.executable, "-m", "pipeline"]
_DROP = Path("/proc/sys/vm/drop_caches")


class Ground:
    """The folders of one contest: the tree, ours with its configuration, the peer's."""

    def __init__(self, contest: Contest, tree: Path, work: Path) -> None:
        self.contest = contest
        self.tree = tree
        self.folder = Path(tempfile.mkdtemp(dir=work))
        self.copy = self.folder / "copy"
        self.target = self.folder / "target"
        (self.folder / "config.toml").write_text(
            f'sources = [{json.dumps(str(tree))}]\nbackup_root = "backup"\nlog_dir = "logs"\n',
            encoding="utf-8",
        )

    def ours(self, round_number: int) -> float:
        """Seconds of our side in one round."""
        settings = [word for setting in self.contest.settings for word in ("--set", setting)]
        words = ["run", "--quiet"]
        if self.contest.kind == "first":
            _remove(self.folder / "backup", self.folder / "logs")
        elif self.contest.kind == "restore":
            words = ["restore", "--quiet", "--to", str(self.target)]
            _remove(self.target)
        self._drop()
        return timed([*OURS, *words, *settings], self.folder)

    def theirs(self, round_number: int) -> float:
        peer, kind = self.contest.peer, self.contest.kind
        if kind in ("first", "restore"):
            _remove(self.copy)
            self.set_up()
        self._drop()
        is_first = kind in ("first", "restore")
        return timed(self._words(peer.first if is_first else peer.again, round_number), self.folder)

    def prepare(self) -> None:
        """What isn't timed: a backup of both where there has to be one, settled; a list of the files."""
        files = [os.path.join(at, name) for at, _, names in os.walk(self.tree) for name in names]
        (self.folder / "list").write_bytes(b"".join(os.fsencode(file) + b"\0" for file in files))
        if self.contest.kind in ("unchanged", "changed", "restore"):
            for _ in range(2):
                timed([*OURS, "run", "--quiet"], self.folder)
        if self.contest.kind in ("unchanged", "changed"):
            self.set_up()
            timed(self._words(self.contest.peer.first, 0), self.folder)

    def set_up(self) -> None:
        if self.contest.peer.setup is not None:
            timed(self._words(self.contest.peer.setup, 0), self.folder)

    def change(self, round_number: int) -> None:
        """Other bytes in one file of a hundred, the same for both sides."""
        files = (self.folder / "list").read_bytes().split(b"\0")[:-1]
        choose = random.Random(round_number)
        for file in choose.sample(files, len(files) // 100):
            Path(os.fsdecode(file)).write_bytes(choose.randbytes(choose.randrange(1, 16_384)))

    def _words(self, command: Command, round_number: int) -> Command:
        names = {"tree": self.tree, "copy": self.copy, "list": self.folder / "list", "round": round_number}
        return [word.format(**names) for word in command]

    def _drop(self) -> None:
        """The trees' caches go; both programs are loaded again, since what is compared is their work."""
        if not self.contest.drop:
            return
        os.sync()
        _DROP.write_text("3\n", encoding="ascii")
        timed([*OURS, "export", "--help"], self.folder)
        timed([*OURS, "config", "check"], self.folder)
        timed([self.contest.peer.program, "--version"], self.folder)


def compete(ground: Ground, rounds: int) -> dict[str, Any]:
    """Medians in seconds, and the ratio."""
    ground.prepare()
    pairs = []
    for number in range(rounds + 1):
        if ground.contest.kind == "changed":
            ground.change(number)
        pairs.append((ground.ours(number), ground.theirs(number)))
    own_s, other_s = zip(*pairs[1:], strict=True)
    return {
        "work": ground.contest.work,
        "peer": ground.contest.peer.name,
        "ours_s": statistics.median(own_s),
        "peer_s": statistics.median(other_s),
        "ratio": statistics.median(own / other for own, other in pairs[1:]),
        "at_most": ground.contest.at_most,
        "aim": ground.contest.aim,
    }


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _is_possible(contest: Contest, real: Path | None) -> bool:
    return (
        shutil.which(contest.peer.program) is not None
        and not (contest.drop and not os.access(_DROP, os.W_OK))
        and not (contest.tree == "R" and real is None)
    )


def _tree(
    contest: Contest, grounds: dict[str, Path], made: dict[tuple[str, str], Path], options: Any
) -> Path:
    """Made once for each kind and ground."""
    if contest.tree == "R":
        return options.real.resolve()  # type: ignore[no-any-return]
    key = contest.tree, contest.source
    if key not in made:
        made[key] = grounds[contest.source] / contest.tree
        if contest.tree == "S":
            make_tree(made[key], options.files, max(1, options.files // 50))
        else:
            make_large(made[key])
    return made[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="rows that have all of these words")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args()
    os.environ |= {"RESTIC_PASSWORD": "bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    rows: list[dict[str, Any]] = []
    made: dict[tuple[str, str], Path] = {}
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {platform.release()}\n"
    )
    print("| work | peer | ours, s | peer, s | ratio | at most | aim |\n|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(dir=options.memory) as memory,
        tempfile.TemporaryDirectory(dir=options.disk) as disk,
    ):
        grounds = {"memory": Path(memory), "disk": Path(disk)}
        for contest in CONTESTS:
            words = f"{contest.work} {contest.peer.name}"
            if not _is_possible(contest, options.real) or not all(word in words for word in options.only):
                continue
            ground = Ground(contest, _tree(contest, grounds, made, options), grounds[contest.backup])
            row = compete(ground, options.rounds)
            rows.append(row)
            figures = f"{row['ours_s']:.2f} | {row['peer_s']:.2f} | {row['ratio']:.2f}"
            print(
                f"| {row['work']} | {row['peer']} | {figures} | {row['at_most']} | {row['aim']} |", flush=True
            )
            _remove(ground.folder)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
