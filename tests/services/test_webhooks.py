"""Working what Stripe tells: twice, late, in any order, about strangers, while things are away."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from billing.payments import PaymentState
from config.settings import settings
from payments.gateway import IntentRequest
from sandbox.stripe_double.control import CONFIRM, DoubleControl
from sandbox.stripe_double.server import bind
from sandbox.stripe_double.wishes import Delivery
from services.collecting import webhooks
from services.collecting.collect import collect
from services.collecting.gateways import gateway
from tests.api.serving import served_api
from tests.api.signed import PATH, SECRET, an_event, signature
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.collecting import (
    DECLINES,
    FEE,
    GOOD,
    captured,
    impatient,
    owing,
    payment,
    taken,
)

pytestmark = pytest.mark.usefixtures("billing_database")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch, billing_database: str) -> None:
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", SECRET)
    settings.cache_clear()


@pytest.fixture
def double() -> DoubleControl:
    return DoubleControl(settings().stripe_api_base or "")


@pytest.fixture
def delivering(double: DoubleControl) -> Iterator[DoubleControl]:
    """The double delivers to the API; nobody works what is kept, until the test does."""
    with served_api() as url:
        double.set_webhooks(f"{url}{PATH}", SECRET)
        yield double


def now() -> datetime:
    return datetime.now(UTC)


def told(body: bytes) -> str:
    """An event is delivered; its id."""
    return webhooks.receive(body, signature(body), now()).event_id


def about(intent_id: str, metadata: dict[str, str], **fields: Any) -> dict[str, Any]:
    return {"id": intent_id, "object": "payment_intent", "customer": None, "metadata": metadata} | fields


def worked(event_id: str) -> str | None:
    return webhooks.work(event_id, gateway(), now())


def work_all(order: str = "created_at, event_id") -> list[str]:
    """Work every event that is kept and not worked; what came of each, by type."""
    waiting = rows(f"SELECT event_id, type FROM webhook_events WHERE worked_at IS NULL ORDER BY {order}")
    return [f"{type_}: {worked(event_id)}" for event_id, type_ in waiting]


def outcome(event_id: str) -> tuple[Any, ...]:
    return one("SELECT outcome, payment_id, tries, worked_at IS NULL FROM webhook_events WHERE event_id = %s", event_id)


def taken_without_an_answer(payment_id: UUID) -> None:
    """Stripe has executed our confirmation, and its answer was lost."""
    DoubleControl(settings().stripe_api_base or "").add_fault("drop_after", "POST", CONFIRM)
    collect(TENANT, payment_id, impatient(), now())
    assert payment(payment_id, "state")[0] in {PaymentState.SUBMITTING, PaymentState.UNKNOWN}


def test_an_event_moves_a_payment_whose_answer_was_lost(delivering: DoubleControl) -> None:
    (payment_id,) = owing()
    taken_without_an_answer(payment_id)
    delivering.wait_delivered()

    said = work_all()

    assert "payment_intent.succeeded: the intent is succeeded, the payment is succeeded" in said
    assert payment(payment_id, "state, attempts_made") == (PaymentState.SUCCEEDED, 1)
    assert captured() == {payment_id: (FEE, 1)}


@pytest.mark.parametrize("order", ["event_id", "event_id DESC", "created_at DESC, event_id"])
def test_events_in_any_order_and_twice_end_where_the_intent_is(delivering: DoubleControl, order: str) -> None:
    delivering.set_delivery(Delivery(copies=2))
    (payment_id,) = owing(DECLINES)
    assert taken(payment_id) == PaymentState.RETRY_SCHEDULED
    before = payment(payment_id, "state, attempts_made, due_at")
    delivering.wait_delivered()

    work_all(order)

    assert payment(payment_id, "state, attempts_made, due_at") == before
    assert captured() == {}


def test_an_event_worked_twice_changes_nothing_the_second_time(delivering: DoubleControl) -> None:
    (payment_id,) = owing()
    taken(payment_id)
    delivering.wait_delivered()
    work_all()
    before = rows("SELECT * FROM webhook_events ORDER BY event_id"), payment(payment_id, "*")

    said = [worked(event_id) for (event_id,) in rows("SELECT event_id FROM webhook_events")]

    assert set(said) == {None}
    assert (rows("SELECT * FROM webhook_events ORDER BY event_id"), payment(payment_id, "*")) == before


def test_an_old_event_does_not_move_a_payment_back() -> None:
    """What it carries is not believed: the intent is looked at."""
    (payment_id,) = owing()
    taken(payment_id)
    intent_id = payment(payment_id, "stripe_payment_intent_id")[0]
    metadata = {"payment_id": str(payment_id), "environment": "sandbox"}
    old = told(
        an_event(
            "payment_intent.payment_failed", about(intent_id, metadata, status="requires_payment_method"), created=1
        )
    )

    worked(old)

    assert payment(payment_id, "state")[0] == PaymentState.SUCCEEDED
    assert outcome(old) == ("the intent is succeeded, the payment is succeeded", payment_id, 0, False)


def test_an_event_that_comes_before_our_own_commit_of_the_intent_is_never_unknown() -> None:
    (payment_id,) = owing()
    (customer,) = one("SELECT stripe_customer_id FROM customers")
    request = IntentRequest(payment_id, FEE, "BRL", customer, "TIER 1", "Tier 1", "tier", "2026-11-01", 1, "sandbox")
    intent = gateway().create_intent(request, f"early:{payment_id}")
    confirmed = gateway().confirm_intent(intent.stripe_payment_intent_id, GOOD, "early:confirm")
    assert payment(payment_id, "stripe_payment_intent_id") == (None,)

    metadata = {"payment_id": str(payment_id), "environment": "sandbox"}
    early = told(an_event(about=about(confirmed.stripe_payment_intent_id, metadata)))
    worked(early)

    assert outcome(early)[1] == payment_id
    assert payment(payment_id, "state, stripe_payment_intent_id") == (
        PaymentState.SUCCEEDED,
        intent.stripe_payment_intent_id,
    )


def test_a_charge_without_our_metadata_is_found_by_its_intent() -> None:
    (payment_id,) = owing()
    taken(payment_id)
    intent_id = payment(payment_id, "stripe_payment_intent_id")[0]
    charge = {"id": "ch_1", "object": "charge", "payment_intent": intent_id, "metadata": {}}

    event = told(an_event("charge.refunded", charge))
    worked(event)

    assert outcome(event) == ("the intent is succeeded, the payment is succeeded", payment_id, 0, False)


def test_a_refund_made_at_stripe_is_seen(delivering: DoubleControl) -> None:
    (payment_id,) = owing()
    taken(payment_id)
    gateway().create_refund(payment(payment_id, "stripe_payment_intent_id")[0], 1_000, {}, "by hand")
    delivering.wait_delivered()

    work_all()

    assert payment(payment_id, "state, refunded_minor") == (PaymentState.PARTIALLY_REFUNDED, 1_000)


def test_a_dispute_is_recorded_with_its_payment(delivering: DoubleControl) -> None:
    (payment_id,) = owing()
    taken(payment_id)
    dispute = delivering.open_dispute(payment(payment_id, "stripe_payment_intent_id")[0])
    delivering.wait_delivered()

    said = work_all()

    assert "charge.dispute.created: the dispute is needs_response" in said
    assert one("SELECT stripe_dispute_id, payment_id, amount_minor FROM disputes") == (dispute, payment_id, FEE)


@pytest.mark.parametrize(
    ("type_", "thing", "said"),
    [
        ("payment_intent.succeeded", about("pi_1", {}), "ignored: no payment of ours"),
        ("payment_intent.succeeded", about("pi_1", {"payment_id": "order 7"}), "ignored: no payment of ours"),
        ("payment_intent.succeeded", about("pi_1", {"payment_id": str(uuid4())}), "ignored: no payment of ours"),
        (
            "payment_intent.succeeded",
            about("pi_1", {"environment": "staging"}),
            "ignored: of environment 'staging'",
        ),
        ("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": None}, "ignored: no payment of ours"),
        (
            "charge.dispute.created",
            {"id": "du_1", "object": "dispute", "payment_intent": "pi_1"},
            "ignored: no payment of ours",
        ),
        ("payment_method.detached", {"id": "pm_1", "object": "payment_method"}, "ignored: no card of ours"),
        (
            "invoice.paid",
            {"id": "in_1", "object": "invoice"},
            "ignored: events of type invoice.paid are not followed",
        ),
    ],
)
def test_what_is_not_ours_is_kept_and_ignored_without_asking_stripe(
    double: DoubleControl, type_: str, thing: dict[str, Any], said: str
) -> None:
    event = told(an_event(type_, thing))

    assert worked(event) == said
    assert outcome(event) == (said, None, 0, False)
    assert double.calls() == []


def test_a_payment_of_ours_that_is_not_here_is_asked_for_again() -> None:
    """The database was put back: with its usage the payment may come again."""
    thing = about("pi_1", {"payment_id": str(UUID(int=5)), "environment": "sandbox"})
    event = told(an_event("payment_intent.succeeded", thing))

    said = worked(event)

    assert said is not None
    assert said.startswith("try 1: PaymentNotFound")
    assert outcome(event) == (said, None, 1, True)


def test_a_payment_of_another_environment_is_left_alone() -> None:
    """Two installations may share a Stripe account, and one database may be a copy of the other's."""
    (payment_id,) = owing()
    intent_id = "pi_1"
    event = told(an_event(about=about(intent_id, {"payment_id": str(payment_id), "environment": "production"})))
    before = payment(payment_id, "*")

    assert worked(event) == "ignored: of environment 'production'"
    assert payment(payment_id, "*") == before


