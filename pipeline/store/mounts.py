"""Where a folder really lies, whatever it is called: bind mounts give it a second path, and no link tells.

In: resolved paths. Out: their spots. Guarantees: nothing is opened; two paths of one folder have one spot.
Linux only (`/proc/self/mountinfo`, proc(5)): elsewhere a spot is the path itself, and no mounts are known.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Spot(NamedTuple):
    """A file system and a path in it. device: `major:minor`."""

    device: str
    path: Path

    def is_inside(self, other: Spot) -> bool:
        """Whether this is the other one or lies below it."""
        return self.device == other.device and self.path.is_relative_to(other.path)


class Mounts:
    """The mounts as they are now."""

    def __init__(self) -> None:
        self._spots: dict[Path, Spot] = {}
        try:
            lines = _TABLE.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            _, _, device, root, point = line.split(b" ")[:5]
            # One that is mounted over another comes later, and hides it.
            self._spots[_path(point)] = Spot(device.decode("ascii"), _path(root))

    def spot(self, path: Path) -> Spot:
        """path: absolute, without links; it needn't exist."""
        for point in (path, *path.parents):
            if (found := self._spots.get(point)) is not None:
                return Spot(found.device, found.path / path.relative_to(point))
        return Spot("", path)

    def below(self, path: Path) -> list[Path]:
        """The mount points below a path."""
        return [point for point in self._spots if point != path and point.is_relative_to(path)]


def _path(escaped: bytes) -> Path:
    return Path(os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), escaped)))
