"""The Celery app of the naive worker: one task, which charges one event."""

from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from bench.naive import tables
from bench.naive.record import record

QUEUE = "naive"
#: Where kombu keeps what was taken and not acknowledged, if it is not told otherwise.
UNACKED = "unacked"

# Never the current app: a benchmark may load the project's tasks into the same process.
app = Celery("naive", set_as_current=False)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)

_engine: Engine | None = None


@worker_process_init.connect
def connect(**_: Any) -> None:
    """Each child has an engine, so a connection, of its own: one made before the fork would be shared."""
    global _engine  # noqa: PLW0603
    _engine = tables.connect(app.conf.naive_database_url)


@app.task(name="naive.record_usage")
def record_usage(event: dict[str, Any]) -> None:
    assert _engine is not None
    with _engine.connect() as connection:
        try:
            record(connection, event)
        except IntegrityError:
            # Both children had the same new key in hand and the other one was first: now it is found.
            record(connection, event)
