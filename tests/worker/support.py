"""What tests of running workers share: raw messages in, and looks at what became of them."""

import itertools
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import kombu
import psutil
import psycopg
import redis

from config.settings import settings
from sandbox.processes import ConditionNotMet, ManagedProcess, await_condition
from sandbox.rabbitmq import RabbitMQServer
from sandbox.valkey import ValkeyServer
from tasks.queues import UNACKNOWLEDGED, is_rabbitmq
from tests.looking import one, rows

QUEUE = "usage"
DEAD = "usage.dead"
TASK = "centavo.record_usage"
#: Looks, 20 ms apart, at which the broker's queues must be empty.
LOOKS_MIN = 10


class Kept(NamedTuple):
    """A parked input."""

    reason: str
    detail: str
    times_seen: int
    raw: bytes


class Broker(ABC):
    """The broker, as producers of all kinds use it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def close(self) -> None:  # noqa: B027 - not every broker leaves something open
        """Nothing more is asked."""

    def publish(
        self, body: bytes, headers: dict[str, Any] | None = None, *, queue: str = QUEUE, **properties: Any
    ) -> None:
        """A message by bare kombu: this body, these headers and nothing else."""
        with self._connection() as connection, connection.Producer() as producer:
            _publish(producer, body, headers or {}, queue, **properties)

    def send(self, *envelopes: bytes, queue: str = QUEUE, **headers: Any) -> None:
        """Envelopes, each in a proper task message with these headers added."""
        with self._connection() as connection, connection.Producer() as producer:
            for envelope in envelopes:
                body = body_of(envelope.decode("utf-8", "surrogatepass"))
                _publish(producer, body, {**task_headers(), **headers}, queue)

    def _connection(self) -> Any:
        """What is sent is there when it is closed.

        Unconfirmed, RabbitMQ loses the last few of a burst now and then: a quorum queue that hears of the end of its
        publisher before it has taken them takes them no more.
        """
        options = {"confirm_publish": True} if is_rabbitmq(self.url) else {}
        return kombu.Connection(self.url, transport_options=options)

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken yet."""
        return self._lengths()[0]

    @property
    def unacknowledged(self) -> int:
        """Messages that some worker has taken and not finished."""
        return self._lengths()[1]

    def await_taken(self, number: int, worker: ManagedProcess) -> None:
        """Wait until this many are with the worker; what was seen instead is told, and what the worker said."""
        seen = (0, 0)

        def taken() -> bool:
            nonlocal seen
            seen = self._lengths()
            return seen[1] == number

        try:
            await_condition(taken, 30, f"the worker to take {number}", log_file=worker.log_file)
        except ConditionNotMet as in_vain:
            raise ConditionNotMet(f"waiting, taken: {seen}; {in_vain}") from in_vain

    def await_drained(self, seconds: float = 60) -> None:
        """Wait until every message was acknowledged.

        A message that was popped a moment ago is in no list of Redis yet, and one that a worker passes on is in no
        queue, so they must stay empty for a while.
        """
        looks = itertools.count()

        def drained() -> bool:
            nonlocal looks
            if any(self._lengths()):
                looks = itertools.count()
            return next(looks) >= LOOKS_MIN

        await_condition(drained, seconds, "every message to be done")

    @abstractmethod
    def _lengths(self) -> tuple[int, int]:
        """Waiting, unacknowledged."""


class AtValkey(Broker):
    """Valkey, with one list that waits and one hash of all that was taken."""

    def __init__(self, server: ValkeyServer) -> None:
        super().__init__(server.url)
        self._client = redis.Redis.from_url(server.url)

    def close(self) -> None:
        self._client.close()

    def push(self, item: bytes) -> None:
        """Bytes straight into the list, as no producer should."""
        self._client.lpush(QUEUE, item)

    def _lengths(self) -> tuple[int, int]:
        with self._client.pipeline() as both:
            both.llen(QUEUE)
            both.hlen(UNACKNOWLEDGED)
            waiting, unacknowledged = both.execute()
        return int(waiting), int(unacknowledged)


