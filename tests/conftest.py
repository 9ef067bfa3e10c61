"""Fixtures for all tests: an empty backup, one with a past, one whose program can't read everything."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Backup
from with_past import make_past

IN_MEMORY = Path("/dev/shm")
# A backup syncs all the time, and most tests are about something else than the disk under it.
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without folder handles, what needs them is skipped: `pytest -m handles --collect-only` lists it."""
    if os.environ.get("PIPELINE_PORTABLE") == "1":
        for item in items:
            if item.get_closest_marker("handles") is not None:
                item.add_marker(pytest.mark.skip(reason="needs folder handles"))


@pytest.fixture(scope="session", autouse=True)
def byte_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calls of the program find their byte code again, outside the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = folder.parent  # what one has compiled, the others needn't
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "byte_code"))
        yield


@pytest.fixture
def alone() -> Iterator[None]:
    """For tests that change a setting of the whole system, or would be disturbed by one that does: one at a
    time, whichever process they are in."""
    with (Path(tempfile.gettempdir()) / "alone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    """One source `docs`, nothing in it yet."""
    return Backup(tmp_path / "one")


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Four runs that tests only look at: made once for all of them."""
    return make_past(tmp_path_factory.mktemp("past"))


@pytest.fixture
def user_backup(tmp_path: Path) -> Backup:
    """As `backup`, but the program can't read everything, also when root runs the tests."""
    backup = Backup(tmp_path / "user")
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, and setpriv is missing here")
        backup.restricted = True
    return backup
