"""Usage that its caller deferred: recorded and priced, charged once when it is settled, or never."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.affordability import Refusal
from billing.errors import (
    BillingMethodRefused,
    EventNotFound,
    EventNotPending,
    IdempotencyConflict,
    InsufficientCredits,
    NotFound,
    OutOfScope,
    PriceNotFound,
    Rejected,
)
from billing.quotas import Scope
from billing.quotes import BillingMethod
from db import session
from db.scope import as_tenant
from services.books.credits import Grant, grant
from services.books.tenants import create_tenant
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from services.desk import history, quotas
from services.desk.credit_holds import HoldWish, reserve
from services.desk.history import Asked
from services.desk.prices import load_prices
from services.desk.quotas import Wanted
from services.desk.trail import trail
from services.desk.wallets import can_afford
from services.metering import pending
from services.metering.parked import replay_all
from services.metering.recording import Recorded, record_one
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet
from tests.services.monthly import everything
from tests.services.test_parked import a_price

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
BEFORE = NOW - timedelta(hours=2)
THREE = tokens(100_000)
STEPS = "SELECT step FROM usage_log ORDER BY entry_id"
THREADS = 8


@pytest.fixture(autouse=True)
def _ana(billing_database: str) -> None:
    catalogues(BEFORE)
    a_customer("ana", credit="4", time_zone="UTC", now=BEFORE)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Many at once, each with a connection of its own."""
    session.allow(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool
    session.allow(1)


def deferred(key: str = "k", **fields: Any) -> Recorded:
    """Ana's usage of three dollars, to be settled later."""
    return record_one(an_event("ana", [THREE], key=key, occurred_at=NOW, **fields), NOW, is_deferred=True)


def give(amount: int, key: str = "more") -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(amount), "purchase", "bought", key), NOW)


def steps() -> list[str]:
    return [step for (step,) in rows(STEPS)]


