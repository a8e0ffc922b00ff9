"""How much memory a pool child takes, and whether it grows with what it has worked."""

import time
from contextlib import closing
from dataclasses import dataclass

import psutil

from bench.drain import Target, charged, fill, worker
from bench.measure import RedisQueue
from tasks.queues import UNACKNOWLEDGED

FIRST_EVENTS = 100_000
LOOK_SECONDS = 0.05
STALLED_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes of the largest pool child: after its first 100,000 events, and at the end."""

    events: int
    after_first_mb: float
    at_end_mb: float

    @property
    def grown_mb(self) -> float:
        return self.at_end_mb - self.after_first_mb


def measure_memory(target: Target, events: int, *, first: int) -> Memory:
    """Let one worker with one child work `events` events, in portions of 100,000."""
    with (
        closing(RedisQueue(target.broker_url, "usage", unacked=UNACKNOWLEDGED)) as queue,
        worker(target.database_url, target.broker_url, children=1) as process,
    ):
        sizes = []
        before = charged(target.database_url)
        for portion in range(0, events, FIRST_EVENTS):
            fill(target, FIRST_EVENTS, hot=False, first=first + portion)
            _await_empty(queue)
            sizes.append(child_mb(process.pid))
        if charged(target.database_url) - before != events:
            raise RuntimeError("not all events were charged")
    return Memory(events, sizes[0], sizes[-1])


def _await_empty(queue: RedisQueue) -> None:
    deadline = time.monotonic() + STALLED_SECONDS
    while queue.left():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{queue.left()} envelopes are left")
        time.sleep(LOOK_SECONDS)


def child_mb(pid: int) -> float:
    """Resident megabytes of the largest pool child of a worker."""
    children = psutil.Process(pid).children()
    return float(max(child.memory_info().rss for child in children) / 1_000_000)
