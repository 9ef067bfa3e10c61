"""Configuration: what is read, what is set over it, and how every mistake is told."""

from __future__ import annotations

import os
import tomllib
from functools import partial
from pathlib import Path

import pytest

from pipeline import workers
from pipeline.config import Config, load, settings_of
from pipeline.model.errors import ConfigError, ExitCode
from pipeline.toml import toml_text
from pipeline.ui import commands


def written(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def read(folder: Path, text: str, *settings: str) -> Config:
    return load(written(folder, text), settings)


def test_defaults(tmp_path: Path) -> None:
    """A file that only says what to back up has the documented default for everything else."""
    config = read(tmp_path, 'sources = ["data"]')
    assert config.file == tmp_path / "config.toml"
    assert [(source.path, source.name) for source in config.sources] == [(tmp_path / "data", "data")]
    assert dict(settings_of(config)) == {
        "backup_root": tmp_path / "backup",
        "log_dir": tmp_path / "logs",
        "hash_algorithm": "blake3",
        "durability": "full",
        "detect.trust": "content",
        "retention.max_versions_per_file": 10,
        "retention.max_age_days": 0,
        "retention.keep_daily": 0,
        "retention.keep_weekly": 0,
        "retention.keep_monthly": 0,
        "retention.keep_yearly": 0,
        "retention.deleted_max_age_days": 0,
        "retention.max_versions_bytes": 0,
        "retention.override": (),
        "duplicates.action": "copy",
        "duplicates.min_size": 1,
        "filters.exclude": (),
        "filters.include": (),
        "filters.exclude_caches": False,
        "filters.exclude_if_present": (),
        "filters.one_file_system": False,
        "filters.max_file_size": 0,
        "filters.exclude_larger_than": {},
        "filters.on_newly_excluded": "keep",
        "workers.count": 0,
        "workers.engine": "local",
        "workers.address": "",
        "safety.max_delete_percent": 50,
        "watch.debounce_seconds": 1.0,
        "watch.max_delay_seconds": 30.0,
        "watch.delete_delay_seconds": 3.0,
        "watch.rescan_minutes": 60.0,
        "watch.backend": "auto",
        "log.skips": False,
    }


def test_repository_configuration_works() -> None:
    """The repository's own config.toml is right as it stands, logs skips, and else has the defaults."""
    config = load(Path(__file__).parent.parent / "config.toml", ())
    assert [source.name for source in config.sources] == ["project"]
    assert config.log.skips and config.filters.exclude
    defaults = dict(settings_of(load(config.file, ["filters={}", "log={}"])))
    own = dict(settings_of(config))
    assert {key for key in own if own[key] != defaults[key]} == {"filters.exclude", "log.skips"}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths start at the configuration file's folder; links stay unresolved."""
    (tmp_path / "link").symlink_to(tmp_path / "data")
    written(tmp_path, 'sources = ["link", "/else/where"]\nlog_dir = "/var/log"')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    config = load(Path("../config.toml"), ())
    paths = [os.path.normpath(source.path) for source in config.sources]
    assert paths == [str(tmp_path / "link"), "/else/where"]
    assert all(source.path.is_absolute() for source in config.sources)
    assert os.path.normpath(config.backup_root) == str(tmp_path / "backup")
    assert config.log_dir == Path("/var/log")


@pytest.mark.parametrize(
    ("path", "name"), [("data", "data"), ("a/b/", "b"), (".", "here"), ("a/..", "here"), ("/srv/x/../y", "y")]
)
def test_a_source_is_named_after_its_folder(tmp_path: Path, path: str, name: str) -> None:
    """Without a name of its own a source has that of its folder, also where the path ends in dots."""
    folder = tmp_path / "here"
    folder.mkdir()
    assert read(folder, f"sources = [{toml_text(path)}]").sources[0].name == name


def test_without_file_name_config_toml_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `--config` means config.toml in the current folder."""
    written(tmp_path, 'sources = ["data"]')
    monkeypatch.chdir(tmp_path)
    assert load(None, ()).file == tmp_path / "config.toml"


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (["retention.max_versions_per_file=3"], "retention.max_versions_per_file", 3),
        (
            ["retention.max_versions_per_file=3", "retention.max_versions_per_file=4"],
            "retention.max_versions_per_file",
            4,
        ),
        (["retention={max_versions_per_file=5}"], "retention.max_versions_per_file", 5),
        (["hash_algorithm=sha256"], "hash_algorithm", "sha256"),
        (["hash_algorithm='xxh3_128'"], "hash_algorithm", "xxh3_128"),
        (["log.skips=true"], "log.skips", True),
        (["watch.debounce_seconds=2"], "watch.debounce_seconds", 2.0),
        (["backup_root=/a b=c"], "backup_root", Path("/a b=c")),
        (["backup_root=/a\ndurability='fast'"], "backup_root", Path("/a\ndurability='fast'")),
        (['filters.exclude=["*.o", "!keep.o"]'], "filters.exclude", ("*.o", "!keep.o")),
    ],
)
def test_set_goes_over_the_file(tmp_path: Path, settings: list[str], key: str, value: object) -> None:
    """`--set` values are TOML, else plain text; the last one counts, and other keys stay as they are."""
    text = 'sources = ["data"]\nworkers.count = 7\n[retention]\nmax_versions_per_file = 9'
    config = dict(settings_of(read(tmp_path, text, *settings)))
    assert config[key] == value
    assert config["workers.count"] == 7
    assert config["durability"] == "full"


@pytest.mark.parametrize("text", ['sources = ["data"]', '[[source]]\npath = "data"'])
@pytest.mark.parametrize("setting", ['sources=["x/new"]', 'source=[{path="x/new"}]'])
def test_set_sources_take_the_place_of_the_files(tmp_path: Path, text: str, setting: str) -> None:
    """Sources that are set replace those of the file, whichever of the two forms either uses."""
    assert [source.name for source in read(tmp_path, text, setting).sources] == ["new"]


GOOD = 'sources = ["data"]\n'
OVERRIDE = 'retention.override = [{ pattern = "*.log", max_age_days = 7 }]'
CLUSTER = 'workers = { engine = "dask", address = "tcp://scheduler:8786" }'
MISTAKES = [
    # text, key, words in what is wrong, example
    ("", "sources", "missing", 'sources = ["data"]'),
    ("sources = []", "sources", "empty", 'sources = ["data"]'),
    ("source = []", "source", "empty", "source = [{"),
    ('sources = "data"', "sources", 'a list, in [ ], not "data"', 'sources = ["data"]'),
    ("sources = [1]", "sources[0]", "text in quotes, not 1", 'sources = ["data"]'),
    ('sources = [""]', "sources[0]", 'not ""', 'sources = ["data"]'),
    ('sources = ["a"]\n[[source]]\npath = "b"', "sources", "keep one", 'sources = ["data"]'),
    ('sources = ["a/x", "b/x"]', "sources[1]", 'called "x"', "name ="),
    ('sources = ["/"]', "sources[0]", "no name of its own", "name ="),
    ('[[source]]\nname = "a"', "source[0].path", "is missing", "path ="),
    ('[[source]]\npath = "a"\nnme = "a"', "source[0].nme", "did you mean source.name?", "name ="),
    ('[[source]]\npath = "a"\nname = 3', "source[0].name", "text in quotes, not 3", "name ="),
    *(
        (f'[[source]]\npath = "a"\nname = "{name}"', "source[0].name", "plain folder name", "name =")
        for name in ("", ".", "..", "a/b", "a\\u0000", "ä" * 128)
    ),
    (
        GOOD + "retentoin.max_versions_per_file = 1",
        "retentoin",
        "did you mean retention?",
        "retention.max_versions_per_file = 10",
    ),
    (
        GOOD + "retention.max_version_per_file = 1",
        "retention.max_version_per_file",
        "did you mean retention.max_versions_per_file?",
        "retention.max_versions_per_file = 10",
    ),
    (
        GOOD + "max_versions_per_file = 1",
        "max_versions_per_file",
        "did you mean retention.max_versions_per_file?",
        "retention.max_versions_per_file = 10",
    ),
    (GOOD + "qqq = 1", "qqq", "backup_root", 'sources = ["data"]'),
    (GOOD + "retention = 3", "retention", "a table of keys, not 3", "retention.max_versions_per_file = 10"),
    (
        GOOD + "retention.max_versions_per_file = -1",
        "retention.max_versions_per_file",
        "at least 0, not -1",
        "retention.max_versions_per_file = 10",
    ),
    (GOOD + 'workers.count = "many"', "workers.count", 'a whole number, not "many"', "workers.count = 0"),
    (GOOD + "workers.count = true", "workers.count", "a whole number, not true", "workers.count = 0"),
    (GOOD + 'workers.engine = "ray"', "workers.engine", '"local" or "dask"', 'workers.engine = "local"'),
    (GOOD + 'workers.engine = "dask"', "workers.address", "is missing", CLUSTER),
    (GOOD + 'workers.address = "tcp://host:1"', "workers.address", "of a cluster only", CLUSTER),
    (GOOD + 'workers = { engine = "dask", address = "host:1" }', "workers.address", "ends in .json", CLUSTER),
    (
        GOOD + "safety.max_delete_percent = 101",
        "safety.max_delete_percent",
        "at most 100, not 101",
        "safety.max_delete_percent = 50",
    ),
    (GOOD + "duplicates.min_size = -5", "duplicates.min_size", "at least 0", "duplicates.min_size = 1"),
    (
        GOOD + 'duplicates.action = "move"',
        "duplicates.action",
        '"reflink", not "move"',
        'duplicates.action = "copy"',
    ),
    (GOOD + 'hash_algorithm = "md5"', "hash_algorithm", 'not "md5"', 'hash_algorithm = "blake3"'),
    (GOOD + 'durability = "some"', "durability", '"full" or "fast", not "some"', 'durability = "full"'),
    (GOOD + 'detect.trust = "none"', "detect.trust", '"content" or "stat"', 'detect.trust = "content"'),
    (
        GOOD + 'filters.exclude = ["*.o", "!"]',
        "filters.exclude[1]",
        '"!" is not a gitignore pattern',
        "filters.exclude = [",
    ),
    (
        GOOD + "watch.debounce_seconds = -0.5",
        "watch.debounce_seconds",
        "at least 0",
        "watch.debounce_seconds = 1.0",
    ),
    (
        GOOD + "watch.debounce_seconds = nan",
        "watch.debounce_seconds",
        "not nan",
        "watch.debounce_seconds = 1.0",
    ),
    (
        GOOD + "watch.debounce_seconds = inf",
        "watch.debounce_seconds",
        "not inf",
        "watch.debounce_seconds = 1.0",
    ),
    (
        GOOD + "retention.override = [{ max_age_days = 1 }]",
        "retention.override[0].pattern",
        "is missing",
        OVERRIDE,
    ),
    (
        GOOD + 'retention.override = [{ pattern = "a", keep_dayly = 1 }]',
        "retention.override[0].keep_dayly",
        "did you mean retention.override.keep_daily?",
        OVERRIDE,
    ),
    (
        GOOD + 'retention.override = [{ pattern = "a" }]',
        "retention.override[0]",
        'sets no number: {pattern = "a"}',
        OVERRIDE,
    ),
    *(
        (
            GOOD + f'retention.override = [{{ pattern = "{pattern}", max_age_days = 1 }}]',
            "retention.override[0]",
            "its pattern matches nothing",
            OVERRIDE,
        )
        for pattern in ("", "# a", "!a")
    ),
    (GOOD + 'log.skips = "yes"', "log.skips", 'true or false, not "yes"', "log.skips = false"),
    (GOOD + 'backup_root = ""', "backup_root", 'not ""', 'backup_root = "backup"'),
    (GOOD + "log_dir = 2026-01-02", "log_dir", "text in quotes, not 2026-01-02", 'log_dir = "logs"'),
    ('sources = ["data"]\nbackup_root = \n', "line 2", "not valid TOML", 'backup_root = "backup"'),
    ('sources = ["data"]\na = [1,\n\n', "line 3", "not valid TOML", 'backup_root = "backup"'),
]


@pytest.mark.parametrize(("text", "key", "wrong", "example"), MISTAKES)
def test_every_mistake_is_told(tmp_path: Path, text: str, key: str, wrong: str, example: str) -> None:
    """A mistake names the file, the key, what is wrong with which value, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    error = caught.value
    assert error.file == str(tmp_path / "config.toml")
    assert error.key == key
    assert wrong in error.wrong
    assert example in error.example
    assert error.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "example",
    sorted(
        {
            'sources = ["data"]',
            'source = [{ path = "data", name = "documents" }]',
            *(line for *_, line in MISTAKES if line.partition(" = ")[2] and not line.endswith(("[", "[{"))),
        }
    ),
)
def test_examples_are_right(tmp_path: Path, example: str) -> None:
    """What a message gives as an example is accepted when it is written into the file as it stands."""
    read(tmp_path, example if example.startswith("source") else f"{GOOD}{example}")


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("workers.count=-1", "workers.count"),
        ("workers={count=-1}", "workers.count"),
        ("workers.cuont=1", "workers.cuont"),
        ('sources=["/"]', "sources[0]"),
        ("backup_root.x=1", "backup_root.x"),
        ("workers", "workers"),
        ("=1", "KEY"),
        ("workers..count=1", "workers..count"),
    ],
)
def test_a_mistake_that_was_set_names_set(tmp_path: Path, setting: str, key: str) -> None:
    """A mistake in a `--set` is put down to `--set`, not to the file."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'sources = ["data"]\nbackup_root = "b"', setting)
    assert (caught.value.file, caught.value.key) == ("--set", key)
    assert caught.value.example


def test_a_mistake_of_the_file_is_not_put_down_to_set(tmp_path: Path) -> None:
    """A right `--set` doesn't take the blame for a mistake elsewhere."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'sources = ["data"]\nworkers.count = -1', "log.skips=true")
    assert caught.value.file.endswith("config.toml")


