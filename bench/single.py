"""A fleet of slow producers: an event an envelope, beside a task that does nothing.

What a message costs Celery and the broker by themselves is the yardstick: `centavo.record_usage` gathers small
envelopes, so most of them never make the round through the pool that each task of the other has to make.

On RabbitMQ Centavo's queue is a quorum queue, as always; those of the other two are Celery's default, classic ones.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from bench import drain, workload
from bench.brokers import Broker
from bench.measure import watch_drain
from bench.naive import worker as naive
from bench.naive.app import QUEUE as NAIVE_QUEUE
from bench.naive.enqueue import enqueue
from centavo import Producer
from config import clock

QUEUE = "idle"
STOP_SECONDS = 20
#: RabbitMQ confirms each message once its quorum queue has it on disk.
FLUSH_SECONDS = 300

# Never the current app, as the naive one.
app = Celery("idle", set_as_current=False)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="idle.nothing")  # type: ignore[untyped-decorator]
def nothing(event: dict[str, Any]) -> None:
    """Takes an event and does nothing."""


def drain_single(target: drain.Target, broker: Broker, events: int, *, first: int) -> float:
    """One round of the real thing, an event an envelope; events a second."""
    before = drain.charged(target.database_url)
    broker.declare()
    with broker.watched("usage") as left:
        began = clock.now()
        with Producer(broker.url, envelope_events_max=1, block_seconds=60) as producer:
            for usage in workload.usages(first, events, target.customers):
                producer.emit(drain.event_of(usage, began))
            if unsent := producer.flush(FLUSH_SECONDS):
                raise RuntimeError(f"the broker did not take {unsent} events")
        with drain.worker(target.database_url, broker.url) as process:
            drained = watch_drain(left, messages=events, events=events, worker=process)
            if (count := drain.charged(target.database_url) - before) != events:
                raise RuntimeError(f"{events} new events were emitted and {count} charged")
    return drained.events_per_second


def drain_idle(broker: Broker, events: int, *, first: int, customers: int) -> float:
    """One round of the task that does nothing, with the same events; tasks a second."""
    with broker.watched(QUEUE) as left:
        with app.connection_for_write(broker.url) as connection:
            producer = app.amqp.Producer(connection)
            for usage in workload.usages(first, events, customers):
                nothing.apply_async([{"key": usage.key, "customer": usage.customer}], producer=producer)
        with _idle_worker(broker.url) as process:
            return watch_drain(left, messages=events, events=events, worker=process).events_per_second


def drain_naive(database_url: str, broker: Broker, events: int, *, first: int, customers: int) -> float:
    """One round of the task-per-event worker; as `bench.naive.worker.drain`, on either broker. Events a second."""
    before = naive.charged(database_url)
    with broker.watched(NAIVE_QUEUE) as left:
        enqueue(broker.url, events, customers, first=first)
        with naive.running(database_url, broker.url) as process:
            drained = watch_drain(left, messages=events, events=events, worker=process)
            if (count := naive.charged(database_url) - before) != events:
                raise RuntimeError(f"the naive worker was given {events} new events and charged {count}")
    return drained.events_per_second


@contextmanager
def _idle_worker(broker_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "celery", "--app", "bench.single", "--broker", broker_url, "--quiet", "worker"]
    options = ["--concurrency", str(drain.CHILDREN), "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=subprocess.STDOUT, cwd=drain.ROOT)
        try:
            yield process
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace")[-8000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
