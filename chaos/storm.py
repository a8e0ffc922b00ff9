"""The storm: everything falls due at once, cards decline, answers get lost, and the worker is killed over and over.

Then the restore: the database is put back to how it was before, Stripe keeps what it took, and all of it runs again.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from billing.payments import PAID
from chaos.ground import (
    FEE_MINOR,
    SECRET,
    Ground,
    create_customer_with_card,
    owe,
    put_database_back,
    settled,
    states,
)
from sandbox.stripe_double.control import CONFIRM
from sandbox.stripe_double.wishes import Delivery

GOOD, DECLINED = "pm_card_visa", "pm_card_chargeCustomerFail"
DECLINED_SHARE, LOST_SHARE, BROKEN_SHARE = 0.10, 0.05, 0.02
WORKERS = ("storm-a", "storm-b")
#: What a payment may end as within the day of the storm: a decline is tried again on another one.
FINAL = frozenset({*(state.value for state in PAID), "retry_scheduled"})
SECONDS_MAX = 1800.0


@dataclass(slots=True)
class Storm:
    """What came of it."""

    payments: int
    seconds: float = 0.0
    kills: int = 0
    by_state: Counter[str] = field(default_factory=Counter)
    confirms_per_second_max: float = 0.0
    wrong: list[str] = field(default_factory=list)


def prepare(payments: int, seed: int, on_done: Callable[[], None]) -> dict[UUID, bool]:
    """So many payments due at once; which of them have a card that declines."""
    declining = set(random.Random(seed).sample(range(payments), round(payments * DECLINED_SHARE)))
    customers = [f"customer-{number:05d}" for number in range(payments)]
    for number, name in enumerate(customers):
        create_customer_with_card(name, DECLINED if number in declining else GOOD)
        on_done()
    owed = owe(customers)
    return {owed[name]: number in declining for number, name in enumerate(customers)}


def brew(ground: Ground, seed: int) -> None:
    """Let answers get lost and break, and webhooks come twice and out of order."""
    ground.control.forget_calls()
    # Met by the library's own repetitions as well, by the same chance: now and then all three are.
    ground.control.add_fault("drop_after", "POST", CONFIRM, probability=LOST_SHARE, seed=seed, times=0)
    ground.control.add_fault("error_after", "POST", CONFIRM, probability=BROKEN_SHARE, seed=seed + 1, times=0)
    delivery = Delivery(copies=2, shuffle_window=20, seed=seed)
    ground.control.set_webhooks(ground.webhook_url, SECRET, delivery)


def rage(ground: Ground, due: dict[UUID, bool], kills: int, on_progress: Callable[[int], None]) -> Storm:
    """Run until every payment is final, killing a worker so many times meanwhile."""
    storm = Storm(len(due))
    began = time.monotonic()
    for name in WORKERS:
        ground.start_worker(name)
    kill_at = [len(due) * number // (kills + 1) for number in range(1, kills + 1)]

    def is_over() -> bool:
        done = _final()
        on_progress(done)
        if kill_at and done >= kill_at[0]:
            kill_at.pop(0)
            _kill_one(ground, storm)
        return done == len(due)

    settled(ground, is_over, SECONDS_MAX, "the storm to pass")
    calm(ground)
    storm.seconds = time.monotonic() - began
    compare(ground, due, storm)
    return storm


def calm(ground: Ground) -> None:
    """Let every webhook arrive that is still on its way, and be worked."""
    ground.control.deliver_all()
    ground.control.wait_sent(120)
    settled(ground, lambda: True, SECONDS_MAX, "the last webhooks to be worked")


def again(ground: Ground, due: dict[UUID, bool], on_progress: Callable[[int], None]) -> Storm:
    """The database is put back to before the storm, and works everything anew: Stripe must take nothing more."""
    ground.stop()
    put_database_back(ground)
    ground.control.clear_faults()
    storm = Storm(len(due))
    began = time.monotonic()
    ground.start_api()
    ground.control.set_webhooks(ground.webhook_url, SECRET)
    for name in WORKERS:
        ground.start_worker(name)

    def is_over() -> bool:
        done = _final()
        on_progress(done)
        return done == len(due)

    settled(ground, is_over, SECONDS_MAX, "all payments to be found again")
    calm(ground)
    storm.seconds = time.monotonic() - began
    compare(ground, due, storm)
    return storm


def compare(ground: Ground, due: dict[UUID, bool], storm: Storm) -> None:
    """What Stripe took with what we have written down, to the cent."""
    ledger = ground.control.ledger()
    for payment, (state, attempts) in states().items():
        taken = ledger.get(str(payment))
        captured = taken.captured_minor if taken else 0
        successes = len(taken.succeeded_intents) if taken else 0
        is_paid = state == "succeeded"
        storm.by_state[state] += 1
        if (captured, successes) != ((FEE_MINOR, 1) if is_paid else (0, 0)) or is_paid is due[payment]:
            storm.wrong.append(f"{payment}: {state} after {attempts}, captured {captured} in {successes} intents")
    strangers = set(ledger) - {str(payment) for payment in due}
    storm.wrong += [f"{stranger}: taken by Stripe, and not owed" for stranger in strangers]
    storm.confirms_per_second_max = _fastest(ground)


def _final() -> int:
    return sum(1 for state, _ in states().values() if state in FINAL)


def _kill_one(ground: Ground, storm: Storm) -> None:
    """End a worker's main process as a crash would, with its children, and start it anew."""
    name = WORKERS[storm.kills % len(WORKERS)]
    worker = next(process for process in ground.processes if process.name == name)
    worker.kill()
    ground.processes.remove(worker)
    storm.kills += 1
    ground.start_worker(name)


def _fastest(ground: Ground, window: float = 5.0) -> float:
    """The most payments that were first confirmed in any five seconds, per second; repetitions have the same key."""
    first: dict[str, float] = {}
    for call in ground.control.calls(CONFIRM):
        first.setdefault(str(call.idempotency_key), call.monotonic)
    times = sorted(first.values())
    begin = most = 0
    for end, at in enumerate(times):
        while at - times[begin] > window:
            begin += 1
        most = max(most, end - begin + 1)
    return most / window
