"""The crash matrix: the worker dies at every point of collecting, whatever Stripe answers, whenever it tells us.

One payment at a time, on one worker: a child that dies is replaced, and its message comes back.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from uuid import UUID

from chaos.ground import FEE_MINOR, SECRET, Ground, create_customer_with_card, owe, settled, states
from sandbox.processes import ConditionNotMet
from sandbox.stripe_double.control import CONFIRM, SUCCEED, decline
from sandbox.stripe_double.wishes import Delivery
from services.collecting.collect import CRASH_POINTS

ANSWERS = ("success", "decline", "time-out after commit", "500 after commit", "409")
WEBHOOKS = {
    "before": Delivery(when="before"),
    "after": Delivery(),
    "twice": Delivery(copies=2),
    "never": Delivery(when="never"),
}
#: Each meets our call and both of the library's own repetitions.
FAULTS = {"time-out after commit": "drop_after", "500 after commit": "error_after", "409": "conflict"}
TRIES = 3
SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Combination:
    """Where the worker dies, what Stripe answers to the confirm, and when its webhooks come."""

    point: str
    answer: str
    webhooks: str

    def __str__(self) -> str:
        return f"killed at {self.point}, {self.answer}, webhook {self.webhooks}"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in one combination."""

    combination: Combination
    why: str


def combinations() -> list[Combination]:
    """All of them."""
    return [Combination(*one) for one in product(CRASH_POINTS, ANSWERS, WEBHOOKS)]


def sample(number: int, seed: int) -> list[Combination]:
    """So many of them, every point, answer and way of webhooks among them if there are enough."""
    everything = combinations()
    random.Random(seed).shuffle(everything)
    chosen: list[Combination] = []
    for part in ("point", "answer", "webhooks"):
        for value in dict.fromkeys(getattr(one, part) for one in combinations()):
            if not any(getattr(one, part) == value for one in chosen):
                chosen.append(next(one for one in everything if getattr(one, part) == value and one not in chosen))
    rest = [one for one in everything if one not in chosen]
    return [*chosen, *rest][:number]


def run(ground: Ground, wanted: Sequence[Combination], on_done: Callable[[], None]) -> Iterator[Failure]:
    """Try each combination; what failed."""
    for number, combination in enumerate(wanted):
        name = f"customer-{number:04d}"
        card = create_customer_with_card(name, "pm_card_visa")
        if why := _try(ground, combination, name, card):
            yield Failure(combination, why)
        on_done()


def _try(ground: Ground, combination: Combination, customer: str, card: str) -> str | None:
    """What is wrong after one payment has met all this, if anything."""
    ground.control.clear_faults()
    ground.control.set_webhooks(ground.webhook_url, SECRET, WEBHOOKS[combination.webhooks])
    if combination.answer == "decline":
        ground.control.script_card(card, [decline("insufficient_funds")], then=SUCCEED)
    if kind := FAULTS.get(combination.answer):
        ground.control.add_fault(kind, "POST", CONFIRM, times=TRIES)  # type: ignore[arg-type]
    crash = ground.fault_dir / f"{combination.point}.1"
    crash.touch()
    payment = owe([customer])[customer]
    wanted = "retry_scheduled" if combination.answer == "decline" else "succeeded"
    try:
        settled(ground, lambda: states()[payment][0] == wanted and not crash.exists(), SECONDS_MAX, f"{wanted}")
        if combination.webhooks != "never":
            ground.control.wait_sent()
            settled(ground, lambda: True, SECONDS_MAX, "the webhooks to be worked")
    except (ConditionNotMet, TimeoutError) as error:
        died = "" if not crash.exists() else "; nobody came by the point"
        crash.unlink(missing_ok=True)
        return f"it is {states()[payment]} instead of {wanted}{died}: {str(error).splitlines()[0]}"
    return _wrong(ground, payment, is_declined=combination.answer == "decline", state=wanted)


def _wrong(ground: Ground, payment: UUID, *, is_declined: bool, state: str) -> str | None:
    """Compare our row with what the double took."""
    taken = ground.control.ledger().get(str(payment))
    if taken is None:
        return "Stripe knows of no charge"
    captured = (taken.captured_minor, len(taken.succeeded_intents), taken.charges)
    expected = (0, 0, 1) if is_declined else (FEE_MINOR, 1, 1)
    if captured != expected:
        return f"(captured, successes, charges) at Stripe is {captured}, not {expected}"
    if states()[payment] != (state, 1):
        return f"it moved on to {states()[payment]}"
    return None


def counted(failures: Iterable[Failure]) -> list[str]:
    """A line for each failure."""
    return [f"{failure.combination}: {failure.why}" for failure in failures]
