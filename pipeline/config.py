"""The configuration: what `config.toml` says, with `--set` over it, checked once and frozen.

In: the file's name and the `--set KEY=VALUE` texts. Out: one `Config` with absolute paths.
Guarantees: a `Config` that exists is valid as far as that can be told without looking at the sources.
Fails with `ConfigError` only: it names the file (or `--set`), the key, what is wrong and what would be right.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

import msgspec
from msgspec import Meta, Struct

from pipeline.filters import Line, compile_pattern
from pipeline.model import treepath
from pipeline.model.errors import ConfigError
from pipeline.retention import NotNegative, Override, Retention
from pipeline.toml import toml_text
from pipeline.workers import Engine, Workers, mistake_in

HashAlgorithm = Literal["blake3", "sha256", "xxh3_128"]
HASH_ALGORITHMS: tuple[str, ...] = get_args(HashAlgorithm)
Durability = Literal["full", "fast"]
Trust = Literal["content", "stat"]
DuplicateAction = Literal["copy", "hardlink", "reflink"]
WatchBackend = Literal["auto", "native", "polling"]
NewlyExcluded = Literal["keep", "archive"]
Seconds = Annotated[float, Meta(ge=0)]


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder to back up. path: absolute, its links not resolved. name: starts its tree paths."""

    path: Path
    name: str


class Detect(Struct, frozen=True, forbid_unknown_fields=True):
    """trust: read every file (`content`), or only what its `lstat` says may have changed (`stat`)."""

    trust: Trust = "content"


class Duplicates(Struct, frozen=True, forbid_unknown_fields=True):
    """action: how a duplicate is stored: as a copy, or sharing what is stored of its original.
    min_size: files with fewer bytes are never duplicates."""

    action: DuplicateAction = "copy"
    min_size: NotNegative = 1


class Filters(Struct, frozen=True, forbid_unknown_fields=True):
    """exclude, include: gitignore patterns, matched below each source; what an `include` matches comes back
    from an `exclude`, unless a folder above it is left out. exclude_if_present: names. max_file_size: in
    bytes, and so are those of exclude_larger_than, by pattern. on_newly_excluded: what becomes of what is
    stored of a path that is excluded now."""

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    one_file_system: bool = False
    max_file_size: NotNegative = 0
    exclude_larger_than: dict[str, NotNegative] = msgspec.field(default_factory=dict)
    on_newly_excluded: NewlyExcluded = "keep"


class Safety(Struct, frozen=True, forbid_unknown_fields=True):
    max_delete_percent: Annotated[int, Meta(ge=0, le=100)] = 50


class Watch(Struct, frozen=True, forbid_unknown_fields=True):
    """debounce_seconds: how long a path must have been quiet; max_delay_seconds: when it is taken at the
    latest; delete_delay_seconds: how long it must have been missing; rescan_minutes: between full runs."""

    debounce_seconds: Seconds = 1.0
    max_delay_seconds: Seconds = 30.0
    delete_delay_seconds: Seconds = 3.0
    rescan_minutes: Annotated[float, Meta(ge=0.1)] = 60.0
    backend: WatchBackend = "auto"


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """skips: a line for every unchanged file."""

    skips: bool = False


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration, every path absolute. file: where it was read from. set_keys: what `--set` says
    over it."""

    file: Path
    sources: tuple[Source, ...]
    backup_root: Path
    log_dir: Path
    hash_algorithm: HashAlgorithm
    durability: Durability
    detect: Detect
    retention: Retention
    duplicates: Duplicates
    filters: Filters
    workers: Workers
    safety: Safety
    watch: Watch
    log: Log
    set_keys: frozenset[str] = frozenset()

    @property
    def patterns(self) -> tuple[Line, ...]:
        """`exclude` and `include` as lines of one gitignore file: the last one that matches decides."""
        return (
            *(Line(text, self._where("exclude", n)) for n, text in enumerate(self.filters.exclude)),
            *(Line(f"!{text}", self._where("include", n)) for n, text in enumerate(self.filters.include)),
        )

    @property
    def size_patterns(self) -> tuple[tuple[Line, int], ...]:
        """`exclude_larger_than`, in the order in which it is written."""
        limits = self.filters.exclude_larger_than.items()
        return tuple((Line(text, self._where("exclude_larger_than", text)), size) for text, size in limits)

    def _where(self, key: str, item: int | str) -> str:
        key, was_set = f"filters.{key}", any(_is_part(f"filters.{key}", known) for known in self.set_keys)
        return f"{'--set' if was_set else self.file.name}: {key}[{toml_text(item)}]"


class _SourceTable(Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    name: str | None = None


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written: what `Config` is made from."""

    sources: tuple[str, ...] | None = None
    source: tuple[_SourceTable, ...] | None = None
    backup_root: str = "backup"
    log_dir: str = "logs"
    hash_algorithm: HashAlgorithm = "blake3"
    durability: Durability = "full"
    detect: Detect = Detect()
    retention: Retention = Retention()
    duplicates: Duplicates = Duplicates()
    filters: Filters = Filters()
    workers: Workers = Workers()
    safety: Safety = Safety()
    watch: Watch = Watch()
    log: Log = Log()


