"""Usage that was written by SQL: beat says "look", and what is in the inbox is recorded."""

from celery import shared_task

from config import clock
from services.metering.inbox import drain
from tasks import names
from tasks.waiting import until_done


@shared_task(name=names.DRAIN_INBOX, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def drain_inbox() -> int:
    """Record what is in the inbox until it is empty, or the tick's time is over; how many events."""
    put_off: set[tuple[str, str]] = set()
    return until_done(lambda: drain(clock.now(), put_off))
