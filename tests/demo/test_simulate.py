"""A year that is simulated, by its command: it ends as it must, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.stack import ROOT
from sandbox.year_beat import all_ticks
from tests.demo.conftest import demo_environment

SECONDS_MAX = 150
INTERRUPTED = 130


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a simulation, whose home will be in this folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "simulate", *arguments],
        cwd=ROOT,
        env=demo_environment(folder / "h") | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def running_in(folder: Path) -> list[str]:
    """The processes that have to do with this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join((*process.cmdline(), *process.environ().values())):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_three_months_end_as_they_must(short_dir: Path) -> None:
    """Every fee and reset of who is steady, statements without a gap, in tables of 80 columns; and nothing is left."""
    result = short_dir / "result.json"

    with start(short_dir, "--months", "3", "--customers", "12", "--seed", "7", "--json", str(result)) as process:
        said, _ = process.communicate(timeout=SECONDS_MAX)

    assert process.returncode == 0, said
    document: dict[str, Any] = json.loads(result.read_text())
    assert document["difference_list"] == []
    steady = document["steady_customers"]
    assert steady == 9
    assert (document["fees_of_steady"], document["resets_of_steady"]) == (3 * steady, 3 * steady)
    assert set(document["audit"].values()) == {0}
    assert len(document["zones"]) == 6
    assert [one["month"] for one in document["by_month"]] == ["2027-07", "2027-08", "2027-09"]
    assert document["ticks_said"].keys() == set(all_ticks())
    for name in ("events", "fees_collected", "statements"):
        assert sum(one[name] for one in document["by_month"]) > 0, name
    lines = said.splitlines()
    assert lines[-1] == f"{steady} steady customers: 3 fees and 3 resets each, 0 differences"
    assert max(map(len, lines)) <= 80
    assert [path.name for path in short_dir.iterdir()] == ["result.json"]
    assert running_in(short_dir) == []


def test_who_interrupts_it_is_left_with_nothing(short_dir: Path) -> None:
    """Ctrl-C while months go by."""
    with start(short_dir, "--months", "12", "--customers", "12") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "2027-07:" in line:
                break
        assert running_in(short_dir)

        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=SECONDS_MAX)

    assert process.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    assert running_in(short_dir) == []
    assert list(short_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--months", "0"], 2, "should be greater than or equal to 1"),
        (["--customers", "0"], 2, "should be greater than or equal to 1"),
        (["--json", "nowhere/result.json"], 1, "there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_simulated_is_said_at_once(
    arguments: list[str], status: int, said: str, short_dir: Path
) -> None:
    with start(short_dir, *arguments) as process:
        found, _ = process.communicate(timeout=SECONDS_MAX)

    assert process.returncode == status
    assert said in " ".join(found.replace("│", " ").split())
    assert list(short_dir.iterdir()) == []
