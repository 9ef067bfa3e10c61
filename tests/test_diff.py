"""`diff`: what differs between two runs, and what was moved; the merge below it, against a plain model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import Backup, Line, exact
from hypothesis import given
from hypothesis import strategies as st
from trees import remove
from with_past import ODD

from pipeline.merge import lock_step
from pipeline.store.scratch import Moves


def told(lines: Iterable[Line]) -> list[tuple[str, str]]:
    return [(line["what"], exact(line, "path")) for line in lines]


def test_between_neighbours(past: Backup) -> None:
    """In scan order: a move is one line in place of two; folders count too, but not those of which only the
    mtime differs; empty files are never moved."""
    *lines, summary = past.call("diff", "1", "2", "--json").lines
    assert told(lines) == [
        ("deleted", "docs/back"),
        ("added", "docs/emptier"),
        ("deleted", "docs/empty"),
        ("moved", "docs/folder/moved"),
        ("changed", "docs/link"),
        ("added", "docs/new"),
        ("changed", "docs/one"),
        ("metadata", "docs/two"),
    ]
    moved, changed = lines[3], lines[6]
    assert (moved["from_path"], moved["size"], moved["kind"]) == ("docs/moved", 6, "file")
    assert (changed["old_size"], changed["size"], changed["old_kind"]) == (4, 13, "file")
    assert changed["old_digest"] != changed["digest"]
    assert "from_path" not in changed
    assert summary == {
        "type": "summary", "status": "ok", "from_run": 1, "to_run": 2,
        "added": 2, "changed": 2, "metadata": 1, "deleted": 2, "moved": 1,
    }  # fmt: skip


def test_over_several_runs(past: Backup) -> None:
    """What came and went in between, or came back as it was, is no difference; a change of kind is one."""
    *lines, _ = past.call("diff", "1", "4", "--json").lines
    assert told(lines) == [
        ("metadata", "docs/back"),
        ("added", "docs/emptier"),
        ("deleted", "docs/empty"),
        ("metadata", "docs/folder"),
        ("changed", "docs/folder/a"),
        ("added", "docs/folder/a/inside"),
        ("moved", "docs/folder/moved"),
        ("changed", "docs/link"),
        ("changed", "docs/one"),
        ("metadata", "docs/two"),
    ]
    assert (lines[4]["old_kind"], lines[4]["kind"], lines[4]["size"]) == ("file", "folder", None)
    times = [line["ended"] for line in past.call("runs", "--json").lines[:-1]]
    assert past.call("diff", times[0], times[3], "--json").lines[:-1] == lines
    assert [line["type"] for line in past.call("diff", "3", "4", "--json").lines] == ["summary"]
    assert [line["type"] for line in past.call("diff", "2", "2", "--json").lines] == ["summary"]


def test_backwards(past: Backup) -> None:
    """The later run first: the same paths, with added and deleted, old and new the other way round."""
    *there, _ = past.call("diff", "1", "4", "--json").lines
    *back, summary = past.call("diff", "4", "1", "--json").lines
    assert (summary["from_run"], summary["to_run"]) == (4, 1)
    other = {"added": "deleted", "deleted": "added", "metadata": "metadata", "changed": "changed"}
    turned = {(other[what], path) for what, path in told(there) if what != "moved"}
    assert set(told(back)) == turned | {("moved", "docs/moved")}
    sizes = {line["path"]: (line["old_size"], line["size"]) for line in there if line["what"] == "changed"}
    for line in back:
        if line["what"] == "changed":
            assert (line["size"], line["old_size"]) == sizes[line["path"]]
    assert "backwards" in past.call("diff", "4", "1").stdout.splitlines()[-1]


def test_for_people(past: Backup) -> None:
    """Aligned, with both names of what was moved, and a last line that counts."""
    titles, *rows, last = past.call("diff", "1", "4").stdout.splitlines()
    column = titles.index("path")
    names = [row[column:] for row in rows]
    assert "docs/moved -> docs/folder/moved" in names
    assert "docs/folder/a (file became folder)" in names
    assert last == "From run 1 to run 4: 2 added, 3 changed, 3 metadata, 1 deleted, 1 moved"
    assert past.call("diff", "3", "4").stdout == "From run 3 to run 4: no difference\n"


def test_runs_that_are_not_there(past: Backup) -> None:
    """A run that was not completed, or a time before the first, is bad usage."""
    for arguments in (["1", "5"], ["2001-01-01", "2"], ["1", "yesterday"]):
        assert past.call("diff", *arguments, expect=2).stderr.startswith("error: ")
        assert past.call("diff", *arguments, "--json", expect=2).summary["status"] == "failed"


def test_moves_are_paired_in_scan_order_each_once(tmp_path: Path) -> None:
    """Two that went and three that came with one content: two moves, first with first, one new file."""
    backup = Backup(tmp_path)
    backup.write({"p": {"1": "same\n", ODD: "same\n"}, "other": "same siz\n"})
    backup.run()
    remove(backup.source / "p")
    backup.write({"a": "same\n", "x": "same\n", "z": "same\n", "y": "another!\n"})
    backup.run()
    *lines, _ = backup.call("diff", "1", "2", "--json").lines
    moves = {exact(line, "path"): exact(line, "from_path") for line in lines if line["what"] == "moved"}
    assert moves == {"docs/a": "docs/p/1", "docs/x": f"docs/p/{ODD}"}
    assert told(line for line in lines if line["what"] != "moved") == [
        ("deleted", "docs/p"),
        ("added", "docs/y"),
        ("added", "docs/z"),
    ]


PATHS = st.binary(max_size=3)
CONTENTS = st.dictionaries(PATHS, st.tuples(st.sampled_from([b"d1", b"d2"]), st.sampled_from([1, 2])))


@given(CONTENTS, CONTENTS)
def test_pairing_is_the_plain_one(
    went: dict[bytes, tuple[bytes, int]], came: dict[bytes, tuple[bytes, int]]
) -> None:
    """As with lists in memory: the first of a content that came is the first of it that went, and so on."""
    moves = Moves()
    for path in sorted(went):
        moves.went(*went[path], path)
    for path in sorted(came):
        moves.came(*came[path], path)
    moves.pair()
    waiting: dict[tuple[bytes, int], list[bytes]] = {}
    for path in sorted(went):
        waiting.setdefault(went[path], []).append(path)
    expected = {p: left.pop(0) if (left := waiting.get(came[p])) else None for p in sorted(came)}
    assert {path: moves.origin(path) for path in came} == expected
    assert {path for path in went if moves.has_moved(path)} == set(expected.values()) - {None}
    moves.close()


def itself(key: bytes) -> bytes:
    return key


@given(st.sets(PATHS), st.sets(PATHS))
def test_lock_step_is_the_union_in_order(left: set[bytes], right: set[bytes]) -> None:
    """Every key once, in order, with what either side has of it."""
    merged = [*lock_step(sorted(left), sorted(right), itself)]
    expected = [(k if k in left else None, k if k in right else None) for k in sorted(left | right)]
    assert merged == expected


@given(st.sets(PATHS), st.sets(PATHS))
def test_lock_step_reads_one_ahead_at_most(left: set[bytes], right: set[bytes]) -> None:
    """Nothing is held but the next item of each stream."""
    read = [0, 0]

    def counted(side: int, keys: Iterable[bytes]) -> Iterable[bytes]:
        for key in sorted(keys):
            read[side] += 1
            yield key

    given_out = [0, 0]
    for pair in lock_step(counted(0, left), counted(1, right), itself):
        for side in (0, 1):
            given_out[side] += pair[side] is not None
            assert read[side] <= given_out[side] + 1
