"""What is parked: the tick that tries again what a price was added for."""

from celery import shared_task

from config import clock
from services.metering.repricing import replay_priced as replay_some
from tasks import names
from tasks.waiting import until_done


@shared_task(name=names.REPLAY_PRICED, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def replay_priced() -> int:
    """Charge what waited for a price that there is now; how many events were tried."""
    put_off: set[tuple[str, str]] = set()
    return until_done(lambda: replay_some(clock.now(), put_off))
