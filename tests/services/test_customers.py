"""Customers, their wallets and their cards; tenants and their plans."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import requests

from billing.errors import AlreadyExists, CustomerNotFound, PlanNotFound, Rejected, TenantNotFound
from config.settings import SANDBOX_STRIPE_KEY, settings
from payments.gateway import GatewayRejected
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.books.tenants import create_tenant, load_plans, plans_of
from services.collecting.cards import attach
from services.collecting.gateways import gateway
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues
from tests.looking import one, parked_reasons, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def at_stripe(path: str) -> Any:
    with requests.Session() as http:
        http.trust_env = False
        headers = {"Authorization": f"Bearer {SANDBOX_STRIPE_KEY}", "Stripe-Version": "2026-10-28.endive"}
        return http.get(f"{settings().stripe_api_base}{path}", headers=headers, timeout=15).json()


def test_a_customer_has_a_wallet_in_each_currency() -> None:
    catalogues()
    wanted = NewCustomer(TENANT, "ana", "prepaid", currencies=("USD", "CREDIT"))

    assert create_customers([wanted], NOW) == 1
    assert create_customers([wanted], NOW) == 0

    assert rows("SELECT currency, balance FROM wallets ORDER BY currency") == [("CREDIT", 0), ("USD", 0)]


def test_without_currencies_there_is_a_wallet_in_that_of_the_plan() -> None:
    """The wallet is the customer's lock: nobody is without one."""
    catalogues()

    create_customers([NewCustomer(TENANT, "ana", "tiers-8m")], NOW)

    assert rows("SELECT currency FROM wallets") == [("BRL",)]


