"""What happened to an event, and how it was paid for."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import EventNotFound, InsufficientCredits
from billing.events import EventStep
from billing.prices import LadderSpan
from billing.quotes import BillingMethod
from db.history import Group, MethodSum
from db.prices import NewPrice
from services.books.credits import Grant, grant
from services.desk import history
from services.desk.explain import explain_event
from services.desk.history import Asked, By
from services.desk.prices import load_prices
from services.desk.trail import trail
from services.metering import parked, pending
from services.metering.recording import record_one
from services.metering.rerating import Asked as AskedAgain
from services.metering.rerating import Span, rerate
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _ana(billing_database: str) -> None:
    """Four dollars that were given."""
    catalogues(BEFORE)
    a_customer("ana", credit="4", time_zone="UTC", now=BEFORE)


def event(dollars: int = 3, key: str = "k", who: str = "ana", **fields: Any) -> Any:
    return an_event(who, [tokens(dollars * 100_000 // 3)], key=key, occurred_at=NOW, **fields)


def use(dollars: int = 3, key: str = "k", who: str = "ana", **fields: Any) -> None:
    record_usage(an_envelope(event(dollars, key, who, **fields)), NOW)


def a_price(model: str, unit_price: str) -> None:
    price = NewPrice(
        "", "llm_prompt", "openai", model, "token", "USD", Decimal(unit_price), Decimal(1), (), LadderSpan.EVENT,
        is_provider_default=False, is_ended=False, effective_from=BEFORE, revision=0, description=None,
    )  # fmt: skip
    load_prices([price], NOW)


def steps(key: str = "k") -> list[tuple[str, datetime]]:
    return [(one.step.value, one.at) for one in trail(TENANT, key)]


def test_most_events_are_received_and_charged() -> None:
    use()

    assert steps() == [("received", NOW), ("charged", NOW)]


def test_what_was_parked_says_why_and_when_it_was_replayed() -> None:
    record_usage(an_envelope(an_event("ana", [tokens(10, model="new")], key="k", occurred_at=NOW)), NOW)
    waiting = trail(TENANT, "k")
    a_price("new", "0.01")
    parked.replay_all(NOW + HOUR)

    found = trail(TENANT, "k")

    why = "unpriced: items[0] llm_prompt/openai/new/token has no price at its time"
    assert [(one.step, one.detail) for one in waiting] == [(EventStep.RECEIVED, ""), (EventStep.PARKED, why)]
    assert [(one.step, one.at, one.detail) for one in found] == [
        (EventStep.RECEIVED, NOW, ""),
        (EventStep.PARKED, NOW, why),
        (EventStep.REPLAYED, NOW + HOUR, why),
        (EventStep.CHARGED, NOW + HOUR, ""),
    ]


def test_what_was_deferred_says_each_try_to_settle_it() -> None:
    record_one(event(6), NOW, is_deferred=True)
    with pytest.raises(InsufficientCredits):
        pending.settle(TENANT, "k", NOW + HOUR)
    pending.settle(TENANT, "k", NOW + 2 * HOUR, is_forced=True)

    assert steps() == [
        ("received", NOW),
        ("deferred", NOW),
        ("settle_refused", NOW + HOUR),
        ("settled", NOW + 2 * HOUR),
        ("charged", NOW + 2 * HOUR),
    ]
    assert "'4'" in trail(TENANT, "k")[2].detail


def test_a_cancelled_one_is_cancelled_and_a_voided_one_voided() -> None:
    record_one(event(key="c"), NOW, is_deferred=True)
    pending.cancel(TENANT, "c", "the call failed", NOW + HOUR)
    use(key="v")
    void(TENANT, "v", "a mistake", NOW + HOUR)

    assert steps("c") == [("received", NOW), ("deferred", NOW), ("cancelled", NOW + HOUR)]
    assert steps("v") == [("received", NOW), ("charged", NOW), ("voided", NOW + HOUR)]


def test_a_new_rating_is_told_with_its_reason() -> None:
    use()
    dearer = NewPrice(
        TENANT, "llm_prompt", "openai", "gpt-4", "token", "USD", Decimal("0.00002"), Decimal(1), (), LadderSpan.EVENT,
        is_provider_default=False, is_ended=False, effective_from=BEFORE, revision=0, description=None,
    )  # fmt: skip

    rerate(AskedAgain(TENANT, Span.month("2026-11"), (dearer,), None, "agreed"), NOW + HOUR, is_applied=True)

    found = trail(TENANT, "k")
    assert [one.step.value for one in found] == ["received", "charged", "rerated"]
    assert found[-1].detail == "agreed"


def test_of_nothing_there_is_no_trail() -> None:
    with pytest.raises(EventNotFound):
        trail(TENANT, "nothing")


def method_of(key: str) -> list[str]:
    return [line.get("method") for line in explain_event(TENANT, key)["event"]["items"]]


def test_an_explained_line_says_how_it_was_paid_for() -> None:
    """As the quote would have said: credits while they last; then the wallet, be it debt."""
    grant(Grant(TENANT, "ana", "USD", Decimal(4), "purchase", "bought", "b"), NOW)
    a_customer("tia", plan="tiers-8m", currencies=("BRL",), time_zone="UTC", now=BEFORE)

    use(3, "given")
    use(3, "mixed")
    use(6, "owed")
    record_usage(an_envelope(an_event("tia", [tokens(8_000_000)], key="fee", occurred_at=NOW)), NOW)
    record_usage(an_envelope(an_event("tia", [tokens(1)], key="tier", occurred_at=NOW)), NOW)
    record_one(event(key="waits"), NOW, is_deferred=True)

    assert {key: method_of(key) for key in ("given", "mixed", "owed", "fee", "tier", "waits")} == {
        "given": ["credit_consumption"],
        "mixed": ["wallet_deduction"],
        "owed": ["wallet_deduction"],
        "fee": ["subscription_included"],
        "tier": ["payment_charge"],
        "waits": [None],
    }
    assert [one["step"] for one in explain_event(TENANT, "given")["trail"]] == ["received", "charged"]


def test_revenue_by_service_and_method_tells_given_from_bought() -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(1), "purchase", "bought", "b"), NOW)
    a_customer("tia", plan="tiers-8m", currencies=("BRL",), time_zone="UTC", now=BEFORE)
    use(3, "a", service_type="model_inference")
    use(3, "b", service_type="model_inference")
    use(3, "c", service_type="mcp_service")
    void(TENANT, "c", "a mistake", NOW)
    use(3, "d", service_type="mcp_service")
    record_one(event(key="e"), NOW, is_deferred=True)
    record_usage(an_envelope(an_event("tia", [tokens(100)], key="f", occurred_at=NOW)), NOW)
    asked = Asked(TENANT, None, BEFORE, NOW + HOUR)

    found = history.by_method(asked)

    assert found == [
        MethodSum("mcp_service", BillingMethod.WALLET_DEDUCTION, "USD", 1, Decimal(3)),
        MethodSum("model_inference", BillingMethod.CREDIT_CONSUMPTION, "USD", 2, Decimal(4)),
        MethodSum("model_inference", BillingMethod.WALLET_DEDUCTION, "USD", 1, Decimal(2)),
        MethodSum(None, BillingMethod.SUBSCRIPTION_INCLUDED, None, 1, Decimal(0)),
    ]
    assert sum(one.amount for one in found) == history.statistics(asked).revenue()["USD"]


def test_who_used_most_comes_first() -> None:
    a_customer("bob", time_zone="UTC", now=BEFORE)
    use(3, "a", user_id="u1", organization_id="o1")
    use(3, "b", user_id="u2", organization_id="o1")
    use(6, "c", "bob", user_id="u2")
    record_one(event(key="d", user_id="u3"), NOW, is_deferred=True)
    asked = Asked(TENANT, None, BEFORE, NOW + HOUR)

    def groups(by: By, limit: int = 50) -> list[Group]:
        return history.largest(asked, by, limit)

    assert groups(By.USER) == [
        Group("user_id", "u2", "USD", 2, 300_000, Decimal(9)),
        Group("user_id", "u1", "USD", 1, 100_000, Decimal(3)),
    ]
    assert groups(By.USER, 1) == groups(By.USER)[:1]
    assert [(one.name, one.events, one.cost) for one in groups(By.ORGANIZATION)] == [
        ("o1", 2, Decimal(6)),
        (None, 1, Decimal(6)),
    ]
    assert [(one.name, one.cost) for one in groups(By.CUSTOMER)] == [("ana", Decimal(6)), ("bob", Decimal(6))]
