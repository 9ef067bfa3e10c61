"""Source trees for tests: written from a declaration, grown from a seed, changed from a seed, compared.

In: a folder and what should be in it. Out: that tree on disk, or a snapshot of what is there.
Guarantees: the same declaration or seed gives the same tree; snapshots never follow a link.
Names that aren't UTF-8 are `str` with surrogate escapes, as `os.fsdecode` gives them.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

EPOCH_NS = 1_700_000_000_000_000_000
"""Times of generated files start here: long ago, so that nothing generated is younger than a run."""


class File(NamedTuple):
    """A regular file. mtime_ns: None leaves it as it was written."""

    content: bytes = b""
    mode: int = 0o644
    mtime_ns: int | None = None


class Link(NamedTuple):
    """A symbolic link, as it stands, whatever lies at its target."""

    target: str


class Fifo(NamedTuple):
    """A named pipe: whoever opens it for reading waits for ever."""


class Folder(NamedTuple):
    """A folder whose mode matters."""

    content: Tree
    mode: int = 0o755


Tree: TypeAlias = Mapping[str, "str | bytes | File | Link | Fifo | Folder | Tree | None"]
"""Name or path → content; None is an empty folder, a mapping a folder with content."""


def write_tree(root: Path, tree: Tree) -> None:
    """Write what is declared below `root`, over what is there; folders in between are made."""
    root.mkdir(parents=True, exist_ok=True)
    for name, what in tree.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            place.mkdir(exist_ok=True)
        elif isinstance(what, Folder):
            write_tree(place, what.content)
            place.chmod(what.mode)
        elif isinstance(what, Link):
            place.symlink_to(what.target)
        elif isinstance(what, Fifo):
            os.mkfifo(place)
        elif isinstance(what, str | bytes | File):
            _write_file(place, what)
        else:
            write_tree(place, what)


def _write_file(place: Path, what: str | bytes | File) -> None:
    if not isinstance(what, File):
        place.write_bytes(what.encode() if isinstance(what, str) else what)
        return
    place.write_bytes(what.content)
    place.chmod(what.mode)
    if what.mtime_ns is not None:
        os.utime(place, ns=(what.mtime_ns, what.mtime_ns))


def remove(place: Path) -> None:
    """Remove a file, a link or a whole folder."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


class Seen(NamedTuple):
    """One thing in a tree. content: hex SHA-256 of a file's bytes, a link's target, else empty."""

    kind: str
    mode: int
    mtime_ns: int
    content: str


Snapshot: TypeAlias = dict[str, Seen]


def kind_of(mode: int) -> str:
    """The kind as `export` calls it."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "special")


def walk(root: Path, leave_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below `root` as (relative path, entry). leave_out: relative paths that are not entered."""
    pending = [""]
    while pending:
        above = pending.pop()
        with os.scandir(root / above if above else root) as entries:
            for entry in entries:
                relative = f"{above}/{entry.name}" if above else entry.name
                if relative in leave_out:
                    continue
                yield relative, entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative)


def snapshot(root: Path, leave_out: frozenset[str] = frozenset(), folder_times: bool = False) -> Snapshot:
    """What lies below `root`. Folder times only on request: they change with what is in them."""
    seen: Snapshot = {}
    for relative, entry in walk(root, leave_out):
        found = entry.stat(follow_symlinks=False)
        kind, content = kind_of(found.st_mode), ""
        if kind == "file":
            content = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
        elif kind == "link":
            content = os.readlink(entry.path)
        time_ns = found.st_mtime_ns if folder_times or kind in ("file", "link") else 0
        seen[relative] = Seen(kind, stat.S_IMODE(found.st_mode), time_ns, content)
    return seen


