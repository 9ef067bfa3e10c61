"""What is known about a path: the entry that the scanner found, the record that the state keeps.

All are plain tuples, because a run handles millions of them; this page is where their fields are explained.
"""

from __future__ import annotations

import stat
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os


class Kind(IntEnum):
    """What lies at a path. Stored in the state: never renumber."""

    FILE = 0
    FOLDER = 1
    LINK = 2
    SPECIAL = 3

    @staticmethod
    def of_mode(mode: int) -> Kind:
        """mode: with its type bits."""
        return _KIND_OF_TYPE.get(stat.S_IFMT(mode), Kind.SPECIAL)

    @property
    def has_content(self) -> bool:
        """Whether something of it is stored under a name of its own and can become a version."""
        return self in (Kind.FILE, Kind.LINK)


_KIND_OF_TYPE = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
KINDS = tuple(Kind)
"""By their numbers, which is faster than asking `Kind`."""
HAVE_CONTENT = frozenset(kind for kind in Kind if kind.has_content)
KIND_NAMES = {Kind.FILE: "file", Kind.FOLDER: "folder", Kind.LINK: "link", Kind.SPECIAL: "special"}


class Area(IntEnum):
    """Where a path's stored file lies. Stored in the state: never renumber."""

    LIVE = 0
    DUPLICATE = 1
    DELETED = 2


_2_63 = 1 << 63
NAMES_MASK = 0xFFFF_FFFF
"""The part of `links` that is the number of names."""


class Stat(NamedTuple):
    """The part of `lstat` that matters. `mode` has the type bits; times in nanoseconds since 1970, at most
    what 64 bits hold: the years 1677 to 2262. size: of a device, its number. links: how many names the file
    has, 1 for folders; where there are several, with the number of its disk above the lower 32 bits."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    links: int = 1

    @classmethod
    def of(cls, found: os.stat_result) -> Stat:
        mtime_ns, ctime_ns, inode = found.st_mtime_ns, found.st_ctime_ns, found.st_ino
        if not (0 <= mtime_ns < _2_63 and 0 <= ctime_ns < _2_63 and inode < _2_63):  # hardly ever
            mtime_ns, ctime_ns = within_64_bits(mtime_ns), within_64_bits(ctime_ns)
            inode = signed64(inode)
        mode, size, links = found.st_mode, found.st_size, found.st_nlink
        if not stat.S_ISREG(mode):
            links = 1 if stat.S_ISDIR(mode) else links
            size = found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else size
        if links > 1:
            links = (found.st_dev & 0x7FFF_FFFF) << 32 | min(links, NAMES_MASK)
        return cls(mode, found.st_uid, found.st_gid, mtime_ns, ctime_ns, inode, size, links)


class Entry(NamedTuple):
    """What was found at a path in the source, read and hashed.

    digest: the hash of a file's bytes, None for other kinds. target: where a link points, None for others.
    unsettled: it may have changed within the resolution of its time stamps, or changed while it was read;
    the next run reads it again whatever `detect.trust` says. attributes: the identity of its extended
    attributes (`model.attributes`), None where it has none.
    """

    path: bytes
    kind: Kind
    stat: Stat
    digest: bytes | None
    target: bytes | None
    unsettled: bool
    attributes: bytes | None = None


class Record(NamedTuple):
    """A path's current row in the state, in column order.

    digest: None for a file means that its stored content was lost and must be stored again.
    mode: with type bits; a folder whose mode is not applied yet has PENDING_MODE.
    original: for a duplicate, the path that holds its content live.
    number: the version number that the current content gets when it is archived; never goes back.
    kept_versions: versions on disk that retention counts (pinned ones are not).
    since_run: the run from which on this is the path's state.
    links: as in `Stat`; -1 where no run has looked yet.
    attributes: as in `Entry`. linked_to: the first path of the source that is a name of the same file (a hard
    link); None for that first one itself.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    digest: bytes | None
    target: bytes | None
    area: int
    original: bytes | None
    number: int
    kept_versions: int
    since_run: int
    unsettled: int
    links: int = 1
    attributes: bytes | None = None
    linked_to: bytes | None = None

    @property
    def is_present(self) -> bool:
        """Whether the path was in the source when it was last looked at."""
        return self.area != Area.DELETED

    def is_current(self, found: Stat, unsettled: bool) -> bool:
        """Whether the record needs no renewal at all: metadata, change detection, and presence.

        Extended attributes can't change without ctime.
        """
        return (
            self.is_present
            and self.mtime_ns == found.mtime_ns
            and self.ctime_ns == found.ctime_ns
            and self.mode == found.mode
            and self.inode == found.inode
            and self.uid == found.uid
            and self.gid == found.gid
            and self.links & NAMES_MASK == found.links & NAMES_MASK  # disks have other numbers after a boot
            and bool(self.unsettled) == unsettled
        )


PENDING_MODE = stat.S_IFDIR
"""Mode of a folder's record between its making (0700) and its opening up after its content."""


class VersionStatus(IntEnum):
    """What became of a version. Stored in the state: never renumber."""

    KEPT = 0
    PRUNED = 1
    LOST = 2


class Version(NamedTuple):
    """An older content of a path, in column order of the state's table.

    ended_run: the run that pruned it or found it lost. ended_why: the rule that took it, in words.
    """

    path: bytes
    number: int
    kind: int
    size: int
    digest: bytes | None
    target: bytes | None
    mtime_ns: int
    pinned: int
    status: int
    ended_run: int | None
    ended_why: str | None = None


class Held(NamedTuple):
    """An entry state that a run left behind, and where its content lies now. Columns of `store.past`.

    from_run, to_run: the runs in which it was current, to_run excluded; None: it still is.
    area: where its content lies while it is the path's latest content; None: it is the version `number`.
    status: that version's, None where there is none. ended_run: the run that pruned it or found it lost.
    mode: -1 where only the stored file knows it (in a state that was rebuilt).
    attributes, linked_to, links: as in `Record`.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    digest: bytes | None
    target: bytes | None
    number: int
    from_run: int
    to_run: int | None
    area: int | None
    status: int | None
    pinned: int
    ended_run: int | None
    attributes: bytes | None = None
    linked_to: bytes | None = None
    links: int = -1

    @classmethod
    def of_version(cls, version: Version) -> Held:
        """A version by itself, as if no history knew it."""
        return cls(
            version.path, version.kind, -1, -1, -1, version.mtime_ns, version.size, version.digest,
            version.target, version.number, 0, None, None, version.status, version.pinned, version.ended_run,
        )  # fmt: skip

    @property
    def is_within_reach(self) -> bool:
        """Whether its content is still stored. Folders and special files have none that could be gone."""
        return self.area is not None or self.status == VersionStatus.KEPT or self.kind not in HAVE_CONTENT


def signed64(number: int) -> int:
    """An unsigned 64-bit number (an inode) as SQLite's signed one."""
    return number - (1 << 64) if number >= 1 << 63 else number


def within_64_bits(time_ns: int) -> int:
    """The nearest time that can be recorded. Some file systems have more."""
    return max(-(1 << 63), min((1 << 63) - 1, time_ns))


def same_time(stored_ns: int, recorded_ns: int) -> bool:
    """Whether a stored file's mtime is the recorded one, as far as its file system can tell.

    Coarser file systems cut times to 100 ns (NTFS), 1 µs, 10 ms (exFAT), 1 s (ext3) or 2 s (FAT).
    """
    if stored_ns == recorded_ns:
        return True
    grains = (100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
    return any(recorded_ns // grain * grain == stored_ns for grain in grains)
