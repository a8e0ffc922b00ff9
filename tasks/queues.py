"""The broker's queues: how they are declared, and how long they are.

RabbitMQ refuses a declaration that differs from the one before, so whoever declares a queue takes it from here.
Redis has lists, and ignores all of it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from billing.errors import BrokerUnavailable
from centavo.shards import SHARDS_MAX, queue_of
from config.settings import Settings, settings

#: How often RabbitMQ gives one message out again. What kills workers is found by `services/metering/redelivery.py`,
#: which needs some 2,500 deliveries for 500 events that all kill; this is for what kills before anything can be
#: counted.
#: Left out, RabbitMQ decides: as often as it likes up to 3.13, twenty times from 4.0 on.
REDELIVERIES_MAX = 10_000
#: The version of ids that say when they were made, as envelopes have them.
TIME_ORDERED = 7
#: Where on Redis lies what workers have taken and not acknowledged: a hash, its index by time, and a lock. kombu's own
#: names for them are those of every Celery application in the same database, and each puts back what lies there after
#: a timeout of its own, whosever it is.
UNACKED_KEYS = {
    "unacked_key": "centavo.unacked",
    "unacked_index_key": "centavo.unacked_index",
    "unacked_mutex_key": "centavo.unacked_mutex",
}
UNACKNOWLEDGED = UNACKED_KEYS["unacked_key"]


def is_rabbitmq(broker_url: str) -> bool:
    """Whether the broker of this address speaks AMQP."""
    return broker_url.startswith(("amqp", "pyamqp"))


def dead_letters(chosen: Settings) -> str:
    """Where RabbitMQ puts what it gives up on; workers that take usage take from there, too."""
    return f"{chosen.usage_queue}.dead"


def of_usage(chosen: Settings) -> tuple[str, ...]:
    """The queues of usage: the plain one, and the shards that the settings say there are."""
    shards = chosen.usage_shards if chosen.usage_shards > 1 else 0
    return (chosen.usage_queue, *_shards(chosen)[:shards])


def names(chosen: Settings) -> tuple[str, ...]:
    """The queues that this broker has, as the settings have it."""
    ours = (*of_usage(chosen), chosen.payments_queue, chosen.ticks_queue)
    return (*ours, dead_letters(chosen)) if is_rabbitmq(chosen.required("broker_url")) else ours


def takes_usage(name: str, chosen: Settings) -> bool:
    """Whether this is the plain queue of usage, or any shard of it."""
    return name == chosen.usage_queue or name in _shards(chosen)


def taken(asked: str, chosen: Settings, left: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The queues that a worker takes who is asked to take these, separated by commas.

    `usage` means all of it: the plain queue, every shard, and shards of earlier settings in which something is
    `left`. Whoever takes a shard takes the plain queue as well, for that is where producers without shards send to,
    and where messages go that are to be parked: it must not depend on anybody's having thought of it.
    """
    queues: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in asked.split(","))):
        if name == chosen.usage_queue:
            queues |= dict.fromkeys((*of_usage(chosen), *left))
        elif takes_usage(name, chosen):
            queues |= dict.fromkeys((chosen.usage_queue, name))
        else:
            queues[name] = None
    return tuple(queues)


def shards_among(queues: tuple[str, ...], chosen: Settings) -> int:
    """How many shards there are at least, if these are among them."""
    known = _shards(chosen)
    return max((max(known.index(name) + 1, 2) for name in queues if name in known), default=0)


