"""Is this worker alive? Its main process touches a file; `python -m worker.health usage` looks how old it is.

The file is touched from the loop that does the work, not from a thread beside it: a main process that hangs stops
touching it, whatever else of it still runs. The broker is not asked: a worker that waits for one is well, and a
restart would not bring the broker back.
"""

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from config.logging import logger
from config.settings import settings

log = logger(__name__)

TOUCH_SECONDS = 5
AGE_SECONDS_MAX = 30
#: kombu's own steps are 2, 4, 6, … seconds: after an outage of five, a broker that is back would wait as long again.
#: These are about a tenth of an outage, and a second from ten seconds on, which a broker that is up takes easily.
LOOKS = {"interval_start": 0.2, "interval_step": 0.05, "interval_max": 1.0}
#: So many looks in vain are told at first, and afterwards every so many.
LOOKS_SAID = 20


def file_of(node: str) -> Path:
    """What a process touches; `node` is its name among Celery's, `usage@host`."""
    return (settings().health_dir or Path(tempfile.gettempdir())) / f"centavo-{node}.alive"


def touch(node: str) -> None:
    """Say that this process is alive. A disk that refuses must not end it: the file grows old, and that says it."""
    try:
        file_of(node).touch()
    except OSError as error:
        log.warning("can't say that this process is alive", error=str(error))


def follow_worker(worker: Any) -> None:
    """Have a Celery worker say that it is alive: from its main loop, and while that loop waits for a broker."""
    from celery.worker.state import maybe_shutdown

    alive = partial(touch, worker.hostname)
    alive()
    worker.timer.call_repeatedly(TOUCH_SECONDS, alive)

    def alive_unless_stopped() -> None:
        alive()
        maybe_shutdown()

    # Celery has no signal for this: the loop, and with it the timer, stands still until there is a connection.
    consumer = worker.consumer
    ensure_connected = consumer.ensure_connected

    def ensure_connected_alive(connection: Any) -> Any:
        _await_broker(connection, alive_unless_stopped)
        return ensure_connected(connection)

    consumer.ensure_connected = ensure_connected_alive


def follow_beat(service: Any) -> None:
    """Have beat say that it is alive at each tick, and tick at least every few seconds."""
    scheduler = service.scheduler
    scheduler.max_interval = TOUCH_SECONDS
    alive = partial(touch, _node("beat"))
    tick = scheduler.tick

    def tick_alive() -> Any:
        alive()
        _await_broker(scheduler.connection, alive)
        return tick()

    scheduler.tick = tick_alive


def report(name: str) -> tuple[bool, str]:
    """Whether the process of that name on this host is alive, and a sentence about it."""
    path = file_of(_node(name))
    try:
        age_seconds = time.time() - path.stat().st_mtime
    except OSError as error:
        return False, f"{name} has not shown itself here: {path}: {error.strerror}; was it started by this name?"
    if abs(age_seconds) > AGE_SECONDS_MAX:
        return False, f"{name} hangs or has ended: it last moved {age_seconds:.0f} s ago, {AGE_SECONDS_MAX} are allowed"
    return True, f"{name} is alive: it moved {age_seconds:.0f} s ago"


def main() -> None:
    """Exit status 0 if the process is alive, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description=__doc__)
    parser.add_argument("name", help="what `centavo worker --name` said, or beat")
    alive, sentence = report(parser.parse_args().name)
    sys.stdout.write(f"{sentence}\n")
    sys.exit(0 if alive else 1)


def _node(name: str) -> str:
    return f"{name}@{socket.gethostname()}"


def _await_broker(connection: Any, meanwhile: Callable[[], None]) -> None:
    """Wait, as long as it takes, until the broker is there; `meanwhile` is called every second."""
    looks = count()

    def say_away(error: BaseException, interval_seconds: float) -> None:
        look = next(looks)
        if look < LOOKS_SAID or look % LOOKS_SAID == 0:
            log.warning("the broker is away", error=str(error), retry_in_seconds=interval_seconds)

    connection.ensure_connection(say_away, callback=meanwhile, **LOOKS)


if __name__ == "__main__":
    main()
