"""The month turns: whatever period has begun has its fee and its credits, once, however late or often one looks."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from billing.plans import Anchor, Proration
from services.books.credits import Grant, break_expired, grant
from services.cycle import months, subscriptions
from services.metering.parked import replay
from services.metering.voiding_usage import void
from tests.factories import TENANT, tokens
from tests.looking import entries, one, rows, wallet
from tests.services.monthly import (
    APRIL,
    DAY,
    FEBRUARY,
    FEE,
    GRACE,
    JANUARY,
    MARCH,
    PREPAID,
    a_plan,
    everything,
    fees,
    grants,
    joined,
    offered,
    periods,
    turned,
    used,
)

pytestmark = pytest.mark.usefixtures("billing_database")

FREE = replace(PREPAID, plan_id="monthly", free_credits=Decimal(10), free_credits_currency="USD")


def test_a_period_owes_its_fee_once_however_often_one_looks() -> None:
    offered(a_plan())
    joined(JANUARY + 5 * DAY)

    looks = [turned(JANUARY + 6 * DAY) for _ in range(3)]

    assert [look.fees for look in looks] == [1, 0, 0]
    assert fees() == [(JANUARY, 0, FEE, "due")]


def test_a_beat_that_was_away_for_three_months_catches_up_in_order() -> None:
    offered(a_plan())
    joined(JANUARY + 5 * DAY)

    turned(APRIL + 5 * DAY)

    assert fees() == [(start, 0, FEE, "due") for start in (JANUARY, FEBRUARY, MARCH, APRIL)]
    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY, MARCH, APRIL]
    assert all(end == start for (_, end), (start, _) in pairwise(periods()))


def test_what_usage_has_begun_is_opened_and_joined_up_by_the_next_look() -> None:
    """Nobody looked for three months, but events came in: in the months they occurred in."""
    offered(a_plan())
    joined(JANUARY + 5 * DAY)
    used(APRIL + DAY, tokens(9_000_000))

    turned(APRIL + 2 * DAY)

    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY, MARCH, APRIL]
    assert fees() == [(start, 0, FEE, "due") for start in (JANUARY, FEBRUARY, MARCH, APRIL)]
    assert rows("SELECT period_start, tier FROM payments WHERE kind = 'tier'") == [(APRIL, 1)]


def test_usage_of_before_somebody_joined_counts_and_owes_no_fee() -> None:
    offered(a_plan())
    joined(FEBRUARY + DAY)
    used(JANUARY + 20 * DAY, tokens(9_000_000), came=FEBRUARY + DAY)

    turned(FEBRUARY + 2 * DAY)

    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY]
    assert fees() == [(FEBRUARY, 0, FEE, "due")]


def test_two_looks_at_once_share_the_work() -> None:
    offered(a_plan())
    for number in range(40):
        joined(JANUARY + DAY, f"c{number}")
    threads = [threading.Thread(target=turned, args=(MARCH + DAY,)) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert one("SELECT count(*), count(DISTINCT (customer_id, period_start)) FROM payments") == (120, 120)
    assert months.turn_due(MARCH + DAY) == months.Turned()


@pytest.mark.parametrize(
    ("proration", "amount"), [(Proration.NONE, FEE), (Proration.DAILY, 20_645)], ids=["whole", "16 of 31 days"]
)
def test_who_joins_within_a_month_owes_as_the_plan_prorates(proration: Proration, amount: int) -> None:
    offered(a_plan(proration=proration))
    joined(JANUARY + 15 * DAY)

    turned(FEBRUARY + DAY)

    assert fees() == [(JANUARY, 0, amount, "due"), (FEBRUARY, 0, FEE, "due")]


def test_months_that_begin_on_the_day_somebody_joined_come_back_to_it() -> None:
    """The 31st is the 28th in February, and the 31st again."""
    offered(a_plan(anchor=Anchor.JOINED))
    joined(datetime(2026, 1, 31, 15, tzinfo=UTC), zone="UTC")

    turned(datetime(2026, 6, 1, tzinfo=UTC))

    assert [(start.month, start.day) for start, _ in periods()] == [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31)]
    assert len(fees()) == 5


def test_another_zone_begins_with_the_next_period_and_leaves_no_gap() -> None:
    offered(a_plan())
    joined(JANUARY + DAY)
    turned(JANUARY + DAY)

    subscriptions.change_zone(TENANT, "ana", "Pacific/Auckland", JANUARY + 2 * DAY)
    turned(FEBRUARY + DAY)
    subscriptions.change_zone(TENANT, "ana", "America/Los_Angeles", FEBRUARY + 2 * DAY)
    turned(APRIL + DAY)

    assert all(end == start for (_, end), (start, _) in pairwise(periods()))
    assert [(start.month, start.day, start.hour) for start, _ in periods()] == [
        (1, 1, 3),
        (2, 1, 3),
        (2, 28, 11),
        (4, 1, 7),
    ]
    assert [amount for _, _, amount, _ in fees()] == [FEE] * 4


def test_free_credits_come_with_each_period_and_go_with_it() -> None:
    """What is left is broken when the grace is over; what was given otherwise stays."""
    offered(FREE)
    joined(JANUARY + DAY)
    given = Grant(TENANT, "ana", "USD", Decimal(5), "promo", "welcome_bonus", "welcome")
    grant(given, JANUARY + DAY)
    turned(JANUARY + DAY)
    used(JANUARY + 2 * DAY, tokens(100_000))  # USD 3.00

    turned(FEBRUARY)
    broken = [break_expired(FEBRUARY + GRACE - DAY), break_expired(FEBRUARY + GRACE), break_expired(FEBRUARY + GRACE)]

    assert broken == [0, 1, 0]
    assert grants() == [(Decimal(10), Decimal(0)), (Decimal(10), Decimal(10))]
    assert grants(source="promo") == [(Decimal(5), Decimal(5))]
    assert [(entry.kind, entry.amount) for entry in entries("ana")] == [
        ("grant", Decimal(5)),
        ("grant", Decimal(10)),
        ("usage", Decimal(-3)),
        ("grant", Decimal(10)),
        ("breakage", Decimal(-7)),
    ]
    assert wallet("ana") == 15


def test_a_late_event_burns_the_credits_of_the_month_it_occurred_in() -> None:
    offered(FREE)
    joined(JANUARY + DAY)
    turned(FEBRUARY + DAY)

    used(FEBRUARY - DAY, tokens(100_000), came=FEBRUARY + DAY)

    assert grants() == [(Decimal(10), Decimal(7)), (Decimal(10), Decimal(10))]


def test_what_no_grant_is_valid_for_is_debt() -> None:
    """Once January's credits are broken, an event of January is paid by nothing that is there."""
    offered(FREE)
    joined(JANUARY + DAY)
    everything(FEBRUARY + GRACE)

    used(FEBRUARY - DAY, tokens(100_000), came=FEBRUARY + GRACE + timedelta(hours=1))

    assert grants() == [(Decimal(10), Decimal(0)), (Decimal(10), Decimal(10))]
    assert one("SELECT debt, balance FROM wallets WHERE currency = 'USD'") == (Decimal(3), Decimal(7))


