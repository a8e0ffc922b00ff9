"""Customers as the usage path sees them, kept between transactions and verified under their locks.

Reading customers, wallets and periods anew took a quarter of what an event costs the database. So a pool child
keeps them. Every change of what is kept moves a revision on the customer's wallets (triggers see to that), and
whoever has locked the wallets compares: what was out of date is read again, and the transaction with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing.periods import Period
from billing.plans import Plan
from config.settings import settings
from db import usage as rows
from db.session import Connection
from db.usage import AccountRow, PeriodRow
from services import catalogue

Identity = tuple[str, str]
"""tenant, customer"""

#: Some 15 MB.
KEPT_MAX = 20_000
#: Beginnings of periods are read as far back as an event may lie, and two months more.
TWO_MONTHS = timedelta(days=62)

_kept: dict[Identity, "Account"] = {}


@dataclass(slots=True)
class Account:
    """A customer: where, on which plan, with which wallets and periods; read-only once it is kept."""

    time_zone: str
    plan_key: tuple[str, int]
    wallets: dict[str, int] = field(default_factory=dict)
    """currency: wallet"""
    revisions: tuple[tuple[int, int], ...] = ()
    """(wallet, revision of the account) of every wallet"""
    periods: tuple[Period, ...] = ()
    plans: dict[tuple[str, int], Plan] = field(default_factory=dict)
    """(plan, version) of the customer and of the periods"""


def find(connection: Connection, asked: set[Identity], now: datetime) -> tuple[dict[Identity, Account], bool]:
    """Those customers that exist, and whether any of them is not fresh from the database."""
    kept = {identity: account for identity in asked if (account := _kept.get(identity))}
    missing = asked - kept.keys()
    return (kept | read(connection, missing, now) if missing else kept), bool(kept)


def read(connection: Connection, asked: set[Identity], now: datetime) -> dict[Identity, Account]:
    """Those customers that exist, fresh from the database; they are kept from now on."""
    tenant_ids, customer_ids = zip(*asked, strict=True)
    since = now - settings().bounds.age_max - TWO_MONTHS
    account_rows, period_rows = rows.read_accounts(connection, tenant_ids, customer_ids, since)
    found = _assembled(account_rows, period_rows)
    plans = catalogue.plans(connection, {(i[0], *key) for i, account in found.items() for key in _plan_keys(account)})
    for (tenant_id, _), account in found.items():
        account.plans = {key: plans[tenant_id, *key] for key in _plan_keys(account)}
    if len(_kept) + len(found) > KEPT_MAX:
        _kept.clear()
    _kept.update(found)
    return found


def forget(identities: Iterable[Identity]) -> None:
    """What is kept of these customers is out of date."""
    for identity in identities:
        _kept.pop(identity, None)


def forget_all() -> None:
    """Keep nothing: for a process that turns to another database."""
    _kept.clear()


def _assembled(account_rows: Iterable[AccountRow], period_rows: Iterable[PeriodRow]) -> dict[Identity, Account]:
    found: dict[Identity, Account] = {}
    for row in account_rows:
        identity = (row.tenant_id, row.customer_id)
        account = found.get(identity)
        if account is None:
            account = found[identity] = Account(row.time_zone, (row.plan_id, row.plan_version))
        if row.currency is not None and row.wallet_id is not None and row.account_revision is not None:
            account.wallets[row.currency] = row.wallet_id
            account.revisions += ((row.wallet_id, row.account_revision),)
    for begun in period_rows:
        # A period may have begun between the two statements, for a customer who came after the first.
        if account := found.get((begun.tenant_id, begun.customer_id)):
            period = Period(begun.starts_at, begun.ends_at, begun.plan_id, begun.plan_version, begun.is_closed)
            account.periods += (period,)
    return found


def _plan_keys(account: Account) -> set[tuple[str, int]]:
    return {account.plan_key, *((period.plan_id, period.plan_version) for period in account.periods)}
