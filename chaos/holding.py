"""Whoever keeps value back before using it, as an application does: `python -m chaos.holding ORDERS.json`.

It asks the services for holds, emits usage that names them, and gives some back. What it asks is written to its log
before, and what it heard after (`chaos.asked`); usage as producers write it.
"""

import heapq
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from billing.errors import DatabaseUnavailable, Rejected
from centavo import Producer, UsageEvent
from chaos.producing import Orders, emit, finish, ordered, producer_of
from chaos.stream import context_of
from chaos.wishes import ANOTHERS, NOBODYS, Plan, Use, plan
from chaos.world import World, world
from config import clock
from services.desk.credit_holds import HoldWish, release, reserve

AGAIN_SECONDS = 0.1
LOOK_SECONDS = 0.02
T = TypeVar("T")


@dataclass(slots=True)
class Holder:
    """One process, and what it still has to do."""

    orders: Orders
    world: World
    producer: Producer
    log: int
    _granted: dict[str, str] = field(default_factory=dict)
    """the last hold of each customer, by their name alone: of whichever tenant"""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    def run(self) -> None:
        """Go on until told to stop; what is not due by then is never done."""
        stop = Path(self.orders.stop_file)
        next_at = time.monotonic()
        for number in itertools.count():
            while (now := time.monotonic()) < next_at:
                self._work()
                time.sleep(min(LOOK_SECONDS, next_at - now))
            if stop.exists():
                return
            next_at = max(next_at + 1 / self.orders.events_per_second, now - 1)
            self._ask(f"{self.orders.name}-{number}", plan(self.world, self.orders.name, number))

    def _work(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), work))

    def _ask(self, key: str, asked: Plan) -> None:
        one = asked.customer
        whose = {"tenant_id": one.tenant_id, "key": key}
        said = {"customer_id": one.customer_id, "currency": "BRL", "amount": str(asked.amount)}
        self._say("W", whose | said | {"seconds": asked.seconds})
        wish = HoldWish(
            one.tenant_id, one.customer_id, key, asked.amount, "BRL", seconds=asked.seconds, **context_of(key)
        )
        try:
            hold_id = _answered(lambda: reserve(wish, clock.now())).hold_id
        except Rejected as refusal:
            self._say("N", whose | {"code": refusal.code})
            return
        self._say("G", whose | {"hold_id": hold_id})
        self._granted[one.customer_id] = hold_id
        for number, use in enumerate(asked.uses):
            self._after(use.after_seconds, partial(self._use, f"{key}-{number}", asked, use, hold_id))
        if asked.release_after_seconds is not None:
            self._after(asked.release_after_seconds, partial(self._release, one.tenant_id, hold_id))

    def _use(self, key: str, asked: Plan, use: Use, hold_id: str) -> None:
        event = UsageEvent(
            tenant_id=asked.customer.tenant_id,
            customer_id=asked.customer.customer_id,
            key=key,
            occurred_at=datetime.now(UTC),
            items=use.items,
            hold_id=self._named(use, asked, hold_id),
            **context_of(key),
        )
        for _ in range(use.times):
            emit(self.producer, event, event.to_wire(), self.log)

    def _named(self, use: Use, asked: Plan, mine: str) -> str:
        if use.hold_id != ANOTHERS:
            return use.hold_id or mine
        others = (hold_id for name, hold_id in self._granted.items() if name != asked.customer.customer_id)
        return next(others, NOBODYS)

    def _release(self, tenant_id: str, hold_id: str) -> None:
        whose = {"tenant_id": tenant_id, "hold_id": hold_id}
        self._say("L", whose)
        _answered(lambda: release(tenant_id, hold_id, clock.now()))
        self._say("D", whose)

    def _say(self, kind: str, said: dict[str, Any]) -> None:
        os.write(self.log, f"{kind} {json.dumps(said)}\n".encode())


def _answered(ask: Callable[[], T]) -> T:
    """What is answered, however long the database is away: asked twice is asked once."""
    while True:
        try:
            return ask()
        except DatabaseUnavailable:
            time.sleep(AGAIN_SECONDS)


def main(path: str) -> None:
    orders, log = ordered(path)
    producer = producer_of(orders)
    began = world(orders.seed, datetime.fromisoformat(orders.began_at), orders.customers, orders.tokens_mean)
    Holder(orders, began, producer, log).run()
    finish(producer, log)


if __name__ == "__main__":
    main(sys.argv[1])
