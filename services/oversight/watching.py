"""Alerts that no single transaction causes: found from rows by a tick, said once while they hold.

A wallet may come to be low by usage, by a hold, by the end of a grant: looking at wallets finds all of it, and costs
usage nothing. What is said of a wallet is said again only after it was above its threshold in between.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from billing.money import written
from billing.payments import AlertKind
from config.settings import settings, thresholds
from db import collecting
from db import watching as rows
from db.alerts import Cause, raise_once
from db.session import Connection, in_transaction
from db.watching import Belows, EndingGrant, GrantKey, LowWallet, WalletKey

_Said = tuple[str, str]
"""tenant, subject"""

SAID_AT_ONCE = 500
#: The next look goes on: a tick that takes long is in the way of others.
SAID_IN_A_LOOK = 5000
#: Wallets that one statement looks at: a million take some seconds, and no statement may.
LOOKED_AT_ONCE = 5000

#: Times are kept to the microsecond.
_A_MOMENT = timedelta(microseconds=1)

Key = TypeVar("Key", WalletKey, GrantKey)
_Look = Callable[[Connection, Key], tuple[int, Key | None]]
"""Looks at some of what comes after a key: how many were said, and where to go on, if anywhere."""


def look(now: datetime) -> int:
    """Say what is low and what ends soon, and let go of what holds no more; how many were said. Safe to repeat."""
    _let_go(now)
    belows, soon = _belows(), now + timedelta(days=settings().expiring_soon_days)
    low = _some_at_a_time(("", 0), partial(_say_low, belows=belows, now=now))
    ending = _some_at_a_time((now + _A_MOMENT, "", UUID(int=0)), partial(_say_ending, soon=soon, now=now))
    return low + ending


def _some_at_a_time(first: Key, work: _Look[Key]) -> int:
    """Work on what comes after a key, a transaction for some of it, until nothing does or much is said; how many."""
    total = 0
    place: Key | None = first
    while place is not None and total < SAID_IN_A_LOOK:
        said, place = in_transaction(_from(place, work))
        total += said
    return total


def _from(place: Key, work: _Look[Key]) -> Callable[[Connection], tuple[int, Key | None]]:
    return lambda connection: work(connection, place)


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


def _say_low(connection: Connection, after: WalletKey, belows: Belows, now: datetime) -> tuple[int, WalletKey | None]:
    """Look at the wallets that come after one: how many were said to be low, and where to go on, if anywhere."""
    until = rows.last_of_next(connection, after, LOOKED_AT_ONCE)
    if until is None:
        return 0, None
    low = rows.newly_low(connection, belows, after, until, now, SAID_AT_ONCE)
    said = raise_once(connection, [_is_low(one) for one in low], now)
    return said, (low[-1].tenant_id, low[-1].wallet_id) if len(low) == SAID_AT_ONCE else until


def _say_ending(connection: Connection, after: GrantKey, soon: datetime, now: datetime) -> tuple[int, GrantKey | None]:
    """The same for grants that end by then."""
    until = rows.last_of_ending(connection, after, soon, LOOKED_AT_ONCE)
    if until is None:
        return 0, None
    ending = rows.ending(connection, after, until, SAID_AT_ONCE)
    said = raise_once(connection, [_ends(one) for one in ending], now)
    last = ending[-1] if len(ending) == SAID_AT_ONCE else None
    return said, (last.expires_at, last.tenant_id, last.grant_id) if last else until


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
