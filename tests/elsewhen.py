"""Hosts whose clock is wrong: of this process, and of processes that a test starts."""

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from config import clock
from sandbox.stack import ROOT

_SITE = """
from datetime import datetime, timedelta
from config import clock

class Elsewhen(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds={seconds})

clock.datetime = Elsewhen
"""


def be_ahead(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the clock of the host of this process be wrong."""

    class Elsewhen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    monkeypatch.setattr(clock, "datetime", Elsewhen)
    assert abs(clock.unmoved() - datetime.now(UTC) - by) < timedelta(minutes=1)


def host_ahead(folder: Path, by: timedelta) -> dict[str, str]:
    """The environment of a process on a host whose clock is wrong: Python reads this before anything else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE.format(seconds=by.total_seconds()), encoding="utf-8")
    return {"PYTHONPATH": f"{folder}:{ROOT}:{ROOT / 'sdk' / 'src'}"}
