"""Collecting again: after crashes, while Stripe is away, and with what was left there in an earlier life."""

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing.errors import BrokenInvariant
from billing.payments import PaymentState
from config.settings import settings
from db.session import in_transaction
from payments.gateway import GatewayRejected, GatewayUnavailable, IntentRequest
from payments.stripe_gateway import StripeGateway
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.calls import Call
from sandbox.stripe_double.control import CONFIRM, DoubleControl
from sandbox.stripe_double.errors import ApiError
from sandbox.stripe_double.server import served
from services.collecting import collect as collecting
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.collecting.sync import sync
from services.oversight.audit import audit
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.collecting import (
    DAY,
    DECLINES,
    FEE,
    at_stripe,
    attempts,
    captured,
    charges,
    due_again,
    impatient,
    later,
    owing,
    payment,
    taken,
)
from tests.services.elsewhere import ended, started

pytestmark = pytest.mark.usefixtures("billing_database")


def dies(due: UUID) -> None:
    """Collect in a process that a fault ends as a crash would."""
    status, said = ended(started("collect", TENANT, str(due)))
    assert status == -signal.SIGKILL, said


@pytest.fixture
def armed(fault_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to arm faults for processes that are started now; this process never dies."""
    monkeypatch.setenv("CENTAVO_FAULT_DIR", str(fault_dir))
    return fault_dir


@pytest.mark.parametrize("hours", [0, 25])
@pytest.mark.parametrize("point", ["collect.after_create", "collect.after_confirm"])
def test_a_crash_at_any_line_is_repaired_by_running_again(armed: Path, point: str, hours: int) -> None:
    """At once, or after Stripe has forgotten our keys: one intent, one charge, one attempt."""
    (due,) = owing()
    (armed / f"{point}.1").touch()
    dies(due)
    later(hours * 3600)

    assert taken(due, datetime.now(UTC) + timedelta(hours=hours)) is PaymentState.SUCCEEDED

    assert captured() == {due: (FEE, 1)}
    assert payment(due, "attempts_made") == (1,)
    assert attempts(due) == [(1, "succeeded", None)]
    assert (len(at_stripe("/v1/payment_intents")["data"]), charges()) == (1, 1)


def test_a_crash_before_a_decline_was_noted_charges_no_second_time(armed: Path) -> None:
    """The card was tried once; whoever comes after finds the decline on the intent."""
    (due,) = owing(DECLINES)
    (armed / "collect.after_confirm.1").touch()
    dies(due)
    assert attempts(due) == [(1, "submitting", None)]

    assert taken(due) is PaymentState.RETRY_SCHEDULED

    assert charges() == 1
    assert attempts(due) == [(1, "declined", "soft")]


def test_crash_after_crash_charges_once(armed: Path) -> None:
    (due,) = owing()
    for number, point in enumerate(["after_create", "after_confirm", "after_confirm"]):
        (armed / f"collect.{point}.{number}").touch()
        dies(due)

    assert taken(due) is PaymentState.SUCCEEDED

    assert captured() == {due: (FEE, 1)}
    assert payment(due, "attempts_made") == (1,)


def unreachable() -> StripeGateway:
    """A gateway to a port that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return impatient(f"http://127.0.0.1:{reserved.getsockname()[1]}")


def test_while_stripe_is_away_nothing_is_used_up_and_the_lease_runs_out() -> None:
    (due,) = owing()
    now = datetime.now(UTC)
    before = payment(due)
    lease = timedelta(seconds=settings().payment_lease_seconds)
    assert claim_due(now) == [(TENANT, due)]

    assert collect(TENANT, due, unreachable(), now) is None

    assert payment(due) == before
    assert attempts(due) == []
    assert claim_due(now + lease - timedelta(seconds=1)) == []
    assert claim_due(now + lease) == [(TENANT, due)]
    assert taken(due) is PaymentState.SUCCEEDED


@pytest.fixture
def trouble() -> Iterator[set[str]]:
    """Ends of paths at which another double answers 500 before it does anything, in the place of the first."""
    at: set[str] = set()

    async def fail(call: Call) -> None:
        if any(call.path.endswith(end) for end in at):
            raise ApiError(500, "api_error", "Something went wrong on Stripe's end.")

    with served(StripeDouble(before_execution=fail)) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CENTAVO_STRIPE_API_BASE", url)
        settings.cache_clear()
        gateway.cache_clear()
        yield at


def test_a_server_error_at_the_charge_leaves_the_attempt_open_for_the_next_try(trouble: set[str]) -> None:
    """An unknown outcome is no decline: the same attempt goes on, under the same key."""
    (due,) = owing()
    trouble.add("/confirm")

    assert collect(TENANT, due, impatient(), datetime.now(UTC)) is None
    assert payment(due, "state, attempts_made") == ("unknown", 1)
    assert collect(TENANT, due, impatient(), due_again(due)) is None
    assert attempts(due) == [(1, "submitting", None)]
    assert payment(due, "state, attempts_made") == ("unknown", 1)

    trouble.clear()
    assert taken(due, due_again(due)) is PaymentState.SUCCEEDED
    assert captured() == {due: (FEE, 1)}
    assert attempts(due) == [(1, "succeeded", None)]


def test_a_failure_that_stripe_keeps_under_the_key_is_not_asked_for_all_day() -> None:
    """Stripe gives the same 500 under the same key for 24 hours: what did nothing under it never will."""
    (due,) = owing()
    DoubleControl(settings().stripe_api_base or "").add_fault("error_before", "POST", CONFIRM)

    assert collect(TENANT, due, impatient(), datetime.now(UTC)) is None
    assert payment(due, "state, attempts_made") == ("unknown", 1)
    again = due_again(due)
    assert collect(TENANT, due, impatient(), again) is PaymentState.RETRY_SCHEDULED
    assert payment(due) == ("retry_scheduled", 1, again)

    assert collect(TENANT, due, impatient(), again) is PaymentState.SUCCEEDED
    assert captured() == {due: (FEE, 1)}
    assert attempts(due) == [(1, "abandoned", None), (2, "succeeded", None)]


def test_a_failure_kept_since_before_the_database_was_put_back_keeps_nothing_from_being_tried_again() -> None:
    """The decline under that key is the intent's last charge already when the payment's attempt is written anew."""
    (due,) = owing(DECLINES)
    (card,) = one("SELECT default_payment_method_id FROM customers")
    DoubleControl(settings().stripe_api_base or "").add_fault("error_after", "POST", CONFIRM)
    with pytest.raises(GatewayUnavailable) as failed:
        impatient().confirm_intent(an_intent_of(due), card, f"pay:{due}:confirm:1")
    assert not failed.value.is_replay

    now = datetime.now(UTC)
    assert collect(TENANT, due, impatient(), now) is None
    assert collect(TENANT, due, impatient(), due_again(due)) is PaymentState.RETRY_SCHEDULED
    assert attempts(due) == [(1, "abandoned", None)]
    assert collect(TENANT, due, impatient(), due_again(due)) is PaymentState.RETRY_SCHEDULED
    assert attempts(due) == [(1, "abandoned", None), (2, "declined", "soft")]
    assert charges() == 2


def test_a_key_that_stripe_refuses_stops_collecting_and_changes_nothing() -> None:
    (due,) = owing()
    before = payment(due)

    assert collect(TENANT, due, StripeGateway("sk_live_x", settings().stripe_api_base), datetime.now(UTC)) is None

    assert payment(due) == before


def test_a_card_that_is_gone_at_stripe_is_never_tried_again() -> None:
    """Nothing was declined, so nothing of the schedule is used up; another card is needed."""
    (due,) = owing()
    one("UPDATE customers SET default_payment_method_id = 'pm_unheard_of' RETURNING 1")

    assert taken(due) is None

    assert payment(due) == ("needs_payment_method", 1, None)
    assert payment(due, "last_decline_code") == ("resource_missing",)
    assert attempts(due) == [(1, "abandoned", None)]
    assert rows("SELECT payment_method_id FROM payment_methods WHERE held_at IS NOT NULL") == [("pm_unheard_of",)]
    assert captured() == {}


def test_a_request_that_stripe_refuses_is_set_aside_where_it_can_be_seen() -> None:
    """A customer who does not exist there: looked at again after hours, not every two minutes; a person is told."""
    (due,) = owing()
    one("UPDATE customers SET stripe_customer_id = 'cus_unheard_of' RETURNING 1")
    now = datetime.now(UTC)

    assert taken(due, now) is None

    assert payment(due) == ("due", 0, now + timedelta(hours=6))
    assert payment(due, "last_decline_code") == ("resource_missing",)
    assert rows("SELECT kind, customer_id FROM alerts") == [("stripe_refuses", "ana")]
    assert captured() == {}


def test_a_refusal_that_comes_late_does_not_move_a_payment_back() -> None:
    """Another worker has collected it meanwhile: that stands."""
    (due,) = owing()
    taken(due)
    before = payment(due, "*")
    late = GatewayRejected("no", stripe_code="resource_missing", param=None)

    in_transaction(partial(collecting._set_aside, TENANT, due, 1, late, datetime.now(UTC)))

    assert payment(due, "*") == before


def an_intent_of(payment_id: UUID, **changes: Any) -> str:
    """An intent at Stripe that names a payment, made under a key that we know nothing of."""
    (stripe_customer,) = one("SELECT stripe_customer_id FROM customers")
    request = IntentRequest(
        payment_id=payment_id,
        amount_minor=FEE,
        currency="BRL",
        stripe_customer_id=stripe_customer,
        statement_descriptor_suffix="TIER 1",
        description="an earlier life",
        kind="tier",
        period="2026-11-01",
        tier=1,
        environment="sandbox",
    )
    key = f"earlier:{json.dumps(changes)}"
    return gateway().create_intent(replace(request, **changes), key).stripe_payment_intent_id


def an_old_payment() -> tuple[UUID, datetime]:
    """A payment without an intent that fell due two hours before now."""
    (due,) = owing()
    return due, datetime.now(UTC) + timedelta(hours=2)


def test_the_intent_of_an_old_payment_is_adopted() -> None:
    """Stripe may have forgotten the key, and a second intent could be charged beside the first."""
    due, now = an_old_payment()
    theirs = an_intent_of(due)

    assert taken(due, now) is PaymentState.SUCCEEDED

    assert payment(due, "stripe_payment_intent_id") == (theirs,)
    assert len(at_stripe("/v1/payment_intents")["data"]) == 1


def test_an_intent_that_has_collected_is_adopted_before_any_other() -> None:
    due, now = an_old_payment()
    paid, _ = an_intent_of(due), an_intent_of(due, description="another")
    gateway().confirm_intent(paid, one("SELECT default_payment_method_id FROM customers")[0], "earlier:confirm")

    assert taken(due, now) is PaymentState.SUCCEEDED

    assert payment(due, "stripe_payment_intent_id") == (paid,)
    assert captured() == {due: (FEE, 1)}
    assert charges() == 1


def test_a_canceled_intent_is_not_adopted() -> None:
    """It can collect nothing any more, and the debt stands."""
    due, now = an_old_payment()
    gateway().cancel_intent(an_intent_of(due), "earlier:cancel")

    assert taken(due, now) is PaymentState.SUCCEEDED

    assert captured() == {due: (FEE, 1)}


def test_the_intent_of_another_payment_is_left_alone() -> None:
    due, now = an_old_payment()
    stranger = an_intent_of(UUID(int=7))

    assert taken(due, now) is PaymentState.SUCCEEDED

    assert payment(due, "stripe_payment_intent_id") != (stranger,)
    assert captured() == {due: (FEE, 1)}


@pytest.mark.parametrize("changes", [{"amount_minor": FEE * 2}, {"currency": "USD"}])
def test_an_intent_of_another_amount_is_never_charged(changes: dict[str, Any]) -> None:
    """It names our payment and asks for something else: stop before the card is, and tell a person."""
    due, now = an_old_payment()
    an_intent_of(due, **changes)

    assert taken(due, now) is None

    assert captured() == {}
    assert payment(due, "state, stripe_payment_intent_id, attempts_made") == ("due", None, 0)
    assert due_again(due) == now + timedelta(hours=6)
    ((kind, detail),) = rows("SELECT kind, detail FROM alerts")
    assert kind == "collecting_fails"
    assert "not this payment's" in detail


def test_nothing_is_believed_of_a_foreign_intent() -> None:
    due = owing(tiers=2)
    taken(due[0])
    theirs = gateway().retrieve_intent(payment(due[0], "stripe_payment_intent_id")[0])
    before = payment(due[1], "*")

    with pytest.raises(BrokenInvariant):
        in_transaction(lambda connection: sync(connection, TENANT, due[1], theirs, datetime.now(UTC), source="webhook"))

    assert payment(due[1], "*") == before


def test_an_answer_to_an_earlier_attempt_changes_nothing(trouble: set[str]) -> None:
    """It was on its way while the next attempt began: that one is still open."""
    (due,) = owing(DECLINES)
    now = datetime.now(UTC)
    taken(due, now)
    stale = gateway().retrieve_intent(payment(due, "stripe_payment_intent_id")[0])
    trouble.add("/confirm")
    collect(TENANT, due, impatient(), due_again(due))
    before = payment(due)

    state = in_transaction(lambda c: sync(c, TENANT, due, stale, now + DAY, source="answer", answered_attempt=1))

    assert state is PaymentState.UNKNOWN
    assert payment(due) == before
    assert attempts(due) == [(1, "declined", "soft"), (2, "submitting", None)]


def test_an_old_decline_on_the_intent_is_not_the_outcome_of_the_next_attempt(trouble: set[str]) -> None:
    """A look at the intent shows the charge from before the attempt: its own has not been made."""
    (due,) = owing(DECLINES)
    now = datetime.now(UTC)
    taken(due, now)
    trouble.add("/confirm")
    collect(TENANT, due, impatient(), due_again(due))
    seen = gateway().retrieve_intent(payment(due, "stripe_payment_intent_id")[0])

    state = in_transaction(lambda c: sync(c, TENANT, due, seen, now + DAY, source="webhook"))

    assert state is PaymentState.UNKNOWN
    assert attempts(due) == [(1, "declined", "soft"), (2, "submitting", None)]
    trouble.clear()
    assert taken(due, due_again(due)) is PaymentState.RETRY_SCHEDULED
    assert charges() == 2


def test_what_has_succeeded_never_moves_back() -> None:
    """An old view of the intent, from before it was charged, comes last."""
    (due,) = owing()
    now = datetime.now(UTC)
    taken(due, now)
    now_paid = gateway().retrieve_intent(payment(due, "stripe_payment_intent_id")[0])
    before = payment(due, "*")

    for status in ("requires_payment_method", "processing", "canceled"):
        old = replace(now_paid, status=status, latest_charge_id=None)
        state = in_transaction(partial(sync, tenant_id=TENANT, payment_id=due, intent=old, now=now, source="webhook"))
        assert state is PaymentState.SUCCEEDED

    assert payment(due, "*") == before


def test_a_debt_whose_intent_was_canceled_at_stripe_is_still_owed() -> None:
    """Somebody presses the button there; the tier was reached all the same."""
    (due,) = owing(DECLINES)
    now = datetime.now(UTC)
    taken(due, now)
    gateway().cancel_intent(payment(due, "stripe_payment_intent_id")[0], "by hand")
    taken(due, due_again(due))

    states = rows("SELECT generation, state FROM payments ORDER BY generation")
    assert states == [(0, "voided"), (1, "due")]
    assert audit().differences == 0
