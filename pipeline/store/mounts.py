"""Where a folder really lies, whatever it is called: bind mounts give it a second path, and no link tells.

In: resolved paths. Out: their spots, and whether they lie on another machine. Guarantees: nothing is
opened; two paths of one folder have one spot.
Linux only (`/proc/self/mountinfo`, proc(5)): elsewhere a spot is the path itself, and no mounts are known.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TABLE = Path("/proc/self/mountinfo")
_REMOTE = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip
"""Types of file systems that others may change without this kernel knowing; `fuse.*` are, too."""
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
        self._types: dict[Path, str] = {}
        try:
            lines = _TABLE.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            _, _, device, root, point = line.split(b" ")[:5]
            # One that is mounted over another comes later, and hides it.
            self._spots[_path(point)] = Spot(device.decode("ascii"), _path(root))
            self._types[_path(point)] = os.fsdecode(line.partition(b" - ")[2].split(b" ")[0])

    def spot(self, path: Path) -> Spot:
        """path: absolute, without links; it needn't exist."""
        for point in (path, *path.parents):
            if (found := self._spots.get(point)) is not None:
                return Spot(found.device, found.path / path.relative_to(point))
        return Spot("", path)

    def is_remote(self, path: Path) -> bool:
        """Whether others may change what lies there without this kernel knowing."""
        point = next((point for point in (path, *path.parents) if point in self._types), None)
        kind = self._types[point] if point is not None else ""
        return kind in _REMOTE or kind.startswith("fuse.")

    def below(self, path: Path) -> list[Path]:
        """The mount points below a path."""
        return [point for point in self._spots if point != path and point.is_relative_to(path)]


def _path(escaped: bytes) -> Path:
    return Path(os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), escaped)))
