"""The walk through a backup's own tree, and the workers that read what lies there, whatever a state says.

In: the backup root. Out: everything below it but the program's own folder, in scan order of the backup; from
the workers, each with its metadata, and a file with its digest. Guarantees: links are never followed, memory
holds one folder's names per level, nothing is written. What can't be read becomes a PROBLEM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.layout import OWN_FOLDER
from pipeline.model import message
from pipeline.model.errors import Severity
from pipeline.model.record import Kind, Stat
from pipeline.stages import digest
from pipeline.stages.batch import KILLED_TWO
from pipeline.stages.batches import Batches, Send
from pipeline.stages.setup import TreeSetup
from pipeline.store import calls, extended
from pipeline.store.folders import FOLDER_FLAGS, READ_FLAGS, Folders, split

CantList = Callable[[bytes, OSError], None]


def walk_backup(
    folders: Folders, cant_list: CantList, beat: Callable[[], None]
) -> Iterator[tuple[bytes, bool]]:
    """Backup paths, and whether each is a folder. The stack holds what is left of each folder's names. beat:
    called now and then."""
    stack = [iter(_list(folders, b"", cant_list, beat))]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        yield found
        at, is_folder = found
        if is_folder:
            stack.append(iter(_list(folders, at, cant_list, beat)))


def _list(
    folders: Folders, folder: bytes, cant_list: CantList, beat: Callable[[], None]
) -> list[tuple[bytes, bool]]:
    prefix, names = folder + b"/" if folder else b"", []
    try:
        with calls.scandir(folders.at(folder)) as entries:
            for entry in entries:
                beat()
                names.append((prefix + os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)))
    except OSError as error:
        cant_list(folder, error)
        return []
    return sorted(name for name in names if name[0] != OWN_FOLDER)


class TreeWalk:
    """Lists everything that lies in a backup."""

    def __init__(self, setup: TreeSetup, send: Send) -> None:
        self._folders = Folders(calls.open(setup.backup_root, FOLDER_FLAGS))
        self._batches = Batches(send)

    def walk(self) -> None:
        for at, is_folder in walk_backup(self._folders, self._cant_list, self._batches.beat):
            self._batches.add((message.STRAY, at), int(not is_folder))
        self._batches.flush()

    def _cant_list(self, at: bytes, error: OSError) -> None:
        self._batches.add((message.PROBLEM, at, f"can't be listed: {error.strerror}", Severity.ERROR))


class TreeReader:
    """A worker: reads what lies in a backup, as it is."""

    def __init__(self, setup: TreeSetup, worker: int, alive: Callable[[int], None]) -> None:
        self._folders = Folders(calls.open(setup.backup_root, FOLDER_FLAGS))
        self._new_hasher = digest.hasher(setup.algorithm)
        self._buffer = bytearray(digest.READ_BYTES)
        self._alive = alive
        self._bytes_read = 0

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """A batch's results, encoded, the number of its files, and the bytes that were read."""
        items: list[Any] = []
        files, self._bytes_read = 0, 0
        for item in message.decode_items(payload):
            if item[0] != message.STRAY:
                items.append(item)
                continue
            try:
                stored, why = self._read(item[1])
                items.append(stored)
                files += stored[2] == Kind.FILE
                if why is not None:
                    items.append((message.PROBLEM, item[1], why, Severity.WARNING))
            except OSError as error:
                cause = f"can't be read: {error.strerror}"
                items.append((message.PROBLEM, item[1], cause, Severity.ERROR))
        return message.encode((files, 0, 0, self._bytes_read, 0, items)), files, self._bytes_read

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        """The result of an item at which two workers have died."""
        return [message.PROBLEM, item[1], KILLED_TWO, Severity.ERROR] if item[0] == message.STRAY else item

    def _read(self, at: bytes) -> tuple[tuple[Any, ...], str | None]:
        """What is told of it, and why its attributes aren't all there."""
        folder, name = split(at)
        parent = self._folders.at(folder)
        found = calls.stat(name, dir_fd=parent, follow_symlinks=False)
        content, target, kind = None, None, Kind.of_mode(found.st_mode)
        packed, why = b"", None
        if kind == Kind.LINK:
            target = calls.readlink(name, dir_fd=parent)
        elif kind in (Kind.FILE, Kind.FOLDER):
            handle = calls.open(name, READ_FLAGS if kind == Kind.FILE else FOLDER_FLAGS, dir_fd=parent)
            try:
                content = self._hash(handle) if kind == Kind.FILE else None
                found, (packed, why) = calls.fstat(handle), extended.seen(handle)
            finally:
                calls.close(handle)
        return (message.STORED, at, kind, Stat.of(found), content, target, packed), why

    def _hash(self, handle: int) -> bytes:
        return digest.of_file(handle, self._new_hasher, self._buffer, self._has_read)

    def _has_read(self, size_bytes: int) -> None:
        self._bytes_read += size_bytes
        if size_bytes >= digest.READ_BYTES:
            self._alive(size_bytes)
