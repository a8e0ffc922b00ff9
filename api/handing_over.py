"""Handing events to workers, beside the requests that brought them: a broker that is away delays nobody."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from config.logging import logger

log = logger(__name__)

WAITING_MAX = 1000
#: After a failure nothing is handed over for so long; the sweep does meanwhile.
PAUSE_SECONDS = 2.0


class HandingOver:
    """A thread that hands over one id after the other.

    What does not fit, or could not be handed over, is dropped: its row is due, and a sweep finds it.
    """

    def __init__(self, hand_over: Callable[[str], None]) -> None:
        self._hand_over = hand_over
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING_MAX)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="handing-over", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, event_id: str) -> None:
        """Have an id handed over soon; never waits."""
        try:
            self._waiting.put_nowait(event_id)
        except queue.Full:
            log.warning("too much waits to be handed over; a sweep will find it", event_id=event_id)

    def close(self, seconds: float = 5) -> None:
        """Hand over what waits, for so long at most, and end."""
        self._is_closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)  # if it waits for an id, there is none to come
        self._thread.join(seconds)

    def _run(self) -> None:
        while not (self._is_closing.is_set() and self._waiting.empty()):
            event_id = self._waiting.get()
            if event_id is not None:
                self._one(event_id)

    def _one(self, event_id: str) -> None:
        try:
            self._hand_over(event_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep finds the event
            log.warning("the broker does not take an event; a sweep will find it", event_id=event_id, error=str(error))
            self._is_closing.wait(PAUSE_SECONDS)
            self._drop()

    def _drop(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()
