"""Several sources: where each one lies, and that this never changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Backup, difference
from trees import write_tree


def two_sources(base: Path) -> Backup:
    backup = Backup(base, sources=["docs", ("pictures", "photos")])
    write_tree(base / "docs", {"a.txt": "same\n", "sub/b.txt": "b\n"})
    write_tree(base / "pictures", {"a.txt": "same\n", "c.txt": "c\n"})
    return backup


def test_several_sources_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    """With several sources each lies at `<name>/<path>`, its name being its own or its folder's name;
    duplicates are found across them."""
    backup = two_sources(tmp_path)
    backup.run()
    assert backup.names() == [
        "_duplicates/photos/a.txt", "docs/a.txt", "docs/sub/b.txt", "photos/c.txt",
    ]  # fmt: skip
    assert backup.entry("photos/a.txt")["original"] == "docs/a.txt"
    write_tree(tmp_path / "pictures", {"c.txt": "changed\n"})
    (tmp_path / "docs" / "a.txt").unlink()
    backup.run()
    assert backup.names() == [
        "_deleted/docs/a.txt", "docs/sub/b.txt", "photos/a.txt", "photos/c.txt",
        "versions/photos/c.txt/v1.bak",
    ]  # fmt: skip
    backup.assert_right()


def test_a_second_source_leaves_the_first_where_it_is(tmp_path: Path) -> None:
    """A source's place is recorded at its first run and never moves: when a second one is added, the first
    stays at the root and the new one goes to `<name>/`."""
    backup = Backup(tmp_path)
    backup.write({"a.txt": "a\n", "sub/b.txt": "b\n"})
    backup.run()
    write_tree(tmp_path / "more", {"a.txt": "another\n"})
    backup.sources = ["docs", "more"]
    backup.write_config()
    backup.run()
    assert backup.names() == ["a.txt", "more/a.txt", "sub/b.txt"]
    backup.assert_all_well()


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """A second source whose name exists in the first is refused with exit 2, and nothing is touched."""
    backup = Backup(tmp_path)
    backup.write({"a.txt": "a\n", "more/b.txt": "b\n"})
    backup.run()
    before = backup.tree()
    write_tree(tmp_path / "more", {"a.txt": "another\n"})
    backup.sources = ["docs", "more"]
    backup.write_config()
    result = backup.run(expect=2)
    assert "more" in result.stderr and "name" in result.stderr
    assert not difference(before, backup.tree())
    backup.sources = ["docs", ("more", "others")]
    backup.write_config()
    backup.run()
    assert backup.names() == ["a.txt", "more/b.txt", "others/a.txt"]
    backup.assert_right()


@pytest.mark.parametrize("name", ["versions", "_escaped", "v1.bak", "v2.pinned"])
def test_a_name_of_the_program_s_own_beside_the_first_is_refused(tmp_path: Path, name: str) -> None:
    """Beside a first source at the root, no source may be called as something of the program's own: two paths
    could get the same name. The message says what to write instead."""
    backup = Backup(tmp_path)
    backup.write({"a": "a\n"})
    backup.run()
    write_tree(tmp_path / name, {"b": "b\n"})
    backup.sources = ["docs", name]
    backup.write_config()
    before = backup.tree()
    assert f'name = "{name}-2"' in backup.run(expect=2).stderr
    assert not difference(before, backup.tree())


def test_a_name_that_turns_up_later_finds_its_place(tmp_path: Path) -> None:
    """The mapping from source paths to backup paths is injective: a folder of the first source that gets
    the name of the second later doesn't meet it."""
    backup = Backup(tmp_path)
    backup.write({"a.txt": "a\n"})
    backup.run()
    write_tree(tmp_path / "more", {"a.txt": "another\n"})
    backup.sources = ["docs", "more"]
    backup.write_config()
    backup.run()
    backup.write({"more": {"a.txt": "the first source's own\n"}})
    backup.run()
    assert backup.read("more/a.txt") == b"another\n"
    backup.assert_right()


def test_removing_a_source_deletes_nothing(tmp_path: Path) -> None:
    """Removing a source from the configuration never deletes anything; when it comes back it goes on where
    it was."""
    backup = two_sources(tmp_path)
    backup.run()
    before = backup.tree()
    backup.sources = ["docs"]
    backup.write_config()
    result = backup.run()
    assert result.log == ["Run complete"]
    assert not difference(before, backup.tree())
    write_tree(tmp_path / "docs", {"new.txt": "new\n"})
    backup.run()
    assert "docs/new.txt" in backup.names()
    backup.sources = ["docs", ("pictures", "photos")]
    backup.write_config()
    backup.assert_all_well()


def test_an_original_in_a_removed_source_stays_one(tmp_path: Path) -> None:
    """Removing a source deletes nothing, so a duplicate of one of its files isn't promoted either."""
    backup = two_sources(tmp_path)
    backup.run()
    backup.sources = [("pictures", "photos")]
    backup.write_config()
    result = backup.run()
    assert result.log == ["Run complete"]
    assert "_duplicates/photos/a.txt" in backup.names()
    backup.assert_sound()


def test_equal_names_are_refused(tmp_path: Path) -> None:
    """Two sources of equal names are a configuration error, exit 2."""
    backup = Backup(tmp_path, sources=["one/docs", "two/docs"])
    write_tree(tmp_path, {"one/docs/a": "a\n", "two/docs/a": "b\n"})
    result = backup.run(expect=2)
    assert "docs" in result.stderr and "config.toml" in result.stderr
    assert not backup.root.exists()
    backup.sources = [("one/docs", "first"), ("two/docs", "second")]
    backup.write_config()
    backup.run()
    assert backup.names() == ["first/a", "second/a"]


def test_a_source_named_as_the_areas(tmp_path: Path) -> None:
    """The mapping is injective for every possible name, also for sources that are named as an area."""
    backup = Backup(tmp_path, sources=["versions", "_deleted", "docs"])
    for name in ("versions", "_deleted", "docs"):
        write_tree(tmp_path / name, {"a": f"{name}\n", "docs": {"b": f"{name} b\n"}})
    backup.run()
    for name in ("versions", "_deleted", "docs"):
        write_tree(tmp_path / name, {"a": f"{name} changed\n"})
        (tmp_path / name / "docs" / "b").unlink()
    backup.run()
    backup.assert_all_well()


def test_a_linked_source_is_followed_once(tmp_path: Path) -> None:
    """A source root may itself be a link: it is resolved once, at start; its name is the link's."""
    write_tree(tmp_path / "elsewhere", {"a": "a\n"})
    (tmp_path / "docs").symlink_to("elsewhere")
    backup = Backup(tmp_path, make_sources=False)
    backup.run()
    assert backup.names() == ["a"]
    assert "docs/a" in backup.entries()
