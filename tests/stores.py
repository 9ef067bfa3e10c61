"""A backup root of the tests' own, for what writes there: the store's parts without a state or a run."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TypeAlias

from pipeline.model.record import Kind
from pipeline.store import calls
from pipeline.store.files import StoredFiles
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.operation import Identity, Operation, Place
from pipeline.store.staging import Adopted, Expected, Staging

Snapshot: TypeAlias = dict[str, tuple[str, int]]
OWNER = b"docs\0a"


def hash_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def hash_file(handle: int) -> bytes:
    return hash_of(os.pread(handle, 1 << 20, 0))


class Store:
    """A backup root with its own folders open, and short words for what lies in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging_path, self.quarantine_path = root / ".pipeline/staging", root / ".pipeline/quarantine"
        for folder in (self.staging_path, self.quarantine_path):
            folder.mkdir(parents=True)
        paths = (root, self.staging_path, self.quarantine_path)
        self.handles = [calls.open(path, FOLDER_FLAGS) for path in paths]
        self.files = StoredFiles(*self.handles, hash_file)
        self.staging = Staging(self.handles[1], self.files.folders)

    def close(self) -> None:
        self.files.close()
        for handle in self.handles:
            calls.close(handle)

    def put(self, at: str, content: bytes = b"old") -> Identity:
        path = self.root / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Identity(path.stat().st_ino, len(content), hash_of(content), None)

    def put_link(self, at: str, target: str) -> Identity:
        path = self.root / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return Identity(path.lstat().st_ino, len(target), None, os.fsencode(target))

    def stage(self, name: str, content: bytes = b"new") -> Identity:
        return self.put(f".pipeline/staging/{name}", content)

    def adopt(self, at: str, content: bytes = b"old") -> Adopted:
        return self.staging.adopt(os.fsencode(at), self.expected(at, content))

    def expected(self, at: str, content: bytes = b"old") -> Expected:
        mtime_ns = (self.root / at).stat().st_mtime_ns
        return Expected(Kind.FILE, len(content), hash_of(content), None, mtime_ns)

    def apply(self, *operations: Operation, redo: bool = False) -> list[Place]:
        return self.files.apply(operations, redo)

    def causes(self) -> list[str]:
        return [problem.cause for problem in self.files.take_problems()]

    def snapshot(self) -> Snapshot:
        """Every name but the state's, with its content and permissions."""
        found: Snapshot = {}
        for path in sorted(self.root.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if path.is_symlink():
                content = f"→ {os.readlink(path)}"
            else:
                content = "folder" if path.is_dir() else path.read_bytes().decode()
            found[str(path.relative_to(self.root))] = (content, mode)
        return found

    def contents(self, *names: str) -> list[str | None]:
        return [self.snapshot().get(name, (None,))[0] for name in names]

    def quarantine(self) -> list[str]:
        return sorted(path.name for path in self.quarantine_path.iterdir())


def place(
    target: str, identity: Identity, staged: str = "s", replaces: Identity | None = None, origin: str = ""
) -> Place:
    names = (os.fsencode(staged), os.fsencode(target))
    return Place(*names, identity, OWNER, 0, replaces, os.fsencode(origin))
