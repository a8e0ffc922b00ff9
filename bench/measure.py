"""Taking figures: rounds and their medians, the draining of a queue, and showing both."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from rich.table import Table

WARM_UP_SHARE = 0.1
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Figure:
    """What one subject reached, a value per round, in any unit where the median is meaningful."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Largest minus smallest round, as a share of the median: how far to trust the figure."""
        return (max(self.rounds) - min(self.rounds)) / self.median

    def times(self, other: "Figure") -> float:
        """This median as a multiple of the other's."""
        return self.median / other.median


def alternate(subjects: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, Figure]:
    """Run every subject `rounds` times, in turns, and keep what each round returned.

    In turns, because a machine that is busy for a minute then slows all of them and not just one.
    A subject is given the number of the round, from 0.
    """
    values: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name, run in subjects.items():
            values[name].append(run(number))
    return {name: Figure(tuple(taken)) for name, taken in values.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 < share ≤ 1) of them don't exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5), percentile([4.0, 1.0, 3.0, 2.0], 0.99)
    (2.0, 4.0)
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]


@dataclass(frozen=True, slots=True)
class Drain:
    """A queue that was emptied: the events committed between the end of warm-up and the last one."""

    events: float
    seconds: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds


class RedisQueue:
    """How much of a Celery queue, or of several, is left, over the Redis protocol.

    A worker with late acknowledgement commits first, so a message that is gone stands for committed work;
    what waits in the worker's prefetch buffer is still counted. Reading this is a few O(1) commands to the
    broker and nothing to the database: it doesn't slow what it measures. `unacked` is the key of what the
    workers have taken: each application has its own.
    """

    def __init__(self, broker_url: str, *queues: str, unacked: str) -> None:
        self._client: Redis = Redis.from_url(broker_url)
        self._queues = queues
        self._unacked = unacked

    def left(self) -> int:
        """Messages waiting, plus those delivered and not yet acknowledged (of all queues of these workers)."""
        with self._client.pipeline(transaction=True) as pipeline:
            for queue in self._queues:
                pipeline.llen(queue)
            pipeline.hlen(self._unacked)
            return sum(map(int, pipeline.execute()))

    def close(self) -> None:
        self._client.close()


def watch_drain(
    left: Callable[[], int],
    *,
    messages: int,
    events: int,
    worker: subprocess.Popen[bytes],
    beside: Sequence[subprocess.Popen[bytes]] = (),
    warm_up_share: float = WARM_UP_SHARE,
    timeout_seconds: float = 600,
) -> Drain:
    """Time a worker, with others beside it, just started on a queue of `messages` messages holding `events` events.

    The clock starts at the first look that finds `warm_up_share` of the messages done, so the start of
    processes, their connections and their first statements don't count; it stops at the first look that
    finds none left. Counted are the messages between those two looks (20 ms apart), each taken for
    `events / messages` events.

    Raises:
        RuntimeError: the worker ended, or the queue isn't empty after `timeout_seconds`.

    """
    deadline = time.monotonic() + timeout_seconds
    workers = (worker, *beside)
    warm, started = _look_until(left, messages - round(messages * warm_up_share), workers, deadline)
    _, ended = _look_until(left, 0, workers, deadline)
    return Drain(events=warm * events / messages, seconds=ended - started)


def _look_until(
    left: Callable[[], int], bound: int, workers: Sequence[subprocess.Popen[bytes]], deadline: float
) -> tuple[int, float]:
    """The first count at or below `bound`, and when it was seen.

    A message on its way from the queue to the worker is in neither for a moment, so a count only holds
    if the next look agrees.
    """
    seen: tuple[int, float] | None = None
    while True:
        count, now = left(), time.monotonic()
        if count > bound:
            seen = None
        elif seen:
            return seen
        else:
            seen = (count, now)
        for worker in workers:
            if worker.poll() is not None:
                raise RuntimeError(f"the worker ended with status {worker.returncode}; {count} messages were left")
        if now > deadline:
            raise RuntimeError(f"the worker took too long; {count} messages are left")
        time.sleep(POLL_SECONDS)


def figures_table(title: str, unit: str, figures: Mapping[str, Figure], *, baseline: str) -> Table:
    """A row per subject: median, rounds, and the median as a multiple of the baseline's."""
    table = Table(title=title)
    table.add_column("")
    table.add_column(unit, justify="right")
    table.add_column(f"x {baseline}", justify="right")
    table.add_column("rounds", justify="right")
    for name, figure in figures.items():
        rounds = "  ".join(f"{value:,.0f}" for value in figure.rounds)
        table.add_row(name, f"{figure.median:,.0f}", f"{figure.times(figures[baseline]):,.2f}", rounds)
    return table


def machine() -> dict[str, Any]:
    """What the figures were taken on; a figure without it can't be compared."""
    return {
        "cpus": os.cpu_count(),
        "processor": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
