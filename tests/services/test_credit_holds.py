"""Holds on wallets: what is kept back is there for the usage that names it, once, and given back when it is not."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from billing.affordability import Refusal
from billing.credit_holds import HoldState
from billing.errors import (
    CustomerNotFound,
    HoldNotFound,
    IdempotencyConflict,
    InsufficientCredits,
    ItemsMalformed,
    PriceNotFound,
    QuotaExceeded,
    Rejected,
    WalletNotFound,
)
from billing.quotas import Measure, Scope
from services.books.credits import GRACE, Grant, break_expired, grant
from services.cycle import subscriptions
from services.desk import quotas
from services.desk.credit_holds import HoldWish, expire_due, of_customer, release, reserve, show
from services.desk.credit_holds import captures as captures_of
from services.desk.prices import load_prices
from services.desk.quotas import Wanted
from services.desk.wallets import balance, can_afford, set_overdraft
from services.metering.parked import replay_all
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet
from tests.services.test_parked import a_price
from tests.services.test_wallets import counted

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def told(*values: object) -> tuple[object, ...]:
    """Decimals and whole numbers, to be compared as numbers."""
    return values


SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
#: When a hold of NOW ends that does not say how long it lasts.
ENDS = NOW + 15 * MINUTE
#: What costs three dollars.
THREE = tokens(100_000)


@pytest.fixture
def ana(billing_database: str) -> str:
    """A customer with ten dollars, and a wallet in reais."""
    assert billing_database
    catalogues(NOW - DAY)
    a_customer("ana", currencies=("USD", "BRL"), credit="10", now=NOW - DAY)
    return "ana"


def hold(amount: str | None = "6", key: str = "k", now: datetime = NOW, **more: Any) -> str:
    """Open a hold of ana's; its id."""
    said: dict[str, Any] = {"currency": "USD"} | more
    customer = said.pop("customer", "ana")
    return reserve(HoldWish(TENANT, customer, key, None if amount is None else Decimal(amount), **said), now).hold_id


def use(hold_id: str | None, items: int = 1, key: str = "", now: datetime = NOW, **more: Any) -> None:
    """Usage of ana's that names the hold: three dollars an item."""
    named = {"key": key} if key else {}
    event = an_event("ana", [THREE] * items, hold_id=hold_id, **({"occurred_at": now} | named | more))
    record_usage(an_envelope(event), now)


def reserved(customer: str = "ana") -> Decimal:
    number: Decimal = one("SELECT reserved FROM wallets WHERE customer_id = %s AND currency = 'USD'", customer)[0]
    return number


def state(hold_id: str) -> tuple[Any, ...]:
    found = show(TENANT, hold_id)
    return found.state, found.captured, found.closed_at


def captures() -> list[Any]:
    return [
        (key, taken, mark) for key, taken, mark in rows("SELECT event_key, taken, mark FROM credit_captures ORDER BY 1")
    ]


def available(now: datetime = NOW) -> Decimal:
    return next(one.balance.available for one in balance(TENANT, "ana", now, "USD").wallets)


def test_a_hold_keeps_its_amount_back_and_moves_no_value(ana: str) -> None:
    with capture_logs() as logs:
        found = reserve(HoldWish(TENANT, ana, "k", Decimal("6.5"), "USD"), NOW)

    assert (found.amount, found.currency, found.opened_at, found.expires_at) == (Decimal("6.5"), "USD", NOW, ENDS)
    assert found.is_new
    assert told(reserved(), available(), wallet(ana)) == (Decimal("6.5"), Decimal("3.5"), 10)
    assert one("SELECT count(*) FROM ledger_entries") == (1,)
    assert [(log["event"], log["amount"]) for log in logs] == [("hold opened", "6.5")]
    stands = show(TENANT, found.hold_id)
    assert told(stands.state, stands.captured, stands.customer_id, stands.currency) == (HoldState.OPEN, 0, ana, "USD")


def test_what_is_kept_back_is_not_available_to_others(ana: str) -> None:
    """Neither to another hold nor to whoever asks; and what is refused leaves nothing behind."""
    hold("6")

    with pytest.raises(InsufficientCredits) as refused:
        hold("4.000000000001", key="other")

    assert refused.value.fields == {
        "available": "4",
        "required": "4.000000000001",
        "unit": "USD",
        "reason": Refusal.INSUFFICIENT,
    }
    assert refused.value.code == "insufficient_credits"
    assert told(reserved(), one("SELECT count(*) FROM credit_holds")) == (6, (1,))
    assert can_afford(TENANT, ana, NOW, cost=Decimal("4.1"), currency="USD", buffer=Decimal(1)).is_affordable is False
    hold("4", key="other")
    assert told(reserved(), available()) == (10, 0)


