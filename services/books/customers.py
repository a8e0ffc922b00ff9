"""Customers: who is billed, on which plan, from which wallets. Their cards are in `services.collecting.cards`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from billing.errors import AlreadyExists, CustomerNotFound, PlanNotFound, Rejected
from billing.periods import Calendar, Period
from billing.subscriptions import anchor_day
from config.logging import logger
from db import customers as rows
from db import months as month_rows
from db.customers import CustomerRow
from db.months import Due
from db.session import Connection, in_transaction
from services.books import periods
from services.books.names import check_name
from services.books.zones import check_zone

log = logger(__name__)

_CURRENCY = re.compile(r"[A-Z]{3}|CREDIT")


@dataclass(frozen=True, slots=True)
class NewCustomer:
    """A customer to make. Without currencies, one wallet in the plan's payment currency."""

    tenant_id: str
    customer_id: str
    plan_id: str
    time_zone: str = "America/Sao_Paulo"
    currencies: tuple[str, ...] = ()


def create_customers(wanted: Sequence[NewCustomer], now: datetime) -> int:
    """Make customers with their wallets, all or none; how many are new.

    Raises `PlanNotFound`, `Rejected` (no such name, time zone or currency), `AlreadyExists` (on another plan or in
    another zone).
    """
    for one in wanted:
        check_name(one.tenant_id, "a tenant's id")
        check_name(one.customer_id, "a customer's id")
        check_zone(one.time_zone)
        _check_currencies(one.currencies)

    def work(connection: Connection) -> int:
        return sum(_create(connection, one, now) for one in wanted)

    created = in_transaction(work)
    log.info("customers created", created=created, given=len(wanted))
    return created


def open_wallet(tenant_id: str, customer_id: str, currency: str, now: datetime) -> None:
    """Give a customer a wallet in a currency, if there is none. Raises `CustomerNotFound`, `Rejected`."""
    _check_currencies([currency])

    def work(connection: Connection) -> None:
        if rows.find_customer(connection, tenant_id, customer_id) is None:
            raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
        rows.add_wallet(connection, tenant_id, customer_id, currency, now)

    in_transaction(work)


def _create(connection: Connection, wanted: NewCustomer, now: datetime) -> bool:
    plan = rows.newest_plan(connection, wanted.tenant_id, wanted.plan_id)
    if plan is None:
        raise PlanNotFound(tenant_id=wanted.tenant_id, plan_id=wanted.plan_id)
    day = anchor_day(plan, now, wanted.time_zone)
    identity = (wanted.tenant_id, wanted.customer_id)
    row = CustomerRow(*identity, plan.plan_id, plan.version, wanted.time_zone, None, None, day)
    is_new = rows.add_customer(connection, row, now)
    if not is_new:
        known = rows.find_customer(connection, wanted.tenant_id, wanted.customer_id)
        if known is not None and (known.plan_id, known.time_zone) != (wanted.plan_id, wanted.time_zone):
            raise AlreadyExists(customer_id=wanted.customer_id, plan=known.plan_id, time_zone=known.time_zone)
    for currency in wanted.currencies or (plan.payment_currency,):
        rows.add_wallet(connection, wanted.tenant_id, wanted.customer_id, currency, now)
    if is_new:
        # From now on each period follows the last; what this one owes, the month's tick finds.
        calendar = Calendar(wanted.time_zone, day)
        first = Period(*calendar.month_around(now), plan.plan_id, plan.version, time_zone=wanted.time_zone)
        periods.begin(connection, [(identity, first)])
        month_rows.set_due(connection, [Due(*identity, first.ends_at)])
    return is_new


def _check_currencies(currencies: Sequence[str]) -> None:
    for currency in currencies:
        if not _CURRENCY.fullmatch(currency):
            raise Rejected(f"{currency!r} is not a currency; they look like BRL, or are CREDIT")
