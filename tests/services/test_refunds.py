"""Money back: in full or in part, once for each key, and never more than was collected."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from celery import Celery

from billing.errors import IdempotencyConflict, PaymentNotFound, Rejected
from billing.payments import PaymentState, RefundState
from config.settings import settings
from db.session import in_transaction
from payments.gateway import RefundSnapshot
from sandbox.processes import await_condition
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.control import REFUND, DoubleControl
from sandbox.stripe_double.server import served
from services.collecting import refunds as service
from services.collecting.gateways import gateway
from services.collecting.refunds import Refund, carry_out, claim_due, refund
from services.collecting.sync import sync
from services.collecting.voiding import void
from tasks.queues import depths
from tests.conftest import WorkerStarter
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.collecting import FEE, at_stripe, captured, impatient, later, owing, payment, taken
from tests.services.elsewhere import ROOT, ended, started

pytestmark = pytest.mark.usefixtures("billing_database")

ASK = """
import sys, uuid
from config import clock
from billing.errors import Rejected
from services.collecting.refunds import refund
try:
    refund("acme", uuid.UUID(sys.argv[1]), 6_000, "a test", sys.argv[2], clock.now())
except Rejected as refusal:
    sys.exit(str(refusal))
"""
CARRY_OUT = """
import sys, uuid
from config import clock
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out
print(carry_out("acme", uuid.UUID(sys.argv[1]), gateway(), clock.now()))
"""


@pytest.fixture
def double() -> StripeDouble:
    """The double that this test talks to."""
    return StripeDouble()


@pytest.fixture
def stripe_double(double: StripeDouble) -> Iterator[str]:
    with served(double) as base_url:
        yield base_url


def collected() -> UUID:
    """A payment of BRL 100.00 that has come in."""
    (due,) = owing()
    assert taken(due) is PaymentState.SUCCEEDED
    return due


def asked(payment_id: UUID, amount_minor: int | None = None, key: str = "k") -> Refund:
    return refund(TENANT, payment_id, amount_minor, "a test", key, datetime.now(UTC))


def made(wanted: Refund, now: datetime | None = None) -> RefundState | None:
    return carry_out(TENANT, wanted.refund_id, gateway(), now or datetime.now(UTC))


def standing(payment_id: UUID) -> tuple[Any, ...]:
    return payment(payment_id, "state, refunded_minor")


def at_the_bank() -> list[int]:
    """The refunds that Stripe has made, by amount."""
    return sorted(one["amount"] for one in at_stripe("/v1/refunds")["data"])


def process(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_refund_gives_back_all_that_was_collected() -> None:
    due = collected()

    wanted = asked(due)
    assert (wanted.amount_minor, wanted.state, wanted.is_new) == (FEE, RefundState.SUBMITTING, True)
    assert made(wanted) is RefundState.SUCCEEDED

    assert standing(due) == ("refunded", FEE)
    assert at_the_bank() == [FEE]
    assert one("SELECT state, due_at, failure, stripe_refund_id IS NULL FROM refunds") == (
        "succeeded",
        None,
        None,
        False,
    )


def test_parts_add_up_until_nothing_is_left() -> None:
    due = collected()

    states = []
    for number, part in enumerate([1_000, 2_500, None]):
        made(asked(due, part, f"part:{number}"))
        states.append(standing(due))

    assert states == [("partially_refunded", 1_000), ("partially_refunded", 3_500), ("refunded", FEE)]
    assert at_the_bank() == [1_000, 2_500, 6_500]


def test_the_same_key_asks_once() -> None:
    """Before it is made and after; a second worker with the same message makes no second refund."""
    due = collected()

    first, again = asked(due, 4_000), asked(due, 4_000)
    results = [made(first), made(again)]
    after = [asked(due, 4_000), asked(due)]

    assert again == replace(first, is_new=False)
    assert results == [RefundState.SUCCEEDED] * 2
    assert [(one.state, one.is_new, one.refund_id) for one in after] == [
        (RefundState.SUCCEEDED, False, first.refund_id)
    ] * 2
    assert at_the_bank() == [4_000]
    assert standing(due) == ("partially_refunded", 4_000)


def test_the_same_key_for_something_else_is_a_conflict() -> None:
    first, second = owing(tiers=2)
    for due in (first, second):
        taken(due)
    asked(first, 4_000)

    with pytest.raises(IdempotencyConflict, match="4000"):
        asked(first, 4_001)
    with pytest.raises(IdempotencyConflict, match=str(first)):
        asked(second, 4_000)

    assert rows("SELECT amount_minor FROM refunds") == [(4_000,)]


def test_more_than_is_left_is_refused() -> None:
    """Counting what was asked for and is not made yet; the refusal says what there is."""
    due = collected()
    made(asked(due, 2_000, "made"))
    asked(due, 3_000, "asked")

    for amount in (5_001, FEE, 0, -1):
        with pytest.raises(Rejected, match=r"left BRL 50\.00"):
            asked(due, amount, "more")

    assert asked(due, 5_000, "rest").is_new
    with pytest.raises(Rejected, match=r"all that is left .* left BRL 0\.00"):
        asked(due, None, "nothing")


def test_what_was_not_collected_is_not_refunded() -> None:
    (due,) = owing()

    with pytest.raises(Rejected, match="nothing was collected; void it instead"):
        asked(due)
    with pytest.raises(PaymentNotFound):
        asked(uuid4())

    assert rows("SELECT FROM refunds") == []


def test_two_processes_that_ask_at_once_never_get_more_than_was_collected() -> None:
    """Twice BRL 60.00 of BRL 100.00, both at the payment's lock before either has it: one of them."""
    due = collected()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("SELECT FROM payments FOR UPDATE")
        processes = [process(ASK, str(due), name) for name in ("one", "other")]
        await_condition(lambda: one(waiting) == (2,), 30, "both processes to wait for the lock")
    ends = [(running.communicate(timeout=60)[0], running.returncode) for running in processes]

    assert sorted(status for _, status in ends) == [0, 1], ends
    assert any("left BRL 40.00" in said for said, _ in ends), ends
    assert rows("SELECT amount_minor FROM refunds") == [(6_000,)]
    for tenant_id, refund_id in claim_due(datetime.now(UTC)):
        assert carry_out(tenant_id, refund_id, gateway(), datetime.now(UTC)) is RefundState.SUCCEEDED
    assert standing(due) == ("partially_refunded", 6_000)
    assert at_the_bank() == [6_000]


