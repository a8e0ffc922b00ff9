"""A producer as an application has one: `python -m chaos.producing ORDERS.json`.

It writes each event to its log before it emits it, so a later line says that `emit` has returned: what a SIGKILL
leaves undecided is the last line alone. Lines: `E <unix time> <event>`, `F` (flushed: the broker has all before it),
`R <counters>` (workers have said that all of it is recorded).
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from centavo import BufferFull, Producer, UsageEvent
from chaos.stream import Emission, Stream
from chaos.world import world

PAUSE_SECONDS = 0.05
#: Beside the log: how many events wait for the broker, or for a receipt.
STATUS = ".waiting"
#: How long one wait for receipts takes, of as many as it needs.
RECEIPTS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a producer is told."""

    name: str
    seed: int
    began_at: str
    customers: int
    tokens_mean: int
    broker_url: str
    log: str
    stop_file: str
    clock_file: str
    journal: str | None
    envelope_events_max: int
    linger_seconds: float
    resend_seconds: float
    events_per_second: float
    waiting_max: int
    shards: int
    program: str = "chaos.producing"


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Bytes that are sent as an event and are none, as a producer in another language may send them."""

    raw: bytes
    tenant_id: str = "spoiled"
    customer_id: str = "spoiled"
    """by which it goes to a shard, like any other"""

    def to_wire(self) -> bytes:
        return self.raw


def main(path: str) -> None:
    orders, log = ordered(path)
    producer = producer_of(orders)
    began = world(orders.seed, datetime.fromisoformat(orders.began_at), orders.customers, orders.tokens_mean)
    _emit_until_stopped(orders, producer, Stream(began, orders.name), log)
    finish(producer, log)


def ordered(path: str) -> tuple[Orders, int]:
    """What this process is told, and its log, open."""
    orders = Orders(**json.loads(Path(path).read_text(encoding="utf-8")))
    return orders, os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def producer_of(orders: Orders) -> Producer:
    """The producer of this process."""
    return Producer(
        orders.broker_url,
        journal=orders.journal,
        envelope_events_max=orders.envelope_events_max,
        linger_seconds=orders.linger_seconds,
        resend_seconds=orders.resend_seconds,
        shards=orders.shards,
    )


def finish(producer: Producer, log: int) -> None:
    """Wait until the broker has everything, and workers have said so; note both."""
    while producer.flush(RECEIPTS_SECONDS):
        pass
    os.write(log, b"F\n")
    while producer.flush(RECEIPTS_SECONDS, received=True):
        pass
    os.write(log, f"R {json.dumps(asdict(producer.counters))}\n".encode())
    producer.close()


def _emit_until_stopped(orders: Orders, producer: Producer, stream: Stream, log: int) -> None:
    stop, status = Path(orders.stop_file), Path(orders.log).with_suffix(STATUS)
    batch = max(1, round(orders.events_per_second * PAUSE_SECONDS))
    due_at = time.monotonic()
    while not stop.exists():
        counters = producer.counters
        waiting = counters.buffered + counters.unreceipted
        status.write_text(str(waiting), encoding="utf-8")
        if waiting < orders.waiting_max:
            now = datetime.now(UTC) + _offset(orders.clock_file)
            for _ in range(batch):
                _emit_next(producer, stream.next(now), log)
        due_at += PAUSE_SECONDS
        late = due_at - time.monotonic()
        if late > 0:
            time.sleep(late)
        elif late < -1:
            due_at = time.monotonic()


def _emit_next(producer: Producer, emission: Emission, log: int) -> None:
    event: UsageEvent
    if emission.spoiled is None:
        event = UsageEvent(**emission.fields)
        wire = event.to_wire()
    else:
        event, wire = cast("UsageEvent", Spoiled(emission.spoiled)), emission.spoiled
    emit(producer, event, wire, log)


def emit(producer: Producer, event: UsageEvent, wire: bytes, log: int) -> None:
    """Note an event, then emit it, however long there is no room for it."""
    os.write(log, b"E %.3f %b\n" % (time.time(), wire))
    while True:
        try:
            producer.emit(event)
        except BufferFull:
            continue
        return


def _offset(clock_file: str) -> timedelta:
    """How far this machine's clock is off."""
    try:
        return timedelta(seconds=float(Path(clock_file).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return timedelta()


if __name__ == "__main__":
    main(sys.argv[1])
