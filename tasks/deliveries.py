"""Alerts: looking for what is to be said, and sending what is due, one endpoint after the other."""

import time
from typing import Any

from celery import shared_task

from config import clock
from config.settings import settings
from services.oversight import deliveries, watching
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available

# Lost or doubled messages do no harm: a lease runs out, and the next sweep hands the endpoint out again.
_SWEPT: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}

#: Less than the lease, with one slow answer to come.
DELIVERING_SECONDS_MAX = 30.0


@shared_task(name=names.LOOK_FOR_ALERTS, **_SWEPT)
@by_the_clock
def look_for_alerts() -> int:
    """Say what is low, and what ends soon; how many."""
    return until_available(lambda: watching.look(clock.now()))


@shared_task(name=names.SWEEP_ALERTS, **_SWEPT)
@by_the_clock
def sweep_alerts() -> int:
    """Hand out the endpoints for which alerts are due; how many."""
    due = until_available(lambda: deliveries.claim_due(clock.now()))
    for tenant_id in due:
        deliver_alerts.apply_async((tenant_id,), queue=settings().payments_queue)
    return len(due)


@shared_task(name=names.DELIVER_ALERTS, **_SWEPT)
@by_the_clock
def deliver_alerts(tenant_id: str) -> int:
    """Send a tenant's alerts, one after the other, until one does not arrive; how many did."""
    until = time.monotonic() + DELIVERING_SECONDS_MAX
    number = 0
    while time.monotonic() < until and until_available(lambda: deliveries.deliver_next(tenant_id, clock.now())):
        number += 1
    until_available(lambda: deliveries.release(tenant_id))
    return number
