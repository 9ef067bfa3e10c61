"""A backup with a small past of four runs, of which every command that looks at a backup tells its part.

In: a folder. Out: the backup, which tests only look at, because they share it. Guarantees: one name
isn't UTF-8, has a line break and looks like markup.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import Backup
from trees import EPOCH_NS, File, Link, Tree, remove

ODD = os.fsdecode(b"caf\xe9\n[bold]x")
ODD_SHOWN = "docs/caf\\xe9\\x0a[bold]x"

FIRST: Tree = {
    "back": "back\n",
    "copy": "one\n",
    "empty": "",
    "folder": {"a": "a\n", "b": "b\n"},
    "link": Link("one"),
    "moved": "moved\n",
    "one": "one\n",
    "twin": "b\n",
    "two": "two\n",
    ODD: "odd\n",
}


def make_past(base: Path) -> Backup:
    """Run 1: all is new. 2: changed, moved, deleted. 3: metadata, a comeback, another kind. 4: nothing."""
    backup = Backup(base)
    source = backup.source
    backup.write(FIRST)
    backup.run()
    backup.write({"one": File(b"one, changed\n", mtime_ns=EPOCH_NS), "emptier": "", "new": "new\n"})
    for name in ("back", "empty", "link"):
        remove(source / name)
    backup.write({"link": Link("two")})
    (source / "moved").rename(source / "folder" / "moved")
    (source / "two").chmod(0o600)
    backup.run()
    backup.write({"back": "back\n"})
    (source / "one").chmod(0o640)
    (source / "folder").chmod(0o700)
    remove(source / "folder" / "a")
    remove(source / "new")
    backup.write({"folder": {"a": {"inside": "inside\n"}}})
    backup.run()
    backup.run()
    return backup
