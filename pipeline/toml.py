"""Values as they would be written in TOML. Pure: in, a value; out, one printable line that means the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePath


def toml_text(value: object) -> str:
    """A value as it would be written in TOML, always one printable line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, PurePath)):
        text = str(value)
        return json.dumps(text, ensure_ascii=not text.isprintable()).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {toml_text(inner)}" for key, inner in value.items())
        return f"{{{', '.join(pairs)}}}"
    return str(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_text(key)