def test_a_hold_for_items_keeps_their_cost_with_its_buffer_back(ana: str) -> None:
    found = reserve(HoldWish(TENANT, ana, "k", items=[THREE]), NOW)
    exact = reserve(HoldWish(TENANT, ana, "exact", items=[THREE], buffer=Decimal(1), seconds=60), NOW)

    assert (found.amount, found.currency) == (Decimal("3.6"), "USD")
    assert told(exact.amount, exact.expires_at) == (3, NOW + MINUTE)
    with pytest.raises(InsufficientCredits) as refused:
        reserve(HoldWish(TENANT, ana, "more", items=[THREE]), NOW)
    assert (refused.value.fields["available"], refused.value.fields["required"]) == ("3.4", "3.6")


def test_usage_that_names_a_hold_is_debited_and_no_longer_kept_back(ana: str) -> None:
    """Both at once: never is the same value taken twice."""
    held = hold("6")

    use(held, key="first")
    first = told(wallet(ana), reserved(), available(), state(held))
    use(held, key="second")

    assert first == (7, 3, 4, (HoldState.OPEN, 3, None))
    assert told(wallet(ana), reserved(), available()) == (4, 0, 4)
    assert state(held) == (HoldState.USED_UP, 6, NOW)
    assert captures() == [("first", 3, None), ("second", 3, None)]


def test_usage_that_came_twice_captures_once(ana: str) -> None:
    """In one envelope, and in another one."""
    held = hold("9")
    event = an_event(ana, [THREE], hold_id=held, occurred_at=NOW, key="k")

    for _ in range(2):
        record_usage(an_envelope(event, event), NOW)

    assert told(wallet(ana), reserved(), state(held)) == (7, 6, (HoldState.OPEN, 3, None))
    assert captures() == [("k", 3, None)]


def test_several_events_of_one_transaction_capture_one_after_the_other(ana: str) -> None:
    """Beside usage that names no hold, and another hold."""
    first, second = hold("4"), hold("5", key="other")
    named = [("a", first), ("b", first), ("c", second), ("d", None)]

    record_usage(
        an_envelope(*[an_event(ana, [THREE], key=key, hold_id=one, occurred_at=NOW) for key, one in named]), NOW
    )

    assert captures() == [("a", 3, None), ("b", 1, "beyond"), ("c", 3, None)]
    told_of_first = [told(one.event_key, one.taken, one.cost, one.mark) for one in captures_of(TENANT, first)]
    assert told_of_first == [("a", 3, 3, None), ("b", 1, 3, "beyond")]
    assert told(state(first)[:2], state(second)[:2]) == ((HoldState.USED_UP, 4), (HoldState.OPEN, 3))
    assert told(wallet(ana), reserved()) == (-2, 2)


def test_usage_beyond_its_hold_is_debited_all_the_same_and_marked(ana: str) -> None:
    """Into debt if need be: it was used."""
    held = hold("4")

    use(held, items=4, key="large")
    use(held, key="late")

    assert told(wallet(ana), reserved()) == (-5, 0)
    assert captures() == [("large", 4, "beyond"), ("late", 0, "beyond")]


def test_usage_of_a_hold_that_is_closed_or_is_none_is_debited_and_marked(ana: str) -> None:
    a_customer("bob", credit="10", now=NOW - DAY)
    released, expired, bobs = hold("1"), hold("1", key="2", seconds=60), hold("1", key="3", customer="bob")
    grant(Grant(TENANT, ana, "BRL", Decimal(5), "promo", "test", "reais"), NOW)
    in_reais = hold("2", key="4", currency="BRL")
    release(TENANT, released, NOW)
    later = NOW + MINUTE

    for key, held in {
        "a": released,
        "b": expired,
        "c": bobs,
        "d": in_reais,
        "e": "never was",
    }.items():
        use(held, key=key, now=later)

    marks = ["released", "expired", "unknown", "other_wallet", "unknown"]
    assert captures() == [(key, 0, mark) for key, mark in zip("abcde", marks, strict=True)]
    assert told(wallet(ana), wallet(ana, "BRL"), wallet("bob")) == (-5, 5, 10)
    assert told(reserved("bob"), state(bobs)[0]) == (1, HoldState.OPEN)


