"""Usage that was written by SQL: beat says "look", and what is in the inbox is recorded."""

import time

from celery import shared_task

from config import clock
from services.inbox import drain
from tasks import names
from tasks.months import TICK_SECONDS_MAX
from tasks.waiting import until_available


@shared_task(name=names.DRAIN_INBOX, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def drain_inbox() -> int:
    """Record what is in the inbox until it is empty, or the tick's time is over; how many events."""
    until = time.monotonic() + TICK_SECONDS_MAX
    total = 0
    while time.monotonic() < until and (taken := until_available(lambda: drain(clock.now()))):
        total += taken
    return total
