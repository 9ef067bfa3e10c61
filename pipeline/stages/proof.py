"""The proof that another machine sees the very same sources and the same backup root.

In: what a run is to read and write here. Out: a question for each worker elsewhere, and whether its reply is
right. Guarantees: nothing is written into a source; the backup root is proved both ways, by a secret that is
only there to be read, and by an answer that is only there to be found; both lie in `staging/` under names
that any sweep removes. A folder counts as the same by its inode, its mode and most of what lies at its top,
since it may change between two looks. Fails with SourceError and BackupSideError where this machine can't
look or write itself.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import nsmallest
from pathlib import Path
from typing import NamedTuple

from pipeline import layout
from pipeline.model import treepath
from pipeline.model.errors import SourceError
from pipeline.stages import digest
from pipeline.stages.setup import HashSetup
from pipeline.store import calls
from pipeline.store.barrier import make_staged_durable
from pipeline.store.folders import FOLDER_FLAGS, READ_FLAGS, Folders
from pipeline.store.mounts import Mounts
from pipeline.store.system import backup_side_errors

_NAME = b"proof-%b"
_SECRET_BYTES = 32
_ENTRIES = 64
"""So many of a folder's entries stand for all of them: those whose marks come first, which is as by lot."""
_LOOKS = 5
_BETWEEN_LOOKS_S = 0.2


class Seen(NamedTuple):
    """What a machine sees of a folder. marks: of its entries, names and inodes, that come first."""

    inode: int
    mode: int
    marks: tuple[int, ...]

    def is_like(self, other: Seen) -> bool:
        if (self.inode, self.mode) != (other.inode, other.mode):
            return False
        both = len({*self.marks} & {*other.marks})
        return 2 * both >= max(len(self.marks), len(other.marks))


class Folder(NamedTuple):
    """path: absolute. device: the number that the run's own machine has for it."""

    path: bytes
    device: int


class Question(NamedTuple):
    """folders: those that must be the same. mounts: below them, and how they looked; where one is another,
    what lies in it can't be read there. secret: the name in `staging/` of what is to be read, None where
    nothing is written.
    """

    nonce: bytes
    folders: tuple[Folder, ...]
    mounts: tuple[tuple[Folder, Seen], ...]
    backup_root: bytes | None
    secret: bytes | None


class Reply(NamedTuple):
    """who: names the process that has replied. seen: for each folder. refusal: why there is no proof."""

    who: str
    seen: tuple[Seen, ...] = ()
    refusal: str | None = None


class Prover:
    """The run's own side. staging: its handle, None in a dry run."""

    def __init__(self, hashing: HashSetup, staging: int | None, enters_mounts: bool) -> None:
        nonce = secrets.token_bytes(16)
        paths = [source.path for source in hashing.sources]
        mounts = _mounts_below(paths) if enters_mounts else []
        if staging is None and hashing.backup_root is not None:
            paths.append(os.fsencode(hashing.backup_root))
        devices = [_device_of(path) for path in paths]
        looks = [(mount, seen) for mount in mounts if (seen := _look_if_possible(mount, nonce)) is not None]
        self._staging = staging
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self.question = Question(
            nonce,
            tuple(map(Folder, paths, devices)),
            tuple((Folder(mount, _device_of(mount)), seen) for mount, seen in looks),
            os.fsencode(hashing.backup_root) if hashing.backup_root is not None else None,
            _NAME % secrets.token_hex(8).encode() if staging is not None else None,
        )
        if staging is not None and self.question.secret is not None:
            with backup_side_errors():
                _write(staging, self.question.secret, self._secret)

    def close(self) -> None:
        """What was there to be read is taken away."""
        if self._staging is not None and self.question.secret is not None:
            with suppress(FileNotFoundError):
                calls.unlink(self.question.secret, dir_fd=self._staging)

    def refusal(self, reply: Reply) -> str | None:
        """Why a reply proves nothing; None where it does. May wait a moment for what is on its way.

        Raises SourceError where it can't be told here.
        """
        if reply.refusal is not None:
            return reply.refusal
        for folder, seen in zip(self.question.folders, reply.seen, strict=True):
            try:
                ours = look(folder.path, self.question.nonce)
            except OSError as error:
                raise SourceError(in_words(error), "Is its disk still mounted?") from error
            if not ours.is_like(seen):
                return f"{treepath.escaped(folder.path)} is another folder there"
        if self._staging is None or self.question.secret is None:
            return None
        name, expected = _answer_name(self.question.secret, reply.who), _answer(self._secret, reply.who)
        try:
            content = _read_in_time(self._staging, name)
            their_owner, owner = (_owner(self._staging, one) for one in (name, self.question.secret))
            calls.unlink(name, dir_fd=self._staging)
        except OSError as error:
            return f"what it has written into the backup can't be read here: {error.strerror}"
        if content != expected:
            return "what it has written into the backup is something else here"
        if their_owner != owner:
            return f"it runs as another user: what it writes belongs to {their_owner}, and here to {owner}"
        return None


