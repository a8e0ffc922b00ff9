"""kombu's transport for RabbitMQ, but no confirmation is waited for without end, and bodies are the bytes they are.

Whoever publishes waits for the broker's word that it has the message. kombu waits as long as it takes: a broker
that took the message and hangs would stop the worker's main process for good. Here the wait ends as an error, and
what was to be published is published again, or the message it was made of stays unacknowledged.

py-amqp decodes bodies that say how they are encoded, and what is parked would not be what was sent.

A pool child that begins while there is a connection has a copy of its socket. RabbitMQ gives what a worker held to
others when the connection ends; were the main process killed, it would not end before that child does, which may wait
for the database for hours. So a child closes its copy at once.
"""

import os
from typing import Any
from weakref import WeakSet

from kombu.transport import TRANSPORT_ALIASES, pyamqp

from centavo.amqps import CheckedConnection, CheckedTransport

CONFIRM_SECONDS_MAX = 15.0


def install() -> None:
    """Let `amqp://` and `amqps://` mean the transports of this module, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("amqp", "pyamqp"), f"{__name__}:CarefulTransport"))
    TRANSPORT_ALIASES["amqps"] = f"{__name__}:CarefulTLSTransport"
    os.register_at_fork(after_in_child=_close_copies)


class CarefulChannel(pyamqp.Channel):
    """A channel that waits for a confirmation, but not for ever, and hands bodies over as they came."""

    def __init__(
        self, connection: Any, channel_id: int | None = None, auto_decode: bool = False, on_open: Any = None
    ) -> None:
        super().__init__(connection, channel_id, auto_decode=auto_decode, on_open=on_open)

    def message_to_python(self, raw_message: Any) -> Any:
        raw_message.body = raw_message.body or b""  # text, where there is none
        return super().message_to_python(raw_message)  # type: ignore[no-untyped-call]

    def basic_publish_confirm(self, *args: Any, **options: Any) -> Any:
        options["confirm_timeout"] = options.get("confirm_timeout") or CONFIRM_SECONDS_MAX
        return super().basic_publish_confirm(*args, **options)


class CarefulConnection(pyamqp.Connection):
    """A connection with such channels, of which no child keeps a copy."""

    Channel = CarefulChannel

    def connect(self, *args: Any, **options: Any) -> Any:
        connected = super().connect(*args, **options)
        _connections.add(self)
        return connected


_connections: WeakSet[CarefulConnection] = WeakSet()


def _close_copies() -> None:
    """Close this process's copies of its parent's sockets. Nothing is said to the broker: the connection lasts."""
    for connection in list(_connections):
        if connection._transport is not None and connection._transport.sock is not None:  # noqa: SLF001
            connection._transport.sock.close()  # noqa: SLF001
    _connections.clear()


class CarefulTransport(pyamqp.Transport):
    """kombu's transport, with such connections."""

    Connection = CarefulConnection


class CarefulTLSConnection(CarefulConnection, CheckedConnection):
    """The same, to a broker whose certificate is for its host."""


class CarefulTLSTransport(CheckedTransport):
    """The same, over TLS."""

    Connection = CarefulTLSConnection
