"""The restoring worker: brings stored contents back, each checked on its way.

In: batches of what a run held. Out: restored files and links, private folders, and results in the same order;
folders get their metadata from the parent, after their content. Guarantees: a file gets its name only after
every byte of it was hashed and the digest is the recorded one; otherwise it is a PROBLEM (promise 3). What is
written, and where, is the matter of `store.target` (promise 8). Only a target that can't be written any more
is FATAL.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.model import message, treepath
from pipeline.model.errors import Severity
from pipeline.model.record import Area, Held
from pipeline.stages import digest
from pipeline.stages.batch import KILLED_TWO
from pipeline.stages.contents import Contents, gone_words
from pipeline.stages.descriptions import Descriptions, NotKnown
from pipeline.stages.existing import Existing
from pipeline.stages.setup import RestoreSetup
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS
from pipeline.store.pieces import pieces
from pipeline.store.target import Metadata, Occupied, Target, place_in_target

RESTORED, LINKS, ALREADY, SPECIALS, MADE = "restored", "links", "already there", "specials", "made"
NOT_HELD = "not held: "
"""What a figure begins with that counts the entries whose metadata of one kind couldn't be restored."""
_ENDS_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_ROTTEN = "its stored file is rotten: its bytes are not those that were stored; not restored"
_MISSING = "its stored file is missing"
_NO_FILE = "something that is not a file stands where it was stored; not restored"


class Refused(Exception):
    """One path can't be restored. Its text says why."""


class _CantRead(Exception):
    """A stored file can't be read where it was found; it may lie elsewhere, too."""


