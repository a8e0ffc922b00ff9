"""What overtakes what: cards, people, other workers and a database that was put back, in the middle of collecting."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import psycopg
import pytest

from billing.errors import BrokenInvariant
from billing.payments import PaymentState
from config.settings import settings
from db.session import in_transaction, transaction
from payments.gateway import GatewayRejected
from sandbox.stripe_double.control import CONFIRM, PROCESSING, SUCCEED, DoubleControl, decline
from sandbox.stripe_double.wishes import Step
from services.collecting import collect as collecting
from services.collecting import refunds, webhooks
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.collecting.holds import find_cards_after_all
from services.collecting.next_step import next_step
from services.collecting.sync import believe
from services.collecting.topups import Offer, request
from services.collecting.voiding import void
from services.desk.overview import hold
from services.oversight.audit import audit
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows, wallet
from tests.services.collecting import (
    DAY,
    DECLINES,
    FEE,
    GOOD,
    attempts,
    captured,
    charges,
    due_again,
    impatient,
    owing,
    payment,
    pays_with,
    taken,
)
from tests.services.test_collect_again import an_intent_of

pytestmark = pytest.mark.usefixtures("billing_database")

OTHER = "pm_card_mastercard"


def control() -> DoubleControl:
    return DoubleControl(str(settings().stripe_api_base))


def now() -> datetime:
    return datetime.now(UTC)


def card() -> str:
    return str(one("SELECT default_payment_method_id FROM customers")[0])


def scripted(*steps: Step, then: Step | None = None) -> None:
    """Let the customer's card follow these steps."""
    control().script_card(card(), list(steps), then=then)


def alerts() -> list[str]:
    return [kind for (kind,) in rows("SELECT kind FROM alerts ORDER BY kind")]


