"""The one place that reads the time. Everything else is told.

Outside production it can be moved: a file says how far, and whoever has the same file follows, without a restart::

    {"offset_seconds": 2678400}

Time goes on flowing after a move. Which file that is, `Settings.clock_followed` says. What only measures how long
something takes goes by the machine and its servers: timeouts, leases of the broker, beat, the pace of collecting.
"""

import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from billing.errors import Rejected, Unavailable
from config.settings import settings

UNMOVED = timedelta()
#: Dates stay far from where a calendar ends.
OFFSET_MAX = timedelta(days=100 * 365)


class ClockFixed(Rejected):
    """The clock can't be moved here."""


class ClockGoesForward(Rejected):
    """The clock would go back."""


class ClockUnreadable(Unavailable):
    """The file that moves the clock can't be read: whoever needs the time waits until it can."""


class _Moved(BaseModel):
    """What the file says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    offset_seconds: int


class _Kept(NamedTuple):
    """What was read of a file, and how the file is told from its next version."""

    stamp: tuple[int, int, int]
    offset: timedelta


_kept: dict[Path, _Kept] = {}


def now() -> datetime:
    """The moment, in UTC. Taken once at the edge of a use case and handed on as an argument."""
    return unmoved() + offset()


def unmoved() -> datetime:
    """The machine's moment: for what begins anew, where nothing was recorded at another."""
    return datetime.now(UTC)


def offset() -> timedelta:
    """How far the clock is moved. Raises `ClockUnreadable`."""
    path = settings().clock_followed
    return UNMOVED if path is None else offset_in(path)


def offset_in(path: Path) -> timedelta:
    """How far a file moves the clock; not at all when there is none. Raises `ClockUnreadable`.

    Each task asks, so a file is read once and then only looked at.
    """
    try:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = _kept.get(path)
        if kept is None or kept.stamp != stamp:
            kept = _kept[path] = _Kept(stamp, _read(path))
    except FileNotFoundError:
        return UNMOVED
    except (OSError, ValueError, OverflowError) as wrong:
        raise ClockUnreadable(
            f"{path} does not say how far the clock is moved ({_why(wrong)}); write "
            '{"offset_seconds": 0} there, or delete it: then the clock is the machine\'s'
        ) from wrong
    return kept.offset


def _read(path: Path) -> timedelta:
    said = timedelta(seconds=_Moved.model_validate_json(path.read_bytes()).offset_seconds)
    if abs(said) > OFFSET_MAX:
        raise ValueError(f"further than {OFFSET_MAX.days} days")
    return said


def _why(wrong: Exception) -> str:
    return wrong.errors()[0]["msg"] if isinstance(wrong, ValidationError) else str(wrong)


def advance(by: timedelta) -> timedelta:
    """Move the clock on; gives the new offset. Raises as `offset_after` does."""
    return set_offset(offset_after(by))


def move_to(moment: datetime, *, is_back: bool = False) -> timedelta:
    """Let it be this moment; gives the new offset. Raises as `offset_for` does."""
    return set_offset(offset_for(moment, is_back=is_back))


def offset_after(by: timedelta) -> timedelta:
    """The offset of a clock that is moved on. Raises `ClockFixed`, `ClockGoesForward`, `ClockUnreadable`."""
    return _allowed(offset() + by, is_back=False)


def offset_for(moment: datetime, *, is_back: bool = False) -> timedelta:
    """The offset with which it is this moment, or less than a second later.

    Periods, ledgers and leases are ordered in time, so a moment in the past is refused unless `is_back`. Raises
    `ClockFixed`, `ClockGoesForward`, `ClockUnreadable`.
    """
    return _allowed(moment - unmoved(), is_back=is_back)


def set_offset(wanted: timedelta) -> timedelta:
    """Write how far the clock is moved, in whole seconds, for all that follow it. Raises `ClockFixed`."""
    path = _movable()
    try:
        _replace(path, _Moved(offset_seconds=int(wanted.total_seconds())).model_dump_json())
    except OSError as error:
        raise ClockFixed(f"{path} can't be written, so the clock stays: {error.strerror}") from error
    return wanted


def _replace(path: Path, text: str) -> None:
    """In one step: readers see the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(f".{path.name}-{os.getpid()}")
    replacement.write_text(text, encoding="utf-8")
    replacement.replace(path)


def refuse_where_fixed() -> None:
    """Raises `ClockFixed` where no clock is moved: in production, and in staging unless its file is named."""
    _movable()


def _allowed(wanted: timedelta, *, is_back: bool) -> timedelta:
    path = _movable()
    # Whole seconds: Stripe's times have no others.
    whole = timedelta(seconds=math.ceil(wanted.total_seconds()))
    if abs(whole) > OFFSET_MAX:
        raise Rejected(f"the clock can be moved by {OFFSET_MAX.days} days at most")
    if whole < offset() and not is_back:
        raise ClockGoesForward(
            f"it is {now():%Y-%m-%dT%H:%M:%SZ} by {path}; what was recorded until then would lie in the future: "
            "name a later moment, or say --back if that is wanted"
        )
    return whole


def _movable() -> Path:
    path = settings().clock_followed
    if path is not None:
        return path
    if settings().environment == "staging":
        raise ClockFixed("CENTAVO_CLOCK_FILE is not set, so staging goes by the machine's clock")
    raise ClockFixed(
        f"no sandbox runs in {settings().home}/, and in production no clock is moved; start one with `centavo up`"
    )


def in_utc(moment: datetime) -> datetime:
    """A moment as a person typed it: without a zone it is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
