"""How the database stands, cheap enough to be asked by a monitor."""

from dataclasses import dataclass
from datetime import datetime

from db import reports as rows
from db import summaries
from db.session import Connection, in_transaction


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """Which server answers, how long the oldest payment that is due has waited, when the audit last ended."""

    server_version: str
    payments_late_seconds: int
    audited_at: datetime | None


def database(now: datetime) -> DatabaseHealth:
    """Raises `DatabaseUnavailable`."""

    def work(connection: Connection) -> DatabaseHealth:
        late = int(rows.payment_lag_seconds(connection, now))
        return DatabaseHealth(rows.server_version(connection), late, summaries.audit_turn(connection).finished_at)

    return in_transaction(work)
