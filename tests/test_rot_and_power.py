"""What only the state can tell: bit rot in a source, and files that a power cut left without their bytes.

Both are staged by editing `state.db` between two runs, as the disk would have left it: the digest that was
recorded for a file, or the boot in which an unfinished run stored it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edited import edited_state
from harness import Backup, assert_log

from pipeline.model.record import Record
from pipeline.stages.known import Known

WITHOUT_BOOTS = """
from pipeline.store import clocks
clocks.boot_id = lambda: ""
from pipeline.ui.cli import main
main()
"""


def edit_state(backup: Backup, statement: str, *values: object) -> None:
    with edited_state(backup) as connection:
        assert connection.execute(statement, values).rowcount > 0


def rot(backup: Backup, path: str, digest: bytes) -> None:
    """As if the file had had another content when its stat was what it is now."""
    edit_state(backup, "UPDATE files SET digest = ?, unsettled = 0 WHERE path = ?", digest, path.encode())


def test_bytes_that_change_alone_are_suspect_and_the_old_version_is_pinned(tmp_path: Path) -> None:
    """SUSPECT: other content although size, mtime, ctime and inode are unchanged. It is stored like a
    modification, with a warning; the old version is pinned, and no retention ever takes it."""
    backup = Backup(tmp_path)
    backup.write({"four.txt": "four\n"})
    backup.run()
    rot(backup, "docs\0four.txt", b"\1" * 32)
    result = backup.run(expect=3)
    assert_log(
        result,
        [
            "PLANNER → SUSPECT: docs/four.txt (…)",
            "ARCHIVE: four.txt → versions/four.txt/v1.bak",
            "SUSPECT: docs/four.txt → four.txt",
            *[line for line in result.log if line.startswith("WARNING")],
            "Run complete",
        ],
    )
    assert any("bit rot" in line for line in result.log)
    assert "versions/four.txt/v1.pinned" in backup.names()
    backup.write({"four.txt": "changed\n"})
    backup.run("--set", "retention.max_versions_per_file=0")
    assert [version["n"] for version in backup.entry("docs/four.txt")["versions"]] == [1]


def test_a_file_within_the_time_stamps_resolution_is_never_suspect(tmp_path: Path) -> None:
    """Racy: what was written within 2 seconds before it was read may have changed without a trace in its
    stat, so that is a modification, not rot."""
    backup = Backup(tmp_path)
    backup.write({"a": "a\n"})
    backup.run()
    edit_state(backup, "UPDATE files SET digest = ? WHERE path = ? AND unsettled = 1", b"\1" * 32, b"docs\0a")
    assert backup.run().decisions() == ["MODIFIED: docs/a"]


def lose_bytes(stored: Path) -> None:
    """As a power cut may, on some file systems: its name, size and times are there."""
    found = stored.stat()
    stored.write_bytes(bytes(found.st_size))
    os.utime(stored, ns=(found.st_mtime_ns, found.st_mtime_ns))


def test_what_a_fast_run_stored_is_verified_after_a_power_cut(tmp_path: Path) -> None:
    """After an unfinished `fast` run and another boot, a stored file without its bytes is found, although
    its name, size and mtime are right, reported, and stored again; in the same boot it is trusted. Where
    boots have no names, each one may be another."""
    backup = Backup(tmp_path, settings={"durability": "fast"})
    backup.write({"lost": "content\n", "kept": "other\n"})
    backup.run()
    lose_bytes(backup.root / "lost")
    edit_state(backup, "UPDATE runs SET status = 'interrupted'")
    backup.run()
    assert backup.read("lost") == bytes(len("content\n")), "the quick look can't see it"
    edit_state(backup, "UPDATE runs SET status = 'interrupted', boot_id = 'another boot' WHERE number = 2")
    edit_state(backup, "UPDATE runs SET started_ns = (SELECT min(started_ns) FROM runs)")
    result = backup.run(expect=3)
    assert "docs/lost" in result.said
    assert backup.read("lost") == b"content\n"
    assert backup.run().decisions() == []
    lose_bytes(backup.root / "lost")
    edit_state(backup, "UPDATE runs SET status = 'interrupted', boot_id = ''")
    backup.program = [sys.executable, "-c", WITHOUT_BOOTS]
    assert "docs/lost" in backup.run(expect=3).said
    assert backup.read("lost") == b"content\n"


def test_the_scanner_holds_one_missing_record_at_a_time() -> None:
    """Bounded: what is missing from the tree is passed on record by record, however many there are."""
    passed_on: list[bytes] = []

    def rows(_low: bytes) -> Iterator[tuple[bytes | int, ...]]:
        for number in range(1000):
            assert number - len(passed_on) <= 1, "records pile up"
            yield (b"s\0%06d" % number, *[0] * (len(Record._fields) - 1))

    known = Known(rows, b"s")
    assert known.take(b"s\0~", lambda row: passed_on.append(row[0])) is None
    assert len(passed_on) == 1000


def test_trust_in_stat_reads_only_what_its_stat_says_may_have_changed(tmp_path: Path) -> None:
    """With `detect.trust = "stat"` an unchanged file isn't read; one that was rewritten to the same size with
    its mtime set back is still found, by its ctime."""
    backup = Backup(tmp_path, settings={"detect.trust": "stat"})
    backup.write({"same": "same\n", "sly": "old\n"})
    backup.run()
    edit_state(backup, "UPDATE files SET unsettled = 0")
    assert backup.run("--json").summary["bytes_read"] == 0
    sly = backup.source / "sly"
    found = sly.stat()
    sly.write_text("new\n")
    os.utime(sly, ns=(found.st_atime_ns, found.st_mtime_ns))
    result = backup.run("--json")
    assert result.decisions() == ["MODIFIED: docs/sly"]
    assert result.summary["skip"] == 1
