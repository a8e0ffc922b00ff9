"""Usage in, and what can't be read."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

from celery import shared_task
from celery.exceptions import Reject

from billing.errors import Stopping
from billing.rating import ParkReason
from config import clock, faults
from config.logging import logger
from services.metering.intake import park_message as park
from services.metering.redelivery import Delivery, park_whole, record_in_parts, record_redelivered
from services.metering.usage import record_all
from services.metering.usage import record_usage as record
from tasks import names, receipts
from tasks.waiting import pause, until_worked

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


@shared_task(name=names.RECORD_USAGE, bind=True, Strategy="tasks.gathering:strategy", **_PATIENT)
def record_usage(self: Any, *args: Any, **kwargs: Any) -> None:
    """Charge or park every event of an envelope. Takes any arguments: what isn't one envelope is parked too."""
    if len(args) != 1 or kwargs or not isinstance(args[0], str):
        _finish(_park_arguments(args, kwargs, "record_usage takes one string, the envelope"))
        receipts.owe(self.request.reply_to, self.request.id)
        return
    envelope = args[0].encode("utf-8", "surrogatepass")
    delivery = Delivery(envelope) if self.request.delivery_info.get("redelivered") else None

    def at_once() -> None:
        faults.exhausted("usage.memory")
        if delivery:
            record_redelivered(delivery, clock.now())
        else:
            record(envelope, clock.now())

    _finish(
        at_once,
        lambda: record_in_parts(envelope, clock.now()),
        lambda: park_whole(envelope, clock.now()),
    )
    receipts.owe(self.request.reply_to, self.request.id)


@shared_task(name=names.RECORD_TOGETHER, **_PATIENT)
def record_together(*args: Any, **kwargs: Any) -> None:
    """Charge or park every event of several envelopes that were gathered (`tasks.gathering`)."""
    if not args or kwargs or not all(_is_gathered(one) for one in args):
        _finish(_park_arguments(args, kwargs, "record_together takes envelopes, each with its receipt's queue and id"))
        return
    envelopes = [envelope.encode("utf-8", "surrogatepass") for envelope, _, _ in args]
    _finish(
        lambda: record_all(envelopes, clock.now()),
        lambda: [record_in_parts(envelope, clock.now()) for envelope in envelopes],
        lambda: [park_whole(envelope, clock.now()) for envelope in envelopes],
    )
    for _, queue, message_id in args:
        receipts.owe(queue, message_id)


@shared_task(name=names.PARK_MESSAGE, **_PATIENT)
def park_message(*args: Any, **kwargs: Any) -> None:
    """Keep what the worker's main process could not read or did not know: (body in base64, reason, detail)."""

    def as_told() -> None:
        body, reason, detail = args
        park(base64.b64decode(body, validate=True), ParkReason(reason), detail, clock.now())

    _finish(as_told, _park_arguments(args, kwargs, "park_message takes a body in base64, a reason and a detail"))


def _is_gathered(one: object) -> bool:
    return isinstance(one, list) and len(one) == 3 and isinstance(one[0], str)


def _park_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], detail: str) -> Callable[[], None]:
    raw = json.dumps([args, kwargs], sort_keys=True).encode()
    return lambda: park(raw, ParkReason.MESSAGE_UNREADABLE, detail, clock.now())


def _finish(*ways: Callable[[], object]) -> None:
    """Do it in the first of these ways that works, however long the database is away.

    Celery acknowledges a message whose task raises, so nothing else may leave: on shutdown, and when no way
    works, the message is given back.
    """
    for way in ways:
        try:
            until_worked(way)
        except Stopping as error:
            raise Reject(error, requeue=True) from error
        except MemoryError:
            _leave()
        except Exception:
            log.exception("message can't be worked so")
        else:
            return
    pause()
    raise Reject("no way works", requeue=True)


def _leave() -> None:
    """Out of memory: the child ends here, and the message comes back to a fresh one, which counts it.

    Raised, the error would end the worker's main process, and the next one's; logged, it might fail again.
    """
    os._exit(1)