_TABLES: dict[str, type[Struct]] = {
    table.__name__.lower(): table
    for table in (Detect, Retention, Duplicates, Filters, Workers, Safety, Watch, Log)
}
_CHOICES = {
    "hash_algorithm": get_args(HashAlgorithm),
    "durability": get_args(Durability),
    "detect.trust": get_args(Trust),
    "duplicates.action": get_args(DuplicateAction),
    "filters.on_newly_excluded": get_args(NewlyExcluded),
    "watch.backend": get_args(WatchBackend),
    "workers.engine": get_args(Engine),
}
_SOURCE_EXAMPLE = 'source = [{ path = "data", name = "documents" }]'
_OVERRIDE_EXAMPLE = 'retention.override = [{ pattern = "*.log", max_age_days = 7 }]'
_LISTS: dict[str, type[Struct]] = {"source": _SourceTable, "retention.override": Override}
"""Tables that may be there several times."""
_EXAMPLES = {
    "sources": 'sources = ["data"]',
    "source": _SOURCE_EXAMPLE,
    "source.path": _SOURCE_EXAMPLE,
    "source.name": _SOURCE_EXAMPLE,
    "retention.override": _OVERRIDE_EXAMPLE,
    "workers.address": 'workers = { engine = "dask", address = "tcp://scheduler:8786" }',
    "filters.exclude": 'filters.exclude = ["*.tmp", "cache/"]',
    "filters.include": 'filters.include = ["keep.tmp"]',
    "filters.exclude_larger_than": 'filters.exclude_larger_than = { "*.iso" = 4000000000 }',
    "filters.exclude_if_present": 'filters.exclude_if_present = [".nobackup"]',
}
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text in quotes",
    "array": "a list, in [ ]",
    "object": "a table of keys",
}


class _Reader:
    """What was written, and where, so that a mistake can be put down to its place."""

    def __init__(self, file: Path, settings: Sequence[str]) -> None:
        self.file = file
        self.data = _read(file)
        self.set_keys: set[str] = set()
        for setting in settings:
            self._set(setting)

    def fail(self, key: str, wrong: str, example: str | None = None) -> NoReturn:
        """Raise the error for a dotted key, which may have list indices in it."""
        plain = re.sub(r"\[\d+\]", "", key)
        was_set = any(_is_part(plain, k) or _is_part(k, plain) for k in self.set_keys)
        place = "--set" if was_set else str(self.file)
        raise ConfigError(place, key, wrong, _example(plain) if example is None else example)

    def value(self, key: str) -> object:
        """What was written at a dotted key; None where nothing was."""
        value: Any = self.data
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict):
                value = value.get(part)
            else:
                return None
        return value

    def _set(self, setting: str) -> None:
        key, equals, text = setting.partition("=")
        key = key.strip()
        parts = key.split(".")
        if not equals or not all(parts):
            wrong = f"{toml_text(setting)} is not of the form KEY=VALUE"
            raise ConfigError("--set", key or "KEY", wrong, "--set retention.max_versions_per_file=3")
        table = self.data
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                wrong = f"{part} is {toml_text(table)}, so nothing inside it can be set"
                raise ConfigError("--set", key, wrong, _example(parts[0]))
        table[parts[-1]] = _value(text)
        # Both say what the sources are: one that is set takes the place of the other in the file.
        other = {"sources": "source", "source": "sources"}.get(key)
        if other is not None and other not in self.set_keys:
            self.data.pop(other, None)
        self.set_keys.add(key)


