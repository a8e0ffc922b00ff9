"""The background thread's side: one kombu connection, and the loop that sends batches over it."""

import logging
import random
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import kombu.messaging

from centavo.addresses import verified
from centavo.amqps import BrokerConnection
from centavo.buffer import LOOK_SECONDS, Buffer
from centavo.envelopes import CONTENT_ENCODING, CONTENT_TYPE, Message, again
from centavo.receipts import ReceiptQueue
from centavo.shards import queue_of

CONNECT_SECONDS_MAX = 5.0
PUBLISH_SECONDS_MAX = 15.0
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 3.0
#: Of the time that it has failed: who was away for ten seconds is found within one, and for hours is asked seldom.
RETRY_SHARE = 0.1
#: A fleet that lost its broker at one moment does not come back at one moment.
RETRY_SPREAD = 0.25
PERSISTENT = 2
RESENDS_MAX = 20  # between two looks at what is new
#: For so long what belongs to a shard that the broker does not have goes to the queue that every worker declares.
MISSING_SECONDS = 60.0
NO_ROUTE = 312  # AMQP's reply code for a message that no queue took

_REDIS_OPTIONS = {
    "socket_connect_timeout": CONNECT_SECONDS_MAX,
    "socket_timeout": PUBLISH_SECONDS_MAX,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
_AMQP_OPTIONS = {
    "confirm_publish": True,
    "read_timeout": PUBLISH_SECONDS_MAX,
    "write_timeout": PUBLISH_SECONDS_MAX,
}
_OPTIONS = {"redis": _REDIS_OPTIONS, "amqp": _AMQP_OPTIONS}

# kombu carries no types.
_KombuProducer: Any = kombu.messaging.Producer

logger = logging.getLogger("centavo")


class Publisher:
    """Sends messages to a queue, or its shards, over one connection, made when it is needed. For one thread only.

    Raises `ValueError` when the URL names no broker that can be used here.
    """

    def __init__(self, broker_url: str, queue: str, transport_options: Mapping[str, Any], shards: int = 1) -> None:
        self._queue = queue
        self._queues = tuple(queue_of(queue, shard, shards) for shard in range(shards))
        self._missing_until: dict[str, float] = {}
        self._failing: set[int] = set()
        self._receipts = ReceiptQueue()
        self._takes_receipts = True
        self._is_set_up = False
        self._look_at = 0.0
        self._connection = _connection_to(broker_url, transport_options)
        self.address = self._connection.as_uri()  # without the password

    def publish(self, message: Message, shard: int = 0) -> None:
        """Hand this message to the broker. When this returns the broker has it; an error says nothing of it.

        RabbitMQ confirms each message, and returns one whose queue does not exist yet (`mandatory`), which
        is an error here; the worker declares the queue. A shard that does not exist is left out for a while, lest
        it hold up all others. Redis holds what `LPUSH` answered.
        """
        queue = self._queues[shard]
        if self._missing_until and self._missing_until.get(queue, 0) > time.monotonic():
            queue = self._queue
        try:
            self._publish(message, queue)
        except Exception as error:
            if queue == self._queue or not _has_no_route(error):
                raise
            logger.warning("the broker at %s has no queue %s; its usage goes to %s", self.address, queue, self._queue)
            self._missing_until[queue] = time.monotonic() + MISSING_SECONDS
            self._drop_connection()  # a confirmation that is still under way there would be taken for the next one
            self._publish(message, self._queue)

    def _publish(self, message: Message, queue: str) -> None:
        channel = self._connect()
        _KombuProducer(channel).publish(
            message.body,
            exchange="",
            routing_key=queue,
            content_type=CONTENT_TYPE,
            content_encoding=CONTENT_ENCODING,
            headers=message.headers,
            delivery_mode=PERSISTENT,
            mandatory=True,
            timeout=PUBLISH_SECONDS_MAX,
            confirm_timeout=PUBLISH_SECONDS_MAX,
            **{**message.properties, "reply_to": self._receipts.name if self._takes_receipts else ""},
        )

    def run(self, buffer: Buffer) -> None:
        """Send batches until the buffer is closed and empty: the body of the background thread.

        A batch that fails is tried again, after `pause_seconds`, until the broker has it: what cannot be sent now
        can be sent later, and events stay in order.
        """
        failing_since: float | None = None
        while not buffer.is_finished:
            if (batch := buffer.next_batch()) is not None:
                try:
                    if (message := buffer.message_of(batch)) is None:
                        continue
                    self.publish(message, batch.shard)
                except Exception as error:  # noqa: BLE001 - whatever it is, the events stay and are tried again
                    failing_since = failing_since or time.monotonic()
                    self._give_way(buffer, batch.shard, failing_since, error)
                    continue
                buffer.confirm(batch)
                if batch.shard in self._failing:
                    self._failing.discard(batch.shard)
                    logger.info("the broker at %s takes usage events again", self.address)
                failing_since = None
            if time.monotonic() >= self._look_at or buffer.is_asked_for_receipts:
                self._look_after(buffer)
        self._connection.close()

    def _connect(self) -> Any:
        """A channel that works, as far as can be known."""
        # kombu's own default waits between connection attempts; the loop does that, and can be hurried.
        self._connection.ensure_connection(
            max_retries=max(len(self._connection.alt) - 1, 0), interval_start=0, interval_step=0
        )
        channel = self._connection.default_channel
        if not self._is_set_up and self._takes_receipts:
            try:
                self._receipts.declare(channel)
            except self._connection.channel_errors as error:
                # It may be that this user may write to the queue of usage alone: that must be enough.
                logger.warning("no receipts: their queue can't be declared at %s (%s)", self.address, error)
                self._takes_receipts = False
                self._drop_connection()
                return self._connect()
        self._is_set_up = True
        return channel

    def _look_after(self, buffer: Buffer) -> None:
        """Take the receipts that have come, and send again what none came for. What fails is done later."""
        self._look_at = time.monotonic() + LOOK_SECONDS
        if not self._takes_receipts or not buffer.awaits_receipts:
            return
        try:
            if not self._is_set_up:
                buffer.reconnected()
            buffer.received(list(self._receipts.read(self._connect())))
            for _ in range(RESENDS_MAX):
                if (batch := buffer.due_again()) is None:
                    return
                if (message := buffer.message_of(batch)) is None:
                    continue
                message = again(message)
                self.publish(message, batch.shard)
                buffer.confirm_again(batch, message.headers["id"])
        except Exception:
            logger.debug("receipts can't be looked for", exc_info=True)
            self._look_at = time.monotonic() + RETRY_SECONDS_MAX
            self._drop_connection()

    def _give_way(self, buffer: Buffer, shard: int, failing_since: float, error: Exception) -> None:
        reason = self._reason(error)
        buffer.fail(reason, shard)
        if shard not in self._failing:
            self._failing.add(shard)
            logger.warning("usage events cannot be sent to %s and wait (%s)", self.address, reason)
        self._drop_connection()
        buffer.pause(pause_seconds(time.monotonic() - failing_since))

    def _reason(self, error: Exception) -> str:
        if _has_no_route(error):
            return f"the broker has no queue {self._queue!r}; a worker makes it when it starts"
        return f"{type(error).__name__}: {error}"

    def _drop_connection(self) -> None:
        self._is_set_up = False
        try:
            self._disconnect()
        except Exception:
            logger.debug("closing the failed connection failed as well", exc_info=True)

    def _disconnect(self) -> None:
        """Drop a connection that failed, without talking to the broker."""
        if self._connection.transport.driver_type == "amqp":
            self._connection.collect()
        else:
            self._connection.close()


def pause_seconds(failing_seconds: float) -> float:
    """How long to wait before the next attempt, when all have failed for so long; up to a quarter less, by chance."""
    pause = min(max(failing_seconds * RETRY_SHARE, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
    return pause * random.uniform(1 - RETRY_SPREAD, 1)  # noqa: S311 - it spreads a fleet, and keeps no secret


def _has_no_route(error: Exception) -> bool:
    """Whether RabbitMQ gave the message back, since it knows no such queue."""
    return getattr(error, "reply_code", None) == NO_ROUTE


def _connection_to(broker_url: str, transport_options: Mapping[str, Any]) -> Any:
    scheme, separator, _ = broker_url.partition("://")
    if not separator:  # kombu would take it for a RabbitMQ on this host
        raise ValueError(f"{broker_url!r} is no broker URL such as redis://host:6379/0 or amqp://user:password@host//")
    if scheme in {"redis", "rediss", "sentinel"} and find_spec("redis") is None:
        raise ValueError(f"a {scheme}:// broker needs the redis client: install centavo[redis]")
    broker_url = verified(broker_url)
    try:
        connection = BrokerConnection(broker_url, connect_timeout=CONNECT_SECONDS_MAX)
        # Imports the transport now, in the caller's thread: a fork during an import in another thread hangs.
        driver_type = connection.transport.driver_type
    except (KeyError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"no broker can be reached by a URL that starts with {scheme!r}: {error}") from error
    options = {**_OPTIONS.get(driver_type, {}), **transport_options}
    return BrokerConnection(broker_url, connect_timeout=CONNECT_SECONDS_MAX, transport_options=options)