def test_two_processes_that_make_the_same_refund_make_it_once() -> None:
    due = collected()
    wanted = asked(due, 4_000)

    processes = [process(CARRY_OUT, str(wanted.refund_id)) for _ in range(2)]
    for running in processes:
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 0, said
    made(wanted)

    assert at_the_bank() == [4_000]
    assert standing(due) == ("partially_refunded", 4_000)


def test_a_refund_that_is_under_way_is_looked_at_daily_and_may_fail_weeks_later(double: StripeDouble) -> None:
    """The payment holds the money again then, and a person is told, once."""
    due = collected()
    wanted = asked(due, 4_000)
    now = datetime.now(UTC)

    class Bank(type(gateway())):  # type: ignore[misc]
        """The way to Stripe, with a bank that takes its time: the double's refunds are all done at once."""

        status = "pending"

        def create_refund(self, *asked: Any, **named: Any) -> RefundSnapshot:
            made: RefundSnapshot = super().create_refund(*asked, **named)
            return replace(made, status=self.status)

        def find_refunds(self, stripe_payment_intent_id: str) -> list[RefundSnapshot]:
            return [replace(one, status=self.status) for one in super().find_refunds(stripe_payment_intent_id)]

    bank = Bank("sk_test_sandbox", settings().stripe_api_base)
    assert carry_out(TENANT, wanted.refund_id, bank, now) is RefundState.PENDING
    assert claim_due(now + timedelta(hours=23)) == []
    assert claim_due(now + timedelta(days=1)) == [(TENANT, wanted.refund_id)]
    bank.status = "succeeded"
    assert carry_out(TENANT, wanted.refund_id, bank, now + timedelta(days=1)) is RefundState.SUCCEEDED
    assert standing(due) == ("partially_refunded", 4_000)

    bank.status = "failed"
    for charge in double.store.charges.values():
        charge.amount_refunded = 0
    for day in (20, 21):
        service.look(TENANT, due, bank, now + timedelta(days=day))

    assert one("SELECT state, due_at FROM refunds") == ("failed", None)
    assert standing(due) == ("succeeded", 0)
    assert rows("SELECT kind, times FROM alerts") == [("refund_failed", 1)]
    assert asked(due, None, "again").amount_minor == FEE


def test_the_sweep_has_refunds_made_by_a_worker(start_a_worker: WorkerStarter) -> None:
    """Two sweeps, and a message of each twice: one refund."""
    due = collected()
    wanted = asked(due, 4_000)
    start_a_worker(queues="payments,ticks")

    with Celery(broker=settings().required("broker_url"), set_as_current=False) as app:
        for _ in range(2):
            app.send_task("centavo.carry_out_refund", args=(TENANT, str(wanted.refund_id)), queue="payments")
            app.send_task("centavo.sweep_refunds", queue="ticks")
        await_condition(lambda: standing(due)[0] == "partially_refunded", 30, "the refund to be made")
        await_condition(lambda: set(depths().values()) == {0}, 30, "the queues to be empty")

    assert at_the_bank() == [4_000]
    assert one("SELECT state FROM refunds") == ("succeeded",)


