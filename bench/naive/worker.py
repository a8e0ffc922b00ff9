"""Running the naive worker as a process, and timing it while it empties a full queue."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from bench.measure import Drain, RedisQueue, watch_drain
from bench.naive.app import QUEUE, UNACKED
from bench.naive.enqueue import enqueue

CHILDREN = 2
PREFETCH_MULTIPLIER = 4
STOP_TIMEOUT_SECONDS = 20


@contextmanager
def running(
    database_url: str, broker_url: str, *, prefetch: int = PREFETCH_MULTIPLIER
) -> Iterator[subprocess.Popen[bytes]]:
    """The worker as a subprocess, stopped warmly at the end (and killed if that takes too long).

    Its output is kept back, and shown if the body of the `with` statement fails.
    """
    command = [sys.executable, "-m", "bench.naive", "--database", database_url, "--broker", broker_url]
    with tempfile.TemporaryFile() as output:
        worker = subprocess.Popen([*command, "--prefetch", str(prefetch)], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield worker
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise
        finally:
            _stop(worker)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def drain(
    database_url: str,
    broker_url: str,
    *,
    events: int,
    customers: int,
    hot: bool = False,
    first: int = 0,
    prefetch: int = PREFETCH_MULTIPLIER,
) -> Drain:
    """One round against the tables that `tables.create` made: fill the queue, start the worker, time it.

    Rounds on the same tables need different events: move `first` on by `events`.
    """
    before = charged(database_url)
    with closing(RedisQueue(broker_url, QUEUE, unacked=UNACKED)) as queue:
        if left := queue.left():
            raise RuntimeError(f"{left} messages are on the broker already: start with an empty one")
        enqueue(broker_url, events, customers, hot=hot, first=first)
        with running(database_url, broker_url, prefetch=prefetch) as worker:
            drained = watch_drain(queue.left, messages=events, events=events, worker=worker)
            if (count := charged(database_url) - before) != events:
                raise RuntimeError(f"the naive worker was given {events} new events and charged {count}")
    return drained


def charged(database_url: str) -> int:
    """How many events stand in the table. It reads the whole table: not for while the clock runs."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM naive.usage_events").fetchone()
    assert row is not None
    return int(row[0])
