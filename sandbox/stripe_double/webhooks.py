"""Delivering events: when, how often, in which order, and again when an endpoint does not answer 2xx.

At least once and in no promised order, as https://docs.stripe.com/webhooks has it. What an endpoint has not
acknowledged, its event remembers.
"""

import asyncio
import json
import random
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.stripe_double.errors import Json
from sandbox.stripe_double.objects import Event, WebhookEndpoint
from sandbox.stripe_double.posting import post, signed
from sandbox.stripe_double.render_more import event_json
from sandbox.stripe_double.state import Store
from sandbox.stripe_double.wishes import Delivery

BACKOFF_SECONDS_MAX = 2.0
#: A request does not wait longer for webhooks that go before its answer.
BEFORE_ANSWER_SECONDS_MAX = 15.0


@dataclass(eq=False)
class Job:
    """One event for one endpoint."""

    event: Event
    endpoint: WebhookEndpoint
    delivery: Delivery
    is_started: bool = False
    first_attempt: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_waited_for(self) -> bool:
        return self.endpoint.id in self.event.waiting


class Webhooks:
    """The deliveries of one double."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.use(Delivery())
        self._in_flight: set[Job] = set()
        self._gathered: list[Job] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self._attempts = self._acknowledged = 0

    def use(self, delivery: Delivery) -> None:
        """Deliver like this what happens from now on."""
        self.delivery = delivery
        self._random = random.Random(delivery.seed)

    def plan(self, events: Iterable[Event]) -> list[Job]:
        """What is to be sent of events that have just happened; it counts as in flight from now on."""
        jobs = [job for event in events for job in self._jobs(event, self.delivery) if not self._is_lost()]
        self._in_flight.update(jobs)
        return jobs

    async def before_answer(self, jobs: Sequence[Job]) -> None:
        """Send what goes before the answer, and wait until each was tried once."""
        early = [job for job in jobs if job.delivery.when == "before"]
        self._start(early)
        with suppress(TimeoutError):
            tried = asyncio.gather(*(job.first_attempt.wait() for job in early))
            await asyncio.wait_for(tried, BEFORE_ANSWER_SECONDS_MAX)

    async def after_answer(self, jobs: Sequence[Job]) -> None:
        """Send the others."""
        self._start([job for job in jobs if not job.is_started])

    def deliver_all(self) -> int:
        """Send at once whatever is delayed, gathered, backing off, lost or given up; how many that is."""
        self._hurry.set()
        self._hurry = asyncio.Event()
        gathered, self._gathered = self._gathered, []
        self._in_turn(gathered)
        busy = {(job.event.id, job.endpoint.id) for job in self._in_flight}
        plain = Delivery(attempts_max=self.delivery.attempts_max, backoff_seconds=self.delivery.backoff_seconds)
        waiting = [job for event in self._store.events.values() for job in self._jobs(event, plain)]
        left = [job for job in waiting if (job.event.id, job.endpoint.id) not in busy]
        self._in_flight.update(left)
        self._in_turn(left)
        return len(self._in_flight)

    def shown(self) -> Json:
        undelivered = sum(1 for event in self._store.events.values() if event.waiting)
        counts = {"attempts": self._attempts, "acknowledged": self._acknowledged}
        return {"in_flight": len(self._in_flight), "undelivered": undelivered, **counts}

    def _jobs(self, event: Event, delivery: Delivery) -> list[Job]:
        endpoints = self._store.webhook_endpoints
        return [Job(event, endpoints[waiting], delivery) for waiting in sorted(event.waiting)]

    def _is_lost(self) -> bool:
        return self.delivery.when == "never" or self._random.random() < self.delivery.lost_share

    def _start(self, jobs: Sequence[Job]) -> None:
        together = [job for job in jobs if job.delivery.shuffle_window == 1]
        self._in_turn(together)
        for job in jobs:
            job.is_started = True
            if job.delivery.shuffle_window > 1:
                self._gather(job)

    def _gather(self, job: Job) -> None:
        self._gathered.append(job)
        if len(self._gathered) >= job.delivery.shuffle_window:
            shuffled, self._gathered = self._gathered, []
            self._random.shuffle(shuffled)
            self._in_turn(shuffled)

    def _in_turn(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self._spawn(self._send_in_turn(jobs))

    async def _send_in_turn(self, jobs: Sequence[Job]) -> None:
        await self._pause(max(job.delivery.delay_seconds for job in jobs))
        for job in jobs:
            await self._attempt(job)
            job.first_attempt.set()
            if job.is_waited_for and job.delivery.attempts_max > 1:
                self._spawn(self._try_again(job))
            else:
                self._in_flight.discard(job)

    async def _try_again(self, job: Job) -> None:
        pause = job.delivery.backoff_seconds
        for _ in range(job.delivery.attempts_max - 1):
            await self._pause(min(pause, BACKOFF_SECONDS_MAX))
            pause *= 2
            if job.is_waited_for:
                await self._attempt(job)
        self._in_flight.discard(job)

    async def _attempt(self, job: Job) -> None:
        body = json.dumps(event_json(job.event), indent=2).encode()
        for _ in range(job.delivery.copies):
            self._attempts += 1
            signature = signed(body, job.endpoint.secret, job.delivery.signature, self._store.clock.now())
            status = await post(job.endpoint.url, body, signature, job.delivery.timeout_seconds)
            if status is not None and 200 <= status < 300:
                self._acknowledged += 1
                job.event.waiting.discard(job.endpoint.id)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless everything is wanted at once."""
        if seconds > 0:
            hurry = asyncio.ensure_future(self._hurry.wait())
            await asyncio.wait([hurry], timeout=seconds)
            hurry.cancel()

    def _spawn(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