def load(file: Path | None, settings: Sequence[str]) -> Config:
    """The configuration in `file` (`config.toml` in the current folder without one), settings over it."""
    reader = _Reader(file or Path("config.toml"), settings)
    document = _document(reader)
    _check(document, reader)
    folder = reader.file.absolute().parent
    return Config(
        file=reader.file.absolute(),
        sources=_sources(document, reader, folder),
        backup_root=_path(document.backup_root, "backup_root", reader, folder),
        log_dir=_path(document.log_dir, "log_dir", reader, folder),
        hash_algorithm=document.hash_algorithm,
        durability=document.durability,
        detect=document.detect,
        retention=document.retention,
        duplicates=document.duplicates,
        filters=document.filters,
        workers=_placed(document.workers, folder),
        safety=document.safety,
        watch=document.watch,
        log=document.log,
        set_keys=frozenset(reader.set_keys),
    )


def settings_of(config: Config) -> Iterator[tuple[str, object]]:
    """Every dotted key below the sources with its value, in the order of the file."""
    for key in ("backup_root", "log_dir", "hash_algorithm", "durability"):
        yield key, getattr(config, key)
    for table in _TABLES:
        for key, value in msgspec.to_builtins(getattr(config, table)).items():
            yield f"{table}.{key}", value


def _read(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        wrong = f"can't be read: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            wrong = "there is no such file; write one, or name another one with --config"
        raise ConfigError(str(file), "--config", wrong, "python -m pipeline run --config my.toml") from None
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line, what = content[: error.start].count(b"\n") + 1, "holds a byte that isn't UTF-8"
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line, what = int(found[1]) if found else len(content.splitlines()), str(error)
    raise ConfigError(str(file), f"line {line}", f"not valid TOML: {what}", 'backup_root = "backup"')


def _value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in the text could smuggle in further keys.
    return parsed["value"] if len(parsed) == 1 else text


def _document(reader: _Reader) -> _Document:
    try:
        return msgspec.convert(reader.data, _Document)
    except msgspec.ValidationError as error:
        _fail_invalid(reader, str(error))


def _fail_invalid(reader: _Reader, told: str) -> NoReturn:
    """What msgspec says about a value, in our words."""
    message, _, where = told.partition(" - at `$")
    at = where.rstrip("`").lstrip(".")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        _fail_unknown(reader, at, found[1])
    if found := re.fullmatch(r"Object missing required field `(.*)`", message):
        reader.fail(f"{at}.{found[1]}", "is missing")
    given = toml_text(reader.value(at))
    if message.startswith("Invalid enum value"):
        reader.fail(at, f"must be {_one_of(_CHOICES[at])}, not {given}")
    if found := re.fullmatch(r"Expected `(\w+)` ([<>]=) (\S+)", message):
        bound = "at least" if found[2] == ">=" else "at most"
        reader.fail(at, f"must be {bound} {float(found[3]):g}, not {given}")
    if found := re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got .*", message):
        reader.fail(at, f"must be {_TYPE_NAMES.get(found[1], found[1])}, not {given}")
    reader.fail(at, f"{message}: {given}")


def _fail_unknown(reader: _Reader, at: str, name: str) -> NoReturn:
    """The nearest known key: first among those of the same table, then of all tables."""
    table = re.sub(r"\[\d+\]", "", at)
    prefix = f"{table}." if table else ""
    siblings = {**_TABLES, **_LISTS}.get(table, _Document).__struct_fields__
    names = {
        field: f"{table}.{field}" for table, struct in _TABLES.items() for field in struct.__struct_fields__
    }
    key = f"{at}.{name}" if at else name
    import difflib  # only where there is something to tell

    if near := difflib.get_close_matches(name, siblings, n=1):
        reader.fail(key, f"unknown key; did you mean {prefix}{near[0]}?", _example(prefix + near[0]))
    if near := difflib.get_close_matches(name, names, n=1):
        reader.fail(key, f"unknown key; did you mean {names[near[0]]}?", _example(names[near[0]]))
    reader.fail(key, f"unknown key; known here: {', '.join(siblings)}", _example(prefix + siblings[0]))


def _check(document: _Document, reader: _Reader) -> None:
    """What the types alone don't say."""
    for name, value in msgspec.structs.asdict(document.watch).items():
        if isinstance(value, float) and not math.isfinite(value):
            reader.fail(f"watch.{name}", f"must be finite, not {value}")
    for key in ("exclude", "include"):
        for number, line in enumerate(getattr(document.filters, key)):
            if not _is_pattern(line):
                reader.fail(f"filters.{key}[{number}]", f"{toml_text(line)} is not a gitignore pattern")
            if key == "include" and line.startswith("!"):
                wrong = f"{toml_text(line)}: what is not to come back belongs into filters.exclude"
                reader.fail(f"filters.include[{number}]", wrong)
    for text in document.filters.exclude_larger_than:
        if text.startswith("!") or not _is_pattern(text):
            wrong = f"{toml_text(text)} is not a gitignore pattern of what may be large"
            reader.fail("filters.exclude_larger_than", wrong)
    for number, name in enumerate(document.filters.exclude_if_present):
        if not treepath.is_name(os.fsencode(name)):
            wrong = f"must be the name of a file, not {toml_text(name)}"
            reader.fail(f"filters.exclude_if_present[{number}]", wrong)

    if (mistake := mistake_in(document.workers)) is not None:
        reader.fail(*mistake)


def _placed(workers: Workers, folder: Path) -> Workers:
    """A scheduler's file lies relative to the configuration."""
    if not workers.address_is_path:
        return workers
    return msgspec.structs.replace(workers, address=os.fspath(folder / workers.address))


def _is_pattern(text: str) -> bool:
    try:
        compile_pattern(Line(text, ""))
    except ValueError:
        return False
    return True


def _sources(document: _Document, reader: _Reader, folder: Path) -> tuple[Source, ...]:
    if document.sources is not None and document.source is not None:
        reader.fail("sources", "sources and [[source]] are both there; keep one of them")
    if document.sources is None and document.source is None:
        reader.fail("sources", "is missing: nothing says what to back up")
    if document.source is not None:
        written = [(f"source[{i}]", f"source[{i}].path", s) for i, s in enumerate(document.source)]
    else:
        listed = enumerate(document.sources or ())
        written = [(f"sources[{i}]", f"sources[{i}]", _SourceTable(path)) for i, path in listed]
    if not written:
        reader.fail(
            "sources" if document.source is None else "source", "is empty: there is nothing to back up"
        )
    sources: list[Source] = []
    for key, path_key, table in written:
        path = _path(table.path, path_key, reader, folder)
        name = table.name if table.name is not None else Path(os.path.abspath(path)).name  # noqa: PTH100
        if table.name is None and not name:
            reader.fail(path_key, f"{toml_text(path)} has no name of its own; give it one", _SOURCE_EXAMPLE)
        if not treepath.is_name(os.fsencode(name)) or len(os.fsencode(name)) > 255:
            wrong = f"must be one plain folder name, not {toml_text(name)}"
            reader.fail(f"{key}.name", wrong, _SOURCE_EXAMPLE)
        if any(name == earlier.name for earlier in sources):
            example = 'source = [{ path = "a/data", name = "a" }, { path = "b/data", name = "b" }]'
            reader.fail(key, f"two sources are called {toml_text(name)}; give one a name of its own", example)
        sources.append(Source(path, name))
    return tuple(sources)


def _path(text: str, key: str, reader: _Reader, folder: Path) -> Path:
    if not text or "\0" in text:
        reader.fail(key, f"must be a path, not {toml_text(text)}")
    return folder / text


def _example(key: str) -> str:
    """A right line for a known key, made from its default; for a table, for its first key."""
    if key in _EXAMPLES:
        return _EXAMPLES[key]
    if key.startswith("retention.override."):
        return _OVERRIDE_EXAMPLE
    if key in _TABLES:
        return _example(f"{key}.{_TABLES[key].__struct_fields__[0]}")
    table, _, name = key.rpartition(".")
    default = getattr(_TABLES[table]() if table in _TABLES else _Document(), name, None)
    return f"{key} = {toml_text(default)}" if default is not None else ""


def _is_part(key: str, whole: str) -> bool:
    """Whether `key` is `whole` or lies inside it."""
    return key == whole or key.startswith(f"{whole}.")


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(map(toml_text, choices[:-1])), toml_text(choices[-1]))))
