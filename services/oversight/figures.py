"""Figures for a monitor: what is charged, parked, due, late. Read in one transaction, and cheap: see `db.figures`."""

from dataclasses import dataclass
from datetime import datetime

from db import figures as rows
from db.figures import Counted, CountedParked, Due, Watched
from db.session import Connection, in_transaction


@dataclass(frozen=True, slots=True)
class Figures:
    """How the database stands at a moment. Counts of what waits stop at `db.figures.COUNTED_MAX`."""

    events_charged: int | None
    """None where counting takes too long."""
    parked: list[CountedParked]
    due: list[Due]
    payments: list[Counted]
    unseen_alerts: list[Counted]
    watched: Watched
    connections: list[Counted]
    connections_max: int


def read(now: datetime) -> Figures:
    """Of all tenants together. Raises `DatabaseUnavailable`."""

    def work(connection: Connection) -> Figures:
        return Figures(
            rows.events_charged(connection),
            rows.parked(connection),
            rows.due(connection, now),
            rows.payments(connection),
            rows.unseen_alerts(connection),
            rows.watched(connection),
            rows.connections(connection),
            rows.connections_max(connection),
        )

    return in_transaction(work)
