"""From Stripe's delivery to the payment, with a real worker between."""

from datetime import UTC, datetime

from billing.payments import PaymentState
from config.settings import settings
from sandbox.processes import await_condition
from sandbox.stripe_double.control import CONFIRM, DoubleControl
from services.collecting.collect import collect
from tests.api.signed import PATH, SECRET
from tests.conftest import WorkerStarter
from tests.factories import TENANT
from tests.looking import one
from tests.services.collecting import FEE, captured, impatient, owing, payment


def test_a_worker_finishes_a_payment_whose_answer_was_lost(api: str, start_a_worker: WorkerStarter) -> None:
    double = DoubleControl(settings().stripe_api_base or "")
    double.set_webhooks(f"{api}{PATH}", SECRET)
    (payment_id,) = owing()
    double.add_fault("drop_after", "POST", CONFIRM)
    collect(TENANT, payment_id, impatient(), datetime.now(UTC))

    start_a_worker(queues="payments")

    await_condition(lambda: payment(payment_id, "state")[0] == PaymentState.SUCCEEDED, 30, "the payment to succeed")
    assert captured() == {payment_id: (FEE, 1)}
    await_condition(
        lambda: one("SELECT count(*) FILTER (WHERE worked_at IS NULL) FROM webhook_events") == (0,), 20, "no event left"
    )
    assert one("SELECT DISTINCT source FROM payment_log WHERE to_state = 'succeeded'") == ("webhook",)
