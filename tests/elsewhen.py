"""Hosts whose clock is wrong: of this process, and of processes that a test starts."""

import subprocess
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from config import clock
from config.settings import process_environment
from sandbox.stack import ROOT

_SITE = """
from datetime import datetime, timedelta
from pathlib import Path
import celery.app.base
import celery.worker.request
from config import clock

seconds = Path(__file__).with_name("seconds")

class Elsewhen(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=float(seconds.read_text()))

for module in (clock, celery.app.base, celery.worker.request):
    module.datetime = Elsewhen
"""


def be_ahead(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the clock of the host of this process be wrong."""

    class Elsewhen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    monkeypatch.setattr(clock, "datetime", Elsewhen)


def host_ahead(folder: Path, by: timedelta) -> dict[str, str]:
    """The environment of processes on a host whose clock is wrong, in Centavo and in Celery; `step` moves it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    step(folder, by)
    return {"PYTHONPATH": f"{folder}:{ROOT}:{ROOT / 'sdk' / 'src'}"}


def step(folder: Path, by: timedelta) -> None:
    """Let the clock of such a host be wrong by so much from now on."""
    new = folder / "seconds.new"
    new.write_text(str(by.total_seconds()), encoding="utf-8")
    new.replace(folder / "seconds")


def centavo_there(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the command line on such a host."""
    command = [sys.executable, "-m", "cli", *arguments]
    said = process_environment() | environment
    return subprocess.run(command, env=said, cwd=ROOT, capture_output=True, text=True, check=False)
