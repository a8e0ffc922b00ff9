"""Whatever Stripe says, in whatever order: a payment never moves backwards, and money is counted once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.payments import PAID, PaymentState, is_forward
from db.session import in_transaction
from payments.gateway import Decline, IntentSnapshot
from services.collecting.next_step import next_step
from services.collecting.sync import sync
from services.collecting.voiding import void
from tests.factories import TENANT
from tests.looking import rows
from tests.services.collecting import FEE, owing, payment

pytestmark = pytest.mark.usefixtures("billing_database")

STATUSES = (
    "succeeded",
    "processing",
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "canceled",
    "requires_capture",
)
CODES = (None, "insufficient_funds", "lost_card", "authentication_required", "never_heard_of")
said = st.tuples(
    st.sampled_from(STATUSES), st.sampled_from(CODES), st.integers(0, 3), st.sampled_from(("answer", "webhook"))
)
steps = st.lists(said | st.sampled_from(("begin", "void")), min_size=1, max_size=14)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=steps)
def test_no_sequence_moves_a_payment_backwards(steps: list[Any]) -> None:
    (due,) = owing(customer=f"ana-{uuid4().hex}")
    now = datetime.now(UTC)
    _with_intent(due)
    before = _stands(due)
    for step in _possible(steps):
        now += timedelta(days=8)
        _take(step, due, now, is_paid=before[1] in PAID)
        after = _stands(due)
        assert is_forward(before, after), (step, before, after)
        assert not (before[1] in PAID and after[1] not in PAID)
        before = after
    succeeded = rows("SELECT 1 FROM payment_attempts WHERE payment_id = %s AND state = 'succeeded'", due)
    assert len(succeeded) <= 1


def _possible(steps: list[Any]) -> Iterator[Any]:
    """A canceled intent says nothing else any more."""
    is_canceled = False
    for step in steps:
        is_canceled = is_canceled or step[0] == "canceled"
        yield ("canceled", *step[1:]) if is_canceled and isinstance(step, tuple) else step


def _take(step: Any, due: UUID, now: datetime, *, is_paid: bool) -> None:
    if step == "begin":
        in_transaction(partial(next_step, tenant_id=TENANT, payment_id=due, now=now))
    elif step == "void":
        if not is_paid:
            void(TENANT, due, "courtesy", now)
    else:
        status, code, charge, source = step
        intent = _intent(due, status, code, charge)
        in_transaction(partial(sync, tenant_id=TENANT, payment_id=due, intent=intent, now=now, source=source))


def _with_intent(due: UUID) -> None:
    rows("UPDATE payments SET stripe_payment_intent_id = %s WHERE payment_id = %s RETURNING 1", f"pi_{due.hex}", due)


def _stands(due: UUID) -> tuple[int, PaymentState]:
    attempts_made, state = payment(due, "attempts_made, state")
    return attempts_made, PaymentState(state)


def _intent(due: UUID, status: str, code: str | None, charge: int) -> IntentSnapshot:
    return IntentSnapshot(
        stripe_payment_intent_id=f"pi_{due.hex}",
        status=status,
        amount_minor=FEE,
        currency="BRL",
        latest_charge_id=f"ch_{charge}" if charge else None,
        decline=Decline(code="card_declined", decline_code=code) if code else None,
        payment_id=due,
        environment="sandbox",
    )
