"""How the database stands, cheap enough to be asked by a monitor."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from db import reports as rows
from db import summaries, ticks
from db.session import Connection, in_transaction
from services.clocks import Clocks, compared


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """Which server answers, how long the oldest of each kind has waited, when audit and beat were last there."""

    server_version: str
    unsafe_settings: Sequence[str]
    """By which a crash or a failover may lose what was committed."""
    payments_late_seconds: int
    inbox_late_seconds: int
    webhooks_late_seconds: int
    audited_at: datetime | None
    ticked_at: datetime | None
    """When a tick of beat's last came through to a worker."""
    stripe_reached_at: datetime | None
    """When a worker last reached Stripe."""
    clocks: Clocks
    """This host's clock beside the server's."""


def database(now: datetime, host_at: datetime) -> DatabaseHealth:
    """At this moment, which may be a moved one, and at the host's own. Raises `DatabaseUnavailable`."""

    def work(connection: Connection) -> DatabaseHealth:
        return DatabaseHealth(
            rows.server_version(connection),
            rows.unsafe_settings(connection),
            int(rows.payment_lag_seconds(connection, now)),
            int(rows.inbox_lag_seconds(connection, now)),
            int(rows.webhook_lag_seconds(connection, now)),
            summaries.audit_turn(connection).finished_at,
            *ticks.last(connection),
            compared(connection, host_at),
        )

    return in_transaction(work)


def note_tick(now: datetime) -> None:
    """A tick of beat's came through to a worker. Raises `DatabaseUnavailable`."""
    in_transaction(lambda connection: ticks.note(connection, now))


def note_stripe(now: datetime) -> None:
    """A worker has reached Stripe. Raises `DatabaseUnavailable`."""
    in_transaction(lambda connection: ticks.note_stripe(connection, now))
