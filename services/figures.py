"""Figures for a monitor: what is charged, parked, due, late. Read in one transaction, and cheap: see `db.figures`."""

from dataclasses import dataclass
from datetime import datetime

from db import figures as rows
from db.figures import Group, Parked, Standing, Waiting
from db.session import Connection, in_transaction


@dataclass(frozen=True, slots=True)
class Figures:
    """How the database stands at a moment. Counts of what waits stop at `db.figures.COUNTED_MAX`."""

    events_charged: int | None
    """None where counting takes too long."""
    parked: list[Parked]
    waiting: list[Waiting]
    payments: list[Group]
    unseen_alerts: list[Group]
    standing: Standing
    connections: list[Group]
    connections_max: int


def read(now: datetime) -> Figures:
    """Of all tenants together. Raises `DatabaseUnavailable`."""

    def work(connection: Connection) -> Figures:
        return Figures(
            rows.events_charged(connection),
            rows.parked(connection),
            rows.waiting(connection, now),
            rows.payments(connection),
            rows.unseen_alerts(connection),
            rows.standing(connection),
            rows.connections(connection),
            rows.connections_max(connection),
        )

    return in_transaction(work)