def test_usage_that_costs_nothing_leaves_its_hold_as_it_is(ana: str) -> None:
    a_customer("tia", plan="tiers-8m", currencies=("USD",), credit="5", now=NOW - DAY)
    held = hold("2", customer="tia")

    record_usage(an_envelope(an_event("tia", [tokens(5)], hold_id=held, key="covered", occurred_at=NOW)), NOW)

    assert captures() == [("covered", 0, None)]
    assert state(held)[:2] == (HoldState.OPEN, 0)


def test_parked_usage_captures_when_it_is_charged(ana: str) -> None:
    held = hold("6")
    unpriced = tokens(3, model="gpt-99")
    event = an_event(ana, [unpriced], hold_id=held, key="parked", occurred_at=NOW)
    record_usage(an_envelope(event), NOW)
    while_parked = captures()
    load_prices([a_price()], NOW + SECOND)

    replay_all(NOW + MINUTE)

    assert while_parked == []
    assert [(key, mark) for key, _, mark in captures()] == [("parked", None)]
    assert one("SELECT status FROM usage_events WHERE key = 'parked'") == ("charged",)
    assert state(held)[1] == one("SELECT cost FROM usage_events WHERE key = 'parked'")[0] > 0


def test_usage_that_names_no_hold_asks_for_none(ana: str) -> None:
    """It costs nothing more than it did; and all that names holds is looked up and written at once."""
    first, second = hold("1"), hold("1", key="2")
    with counted() as without:
        use(None)
    with counted() as with_holds:
        record_usage(an_envelope(*[an_event(ana, hold_id=one, occurred_at=NOW) for one in (first, second) * 5]), NOW)

    assert len(without) > 3
    assert [statement for statement in without if "credit_" in statement] == []
    assert len([statement for statement in with_holds if "credit_" in statement]) == 3


def test_a_void_gives_value_back_and_not_the_hold(ana: str) -> None:
    """What was kept back for it has had its use."""
    held = hold("4")
    use(held, key="wrong")

    void(TENANT, "wrong", "sent by mistake", NOW)

    assert told(wallet(ana), reserved(), state(held)[:2]) == (10, 1, (HoldState.OPEN, 3))


def test_the_same_key_and_body_get_the_first_answer(ana: str) -> None:
    """Numbers written otherwise are the same, and whatever became of the hold is no matter."""
    items = [tokens("1000.00")]
    first = reserve(HoldWish(TENANT, ana, "k", items=items, buffer=Decimal("1.50")), NOW)
    release(TENANT, first.hold_id, NOW)

    again = reserve(HoldWish(TENANT, ana, "k", items=[tokens("1000")], buffer=Decimal("1.5")), NOW + DAY)

    assert again.is_new is False
    assert (again.hold_id, again.amount, again.opened_at, again.expires_at) == (
        first.hold_id,
        first.amount,
        NOW,
        first.expires_at,
    )
    assert told(reserved(), one("SELECT count(*) FROM credit_holds")) == (0, (1,))


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "7"},
        {"customer": "bob"},
        {"currency": None, "customer": "bob"},
        {"seconds": 60},
        {"amount": None, "items": [THREE], "currency": None},
    ],
)
def test_the_same_key_with_another_body_is_a_conflict(ana: str, changes: dict[str, Any]) -> None:
    a_customer("bob", credit="10", now=NOW)
    hold("6")

    with pytest.raises(IdempotencyConflict):
        hold(**({"amount": "6"} | changes))

    assert told(reserved(ana), reserved("bob")) == (6, 0)


