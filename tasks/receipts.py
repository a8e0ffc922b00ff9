"""Receipts: a word to the producer that an envelope of its is recorded, so that it need not send it again.

Sent in bulk, by a thread of the pool child, after the commit. Nothing waits for a receipt and nothing fails for
want of one: what can't be sent is dropped, and the producer sends the envelope again, which does no harm.
"""

import re
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import Any

from kombu import Connection, Producer

from centavo.envelopes import RECEIPTS_PREFIX, RECEIPTS_SECONDS
from config.logging import logger
from config.settings import settings

log = logger(__name__)

LINGER_SECONDS = 0.2
RETRY_SECONDS = 2.0
#: A message to a producer takes 0.4 ms of processor time. Whatever the number of producers, no more than a
#: hundredth of the child's time goes there: the more there is to send, the longer the pause after it.
PAUSE_TO_WORK = 100
CONNECT_SECONDS_MAX = 2.0
SEND_SECONDS_MAX = 5.0
OWED_MAX = 10_000
IDS_MAX = 500
VERSION = 1
#: A message says where its receipt goes; workers write to queues of receipts, and to nothing else that it may name.
_NAMED = re.compile(re.escape(RECEIPTS_PREFIX) + r"[0-9a-f-]{36}")
_REDIS_OPTIONS = {"socket_connect_timeout": CONNECT_SECONDS_MAX, "socket_timeout": SEND_SECONDS_MAX}
_AMQP_OPTIONS = {"read_timeout": SEND_SECONDS_MAX, "write_timeout": SEND_SECONDS_MAX}


class Outbox:
    """The receipts that a process owes."""

    def __init__(self) -> None:
        self._owed: deque[tuple[str, str]] = deque()
        self._is_owing = threading.Event()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: Any = None

    def owe(self, queue: Any, message_id: Any) -> None:
        """Note that this message is recorded. Never waits, never fails."""
        if not isinstance(queue, str) or not isinstance(message_id, str) or not _NAMED.fullmatch(queue):
            return
        if len(self._owed) >= OWED_MAX:
            return
        self._owed.append((queue, message_id))
        self._is_owing.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)
            with suppress(RuntimeError):  # no more threads: no receipts
                self._thread.start()

    def close(self) -> None:
        """Send what is owed now, if nobody is at it."""
        if self._thread is None or not self._sending.acquire(timeout=LINGER_SECONDS):
            return
        try:
            self._send_owed()
        finally:
            self._sending.release()

    def _run(self) -> None:
        pause_seconds = LINGER_SECONDS
        while True:
            self._is_owing.wait()
            time.sleep(pause_seconds)
            self._is_owing.clear()
            began = time.thread_time()
            with self._sending:
                is_sent = self._send_owed()
            spent = time.thread_time() - began
            pause_seconds = max(LINGER_SECONDS if is_sent else RETRY_SECONDS, spent * PAUSE_TO_WORK)

    def _send_owed(self) -> bool:
        owed: dict[str, list[str]] = defaultdict(list)
        for _ in range(len(self._owed)):
            queue, message_id = self._owed.popleft()
            owed[queue].append(message_id)
        try:
            for queue, ids in owed.items():
                for first in range(0, len(ids), IDS_MAX):
                    self._send(queue, ids[first : first + IDS_MAX])
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not harm the usage path
            log.debug("receipts dropped", messages=sum(map(len, owed.values())), error=str(error))
            self._disconnect()
            return False
        return True

    def _send(self, queue: str, ids: list[str]) -> None:
        channel = self._channel()
        Producer(channel).publish(
            {"v": VERSION, "ids": ids}, exchange="", routing_key=queue, serializer="json", delivery_mode=1
        )
        if self._connection.transport.driver_type == "redis":
            channel.client.expire(queue, RECEIPTS_SECONDS)

    def _channel(self) -> Any:
        if self._connection is None:
            url = settings().required("broker_url")
            options = _AMQP_OPTIONS if url.startswith("amqp") else _REDIS_OPTIONS
            self._connection = Connection(url, connect_timeout=CONNECT_SECONDS_MAX, transport_options=options)
        self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        return self._connection.default_channel

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(Exception):
            if connection is not None:
                connection.collect()


_outbox = Outbox()


def owe(queue: Any, message_id: Any) -> None:
    """Tell the producer, some time soon, that this message is recorded."""
    _outbox.owe(queue, message_id)


def close() -> None:
    """Send what is owed before the process ends."""
    _outbox.close()
