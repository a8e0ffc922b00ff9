"""What the demo compares its outcome with, and that it notices when one of them is not as it should be."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from sandbox.demo import Report, compared, compared_with_stripe
from sandbox.demo_plan import Expected, event_of, expectations, expected_payments
from sandbox.trace import TraceRow
from services.desk.reports import CustomerSummary
from services.oversight.audit import Audit

NOW = datetime(2026, 11, 20, tzinfo=UTC)
BEFORE = {"customer-0": Decimal(0), "customer-1": Decimal(1000), "customer-2": Decimal(0)}
EXPECTED = expectations([TraceRow(NOW, 9_000_000, 10)] * 3, 3)
RIGHT = [
    CustomerSummary(
        "customer-0",
        "tiers-8m",
        1,
        9_000_010,
        Decimal(0),
        {"BRL": Decimal(0)},
        {("subscription", "succeeded"): (1, 40_000), ("tier", "succeeded"): (1, 10_000)},
    ),
    CustomerSummary("customer-1", "prepaid", 1, 9_000_010, Decimal("270.0006"), {"USD": Decimal("729.9994")}, {}),
    CustomerSummary(
        "customer-2",
        "tiers-8m",
        1,
        9_000_010,
        Decimal(0),
        {"BRL": Decimal(0)},
        {("subscription", "retry_scheduled"): (1, 40_000), ("tier", "retry_scheduled"): (1, 10_000)},
    ),
]
CAPTURED: dict[str, Any] = {"totals": {"brl": 50_000}, "payments": {"p": {"successes": 1}}}


def test_the_expectation_follows_from_the_trace_alone() -> None:
    """Even customers by tiers, odd ones by the token; the declining card is customer 2's."""
    assert list(EXPECTED.items()) == [
        ("customer-0", Expected("tiers-8m", 1, 9_000_010, Decimal(0))),
        ("customer-1", Expected("prepaid", 1, 9_000_010, Decimal("270.0006"))),
        ("customer-2", Expected("tiers-8m", 1, 9_000_010, Decimal(0))),
    ]


@pytest.mark.parametrize(
    ("tokens", "payments"),
    [
        (0, {}),
        (8_000_000, {}),
        (8_000_001, {("tier", "succeeded"): (1, 10_000)}),
        (16_000_000, {("tier", "succeeded"): (1, 10_000)}),
        (16_000_001, {("tier", "succeeded"): (2, 20_000)}),
        (168_000_000, {("tier", "succeeded"): (19, 190_000), ("tier", "awaiting_approval"): (1, 10_000)}),
    ],
)
def test_the_payments_expected_follow_from_the_tokens(tokens: int, payments: dict[Any, Any]) -> None:
    """The fee, and beyond the 8 million that it covers, each 8 million begun; by themselves, twenty payments a day."""
    fee = {("subscription", "succeeded"): (1, 40_000)}
    assert expected_payments("customer-0", Expected("tiers-8m", 1, tokens)) == fee | payments
    assert expected_payments("customer-1", Expected("prepaid", 1, tokens)) == {}


def test_a_card_that_declines_is_not_asked_a_third_time() -> None:
    """The fee and the first tier are tried; what else is owed waits."""
    assert expected_payments("customer-2", Expected("tiers-8m", 1, 24_000_001)) == {
        ("subscription", "retry_scheduled"): (1, 40_000),
        ("tier", "retry_scheduled"): (1, 10_000),
        ("tier", "due"): (2, 20_000),
    }


def test_an_event_of_the_trace_has_two_items_and_a_key_of_its_row() -> None:
    """Row i belongs to customer i modulo n."""
    event = event_of(7, NOW, 100, 20, 3)

    assert (event.tenant_id, event.customer_id, event.key, event.occurred_at) == ("demo", "customer-1", "trace-7", NOW)
    assert [(i.category, i.provider, i.model, i.unit, i.quantity) for i in event.items] == [
        ("llm_prompt", "openai", "gpt-4", "token", Decimal(100)),
        ("llm_completion", "openai", "gpt-4", "token", Decimal(20)),
    ]


def test_what_is_right_is_no_difference() -> None:
    assert list(compared(EXPECTED, BEFORE, RIGHT)) == []
    assert list(compared_with_stripe(CAPTURED, RIGHT)) == []