def outcomes(pool: ThreadPoolExecutor, works: list[Callable[[], Any]]) -> list[Any]:
    """What all of these at once came to: an answer, or the error that was raised."""

    def tried(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Rejected as error:
            return error

    return list(pool.map(tried, works))


def test_deferred_usage_is_priced_and_moves_nothing() -> None:
    found = deferred()

    assert (found.status, found.is_new, found.cost, found.currency, found.tokens) == (
        "pending",
        True,
        Decimal(3),
        "USD",
        100_000,
    )
    assert found.period_start is None
    assert wallet("ana") == 4
    assert rows("SELECT count(*) FROM periods WHERE tokens > 0") == [(0,)]
    assert rows("SELECT kind FROM ledger_entries") == [("grant",)]


def test_it_is_told_with_its_cost_and_is_no_revenue() -> None:
    deferred(feature="chat")
    record_usage(an_envelope(an_event("ana", [tokens(1000)], key="l", occurred_at=NOW, feature="chat")), NOW)
    asked = Asked(TENANT, "ana", BEFORE, LATER)

    (waiting,) = history.usage(Asked(TENANT, "ana", BEFORE, LATER, status="pending")).rows
    found = history.statistics(asked)

    assert (waiting.key, waiting.cost, waiting.tokens) == ("k", Decimal(3), 100_000)
    by_status = {one.name: (one.events, one.cost) for one in found.groups if one.of == "status"}
    assert by_status == {"charged": (1, Decimal("0.03")), "pending": (1, Decimal(3))}
    assert [(one.name, one.events, one.cost, one.tokens) for one in found.groups if one.of == "feature"] == [
        ("chat", 2, Decimal("0.03"), 1000)
    ]
    assert found.revenue() == {"USD": Decimal("0.03")}


def test_settling_charges_it_once() -> None:
    deferred()

    first, second = pending.settle(TENANT, "k", LATER), pending.settle(TENANT, "k", LATER)

    assert (first.status, first.is_new, second.status, second.is_new) == ("charged", True, "charged", False)
    assert wallet("ana") == 1
    assert one("SELECT tokens, events FROM periods WHERE tokens > 0") == (100_000, 1)
    assert one("SELECT charged_at FROM usage_events") == (LATER,)
    assert steps() == ["deferred", "settled"]


def test_its_key_is_its_own_while_it_waits() -> None:
    """By whichever way it comes again; another payload is a conflict."""
    deferred()
    event = an_event("ana", [THREE], key="k", occurred_at=NOW)

    record_usage(an_envelope(event), NOW)
    again = record_one(event, NOW)

    assert (again.status, again.is_new) == ("pending", False)
    with pytest.raises(IdempotencyConflict):
        record_one(an_event("ana", [tokens(1)], key="k", occurred_at=NOW), NOW, is_deferred=True)
    assert wallet("ana") == 4


def test_what_is_charged_is_not_deferred_afterwards() -> None:
    event = an_event("ana", [THREE], key="k", occurred_at=NOW)
    record_one(event, NOW)

    found = record_one(event, NOW, is_deferred=True)

    assert (found.status, found.is_new) == ("charged", False)


def test_without_cover_it_goes_on_waiting_unless_it_is_forced() -> None:
    deferred("k")
    deferred("l")
    pending.settle(TENANT, "k", LATER)

    with pytest.raises(InsufficientCredits) as refused:
        pending.settle(TENANT, "l", LATER)
    assert {name: refused.value.fields[name] for name in ("available", "required", "unit", "reason")} == {
        "available": "1",
        "required": "3",
        "unit": "USD",
        "reason": "insufficient",
    }
    assert one("SELECT status FROM usage_events WHERE key = 'l'") == ("pending",)
    found = pending.settle(TENANT, "l", LATER, is_forced=True)

    assert found.status == "charged"
    assert wallet("ana") == -2
    assert steps() == ["deferred", "deferred", "settled", "settle_refused", "settled"]


def test_it_can_be_settled_when_the_wallet_was_filled() -> None:
    deferred("k")
    deferred("l")
    pending.settle(TENANT, "k", LATER)
    with pytest.raises(InsufficientCredits):
        pending.settle(TENANT, "l", LATER)
    give(2)

    assert pending.settle(TENANT, "l", LATER).status == "charged"
    assert wallet("ana") == 0


def test_what_was_valid_when_it_occurred_covers_it() -> None:
    """As usage burns: the grant is over by now, and not broken yet."""
    grant(
        Grant(TENANT, "ana", "USD", Decimal(9), "promo", "short", "short", expires_at=NOW + timedelta(minutes=1)), NOW
    )
    record_usage(an_envelope(an_event("ana", [tokens(300_000)], key="dear", occurred_at=NOW)), NOW)
    deferred()

    found = pending.settle(TENANT, "k", LATER)

    assert found.status == "charged"
    assert wallet("ana") == 1


def test_a_cancelled_one_is_never_charged() -> None:
    deferred()

    first, second = (pending.cancel(TENANT, "k", "the call failed", LATER) for _ in range(2))

    assert (first.status, first.is_new, second.is_new) == ("voided", True, False)
    assert first.cost == 0
    with pytest.raises(EventNotPending):
        pending.settle(TENANT, "k", LATER, is_forced=True)
    record_usage(an_envelope(an_event("ana", [THREE], key="k", occurred_at=NOW)), NOW)
    assert wallet("ana") == 4
    assert steps() == ["deferred", "cancelled"]


def test_voiding_cancels_it_too() -> None:
    deferred()

    voided = void(TENANT, "k", "a mistake", LATER)

    assert (voided.cost, voided.tokens) == (Decimal(0), 0)
    assert wallet("ana") == 4
    with pytest.raises(EventNotPending):
        pending.settle(TENANT, "k", LATER)


def cancelled(tenant_id: str, key: str, now: datetime) -> Recorded:
    return pending.cancel(tenant_id, key, "why", now)


@pytest.mark.parametrize("act", [pending.settle, cancelled])
def test_only_what_waits_is_settled_or_cancelled(act: Callable[[str, str, datetime], Recorded]) -> None:
    record_usage(an_envelope(an_event("ana", [tokens(1, model="new")], key="parked", occurred_at=NOW)), NOW)

    with pytest.raises(EventNotPending):
        act(TENANT, "parked", LATER)
    with pytest.raises(EventNotFound):
        act(TENANT, "nothing", LATER)


def test_what_is_charged_is_voided_not_cancelled() -> None:
    deferred()
    pending.settle(TENANT, "k", LATER)

    with pytest.raises(EventNotPending):
        pending.cancel(TENANT, "k", "why", LATER)
    assert wallet("ana") == 1


def test_what_can_not_be_priced_is_parked_not_deferred() -> None:
    found = record_one(an_event("ana", [tokens(1, model="new")], occurred_at=NOW), NOW, is_deferred=True)

    assert (found.status, found.park_reason) == ("parked", "unpriced")


def test_what_was_parked_when_it_was_deferred_is_charged_by_nobody_but_who_settles_it() -> None:
    """Once it has a price it is pending; so is not what was not deferred."""
    for key, is_deferred in (("k", True), ("l", False)):
        new = an_event("ana", [tokens(100, model="gpt-99")], key=key, occurred_at=NOW)
        record_one(new, NOW, is_deferred=is_deferred)
    load_prices([a_price()], NOW)

    replayed = replay_all(LATER)

    assert (replayed.tried, replayed.charged, replayed.still_parked) == (2, 1, 0)
    assert rows("SELECT key, status, cost, tokens, park_reason FROM usage_events ORDER BY key") == [
        ("k", "pending", 1, 100, None),
        ("l", "charged", 1, 100, None),
    ]
    assert wallet("ana") == 3
    assert pending.settle(TENANT, "k", LATER + timedelta(hours=1)).status == "charged"
    assert wallet("ana") == 2
    steps_of = [step.step.value for step in trail(TENANT, "k")]
    assert steps_of == ["received", "parked", "deferred", "replayed", "settled", "charged"]


def test_what_lost_its_price_goes_on_waiting() -> None:
    deferred()
    one("""
        INSERT INTO prices (scope, category, provider, model, unit, currency, unit_price, per, ladder_span,
            is_provider_default, is_ended, effective_from, revision, created_at)
        SELECT scope, category, provider, model, unit, currency, unit_price, per, ladder_span, is_provider_default,
            true, effective_from, revision + 1, created_at
        FROM prices WHERE model = 'gpt-4' AND unit = 'token' AND category = 'llm_prompt' RETURNING 1
    """)

    with pytest.raises(PriceNotFound):
        pending.settle(TENANT, "k", LATER)
    assert one("SELECT status FROM usage_events") == ("pending",)


def test_it_can_be_settled_long_after_a_subscription_ended() -> None:
    """Its own month is closed, and lies so far back that it is not read any more: it counts in the current one."""
    deferred()
    subscriptions.end(TENANT, "ana", NOW, At.NOW)
    everything(NOW + timedelta(days=60))
    now = NOW + timedelta(days=300)

    found = pending.settle(TENANT, "k", now)

    assert (found.status, found.is_late, found.period_start) == ("charged", True, datetime(2027, 9, 1, tzinfo=UTC))
    assert wallet("ana") == 1
    assert one("SELECT tokens FROM periods WHERE starts_at < %s", NOW) == (0,)


def test_a_quota_counts_it_when_it_is_settled() -> None:
    """A hard one that is full does not stand in the way: it was used."""
    quotas.set_quota(Wanted(TENANT, "q", Decimal(1), scope=Scope.CUSTOMER, is_hard=True), BEFORE)
    deferred()
    assert rows("SELECT used FROM quota_counts") == []

    pending.settle(TENANT, "k", LATER)

    assert rows("SELECT used FROM quota_counts") == [(100_000,)]
    assert one("SELECT over_quota FROM usage_events") == (True,)


def test_what_a_hold_keeps_back_for_it_is_its_cover() -> None:
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal(4), "USD", seconds=86_400), NOW)
    deferred("k", hold_id=held.hold_id)
    deferred("l")

    with pytest.raises(InsufficientCredits):
        pending.settle(TENANT, "l", LATER)
    pending.settle(TENANT, "k", LATER)

    assert one("SELECT captured FROM credit_holds") == (3,)
    assert wallet("ana") == 1


