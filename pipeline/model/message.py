"""What the stations send each other: the one page where the fields of the line's batches are explained.

Scanner → worker, a batch of items in scan order:

| tag     | fields                                             | meaning                                   |
|---------|----------------------------------------------------|-------------------------------------------|
| INSIDE  | folder path                                        | the folder of the names that follow       |
| FILE    | name, record                                       | a regular file was listed                 |
| LINK    | name, stat, target, record, attributes             | a symbolic link                           |
| SPECIAL | name, stat, record, attributes                     | a fifo, socket or device; never opened    |
| FOLDER  | path, stat, record, attributes                     | a folder; its content follows             |
| FOLDER, LINK, SPECIAL | one more: why                        | these are not all of its attributes       |
| MISSING | path, kind                                         | in the state, not in the tree             |
| ABSENT  | path                                               | the same, but not yet to count as deleted |
| EXCLUDED | path, kind                                        | in the state, left out by now: as deleted |
| LEFT_OUT | path, kind, why (only where somebody wants to see each) | an entry that a rule leaves out      |
| PROBLEM | path, cause, severity                              | could not be read; nothing below it is    |
| GONE    | path                                               | vanished between listing and opening      |

`record` is a row of the state as a list (`Record`'s order) or None, `stat` a list in `Stat`'s order,
`attributes` are extended attributes as `model.attributes` packs them.

Worker → committer, the results of a batch in the same order; what is unchanged is only counted:

| tag       | fields                                                                         |
|-----------|--------------------------------------------------------------------------------|
| FOUND     | path, kind, stat, digest, target, unsettled, known, damage, staged, staged inode, \
                warning, attributes                                                            |
| UNCHANGED | path (only where somebody wants to see every one)                              |
| MISSING, ABSENT, EXCLUDED, LEFT_OUT, PROBLEM, GONE | as above                              |
| FATAL     | cause: the backup side can't be written; the run stops                         |

Lister → restorer or verifier: the same tags, with what the state holds in place of what was found. `held` is
a row of `Held` without its path.

| tag     | fields                                             | meaning                                   |
|---------|----------------------------------------------------|-------------------------------------------|
| INSIDE  | folder path                                        | as above                                  |
| FILE, LINK, SPECIAL | name, held                             | what a run held                           |
| FOLDER  | path, held                                         | the same of a folder; its content follows |
| VERSION | path, row of `Version`                             | an older content                          |
| STRAY   | backup path                                        | a file in the backup that nothing names   |
| PROBLEM | path, cause, severity                              | the state can't be right here             |
| POSITION | path                                              | all up to here has been listed            |

Restorer or verifier → the view, in the same order:

| tag     | fields                                             | meaning                                   |
|---------|----------------------------------------------------|-------------------------------------------|
| FOLDER  | as above                                           | its content follows                       |
| DONE    | path, action, reason, backup path                  | only where somebody wants to see each     |
| NAME    | path, held                                         | another name of a file that came before   |
| WRONG   | what, backup path, path, cause, size, digest, repairable | a stored file that isn't right      |
| STRAY   | backup path, size, digest                          | the same file, read                       |
| POSITION | as above                                          |                                           |
| STORED  | backup path, kind, stat, digest, target, attributes | what lies in a backup, whatever the state |
| TALLY   | name of a figure, number                           | to be added up                            |
| PROBLEM, FATAL | as above                                    |                                           |

`known`: whether the state had a record. `damage`: None, `gone` or `changed`, of the stored file. `staged`:
the name in `staging/`, or None. Both are MessagePack arrays; a frame's header carries the batch's number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

INSIDE, FILE, LINK, SPECIAL, FOLDER, MISSING, PROBLEM, GONE, FOUND, UNCHANGED, FATAL, \
    VERSION, STRAY, DONE, WRONG, TALLY, POSITION, STORED, ABSENT, NAME, EXCLUDED, \
    LEFT_OUT = range(22)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Results(NamedTuple):
    """A batch's figures and its results. files: regular files in it. unchanged: files and links alike."""

    files: int
    unchanged: int
    specials: int
    bytes_read: int
    bytes_stored: int
    items: list[list[Any]]


def decode_items(payload: bytes | bytearray | memoryview) -> list[list[Any]]:
    items: list[list[Any]] = _decode(payload)
    return items


_decode_words = msgspec.msgpack.Decoder(tuple[str, str]).decode


def decode_words(payload: bytes) -> tuple[str, str]:
    """A child's last words: cause and advice."""
    return _decode_words(payload)


_decode_results = msgspec.msgpack.Decoder(Results).decode


def decode_results(payload: bytes | bytearray | memoryview) -> Results:
    return _decode_results(payload)
