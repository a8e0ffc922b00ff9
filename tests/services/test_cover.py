"""Cover that is required is decided where the charge is: of two that one wallet can't pay together, one is refused."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from billing.errors import BillingMethodRefused, InsufficientCredits, PriceNotFound, QuotaExceeded, Rejected
from billing.quotas import Per, Scope
from billing.quotes import BillingMethod
from centavo import UsageEvent
from config.settings import settings
from db import session
from services.books.credits import Grant, grant
from services.desk import quotas
from services.desk.credit_holds import HoldWish, release, reserve
from services.desk.quotas import Wanted
from services.metering.pending import settle
from services.metering.recording import Recorded, record_one
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
THREADS = 8
EVENTS = "SELECT count(*) FROM usage_events"


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


def event(key: str = "k", dollars: int = 3, **fields: Any) -> UsageEvent:
    return an_event("ana", [tokens(dollars * 100_000 // 3)], key=key, occurred_at=NOW, **fields)


def covered(one_event: UsageEvent) -> Recorded:
    return record_one(one_event, NOW, require_cover=True)


def outcomes(pool: ThreadPoolExecutor, works: list[Callable[[], Recorded]]) -> list[Recorded | Rejected]:
    def tried(work: Callable[[], Recorded]) -> Recorded | Rejected:
        try:
            return work()
        except Rejected as error:
            return error

    return list(pool.map(tried, works))


def test_of_many_at_once_as_many_pass_as_are_covered(threads: ThreadPoolExecutor) -> None:
    """Eight times: asked in a transaction before, two would often both pass."""
    for round_ in range(8):
        grant(Grant(TENANT, "ana", "USD", Decimal(3), "promo", "again", f"g{round_}"), NOW)
        events = [event(f"{round_}-{number}") for number in range(THREADS)]
        found = outcomes(threads, [lambda it=it: covered(it) for it in events])  # type: ignore[misc]

        passed = 2 if round_ == 0 else 1
        assert sum(isinstance(it, Recorded) for it in found) == passed
        assert sum(isinstance(it, InsufficientCredits) for it in found) == THREADS - passed
        assert wallet("ana") == 1


def test_the_same_event_at_once_is_charged_once_and_refused_to_nobody(threads: ThreadPoolExecutor) -> None:
    found = outcomes(threads, [lambda: covered(event())] * THREADS)

    assert sorted(it.is_new for it in found if isinstance(it, Recorded)) == [False] * (THREADS - 1) + [True]
    assert wallet("ana") == 1


def test_what_is_refused_takes_no_key() -> None:
    with pytest.raises(InsufficientCredits):
        covered(event(dollars=6))
    assert one(EVENTS) == (0,)

    assert covered(event(dollars=3)).status == "charged"


def test_a_hard_quota_refuses_it_and_says_which() -> None:
    quotas.set_quota(Wanted(TENANT, "q", Decimal(10), scope=Scope.USER, is_hard=True), BEFORE)

    with pytest.raises(QuotaExceeded) as refused:
        covered(event(user_id="u1"))

    assert refused.value.fields["quota"] == "q"
    assert one(EVENTS) == (0,)
    assert covered(event()).status == "charged"


@pytest.mark.parametrize(("used", "late"), [(NOW, NOW + timedelta(days=1)), (NOW + timedelta(days=1), NOW)])
def test_a_hard_quota_is_asked_for_the_day_on_which_it_occurred(used: datetime, late: datetime) -> None:
    """That is where it counts, whenever it comes."""
    quotas.set_quota(Wanted(TENANT, "q", Decimal(10), scope=Scope.CUSTOMER, per=Per.DAY, is_hard=True), BEFORE)
    comes = NOW + timedelta(days=1)
    record_one(an_event("ana", [tokens(10)], key="a", occurred_at=used), comes)

    with pytest.raises(QuotaExceeded):
        record_one(an_event("ana", [tokens(1)], key="b", occurred_at=used), comes, require_cover=True)
    found = record_one(an_event("ana", [tokens(1)], key="c", occurred_at=late), comes, require_cover=True)

    assert found.status == "charged"
    assert rows("SELECT used FROM quota_counts ORDER BY used") == [(1,), (10,)]


def test_what_a_hold_keeps_back_covers_the_event_that_names_it() -> None:
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal(3), "USD"), NOW)

    with pytest.raises(InsufficientCredits):
        covered(event("k"))
    assert covered(event("l", hold_id=held.hold_id)).status == "charged"
    assert wallet("ana") == 1


def test_a_hold_that_is_closed_or_of_nobody_covers_nothing() -> None:
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal(3), "USD"), NOW)
    reserve(HoldWish(TENANT, "ana", "i", Decimal(1), "USD"), NOW)
    covered(event("a", dollars=3, hold_id=held.hold_id))
    release(TENANT, held.hold_id, NOW)

    for hold_id in (held.hold_id, "nobody's"):
        with pytest.raises(InsufficientCredits):
            covered(event("b", dollars=1, hold_id=hold_id))


def test_a_hold_whose_time_is_over_stands_in_nobodys_way() -> None:
    """Whether or not the sweep has come."""
    reserve(HoldWish(TENANT, "ana", "h", Decimal(4), "USD", seconds=60), NOW)
    over = NOW + timedelta(minutes=2)

    assert record_one(event(), over, require_cover=True).status == "charged"
    assert one("SELECT state FROM credit_holds") == ("expired",)


@pytest.mark.parametrize("has_others", [False, True])
def test_what_a_hold_keeps_back_of_a_grant_that_has_ended_is_its_cover(*, has_others: bool) -> None:
    """As it is burned. What another has reserved beside it is neither; nor does it take from it."""
    ends = NOW + timedelta(minutes=1)
    over = ends + timedelta(minutes=1)
    short = Grant(TENANT, "ana", "USD", Decimal(6), "promo", "short", "s", expires_at=ends)
    grant(short, BEFORE)
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal(3), "USD", seconds=3600), NOW)
    if has_others:
        reserve(HoldWish(TENANT, "ana", "i", Decimal(7), "USD", seconds=3600), NOW)

    def use(key: str, dollars: int) -> Recorded:
        used = an_event("ana", [tokens(dollars * 100_000 // 3)], key=key, occurred_at=over, hold_id=held.hold_id)
        return record_one(used, over, require_cover=True)

    with pytest.raises(InsufficientCredits):
        use("more", 6 if has_others else 9)
    assert use("k", 3 if has_others else 6).status == "charged"
    assert one("SELECT debt FROM wallets") == (0,)


def test_what_has_no_price_is_refused_where_cover_is_required() -> None:
    with pytest.raises(PriceNotFound):
        covered(an_event("ana", [tokens(1, model="new")], occurred_at=NOW))
    assert one(EVENTS) == (0,)


@pytest.mark.parametrize(
    ("method", "is_taken"),
    [
        (BillingMethod.WALLET_DEDUCTION, True),
        (BillingMethod.CREDIT_CONSUMPTION, True),
        (BillingMethod.PAYMENT_CHARGE, False),
        (BillingMethod.SUBSCRIPTION_INCLUDED, False),
    ],
)
def test_a_method_is_taken_where_all_of_it_is_paid_for_so(method: BillingMethod, *, is_taken: bool) -> None:
    """Of a wallet with four promotional dollars, on a plan that covers nothing."""
    if is_taken:
        record_one(event(), NOW, method=method)
        assert rows("SELECT step, detail FROM usage_log") == [("method_asked", method.value)]
        return
    with pytest.raises(BillingMethodRefused) as refused:
        record_one(event(), NOW, method=method)

    assert refused.value.fields == {"asked": method.value, "would_be": "credit_consumption"}
    assert one(EVENTS) == (0,)
    assert wallet("ana") == 4


def test_credits_are_refused_where_something_bought_would_pay() -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(10), "purchase", "bought", "b"), NOW)

    with pytest.raises(BillingMethodRefused):
        record_one(event(dollars=6), NOW, method=BillingMethod.CREDIT_CONSUMPTION)
    assert record_one(event(dollars=6), NOW, method=BillingMethod.WALLET_DEDUCTION).status == "charged"


def test_credits_that_a_hold_has_kept_back_pay_though_they_have_ended() -> None:
    """Of what was bought, nothing is taken."""
    ends = NOW + timedelta(minutes=1)
    over = ends + timedelta(minutes=1)
    record_one(event(dollars=4), NOW)
    for source, until in (("promo", ends), ("purchase", None)):
        grant(Grant(TENANT, "ana", "USD", Decimal(5), source, "new", source, expires_at=until), NOW)
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal(3), "USD", seconds=3600), NOW)
    late = an_event("ana", [tokens(100_000)], key="late", occurred_at=over, hold_id=held.hold_id)

    record_one(late, over, method=BillingMethod.CREDIT_CONSUMPTION)

    kept = "SELECT jsonb_object_keys(parts) = g.grant_id::text FROM ledger_entries e, credit_grants g"
    assert one(f"{kept} WHERE e.event_key = 'late' AND g.source = 'promo' AND g.expires_at IS NOT NULL") == (True,)


def test_on_tiers_the_plan_serves_tokens_until_one_begins() -> None:
    a_customer("tia", plan="tiers-8m", currencies=("BRL",), time_zone="UTC", now=BEFORE)
    included, charged = BillingMethod.SUBSCRIPTION_INCLUDED, BillingMethod.PAYMENT_CHARGE

    def use(key: str, quantity: int, method: BillingMethod) -> Recorded:
        return record_one(an_event("tia", [tokens(quantity)], key=key, occurred_at=NOW), NOW, method=method)

    use("a", 8_000_000, included)
    with pytest.raises(BillingMethodRefused):
        use("b", 1, included)
    found = use("c", 1, charged)

    assert [(it.kind, it.tier) for it in found.due] == [("tier", 1)]


@pytest.mark.parametrize("is_deferred", [False, True])
def test_of_two_months_that_are_open_that_one_is_asked_in_which_it_counts(*, is_deferred: bool) -> None:
    """In October nothing is left of what the fee covers, in November all of it; and the other way round."""
    october, november = datetime(2026, 10, 31, 23, 50, tzinfo=UTC), datetime(2026, 11, 1, 0, 10, tzinfo=UTC)
    for name, full in (("tia", october), ("tom", november)):
        a_customer(name, plan="tiers-8m", currencies=("BRL",), time_zone="UTC", now=october)
        record_usage(an_envelope(an_event(name, [tokens(8_000_000)], key=name, occurred_at=full)), november)

    def use(name: str) -> Recorded:
        method, key = BillingMethod.SUBSCRIPTION_INCLUDED, f"{name}-late"
        late = an_event(name, [tokens(1)], key=key, occurred_at=october)
        if not is_deferred:
            return record_one(late, november, method=method)
        record_one(late, november, is_deferred=True)
        return settle(TENANT, key, november, method=method)

    with pytest.raises(BillingMethodRefused):
        use("tia")
    assert use("tom").status == "charged"
    assert rows("SELECT 1 FROM payments WHERE kind = 'tier'") == []


ON_TIERS = b"UPDATE periods SET plan_id = 'tiers-8m', plan_version = 1"


def test_a_plan_that_another_process_changed_is_what_cover_is_asked_on() -> None:
    """What this one keeps of the customer is verified for a charge; a refusal would verify nothing."""
    record_usage(an_envelope(event("warm", 1)), NOW)
    with psycopg.connect(settings().required("database_url")) as another:
        another.execute(ON_TIERS)

    assert covered(event("covered", 900)).status == "charged"


def test_usage_that_waits_waits_at_the_price_of_now() -> None:
    record_usage(an_envelope(event("warm", 1)), NOW)
    with psycopg.connect(settings().required("database_url")) as another:
        another.execute(ON_TIERS)

    waiting = record_one(event("waits"), NOW, is_deferred=True)

    assert waiting.status == "pending"
    assert not waiting.cost
