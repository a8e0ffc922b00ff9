"""Alerts that no single transaction causes: found from rows by a tick, said once while they hold.

A wallet may come to be low by usage, by a hold, by the end of a grant: looking at wallets finds all of it, and costs
usage nothing. What is said of a wallet is said again only after it was above its threshold in between.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from billing.money import written
from billing.payments import AlertKind
from config.settings import settings, thresholds
from db import collecting
from db import watching as rows
from db.alerts import Cause, raise_once
from db.session import Connection, in_transaction
from db.watching import Belows, EndingGrant, LowWallet

_Said = tuple[str, str]
"""tenant, subject"""

SAID_AT_ONCE = 500
#: Wallets that one statement looks at: a million take some seconds, and no statement may.
LOOKED_AT_ONCE = 5000

#: Times are kept to the microsecond.
_A_MOMENT = timedelta(microseconds=1)
_FIRST_WALLET = ("", 0)

#: Each of the two looks takes this long at most, and the next goes on: a tick that takes long is in the way of others.
LOOKED_FOR_SECONDS = 5.0


def look(now: datetime) -> int:
    """Say what is low and what ends soon, and let go of what holds no more; how many were said. Safe to repeat.

    Where there is much to look at, the next look goes on where this one came to.
    """
    _let_go(now)
    belows, soon = _belows(), now + timedelta(days=settings().expiring_soon_days)
    low = _for_some_time(lambda connection: _say_low(connection, belows, now))
    return low + _for_some_time(lambda connection: _say_ending(connection, soon, now))


def _for_some_time(work: Callable[[Connection], tuple[int, bool]]) -> int:
    """Do some of it in a transaction, and some more, until it is done or time is over; how many were said."""
    until = time.monotonic() + LOOKED_FOR_SECONDS
    total, is_done = 0, False
    while not is_done:
        said, is_done = in_transaction(work)
        total += said
        is_done = is_done or time.monotonic() >= until
    return total


def _let_go(now: datetime) -> None:
    belows = _belows()
    in_transaction(lambda connection: rows.let_go_of_ended(connection, now))
    in_transaction(rows.let_go_of_priced)
    _each_said(AlertKind.LOW_BALANCE, lambda connection, some: rows.let_go_of_low(connection, some, belows, now))
    _each_said(AlertKind.OPEN_TIERS, _let_go_of_open_tiers)


def _each_said(kind: AlertKind, work: Callable[[Connection, list[_Said]], object]) -> None:
    """Look at all that was said of a kind and still holds, as far as is known; some in each transaction."""
    last = ("", "")

    def next_ones(connection: Connection) -> list[_Said]:
        some = rows.said(connection, kind, last, SAID_AT_ONCE)
        if some:
            work(connection, some)
        return some

    while some := in_transaction(next_ones):
        last = some[-1]


def _let_go_of_open_tiers(connection: Connection, some: list[_Said]) -> None:
    for tenant_id, customer_id in some:
        standing, most = collecting.open_tiers(connection, tenant_id, customer_id)
        if standing < most:
            rows.let_go(connection, tenant_id, AlertKind.OPEN_TIERS, customer_id)


def _say_low(connection: Connection, belows: Belows, now: datetime) -> tuple[int, bool]:
    """Look at the wallets that come next: how many were said to be low, and whether all were looked at."""
    after = rows.place_of_wallets(connection) or _FIRST_WALLET
    until = rows.last_of_next(connection, after, LOOKED_AT_ONCE)
    low = rows.newly_low(connection, belows, after, until, now, SAID_AT_ONCE) if until else []
    said = raise_once(connection, [_is_low(one) for one in low], now)
    place = (low[-1].tenant_id, low[-1].wallet_id) if len(low) == SAID_AT_ONCE else until
    rows.keep_place_of_wallets(connection, place)
    return said, place is None


def _say_ending(connection: Connection, soon: datetime, now: datetime) -> tuple[int, bool]:
    """The same for grants that end by then."""
    first = (now + _A_MOMENT, "", UUID(int=0))
    after = max(rows.place_of_grants(connection) or first, first)
    until = rows.last_of_ending(connection, after, soon, LOOKED_AT_ONCE)
    ending = rows.ending(connection, after, until, SAID_AT_ONCE) if until else []
    said = raise_once(connection, [_ends(one) for one in ending], now)
    last = ending[-1] if len(ending) == SAID_AT_ONCE else None
    place = (last.expires_at, last.tenant_id, last.grant_id) if last else until
    rows.keep_place_of_grants(connection, place)
    return said, place is None


def _is_low(one: LowWallet) -> Cause:
    return Cause(
        one.tenant_id,
        AlertKind.LOW_BALANCE,
        str(one.wallet_id),
        one.customer_id,
        f"{one.customer_id} {one.currency}",
        f"customer {one.customer_id} has {one.currency} {written(one.own)} available, less than "
        f"{written(one.low_below)}",
    )


def _ends(one: EndingGrant) -> Cause:
    return Cause(
        one.tenant_id,
        AlertKind.CREDITS_EXPIRING,
        str(one.grant_id),
        one.customer_id,
        f"{one.customer_id} {one.currency} grant {one.grant_id}",
        f"{one.currency} {written(one.remaining)} of customer {one.customer_id} ({one.source}) end at "
        f"{one.expires_at.isoformat()}",
    )


def _belows() -> Belows:
    said = thresholds(settings().low_balance)
    other = said.pop("", None)
    return Belows(said, other)
