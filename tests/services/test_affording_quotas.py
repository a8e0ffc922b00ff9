"""Whether quotas and a customer's own cap leave room: part of the same question, in the same statement."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.affordability import Check, Refusal
from billing.quotas import Measure, Per, QuotaKind, Scope
from db import quotas as rows
from db.quotas import NewQuota
from db.scope import as_tenant
from db.session import in_transaction
from services.books import catalogue
from services.books.tenants import create_tenant
from services.desk import quotas
from services.desk.quotas import Wanted
from services.desk.wallets import Purpose, can_afford
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.services.test_wallets import counted

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
#: Ten tokens a month of each customer.
HARD = NewQuota(
    TENANT, "few", QuotaKind.QUOTA, Scope.CUSTOMER, "", None, None, Per.MONTH, "UTC", Measure.TOKENS, None, Decimal(10),
    is_hard=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _customers(billing_database: str) -> None:
    catalogues(BEFORE)
    for name in ("ana", "bob"):
        a_customer(name, credit="10", time_zone="UTC", now=BEFORE)


def a_quota(limit: int, **changes: Any) -> None:
    wanted = Wanted(TENANT, changes.pop("name", "q"), Decimal(limit), is_hard=changes.pop("is_hard", True), **changes)
    quotas.set_quota(wanted, BEFORE)


def use(quantity: int, who: str = "ana", key: str = "k", **fields: Any) -> None:
    """Record an event of so many tokens; a hundred thousand are three dollars."""
    record_usage(an_envelope(an_event(who, [tokens(quantity)], key=key, occurred_at=NOW, **fields)), NOW)


def asks(quantity: int, who: str = "ana", **purpose: str) -> Check:
    """What decides whether somebody may use so many tokens, without a buffer."""
    return can_afford(
        TENANT, who, NOW, items=[tokens(quantity)], buffer=Decimal(1), purpose=Purpose(**purpose)
    ).deciding


@pytest.mark.parametrize("scope", [Scope.CUSTOMER, Scope.TENANT])
def test_a_hard_quota_that_leaves_no_room_says_no(scope: Scope) -> None:
    a_quota(1000, scope=scope)
    use(600)

    assert asks(400).is_affordable
    assert asks(401) == Check("token", Decimal(400), Decimal(401), Refusal.QUOTA_EXCEEDED, "q")
    assert asks(401, "bob").is_affordable == (scope is Scope.CUSTOMER)


def test_a_soft_one_says_nothing() -> None:
    a_quota(1000, scope=Scope.CUSTOMER, is_hard=False)
    use(2000)

    assert asks(1).is_affordable


def test_an_ended_one_says_nothing() -> None:
    a_quota(1000, scope=Scope.CUSTOMER)
    use(2000)
    quotas.end_quota(TENANT, "q", NOW)

    assert asks(1).is_affordable


def test_the_quota_of_whoever_it_is_for_is_asked() -> None:
    a_quota(1000, scope=Scope.USER, feature="chat")
    use(1000, user_id="u1", feature="chat")

    assert asks(1, user_id="u1", feature="chat").refusal is Refusal.QUOTA_EXCEEDED
    assert asks(1, user_id="u2", feature="chat").is_affordable
    assert asks(1, user_id="u1", feature="voice").is_affordable
    assert asks(1).is_affordable


def test_a_customers_own_cap_is_asked_with_the_buffer() -> None:
    quotas.set_cap(TENANT, "ana", Decimal(6), "USD", BEFORE)
    use(100_000)  # three dollars

    assert can_afford(TENANT, "ana", NOW, cost=Decimal("2.5")).is_affordable
    found = can_afford(TENANT, "ana", NOW, cost=Decimal("2.6"))

    assert found.deciding.quota == "cap:USD:month:ana"
    assert found.reason is Refusal.CUSTOMER_CAP
    assert (found.available, found.required) == (Decimal(3), Decimal("3.12"))
    assert can_afford(TENANT, "bob", NOW, cost=Decimal("2.6")).is_affordable


def test_a_cap_in_another_currency_is_not_asked() -> None:
    a_quota(0, scope=Scope.CUSTOMER, measure=Measure.COST, currency="BRL")

    assert asks(1).is_affordable


def test_events_are_asked_for_one_by_one() -> None:
    a_quota(2, scope=Scope.CUSTOMER, measure=Measure.EVENTS)
    use(1)
    assert asks(1).is_affordable
    use(1, key="l")

    assert asks(1) == Check("event", Decimal(0), Decimal(1), Refusal.QUOTA_EXCEEDED, "q")


def test_an_empty_wallet_comes_before_a_quota() -> None:
    a_quota(1, scope=Scope.CUSTOMER)

    found = can_afford(TENANT, "ana", NOW, items=[tokens(10_000_000)])

    assert found.reason is Refusal.INSUFFICIENT
    assert [check.refusal for check in found.checks] == [Refusal.INSUFFICIENT, Refusal.QUOTA_EXCEEDED]


def test_tokens_that_a_plan_covers_are_asked_of_quotas_too() -> None:
    a_customer("tia", plan="tiers-8m", currencies=("BRL",), time_zone="UTC", now=BEFORE)
    a_quota(1000, scope=Scope.CUSTOMER)
    quotas.set_cap(TENANT, "tia", Decimal(0), "BRL", BEFORE)

    assert asks(1001, "tia").refusal is Refusal.QUOTA_EXCEEDED
    assert asks(1000, "tia").is_affordable


@pytest.mark.parametrize("with_quotas", [False, True])
def test_it_is_one_statement_with_quotas_and_without(*, with_quotas: bool) -> None:
    if with_quotas:
        a_quota(1000, scope=Scope.CUSTOMER)
        a_quota(1000, scope=Scope.TENANT, kind=QuotaKind.QUOTA, name="all")
    asks(1)

    with counted() as statements:
        found = can_afford(TENANT, "ana", NOW, items=[tokens(1)])

    assert len(found.checks) == (3 if with_quotas else 1)
    assert len(statements) == 1


def test_who_has_no_quotas_is_asked_for_none_until_there_is_one() -> None:
    """Not even a look into their table; and a quota that was set a moment ago, by another process, is known."""
    asks(1)
    with counted() as before:
        asks(1)
    in_transaction(lambda connection: rows.add(connection, HARD, BEFORE))  # this process keeps what it knew

    with counted() as at_once:
        found = can_afford(TENANT, "ana", NOW, items=[tokens(11)])
    with counted() as after:
        asks(11)

    assert ["FROM quotas" in statement for statement in before] == [False]
    assert [check.quota for check in found.checks] == [None, "few"]
    assert len(at_once) > 1
    assert ["FROM quotas" in statement for statement in after] == [True]


def test_another_tenants_quota_costs_nothing() -> None:
    create_tenant("other", "Other", BEFORE)
    quotas.set_quota(Wanted("other", "theirs", Decimal(1), is_hard=True), BEFORE)
    asks(1)

    with counted() as statements:
        found = can_afford(TENANT, "ana", NOW, items=[tokens(11)])

    assert [check.quota for check in found.checks] == [None]
    assert ["FROM quotas" in statement for statement in statements] == [False]


def test_who_runs_for_one_customer_teaches_the_process_nothing() -> None:
    """Quotas are hidden there: what is seen of them must not be taken for what there is."""
    a_quota(10, scope=Scope.CUSTOMER)
    catalogue.forget()

    with as_tenant(TENANT, "ana"):
        assert asks(11).is_affordable
    with as_tenant(TENANT):
        assert asks(11).refusal is Refusal.QUOTA_EXCEEDED