def test_where_a_cluster_is(tmp_path: Path) -> None:
    """An address stays as it is; the scheduler's file lies relative to the configuration."""
    address = "tls://scheduler:8786"
    assert (
        read(tmp_path, f'{GOOD}workers = {{ engine = "dask", address = "{address}" }}').workers.address
        == address
    )
    config = read(tmp_path, f'{GOOD}workers = {{ engine = "dask", address = "here/scheduler.json" }}')
    assert config.workers.address == str(tmp_path / "here/scheduler.json")


@pytest.mark.parametrize("json", [False, True])
def test_a_cluster_needs_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], json: bool
) -> None:
    """Where it isn't installed, a run and `config check` say what is to be installed; local workers need
    nothing of it."""
    cluster = read(tmp_path, GOOD + CLUSTER)
    (tmp_path / "data").mkdir()
    check = partial(commands.check, tmp_path / "config.toml", (), json)
    workers.check_installed(cluster.workers, cluster.file)
    assert check() == ExitCode.OK
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'backup-pipeline\[dask\]'"):
        workers.check_installed(cluster.workers, cluster.file)
    capfd.readouterr()
    assert check() == ExitCode.USAGE
    assert "needs a package that isn't installed" in "".join(capfd.readouterr())
    workers.check_installed(read(tmp_path, GOOD).workers, cluster.file)
    assert check() == ExitCode.OK


def test_missing_or_unreadable_file(tmp_path: Path) -> None:
    """A configuration that isn't there, is a folder, or isn't text is a mistake that says what to do."""
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", ())
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path, ())
    (tmp_path / "config.toml").write_bytes(b'sources = ["a"]\n# \xff\n')
    with pytest.raises(ConfigError, match=r"line 2: .*UTF-8"):
        load(tmp_path / "config.toml", ())


@pytest.mark.parametrize("value", ["plain", 'quo"te', "a\\b", "line\nbreak", "\x7f\x85", "ä→", "tab\t"])
def test_values_are_shown_as_toml(tmp_path: Path, value: str) -> None:
    """A value is shown on one printable line that means the same when it is written into a file."""
    text = toml_text(value)
    assert text.isprintable()
    table = tomllib.loads(f"x = {toml_text({value: 1, 'plain-key': [value]})}")["x"]
    assert table == {value: 1, "plain-key": [value]}
    assert read(tmp_path, f"{GOOD}backup_root = {text}").backup_root == tmp_path / value
