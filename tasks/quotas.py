"""Quotas of whole tenants, looked at beside the usage path."""

from celery import shared_task

from config import clock
from services.metering.counting import look_again
from tasks import names
from tasks.waiting import until_available


@shared_task(name=names.LOOK_AT_QUOTAS, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def look_at_quotas() -> int:
    """Say what transactions that met have reached together; how many thresholds."""
    return until_available(lambda: look_again(clock.now()))