def test_a_settle_may_say_how_it_is_to_be_paid_for() -> None:
    """By credits alone: promotional ones are there, of three dollars one is bought."""
    deferred("k")
    deferred("l")
    give(2)
    pending.settle(TENANT, "k", LATER, method=BillingMethod.CREDIT_CONSUMPTION)

    with pytest.raises(BillingMethodRefused):
        pending.settle(TENANT, "l", LATER, method=BillingMethod.CREDIT_CONSUMPTION)
    assert pending.settle(TENANT, "l", LATER, method=BillingMethod.WALLET_DEDUCTION).status == "charged"


def test_settled_by_many_at_once_it_is_charged_once(threads: ThreadPoolExecutor) -> None:
    deferred()

    found = outcomes(threads, [lambda: pending.settle(TENANT, "k", LATER)] * THREADS)

    assert sorted(one.is_new for one in found) == [False] * (THREADS - 1) + [True]
    assert wallet("ana") == 1
    assert steps() == ["deferred", "settled"]


def test_of_many_that_one_wallet_can_not_pay_together_one_is_settled(threads: ThreadPoolExecutor) -> None:
    keys = [f"k{number}" for number in range(THREADS)]
    for key in keys:
        deferred(key)

    found = outcomes(threads, [lambda key=key: pending.settle(TENANT, key, LATER) for key in keys])  # type: ignore[misc]

    assert sum(isinstance(one, Recorded) for one in found) == 1
    assert sum(isinstance(one, InsufficientCredits) for one in found) == THREADS - 1
    assert wallet("ana") == 1


