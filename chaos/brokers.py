"""The broker of a run: Valkey or RabbitMQ, with what may happen to one."""

from contextlib import closing, suppress
from pathlib import Path
from typing import Literal, Protocol

import kombu
import redis

from config.settings import settings
from sandbox.rabbitmq import RabbitMQServer
from sandbox.valkey import ValkeyServer
from tasks import queues

BrokerKind = Literal["valkey", "rabbitmq"]


class Broker(Protocol):
    """What a run asks of either."""

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None:
        """As a crash: what the operating system was handed is there again after `start`."""

    def prepare(self) -> None:
        """Declare the queues: producers never do."""

    def wipe(self) -> int:
        """Forget every message; how many waited."""

    def messages(self) -> int:
        """Messages that wait or are under way; more than none while nobody can tell."""


def broker_of(kind: BrokerKind, folder: Path) -> Broker:
    """One with its data in this folder, not started yet."""
    return Valkey(ValkeyServer(folder / "valkey")) if kind == "valkey" else Rabbit(RabbitMQServer(folder / "rabbitmq"))


class Valkey:
    """Lists that wait, and one hash of all that was taken."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def prepare(self) -> None:
        """A list is there when something is put into it."""

    def wipe(self) -> int:
        with closing(redis.Redis.from_url(self.url)) as client:
            waiting = self._count(client)
            client.flushall()
        return waiting

    def messages(self) -> int:
        with suppress(redis.RedisError), closing(redis.Redis.from_url(self.url)) as client:
            return self._count(client)
        return 1

    @staticmethod
    def _count(client: "redis.Redis") -> int:
        waiting = sum(int(client.llen(queue)) for queue in queues.names(settings()))
        return waiting + int(client.hlen(queues.UNACKNOWLEDGED))


class Rabbit:
    """Quorum queues, asked for what they handed out as well."""

    def __init__(self, server: RabbitMQServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def prepare(self) -> None:
        with kombu.Connection(self.url) as connection:
            for queue in queues.names(settings()):
                queues.declared(queue, settings())(connection.default_channel).declare()

    def wipe(self) -> int:
        """The node loses its disk. A purge would leave what was handed out, and that is nearly all there is."""
        waiting = sum(self._messages_in(queue) for queue in queues.names(settings()))
        self._server.lose_data()
        self._server.start()
        self.prepare()
        return waiting

    def messages(self) -> int:
        try:
            return sum(self._messages_in(queue) for queue in queues.names(settings()))
        except Exception:  # noqa: BLE001 - whatever kombu raises while the server is away
            return 1

    def _messages_in(self, queue: str) -> int:
        lengths = self._server.lengths(queue)
        if lengths is not None:
            return lengths.all
        # After a start a queue says so much only once something has happened to it.
        with kombu.Connection(self.url, connect_timeout=2) as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