def test_a_key_that_was_refused_may_ask_again(ana: str) -> None:
    with pytest.raises(InsufficientCredits):
        hold("11")
    grant(Grant(TENANT, ana, "USD", Decimal(1), "promo", "test", "more"), NOW)

    hold("11")

    assert reserved() == 11


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({}, Rejected),
        ({"amount": Decimal(1), "items": [THREE]}, Rejected),
        ({"amount": Decimal(0), "currency": "USD"}, Rejected),
        ({"amount": Decimal(-1), "currency": "USD"}, Rejected),
        ({"amount": Decimal("NaN"), "currency": "USD"}, Rejected),
        ({"amount": Decimal("0.0000000000001"), "currency": "USD"}, Rejected),
        ({"amount": Decimal("1e26"), "currency": "USD"}, Rejected),
        ({"amount": Decimal(1)}, Rejected),
        ({"amount": Decimal(1), "currency": "EUR"}, WalletNotFound),
        ({"amount": Decimal(1), "currency": "USD", "buffer": Decimal(2)}, Rejected),
        ({"amount": Decimal(1), "currency": "USD", "seconds": 0}, Rejected),
        ({"amount": Decimal(1), "currency": "USD", "seconds": 86_401}, Rejected),
        ({"amount": Decimal(1), "currency": "USD", "idempotency_key": ""}, Rejected),
        ({"amount": Decimal(1), "currency": "USD", "idempotency_key": "k" * 256}, Rejected),
        ({"amount": Decimal(1), "currency": "USD", "customer_id": "nobody"}, CustomerNotFound),
        ({"items": [THREE], "buffer": Decimal("0.5")}, Rejected),
        ({"items": [THREE], "currency": "USD"}, Rejected),
        ({"items": []}, ItemsMalformed),
        ({"items": [tokens(1, model="unheard-of")]}, PriceNotFound),
    ],
)
def test_a_wish_that_can_not_be_fulfilled_is_refused(ana: str, wish: dict[str, Any], error: type[Rejected]) -> None:
    said: dict[str, Any] = {"tenant_id": TENANT, "customer_id": ana, "idempotency_key": "k"} | wish

    with pytest.raises(error) as refused:
        reserve(HoldWish(**said), NOW)

    assert type(refused.value) is error
    assert told(reserved(), one("SELECT count(*) FROM credit_holds")) == (0, (0,))


def test_items_that_a_plan_covers_need_no_hold(billing_database: str) -> None:
    """And whether there is room for them, is said first."""
    assert billing_database
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("USD",), credit="5", now=NOW)

    with pytest.raises(Rejected, match="nothing to reserve") as refused:
        reserve(HoldWish(TENANT, "ana", "k", items=[tokens(5)]), NOW)

    assert not isinstance(refused.value, InsufficientCredits)
    with pytest.raises(InsufficientCredits) as no_room:
        reserve(HoldWish(TENANT, "ana", "k", items=[tokens(99_000_000)]), NOW)
    assert no_room.value.fields["unit"] == "token"


def test_what_stops_a_customer_refuses_holds_too(billing_database: str) -> None:
    """Whatever is in the wallet; the reason is said."""
    assert billing_database
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("USD",), credit="5", now=NOW)
    subscriptions.pause(TENANT, "ana", NOW)
    december = NOW + 20 * DAY

    with pytest.raises(InsufficientCredits) as refused:
        hold("1", now=december)

    assert refused.value.fields["reason"] == "not_subscribed"
    assert reserved() == 0


def test_an_overdraft_may_be_reserved_as_well(ana: str) -> None:
    """It is available, and is no value: nobody is asked to think of it as their own."""
    set_overdraft(TENANT, ana, "USD", Decimal(5))

    hold("15")

    has = balance(TENANT, ana, NOW, "USD").wallets[0].balance
    assert told(has.available, has.overdraft, has.reserved, has.balance) == (0, 5, 15, 10)
    with pytest.raises(InsufficientCredits):
        hold("0.000000000001", key="more")
    set_overdraft(TENANT, ana, "USD", Decimal(0))
    assert told(available(), reserved()) == (-5, 15)


@pytest.mark.parametrize("amount", ["-1", "0.0000000000001", "NaN"])
def test_an_overdraft_that_no_wallet_can_hold_is_refused(ana: str, amount: str) -> None:
    with pytest.raises(Rejected):
        set_overdraft(TENANT, ana, "USD", Decimal(amount))
    with pytest.raises(WalletNotFound):
        set_overdraft(TENANT, ana, "EUR", Decimal(1))


def test_a_release_gives_back_what_is_left_and_as_often_as_it_is_said(ana: str) -> None:
    held = hold("6")
    use(held)

    first = release(TENANT, held, NOW + SECOND)
    again = release(TENANT, held, NOW + MINUTE)

    assert first == again
    assert told(first.state, first.captured, first.closed_at) == (HoldState.RELEASED, 3, NOW + SECOND)
    assert told(reserved(), wallet(ana)) == (0, 7)


