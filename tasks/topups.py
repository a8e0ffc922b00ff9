"""Top-ups that buy themselves: the sweep that looks for low wallets."""

from celery import shared_task

from config import clock
from services.collecting.topups import look_for_low_wallets
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_available


@shared_task(name=names.SWEEP_TOP_UPS, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
@by_the_clock
def sweep_top_ups() -> int:
    """Let wallets that are low be topped up, as their rules say; how many payments fell due."""
    return until_available(lambda: look_for_low_wallets(clock.now()))
