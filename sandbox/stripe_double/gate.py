"""A barrier in front of execution, to look at what happens while a request is in flight."""

import asyncio
import threading

from sandbox.stripe_double.calls import Call

HELD_SECONDS_MAX = 15.0


class Gate:
    """Given as `before_execution`, it holds every POST that comes while it is closed. Open at first."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._reached = threading.Event()

    def close(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()

    def wait_until_reached(self) -> None:
        """Wait for a request to be held; raises TimeoutError if none comes."""
        if not self._reached.wait(HELD_SECONDS_MAX):
            raise TimeoutError(f"No request reached the closed gate within {HELD_SECONDS_MAX:.0f} s.")

    async def __call__(self, _call: Call) -> None:
        if not self._opened.is_set():
            self._reached.set()
            await asyncio.to_thread(self._opened.wait, HELD_SECONDS_MAX)