def put_back(payment_id: UUID) -> None:
    """The payment's row as in a dump from before it was collected."""
    with psycopg.connect(settings().required("database_url"), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM payment_attempts WHERE payment_id = %s", (payment_id,))
        connection.execute(
            "UPDATE payments SET state = 'due', due_at = created_at, leased_until = NULL, attempts_made = 0, "
            "first_attempt_at = NULL, stripe_payment_intent_id = NULL, stripe_latest_charge_id = NULL, "
            "succeeded_at = NULL WHERE payment_id = %s",
            (payment_id,),
        )


def test_a_new_card_while_the_old_one_is_still_being_tried() -> None:
    """The old card's decline comes to light afterwards: it holds the old card, and the new one is tried at once."""
    first, second = owing(tiers=2)
    old = card()
    scripted(decline("stolen_card"), then=decline("stolen_card"))
    control().add_fault("drop_after", "POST", CONFIRM)
    assert collect(TENANT, first, impatient(), now()) is None
    pays_with(OTHER)

    assert taken(first, due_again(first)) is PaymentState.RETRY_SCHEDULED

    assert rows("SELECT payment_method_id FROM payment_methods WHERE held_at IS NOT NULL") == [(old,)]
    assert rows("SELECT FROM customer_holds") == []
    assert taken(first, due_again(first)) is PaymentState.SUCCEEDED
    assert taken(second, due_again(second)) is PaymentState.SUCCEEDED


def test_a_card_that_comes_while_none_is_found_is_found_after_all() -> None:
    """Each has looked before the other committed."""
    (due,) = owing(card=None)
    with transaction() as connection:
        next_step(connection, TENANT, due, now())
        attaching = threading.Thread(target=pays_with, args=(GOOD,))
        attaching.start()
        attaching.join(10)
    attaching.join(10)
    assert payment(due, "state") == ("needs_payment_method",)

    assert find_cards_after_all(now()) == 1
    assert taken(due) is PaymentState.SUCCEEDED
    assert find_cards_after_all(now()) == 0


def test_a_card_that_is_held_is_not_found_after_all() -> None:
    (due,) = owing("pm_card_chargeDeclinedLostCard")
    taken(due)

    assert find_cards_after_all(now()) == 0


def test_a_first_try_that_rests_with_its_card_is_made_at_once_with_a_new_one() -> None:
    (due,) = owing()
    later = now() + 30 * DAY
    one("UPDATE payments SET due_at = %s RETURNING 1", later)

    pays_with(OTHER)

    assert claim_due(now()) == [(TENANT, due)]
    assert payment(due, "state") == ("due",)


def test_a_customer_who_is_held_is_not_charged_by_what_was_begun() -> None:
    """The answer to the confirm was lost before Stripe had it: it is looked for, and not sent again."""
    (due,) = owing()
    control().add_fault("drop_before", "POST", CONFIRM, times=3)
    assert collect(TENANT, due, gateway(), now()) is None
    hold(TENANT, "ana", "the court", now())

    assert taken(due, due_again(due)) is PaymentState.UNKNOWN

    assert captured() == {}


def test_a_top_up_is_one_in_whatever_month_its_key_is_repeated() -> None:
    """Also when the database was put back in between."""
    catalogues()
    a_customer("ana", currencies=("USD",))
    pays_with(GOOD)
    offer = Offer(Decimal(50), 25_000, "BRL")
    first = request(TENANT, "ana", "USD", offer, "k", now())
    assert taken(first.payment_id) is PaymentState.SUCCEEDED
    with psycopg.connect(settings().required("database_url"), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in ("payment_attempts", "payment_log", "payments", "ledger_entries", "credit_grants"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE wallets SET balance = 0, received_total = 0, last_seq = 0")

    again = request(TENANT, "ana", "USD", offer, "k", now() + 40 * DAY)

    assert again.payment_id == first.payment_id
    assert taken(again.payment_id, now() + 40 * DAY) is PaymentState.SUCCEEDED
    assert captured() == {first.payment_id: (25_000, 1)}
    assert wallet("ana") == 50


def test_a_customer_of_before_the_database_was_put_back_is_found_at_stripe() -> None:
    """The dump is older than the customer there; Stripe has forgotten the key, and knows what they have paid."""
    (due,) = owing()
    assert taken(due) is PaymentState.SUCCEEDED
    known = one("SELECT stripe_customer_id FROM customers")
    put_back(due)
    rows("DELETE FROM payment_methods RETURNING 1")
    rows("UPDATE customers SET stripe_customer_id = NULL, default_payment_method_id = NULL RETURNING 1")
    control().advance(25 * 3600)

    pays_with(GOOD)

    assert one("SELECT stripe_customer_id FROM customers") == known
    assert taken(due, now() + timedelta(hours=25)) is PaymentState.SUCCEEDED
    assert captured() == {due: (FEE, 1)}


def test_what_was_delivered_to_a_database_that_was_put_back_is_fetched_again() -> None:
    """Nobody has heard of the dispute here: the event was delivered, and forgotten with the rest."""
    catalogues()
    a_customer("ana", currencies=("USD",))
    pays_with(GOOD)
    top_up = request(TENANT, "ana", "USD", Offer(Decimal(50), 25_000, "BRL"), "k", now()).payment_id
    taken(top_up)
    control().open_dispute(payment(top_up, "stripe_payment_intent_id")[0])
    assert webhooks.look_for_missed(gateway(), now()) == 0

    assert webhooks.look_for_missed(gateway(), now(), is_everything=True) > 0
    for event_id in webhooks.sweep(now()):
        webhooks.work(event_id, gateway(), now())

    assert payment(top_up, "state") == ("disputed",)
    assert wallet("ana") == 0


def test_an_adopted_intents_old_decline_is_no_word_about_the_new_card() -> None:
    (due,) = owing()
    scripted(decline("stolen_card"), then=decline("stolen_card"))
    assert taken(due) is PaymentState.NEEDS_PAYMENT_METHOD
    put_back(due)
    rows("DELETE FROM customer_holds RETURNING 1")
    pays_with(OTHER)
    tried = charges()

    at = now() + timedelta(seconds=1)
    states = [taken(due, at), taken(due, max(at, due_again(due)))]

    assert states[-1] is PaymentState.SUCCEEDED
    assert charges() == tried + 1
    assert captured() == {due: (FEE, 1)}


def test_a_second_intent_that_collects_moves_nothing_and_is_told() -> None:
    (due,) = owing()
    stray, ours = an_intent_of(due), an_intent_of(due, description="ours")
    one("UPDATE payments SET stripe_payment_intent_id = %s RETURNING 1", ours)
    gateway().confirm_intent(stray, card(), "unheard")

    believe(TENANT, due, gateway().retrieve_intent(stray), now(), source="webhook")

    assert payment(due, "state") == ("due",)
    assert alerts() == ["collected_twice"]


def test_a_refusal_or_a_failure_that_comes_late_leaves_the_schedule() -> None:
    (due,) = owing(DECLINES)
    taken(due)
    before = due_again(due)
    late = GatewayRejected("no", stripe_code="resource_missing", param="payment_method")

    in_transaction(partial(collecting._set_aside, TENANT, due, 1, late, now()))
    assert due_again(due) == before
    in_transaction(partial(collecting._say_failed, TENANT, due, "anything", now()))

    assert due_again(due) == before
    assert attempts(due) == [(1, "declined", "soft")]


def test_a_void_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (due,) = owing(DECLINES)
    taken(due)
    void(TENANT, due, "courtesy", now())

    def fails(*_: object) -> None:
        raise BrokenInvariant("nobody thought of this")

    monkeypatch.setattr(gateway(), "cancel_intent", fails)
    assert collect(TENANT, due, gateway(), now()) is None

    assert alerts() == ["collecting_fails", "payment_failed"]
    assert claim_due(now() + timedelta(minutes=5)) == []


def test_a_refund_that_fails_for_an_unheard_of_reason_is_told_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    (due,) = owing()
    taken(due)
    asked = refunds.refund(TENANT, due, None, "courtesy", "k", now())

    def fails(*_: object) -> None:
        raise BrokenInvariant("nobody thought of this")

    monkeypatch.setattr(gateway(), "find_refunds", fails)
    assert refunds.carry_out(TENANT, asked.refund_id, gateway(), now()) is None

    assert alerts() == ["refund_failed"]
    monkeypatch.undo()
    assert refunds.carry_out(TENANT, asked.refund_id, gateway(), now()) == "succeeded"


def test_what_stripe_is_still_at_is_looked_at_once_an_hour() -> None:
    (due,) = owing()
    scripted(PROCESSING, then=SUCCEED)
    assert taken(due) is PaymentState.PROCESSING
    first = due_again(due)

    assert taken(due, first) is PaymentState.PROCESSING

    assert due_again(due) == first + timedelta(hours=1)
    assert rows("SELECT count(*) FROM payment_log WHERE to_state = 'processing'") == [(1,)]


def test_two_in_a_row_are_counted_since_the_last_that_came_in() -> None:
    first, second, third, _ = owing(GOOD, tiers=4)
    bad = decline("insufficient_funds")
    scripted(bad, SUCCEED, bad, bad)
    began = now()
    taken(first, began)
    assert taken(second, began + timedelta(seconds=1)) is PaymentState.SUCCEEDED

    taken(third, due_again(first))
    assert rows("SELECT reason FROM customer_holds") == []
    taken(first, due_again(first) + timedelta(seconds=1))

    assert rows("SELECT reason FROM customer_holds") == [("declined_twice",)]
    assert audit().differences == 0
