"""Waiting for a database that is away: in the process, with back-off, for as long as it takes.

The message stays unacknowledged meanwhile. Handing it back to the broker, or asking Celery to retry, would be
another thing that can fail, and Celery drops a message whose retry it can't publish.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from billing.errors import DatabaseBusy, DatabaseSlow, Stopping, TooSlow, Unavailable
from config.logging import logger
from tasks import stopping

T = TypeVar("T")
log = logger(__name__)

#: Who comes back is found within this, however long they were away.
LONGEST_WAIT_SECONDS = 3.0
GIVE_BACK_SECONDS = 5.0
SLOW_TRIES = 3
LOOK_SECONDS = 0.1
#: A tick that finds more than this leaves the rest to the next: a worker that is to stop must not wait for it.
TICK_SECONDS_MAX = 30.0


def until_available(work: Callable[[], T]) -> T:
    """Do `work`, which is found in rows again; while something it needs is away, wait and do it again.

    Raises `Stopping` on shutdown, and `TooSlow` where Postgres takes too long for it, or somebody holds what it needs,
    again and again: others wait behind it, and the next look finds it.
    """
    tries_left = SLOW_TRIES

    def tried() -> T:
        nonlocal tries_left
        try:
            return work()
        except (DatabaseSlow, DatabaseBusy) as error:
            tries_left -= 1
            if tries_left:
                raise
            raise TooSlow(f"given up after {SLOW_TRIES} tries: {error}") from error

    return until_worked(tried)


def until_worked(work: Callable[[], T]) -> T:
    """Do `work`, which is found nowhere else; while something it needs is away, slow or held, wait and do it again.

    Raises `Stopping` on shutdown.
    """
    result: T = _retrying(work)
    return result


def until_done(work: Callable[[], int]) -> int:
    """Do chunk after chunk, each when the database is there; how much was done."""
    until = time.monotonic() + TICK_SECONDS_MAX
    total = 0
    while time.monotonic() < until and (done := until_available(work)):
        total += done
    return total


def pause() -> None:
    """Wait before something is given back that would come again at once; ends early on shutdown."""
    with suppress(Stopping):
        _sleep(GIVE_BACK_SECONDS)


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stopping.is_requested():
            raise Stopping
        time.sleep(min(left, LOOK_SECONDS))


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("waiting", attempt=state.attempt_number, error=str(error))


# One for the life of the process: each holds itself in a cycle, and one per message is memory that comes back late.
_retrying = Retrying(
    retry=retry_if_exception_type(Unavailable),
    wait=wait_exponential_jitter(multiplier=0.1, max=LONGEST_WAIT_SECONDS),
    sleep=_sleep,
    before_sleep=_say,
)
