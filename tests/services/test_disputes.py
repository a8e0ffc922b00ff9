"""Disputes: who is held and who is told, what is believed, and what becomes of the money and of a top-up's value."""

import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing.errors import PaymentNotFound
from billing.payments import PaymentState
from config.settings import settings
from db import collecting
from db.session import in_transaction
from payments.gateway import DisputeSnapshot
from sandbox.stripe_double.control import DoubleControl
from services.collecting.collect import claim_due
from services.collecting.disputes import look, record
from services.collecting.gateways import gateway
from services.collecting.topups import Offer, request
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import Entry, entries, one, rows, wallet
from tests.services.collecting import FEE, GOOD, owing, payment, pays_with, taken
from tests.services.elsewhere import ended, started

pytestmark = pytest.mark.usefixtures("billing_database")


def the_bank() -> DoubleControl:
    return DoubleControl(str(settings().stripe_api_base))


def intent(payment_id: UUID) -> str:
    return str(payment(payment_id, "stripe_payment_intent_id")[0])


def told(dispute_id: str) -> DisputeSnapshot:
    """What an event of now would carry."""
    return gateway().retrieve_dispute(dispute_id)


def noted(payment_id: UUID, dispute: DisputeSnapshot) -> None:
    record(TENANT, payment_id, dispute, gateway(), datetime.now(UTC))


def disputed(payment_id: UUID, amount_minor: int | None = None) -> str:
    """A dispute that the bank has opened and that we have heard of."""
    dispute_id = the_bank().open_dispute(intent(payment_id), amount_minor)
    noted(payment_id, told(dispute_id))
    return dispute_id


def held() -> list[str]:
    return [reason for (reason,) in rows("SELECT reason FROM customer_holds")]


def alerts() -> list[tuple[Any, ...]]:
    return rows("SELECT kind, times FROM alerts ORDER BY alert_id")


def collected(*, tiers: int = 1) -> list[UUID]:
    """The first payment has come in; the others are due."""
    due = owing(tiers=tiers)
    assert taken(due[0]) is PaymentState.SUCCEEDED
    return due


def bought(value: str = "50", amount_minor: int = FEE) -> UUID:
    """A top-up that has come in."""
    catalogues()
    a_customer("ana", currencies=("USD",))
    pays_with(GOOD)
    offer = Offer(Decimal(value), amount_minor, "BRL")
    top_up = request(TENANT, "ana", "USD", offer, "k", datetime.now(UTC))
    assert taken(top_up.payment_id) is PaymentState.SUCCEEDED
    return top_up.payment_id


def test_a_disputed_customers_other_payments_are_not_collected() -> None:
    """Neither handed out by a sweep nor taken when a message comes all the same."""
    first, second = collected(tiers=2)

    disputed(first)

    assert payment(first, "state") == ("disputed",)
    assert held() == ["disputed"]
    assert claim_due(datetime.now(UTC)) == []
    assert taken(second) is PaymentState.DUE
    assert alerts() == [("dispute_opened", 1)]
    detail = one("SELECT detail FROM alerts WHERE customer_id = 'ana'")[0]
    assert detail.startswith(f"the bank has taken back BRL 100.00 of payment {first} (fraudulent): du_")


def test_a_dispute_that_is_won_lets_the_customer_go() -> None:
    first, second = collected(tiers=2)
    dispute_id = disputed(first)
    the_bank().review_dispute(dispute_id)
    noted(first, told(dispute_id))
    assert (held(), payment(first, "state")) == (["disputed"], ("disputed",))

    the_bank().close_dispute(dispute_id, "won")
    noted(first, told(dispute_id))

    assert payment(first, "state, refunded_minor") == ("succeeded", 0)
    assert held() == []
    assert claim_due(datetime.now(UTC)) == [(TENANT, second)]
    assert taken(second) is PaymentState.SUCCEEDED
    assert alerts() == [("dispute_opened", 1)]


def test_a_dispute_that_is_lost_holds_until_a_person_says_otherwise() -> None:
    """And what comes later about the same loss does not contradict that person."""
    first, second = collected(tiers=2)
    dispute_id = disputed(first)

    the_bank().close_dispute(dispute_id, "lost")
    noted(first, told(dispute_id))
    assert (held(), payment(first, "state")) == (["disputed"], ("disputed",))
    in_transaction(lambda c: collecting.release(c, TENANT, "ana", ["disputed"]))
    noted(first, told(dispute_id))

    assert held() == []
    assert taken(second) is PaymentState.SUCCEEDED
    assert payment(first, "state") == ("disputed",)
    assert alerts() == [("dispute_opened", 1), ("dispute_lost", 1)]


def test_an_old_event_does_not_undo_a_newer_status() -> None:
    """The event says opened; Stripe, asked again, says won: in whatever order they come."""
    (first,) = collected()
    dispute_id = the_bank().open_dispute(intent(first))
    opened = told(dispute_id)
    the_bank().close_dispute(dispute_id, "won")

    for event in (told(dispute_id), opened, opened):
        noted(first, event)

    assert one("SELECT status FROM disputes") == ("won",)
    assert (held(), payment(first, "state"), alerts()) == ([], ("succeeded",), [])