def declared(name: str, chosen: Settings) -> Queue:
    """A durable queue on the default exchange: a named one drops in silence when its binding is gone.

    Quorum queues, for all of them: classic ones lose what is in them with their node. What RabbitMQ gives up on
    goes to the dead letters, and stays where it is until it is there (`at-least-once`, which wants
    `reject-publish`). Ticks may vanish, and expire on purpose.
    """
    arguments: dict[str, object] = {"x-queue-type": "quorum", "x-delivery-limit": REDELIVERIES_MAX}
    if takes_usage(name, chosen) or name == chosen.payments_queue:
        arguments |= {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letters(chosen),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    if not is_rabbitmq(chosen.required("broker_url")):
        arguments = {}
    return Queue(name, exchange=Exchange(""), routing_key=name, durable=True, queue_arguments=arguments)


class Depth(NamedTuple):
    """How many messages wait in a queue, and whether it is known that nobody takes them."""

    messages: int
    is_untaken: bool


def depths() -> dict[str, int]:
    """Messages waiting per queue, and in shards beyond those of the settings. Raises `BrokerUnavailable`."""
    return {name: depth.messages for name, depth in looked_at().items()}


def looked_at() -> dict[str, Depth]:
    """Every queue of the settings, and each further shard in which something waits. Raises `BrokerUnavailable`.

    Only RabbitMQ knows who takes from a queue. On Redis a shard beyond the settings is one that nobody is told to
    take, whatever the number that its producers were told.
    """
    chosen = settings()
    with _asked(chosen) as connection:
        channel = connection.default_channel
        found = {name: _depth(channel, declared(name, chosen)) for name in names(chosen)}
        return found | _left(connection, chosen)


def usage_late_seconds(now: datetime) -> float | None:
    """How long the oldest envelope has been waiting, by the clock of its producer; 0 when none does.

    None on RabbitMQ, which shows a message to nobody who does not take it. Raises `BrokerUnavailable`.
    """
    chosen = settings()
    if is_rabbitmq(chosen.required("broker_url")):
        return None
    with _asked(chosen) as connection:
        client = connection.default_channel.client
        # Messages come in at the left of a list, and are taken from its right.
        oldest = [client.lindex(name, -1) for name in of_usage(chosen)]
    sent = [_sent_at(message) for message in oldest if message is not None]
    return max([0.0, *((now - at).total_seconds() for at in sent if at is not None)])


def _sent_at(message: bytes) -> datetime | None:
    """When an envelope was made, which its id says (RFC 9562); None of a message that is none of a producer's."""
    try:
        envelope_id = UUID(json.loads(message)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return None
    if envelope_id.version != TIME_ORDERED:
        return None
    return datetime.fromtimestamp((envelope_id.int >> 80) / 1000, UTC)


def left(chosen: Settings) -> tuple[str, ...]:
    """The shards beyond those of the settings in which something waits. Raises `BrokerUnavailable`."""
    with _asked(chosen) as connection:
        return tuple(_left(connection, chosen))


def _shards(chosen: Settings) -> tuple[str, ...]:
    """Every name that a shard may have."""
    return tuple(queue_of(chosen.usage_queue, shard, SHARDS_MAX) for shard in range(SHARDS_MAX))


@contextmanager
def _asked(chosen: Settings) -> Iterator[Any]:
    try:
        with Connection(chosen.required("broker_url"), connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            yield connection
    except (OperationalError, OSError, *Connection(chosen.required("broker_url")).connection_errors) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error


def _left(connection: Any, chosen: Settings) -> dict[str, Depth]:
    """Looks without declaring: a queue that is not there is not made."""
    further = [name for name in _shards(chosen) if name not in of_usage(chosen)]
    if not is_rabbitmq(chosen.required("broker_url")):
        channel = connection.default_channel
        found = {name: Depth(_depth(channel, declared(name, chosen)).messages, True) for name in further}
    else:
        found = {}
        for name in further:
            channel = connection.channel()
            try:
                answer = channel.queue_declare(queue=name, passive=True)
            except connection.channel_errors:
                continue  # there is none, and the channel is closed
            found[name] = Depth(int(answer.message_count), answer.consumer_count == 0)
            channel.close()
    return {name: depth for name, depth in found.items() if depth.messages}


def _depth(channel: Any, queue: Any) -> Depth:
    answer = channel.queue_declare(queue=queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments)
    messages = int(answer.message_count)
    return Depth(messages, bool(queue.queue_arguments) and messages > 0 and answer.consumer_count == 0)
