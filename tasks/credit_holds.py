"""Holds on wallets: the sweep that closes those whose time is over."""

from celery import shared_task

from config import clock
from services.desk.credit_holds import expire_due
from tasks import names
from tasks.by_the_clock import by_the_clock
from tasks.waiting import until_done


@shared_task(name=names.SWEEP_HOLDS, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
@by_the_clock
def sweep_holds() -> int:
    """Give back what holds whose time is over still reserve; how many."""
    return until_done(lambda: expire_due(clock.now()))