def test_a_customer_may_get_a_further_wallet_later() -> None:
    """A process that keeps the customer in memory charges it from then on; what was parked before stays so."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", currencies=("BRL",))
    assert record_usage(an_envelope(an_event(key="before")), now).parked == 1

    assert create_customers([NewCustomer(TENANT, "ana", "prepaid", currencies=("USD",))], now) == 0

    assert record_usage(an_envelope(an_event(key="after")), now).charged == 1
    assert (wallet("ana"), wallet("ana", "BRL")) == (Decimal("-0.03"), Decimal(0))
    assert parked_reasons() == {"currency_mismatch": 1}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"plan_id": "gold"}, PlanNotFound),
        ({"tenant_id": "nobody"}, PlanNotFound),
        ({"time_zone": "Mars/Olympus"}, Rejected),
        ({"time_zone": "../etc/passwd"}, Rejected),
        ({"currencies": ("usd",)}, Rejected),
        ({"currencies": ("USD", "COINS")}, Rejected),
        ({"customer_id": "ana", "plan_id": "tiers-8m"}, AlreadyExists),
        ({"customer_id": "ana", "time_zone": "UTC"}, AlreadyExists),
    ],
)
def test_customers_that_cannot_be_are_refused_with_all_that_came_with_them(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    catalogues()
    a_customer("ana")
    good = NewCustomer(TENANT, "bob", "prepaid")

    with pytest.raises(error):
        create_customers([good, replace(good, **({"customer_id": "eve"} | changes))], NOW)

    assert rows("SELECT customer_id FROM customers") == [("ana",)]


def test_a_customer_stays_on_the_version_of_the_plan_they_began_with() -> None:
    catalogues()
    a_customer("ana")
    dearer = [replace(plan, fixed_fee_minor=50_000) for plan in read_plans("default")]
    load_plans(TENANT, dearer, NOW)

    a_customer("bob")

    assert rows("SELECT customer_id, plan_version FROM customers ORDER BY 1") == [("ana", 1), ("bob", 2)]


def test_plans_that_are_the_same_stay_and_changed_ones_become_the_next_version() -> None:
    create_tenant(TENANT, "Acme", NOW)
    tiers, prepaid, _ = read_plans("default")

    first = load_plans(TENANT, [tiers, prepaid], NOW)
    again = load_plans(TENANT, [tiers, prepaid], NOW)
    changed = load_plans(TENANT, [replace(tiers, tier_fee_minor=12_000), prepaid], NOW)

    assert [(plan.plan_id, plan.version) for plan in first] == [("tiers-8m", 1), ("prepaid", 1)]
    assert again == []
    assert [(plan.plan_id, plan.version, plan.tier_fee_minor) for plan in changed] == [("tiers-8m", 2, 12_000)]
    assert plans_of(TENANT) == sorted([*first, *changed], key=lambda plan: (plan.plan_id, plan.version))


def test_plans_belong_to_a_tenant_that_exists() -> None:
    with pytest.raises(TenantNotFound):
        load_plans("nobody", read_plans("default"), NOW)


@pytest.mark.parametrize("currency", ["KWD", "ISK"])
def test_a_plan_may_have_no_fee_that_stripe_would_refuse(currency: str) -> None:
    """By the day it could come to any number of minor units, of which Stripe takes every tenth or hundredth."""
    catalogues()
    tiers, prepaid, _ = (replace(plan, payment_currency=currency) for plan in read_plans("default"))

    with pytest.raises(Rejected, match=f"nothing is collected in {currency}"):
        load_plans(TENANT, [prepaid, tiers], NOW)
    assert [plan.plan_id for plan in load_plans(TENANT, [prepaid], NOW)] == ["prepaid"]


def test_a_tenant_is_made_once() -> None:
    assert create_tenant(TENANT, "Acme", NOW)
    assert not create_tenant(TENANT, "Other", NOW)

    assert rows("SELECT name FROM tenants") == [("Acme",)]


def test_a_card_makes_a_customer_at_stripe_and_a_second_card_takes_its_place() -> None:
    catalogues()
    a_customer("ana")

    first = attach(TENANT, "ana", "pm_card_visa", gateway(), NOW, name="Ana")
    second = attach(TENANT, "ana", "pm_card_mastercard", gateway(), NOW)

    (stripe_customer,) = at_stripe("/v1/customers")["data"]
    assert stripe_customer["name"] == "Ana"
    assert stripe_customer["metadata"]["customer_id"] == "ana"
    assert first != second
    assert one("SELECT stripe_customer_id, default_payment_method_id FROM customers") == (
        stripe_customer["id"],
        second,
    )


def test_a_crash_before_the_customer_was_noted_makes_no_second_one_at_stripe() -> None:
    """The key says who it is: Stripe answers the same customer again."""
    catalogues()
    a_customer("ana")
    attach(TENANT, "ana", "pm_card_visa", gateway(), NOW)
    known = one("SELECT stripe_customer_id FROM customers")
    one("UPDATE customers SET stripe_customer_id = NULL, default_payment_method_id = NULL RETURNING 1")

    attach(TENANT, "ana", "pm_card_visa", gateway(), NOW)

    assert one("SELECT stripe_customer_id FROM customers") == known
    assert len(at_stripe("/v1/customers")["data"]) == 1


def test_any_name_can_have_a_card() -> None:
    """No name ends up in an HTTP header, where it might not fit."""
    catalogues()
    names = ["日本のお客様", "a b", "x" * 128]
    for name in names:
        attach(TENANT, a_customer(name), "pm_card_visa", gateway(), NOW)

    assert one("SELECT count(DISTINCT stripe_customer_id) FROM customers") == (len(names),)


def test_a_card_that_is_refused_changes_nothing() -> None:
    catalogues()
    a_customer("ana")
    attach(TENANT, "ana", "pm_card_visa", gateway(), NOW)
    before = one("SELECT stripe_customer_id, default_payment_method_id FROM customers")

    with pytest.raises(GatewayRejected):
        attach(TENANT, "ana", "pm_card_chargeDeclined", gateway(), NOW)

    assert one("SELECT stripe_customer_id, default_payment_method_id FROM customers") == before


def test_a_card_belongs_to_somebody() -> None:
    catalogues()

    with pytest.raises(CustomerNotFound):
        attach(TENANT, "nobody", "pm_card_visa", gateway(), NOW)

    assert at_stripe("/v1/customers")["data"] == []


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "\ud800", "a\udcff"])
def test_what_no_row_could_keep_is_no_name(name: str) -> None:
    catalogues()

    with pytest.raises(Rejected, match="a tenant's id is text"):
        create_tenant(name, "x", NOW)
    with pytest.raises(Rejected, match="a customer's id is text"):
        create_customers([NewCustomer(TENANT, name, "prepaid")], NOW)
    with pytest.raises(Rejected, match="a tenant's name is text"):
        create_tenant("other", name, NOW)

    assert rows("SELECT tenant_id FROM tenants") == [(TENANT,)]
    assert rows("SELECT customer_id FROM customers") == []
