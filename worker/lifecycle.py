"""What happens when a worker, a pool child or beat starts and stops."""

import gc
import sys
from typing import Any

import billiard.pool
from celery import signals

from billing.errors import CentavoError
from config import faults
from config.logging import configure, logger
from config.settings import settings
from db import session
from services.books import accounts, catalogue
from tasks import receipts, stopping
from worker import health

log = logger(__name__)

#: Celery hears of a killed child when its pipe closes. Often the kernel calls the child dead only a moment later;
#: then it is found at the next look, which Celery has every 5 s.
LOOK_AT_POOL_SECONDS = 0.2

#: A child that ends waits, 0.1 s at a time, until the main process has heard of all its results. On a warm shutdown
#: the main process forgets the job it handed over last, so the child would wait 30 s for nothing, and whoever
#: stops the worker would lose patience. An acknowledgement that gets lost so does no harm: the message comes back.
LAST_RESULTS_LOOKS_MAX = 10

GARBAGE_OBJECTS = 100_000


def connect() -> None:
    """Listen to Celery's signals. Kept weakly by Celery, so these are module functions."""
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_RESULTS_LOOKS_MAX
    signals.setup_logging.connect(_set_up_logging)
    signals.worker_init.connect(_worker_started)
    signals.celeryd_after_setup.connect(_worker_set_up)
    signals.worker_process_init.connect(_child_started)
    signals.worker_process_shutdown.connect(_child_stopped)
    signals.worker_shutting_down.connect(_worker_stopping)
    signals.beat_init.connect(_beat_started)


def _set_up_logging(**_: Any) -> None:
    configure(settings().log_level)


def _worker_started(**_: Any) -> None:
    """Celery logs what a signal's receiver raises, and goes on; a worker that can't work must end instead."""
    try:
        faults.directory()
        settings().required("database_url")
    except CentavoError as error:
        sys.exit(f"centavo: {error}")
    stopping.clear()


def _worker_set_up(instance: Any, **_: Any) -> None:
    health.follow_worker(instance)
    instance.timer.call_repeatedly(LOOK_AT_POOL_SECONDS, lambda: instance.pool.maintain_pool())  # noqa: PLW0108 - its own comes later


def _child_started(**_: Any) -> None:
    session.forget()
    catalogue.forget()
    accounts.forget_all()
    _collect_garbage_rarely()


def _collect_garbage_rarely() -> None:
    """An envelope makes some 20,000 objects, none of them in a cycle: looking for cycles took a fifth of the time.

    What was imported before the fork is left out of every search for good; the pages stay shared, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)


def _child_stopped(**_: Any) -> None:
    receipts.close()
    session.close()


def _worker_stopping(**_: Any) -> None:
    stopping.request()


def _beat_started(sender: Any, **_: Any) -> None:
    health.follow_beat(sender)
