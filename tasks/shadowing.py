"""Price lists beside the live one: the tick that rates what was charged by them."""

from celery import shared_task

from config import clock
from services.metering.shadowing import rate_some
from tasks import names
from tasks.waiting import until_done


@shared_task(name=names.RATE_SHADOW_PRICES, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def rate_shadow_prices() -> int:
    """Rate the periods in which something was charged, until none is due or the tick's time is over; how many."""
    return until_done(lambda: rate_some(clock.now()))
