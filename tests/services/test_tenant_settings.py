"""A tenant has some settings of its own: they hold wherever the installation's do, for it alone, and are on record."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.access import Through
from billing.errors import InsufficientCredits, Rejected, TenantNotFound
from billing.tenant_settings import TenantSettings
from db.scope import as_tenant
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.cycle import months
from services.desk import tenant_settings
from services.desk.access import Actor
from services.desk.credit_holds import HoldWish, reserve
from services.desk.wallets import balance, can_afford, set_low_balance
from services.oversight import auditing, watching
from tests.factories import TENANT, a_customer, catalogues, tokens
from tests.looking import one, rows

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
ROOT = Actor("root", Through.COMMAND_LINE)


def choose(tenant_id: str = TENANT, **changes: Any) -> TenantSettings:
    return tenant_settings.change(tenant_id, changes, ROOT, NOW).in_force


def another_tenant() -> None:
    """Beta, whose ana has nothing."""
    tenants.create_tenant("beta", "Beta", BEFORE)
    tenants.load_plans("beta", read_plans("default"), BEFORE)
    create_customers([NewCustomer("beta", "ana", "prepaid", "UTC", ("USD",))], BEFORE)


def test_what_is_not_set_is_as_the_installation_has_it() -> None:
    catalogues(BEFORE)

    before = tenant_settings.of_tenant(TENANT)
    after = choose(affordability_buffer=Decimal("1.5"), low_balance="5, CREDIT=200")
    back = choose(affordability_buffer=None)

    assert before.own == TenantSettings()
    assert before.in_force == TenantSettings(
        Decimal(10_000),
        Decimal("1.2"),
        {"": Decimal(1), "CREDIT": Decimal(1000)},
        Decimal(0),
        Decimal(0),
    )
    assert (after.affordability_buffer, after.low_balance) == (
        Decimal("1.5"),
        {"": Decimal(5), "CREDIT": Decimal(200)},
    )
    assert (back.affordability_buffer, back.low_balance) == (Decimal("1.2"), after.low_balance)
    assert rows("SELECT subject, through, action, target, detail FROM admin_acts ORDER BY act_id") == [
        (
            *("root", "command_line", "settings.change", TENANT),
            {"affordability_buffer": "1.5", "low_balance": "5, CREDIT=200"},
        ),
        ("root", "command_line", "settings.change", TENANT, {"affordability_buffer": None}),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"free_tier_credits": Decimal(-1)},
        {"free_tier_credits": Decimal("0.0000000000001")},
        {"audit_alert_percent": Decimal("NaN")},
        {"affordability_buffer": Decimal("0.9")},
        {"affordability_buffer": Decimal(101)},
        {"low_balance": "five"},
        {"low_balance": "usd=5"},
        {"low_balance": "\0=5"},
        {"low_requests_per_minute": 0},
        {"unpaid_fee_stops": "never"},
    ],
)
def test_what_can_not_be_set_is_refused(changes: dict[str, Any]) -> None:
    catalogues(BEFORE)

    with pytest.raises(Rejected):
        choose(**changes)
    assert one("SELECT count(*) FROM tenant_settings") == (0,)


def test_there_must_be_such_a_tenant() -> None:
    with pytest.raises(TenantNotFound):
        choose("nobody", affordability_buffer=Decimal(2))
    with pytest.raises(TenantNotFound):
        tenant_settings.of_tenant("nobody")


def test_its_buffer_is_asked_by_checks_and_holds() -> None:
    """Unless the caller says one; of that tenant alone."""
    catalogues(BEFORE)
    a_customer("ana", credit="15", now=BEFORE)
    asked: dict[str, Any] = {"cost": Decimal(10)}
    assert can_afford(TENANT, "ana", NOW, **asked).required == 12

    choose(affordability_buffer=Decimal(2))

    assert can_afford(TENANT, "ana", NOW, **asked).required == 20
    assert not can_afford(TENANT, "ana", NOW, **asked).is_affordable
    assert can_afford(TENANT, "ana", NOW, buffer=Decimal(1), **asked).is_affordable
    with as_tenant(TENANT, "ana"):
        assert can_afford(TENANT, "ana", NOW, **asked).required == 20
    with pytest.raises(InsufficientCredits):
        reserve(HoldWish(TENANT, "ana", "h", items=[tokens(333_334)]), NOW)
    another_tenant()
    assert can_afford("beta", "ana", NOW, **asked).required == 12


@pytest.mark.parametrize(
    ("low_balance", "own", "expected"),
    [
        ("20", None, Decimal(20)),
        ("20, USD=15.5", None, Decimal("15.5")),
        ("USD=9", None, Decimal(9)),
        ("EUR=9", None, None),
        ("", None, None),
        ("20", "3", Decimal(3)),
    ],
)
def test_its_threshold_says_when_a_wallet_is_low(low_balance: str, own: str | None, expected: Decimal | None) -> None:
    """To whoever asks, and to the look for alerts, the same; the wallet's own comes first."""
    catalogues(BEFORE)
    a_customer("ana", credit="10", now=BEFORE)
    if own is not None:
        set_low_balance(TENANT, "ana", "USD", Decimal(own))
    choose(low_balance=low_balance)

    (wallet,) = balance(TENANT, "ana", NOW).wallets
    watching.look(NOW)

    assert wallet.low_below == expected
    assert wallet.is_low == (expected is not None and expected > 10)
    assert bool(rows("SELECT 1 FROM alert_causes WHERE kind = 'low_balance'")) == wallet.is_low


def test_its_free_credits_come_with_its_months_alone() -> None:
    """On plans that don't say how many."""
    catalogues(BEFORE)
    another_tenant()
    choose(free_tier_credits=Decimal(7))
    for tenant_id in (TENANT, "beta"):
        create_customers([NewCustomer(tenant_id, "eva", "free", "UTC", ("CREDIT",))], NOW)

    (wallet,) = balance(TENANT, "eva", NOW).wallets
    months.turn_due(NOW)

    assert wallet.next_reset is not None
    assert wallet.next_reset.amount == 7
    found = "SELECT tenant_id, amount FROM credit_grants WHERE source = 'free' ORDER BY 1"
    assert rows(found) == [(TENANT, 7), ("beta", 10_000)]


@pytest.mark.parametrize(("percent", "is_told"), [(Decimal(0), True), (Decimal(100), False)])
def test_its_audit_alert_has_its_threshold(percent: Decimal, is_told: bool) -> None:
    catalogues(BEFORE)
    a_customer("ana", credit="10", now=BEFORE)
    choose(audit_alert_percent=percent, audit_alert_value_percent=percent)
    rows("UPDATE wallets SET last_seq = last_seq + 1 RETURNING 1")

    auditing.audit_due(NOW)

    assert bool(rows("SELECT 1 FROM alerts WHERE kind = 'audit_differs'")) == is_told
    rows("UPDATE wallets SET last_seq = last_seq - 1 RETURNING 1")
