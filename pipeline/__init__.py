"""Incremental backup by content hash, kept as ordinary files. Start reading at `pipeline.engine`."""

__version__ = "0.1.0"
