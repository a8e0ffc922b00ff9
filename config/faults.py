"""Named points at which a test may end the process, as a crash would. Off unless `CENTAVO_FAULT_DIR` is set.

A file `POINT.N` in that directory makes the process that reaches POINT kill itself, once per file; a file
`POINT` does so every time. Points of memory raise MemoryError instead. `poison.event` holds a key: the process
that rates an event of that key dies. Production refuses the setting.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from billing.errors import CentavoError
from config.settings import settings


class FaultsRefused(CentavoError):
    """Fault points can't be armed in production; unset CENTAVO_FAULT_DIR."""


def directory() -> Path | None:
    """Where faults are armed, or None. Raises `FaultsRefused` in production."""
    armed = settings().fault_dir
    if armed is not None and settings().environment == "production":
        raise FaultsRefused
    return armed


def reached(point: str) -> None:
    """Die here, if a test has armed this point."""
    if _is_armed(point):
        _die()


def exhausted(point: str) -> None:
    """Be out of memory here, if a test has armed this point."""
    if _is_armed(point):
        raise MemoryError(point)


def poisonous(keys: Iterable[str]) -> None:
    """Die if one of these events is what a test has declared poison."""
    armed = directory()
    if armed is None:
        return
    try:
        poison = (armed / "poison.event").read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if poison.strip() in keys:
        _die()


def _is_armed(point: str) -> bool:
    armed = directory()
    if armed is None:
        return False
    if (armed / point).exists():
        return True
    for once in sorted(armed.glob(f"{point}.*")):
        try:
            once.unlink()
        except FileNotFoundError:
            continue
        return True
    return False


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
