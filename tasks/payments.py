"""Money out: the sweep that looks for what is due, and collecting one payment."""

from typing import Any
from uuid import UUID

from celery import shared_task

from config import clock
from config.settings import settings
from services.collecting import reconcile
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.collecting.holds import find_cards_after_all
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available

# Lost or doubled messages do no harm: a lease runs out, and the next sweep hands the payment out again.
_SWEPT: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}


@shared_task(name=names.SWEEP_PAYMENTS, **_SWEPT)
@by_the_clock
def sweep_payments() -> int:
    """Hand out the payments that are due, as many as the pace allows; how many."""
    due = until_available(lambda: claim_due(clock.now()))
    for tenant_id, payment_id in due:
        collect_payment.apply_async((tenant_id, str(payment_id)), queue=settings().payments_queue)
    return len(due)


@shared_task(name=names.COLLECT_PAYMENT, **_SWEPT)
@by_the_clock
def collect_payment(tenant_id: str, payment_id: str) -> None:
    """Take one payment as far as it goes now."""
    until_available(lambda: collect(tenant_id, UUID(payment_id), gateway(), clock.now()))


@shared_task(name=names.SWEEP_CARDS, **_SWEPT)
@by_the_clock
def sweep_cards() -> int:
    """Re-open what waits for a card although there is one; for how many customers."""
    return until_available(lambda: find_cards_after_all(clock.now()))


@shared_task(name=names.LOOK_AT_PAYMENTS, **_SWEPT)
@by_the_clock
def look_at_payments() -> int:
    """Hand out every payment that is not final, to be looked at; how many."""
    number = 0
    for tenant_id, payment_id in reconcile.open_payments():
        look_at_payment.apply_async((tenant_id, str(payment_id)), queue=settings().payments_queue)
        number += 1
    return number


@shared_task(name=names.LOOK_AT_PAYMENT, **_SWEPT)
@by_the_clock
def look_at_payment(tenant_id: str, payment_id: str) -> None:
    """See how one payment stands at Stripe."""
    until_available(lambda: reconcile.look(tenant_id, UUID(payment_id), gateway(), clock.now()))
