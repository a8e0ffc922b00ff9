"""A look at the broker: how long its queues are."""

from kombu import Connection
from kombu.exceptions import OperationalError

from billing.errors import BrokerUnavailable
from config.settings import settings


def depths() -> dict[str, int]:
    """Messages waiting per queue. Raises `BrokerUnavailable`."""
    chosen = settings()
    names = (chosen.usage_queue, chosen.payments_queue, chosen.ticks_queue)
    try:
        with Connection(chosen.required("broker_url"), connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            channel = connection.default_channel
            return {name: _depth(channel, name) for name in names}
    except (OperationalError, OSError, *Connection(chosen.required("broker_url")).connection_errors) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error


def _depth(channel: object, queue: str) -> int:
    declared = channel.queue_declare(queue=queue, durable=True, auto_delete=False)  # type: ignore[attr-defined]
    return int(declared.message_count)
