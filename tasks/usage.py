"""Usage in, and what can't be read."""

import base64
import json
from collections.abc import Callable
from typing import Any

from celery import shared_task
from celery.exceptions import Reject

from billing.errors import Stopping
from billing.rating import ParkReason
from config import clock
from config.logging import logger
from services.intake import park_message as park
from services.redelivery import Delivery, record_one_by_one, record_redelivered
from services.usage import record_usage as record
from tasks import names
from tasks.waiting import until_available

log = logger(__name__)

# Acknowledged when the transaction has committed; given back when the child dies; never given up.
_PATIENT: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "max_retries": None,
    "ignore_result": True,
    "typing": False,
    "Request": "tasks.requests:PatientRequest",
}


@shared_task(name=names.RECORD_USAGE, bind=True, **_PATIENT)
def record_usage(self: Any, *args: Any, **kwargs: Any) -> None:
    """Charge or park every event of an envelope. Takes any arguments: what isn't one envelope is parked too."""
    if len(args) != 1 or kwargs or not isinstance(args[0], str):
        raw = json.dumps([args, kwargs], sort_keys=True).encode()
        detail = "record_usage takes one string, the envelope"
        _finish(lambda: park(raw, ParkReason.MESSAGE_UNREADABLE, detail, clock.now()))
        return
    envelope = args[0].encode("utf-8", "surrogatepass")
    if self.request.delivery_info.get("redelivered"):
        delivery = Delivery(envelope)
        _finish(lambda: record_redelivered(delivery, clock.now()))
        return
    try:
        _finish(lambda: record(envelope, clock.now()))
    except (Reject, SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # a MemoryError that left a child would take the main process with it
        log.exception("envelope failed as a whole")
        _finish(lambda: record_one_by_one(envelope, clock.now()))


@shared_task(name=names.PARK_MESSAGE, **_PATIENT)
def park_message(body: str, reason: str, detail: str) -> None:
    """Keep a message that the worker's main process could not read or did not know; `body` is base64."""
    _finish(lambda: park(base64.b64decode(body), ParkReason(reason), detail, clock.now()))


def _finish(work: Callable[[], object]) -> None:
    """Do it, however long the database is away; on shutdown, give the message back unacknowledged."""
    try:
        until_available(work)
    except Stopping as error:
        raise Reject(error, requeue=True) from error