def _paid(tier: tuple[str, str], number: int, amount_minor: int) -> dict[str, Any]:
    """The fee as it must be, and the tier in another way."""
    return {"payments": {("subscription", "succeeded"): (1, 40_000), tier: (number, amount_minor)}}


FALSE: dict[str, tuple[int, dict[str, Any], str]] = {
    "an event more": (0, {"events": 2}, "customer-0: events: expected 1, found 2"),
    "a token less": (1, {"tokens": 9_000_009}, "customer-1: tokens: expected 9000010, found 9000009"),
    "another cost": (1, {"cost": Decimal(270)}, "customer-1: cost: expected 270.0006, found 270"),
    "another balance": (
        1,
        {"balances": {"USD": Decimal("729.999400000001")}},
        "customer-1: wallet: expected 729.9994, found 729.999400000001",
    ),
    "another plan": (0, {"plan_id": "prepaid"}, "customer-0: plan: expected tiers-8m, found prepaid"),
    "a payment twice": (0, _paid(("tier", "succeeded"), 2, 20_000), "customer-0: payments: expected "),
    "a payment of less": (0, _paid(("tier", "succeeded"), 1, 9_999), "customer-0: payments: expected "),
    "a payment that waits": (0, _paid(("tier", "due"), 1, 10_000), "customer-0: payments: expected "),
    "a fee that is not owed": (1, _paid(("tier", "due"), 1, 10_000), "customer-1: payments: expected "),
    "a fee that is missing": (0, {"payments": {("tier", "succeeded"): (1, 10_000)}}, "customer-0: payments: expected "),
    "a decline that went through": (2, _paid(("tier", "succeeded"), 1, 10_000), "customer-2: payments: expected "),
}


@pytest.mark.parametrize(("which", "fields", "said"), FALSE.values(), ids=FALSE)
def test_each_fact_that_is_false_is_named(which: int, fields: dict[str, Any], said: str) -> None:
    """By customer and fact; the others are not."""
    summaries = [replace(one, **fields) if number == which else one for number, one in enumerate(RIGHT)]

    (difference,) = compared(EXPECTED, BEFORE, summaries)

    assert difference.startswith(said)


def test_a_customer_that_is_missing_or_made_up_is_named() -> None:
    """Whatever the others have."""
    stranger = replace(RIGHT[1], customer_id="customer-9")

    assert list(compared(EXPECTED, BEFORE, [RIGHT[0], RIGHT[2], stranger])) == [
        "customer-1: a customer that is missing",
        "customer-9: a customer that is not expected",
    ]


@pytest.mark.parametrize(
    ("captured", "said"),
    [
        ({"totals": {}, "payments": {}}, "Stripe captured 0 minor units, 50000 are recorded as succeeded"),
        ({**CAPTURED, "totals": {"brl": 60_000}}, "Stripe captured 60000 minor units, 50000 are recorded"),
        ({**CAPTURED, "payments": {"p": {"successes": 2}}}, "payment p was captured 2 times"),
    ],
)
def test_money_that_stripe_took_otherwise_is_named(captured: dict[str, Any], said: str) -> None:
    """Too little, too much, or twice from one payment."""
    (difference,) = compared_with_stripe(captured, RIGHT)

    assert difference.startswith(said)


def a_report(*, contradictions: int = 0, differences: int = 0, charged: int = 3, parked: int = 0) -> Report:
    counts = {"charged": charged, "parked_events": parked, "parked_inputs": 0}
    audit = Audit(counts, {"a check": differences}, [])
    return Report(3, 4, 1.5, BEFORE, RIGHT, ["no"] * contradictions, audit)


def test_a_report_holds_only_if_everything_agrees() -> None:
    """The expectation, the audit, the number of charged events, and nothing parked."""
    assert a_report().holds
    assert a_report().events_per_second == 2
    for wrong in (
        a_report(contradictions=1),
        a_report(differences=1),
        a_report(charged=2),
        a_report(charged=4),
        a_report(charged=2, parked=1),
        a_report(parked=1),
    ):
        assert not wrong.holds
    assert a_report(contradictions=2, differences=30).differences == 32