def test_a_look_that_was_overtaken_is_taken_again() -> None:
    """Stripe was asked, then the dispute was won and somebody else noted that: what was read before is not believed."""
    (first,) = collected()
    dispute_id = disputed(first)
    the_bank().review_dispute(dispute_id)

    class Slow(type(gateway())):  # type: ignore[misc]
        looks = 0

        def retrieve_dispute(self, stripe_dispute_id: str) -> DisputeSnapshot:
            seen: DisputeSnapshot = super().retrieve_dispute(stripe_dispute_id)
            Slow.looks += 1
            if Slow.looks == 1:
                the_bank().close_dispute(dispute_id, "won")
                noted(first, told(dispute_id))
            return seen

    way = Slow("sk_test_sandbox", settings().stripe_api_base)
    record(TENANT, first, told(dispute_id), way, datetime.now(UTC))

    assert Slow.looks == 2
    assert one("SELECT status FROM disputes") == ("won",)
    assert (held(), payment(first, "state")) == ([], ("succeeded",))


def test_a_dispute_that_comes_before_our_own_commit_finds_the_payment_collected(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died before it wrote the outcome; Stripe has the money, and the bank wants it back already."""
    (due,) = owing()
    monkeypatch.setenv("CENTAVO_FAULT_DIR", str(fault_dir))
    (fault_dir / "collect.after_confirm.1").touch()
    assert ended(started("collect", TENANT, str(due)))[0] == -signal.SIGKILL
    assert payment(due, "state") == ("submitting",)

    disputed(due)

    assert payment(due, "state, attempts_made") == ("disputed", 1)
    assert one("SELECT state FROM payment_attempts") == ("succeeded",)
    assert held() == ["disputed"]


def test_an_unknown_payment_has_no_dispute() -> None:
    (first,) = collected()
    dispute_id = the_bank().open_dispute(intent(first))

    with pytest.raises(PaymentNotFound):
        noted(UUID(int=7), told(dispute_id))

    assert rows("SELECT FROM disputes") == []


def test_disputes_whose_events_never_came_are_found() -> None:
    (first,) = collected()
    the_bank().open_dispute(intent(first))

    assert [look(TENANT, first, gateway(), datetime.now(UTC)) for _ in range(2)] == [1, 1]

    assert payment(first, "state") == ("disputed",)
    assert alerts() == [("dispute_opened", 1)]


def test_a_disputed_top_up_is_taken_back_and_given_again_when_it_is_won() -> None:
    """Once each, however often it is noted; what was spent meanwhile is a debt."""
    top_up = bought("50")
    record_usage(an_envelope(an_event("ana", [tokens(100_000)])), datetime.now(UTC))
    spent = 50 - wallet("ana")
    assert spent > 0

    dispute_id = disputed(top_up)
    noted(top_up, told(dispute_id))
    assert wallet("ana") == -spent
    the_bank().close_dispute(dispute_id, "won")
    for _ in range(2):
        noted(top_up, told(dispute_id))

    assert wallet("ana") == 50 - spent
    assert [(entry.kind, entry.amount) for entry in entries("ana")] == [
        ("purchase", 50),
        ("usage", -spent),
        ("refund", -50),
        ("reversal", 50),
    ]
    assert rows("SELECT DISTINCT payment_id FROM ledger_entries WHERE kind <> 'usage'") == [(top_up,)]
    assert payment(top_up, "state, credit_given") == ("succeeded", 50)


def test_a_part_that_is_disputed_takes_that_share_of_the_value() -> None:
    top_up = bought("30", 10_000)

    dispute_id = disputed(top_up, 2_500)

    assert wallet("ana") == Decimal("22.5")
    assert entries("ana")[-1] == Entry(2, "refund", Decimal("-7.5"), Decimal("22.5"))
    the_bank().close_dispute(dispute_id, "lost")
    noted(top_up, told(dispute_id))
    assert wallet("ana") == Decimal("22.5")
    assert payment(top_up, "state, credit_given") == ("disputed", Decimal("22.5"))


def test_a_bank_that_only_asks_holds_the_customer_and_takes_nothing() -> None:
    """Until it takes the money after all: then a person is told again."""
    top_up = bought("50")
    dispute_id = the_bank().open_dispute(intent(top_up))

    class Bank(type(gateway())):  # type: ignore[misc]
        """The way to Stripe, with a bank that asks first: the double's take the money at once."""

        status = "warning_needs_response"

        def retrieve_dispute(self, stripe_dispute_id: str) -> DisputeSnapshot:
            seen: DisputeSnapshot = super().retrieve_dispute(stripe_dispute_id)
            return replace(seen, status=self.status)

    bank = Bank("sk_test_sandbox", settings().stripe_api_base)
    seen: list[tuple[Any, ...]] = []
    for status in ("warning_needs_response", "warning_under_review", "needs_response", "under_review", "prevented"):
        bank.status = status
        record(TENANT, top_up, told(dispute_id), bank, datetime.now(UTC))
        seen.append((payment(top_up, "state")[0], held(), int(wallet("ana")), alerts()))

    assert seen == [
        ("succeeded", ["disputed"], 50, [("dispute_opened", 1)]),
        ("succeeded", ["disputed"], 50, [("dispute_opened", 1)]),
        ("disputed", ["disputed"], 0, [("dispute_opened", 2)]),
        ("disputed", ["disputed"], 0, [("dispute_opened", 2)]),
        ("succeeded", [], 50, [("dispute_opened", 2)]),
    ]


def test_the_hold_ends_with_the_last_dispute() -> None:
    first, second = collected(tiers=2)
    taken(second)
    disputes = [disputed(first), disputed(second)]

    for number, (owner, dispute_id) in enumerate(zip((first, second), disputes, strict=True)):
        assert held() == ["disputed"], number
        the_bank().close_dispute(dispute_id, "won")
        record(TENANT, owner, told(dispute_id), gateway(), datetime.now(UTC) + timedelta(days=number))

    assert held() == []
