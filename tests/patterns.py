"""Gitignore patterns for tests, as the configuration gives them."""

from __future__ import annotations

from pipeline.filters import Line


def lines(*texts: str) -> tuple[Line, ...]:
    return tuple(Line(text, f"config.toml: filters.exclude[{n}]") for n, text in enumerate(texts))
