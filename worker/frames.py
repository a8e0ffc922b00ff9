"""kombu's Redis transport, but what it has popped is not lost by an exception.

kombu takes it for granted that only kombu pushed to its lists. Anything else (an envelope without the message
around it, a program with the wrong queue) raises in the middle of its event loop: the worker ends, and the item
is gone. Here it becomes a message: the one that has it parked.

It pops a message and notes it as unacknowledged in two steps. Where the connection breaks between them, or the
broker is too full for the note, the message is in this process alone: it is put back as soon as there is a
connection again. (A process that is killed between them still takes the message with it, and so does a broker
that is killed while it hands one over. Producers send again what nobody has confirmed.)
"""

import base64
import json
import uuid
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import ConnectionError as RedisConnectionError

from billing.rating import ParkReason
from tasks import names
from worker.earlier import EarlierQoS

log = get_logger(__name__)

RESTORING_SECONDS_MAX = 5

#: Popped, and not noted as unacknowledged: (queue, message).
_rescued: list[tuple[str, dict[str, Any]]] = []

#: What a broken message raises in kombu's hands.
_BROKEN = (ValueError, TypeError, LookupError, AttributeError)
DETAIL = "this lay in the queue {queue!r} and is not a message as docs/wire-format.md describes it: {why}"


def install() -> None:
    """Let `redis://` and `rediss://` mean the transport of this module, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:CarefulTransport"))


def parking_message(raw: bytes, queue: str, why: str) -> dict[str, Any]:
    """The message, as kombu would have read it from this queue, that has these bytes parked."""
    log.warning("what lay in queue %s is no message: %s", queue, why)
    detail = DETAIL.format(queue=queue, why=why)
    arguments = [base64.b64encode(raw).decode(), str(ParkReason.MESSAGE_UNREADABLE), detail[:1000]]
    return {
        "body": base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": names.PARK_MESSAGE, "id": str(uuid.uuid4())},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


class CarefulMessage(virtual.Message):
    """A message whose body may be anything."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)  # type: ignore[no-untyped-call]
        except _BROKEN as error:
            queue = payload["properties"]["delivery_info"]["routing_key"]
            parking = parking_message(_item(channel, payload), queue, _said(error))
            super().__init__(parking, channel=channel, **options)  # type: ignore[no-untyped-call]


class CarefulQoS(redis.QoS):
    """What this worker has at hand, by its own count, even when the broker can't be told.

    Left at hand, messages that were done while the broker was away would count against what may be fetched: a
    worker with its hands full of them fetches no more, never finds the connection broken, and idles for ever.
    Such a message comes back after the visibility timeout, and changes nothing.

    A child may be done with a message when its channel is closed already. To kombu that is an accident without a
    name, at which Celery ends the worker; here it is a broken connection, at which it goes on.
    """

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)  # type: ignore[no-untyped-call]
        self._earlier = EarlierQoS(channel)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:
        super().restore_visible(start, num, interval)  # type: ignore[no-untyped-call]
        self._earlier.restore_ours()

    def ack(self, delivery_tag: str) -> None:
        try:
            self._refuse_closed()
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            self._refuse_closed()
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        finally:
            self._quick_ack(delivery_tag)

    def _refuse_closed(self) -> None:
        if self.channel.connection is None and self.channel._pool is None:  # noqa: SLF001 - nothing left to ask over
            raise RedisConnectionError("this channel is closed; the message comes back by itself")


class CarefulChannel(redis.Channel):
    """A channel that survives what it pops.

    Whoever puts back what nobody has acknowledged holds a lock of the broker's meanwhile. Killed there, it would keep
    all others from doing so, by kombu's measure for five minutes. Two who do it at once do no harm.
    """

    Message = CarefulMessage
    QoS = CarefulQoS
    unacked_mutex_expire = RESTORING_SECONDS_MAX

    @property
    def popped(self) -> tuple[bytes, bytes] | None:
        """What came out last: (list, item)."""
        popped: tuple[bytes, bytes] | None = getattr(self.client, "popped", None)
        return popped

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Consume, once what an earlier connection could not note is back in its queue."""
        while _rescued:
            origin, message = _rescued[-1]
            self._put(origin, message)  # type: ignore[no-untyped-call]
            _rescued.pop()
            log.warning("a message that was popped when the connection broke is back in queue %s", origin)
        return super().basic_consume(queue, *args, **options)  # type: ignore[no-untyped-call]

    def _get_client(self) -> Any:
        return _Client if not self.global_keyprefix else super()._get_client()  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        self.connection.popping = self
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            if self.popped is None or _is_json(self.popped[1]):
                raise
            queue = self.popped[0].decode().rsplit(self.sep, 1)[0]
            parking = parking_message(self.popped[1], queue, f"it is not JSON: {error}")
            self.connection._deliver(parking, queue)  # noqa: SLF001 - as the method above does
            return True


class CarefulTransport(redis.Transport):
    """kombu's Redis transport, for queues that anybody may have pushed to."""

    Channel = CarefulChannel
    popping: CarefulChannel | None = None

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand a message over, addressed to where it was found: there it goes back to if it is not acknowledged."""
        try:
            properties, headers = message["properties"], message.get("headers")
            if not isinstance(properties["delivery_tag"], str) or not isinstance(headers, (dict, type(None))):
                raise TypeError("its delivery_tag is text, and its headers are an object")
            came_back = bool((properties.get("delivery_info") or {}).get("redelivered"))
        except _BROKEN as error:
            message, came_back = parking_message(_item(self.popping, message), queue, _said(error)), False
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue, "redelivered": came_back}
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except (*self.connection_errors, *self.channel_errors):
            message["properties"]["delivery_info"]["redelivered"] = True
            _rescued.append((queue, message))
            raise


class _Client(redis.redis.Redis):
    """Remembers what it popped last."""

    popped: tuple[bytes, bytes] | None = None

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and answer:
            self.popped = (answer[0], answer[1])
        return answer


def _item(channel: CarefulChannel | None, message: object) -> bytes:
    """The bytes that this message was read from; written anew where nobody remembers."""
    if channel is not None and channel.popped is not None:
        return channel.popped[1]
    return json.dumps(message, sort_keys=True, default=repr).encode()


def _is_json(item: bytes) -> bool:
    try:
        json.loads(item)
    except (ValueError, RecursionError):
        return False
    return True


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