def test_settled_and_cancelled_at_once_it_is_one_of_both(threads: ThreadPoolExecutor) -> None:
    for number in range(10):
        deferred(f"k{number}")
    give(100)
    works: list[Callable[[], Any]] = []
    for number in range(10):
        works.append(lambda key=f"k{number}": pending.settle(TENANT, key, LATER))  # type: ignore[misc]
        works.append(lambda key=f"k{number}": pending.cancel(TENANT, key, "why", LATER))  # type: ignore[misc]

    found = outcomes(threads, works)

    assert sum(isinstance(one, Recorded) for one in found) == 10
    ((charged,),) = rows("SELECT count(*) FROM usage_events WHERE status = 'charged'")
    assert wallet("ana") == 104 - 3 * charged


def test_deferring_demands_nothing() -> None:
    with pytest.raises(Rejected):
        record_one(an_event("ana", [THREE], occurred_at=NOW), NOW, is_deferred=True, require_cover=True)
    assert rows("SELECT 1 FROM usage_events") == []


def test_in_the_scope_of_its_tenant_all_of_it_goes_and_in_anothers_it_is_not_there() -> None:
    """Under the role that row-level security holds back."""
    create_tenant("other", "Other", BEFORE)
    quotas.set_cap(TENANT, "ana", Decimal(3), "USD", BEFORE)
    with as_tenant("other"), pytest.raises(NotFound):
        deferred()
    with as_tenant(TENANT):
        deferred("k")
        deferred("l")
        assert can_afford(TENANT, "ana", NOW, cost=Decimal(2)).is_affordable
    with as_tenant("other"):
        for act in (pending.settle, cancelled, lambda *said: trail(*said[:2])):
            with pytest.raises((NotFound, OutOfScope)):
                act(TENANT, "k", LATER)
    with as_tenant(TENANT):
        assert pending.settle(TENANT, "k", LATER).status == "charged"
        assert cancelled(TENANT, "l", LATER).status == "voided"
        assert [one.step.value for one in trail(TENANT, "k")] == ["received", "deferred", "settled", "charged"]
        assert can_afford(TENANT, "ana", NOW, cost=Decimal("0.1")).reason is Refusal.CUSTOMER_CAP
