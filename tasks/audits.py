"""The audit by itself: beat says "look", and it runs when its time has come."""

from celery import shared_task

from config import clock
from services.oversight.auditing import audit_due
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available


@shared_task(name=names.AUDIT_WHEN_DUE, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
@by_the_clock
def audit_when_due() -> int:
    """Run the audit if it is due; how many differences there are."""
    result = until_available(lambda: audit_due(clock.now()))
    return result.differences if result else 0