def difference(one: Snapshot, other: Snapshot) -> str:
    """Where two snapshots differ, for people; empty when they are equal."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    lines = [f"{name!r}: {one.get(name)} != {other.get(name)}" for name in names]
    return "\n".join(lines[:20] + ([f"… and {len(lines) - 20} more"] if len(lines) > 20 else []))


# Grown trees


ODD_NAMES = (
    "two\nlines.txt",
    os.fsdecode(b"caf\xe9.bin"),
    "-rf",
    " leading and trailing ",
    "back\\slash",
    "tab\there",
    "grüße, 世界.txt",
    "*?[x]",
    "v1.bak",
    "n" * 255,
)


def grow(root: Path, files: int, seed: int, large: int = 0) -> None:
    """A tree of about `files` small files in folders: duplicates, links, empty folders, odd names.

    large: how many files of some MiB are spread among them, so that results don't come in scan order.
    """
    generator = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    folders = [root]
    for number in range(max(3, files // 25)):
        folder = generator.choice(folders) / f"folder{number:03}"
        folder.mkdir()
        folders.append(folder)
    contents = [_some_bytes(generator) for _ in range(max(4, files // 8))]
    for number in range(files):
        folder = generator.choice(folders)
        name = ODD_NAMES[number] if number < len(ODD_NAMES) else f"file{number:05}.dat"
        content = generator.choice(contents) if generator.random() < 0.3 else _some_bytes(generator)
        write_tree(folder, {name: File(content, generator.choice((0o644, 0o600, 0o755, 0o444)))})
    for number in range(large):
        size = generator.randrange(1 << 20, 5 << 20)
        write_tree(generator.choice(folders), {f"large{number}.bin": generator.randbytes(size)})
    for number in range(max(2, files // 50)):
        target = generator.choice(("nowhere", "..", "file00000.dat", "/etc/passwd"))
        write_tree(generator.choice(folders), {f"link{number:03}": Link(target), f"empty{number:03}": None})
    set_times(root, generator)


def _some_bytes(generator: random.Random) -> bytes:
    """Mostly some KiB, sometimes nothing, sometimes some dozen KiB."""
    return generator.randbytes(min(80_000, int(generator.lognormvariate(7.0, 1.6))))


def set_times(root: Path, generator: random.Random) -> None:
    """Give everything below `root`, and `root`, a generated time."""
    places = [root / relative for relative, _ in walk(root)]
    for place in sorted(places, reverse=True):
        moment = EPOCH_NS + generator.randrange(10**15)
        os.utime(place, ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(EPOCH_NS, EPOCH_NS))


def files_below(root: Path) -> list[Path]:
    """All regular files, in an order that depends on their names alone."""
    return sorted(Path(entry.path) for _, entry in walk(root) if entry.is_file(follow_symlinks=False))


def change(root: Path, seed: int, share: float = 0.04) -> None:
    """All kinds of changes to a share of the files: content, metadata, new, gone, renamed, another kind."""
    generator = random.Random(seed)
    files = files_below(root)
    generator.shuffle(files)
    batch = max(2, int(len(files) * share))
    picked = iter(files)

    def some() -> list[Path]:
        return [path for path, _ in zip(picked, range(batch), strict=False)]

    for path in some():
        path.write_bytes(_some_bytes(generator))
    for path in some():
        path.chmod(generator.choice((0o640, 0o700, 0o4755)))
    for path in some():
        path.with_name(f"new{seed}_{generator.randrange(10**9)}").write_bytes(_some_bytes(generator))
        shutil.copyfile(path, path.with_name(f"copy{seed}_{generator.randrange(10**9)}"))
    for path in some():
        path.unlink()
    for path in some():
        path.rename(path.with_name(f"renamed{seed}_{generator.randrange(10**9)}"))
    for path in some()[: max(2, batch // 4)]:
        _change_kind(path, generator)
    _change_folders(root, seed, generator)
    set_times_of_new(root, generator)


def _change_kind(path: Path, generator: random.Random) -> None:
    """A file becomes a folder with a file of the same content in it, or a link."""
    content = path.read_bytes()
    path.unlink()
    if generator.random() < 0.5:
        write_tree(path.parent, {path.name: {"inside": content, "v1.bak": content}})
    else:
        path.symlink_to(generator.choice(("elsewhere", "..")))


def _change_folders(root: Path, seed: int, generator: random.Random) -> None:
    """One folder is renamed, one turns into a file, one empty one vanishes, one link into a folder."""
    entries = sorted(walk(root), key=lambda pair: pair[0])
    folders = [Path(entry.path) for relative, entry in entries if entry.is_dir(follow_symlinks=False)]
    links = [Path(entry.path) for relative, entry in entries if entry.is_symlink()]
    leaves = [folder for folder in folders if not any(part.is_dir() for part in folder.iterdir())]
    generator.shuffle(leaves)
    for folder, what in zip(leaves, ("rename", "file", "remove"), strict=False):
        if what == "rename":
            folder.rename(folder.with_name(f"moved{seed}"))
        else:
            shutil.rmtree(folder)
            if what == "file":
                folder.write_bytes(_some_bytes(generator))
    if links:
        link = generator.choice(links)
        link.unlink()
        write_tree(link.parent, {link.name: {"was a link": "yes", "deeper": {"file": "x"}}})


def set_times_of_new(root: Path, generator: random.Random) -> None:
    """Generated times for what was just changed, so that nothing hangs on the clock."""
    for relative, entry in sorted(walk(root), key=lambda pair: pair[0], reverse=True):
        if entry.stat(follow_symlinks=False).st_mtime_ns > EPOCH_NS + 10**15:
            moment = EPOCH_NS + generator.randrange(10**15)
            os.utime(root / relative, ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(EPOCH_NS, EPOCH_NS))


def copy_shuffled(source: Path, target: Path, seed: int) -> None:
    """Copy a tree with all metadata, its entries made in another order, so that folders list differently."""
    generator = random.Random(seed)
    target.mkdir(parents=True)
    names = os.listdir(source)
    names.sort(reverse=True)
    generator.shuffle(names)
    for name in names:
        one, other = source / name, target / name
        if one.is_symlink():
            other.symlink_to(os.readlink(one))
            shutil.copystat(one, other, follow_symlinks=False)
        elif one.is_dir():
            copy_shuffled(one, other, generator.randrange(10**9))
        else:
            shutil.copy2(one, other)
    shutil.copystat(source, target)
