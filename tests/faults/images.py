"""File systems of their own in image files, and the ways in which a machine loses its power.

In: a folder for images, a kind (`ext4`, `xfs`, `btrfs`). Out: a mounted file system. Guarantees: what `cut`
leaves is what that file system itself would find after a power cut at this instant; a copy of an image keeps
all inodes. Needs root, loop devices and the file system's own mkfs: `need` skips where they are missing,
unless FAULT_TOOLS=required says that they must be here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SIZE_MIB = {"ext4": 64, "xfs": 300, "btrfs": 256}
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_GOING_DOWN = 0x8004587D  # _IOR('X', 125, __u32): XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN
LOG_FLUSHED, LOG_LOST = 1, 2
"""Whether the journal still reaches the disk in the cut: names without bytes, or neither."""
_PATIENCE_S = 20.0


def need(*tools: str) -> None:
    """Skip this test where it can't be done; a failure where the tools are required."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing and os.environ.get("FAULT_TOOLS") == "required":
        pytest.fail(f"missing here: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing here: {', '.join(missing)}")


class Disk:
    """An image file and where it is mounted."""

    def __init__(self, image: Path, mount_point: Path, kind: str) -> None:
        self.image = image
        self.mount_point = mount_point
        self.kind = kind
        mount_point.mkdir(parents=True, exist_ok=True)

    def make(self, size_mib: int = 0) -> None:
        """A new, empty file system, in a sparse file."""
        with self.image.open("wb") as image:
            image.truncate((size_mib or _SIZE_MIB[self.kind]) << 20)
        _call(*_MAKE[self.kind], os.fspath(self.image))

    def mount(self, options: str = "loop") -> None:
        _call("mount", "-t", self.kind, "-o", options, os.fspath(self.image), os.fspath(self.mount_point))

    def unmount(self) -> None:
        """Wait for the last process that has something open there; what it wrote goes to the image."""
        limit = time.monotonic() + _PATIENCE_S
        while True:
            done = subprocess.run(["umount", self.mount_point], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            assert "busy" in done.stderr and time.monotonic() < limit, done.stderr
            time.sleep(0.01)

    def remount(self, options: str) -> None:
        _call("mount", "-o", f"remount,{options}", os.fspath(self.mount_point))

    def cut(self, log: int = LOG_FLUSHED) -> None:
        """The power goes: the file system stops at this instant, and is unmounted."""
        if self.kind == "btrfs":
            self._cut_by_copy()
            return
        handle = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _GOING_DOWN, struct.pack("I", log))
        finally:
            os.close(handle)
        self.unmount()

    def _cut_by_copy(self) -> None:
        """Without an ioctl of its own: the image as it is on the disk while it is still mounted."""
        at_the_cut = self.image.with_name(self.image.name + ".cut")
        copy_image(self.image, at_the_cut)
        self.unmount()
        at_the_cut.replace(self.image)

    def copy_to(self, image: Path) -> Disk:
        """An unmounted disk's twin, to be mounted at the same place: inodes and all."""
        copy_image(self.image, image)
        return Disk(image, self.mount_point, self.kind)


@contextmanager
def mounted(disk: Disk) -> Iterator[Disk]:
    """Mounted meanwhile; unmounted in the end, unless that has been done."""
    disk.mount()
    try:
        yield disk
    finally:
        if os.path.ismount(disk.mount_point):
            disk.unmount()


def copy_image(source: Path, target: Path) -> None:
    """Copy what is not a hole."""
    with source.open("rb") as old, target.open("wb") as new:
        new.truncate(source.stat().st_size)
        end = 0
        while (start := _next_data(old.fileno(), end)) is not None:
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            os.lseek(new.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(new.fileno(), old.fileno(), start, end - start)


def _next_data(handle: int, offset: int) -> int | None:
    """Where the next bytes are that aren't a hole; None where there are no more."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
