"""That beat ticks and somebody listens, and that whoever collects can reach Stripe."""

from celery import shared_task

from config import clock
from config.logging import logger
from config.settings import settings
from payments.gateway import GatewayUnavailable
from payments.reachability import reach
from services.oversight import health
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available

log = logger(__name__)

#: To connect, and again to be answered: other ticks wait behind it.
STRIPE_SECONDS_MAX = 2.0


@shared_task(name=names.NOTE_TICK, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
@by_the_clock
def note_tick() -> None:
    """Note that a tick came through."""
    until_available(lambda: health.note_tick(clock.now()))


@shared_task(name=names.REACH_STRIPE, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
@by_the_clock
def reach_stripe() -> bool:
    """Note that Stripe can be reached from here, if it can."""
    try:
        reach(settings().stripe_api_base, STRIPE_SECONDS_MAX)
    except GatewayUnavailable as error:
        log.warning("stripe can't be reached", error=str(error))
        return False
    until_available(lambda: health.note_stripe(clock.now()))
    return True