def test_free_credits_are_given_once_by_two_looks_and_by_a_late_one() -> None:
    offered(FREE)
    joined(JANUARY + DAY)

    given = [turned(moment).credits for moment in (JANUARY + DAY, JANUARY + 2 * DAY, APRIL + DAY, APRIL + DAY)]

    assert given == [1, 0, 3, 0]
    assert len(grants()) == 4


def test_a_plan_that_does_not_say_how_much_gives_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """FREE_TIER_CREDITS, in the wallet of credits, which is made for it."""
    from config.settings import settings

    monkeypatch.setenv("CENTAVO_FREE_TIER_CREDITS", "123.5")
    settings.cache_clear()
    offered(replace(PREPAID, plan_id="monthly", free_credits=None))
    joined(JANUARY + DAY, currencies=("USD",))

    turned(JANUARY + DAY)

    assert wallet("ana", "CREDIT") == Decimal("123.5")


def test_one_customer_whose_month_can_not_turn_keeps_nobody_else_back() -> None:
    """A zone that is none any more: a person is told, and it is tried again an hour later."""
    offered(a_plan())
    for name in ("ana", "bob", "eve"):
        joined(JANUARY + DAY, name)
    one("UPDATE customers SET time_zone = 'Mars/Olympus' WHERE customer_id = 'bob' RETURNING 1")

    turned(FEBRUARY + DAY)
    alerts = rows("SELECT kind, subject FROM alerts")
    one("UPDATE customers SET time_zone = 'America/Sao_Paulo' WHERE customer_id = 'bob' RETURNING 1")
    turned(FEBRUARY + DAY + timedelta(hours=1))

    assert alerts == [("month_fails", "bob")]
    assert [start for start, *_ in fees("ana")] == [JANUARY, FEBRUARY]
    assert [start for start, *_ in fees("bob")] == [JANUARY, FEBRUARY]