def test_a_second_intent_of_a_payment_is_not_believed_but_told() -> None:
    (payment_id,) = owing()
    taken(payment_id)
    before = payment(payment_id, "*")
    (customer,) = one("SELECT stripe_customer_id FROM customers")
    request = IntentRequest(payment_id, FEE, "BRL", customer, "TIER 1", "Tier 1", "tier", "2026-11-01", 1, "sandbox")
    stray = gateway().create_intent(request, "by mistake").stripe_payment_intent_id
    metadata = {"payment_id": str(payment_id), "environment": "sandbox"}

    open_ = told(an_event("payment_intent.processing", about(stray, metadata)))
    worked(open_)
    alerts_before = rows("SELECT kind FROM alerts")
    gateway().confirm_intent(stray, GOOD, "by mistake: confirm")
    paid = told(an_event(about=about(stray, metadata)))
    worked(paid)

    assert payment(payment_id, "*") == before
    assert outcome(paid)[0] == f"ignored: {stray} (succeeded) is not the intent of payment {payment_id}"
    assert (alerts_before, rows("SELECT kind, subject FROM alerts")) == ([], [("webhook_unworkable", stray)])


def test_while_stripe_is_away_an_event_waits_longer_each_time_and_then_somebody_is_told() -> None:
    (payment_id,) = owing()
    taken(payment_id)
    intent_id = payment(payment_id, "stripe_payment_intent_id")[0]
    event = told(an_event(about=about(intent_id, {"payment_id": str(payment_id)})))
    with bind() as nobody:
        away = impatient(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    waits, alerts = [], []
    for _ in range(webhooks.ALERT_AFTER_TRIES):
        moment = now()
        webhooks.work(event, away, moment)
        (due_at,) = one("SELECT due_at FROM webhook_events")
        waits.append((due_at - moment) / timedelta(seconds=1))
        alerts.append(len(rows("SELECT FROM alerts WHERE kind = 'webhook_unworkable' AND subject = %s", event)))

    assert waits == [30, 60, 120, 240, 480]
    assert alerts == [0, 0, 0, 0, 1]
    assert worked(event) == "the intent is succeeded, the payment is succeeded"
    assert outcome(event) == ("the intent is succeeded, the payment is succeeded", payment_id, 5, False)


def test_what_can_never_be_worked_is_told_at_once_and_given_up_in_the_end() -> None:
    """An intent that Stripe does not know, of a payment of ours: another account's key is in the settings."""
    (payment_id,) = owing()
    event = told(an_event(about=about("pi_gone", {"payment_id": str(payment_id)})))

    worked(event)
    first = one("SELECT tries, worked_at, (SELECT count(*) FROM alerts) FROM webhook_events")
    one("UPDATE webhook_events SET tries = %s RETURNING 1", webhooks.TRIES_MAX - 1)
    worked(event)

    assert first == (1, None, 1)
    said, about_payment, _, is_waiting = outcome(event)
    assert str(said).startswith(f"given up at try {webhooks.TRIES_MAX}: GatewayRejected")
    assert (about_payment, is_waiting) == (payment_id, False)


def test_a_sweep_hands_out_what_is_due_once_a_lease() -> None:
    events = sorted(told(an_event()) for _ in range(3))
    later_ = now() + webhooks.HANDED_OVER_WITHIN

    assert webhooks.sweep(now() - timedelta(minutes=1)) == []
    assert sorted(webhooks.sweep(later_)) == events
    assert webhooks.sweep(later_) == []
    assert sorted(webhooks.sweep(later_ + webhooks.LEASE)) == events


def test_what_stripe_could_not_deliver_is_fetched_once(double: DoubleControl) -> None:
    double.set_webhooks("http://127.0.0.1:9/nowhere", SECRET, Delivery(when="never"))
    (payment_id,) = owing()
    taken_without_an_answer(payment_id)

    fetched = webhooks.look_for_missed(gateway(), now())
    again = webhooks.look_for_missed(gateway(), now())

    assert fetched > 0
    assert again == 0
    assert one("SELECT count(*), count(*) FILTER (WHERE source = 'fetched') FROM webhook_events") == (fetched, fetched)
    assert sorted(webhooks.sweep(now())) == sorted(e for (e,) in rows("SELECT event_id FROM webhook_events"))
    work_all()
    assert payment(payment_id, "state")[0] == PaymentState.SUCCEEDED


def test_an_event_is_kept_once_whether_it_is_delivered_or_fetched(delivering: DoubleControl) -> None:
    delivering.set_delivery(Delivery(when="never"))
    (payment_id,) = owing()
    taken(payment_id)
    fetched = webhooks.look_for_missed(gateway(), now())

    delivering.deliver_all()
    delivering.wait_delivered()

    of_both = rows("SELECT type FROM webhook_events WHERE source = 'fetched' AND type LIKE 'payment_intent.%%'")
    assert fetched > 0
    assert of_both == [("payment_intent.succeeded",)]
    assert one("SELECT count(*) FROM webhook_events WHERE type = 'payment_intent.succeeded'") == (1,)
    assert webhooks.look_for_missed(gateway(), now()) == 0


def test_nothing_is_fetched_while_stripe_is_away() -> None:
    with bind() as nobody:
        away = impatient(f"http://127.0.0.1:{nobody.getsockname()[1]}")

    assert webhooks.look_for_missed(away, now()) == 0

    assert rows("SELECT FROM webhook_events") == []


def test_an_unknown_event_is_nothing() -> None:
    assert worked("evt_never_seen") is None
