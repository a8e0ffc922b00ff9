"""What happens when a worker, a pool child or beat starts and stops."""

from typing import Any

from celery import signals

from config import faults
from config.logging import configure, logger
from config.settings import settings
from db import session
from services import catalogue
from tasks import stopping

log = logger(__name__)


def connect() -> None:
    """Listen to Celery's signals. Kept weakly by Celery, so these are module functions."""
    signals.setup_logging.connect(_set_up_logging)
    signals.worker_init.connect(_worker_started)
    signals.worker_process_init.connect(_child_started)
    signals.worker_process_shutdown.connect(_child_stopped)
    signals.worker_shutting_down.connect(_worker_stopping)


def _set_up_logging(**_: Any) -> None:
    configure(settings().log_level)


def _worker_started(**_: Any) -> None:
    faults.directory()
    settings().required("database_url")
    stopping.clear()


def _child_started(**_: Any) -> None:
    session.forget()
    catalogue.forget()


def _child_stopped(**_: Any) -> None:
    session.close()


def _worker_stopping(**_: Any) -> None:
    stopping.request()
