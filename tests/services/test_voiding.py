"""Voiding: what is not to be collected any more, whatever is under way."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from billing.errors import PaymentNotFound, Rejected
from billing.payments import PaymentState
from db.session import in_transaction
from payments.gateway import confirm_parameters
from services.collecting.collect import claim_due
from services.collecting.gateways import gateway
from services.collecting.sync import sync
from services.collecting.voiding import void
from services.oversight.audit import audit
from tests.factories import TENANT
from tests.looking import rows
from tests.services.collecting import DECLINES, FEE, at_stripe, captured, owing, payment, taken

pytestmark = pytest.mark.usefixtures("billing_database")


def now() -> datetime:
    return datetime.now(UTC)


def test_what_stripe_has_not_heard_of_is_voided_at_once() -> None:
    (due,) = owing()

    assert void(TENANT, due, "courtesy", now()) is PaymentState.VOIDED

    assert claim_due(now()) == []
    assert taken(due) is PaymentState.VOIDED
    assert at_stripe("/v1/payment_intents")["data"] == []
    assert rows("SELECT to_state, why FROM payment_log ORDER BY entry_id DESC LIMIT 1") == [
        ("voided", "voided: courtesy")
    ]
    assert audit().differences == 0


def test_voided_twice_is_voided_once() -> None:
    (due,) = owing()
    void(TENANT, due, "courtesy", now())
    before = payment(due, "*")

    assert void(TENANT, due, "again", now()) is PaymentState.VOIDED

    assert payment(due, "*") == before


def test_an_intent_that_waits_is_canceled() -> None:
    (due,) = owing(DECLINES)
    taken(due)

    assert void(TENANT, due, "courtesy", now()) is PaymentState.RETRY_SCHEDULED
    assert claim_due(now()) == [(TENANT, due)]
    assert taken(due) is PaymentState.VOIDED

    assert [intent["status"] for intent in at_stripe("/v1/payment_intents")["data"]] == ["canceled"]
    assert rows("SELECT generation, state FROM payments") == [(0, "voided")]
    assert audit().differences == 0


def test_money_that_moved_before_it_could_be_canceled_goes_back() -> None:
    """The card was charged by an attempt of ours whose answer nobody heard."""
    (due,) = owing(DECLINES)
    taken(due)
    intent_id = payment(due, "stripe_payment_intent_id")[0]
    void(TENANT, due, "courtesy", now())
    gateway().confirm_intent(intent_id, "pm_card_visa", "unheard", stored=confirm_parameters("pm_card_visa"))

    assert taken(due) is PaymentState.SUCCEEDED

    assert captured() == {due: (FEE, 1)}
    assert rows("SELECT amount_minor, state FROM refunds") == [(FEE, "submitting")]
    assert rows("SELECT kind FROM alerts ORDER BY kind") == [("payment_failed",), ("voided_but_paid",)]
    assert void(TENANT, due, "courtesy", now()) is PaymentState.SUCCEEDED  # as to whoever asks again
    assert rows("SELECT amount_minor, state FROM refunds") == [(FEE, "submitting")]


def test_a_voided_payment_that_comes_in_after_all_is_paid_and_goes_back() -> None:
    (due,) = owing(DECLINES)
    taken(due)
    intent_id = payment(due, "stripe_payment_intent_id")[0]
    gateway().confirm_intent(intent_id, "pm_card_visa", "unheard", stored=confirm_parameters("pm_card_visa"))
    paid = gateway().retrieve_intent(intent_id)
    void(TENANT, due, "courtesy", now())

    state = in_transaction(lambda c: sync(c, TENANT, due, paid, now(), source="webhook"))

    assert state is PaymentState.SUCCEEDED
    assert rows("SELECT amount_minor FROM refunds") == [(FEE,)]


def test_what_is_paid_is_refunded_and_not_voided() -> None:
    (due,) = owing()
    taken(due)

    with pytest.raises(Rejected, match="is succeeded; refund it instead"):
        void(TENANT, due, "courtesy", now())


def test_what_is_not_there_is_not_voided() -> None:
    owing()
    with pytest.raises(PaymentNotFound):
        void(TENANT, owing_nothing(), "courtesy", now())


def owing_nothing() -> UUID:
    return UUID(int=7)
