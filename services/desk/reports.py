"""What has happened, summed up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from db import parked as parked_rows
from db import reports as rows
from db.session import Connection, in_transaction
from services.clocks import Clocks, compared


@dataclass(frozen=True, slots=True)
class CustomerSummary:
    """A customer: what was used, what it cost, what payments stand where, and the wallets."""

    customer_id: str
    plan_id: str
    events: int
    tokens: int
    cost: Decimal
    balances: dict[str, Decimal]
    payments: dict[tuple[str, str], tuple[int, int]]
    """(kind, state): how many, and what they come to in minor units"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work has come."""

    charged: int
    parked: int
    payments: int
    payments_waiting: int
    periods_unopened: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the database, for `centavo status`."""

    server_version: str
    unsafe_settings: Sequence[str]
    """By which a crash or a failover may lose what was committed."""
    charged: int
    parked: dict[str, int]
    payments: int
    payments_waiting: int
    payment_lag_seconds: float
    clocks: Clocks
    """This host's clock beside the server's."""


def customers_of(tenant_id: str) -> list[CustomerSummary]:
    """Every customer of a tenant, summed up, in one snapshot."""

    def work(connection: Connection) -> list[CustomerSummary]:
        balances: defaultdict[str, dict[str, Decimal]] = defaultdict(dict)
        for wallet in rows.wallet_standings(connection, tenant_id):
            balances[wallet.customer_id][wallet.currency] = wallet.balance
        payments: defaultdict[str, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
        for group in rows.payment_groups(connection, tenant_id):
            payments[group.customer_id][group.kind, group.state] = (group.number, group.amount_minor)
        return [
            CustomerSummary(*totals, balances[totals.customer_id], payments[totals.customer_id])
            for totals in rows.customer_totals(connection, tenant_id)
        ]

    return in_transaction(work)


def progress(now: datetime) -> Progress:
    """How many events are charged and parked, how many payments there are and wait, and how many periods are still to
    be opened; cheap enough to ask often.
    """

    def work(connection: Connection) -> Progress:
        parked = sum(parked_rows.counts(connection).values())
        unopened = rows.periods_unopened(connection, now)
        return Progress(rows.events_charged(connection), parked, *rows.payment_counts(connection), unopened)

    return in_transaction(work)


def standing(now: datetime, host_at: datetime) -> Standing:
    """The state of the database at a glance, at this moment, which may be a moved one, and at the host's own."""

    def work(connection: Connection) -> Standing:
        return Standing(
            rows.server_version(connection),
            rows.unsafe_settings(connection),
            rows.events_charged(connection),
            parked_rows.counts(connection),
            *rows.payment_counts(connection),
            rows.payment_lag_seconds(connection, now),
            compared(connection, host_at),
        )

    return in_transaction(work)
