"""Alerts that no single transaction causes: found from rows by a tick, said once while they hold.

A wallet may come to be low by usage, by a hold, by the end of a grant: looking at wallets finds all of it, and costs
usage nothing. What is said of a wallet is said again only after it was above its threshold in between.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

from billing.money import written
from billing.payments import AlertKind
from config.settings import settings, thresholds
from db import collecting
from db import watching as rows
from db.alerts import Cause, raise_once
from db.session import Connection, in_transaction

SAID_AT_ONCE = 500

_Work = Callable[[Connection, datetime], int]


def look(now: datetime) -> int:
    """Say what is low and what ends soon, and let go of what holds no more; how many were said. Safe to repeat."""
    in_transaction(lambda connection: _let_go(connection, now))
    return sum(_all(work, now) for work in (_say_low, _say_ending))


def _all(work: _Work, now: datetime) -> int:
    """Some at a time, until fewer are found than that."""
    total = 0
    while found := in_transaction(lambda connection: work(connection, now)):
        total += found
        if found < SAID_AT_ONCE:
            break
    return total


def _let_go(connection: Connection, now: datetime) -> None:
    belows, other = _belows()
    rows.let_go_of_low(connection, belows, other, now)
    rows.let_go_of_ended(connection, now)
    rows.let_go_of_priced(connection)
    last = ("", "")
    while some := rows.said(connection, AlertKind.OPEN_TIERS, last, SAID_AT_ONCE):
        for tenant_id, customer_id in some:
            standing, most = collecting.open_tiers(connection, tenant_id, customer_id)
            if standing < most:
                rows.let_go(connection, tenant_id, AlertKind.OPEN_TIERS, customer_id)
        last = some[-1]


def _say_low(connection: Connection, now: datetime) -> int:
    belows, other = _belows()
    return raise_once(
        connection,
        [
            Cause(
                one.tenant_id,
                AlertKind.LOW_BALANCE,
                str(one.wallet_id),
                one.customer_id,
                f"{one.customer_id} {one.currency}",
                f"customer {one.customer_id} has {one.currency} {written(one.own)} available, less than "
                f"{written(one.low_below)}",
            )
            for one in rows.newly_low(connection, belows, other, now, SAID_AT_ONCE)
        ],
        now,
    )


def _say_ending(connection: Connection, now: datetime) -> int:
    soon = now + timedelta(days=settings().expiring_soon_days)
    return raise_once(
        connection,
        [
            Cause(
                one.tenant_id,
                AlertKind.CREDITS_EXPIRING,
                one.grant_id,
                one.customer_id,
                f"{one.customer_id} {one.currency} grant {one.grant_id}",
                f"{one.currency} {written(one.remaining)} of customer {one.customer_id} ({one.source}) end at "
                f"{one.expires_at.isoformat()}",
            )
            for one in rows.ending(connection, now, soon, SAID_AT_ONCE)
        ],
        now,
    )


def _belows() -> tuple[dict[str, Decimal], Decimal | None]:
    """Below how much a wallet is low: by currency, and in any other."""
    said = thresholds(settings().low_balance)
    other = said.pop("", None)
    return said, other
