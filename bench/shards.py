"""Two workers on two shards, each with half the children, beside one worker with all of them on the plain queue."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from redis import Redis

from bench import workload
from bench.drain import CHILDREN, LINGER_SECONDS, Target, charged, event_of, worker
from bench.measure import RedisQueue, watch_drain
from centavo import Producer
from centavo.shards import queue_of
from config import clock
from sandbox.processes import await_condition
from tasks.queues import UNACKNOWLEDGED

SHARDS = 2
#: Where envelopes wait until all workers are ready: the first one would otherwise work alone for a while.
HELD = "held"
READY = " ready."
READY_SECONDS = 60


def drain_sharded(target: Target, events: int, *, hot: bool, first: int) -> float:
    """One round through the shards, a worker for each; events a second."""
    asked = [(queue_of("usage", shard, SHARDS), CHILDREN // SHARDS) for shard in range(SHARDS)]
    return _drain(target, events, hot=hot, first=first, shards=SHARDS, workers=asked)


def drain_shared(target: Target, events: int, *, hot: bool, first: int) -> float:
    """One round through the shards, two workers that both take all of them; events a second."""
    asked = [("usage", CHILDREN // SHARDS)] * SHARDS
    return _drain(target, events, hot=hot, first=first, shards=SHARDS, workers=asked)


def drain_plain(target: Target, events: int, *, hot: bool, first: int) -> float:
    """One round through the plain queue, one worker with as many children as those have together; events a second."""
    return _drain(target, events, hot=hot, first=first, shards=1, workers=[("usage", CHILDREN)])


def _drain(
    target: Target, events: int, *, hot: bool, first: int, shards: int, workers: Sequence[tuple[str, int]]
) -> float:
    before = charged(target.database_url)
    names = [queue_of("usage", shard, shards) for shard in range(shards)]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RedisQueue(target.broker_url, "usage", *{*names} - {"usage"}, unacked=UNACKNOWLEDGED)) as queue,
        Redis.from_url(target.broker_url) as broker,
        ExitStack() as running,
    ):
        envelopes = _fill(target, events, hot=hot, first=first, shards=shards)
        logs = [Path(folder) / f"{number}.log" for number in range(len(workers))]
        processes = [
            running.enter_context(
                worker(
                    target.database_url,
                    target.broker_url,
                    children,
                    log_file=log,
                    queues=asked,
                    name=log.stem,
                    USAGE_SHARDS=str(shards),
                )
            )
            for log, (asked, children) in zip(logs, workers, strict=True)
        ]
        await_condition(
            lambda: all(READY in log.read_text(encoding="utf-8") for log in logs), READY_SECONDS, "the workers"
        )
        with broker.pipeline(transaction=True) as at_once:
            for shard, name in enumerate(names):
                at_once.rename(queue_of(HELD, shard, shards), name)
            at_once.execute()
        drained = watch_drain(queue.left, messages=envelopes, events=events, worker=processes[0], beside=processes[1:])
        if (count := charged(target.database_url) - before) != events:
            raise RuntimeError(f"{events} new events were emitted and {count} charged")
    return drained.events_per_second


def _fill(target: Target, events: int, *, hot: bool, first: int, shards: int) -> int:
    """Emit into queues that nobody takes; how many envelopes wait there then."""
    began = clock.now()
    with Producer(
        target.broker_url, queue=HELD, shards=shards, linger_seconds=LINGER_SECONDS, block_seconds=60
    ) as producer:
        for usage in workload.usages(first, events, target.customers, hot=hot):
            producer.emit(event_of(usage, began))
        if unsent := producer.flush(120):
            raise RuntimeError(f"the broker did not take {unsent} events")
        return producer.counters.envelopes
