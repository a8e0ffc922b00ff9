"""The background thread's side: one kombu connection, and the loop that sends batches over it."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import kombu.connection
import kombu.messaging

from centavo.buffer import Batch, Buffer
from centavo.envelopes import CONTENT_ENCODING, CONTENT_TYPE, Message, celery_message, pack

CONNECT_SECONDS_MAX = 5.0
PUBLISH_SECONDS_MAX = 15.0
RETRY_SECONDS_FIRST = 0.1
RETRY_SECONDS_MAX = 5.0
PERSISTENT = 2
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
_Connection: Any = kombu.connection.Connection
_KombuProducer: Any = kombu.messaging.Producer

logger = logging.getLogger("centavo")


class Publisher:
    """Sends messages to one queue over one connection, made when it is needed. For one thread only.

    Raises `ValueError` when the URL names no broker that can be used here.
    """

    def __init__(self, broker_url: str, queue: str, transport_options: Mapping[str, Any]) -> None:
        self._queue = queue
        self._connection = _connection_to(broker_url, transport_options)
        self.address = self._connection.as_uri()  # without the password

    def publish(self, message: Message) -> None:
        """Hand this message to the broker. When this returns the broker has it; an error says nothing of it.

        RabbitMQ confirms each message, and returns one whose queue does not exist yet (`mandatory`), which
        is an error here; the worker declares the queue. Redis holds what `LPUSH` answered.
        """
        # kombu's own default waits between connection attempts; the loop below does that, and can be hurried.
        self._connection.ensure_connection(
            max_retries=max(len(self._connection.alt) - 1, 0), interval_start=0, interval_step=0
        )
        _KombuProducer(self._connection.default_channel).publish(
            message.body,
            exchange="",
            routing_key=self._queue,
            content_type=CONTENT_TYPE,
            content_encoding=CONTENT_ENCODING,
            headers=message.headers,
            delivery_mode=PERSISTENT,
            mandatory=True,
            timeout=PUBLISH_SECONDS_MAX,
            confirm_timeout=PUBLISH_SECONDS_MAX,
            **message.properties,
        )

    def run(self, buffer: Buffer) -> None:
        """Send batches until the buffer is closed and empty: the body of the background thread.

        A batch that fails is tried again, after 0.1 s, doubling to 5 s, until the broker has it: what cannot
        be sent now can be sent later, and events stay in order.
        """
        failures = 0
        while (batch := buffer.next_batch()) is not None:
            try:
                self.publish(_message_of(batch))
            except Exception as error:  # noqa: BLE001 - whatever it is, the events stay and are tried again
                failures += 1
                self._give_way(buffer, failures, error)
            else:
                buffer.confirm(batch)
                if failures:
                    logger.info("the broker at %s takes usage events again", self.address)
                failures = 0
        self._connection.close()

    def _give_way(self, buffer: Buffer, failures: int, error: Exception) -> None:
        reason = self._reason(error)
        buffer.fail(reason)
        if failures == 1:
            logger.warning("usage events cannot be sent to %s and wait in memory (%s)", self.address, reason)
        try:
            self._disconnect()
        except Exception:
            logger.debug("closing the failed connection failed as well", exc_info=True)
        buffer.pause(min(RETRY_SECONDS_FIRST * 2 ** min(failures - 1, 10), RETRY_SECONDS_MAX))

    def _reason(self, error: Exception) -> str:
        if getattr(error, "reply_code", None) == NO_ROUTE:
            return f"the broker has no queue {self._queue!r}; a worker makes it when it starts"
        return f"{type(error).__name__}: {error}"

    def _disconnect(self) -> None:
        """Drop a connection that failed, without talking to the broker."""
        if self._connection.transport.driver_type == "amqp":
            self._connection.collect()
        else:
            self._connection.close()


def _message_of(batch: Batch) -> Message:
    if batch.message is None:
        batch.message = celery_message(pack(batch.events))
    return batch.message


def _connection_to(broker_url: str, transport_options: Mapping[str, Any]) -> Any:
    scheme, separator, _ = broker_url.partition("://")
    if not separator:  # kombu would take it for a RabbitMQ on this host
        raise ValueError(f"{broker_url!r} is no broker URL such as redis://host:6379/0 or amqp://user:password@host//")
    if scheme in {"redis", "rediss", "sentinel"} and find_spec("redis") is None:
        raise ValueError(f"a {scheme}:// broker needs the redis client: install centavo[redis]")
    try:
        connection = _Connection(broker_url, connect_timeout=CONNECT_SECONDS_MAX)
        # Imports the transport now, in the caller's thread: a fork during an import in another thread hangs.
        driver_type = connection.transport.driver_type
    except (KeyError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"no broker can be reached by a URL that starts with {scheme!r}: {error}") from error
    options = {**_OPTIONS.get(driver_type, {}), **transport_options}
    return _Connection(broker_url, connect_timeout=CONNECT_SECONDS_MAX, transport_options=options)
