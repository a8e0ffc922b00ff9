"""Waiting for what becomes of payments, without a thread or a connection for each who waits.

One task looks for all of them, a few times a second and only while anybody waits: one statement, on one of the
process's threads, for as long as the statement takes.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from fastapi.concurrency import run_in_threadpool

from billing.errors import CentavoError
from config.logging import logger
from db.recorded import Outcome

log = logger(__name__)

LOOK_SECONDS = 0.1
#: Each is one of the requests that `api.bounds` lets in: the other half is for those who don't wait.
WAITERS_MAX = 100

Look = Callable[[Sequence[UUID]], Mapping[UUID, Outcome]]


class _Waiter:
    """Somebody who waits until nothing is pending of these payments."""

    def __init__(self, payment_ids: Collection[UUID]) -> None:
        self.payment_ids = frozenset(payment_ids)
        self.seen: dict[UUID, Outcome] = {}
        self.is_done = asyncio.Event()

    def show(self, found: Mapping[UUID, Outcome]) -> None:
        self.seen.update({one: found[one] for one in self.payment_ids & found.keys()})
        if all(one in self.seen and not self.seen[one].is_pending for one in self.payment_ids):
            self.is_done.set()


class Waiting:
    """Everybody in this process who waits, and the one who looks for them."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._waiters: set[_Waiter] = set()
        self._anybody = asyncio.Event()
        self._is_over = False
        # Begun here, it runs for nobody in particular: a request's tenant is none of its business.
        self._task = asyncio.create_task(self._watch())

    async def outcomes(self, payment_ids: Collection[UUID], seconds: float) -> Mapping[UUID, Outcome]:
        """How these payments stand, as soon as none is pending, or after so many seconds in any case.

        Of what could not be looked at, nothing is said: where too many wait already, where the database is away, or
        when the server stops.
        """
        if self._is_over or len(self._waiters) >= WAITERS_MAX:
            return {}
        waiter = _Waiter(payment_ids)
        self._waiters.add(waiter)
        self._anybody.set()
        try:
            async with asyncio.timeout(seconds):
                await waiter.is_done.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)
        return waiter.seen

    async def close(self) -> None:
        """Keep nobody waiting any longer."""
        self._is_over = True
        for waiter in self._waiters:
            waiter.is_done.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._anybody.wait()
            await self._look_once()
            await asyncio.sleep(LOOK_SECONDS)
            if not self._waiters:
                self._anybody.clear()

    async def _look_once(self) -> None:
        wanted = sorted({one for waiter in self._waiters for one in waiter.payment_ids})
        try:
            found = await run_in_threadpool(self._look, wanted)
        except CentavoError as error:
            log.warning("payments can't be looked at", error=str(error))
            return
        except Exception:
            # Whoever waits is answered when the time is over; this task must not end before.
            log.exception("looking at payments fails")
            return
        for waiter in self._waiters:
            waiter.show(found)
