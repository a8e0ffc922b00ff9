"""What tests of the month share: customers of some months ago, and a look at what the month made of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.plans import Plan
from billing.statements import Statement
from centavo import Item
from services.books import tenants
from services.books.catalogue_files import read_plans, read_prices
from services.books.credits import break_expired
from services.books.customers import NewCustomer, create_customers
from services.cycle import closing, months, statements
from services.desk.prices import load_prices
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, an_envelope, an_event
from tests.looking import rows

ZONE = "America/Sao_Paulo"
JANUARY = datetime(2026, 1, 1, 3, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, 3, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, 3, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, 3, tzinfo=UTC)
GRACE = timedelta(hours=72)
DAY = timedelta(days=1)
FEE = 40_000
TIERS, PREPAID, _ = read_plans("default")


def offered(*plans: Plan, at: datetime = JANUARY) -> None:
    """A tenant with these plans, and prices in USD."""
    tenants.create_tenant(TENANT, "Acme", at)
    tenants.load_plans(TENANT, plans, at)
    load_prices(read_prices("usd-per-unit", effective_from=JANUARY - timedelta(days=365)), at)


def a_plan(plan_id: str = "monthly", **changes: Any) -> Plan:
    """The plan with a fee and tiers, changed."""
    return replace(TIERS, plan_id=plan_id, **changes)


def joined(
    at: datetime,
    customer: str = "ana",
    *,
    plan: str = "monthly",
    zone: str = ZONE,
    currencies: Sequence[str] = ("BRL", "USD"),
) -> str:
    """A customer who joined then."""
    create_customers([NewCustomer(TENANT, customer, plan, zone, tuple(currencies))], at)
    return customer


def used(at: datetime, *items: Item, customer: str = "ana", came: datetime | None = None, key: str = "") -> Outcome:
    """Something was used, and recorded at once, or when it came."""
    event = an_event(customer, items, occurred_at=at, **({"key": key} if key else {}))
    return record_usage(an_envelope(event), came or at)


def turned(now: datetime) -> months.Turned:
    """Look until nothing is due."""
    total = months.Turned()
    while (done := months.turn_due(now)).customers:
        total += done
    return total


def everything(now: datetime) -> None:
    """All that the month's ticks do, until nothing is due."""
    turned(now)
    for work in (break_expired, closing.close_due, statements.issue_due):
        while work(now):
            pass


def periods(customer: str = "ana") -> list[tuple[datetime, datetime]]:
    return [
        (start, end)
        for start, end in rows(
            "SELECT starts_at, ends_at FROM periods WHERE customer_id = %s ORDER BY starts_at", customer
        )
    ]


def fees(customer: str = "ana") -> list[tuple[datetime, int, int, str]]:
    """(start of the period, generation, minor units, state) of each."""
    return [
        (a, b, c, d)
        for a, b, c, d in rows(
            "SELECT period_start, generation, amount_minor, state FROM payments"
            " WHERE customer_id = %s AND kind = 'subscription' ORDER BY period_start, generation",
            customer,
        )
    ]


def grants(customer: str = "ana", source: str = "free") -> list[tuple[Decimal, Decimal]]:
    """(amount, what remains) of each."""
    return [
        (a, b)
        for a, b in rows(
            "SELECT g.amount, g.remaining FROM grants_remaining g JOIN wallets w USING (tenant_id, wallet_id)"
            " WHERE w.customer_id = %s AND g.source = %s ORDER BY g.number",
            customer,
            source,
        )
    ]


def stated(customer: str = "ana") -> list[Statement]:
    return statements.of_customer(TENANT, customer)