@pytest.mark.parametrize("hours", [0, 25])
@pytest.mark.parametrize("point", ["refund.before_call", "refund.after_call"])
def test_a_crash_around_the_call_refunds_once(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch, point: str, hours: int
) -> None:
    """Carried out again at once, or when Stripe has forgotten the key."""
    monkeypatch.setenv("CENTAVO_FAULT_DIR", str(fault_dir))
    due = collected()
    wanted = asked(due, 4_000)
    (fault_dir / f"{point}.1").touch()
    running = process(CARRY_OUT, str(wanted.refund_id))
    assert (running.communicate(timeout=60)[0], running.returncode) == ("", -signal.SIGKILL)
    assert at_the_bank() == [4_000] * (point == "refund.after_call")
    assert standing(due) == ("succeeded", 0)

    later(hours * 3600)
    assert made(wanted, datetime.now(UTC) + timedelta(hours=hours)) is RefundState.SUCCEEDED

    assert at_the_bank() == [4_000]
    assert standing(due) == ("partially_refunded", 4_000)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "error_after", "unavailable", "rate_limited"])
def test_while_stripe_gives_no_answer_a_refund_waits_and_is_made_once(kind: Any) -> None:
    """Each time as long as it has waited so far, at least ten seconds."""
    due = collected()
    wanted = asked(due, 4_000)
    control = DoubleControl(str(settings().stripe_api_base))
    control.add_fault(kind, "POST", REFUND, times=1)
    now = datetime.now(UTC)

    assert carry_out(TENANT, wanted.refund_id, impatient(), now) is None

    assert one("SELECT state, due_at FROM refunds") == ("submitting", now + timedelta(seconds=10))
    assert claim_due(now) == []
    soon = now + timedelta(seconds=40)
    assert claim_due(soon) == [(TENANT, wanted.refund_id)]
    assert claim_due(soon) == []
    assert made(wanted, soon) is RefundState.SUCCEEDED
    assert at_the_bank() == [4_000]
    assert standing(due) == ("partially_refunded", 4_000)
    assert claim_due(soon + timedelta(days=30)) == []


def test_a_refund_that_stripe_refuses_has_failed_and_a_person_is_told() -> None:
    """The bank has taken the money back before us, and we had not heard of it."""
    due = collected()
    wanted = asked(due, 4_000)
    control = DoubleControl(str(settings().stripe_api_base))
    control.open_dispute(payment(due, "stripe_payment_intent_id")[0])

    assert made(wanted) is RefundState.FAILED

    assert at_the_bank() == []
    assert "charge_disputed" in one("SELECT failure FROM refunds WHERE due_at IS NULL")[0]
    kind, detail = one("SELECT kind, detail FROM alerts")
    assert (kind, "BRL 40.00" in detail, str(due) in detail) == ("refund_failed", True, True)


def test_a_refund_made_by_hand_at_stripe_leaves_less_to_give_back() -> None:
    due = collected()
    intent_id = payment(due, "stripe_payment_intent_id")[0]
    gateway().create_refund(intent_id, 7_000, {}, "by hand")

    service.look(TENANT, due, gateway(), datetime.now(UTC))

    assert standing(due) == ("partially_refunded", 7_000)
    with pytest.raises(Rejected, match=r"left BRL 30\.00"):
        asked(due, 3_001)


def test_a_look_that_is_older_than_what_is_known_is_taken_again() -> None:
    """The intent was read, then somebody else believed a newer one: the refund of before is not undone."""
    due = collected()
    wanted = asked(due, 4_000)
    intent_id = payment(due, "stripe_payment_intent_id")[0]

    class Slow(type(gateway())):  # type: ignore[misc]
        """The way to Stripe, on which another refund is made and believed just after the first look."""

        looks = 0

        def retrieve_intent(self, stripe_payment_intent_id: str) -> Any:
            seen = super().retrieve_intent(stripe_payment_intent_id)
            Slow.looks += 1
            if Slow.looks == 1:
                self.create_refund(intent_id, 1_000, {}, "by hand")
                newer = super().retrieve_intent(intent_id)
                in_transaction(lambda c: sync(c, TENANT, due, newer, datetime.now(UTC), source="webhook"))
            return seen

    way = Slow("sk_test_sandbox", settings().stripe_api_base)
    assert carry_out(TENANT, wanted.refund_id, way, datetime.now(UTC)) is RefundState.SUCCEEDED

    assert Slow.looks == 2
    assert standing(due) == ("partially_refunded", 5_000)


def test_what_was_to_be_voided_and_was_collected_all_the_same_goes_back(
    fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker died after the call; the payment was voided meanwhile; then it is found to be collected."""
    (due,) = owing()
    monkeypatch.setenv("CENTAVO_FAULT_DIR", str(fault_dir))
    (fault_dir / "collect.after_confirm.1").touch()
    assert ended(started("collect", TENANT, str(due)))[0] == -signal.SIGKILL
    void(TENANT, due, "a mistake", datetime.now(UTC))

    assert taken(due) is PaymentState.SUCCEEDED
    claimed = claim_due(datetime.now(UTC))
    for tenant_id, refund_id in claimed:
        carry_out(tenant_id, refund_id, gateway(), datetime.now(UTC))

    assert len(claimed) == 1
    assert captured()[due] == (FEE, 1)
    assert at_the_bank() == [FEE]
    assert standing(due) == ("refunded", FEE)
    assert rows("SELECT kind FROM alerts") == [("voided_but_paid",)]