def test_a_release_leaves_what_is_used_up_or_expired(ana: str) -> None:
    used_up, expired = hold("3"), hold("3", key="2", seconds=60)
    use(used_up)

    found = [release(TENANT, held, NOW + MINUTE).state for held in (used_up, expired)]

    assert found == [HoldState.USED_UP, HoldState.EXPIRED]
    assert reserved() == 0


def test_a_hold_is_only_its_customers(ana: str) -> None:
    held = hold("6")
    a_customer("bob", now=NOW)

    for tenant, customer, hold_id in (
        (TENANT, "bob", held),
        ("other", ana, held),
        (TENANT, ana, "never was"),
    ):
        with pytest.raises(HoldNotFound):
            release(tenant, hold_id, NOW, customer_id=customer)
        with pytest.raises(HoldNotFound):
            show(tenant, hold_id, customer_id=customer)
        with pytest.raises(HoldNotFound):
            captures_of(tenant, hold_id, customer_id=customer)
    assert reserved() == 6


def test_what_is_over_is_swept_for_all_customers_at_once(ana: str) -> None:
    """What was captured stays captured, what is not over stays open; and a second look finds nothing."""
    for customer in ("bob", "eve"):
        a_customer(customer, currencies=("USD", "BRL"), credit="10", now=NOW - DAY)
    over = [hold("2", key=f"{customer}{n}", customer=customer) for customer in (ana, "bob") for n in range(3)]
    lasting = [hold("1", key="lasts", seconds=3600), hold("1", key="eve", customer="eve", seconds=901)]
    use(over[0])

    before = expire_due(ENDS - SECOND)
    swept, again = expire_due(ENDS), expire_due(ENDS)

    assert (before, swept, again) == (0, 5, 0)
    assert [state(held)[0] for held in over] == [HoldState.USED_UP, *[HoldState.EXPIRED] * 5]
    assert [state(held)[0] for held in lasting] == [HoldState.OPEN] * 2
    assert [reserved(customer) for customer in (ana, "bob", "eve")] == [1, 0, 1]
    assert one("SELECT min(closed_at), max(closed_at) FROM credit_holds WHERE state = 'expired'") == (ENDS, ENDS)


