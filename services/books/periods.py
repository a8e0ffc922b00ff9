"""The periods of customers: the one that is open now, and rows for those that are not there yet."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from billing.periods import Period, place
from db import periods as rows
from db.periods import NewPeriod
from db.session import Connection
from services.books import accounts

Identity = tuple[str, str]
"""tenant, customer"""


def current(connection: Connection, customers: Sequence[Identity], now: datetime) -> dict[Identity, Period]:
    """The open period of each customer; begins those that are not there yet. The caller holds their wallets."""
    found = {
        identity: place(now, account.periods, now, account.terms).period
        for identity, account in accounts.read(connection, set(customers), now, with_terms=True, is_kept=False).items()
    }
    begin(connection, [(identity, period) for identity, period in found.items() if period.is_new])
    return found


def begin(connection: Connection, begun: Iterable[tuple[Identity, Period]]) -> None:
    """Write rows for periods that have none, each with its customer, whose wallets the caller holds."""
    new = [
        NewPeriod(*identity, p.starts_at, p.ends_at, p.plan_id, p.plan_version, p.time_zone) for identity, p in begun
    ]
    if new:
        rows.begin(connection, new)
        accounts.forget((period.tenant_id, period.customer_id) for period in new)
