"""Receipts as a producer takes them: from a queue of its own, in which workers name the messages they recorded."""

import uuid
from collections.abc import Iterator
from typing import Any

import kombu.entity

from centavo.envelopes import RECEIPTS_PREFIX, RECEIPTS_SECONDS

READ_MAX = 100

# kombu carries no types.
_Queue: Any = kombu.entity.Queue


class ReceiptQueue:
    """The queue named in a producer's messages; it ends by itself, some time after its producer."""

    def __init__(self) -> None:
        self.name = RECEIPTS_PREFIX + str(uuid.uuid4())

    def declare(self, channel: Any) -> None:
        """RabbitMQ must know it before a worker writes to it; Redis makes a list when something is put there."""
        if channel.connection.client.transport.driver_type == "amqp":
            channel.queue_declare(
                self.name,
                durable=True,
                exclusive=False,
                auto_delete=False,
                arguments={"x-expires": RECEIPTS_SECONDS * 1000},
            )

    def read(self, channel: Any) -> Iterator[str]:
        """The ids in the receipts that have come, so many receipts at most."""
        queue = _Queue(self.name, channel=channel)
        for _ in range(READ_MAX):
            message = queue.get(no_ack=True)
            if message is None:
                return
            yield from _ids_in(message)


def _ids_in(message: Any) -> list[str]:
    """What can't be read is no receipt: its envelopes are sent again."""
    try:
        said = message.payload["ids"]
    except Exception:  # noqa: BLE001 - whatever it is, it came from outside
        return []
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
