"""Configuration mistakes: exit 2, with the file, the key, what was wrong and an example of what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Backup

GOOD = {"sources": '["docs"]', "backup_root": '"backup"', "log_dir": '"logs"'}


def config_text(**changes: str | None) -> str:
    """A good configuration with changed top-level keys (None leaves one out); `tables` comes last."""
    tables = changes.pop("tables", None) or ""
    keys = {**GOOD, **changes}
    return "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None) + tables


MISTAKES = {
    "unknown key": (config_text(colour='"red"'), "colour"),
    "unknown table": (config_text(tables="[colours]\nred = 1\n"), "colours"),
    "unknown key in a table": (config_text(tables="[retention]\nmax_version = 3\n"), "max_version"),
    "no sources": (config_text(sources=None), "sources"),
    "empty sources": (config_text(sources="[]"), "sources"),
    "sources of a wrong type": (config_text(sources="3"), "sources"),
    "a source of a wrong type": (config_text(sources='["docs", 3]'), "sources"),
    "an empty backup root": (config_text(backup_root='""'), "backup_root"),
    "unknown algorithm": (config_text(hash_algorithm='"md5"'), "hash_algorithm"),
    "unknown durability": (config_text(durability='"none"'), "durability"),
    "text for a number": (config_text(tables='[workers]\ncount = "two"\n'), "count"),
    "negative workers": (config_text(tables="[workers]\ncount = -1\n"), "count"),
    "negative limit": (config_text(tables="[retention]\nmax_versions_per_file = -1\n"), "max_versions"),
    "more than all": (config_text(tables="[safety]\nmax_delete_percent = 101\n"), "max_delete_percent"),
    "number for a switch": (config_text(tables="[log]\nskips = 1\n"), "skips"),
    "unknown trust": (config_text(tables='[detect]\ntrust = "luck"\n'), "trust"),
    "pattern of a wrong type": (config_text(tables='[filters]\nexclude = "*.tmp"\n'), "exclude"),
    "a source without a path": (config_text(sources=None, tables='[[source]]\nname = "x"\n'), "source"),
    "an unknown source key": (
        config_text(sources=None, tables='[[source]]\npath = "docs"\nnam = "x"\n'), "nam",
    ),
    "a source name with a slash": (
        config_text(sources=None, tables='[[source]]\npath = "docs"\nname = "a/b"\n'), "name",
    ),
    "both ways to name sources": (config_text(tables='[[source]]\npath = "docs"\n'), "source"),
    "not TOML": ("sources = [\n", "line"),
    "not UTF-8": ('sources = ["\udcff"]\n', ""),
}  # fmt: skip


@pytest.fixture
def written(backup: Backup) -> Backup:
    backup.write({"a": "a\n"})
    return backup


OFTEN = {"unknown key in a table", "no sources", "unknown algorithm", "not TOML", "not UTF-8"}
"""Mistakes that are tried in every test run; the others are slow for being so many."""


@pytest.mark.parametrize(
    "mistake", [pytest.param(m, marks=() if m in OFTEN else pytest.mark.slow) for m in MISTAKES]
)
def test_a_mistake_is_explained(written: Backup, mistake: str) -> None:
    """A configuration mistake: exit 2, naming the file and the key; nothing is made."""
    text, key = MISTAKES[mistake]
    written.config.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = written.call("config", "check", expect=2)
    assert "config.toml" in result.stderr and key in result.stderr, result.stderr
    assert not written.root.exists() and not written.logs.exists()


def test_run_refuses_what_the_check_refuses(written: Backup) -> None:
    """A run with a configuration mistake: exit 2, nothing touched."""
    written.config.write_text(config_text(tables="[retention]\nmax_version = 3\n"))
    result = written.run(expect=2)
    assert "config.toml" in result.stderr and "max_version" in result.stderr
    assert not written.root.exists() and not written.logs.exists()


def test_config_check_accepts_what_is_right(written: Backup) -> None:
    """`config check` of a right configuration: exit 0, nothing touched."""
    every_key = (
        '[detect]\ntrust = "stat"\n[retention]\nmax_versions_per_file = 0\n[duplicates]\naction = "copy"\n'
        'min_size = 1\n[filters]\nexclude = ["*.tmp"]\n[workers]\ncount = 0\n'
        "[safety]\nmax_delete_percent = 50\n[watch]\ndebounce_seconds = 1.0\n[log]\nskips = false\n"
    )
    written.config.write_text(config_text(hash_algorithm='"sha256"', durability='"fast"', tables=every_key))
    written.call("config", "check")
    assert not written.root.exists() and not written.logs.exists()


@pytest.mark.parametrize(
    "setting",
    ["retention.max_version=3", "retention.max_versions_per_file=many", "nonsense", "log=true", "=1"],
)
def test_a_mistake_in_a_setting(written: Backup, setting: str) -> None:
    """`--set` is checked as the file is: exit 2, naming the key."""
    result = written.run("--set", setting, expect=2)
    assert setting.partition("=")[0] in result.stderr
    assert not written.root.exists()


@pytest.mark.parametrize("arguments", [("run", "--no-such-option"), ("no-such-command",), ("run", "stray")])
def test_bad_usage(written: Backup, arguments: tuple[str, ...]) -> None:
    """Bad usage: exit 2, nothing touched."""
    written.call(*arguments, expect=2)
    assert not written.root.exists()


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A configuration file that isn't there is a configuration mistake: exit 2, naming it."""
    backup = Backup(tmp_path)
    backup.config.unlink()
    result = backup.run(expect=2)
    assert "config.toml" in result.stderr


def test_another_hash_algorithm_is_refused(written: Backup) -> None:
    """`hash_algorithm` is recorded at the first run; another one later is refused, exit 2, naming the key."""
    written.run()
    before = written.tree()
    result = written.run("--set", 'hash_algorithm="sha256"', expect=2)
    assert "hash_algorithm" in result.stderr and "blake3" in result.stderr
    assert written.tree() == before
    written.run()
    written.assert_right()
