"""Money that goes back while something else moves: each cent of it counts once, and none is forgotten."""

import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from billing.payments import PaymentState, RefundState
from config.settings import settings
from payments.gateway import IntentSnapshot, RefundSnapshot
from sandbox.stripe_double.control import REFUND, DoubleControl
from services.collecting import cards, disputes, reconcile, refunds, webhooks
from services.collecting.gateways import gateway
from services.collecting.voiding import void
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from tests.api.signed import SECRET, an_event, signature
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.collecting import DAY, FEE, GOOD, at_stripe, captured, impatient, owing, payment, taken
from tests.services.elsewhere import ended, started
from tests.services.monthly import JANUARY, joined, offered, turned
from tests.services.test_collect_races import put_back
from tests.services.test_subscriptions import DAILY

pytestmark = pytest.mark.usefixtures("billing_database")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch, billing_database: str) -> None:
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", SECRET)
    settings.cache_clear()


def now() -> datetime:
    return datetime.now(UTC)


def the_bank() -> DoubleControl:
    return DoubleControl(str(settings().stripe_api_base))


def intent_id(payment_id: UUID) -> str:
    return str(payment(payment_id, "stripe_payment_intent_id")[0])


def collected() -> UUID:
    (due,) = owing()
    assert taken(due) is PaymentState.SUCCEEDED
    return due


