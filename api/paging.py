"""Spans of time that are asked for, and pages that remember theirs."""

from datetime import UTC, datetime, timedelta

from billing.errors import CursorMalformed, Rejected

LOOKS_BACK = timedelta(days=31)
#: Events may be an hour ahead of their time.
LOOKS_AHEAD = timedelta(hours=2)
YEAR_MIN, YEAR_MAX = 1970, 9000


def span(
    since: datetime | None, until: datetime | None, at: str | None, now: datetime
) -> tuple[datetime, datetime, str | None]:
    """The span that is asked for, and the cursor within it.

    A page that began without a span of its own goes on with the one that it had then: its cursor says so, and is good
    for no other, so nobody gains by making one up. Raises `Rejected`, `CursorMalformed`.
    """
    inner = at
    if at is not None:
        begun, ended, inner = _parts(at)
        since, until = since or begun, until or ended
    if until is None:
        until = now.replace(second=0, microsecond=0) + LOOKS_AHEAD
    _check(until)
    if since is None:
        since = until - LOOKS_BACK
    _check(since)
    return since.astimezone(UTC), until.astimezone(UTC), inner


def remembering(since: datetime, until: datetime, at: str | None) -> str | None:
    """A cursor that says its span."""
    return None if at is None else f"{_seconds(since)}~{_seconds(until)}~{at}"


def _seconds(moment: datetime) -> str:
    return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def _parts(at: str) -> tuple[datetime, datetime, str]:
    try:
        begun, ended, inner = at.split("~")
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return epoch + timedelta(microseconds=int(begun)), epoch + timedelta(microseconds=int(ended)), inner
    except (ValueError, OverflowError):
        raise CursorMalformed from None


def _check(moment: datetime) -> None:
    if moment.tzinfo is None:
        raise Rejected("a span begins and ends at moments with their zone, such as 2026-11-01T00:00:00Z")
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise Rejected(f"a span lies between the years {YEAR_MIN} and {YEAR_MAX}")