def test_a_sweep_works_in_chunks(ana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.desk.credit_holds.EXPIRED_AT_ONCE", 2)
    for number in range(5):
        hold("1", key=str(number))

    assert [expire_due(ENDS) for _ in range(4)] == [2, 2, 1, 0]
    assert reserved() == 0


def test_one_customer_who_can_not_be_swept_keeps_no_other_back(ana: str) -> None:
    """A person is told of that one."""
    a_customer("bob", credit="10", now=NOW - DAY)
    hold("2")
    hold("2", key="bob", customer="bob")
    one("UPDATE wallets SET reserved = 0 WHERE customer_id = 'ana' AND currency = 'USD' RETURNING 1")

    swept = expire_due(ENDS)

    assert told(swept, reserved("bob")) == (1, 0)
    assert one("SELECT kind, subject FROM alerts") == ("month_fails", "ana")
    one("UPDATE wallets SET reserved = 2 WHERE customer_id = 'ana' AND currency = 'USD' RETURNING 1")
    assert expire_due(ENDS) == 1


def test_what_is_over_does_not_stand_in_the_way_of_another_hold(ana: str) -> None:
    """Whether or not the sweep has come."""
    first = hold("8")

    hold("9", key="other", now=ENDS)

    assert told(reserved(), state(first)) == (9, (HoldState.EXPIRED, 0, ENDS))


def test_the_end_of_a_grant_takes_nothing_from_a_hold(billing_database: str) -> None:
    """Usage under way at that moment finds what was kept back, and is no debt; the rest is broken afterwards."""
    assert billing_database
    catalogues(NOW - DAY)
    a_customer("ana", now=NOW - DAY)
    ends = NOW + MINUTE
    grant(Grant(TENANT, "ana", "USD", Decimal(10), "promo", "week", "g", expires_at=ends), NOW - DAY)
    held = hold("6", seconds=3600)

    use(held, key="after", now=ends + MINUTE)

    assert told(wallet("ana"), one("SELECT debt FROM wallets")) == (7, (0,))
    assert one("SELECT grant_id IS NOT NULL OR parts IS NOT NULL FROM ledger_entries WHERE event_key = 'after'") == (
        True,
    )
    use(None, key="other", now=ends + MINUTE)
    assert one("SELECT debt FROM wallets") == (3,)
    void(TENANT, "other", "only to see", ends + MINUTE)
    void(TENANT, "after", "given back to the grant that had ended", ends + MINUTE)
    assert told(wallet("ana"), one("SELECT debt FROM wallets")) == (10, (0,))


def test_a_grant_is_not_broken_while_a_hold_may_count_on_it(billing_database: str) -> None:
    """Other value beside it, also of later, is no reason; a hold that was opened after the end is none either."""
    assert billing_database
    catalogues(NOW - DAY)
    a_customer("ana", now=NOW - DAY)
    ends, gone_at = NOW + MINUTE, NOW + MINUTE + GRACE
    grant(Grant(TENANT, "ana", "USD", Decimal(10), "promo", "week", "g", expires_at=ends), NOW - DAY)
    grant(Grant(TENANT, "ana", "USD", Decimal(50), "promo", "later", "l", valid_from=NOW + 90 * DAY), NOW)
    held = hold("6", seconds=86_400)

    while_held = told(break_expired(gone_at), wallet("ana"))
    use(held, key="after", now=gone_at - 3 * DAY)
    release(TENANT, held, gone_at)
    grant(Grant(TENANT, "ana", "USD", Decimal(1), "promo", "now", "n"), gone_at)
    hold("1", key="after the end", now=gone_at)
    released = [break_expired(gone_at) for _ in range(2)]

    assert while_held == (0, 60)
    assert one("SELECT debt FROM wallets") == (0,)
    assert released == [1, 0]
    assert one("SELECT amount FROM ledger_entries WHERE kind = 'breakage'") == (-7,)


def test_holds_are_listed_the_newest_first(ana: str) -> None:
    first, second = hold("1"), hold("2", key="2", now=NOW + SECOND)
    third = hold("3", key="3", now=NOW + 2 * SECOND)
    release(TENANT, second, NOW + MINUTE)

    assert [one.hold_id for one in of_customer(TENANT, ana)] == [third, first]
    assert [one.hold_id for one in of_customer(TENANT, ana, with_closed=True)] == [third, second, first]
    assert [one.hold_id for one in of_customer(TENANT, ana, limit=1)] == [third]
    assert of_customer("other", ana) == []


def a_hard_quota(limit: str, **changes: Any) -> None:
    quotas.set_quota(Wanted(TENANT, "q", Decimal(limit), is_hard=True, **changes), NOW - DAY)


@pytest.mark.parametrize(
    ("quota", "wish", "is_refused"),
    [
        ({"limit": "1", "scope": Scope.CUSTOMER, "measure": Measure.EVENTS}, {}, False),
        ({"limit": "0", "scope": Scope.CUSTOMER, "measure": Measure.EVENTS}, {}, True),
        ({"limit": "99999", "scope": Scope.TENANT, "measure": Measure.TOKENS}, {}, True),
        ({"limit": "100000", "scope": Scope.TENANT, "measure": Measure.TOKENS}, {}, False),
        ({"limit": "2.99", "scope": Scope.TENANT, "measure": Measure.COST, "currency": "USD"}, {}, True),
        ({"limit": "3", "scope": Scope.TENANT, "measure": Measure.COST, "currency": "USD"}, {}, False),
        ({"limit": "0", "scope": Scope.USER, "measure": Measure.EVENTS}, {"user_id": "u1"}, True),
        ({"limit": "0", "scope": Scope.USER, "measure": Measure.EVENTS}, {}, False),
        (
            {"limit": "0", "scope": Scope.TENANT, "measure": Measure.EVENTS, "feature": "chat"},
            {"feature": "chat"},
            True,
        ),
        ({"limit": "0", "scope": Scope.TENANT, "measure": Measure.EVENTS, "feature": "chat"}, {}, False),
    ],
)
def test_a_hard_quota_that_leaves_no_room_refuses_a_hold(
    ana: str, quota: dict[str, Any], wish: dict[str, Any], is_refused: bool
) -> None:
    """And nothing is reserved: the same key may ask again when there is room."""
    a_hard_quota(**quota)
    asked = HoldWish(TENANT, ana, "k", items=[THREE], buffer=Decimal(1), **wish)

    if is_refused:
        with pytest.raises(QuotaExceeded, match="quota q leaves"):
            reserve(asked, NOW)
    else:
        assert reserve(asked, NOW).amount == Decimal(3)

    assert one("SELECT sum(reserved) FROM wallets") == ((Decimal(0) if is_refused else Decimal(3)),)
