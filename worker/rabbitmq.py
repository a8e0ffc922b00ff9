"""kombu's transport for RabbitMQ, but no confirmation is waited for without end, and bodies are the bytes they are.

Whoever publishes waits for the broker's word that it has the message. kombu waits as long as it takes: a broker
that took the message and hangs would stop the worker's main process for good. Here the wait ends as an error, and
what was to be published is published again, or the message it was made of stays unacknowledged.

py-amqp decodes bodies that say how they are encoded, and what is parked would not be what was sent.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, pyamqp

CONFIRM_SECONDS_MAX = 15.0


def install() -> None:
    """Let `amqp://` and `amqps://` mean the transports of this module, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("amqp", "pyamqp"), f"{__name__}:CarefulTransport"))
    TRANSPORT_ALIASES["amqps"] = f"{__name__}:CarefulTLSTransport"


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
    """A connection with such channels."""

    Channel = CarefulChannel


class CarefulTransport(pyamqp.Transport):
    """kombu's transport, with such connections."""

    Connection = CarefulConnection


class CarefulTLSTransport(pyamqp.SSLTransport):
    """The same, over TLS."""

    Connection = CarefulConnection
