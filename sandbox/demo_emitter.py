"""One producer process of the demo: a web server's part, played by a trace.

`python -m sandbox.demo_emitter JOB.json` emits every n-th row of the trace through the SDK, a share of them
twice, and writes what became of them to the file that the job names.
"""

import csv
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from centavo import Producer, UsageEvent
from config.settings import settings
from sandbox.demo_plan import event_of
from sandbox.trace import TraceRow

#: How much later, in events, a second sending follows the first: into another envelope, as retries do.
REPEATED_AFTER = 700
BLOCK_SECONDS = 120.0
FLUSH_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """What one producer process is to do."""

    trace: str
    result: str
    broker_url: str
    part: int
    parts: int
    customers: int
    repeated_share: float
    seed: int


def emit(job: Job) -> dict[str, float]:
    """Emit the job's events; when it began, how many `emit` took, and how many the broker does not have."""
    draw = random.Random(job.seed * 1000 + job.part)
    began_at = time.time()
    later: list[UsageEvent] = []
    emitted = 0
    shards = settings().usage_shards
    with Producer(job.broker_url, block_seconds=BLOCK_SECONDS, shards=shards) as producer:
        for event in _events(job):
            producer.emit(event)
            emitted += 1
            if draw.random() < job.repeated_share:
                later.append(event)
            if len(later) >= REPEATED_AFTER * job.repeated_share + 1:
                producer.emit(later.pop(0))
                emitted += 1
        for event in later:
            producer.emit(event)
            emitted += 1
        unsent = producer.flush(FLUSH_SECONDS)
    return {"began_at": began_at, "sent": emitted, "unsent": unsent}


def write_trace(path: Path, rows: Sequence[TraceRow]) -> None:
    """Write rows for the producer processes to read."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((at.isoformat(), context, generated) for at, context, generated in rows)


def write_job(path: Path, job: Job) -> None:
    """Write a job for a producer process to read."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


def _events(job: Job) -> Iterator[UsageEvent]:
    with Path(job.trace).open(newline="", encoding="utf-8") as file:
        mine = islice(enumerate(csv.reader(file)), job.part, None, job.parts)
        for index, (at, context, generated) in mine:
            yield event_of(index, datetime.fromisoformat(at), int(context), int(generated), job.customers)


def main() -> None:
    """Do the job that the first argument names."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(job.result).write_text(json.dumps(emit(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
