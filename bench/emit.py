"""What `Producer.emit` costs the thread that calls it, with the broker up or down.

The loop emits without a pause, so the background thread competes for the interpreter all the time: an
application that does anything else between two events waits less often. Events are built beforehand; what
building one costs is told apart. No more events are emitted than the buffer holds, so no emit waits for room.
"""

import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from bench.measure import percentile
from bench.workload import MODEL, PROVIDER, TENANT, UNIT
from centavo import Item, Producer, UsageEvent
from centavo.limits import BUFFER_EVENTS_MAX

WARM_UP_EVENTS = 1_000
FLUSH_SECONDS_MAX = 60.0

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class EmitFigures:
    """Microseconds. `unsent` is how many events the broker had not taken when the loop was over."""

    events: int
    emit_median_us: float
    emit_p99_us: float
    emit_max_us: float
    build_median_us: float
    build_p99_us: float
    unsent: int


def measure_emit(
    broker_url: str | None, events: int = 50_000, queue: str = "bench-emit", shards: int = 1
) -> EmitFigures:
    """Emit this many events and time each; a `broker_url` of None measures with a broker that is down.

    The events go to a queue of their own, or its shards, which no worker reads: the caller throws it away. Raises
    `ValueError` if the buffer could not hold them all.
    """
    if not 0 < events <= BUFFER_EVENTS_MAX - WARM_UP_EVENTS:
        raise ValueError(f"{events} events: between 1 and {BUFFER_EVENTS_MAX - WARM_UP_EVENTS} fit into the buffer")
    building, built = _timed(_build, range(events))
    if not broker_url:  # these events are made to be lost: nobody needs to be told
        logging.getLogger("centavo").setLevel(logging.CRITICAL + 1)
    producer = Producer(broker_url or _nowhere(), queue=queue, shards=shards)
    for number in range(WARM_UP_EVENTS):
        producer.emit(_build(number))
    if broker_url:
        producer.flush(FLUSH_SECONDS_MAX)
    emitting, _ = _timed(producer.emit, built)
    unsent = producer.counters.buffered
    producer.close(FLUSH_SECONDS_MAX if broker_url else 0)
    logging.getLogger("centavo").setLevel(logging.NOTSET)
    return EmitFigures(
        events=events,
        emit_median_us=percentile(emitting, 0.5),
        emit_p99_us=percentile(emitting, 0.99),
        emit_max_us=max(emitting),
        build_median_us=percentile(building, 0.5),
        build_p99_us=percentile(building, 0.99),
        unsent=unsent,
    )


def _timed(call: Callable[[Given], Made], arguments: Sequence[Given]) -> tuple[list[float], list[Made]]:
    """The microseconds of each call, and what the calls returned."""
    now = time.perf_counter_ns
    microseconds, results = [], []
    for argument in arguments:
        began = now()
        result = call(argument)
        microseconds.append((now() - began) / 1000)
        results.append(result)
    return microseconds, results


def _build(number: int) -> UsageEvent:
    return UsageEvent(
        tenant_id=TENANT,
        customer_id=f"customer-{number % 10_000}",
        items=(_item("llm_prompt", 2046), _item("llm_completion", 28)),
    )


def _item(category: str, tokens: int) -> Item:
    return Item(category=category, provider=PROVIDER, model=MODEL, unit=UNIT, quantity=Decimal(tokens))


def _nowhere() -> str:
    """The address of a broker that is down: a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{probe.getsockname()[1]}/0"
