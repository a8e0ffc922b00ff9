"""How long the wallets of an envelope stay locked, as the workers' own log says it."""

import json
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.drain import Target, fill, worker
from bench.measure import RedisQueue, percentile, watch_drain
from tasks.queues import UNACKNOWLEDGED

LOCKED = "wallets were locked"


@dataclass(frozen=True, slots=True)
class Locks:
    """Milliseconds from the lock to after the commit."""

    envelopes: int
    median_ms: float
    p99_ms: float


def measure_locks(target: Target, events: int, *, hot: bool, first: int) -> Locks:
    """Drain a queue with two pool children that log how long each transaction held its wallets."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RedisQueue(target.broker_url, "usage", unacked=UNACKNOWLEDGED)) as queue,
    ):
        log = Path(folder) / "worker.log"
        envelopes = fill(target, events, hot=hot, first=first)
        with worker(target.database_url, target.broker_url, log_file=log, LOG_LEVEL="DEBUG") as process:
            watch_drain(queue.left, messages=envelopes, events=events, worker=process)
        held = [float(record["locked_ms"]) for record in _records(log) if record.get("event") == LOCKED]
    return Locks(len(held), percentile(held, 0.5), percentile(held, 0.99))


def _records(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
