"""A tree with everything that a file can be, and the outside judge of a restored one.

In: a folder. Out: the tree in it; what `rsync` finds different between two trees. Guarantees: the judge is a
program of others, asked for all that it can compare: `-aHAX`, with checksums, both ways.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from trees import EPOCH_NS

USER, GROUP, EVERYBODY = 0x02, 0x08, 0x20
_OWN = {"user": 0x01, "group": 0x04, "mask": 0x10, "other": EVERYBODY}
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""cap_net_raw, effective, as Linux keeps it: struct vfs_cap_data."""
ODD_NS = 123_456_789


def access_list(user: int, group: int, mask: int, other: int, *others: tuple[int, int, int]) -> bytes:
    """An access control list as Linux keeps it. others: (USER or GROUP, its number, permissions)."""
    entries = [(_OWN["user"], 0xFFFFFFFF, user)]
    entries += [(tag, number, allowed) for tag, number, allowed in others if tag == USER]
    entries.append((_OWN["group"], 0xFFFFFFFF, group))
    entries += [(tag, number, allowed) for tag, number, allowed in others if tag == GROUP]
    entries += [(_OWN["mask"], 0xFFFFFFFF, mask), (_OWN["other"], 0xFFFFFFFF, other)]
    packed = b"".join(struct.pack("<HHI", tag, allowed, number) for tag, number, allowed in entries)
    return struct.pack("<I", 2) + packed


def set_list(place: Path, value: bytes, which: str = "access") -> None:
    os.setxattr(place, f"system.posix_acl_{which}", value)


def write_everything(root: Path) -> None:
    """As root: every kind of entry, every kind of attribute."""
    for folder in ("lists", "kinds", "names/deep", "empty"):
        (root / folder).mkdir(parents=True)
    _write_attributes(root / "lists")
    _write_kinds(root / "kinds")
    _write_names(root / "names")
    os.chown(root / "empty", 1, 2)
    (root / "empty").chmod(0o3775)
    for folder in ("lists", "kinds", "names/deep", "names", "empty", "."):
        os.utime(root / folder, ns=(EPOCH_NS, EPOCH_NS + ODD_NS))


def _write_attributes(folder: Path) -> None:
    for name in ("plain", "list", "private", "capability", "large"):
        (folder / name).write_text(f"{name}\n")
    os.setxattr(folder / "plain", "user.colour", b"blue")
    os.setxattr(folder / "plain", "user.bytes", b"\0\xff\n")
    os.setxattr(folder / "plain", "user.empty", b"")
    os.setxattr(folder / "plain", "trusted.mark", b"of root")
    os.setxattr(folder / "large", "user.large", b"x" * 700)
    os.chown(folder / "list", 1234, 77)
    set_list(folder / "list", access_list(7, 4, 5, 4, (USER, 1234, 6), (GROUP, 77, 4)))
    (folder / "list").chmod(0o4754)
    set_list(folder / "private", access_list(6, 0, 6, 0, (USER, 1234, 6)))
    os.setxattr(folder / "capability", "security.capability", CAPABILITY)
    (folder / "inherits").mkdir()
    set_list(folder / "inherits", access_list(7, 5, 7, 0, (USER, 1234, 7)))
    set_list(folder / "inherits", access_list(7, 5, 5, 0, (GROUP, 77, 5)), "default")
    (folder / "inherits/file").write_text("with what it inherits\n")
    (folder / "inherits/folder").mkdir()
    os.setxattr(folder / "inherits", "user.folder", b"too")
    os.symlink("plain", folder / "link")
    os.setxattr(folder / "link", "trusted.link", b"its own", follow_symlinks=False)


def _write_kinds(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    os.chown(folder / "fifo", 5, 6)
    (folder / "fifo").chmod(0o6750)
    os.mknod(folder / "character", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "block", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may not be long
        server.bind("socket")
        os.chdir(here)
    os.symlink("nowhere", folder / "link")
    os.chown(folder / "link", 99, 98, follow_symlinks=False)
    os.utime(folder / "link", ns=(5, 981_173_106_000_000_000 + ODD_NS), follow_symlinks=False)
    with (folder / "holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"x")
        file.truncate(10_000_000)
    (folder / "set").write_text("#!/bin/sh\n")
    os.chown(folder / "set", 1, 2)
    (folder / "set").chmod(0o6755)
    (folder / "closed").write_text("nobody's\n")
    (folder / "closed").chmod(0)
    for name, mtime_ns in (
        ("fifo", 7),
        ("character", 8),
        ("block", 9),
        ("socket", 10),
        ("set", -1_500_000_000),
    ):
        os.utime(folder / name, ns=(5, EPOCH_NS + mtime_ns if mtime_ns > 0 else mtime_ns))


def _write_names(folder: Path) -> None:
    """Hard links: within a folder and across, of files, links and special files; and an equal file that is
    another one."""
    (folder / "file").write_text("one file, three names\n")
    shutil.copy2(folder / "file", folder / "equal")
    os.link(folder / "file", folder / "deep/same")
    os.link(folder / "file", folder / "zz")
    os.symlink("file", folder / "link")
    os.link(folder / "link", folder / "deep/link", follow_symlinks=False)
    os.mkfifo(folder / "fifo")
    os.link(folder / "fifo", folder / "deep/fifo")


def judged(source: Path, restored: Path, options: Sequence[str] = ()) -> str:
    """What `rsync` would have to change; empty where both are the same."""
    if shutil.which("rsync") is None:
        if os.environ.get("FAULT_TOOLS") == "required":
            pytest.fail("missing here: rsync")
        pytest.skip("missing here: rsync")
    words = ["rsync", "-aHAXn", "--delete", "--itemize-changes", "--checksum", *options]
    done = subprocess.run([*words, f"{source}/", f"{restored}/"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
