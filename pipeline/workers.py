"""The configuration's table `workers`: who hashes, processes of this machine or the workers of a cluster.

In: what was written there. Out: what is wrong with it, if anything is. Fails with ConfigError where a cluster
is asked for and what speaks to it isn't installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from pipeline.model.errors import ConfigError

Engine = Literal["local", "dask"]


class Workers(Struct, frozen=True, forbid_unknown_fields=True):
    """count: of local ones; 0 stands for as many as there are processors. address: of the cluster's
    scheduler, or the path of the file that it writes its address into; empty for none."""

    count: Annotated[int, Meta(ge=0)] = 0
    engine: Engine = "local"
    address: str = ""

    @property
    def address_is_path(self) -> bool:
        """Whether the address is a path."""
        return bool(self.address) and "://" not in self.address


class Mistake(NamedTuple):
    key: str
    wrong: str


def mistake_in(workers: Workers) -> Mistake | None:
    """What the types alone don't say."""
    key = "workers.address"
    if workers.engine == "local" and workers.address:
        return Mistake(key, "is for the workers of a cluster only")
    if workers.engine == "dask" and not workers.address:
        return Mistake(key, "is missing: nothing says where the cluster's scheduler is")
    if workers.address_is_path and not workers.address.endswith(".json"):
        return Mistake(key, "must be a scheduler's address, or its file, whose name ends in .json")
    return None


def check_installed(workers: Workers, file: Path) -> None:
    """Raises ConfigError, before anything is begun. Nothing is loaded by it."""
    if workers.engine == "dask" and find_spec("distributed") is None:
        wrong = "dask needs a package that isn't installed: pip install 'backup-pipeline[dask]'"
        raise ConfigError(str(file), "workers.engine", wrong, 'workers.engine = "local"')