@pytest.mark.parametrize("looks", [[JANUARY + DAY, FEBRUARY + DAY, MARCH], [FEBRUARY + 20 * DAY, MARCH], [MARCH]])
def test_what_credits_are_worth_does_not_depend_on_when_somebody_looked(looks: list[datetime]) -> None:
    """Little is used in January and too much in February: what was left of January pays for none of that."""
    offered(FREE)
    joined(JANUARY)
    moments = sorted([(JANUARY + 5 * DAY, 100_000), (FEBRUARY + 5 * DAY, 500_000)] + [(look, 0) for look in looks])

    for moment, quantity in moments:
        if quantity:
            used(moment, tokens(quantity))
        else:
            turned(moment)
    break_expired(FEBRUARY + GRACE + 30 * DAY)

    march = Decimal(10)
    assert wallet("ana") == Decimal(-5) + march
    assert grants() == [(Decimal(10), Decimal(0)), (Decimal(10), Decimal(0)), (march, march)]
    assert one("SELECT debt FROM wallets WHERE currency = 'USD'") == (Decimal(5),)


@pytest.mark.parametrize("is_paid", [False, True], ids=["owed", "paid meanwhile"])
def test_late_credits_pay_no_debt_that_was_voided(is_paid: bool) -> None:
    """January's usage was a mistake: its credits, come late, do not pay for February instead."""
    offered(FREE)
    joined(JANUARY)
    used(JANUARY + DAY, tokens(1_000_000), key="mistake")  # USD 30.00
    if is_paid:
        promo = (Decimal(30), "promo", "sorry", "sorry", JANUARY, JANUARY + 3 * DAY)
        grant(Grant(TENANT, "ana", "USD", *promo), JANUARY + 2 * DAY)
    void(TENANT, "mistake", "a mistake", JANUARY + 2 * DAY)
    used(FEBRUARY + DAY, tokens(1_000_000))

    turned(FEBRUARY + 2 * DAY)
    break_expired(FEBRUARY + GRACE)

    assert grants() == [(Decimal(10), Decimal(0)), (Decimal(10), Decimal(0))]
    assert one("SELECT balance, debt FROM wallets WHERE currency = 'USD'") == (Decimal(-20), Decimal(20))


def test_usage_of_the_far_future_begins_no_month_before_its_time() -> None:
    """A person may let it count; what lies between is begun as it comes, each month with its fee."""
    offered(a_plan())
    joined(JANUARY + 5 * DAY)
    used(APRIL + 400 * DAY, tokens(7), came=JANUARY + 6 * DAY, key="ahead")
    assert replay("event:acme/ahead", JANUARY + 6 * DAY).charged == 1

    looks = [turned(at).fees for at in (JANUARY + 7 * DAY, FEBRUARY - DAY, FEBRUARY, FEBRUARY + DAY, MARCH + DAY)]

    assert looks == [1, 0, 1, 0, 1]
    assert [start for start, *_ in fees()] == [JANUARY, FEBRUARY, MARCH]
