"""What Celery would throw away is kept: it is sent on to be parked before it is acknowledged.

Left to itself, Celery acknowledges a body that it can't decode, and rejects unknown tasks and messages that
are no tasks, none of which comes back. Here the bytes go into a task of our own first. If that can't be
published, the message stays unacknowledged, and returns. What RabbitMQ gave up on goes the same way.
"""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer

from billing.rating import ParkReason
from config.settings import settings
from tasks import names, queues

log = get_logger(__name__)
NO_TASK = "this is not a task message as docs/wire-format.md describes it"
RETRY = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0}


class Intake(Consumer):
    """Celery's consumer, less its waste-paper basket."""

    class Blueprint(Consumer.Blueprint):
        """Celery's, less 28 queues that it declares on RabbitMQ for tasks with an `eta`: none of ours has one."""

        default_steps: ClassVar = [step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        chosen, ours = settings(), self.app.amqp.queues
        dead = queues.dead_letters(chosen)
        if dead in queues.names(chosen) and any(queues.takes_usage(name, chosen) for name in ours.consume_from):
            ours.select_add(queues.declared(dead, chosen))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        lost_connection = (*self.connection_errors, *self.channel_errors)

        def on_message(message: Any) -> None:
            try:
                if why := _given_up(message):
                    self._set_aside(message, ParkReason.KILLS_WORKER, why)
                else:
                    handle(message)
            except lost_connection:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is kept
                self._set_aside(message, ParkReason.MESSAGE_UNREADABLE, f"{NO_TASK}: {_said(error)}")

        return on_message

    def close(self) -> None:
        """Finish handing over what a child has begun to read; the first thing that happens on a warm shutdown.

        Celery does so only until it closes the pool, which comes before it asks. A child that was left with half an
        envelope (a pipe takes 64 KiB) would wait for the other half for ever, and the shutdown for the child.
        """
        if self.pool and self.pool.flush:
            self.pool.flush()

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        self._set_aside(message, ParkReason.MESSAGE_UNREADABLE, f"its body can't be decoded: {_said(exc)}")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        del body
        self._set_aside(message, ParkReason.MESSAGE_UNREADABLE, f"{NO_TASK}: it names no task")

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        del body
        self._set_aside(message, ParkReason.TASK_UNKNOWN, f"there is no task {str(exc)[:200]}")

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        del body
        self._set_aside(message, ParkReason.MESSAGE_UNREADABLE, f"{NO_TASK}: {_said(exc)}")

    def _set_aside(self, message: Any, reason: ParkReason, detail: str) -> None:
        log.warning("setting a message aside: %s", detail)
        try:
            self.app.send_task(
                names.PARK_MESSAGE,
                args=(base64.b64encode(_bytes_of(message)).decode(), str(reason), detail[:1000]),
                queue=settings().usage_queue,
                retry=True,
                retry_policy=RETRY,
            )
            message.ack()
        except Exception:
            log.exception("could not set a message aside")
            # Back to the queue; or, if that fails as well, it comes back for want of an acknowledgement.
            message.reject_log_error(log, Exception, requeue=True)


def _given_up(message: Any) -> str | None:
    """Why RabbitMQ gave up on this message; None if it did not.

    Those that a careless producer had expire are worked like any other: usage does not go stale.
    """
    if message.delivery_info.get("routing_key") != queues.dead_letters(settings()):
        return None
    why, origin = (message.headers.get(f"x-first-death-{name}") for name in ("reason", "queue"))
    return None if why == "expired" else f"RabbitMQ gave up on this message of the queue {origin!r}: {why}"


def _bytes_of(message: Any) -> bytes:
    """The envelope of what was one; else the body, or the whole message where there is none."""
    if _given_up(message):
        with suppress(Exception):  # whatever is wrong with it, its body is kept
            (envelope,), _, _ = message.decode()
            return bytes(envelope.encode("utf-8", "surrogatepass"))
    if isinstance(message.body, bytes):
        return message.body
    raw = getattr(message, "_raw", None) or {"headers": message.headers, "body": message.body}
    return json.dumps(raw, sort_keys=True, default=repr).encode()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
