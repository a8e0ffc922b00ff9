"""The one place that reads the time. Everything else is told."""

from datetime import UTC, datetime


def now() -> datetime:
    """The moment, in UTC. Taken once at the edge of a use case and handed on as an argument."""
    return datetime.now(UTC)
