"""Money back: the sweep that looks for refunds that are due, and carrying one out."""

from typing import Any
from uuid import UUID

from celery import shared_task

from config import clock
from config.settings import settings
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out, claim_due
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available

# Lost or doubled messages do no harm: a lease runs out, and a refund is looked for before it is made.
_SWEPT: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}


@shared_task(name=names.SWEEP_REFUNDS, **_SWEPT)
@by_the_clock
def sweep_refunds() -> int:
    """Hand out the refunds that are due; how many."""
    due = until_available(lambda: claim_due(clock.now()))
    for tenant_id, refund_id in due:
        carry_out_refund.apply_async((tenant_id, str(refund_id)), queue=settings().payments_queue)
    return len(due)


@shared_task(name=names.CARRY_OUT_REFUND, **_SWEPT)
@by_the_clock
def carry_out_refund(tenant_id: str, refund_id: str) -> None:
    """Make one refund, and write what became of it."""
    until_available(lambda: carry_out(tenant_id, UUID(refund_id), gateway(), clock.now()))