def reply_to(question: Question) -> Reply:
    """The other machine's side."""
    who = secrets.token_hex(8)
    try:
        seen = tuple(look(folder.path, question.nonce) for folder in question.folders)
    except OSError as error:
        return Reply(who, refusal=in_words(error))
    if question.secret is None or question.backup_root is None:
        return Reply(who, seen)
    try:
        with _staging_of(question.backup_root) as staging:
            _write(staging, _answer_name(question.secret, who), _answer(_read(staging, question.secret), who))
    except OSError as error:
        shown = treepath.escaped(question.backup_root)
        return Reply(who, refusal=f"the backup {shown} can't be read and written there: {error.strerror}")
    return Reply(who, seen)


def look(path: bytes, nonce: bytes) -> Seen:
    """Raises OSError."""
    handle = calls.open(path, FOLDER_FLAGS)
    try:
        found, new_hasher = calls.fstat(handle), digest.hasher("blake3")
        with calls.scandir(handle) as entries:
            named = (b"%b%d %b" % (nonce, entry.inode(), os.fsencode(entry.name)) for entry in entries)
            marks = nsmallest(_ENTRIES, (int.from_bytes(new_hasher(one).digest()[:8]) for one in named))
    finally:
        calls.close(handle)
    return Seen(found.st_ino, found.st_mode, tuple(marks))


def in_words(error: OSError) -> str:
    """With the file, where it is known; a handle is none."""
    name, cause = error.filename, error.strerror or str(error)
    return f"{treepath.escaped(os.fsencode(name))}: {cause}" if isinstance(name, str | bytes) else cause


def devices_here(question: Question) -> dict[int, int]:
    """What this machine calls the disks, and what the run's own machine calls them."""
    devices = {}
    for folder in (*question.folders, *(mount for mount, _ in question.mounts)):
        with suppress(OSError):
            devices[os.stat(folder.path).st_dev] = folder.device
    return devices


def others_here(question: Question) -> tuple[bytes, ...]:
    """Folders below the sources in which something else is mounted here than on the run's own machine."""
    known = {mount.path for mount, _ in question.mounts}
    more = [path for path in _mounts_below([f.path for f in question.folders]) if path not in known]
    unlike = [
        mount.path
        for mount, theirs in question.mounts
        if (ours := _look_if_possible(mount.path, question.nonce)) is None or not ours.is_like(theirs)
    ]
    return (*more, *unlike)


def _device_of(path: bytes) -> int:
    try:
        return os.stat(path).st_dev
    except OSError as error:
        shown = treepath.escaped(path)
        raise SourceError(f"{shown}: {error.strerror}", "Is its disk still mounted?") from error


def _mounts_below(paths: list[bytes]) -> list[bytes]:
    mounts = Mounts()
    found = {point for path in paths for point in mounts.below(Path(os.fsdecode(path)))}
    return sorted(os.fsencode(point) for point in found if point.is_dir())


def _look_if_possible(path: bytes, nonce: bytes) -> Seen | None:
    try:
        return look(path, nonce)
    except OSError:
        return None


@contextmanager
def _staging_of(backup_root: bytes) -> Iterator[int]:
    root = calls.open(backup_root, FOLDER_FLAGS)
    try:
        folders = Folders(root)
        try:
            yield folders.at(layout.OWN_FOLDER + b"/staging")
        finally:
            folders.close()
    finally:
        calls.close(root)


def _answer_name(secret: bytes, who: str) -> bytes:
    return b"%b-%b" % (secret, who.encode())


def _answer(secret: bytes, who: str) -> bytes:
    return digest.hasher("blake3")(secret + who.encode()).digest()


def _write(staging: int, name: bytes, content: bytes) -> None:
    """On the disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
    handle = calls.open(name, flags, 0o600, dir_fd=staging)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    make_staged_durable(staging, [name])


def _read(staging: int, name: bytes) -> bytes:
    handle = calls.open(name, READ_FLAGS, dir_fd=staging)
    try:
        return os.read(handle, _SECRET_BYTES)
    finally:
        os.close(handle)


def _owner(staging: int, name: bytes) -> int:
    """As this machine has it: who isn't the same user may see, and give to files, something else."""
    return calls.stat(name, dir_fd=staging, follow_symlinks=False).st_uid


def _read_in_time(staging: int, name: bytes) -> bytes:
    """A file system of many machines may take a moment."""
    for _ in range(_LOOKS):
        with suppress(FileNotFoundError):
            return _read(staging, name)
        time.sleep(_BETWEEN_LOOKS_S)
    return _read(staging, name)
