"""That beat ticks, and somebody listens."""

from celery import shared_task

from config import clock
from services.health import note_tick as note
from tasks import names
from tasks.waiting import until_available


@shared_task(name=names.NOTE_TICK, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def note_tick() -> None:
    """Note that a tick came through."""
    until_available(lambda: note(clock.now()))
