"""The one place that reads the time. Everything else is told."""

from datetime import UTC, datetime


def now() -> datetime:
    """The moment, in UTC. Taken once at the edge of a use case and handed on as an argument."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """A moment as a person typed it: without a zone it is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
