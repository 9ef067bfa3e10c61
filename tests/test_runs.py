"""`runs`: every run is listed as what it was, and one that is at work isn't called interrupted."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from at_work import held_up, many_files
from harness import Backup, end_group


def test_runs_as_json(past: Backup) -> None:
    """One line for each run, oldest first, with its times in UTC and its figures; then the summary."""
    *lines, summary = past.call("runs", "--json").lines
    assert summary == {"type": "summary", "status": "ok", "runs": 4}
    assert [line["run"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line.keys() == {"type", "run", "started", "ended", "seconds", "status", "counts"}
        started, ended = (datetime.fromisoformat(line[name]) for name in ("started", "ended"))
        assert started.tzinfo == UTC and started < ended <= datetime.now(UTC)
        assert line["seconds"] == pytest.approx((ended - started).total_seconds(), abs=0.002)
        assert (line["type"], line["status"]) == ("run", "ok")
    counts = [line["counts"] for line in lines]
    assert (counts[0]["backup"], counts[0]["duplicate"]) == (9, 2)
    assert (counts[1]["modified"], counts[1]["delete"], counts[1]["metadata"]) == (2, 3, 1)
    assert counts[3]["skip"] == counts[3]["files"] + 1


def test_runs_for_people(past: Backup) -> None:
    """What changed is told in words, without what is 0, in aligned columns with titles."""
    titles, *rows = past.call("runs").stdout.splitlines()
    assert re.split(r"  +", titles) == ["run", "started", "took", "status", "what changed"]
    column = titles.index("what changed")
    assert [row[column:] for row in rows] == [
        "9 new, 2 duplicates",
        "2 new, 1 duplicates, 2 modified, 1 other metadata only, 3 deleted, 1 promoted",
        "2 new, 1 modified, 1 other metadata only, 1 deleted",
        "",
    ]


def test_a_run_at_work_and_a_cut_one(tmp_path: Path) -> None:
    """A run that is at work is `running`, and status names it; once killed it is `interrupted` without an
    end, and recovery is due; the next run ends that."""
    backup = many_files(tmp_path)
    with held_up(backup) as process:
        assert backup.call("runs", "--json").lines[0]["status"] == "running"
        found = backup.call("status", "--json").lines[0]
        assert found["lock"]["pid"] == process.pid
        assert datetime.fromisoformat(found["lock"]["start"]).tzinfo == UTC
        assert (found["recovery_due"], found["last_run"]["status"]) == (False, "running")
        assert str(process.pid) in backup.call("status").stdout
        end_group(process)
        process.wait()
    (line, _) = backup.call("runs", "--json").lines
    assert (line["status"], line["ended"], line["seconds"], line["counts"]) == (
        "interrupted",
        None,
        None,
        None,
    )
    found = backup.call("status", "--json").lines[0]
    assert (found["lock"], found["recovery_due"], found["last_completed_run"]) == (None, True, None)
    assert "recovery" in backup.call("status").stdout
    backup.run()
    found = backup.call("status", "--json").lines[0]
    assert (found["recovery_due"], found["last_completed_run"]["run"]) == (False, 2)
