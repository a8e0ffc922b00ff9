"""Usage that is deferred while everything goes wrong: by a caller who waits for each answer.

When nobody answers, the same is asked again: so it is recorded, settled and cancelled once, whatever it was that did
not come back. Some of it is settled, some cancelled, some waits for ever.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from billing.errors import DatabaseUnavailable, EventNotPending
from centavo import UsageEvent
from chaos.emitted import Emitted, Key
from chaos.stream import plain
from chaos.world import World
from config import clock
from services.metering.pending import cancel, settle
from services.metering.recording import record_one

AT_ONCE = 3
#: What becomes of it: the word of the status that it must have in the end.
WISHES = ("charged", "charged", "voided", "pending")


@dataclass(slots=True)
class Deferring:
    """What was deferred, and what its caller wished of it."""

    world: World
    dice: random.Random
    said: list[tuple[bytes, float]] = field(default_factory=list)
    wishes: dict[Key, str] = field(default_factory=dict)

    def some(self) -> None:
        """Defer some events, and carry out what is wished of them, now and once more."""
        for _ in range(AT_ONCE):
            self._one()

    def tell(self, emitted: Emitted) -> None:
        """Count them among what was emitted."""
        for wire, at in self.said:
            emitted.add(wire, at, is_required=True)

    def _one(self) -> None:
        now = clock.now()
        event = UsageEvent(**plain(self.dice, self.world, f"desk-{len(self.said)}", now))
        wish = self.dice.choice(WISHES)
        self.wishes[event.tenant_id, event.key] = wish
        self.said.append((event.to_wire(), now.timestamp()))
        _until_answered(lambda: record_one(event, now, is_deferred=True))
        for _ in range(2):
            _until_answered(lambda: _carry_out(event, wish))


def _carry_out(event: UsageEvent, wish: str) -> None:
    identity = (event.tenant_id, event.key)
    match wish:
        case "charged":
            settle(*identity, clock.now(), is_forced=True)
        case "voided":
            cancel(*identity, "its caller changed its mind", clock.now())
            with suppress(EventNotPending):
                settle(*identity, clock.now(), is_forced=True)


def _until_answered(work: Callable[[], Any]) -> None:
    while True:
        try:
            work()
        except DatabaseUnavailable:
            time.sleep(0.1)
            continue
        return
