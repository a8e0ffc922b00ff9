"""What Celery would throw away is kept: it is sent on to be parked before it is acknowledged.

Left to itself, Celery acknowledges a body that it can't decode, and rejects unknown tasks and messages that
are no tasks, none of which comes back. Here the bytes go into a task of our own first. If that can't be
published, the message stays unacknowledged, and returns.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer

from billing.rating import ParkReason
from config.settings import settings
from tasks import names

log = get_logger(__name__)
NO_TASK = "this is not a task message as docs/wire-format.md describes it"
RETRY = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0}


class Intake(Consumer):
    """Celery's consumer, less its waste-paper basket."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        lost_connection = (*self.connection_errors, *self.channel_errors)

        def on_message(message: Any) -> None:
            try:
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


def _bytes_of(message: Any) -> bytes:
    """The body, or the whole message where there is none."""
    if isinstance(message.body, bytes):
        return message.body
    raw = getattr(message, "_raw", None) or {"headers": message.headers, "body": message.body}
    return json.dumps(raw, sort_keys=True, default=repr).encode()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
