"""Small envelopes that wait at the same time are charged together.

A fleet of many slow producers sends envelopes of an event or two. On its own each would cost a round through the
pool and a transaction, a hundred times what its event does. So the worker's main process gathers them for a moment,
and hands them to a child as one request. Each is still acknowledged as itself: when the transaction has committed.

What came back once goes alone: it may have killed whoever had it, and its deliveries are counted
(`services.metering.redelivery`). Full envelopes go alone as well, and at once: there is nothing to gain.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from celery.utils.log import get_logger
from celery.worker.strategy import default
from kombu.message import Message

from tasks import names

log = get_logger(__name__)

#: As long as this an envelope waits for others; a person who waits for a balance does not notice.
GATHER_SECONDS = 0.02
#: Children work side by side, so what is at hand is dealt out in several parts.
GATHERED_MAX = 50
#: A larger one is worth a transaction of its own.
SMALL_BYTES_MAX = 8 * 1024

_Answer = Callable[..., None]


class _Waiting(NamedTuple):
    """A message that was taken, and how it is acknowledged and given back."""

    message: Any
    envelope: str
    ack: _Answer
    reject: _Answer


def strategy(task: Any, app: Any, consumer: Any) -> Callable[..., Any]:
    """How `record_usage` takes its messages; Celery asks for it whenever it connects anew."""
    alone = default(task, app, consumer)
    return Gathering(alone, default(app.tasks[names.RECORD_TOGETHER], app, consumer), consumer.timer).receive


class Gathering:
    """Small envelopes of one connection that wait for one another.

    Should the connection break meanwhile they are charged all the same, and once: the broker hands them out again,
    and their keys are known by then.
    """

    def __init__(self, alone: Callable[..., Any], together: Callable[..., Any], timer: Any) -> None:
        self._alone, self._together, self._timer = alone, together, timer
        self._waiting: list[_Waiting] = []

    def receive(self, message: Any, body: Any, ack: _Answer, reject: _Answer, callbacks: Any) -> None:
        """Take one message, as Celery's own strategy does."""
        envelope = _small(message)
        if envelope is None:
            self._alone(message, body, ack, reject, callbacks)
            return
        self._waiting.append(_Waiting(message, envelope, ack, reject))
        if len(self._waiting) == 1:
            self._timer.call_after(GATHER_SECONDS, self.hand_over)
        elif len(self._waiting) >= GATHERED_MAX:
            self.hand_over()

    def hand_over(self) -> None:
        """Hand to the pool what has gathered, if anything."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        reject = _all([one.reject for one in waiting])
        try:
            if len(waiting) == 1:
                self._alone(waiting[0].message, None, waiting[0].ack, reject, None)
            else:
                self._together(_together(waiting), None, _all([one.ack for one in waiting]), reject, None)
        except Exception as error:
            # Nobody hears of what a timer raises, and the messages would stay in this process. Back they come alone.
            log.exception("%d envelopes can't be handed over together", len(waiting))
            reject(log, (type(error),), True)


def _small(message: Any) -> str | None:
    """The envelope of a message that may be gathered."""
    if len(message.body) > SMALL_BYTES_MAX or message.delivery_info.get("redelivered"):
        return None
    if not isinstance(message.headers.get("id"), str):
        return None
    match message.payload:
        case [[str(envelope)], dict(named), dict()] if not named:
            return envelope
    return None


def _together(waiting: list[_Waiting]) -> Message:
    """One message of all their envelopes; it stands for them in this process, and was on no wire."""
    first = waiting[0].message
    return Message(
        body=json.dumps([[_gathered(one) for one in waiting], {}, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info=first.delivery_info,
        properties=first.properties,
        headers={"task": names.RECORD_TOGETHER, "id": first.headers["id"]},
        accept={"application/json"},
        channel=first.channel,
    )


def _gathered(one: _Waiting) -> tuple[str, Any, str]:
    """An envelope, and where its receipt goes: to whom, and under which id."""
    return one.envelope, one.message.properties.get("reply_to"), one.message.headers["id"]


def _all(answers: list[_Answer]) -> _Answer:
    def answer(*args: Any, **options: Any) -> None:
        for one in answers:
            one(*args, **options)

    return answer