def collected_unnoticed(fault_dir: Path, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """Stripe has the money; the worker died before it could write that."""
    (due,) = owing()
    monkeypatch.setenv("CENTAVO_FAULT_DIR", str(fault_dir))
    (fault_dir / "collect.after_confirm.1").touch()
    assert ended(started("collect", TENANT, str(due)))[0] == -signal.SIGKILL
    return due


def made_unnoticed(payment_id: UUID, amount_minor: int) -> None:
    """A refund that Stripe has made, and whose answer was lost."""
    wanted = refunds.refund(TENANT, payment_id, amount_minor, "a test", "k", now())
    the_bank().add_fault("drop_after", "POST", REFUND)
    assert refunds.carry_out(TENANT, wanted.refund_id, impatient(), now()) is None


def told_of_refund(payment_id: UUID) -> str:
    """Stripe's event of a refund is delivered; its id."""
    charge = {"id": "ch_1", "object": "charge", "payment_intent": intent_id(payment_id)}
    body = an_event("charge.refunded", charge)
    return webhooks.receive(body, signature(body), now()).event_id


def noted(payment_id: UUID, dispute_id: str) -> None:
    disputes.record(TENANT, payment_id, gateway().retrieve_dispute(dispute_id), gateway(), now())


def carried_out() -> None:
    for tenant_id, refund_id in refunds.claim_due(now()):
        refunds.carry_out(tenant_id, refund_id, gateway(), now())


def holds() -> list[str]:
    return [reason for (reason,) in rows("SELECT reason FROM customer_holds")]


def test_a_refund_whose_answer_was_lost_counts_once_in_what_is_left() -> None:
    """Stripe's event comes before we look again: what it tells was made is not asked for besides."""
    due = collected()
    made_unnoticed(due, 3_000)

    webhooks.work(told_of_refund(due), gateway(), now())

    assert payment(due, "state, refunded_minor") == ("partially_refunded", 3_000)
    assert refunds.refund(TENANT, due, None, "a test", "the rest", now()).amount_minor == FEE - 3_000
    assert rows("SELECT state, amount_minor FROM refunds ORDER BY amount_minor") == [
        ("succeeded", 3_000),
        ("submitting", FEE - 3_000),
    ]


def test_an_event_that_the_failure_of_its_refund_has_overtaken_is_not_believed() -> None:
    """Else the payment stays given back for ever, and a top-up's value taken."""
    due = collected()
    made_unnoticed(due, 3_000)

    class Way(type(gateway())):  # type: ignore[misc]
        """To a Stripe where the refund fails just after the first look at its intent; that is noted at once."""

        has_failed = False

        def retrieve_intent(self, stripe_payment_intent_id: str) -> IntentSnapshot:
            seen: IntentSnapshot = super().retrieve_intent(stripe_payment_intent_id)
            if self.has_failed:
                return replace(seen, refunded_minor=0)
            self.has_failed = True
            refunds.look(TENANT, due, self, now())
            return seen

        def find_refunds(self, stripe_payment_intent_id: str) -> list[RefundSnapshot]:
            return [replace(one, status="failed") for one in super().find_refunds(stripe_payment_intent_id)]

    webhooks.work(told_of_refund(due), Way("sk_test_sandbox", settings().stripe_api_base), now())

    assert one("SELECT state FROM refunds") == ("failed",)
    assert payment(due, "state, refunded_minor") == ("succeeded", 0)


def test_what_was_to_be_voided_and_is_disputed_goes_back_when_the_dispute_is_won(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe gives nothing back while the bank has it; that is no reason to keep it afterwards."""
    due = collected_unnoticed(fault_dir, monkeypatch)
    void(TENANT, due, "a mistake", now())
    dispute_id = the_bank().open_dispute(intent_id(due))
    noted(due, dispute_id)
    carried_out()
    assert payment(due, "state") == ("disputed",)

    the_bank().close_dispute(dispute_id, "won")
    noted(due, dispute_id)
    carried_out()

    assert payment(due, "state, refunded_minor") == ("refunded", FEE)
    assert rows("SELECT kind FROM alerts ORDER BY kind") == [("dispute_opened",), ("voided_but_paid",)]


def test_what_was_going_back_when_the_bank_took_it_goes_back_when_the_dispute_is_won(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refund was asked for, and Stripe refuses it by now."""
    due = collected_unnoticed(fault_dir, monkeypatch)
    void(TENANT, due, "a mistake", now())
    assert taken(due) is PaymentState.SUCCEEDED
    dispute_id = the_bank().open_dispute(intent_id(due))
    carried_out()
    noted(due, dispute_id)
    assert one("SELECT state FROM refunds") == ("failed",)

    the_bank().close_dispute(dispute_id, "won")
    noted(due, dispute_id)
    carried_out()

    assert payment(due, "state, refunded_minor") == ("refunded", FEE)
    assert [refund["amount"] for refund in at_stripe("/v1/refunds")["data"]] == [FEE]


def test_days_that_were_not_used_of_a_disputed_fee_go_back_when_the_dispute_is_won() -> None:
    """Not before: Stripe would refuse it, and it would have failed for good."""
    offered(DAILY)
    joined(JANUARY, plan="monthly")
    cards.attach(TENANT, "ana", GOOD, gateway(), JANUARY)
    turned(JANUARY)
    ((fee,),) = rows("SELECT payment_id FROM payments")
    taken(fee, JANUARY)
    dispute_id = the_bank().open_dispute(intent_id(fee))
    noted(fee, dispute_id)

    subscriptions.end(TENANT, "ana", JANUARY + 10 * DAY, At.NOW)
    ((tenant_id, refund_id),) = refunds.claim_due(now())
    assert refunds.carry_out(tenant_id, refund_id, gateway(), now()) is None
    the_bank().close_dispute(dispute_id, "won")
    noted(fee, dispute_id)
    assert refunds.carry_out(tenant_id, refund_id, gateway(), now()) is RefundState.SUCCEEDED

    assert payment(fee, "state, refunded_minor") == ("partially_refunded", 40_000 - 12_903)


def test_a_refund_of_what_the_bank_keeps_fails_when_that_is_certain() -> None:
    """And a person is told."""
    due = collected()
    dispute_id = the_bank().open_dispute(intent_id(due))
    wanted = refunds.refund(TENANT, due, None, "a test", "k", now())
    noted(due, dispute_id)
    assert refunds.carry_out(TENANT, wanted.refund_id, gateway(), now()) is None

    the_bank().close_dispute(dispute_id, "lost")
    noted(due, dispute_id)

    assert refunds.carry_out(TENANT, wanted.refund_id, gateway(), now()) is RefundState.FAILED
    assert rows("SELECT kind FROM alerts ORDER BY kind") == [("dispute_lost",), ("dispute_opened",), ("refund_failed",)]


def test_a_dispute_of_before_the_database_was_put_back_is_found_with_its_payment() -> None:
    """Its events named an intent that we did not know, or came before the dump was taken back."""
    due = collected()
    the_bank().open_dispute(intent_id(due))
    put_back(due)

    taken(due)

    assert payment(due, "state") == ("disputed",)
    assert holds() == ["disputed"]
    assert captured()[due] == (FEE, 1)


def test_the_daily_look_finds_the_dispute_of_what_was_collected_unnoticed(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = collected_unnoticed(fault_dir, monkeypatch)
    the_bank().open_dispute(intent_id(due))

    reconcile.look(TENANT, due, gateway(), now())

    assert payment(due, "state") == ("disputed",)
    assert holds() == ["disputed"]


def test_a_look_at_an_attempt_left_open_finds_the_dispute_too(fault_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    due = collected_unnoticed(fault_dir, monkeypatch)
    the_bank().open_dispute(intent_id(due))

    assert taken(due) is PaymentState.DISPUTED

    assert holds() == ["disputed"]