class AtRabbitMQ(Broker):
    """RabbitMQ, with the usage queue and its dead letters."""

    def __init__(self, server: RabbitMQServer) -> None:
        super().__init__(server.url)
        self._server = server

    def _lengths(self) -> tuple[int, int]:
        each = [self._server.lengths(queue) for queue in (QUEUE, DEAD)]
        known = [lengths for lengths in each if lengths is not None]
        if len(known) < len(each):
            return 1, 0  # while the server is away, nobody says that nothing is left
        unacknowledged = sum(lengths.handed_out for lengths in known)
        return sum(lengths.all for lengths in known) - unacknowledged, unacknowledged


def _publish(producer: Any, body: bytes, headers: dict[str, Any], queue: str, **properties: Any) -> None:
    said = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
    producer.publish(body, exchange="", routing_key=queue, headers=headers, **said)


def body_of(*arguments: Any, named: Any = None, options: Any = None) -> bytes:
    """The body of a task message."""
    return json.dumps([arguments, {} if named is None else named, {} if options is None else options]).encode()


def task_headers() -> dict[str, Any]:
    return {"task": TASK, "id": str(uuid.uuid4()), "lang": "py"}


def charged(customer_id: str) -> int:
    """How many events of a customer are charged."""
    number = one("SELECT count(*) FROM usage_events WHERE customer_id = %s AND status = 'charged'", customer_id)[0]
    assert isinstance(number, int)
    return number


def await_charged(customer_id: str, number: int, seconds: float = 30) -> None:
    """Wait until so many events of a customer are charged, and no more."""
    statement = b"SELECT count(*) FROM usage_events WHERE customer_id = %s AND status = 'charged'"

    def done() -> bool:
        row = connection.execute(statement, [customer_id]).fetchone()
        return row is not None and row[0] >= number

    with psycopg.connect(settings().required("database_url"), autocommit=True) as connection:
        await_condition(done, seconds, f"{number} events of {customer_id} to be charged")
    assert charged(customer_id) == number


def kept_inputs() -> list[Kept]:
    return [Kept(*row) for row in rows("SELECT reason, detail, times_seen, raw FROM parked_inputs")]


def parked_events() -> list[tuple[Any, ...]]:
    return rows("SELECT key, park_reason, park_detail FROM usage_events WHERE status = 'parked' ORDER BY key")


@contextmanager
def wallets_locked(database: str) -> Iterator[None]:
    """Somebody holds all wallets: whoever charges must wait. Postgres may go away meanwhile."""
    with psycopg.connect(database) as connection:
        connection.execute("SELECT 1 FROM wallets FOR UPDATE")
        yield
        with suppress(psycopg.OperationalError):
            connection.rollback()


def waits_for_a_lock(database: str) -> bool:
    """Whether some session waits for a lock."""
    with psycopg.connect(database) as connection:
        waiting = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    return waiting is not None and waiting[0] > 0


def connected_to(process: psutil.Process) -> set[int]:
    """The ports that a process has a connection to, its own or a copy of another's."""
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr}


def nothing_is_left() -> bool:
    """No input is parked, no event is, and no envelope is counted as begun."""
    return (kept_inputs(), parked_events(), rows("SELECT * FROM envelope_attempts")) == ([], [], [])


def deaths(worker: ManagedProcess) -> int:
    """How many of a worker's children ended by a signal or an error."""
    return worker.log_file.read_text().count(" exited with ")


def waits(worker: ManagedProcess) -> int:
    """How often a worker's children said that they wait for something."""
    return worker.log_file.read_text().count('"event": "waiting"')


def children(worker: ManagedProcess) -> list[int]:
    """The numbers of a worker's pool children."""
    return sorted(child.pid for child in psutil.Process(worker.pid).children())
