"""Looks at what is outside, of which nobody who asks can make many: kept a while, and waited for within a bound."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

#: What took long is kept so many times as long: a look takes no more than a twentieth of the time, whatever it costs.
KEPT_TIMES_ITS_COST = 20


class Look(Generic[T]):
    """One look at a time, in a thread of its own, however many ask for what it finds.

    It is kept for `kept_seconds`, or `KEPT_TIMES_ITS_COST` times as long as it took, whichever is more. A failure is
    kept as well. Whoever asks waits for the look that is under way, for `waited_seconds` at most.
    """

    def __init__(
        self,
        look: Callable[[], T],
        *,
        kept_seconds: float,
        waited_seconds: float,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._kept_seconds = kept_seconds
        self._waited_seconds = waited_seconds
        self._tick = tick
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._lock = threading.Lock()
        self._last: Future[T] | None = None
        self._kept_until = 0.0

    def found(self) -> T:
        """What it found. Raises what it raised, and `TimeoutError` when it takes too long."""
        with self._lock:
            if self._last is None or (self._last.done() and self._tick() >= self._kept_until):
                self._last = self._thread.submit(self._run)
            last = self._last
        return last.result(self._waited_seconds)

    def close(self) -> None:
        """Begin no more looks; one that is under way is not waited for."""
        self._thread.shutdown(wait=False)

    def _run(self) -> T:
        begun = self._tick()
        try:
            return self._look()
        finally:
            ended = self._tick()
            self._kept_until = ended + max(self._kept_seconds, KEPT_TIMES_ITS_COST * (ended - begun))
