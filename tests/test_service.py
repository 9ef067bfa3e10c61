"""The unit for systemd in the README: it is accepted, it starts, it says what it does, it stops well."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import REPOSITORY, wait_until

NAME = "backup.service"
BOOTED = Path("/run/systemd/system")
"""Where it exists, the machine runs systemd (sd_booted(3)), and a user's instance begins."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as the README's unit expects it: the program in `backup-pipeline`, a configuration, files."""
    python = tmp_path / "backup-pipeline/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    units = tmp_path / ".config/systemd/user"
    units.mkdir(parents=True)
    readme = (REPOSITORY / "README.md").read_text()
    (units / NAME).write_text(readme.partition("```ini\n")[2].partition("```")[0])
    (tmp_path / ".config/backup.toml").write_text(
        f'sources = ["{tmp_path}/files"]\nbackup_root = "{tmp_path}/backup"\nlog_dir = "{tmp_path}/logs"\n'
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "files/text").write_text("text")
    return tmp_path


def unit(home: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(home / ".config/systemd/user" / NAME)
    return parser


def test_its_command_is_one_that_works(home: Path) -> None:
    """What the unit starts keeps a backup current, and ends well at SIGTERM, as systemd sends it."""
    service = unit(home)["Service"]
    assert service["Type"] == "notify"
    words = shlex.split(service["ExecStart"].replace("%h", str(home)))
    with subprocess.Popen(words, cwd=service["WorkingDirectory"].replace("%h", str(home))) as process:
        try:
            assert wait_until(lambda: (home / "backup/text").exists())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_it(home: Path) -> None:
    """No unknown setting, no missing file."""
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", home / ".config/systemd/user" / NAME],
        env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in checked.stderr.splitlines() if NAME in line]
    assert not ours


@pytest.fixture
def manager(home: Path) -> Iterator[dict[str, str]]:
    """A user's instance of systemd of its own. Out: the environment in which `systemctl` speaks to it."""
    systemd = Path("/lib/systemd/systemd")
    if not systemd.exists() or shutil.which("systemctl") is None:
        pytest.skip("systemd is not installed")
    made = not BOOTED.exists()
    if made and os.geteuid() != 0:
        pytest.skip("this machine doesn't run systemd, and only root could pretend that it does")
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    if made:
        BOOTED.mkdir(parents=True)
    try:
        with (
            (home / "systemd.log").open("wb") as log,
            subprocess.Popen(
                [systemd, "--user", "--log-target=console"], env=environment, stdout=log, stderr=log
            ) as process,
        ):
            socket = runtime / "systemd/private"
            if not wait_until(lambda: socket.exists() or process.poll() is not None, 10) or process.poll():
                pytest.skip(
                    f"no instance of systemd can be started here: {(home / 'systemd.log').read_text()}"
                )
            yield environment
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    finally:
        if made:
            BOOTED.rmdir()


@pytest.mark.slow
def test_it_runs_under_systemd(home: Path, manager: dict[str, str]) -> None:
    """It counts as started when it says so, shows what it did last, and stops without a failure."""

    def systemctl(*words: str) -> str:
        done = subprocess.run(
            ["systemctl", "--user", "--no-pager", *words],
            env=manager,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    assert systemctl("start", NAME) == ""
    assert "ActiveState=active" in systemctl("show", NAME)
    assert wait_until(lambda: "StatusText=Run 1: 1 new" in systemctl("show", NAME))
    (home / "files/more").write_text("more")
    assert wait_until(lambda: "StatusText=Run 2: 1 new" in systemctl("show", NAME))
    assert systemctl("stop", NAME) == ""
    assert "Result=success" in systemctl("show", NAME)