class Restorer:
    """A worker's state. worker: a number that no other worker has."""

    def __init__(self, setup: RestoreSetup, worker: int, alive: Callable[[int], None]) -> None:
        self._setup = setup
        self._contents = Contents(setup.places, setup.backup_root, setup.state)
        self._descriptions = Descriptions(setup.state, setup.numeric_ids)
        self._new_hasher = digest.hasher(setup.algorithm)
        self._buffer = bytearray(digest.READ_BYTES)
        self._alive = alive
        os.umask(0)  # whatever is made here says its mode
        self._target: Target | None = None
        self._existing: Existing | None = None
        if setup.target is not None and not setup.dry_run:
            name = b"%d" % worker
            self._target = Target(setup.target, name, setup.overwrite != "never", setup.backup_root)
        if setup.target is not None:
            self._existing = Existing(setup.target, self._descriptions, self._new_hasher)
        self._inside = b""
        self._is_stored_together = False
        # Handles of the current folder, in the target and in the backup; the caches own them.
        self._folder: int | None = None
        self._stored = -1
        self._stored_area: int | None = None
        self._bytes_read = self._bytes_written = 0
        self._tally: Counter[str] = Counter()
        self._items: list[tuple[Any, ...]] = []

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """A batch's results, encoded, the number of its files and links, and the bytes that were read."""
        self._items, self._tally = [], Counter()
        self._bytes_read = self._bytes_written = 0
        tried = 0
        for item in message.decode_items(payload):
            tried += item[0] in (message.FILE, message.LINK)
            try:
                self._item(item)
            except OSError as error:
                if error.errno in _ENDS_ALL:
                    self._items.append((message.FATAL, f"can't restore any more: {error.strerror}"))
                    break
                self._refuse(item, f"can't be restored: {error.strerror}")
            except Occupied as occupied:
                if not self._is_own_work(item):
                    self._refuse(item, str(occupied))
            except (Refused, NotKnown) as refused:
                self._refuse(item, str(refused))
        if self._target is not None:
            not_held = self._target.take_not_held()
            self._tally.update({NOT_HELD + kind: number for kind, number in not_held.items()})
        self._items += [(message.TALLY, name, number) for name, number in self._tally.items()]
        results = (tried, 0, 0, self._bytes_read, self._bytes_written, self._items)
        return message.encode(results), tried, self._bytes_read

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        """The result of an item at which two workers have died."""
        if item[0] in (message.FILE, message.LINK, message.SPECIAL):
            return [message.PROBLEM, treepath.join(folder, item[1]), KILLED_TWO, Severity.ERROR]
        if item[0] == message.FOLDER:
            return [message.PROBLEM, item[1], KILLED_TWO, Severity.ERROR]
        return item

    def _refuse(self, item: list[Any], cause: str) -> None:
        path = item[1] if item[0] == message.FOLDER else treepath.join(self._inside, item[1])
        self._items.append((message.PROBLEM, path, cause, Severity.ERROR))

    def _item(self, item: list[Any]) -> None:
        tag = item[0]
        if tag == message.FILE:
            self._file(item[1], item[2])
        elif tag == message.INSIDE:
            self._inside, self._folder, self._stored_area = item[1], None, None
            place = self._contents.places[treepath.source_name(item[1])]
            self._is_stored_together = treepath.SEPARATOR in item[1] and not place.respelled
        elif tag == message.LINK:
            self._link(item[1], Held(treepath.join(self._inside, item[1]), *item[2]))
        elif tag == message.FOLDER:
            if self._target is not None:
                self._target.folder(self._place(item[1]))
                self._folder = None  # opening this one may have closed it
            self._items.append(tuple(item))
        elif tag == message.SPECIAL:
            self._special(item[1], Held(treepath.join(self._inside, item[1]), *item[2]))
        else:
            self._items.append(tuple(item))

    def _place(self, path: bytes) -> bytes:
        """Where a path goes, relative to the target."""
        return place_in_target(path, self._setup.with_names)

    def _is_own_work(self, item: list[Any]) -> bool:
        """Whether what stands in the way is what this restore has put there: a worker that was killed may
        have done a part of a batch that is then given out again."""
        if item[0] not in (message.FILE, message.LINK, message.SPECIAL):
            return False
        if not self._is_there(item[1], Held(treepath.join(self._inside, item[1]), *item[2])):
            return False
        self._tally[{message.FILE: RESTORED, message.LINK: LINKS}.get(item[0], MADE)] += 1
        return True

    def _is_name(self, held: Held) -> bool:
        """Whether it is another name of a file that came before: the parent knows when that one is there."""
        if held.linked_to is None or self._target is None:
            return False
        self._items.append((message.NAME, held.path, held[1:]))
        return True

    # -- files --------------------------------------------------------------------------------------------

    def _file(self, name: bytes, row: list[Any]) -> None:
        if self._target is not None and self._setup.overwrite == "never" and self._is_restored(name, row):
            self._tally[RESTORED] += 1
            return
        held = Held(treepath.join(self._inside, name), *row)
        if not held.is_within_reach:
            raise Refused(gone_words(held))
        if self._is_name(held):
            return
        if self._setup.overwrite == "if-different" and self._is_there(name, held):
            self._already(held)
        elif self._target is None:
            self._look(held)
        else:
            self._restore(name, held, self._target)

    def _is_restored(self, name: bytes, row: list[Any]) -> bool:
        """The hot path: a small file that lies, whole and right, where the state says.

        Whatever is not plainly so is left to `_restore`, which does the same with more looks.
        """
        _, mode, uid, gid, mtime_ns, size, recorded, _, _, _, _, area, _, _, _, attributes, linked_to, _ = row
        if area is None or size >= digest.READ_BYTES or mode < 0 or not self._is_stored_together:
            return False
        if not attributes is linked_to is None:
            return False
        assert self._target is not None, "the caller has looked"
        try:
            handle = calls.open(name, READ_FLAGS, dir_fd=self._stored_folder(area))
        except OSError:
            return False
        try:
            content = os.read(handle, size + 1)
        except OSError:
            return False
        finally:
            os.close(handle)
        if len(content) != size or self._new_hasher(content).digest() != recorded:
            return False
        folder = self._folder if self._folder is not None else self._handle()
        metadata = self._descriptions.of_plain(mode, uid, gid, mtime_ns)
        self._target.give_name(self._target.new_small_file(content, metadata), folder, name)
        self._bytes_read += size
        self._bytes_written += size
        if self._setup.report:
            held = Held(treepath.join(self._inside, name), *row)
            self._done(held, "RESTORE", content_words(held), self._stored_at(name, area))
        return True

    def _stored_folder(self, area: int) -> int:
        """The handle of the folder in which the current folder's files are stored. Only the last one is kept,
        because opening another may close it."""
        if self._stored_area != area:
            self._stored = self._contents.folders.at(self._stored_at(b"", area).rstrip(b"/"))
            self._stored_area = area
        return self._stored

    def _stored_at(self, name: bytes, area: int) -> bytes:
        return self._contents.place(self._inside, 0, area) + b"/" + name

    def _restore(self, name: bytes, held: Held, target: Target) -> None:
        """From wherever the content lies by now."""
        cause = _MISSING
        self._stored_area = None
        for at in self._contents.all_places(held):
            try:
                handle = self._contents.open(at)
            except OSError as error:
                cause = _cause(error, cause)
                continue
            try:
                # A folder stands where the file was, if its path has changed its kind meanwhile.
                is_file = stat.S_ISREG(os.fstat(handle).st_mode)
                cause = _ROTTEN if is_file else _NO_FILE
                staged = self._copy(handle, held, target) if is_file else None
            except _CantRead as error:
                cause, staged = str(error), None
            finally:
                os.close(handle)
            if staged is not None:
                target.give_name(staged, self._handle(), name)
                self._tally[RESTORED] += 1
                self._bytes_written += held.size
                self._done(held, "RESTORE", content_words(held), at)
                return
        raise Refused(self._contents.gone_words(held) or cause)

    def _handle(self) -> int:
        if self._folder is None:
            assert self._target is not None, "nothing is named in a dry run"
            self._folder = self._target.folder(self._place(self._inside))
        return self._folder

    def _copy(self, stored: int, held: Held, target: Target) -> bytes | None:
        """A checked copy in staging with its final metadata; None where the bytes aren't those recorded."""
        known = held if held.mode >= 0 else held._replace(mode=os.fstat(stored).st_mode)
        metadata = self._descriptions.of(known)
        if held.size >= digest.READ_BYTES:
            return self._copy_large(stored, held, metadata, target)
        content = b""
        while len(content) <= held.size and (piece := self._read(stored, held.size + 1 - len(content))):
            content += piece
        self._bytes_read += len(content)
        if len(content) != held.size or self._new_hasher(content).digest() != held.digest:
            return None
        return target.new_small_file(content, metadata)

    def _read(self, stored: int, count: int) -> bytes:
        try:
            return os.read(stored, count)
        except OSError as error:
            raise _CantRead(f"its stored file can't be read: {error.strerror}") from error

    def _pieces(self, stored: int, size_bytes: int) -> Iterator[tuple[memoryview, bool]]:
        """Errors of reading told apart from those of writing."""
        try:
            yield from pieces(stored, self._buffer, size_bytes)
        except OSError as error:
            raise _CantRead(f"its stored file can't be read: {error.strerror}") from error

    def _copy_large(self, stored: int, held: Held, metadata: Metadata, target: Target) -> bytes | None:
        state, size, staged = self._new_hasher(), 0, target.new_file()
        try:
            for piece, is_hole in self._pieces(stored, held.size + 1):
                state.update(piece)
                staged.write(piece, is_hole)
                size += len(piece)
                self._bytes_read += len(piece)
                self._alive(len(piece))
            if size == held.size and state.digest() == held.digest:
                return target.finish(staged, metadata, size)
        except BaseException:
            staged.discard()
            raise
        staged.discard()
        return None

    # -- links --------------------------------------------------------------------------------------------

    def _link(self, name: bytes, held: Held) -> None:
        if not held.is_within_reach:
            raise Refused(gone_words(held))
        if self._is_name(held):
            return
        if self._setup.overwrite == "if-different" and self._is_there(name, held):
            self._already(held)
            return
        assert held.target is not None, "the lister has looked"
        at = self._contents.place(held.path, held.number, held.area)
        if self._target is not None:
            staged = self._target.new_link(held.target, self._descriptions.of(held))
            self._target.give_name(staged, self._handle(), name)
        self._tally[LINKS] += 1
        self._done(held, "RESTORE", content_words(held), at)

    # -- special files ------------------------------------------------------------------------------------

    def _special(self, name: bytes, held: Held) -> None:
        if not self._setup.specials:
            self._tally[SPECIALS] += 1
            return
        if self._is_name(held):
            return
        if self._setup.overwrite == "if-different" and self._is_there(name, held):
            self._already(held)
            return
        kind = stat.S_IFMT(held.mode)
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and held.links < 0:
            raise Refused("an earlier version of this program has not recorded which device it is")
        if self._target is not None:
            try:
                staged = self._target.new_special(kind, held.size, self._descriptions.of(held))
            except PermissionError:
                self._tally[NOT_HELD + "devices"] += 1
                return
            self._target.give_name(staged, self._handle(), name)
        self._tally[MADE] += 1
        self._done(held, "RESTORE", "special file", None)

    # -- what is there already ----------------------------------------------------------------------------

    def _is_there(self, name: bytes, held: Held) -> bool:
        return self._existing is not None and self._existing.has(self._place(self._inside), name, held)

    def _already(self, held: Held) -> None:
        self._tally[ALREADY] += 1
        self._done(held, "SKIP", "already there", None)

    def _look(self, held: Held) -> None:
        """A dry run: whether the stored file is there, without reading it."""
        cause = _MISSING
        for at in self._contents.all_places(held):
            try:
                found = self._contents.stat(at)
            except OSError as error:
                cause = _cause(error, cause)
                continue
            cause = _ROTTEN if stat.S_ISREG(found.st_mode) else _NO_FILE
            if stat.S_ISREG(found.st_mode) and found.st_size == held.size:
                self._tally[RESTORED] += 1
                self._bytes_written += held.size
                self._done(held, "RESTORE", content_words(held), at)
                return
        raise Refused(self._contents.gone_words(held) or cause)

    def _done(self, held: Held, action: str, reason: str, at: bytes | None) -> None:
        if self._setup.report:
            self._items.append((message.DONE, held.path, action, reason, at))


def _cause(error: OSError, known: str) -> str:
    """What the last look found; that nothing is there says less than what was found before."""
    if error.errno in _NOT_THERE:
        return known
    return _NO_FILE if error.errno == errno.ELOOP else f"its stored file can't be read: {error.strerror}"


def content_words(held: Held) -> str:
    """Which content of its path it is."""
    if held.area is None:
        return f"version {held.number}"
    return {Area.LIVE: "latest content", Area.DUPLICATE: "latest content, a duplicate"}.get(
        Area(held.area), "latest content, deleted"
    )
