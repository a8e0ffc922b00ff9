"""Tiers that are owed no longer since usage was voided, and those that begin again."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from billing.errors import Rejected
from billing.payments import PaymentState
from config.settings import settings
from sandbox.stripe_double.control import DoubleControl
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.collecting import disputes, refunds, voiding
from services.collecting.collect import claim_due
from services.collecting.gateways import gateway
from services.collecting.unowed import Unowed
from services.metering.usage import record_usage
from services.metering.voiding_usage import VoidedEvent, void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows
from tests.services.collecting import DECLINES, FEE, GOOD, at_stripe, captured, pays_with, taken
from tests.services.correcting import month_turns

pytestmark = pytest.mark.usefixtures("billing_database")

TIER = 8_000_000


def now() -> datetime:
    return datetime.now(UTC)


def subscribed(card: str = GOOD, plan: str = "tiers-8m") -> None:
    """Ana, with a card; her first event is within what the fee covers."""
    catalogues(now())
    if plan != "tiers-8m":
        tenants.load_plans(TENANT, read_plans(plan), now())
        plan = "kept"
    a_customer("ana", plan=plan, currencies=("BRL",))
    pays_with(card)
    use("covered", TIER)


def use(key: str, quantity: int = TIER) -> None:
    record_usage(an_envelope(an_event("ana", [tokens(quantity)], key=key)), now())


def voided(key: str) -> VoidedEvent:
    return void(TENANT, key, "a mistake", now())


def tier_payments() -> list[tuple[int, int, str, bool]]:
    """(tier, generation, state, owed no longer) of every tier payment."""
    return rows("SELECT tier, generation, state, unowed_at IS NOT NULL FROM payments WHERE kind = 'tier' ORDER BY 1, 2")


def id_of(tier: int, generation: int = 0) -> UUID:
    found: UUID = one("SELECT payment_id FROM payments WHERE tier = %s AND generation = %s", tier, generation)[0]
    return found


def reached() -> tuple[int, int]:
    tokens_now, tiers = one("SELECT tokens, tiers_reached FROM periods")
    return tokens_now, tiers


def test_a_tier_that_was_not_collected_is_voided() -> None:
    """Of two tiers that one event began, both; what came before it stays."""
    subscribed()
    use("a")
    use("b", 2 * TIER)

    assert voided("b").tiers == Unowed(voided=2)

    assert tier_payments() == [(1, 0, "due", False), (2, 0, "voided", True), (3, 0, "voided", True)]
    assert reached() == (2 * TIER, 1)
    assert [(TENANT, id_of(1))] == claim_due(now())
    assert one("SELECT why FROM payment_log WHERE payment_id = %s ORDER BY entry_id DESC LIMIT 1", id_of(3)) == (
        "voided: tier 3 is owed no longer: event b was voided",
    )


def test_a_tier_that_is_still_owed_stays() -> None:
    subscribed()
    use("a", 3)
    use("b", 3)

    assert voided("a").tiers == Unowed()

    assert tier_payments() == [(1, 0, "due", False)]
    assert reached() == (TIER + 3, 1)


def test_a_tier_whose_collecting_is_under_way_is_canceled() -> None:
    subscribed(DECLINES)
    use("a")
    taken(id_of(1))

    voided("a")

    assert tier_payments() == [(1, 0, "retry_scheduled", True)]
    assert claim_due(now()) == [(TENANT, id_of(1))]
    assert taken(id_of(1)) is PaymentState.VOIDED
    assert [intent["status"] for intent in at_stripe("/v1/payment_intents")["data"]] == ["canceled"]


def test_a_tier_that_was_paid_goes_back() -> None:
    subscribed()
    use("a")
    taken(id_of(1))

    assert voided("a").tiers == Unowed(refunded=1)
    assert carried_out() == 1

    assert tier_payments() == [(1, 0, "refunded", True)]
    assert captured() == {id_of(1): (FEE, 1)}
    assert [refund["amount"] for refund in at_stripe("/v1/refunds")["data"]] == [FEE]


def carried_out() -> int:
    due = refunds.claim_due(now())
    for tenant_id, refund_id in due:
        refunds.carry_out(tenant_id, refund_id, gateway(), now())
    return len(due)


def test_a_refund_that_a_caller_asks_for_is_not_in_the_way_of_what_is_owed() -> None:
    """Whatever its key: under one like ours, the rest would never go back."""
    subscribed()
    use("a")
    assert taken(id_of(1)) is PaymentState.SUCCEEDED

    for word in ("unowed", "void", "prorate"):
        with pytest.raises(Rejected, match="take another"):
            refunds.refund(TENANT, id_of(1), 1, "courtesy", f"{word}:{id_of(1)}", now())

    assert voided("a").tiers == Unowed(refunded=1)
    assert rows("SELECT amount_minor FROM refunds") == [(FEE,)]


def test_of_a_tier_that_was_given_back_in_part_the_rest_goes_back() -> None:
    subscribed()
    use("a")
    taken(id_of(1))
    refunds.refund(TENANT, id_of(1), 3_000, "courtesy", "k", now())
    carried_out()
    refunds.refund(TENANT, id_of(1), 1_000, "courtesy", "l", now())

    voided("a")
    carried_out()

    assert tier_payments() == [(1, 0, "refunded", True)]
    assert sorted(row[0] for row in rows("SELECT amount_minor FROM refunds")) == [1_000, 3_000, FEE - 4_000]


def test_of_a_disputed_tier_what_the_bank_has_goes_back_when_it_is_won() -> None:
    subscribed()
    use("a")
    taken(id_of(1))
    bank = DoubleControl(str(settings().stripe_api_base))
    intent_id = one("SELECT stripe_payment_intent_id FROM payments")[0]
    dispute_id = bank.open_dispute(intent_id, None)
    disputes.record(TENANT, id_of(1), gateway().retrieve_dispute(dispute_id), gateway(), now())

    voided("a")
    assert rows("SELECT 1 FROM refunds") == []
    bank.close_dispute(dispute_id, "won")
    disputes.record(TENANT, id_of(1), gateway().retrieve_dispute(dispute_id), gateway(), now())
    carried_out()

    assert tier_payments() == [(1, 0, "refunded", True)]


def a_plan_that_keeps(folder: Path) -> str:
    plan = {"plan_id": "kept", "name": "Kept", "payment_currency": "BRL", "included_tokens": TIER, "tier_size": TIER}
    plan |= {"tier_fee_minor": FEE, "unowed_tiers": "keep"}
    path = folder / "plans.json"
    path.write_text(json.dumps({"plans": [plan]}))
    return str(path)


def test_a_plan_that_keeps_keeps_what_was_paid_until_the_tier_begins_again(tmp_path: Path) -> None:
    subscribed(plan=a_plan_that_keeps(tmp_path))
    use("a")
    taken(id_of(1))

    assert voided("a").tiers == Unowed(kept=1)
    assert tier_payments() == [(1, 0, "succeeded", False)]
    use("b", 2 * TIER)

    assert tier_payments() == [(1, 0, "succeeded", False), (2, 0, "due", False)]


def test_a_tier_that_begins_again_falls_due_again() -> None:
    """Once as the next generation of its payment, and once more as the one after."""
    subscribed()
    use("a")
    voided("a")
    use("b")
    assert tier_payments() == [(1, 0, "voided", True), (1, 1, "due", False)]
    taken(id_of(1, 1))
    voided("b")
    carried_out()

    use("c", 2 * TIER)

    assert tier_payments() == [
        (1, 0, "voided", True),
        (1, 1, "refunded", True),
        (1, 2, "due", False),
        (2, 0, "due", False),
    ]
    assert one("SELECT why, detail->>'event_key' FROM payment_log WHERE payment_id = %s", id_of(1, 2)) == (
        "usage has begun this tier again; it was owed no longer for a while",
        "c",
    )
    assert taken(id_of(1, 2)) is PaymentState.SUCCEEDED


def test_a_tier_owed_again_while_the_old_one_is_canceled_is_taken_once() -> None:
    subscribed(DECLINES)
    use("a")
    taken(id_of(1))
    voided("a")
    use("b")
    pays_with(GOOD)

    for _ in range(2):
        for tenant_id, payment_id in claim_due(now() + timedelta(seconds=1)):
            assert tenant_id == TENANT
            taken(payment_id, now() + timedelta(seconds=1))

    assert tier_payments() == [(1, 0, "voided", True), (1, 1, "succeeded", False)]
    assert captured() == {id_of(1, 1): (FEE, 1)}


def test_what_a_person_waived_stays_waived() -> None:
    """Voided by hand, its tier is neither let go nor owed again."""
    subscribed()
    use("a")
    use("b")
    voiding.void(TENANT, id_of(2), "courtesy", now())

    assert voided("b").tiers == Unowed()
    use("c")

    assert tier_payments() == [(1, 0, "due", False), (2, 0, "voided", False)]
    assert one("SELECT void_reason FROM payments WHERE tier = 2") == ("courtesy",)


def test_what_a_person_gave_back_stays_given_back() -> None:
    subscribed()
    use("a")
    taken(id_of(1))
    refunds.refund(TENANT, id_of(1), None, "courtesy", "k", now())
    carried_out()

    assert voided("a").tiers == Unowed()
    use("b")

    assert tier_payments() == [(1, 0, "refunded", False)]


def test_a_tier_of_a_month_that_is_closed_is_let_go_and_told_in_the_next_statement() -> None:
    subscribed()
    use("a")
    taken(id_of(1))
    period_end = one("SELECT ends_at FROM periods")[0]
    closed_at = period_end + timedelta(days=10)
    month_turns(closed_at)

    void(TENANT, "a", "a mistake", closed_at)
    for tenant_id, refund_id in refunds.claim_due(closed_at):
        refunds.carry_out(tenant_id, refund_id, gateway(), closed_at)
    month_turns(period_end + timedelta(days=42))

    about_tiers = "SELECT number, kind, amount FROM statement_lines WHERE payment_id = %s ORDER BY number, line"
    assert rows(about_tiers, id_of(1)) == [
        (1, "tier", 100),
        (1, "collected", -100),
        (2, "voided", -100),
        (2, "refunded", 100),
    ]
    assert rows("SELECT tiers FROM statements ORDER BY number") == [(1,), (0,)]
