"""The broker that a case runs on, and how much is left in its queues."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import kombu

from bench.measure import RedisQueue
from config.settings import settings
from sandbox.rabbitmq import RabbitMQServer
from tasks import queues

#: What is left while RabbitMQ does not say: a queue that nobody has declared yet, or has just lost its leader.
UNKNOWN = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Broker:
    """A Valkey, or the RabbitMQ that is given."""

    url: str
    rabbitmq: RabbitMQServer | None = None

    @contextmanager
    def watched(self, *names: str) -> Iterator[Callable[[], int]]:
        """How many messages of these queues are not acknowledged."""
        if self.rabbitmq is None:
            with closing(RedisQueue(self.url, *names, unacked=queues.UNACKNOWLEDGED)) as queue:
                yield queue.left
            return
        server = self.rabbitmq

        def left() -> int:
            lengths = [server.lengths(name) for name in names]
            return sum(UNKNOWN if length is None else length.all for length in lengths)

        yield left

    def declare(self) -> None:
        """Have the queues that this process's settings name, which RabbitMQ's producers wait for."""
        with kombu.Connection(self.url) as connection:
            for name in queues.names(settings()):
                queues.declared(name, settings())(connection.default_channel).declare()


@contextmanager
def a_rabbitmq(home: Path) -> Iterator[Broker]:
    """A RabbitMQ of its own, of the operating system's packages."""
    with RabbitMQServer(home / "rabbitmq") as server:
        yield Broker(server.url, server)
