"""Rating again where prices climb over the period: whatever moves and whatever stays, a ladder's cost is its sum's."""

import random
from decimal import Decimal

import pytest

from db.prices import NewPrice
from services.desk.prices import load_prices
from services.metering.rerating import Asked, CustomerResult, Span, rerate
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, an_envelope, an_event
from tests.looking import one, wallet
from tests.services.correcting import DAY, MINUTE, OCTOBER, a_ladder, a_price, corrections, event, seconds, set_up, used

pytestmark = pytest.mark.usefixtures("billing_database")

LATER = OCTOBER + DAY
FALLS, RISES = (("10", "2"), (None, "1")), (("10", "1"), (None, "2"))


def rated(*prices: NewPrice) -> CustomerResult:
    (result,) = rerate(Asked(TENANT, Span.month("2026-10"), prices or None), LATER, is_applied=True)
    return result


def used_both(key: str, quantity: str | int) -> None:
    """So many seconds on the ladder, and one of another model in the same event."""
    items = [seconds(quantity), seconds(1, model="other")]
    record_usage(an_envelope(an_event("ana", items, key=key, occurred_at=OCTOBER)), OCTOBER)


def other_goes_to_brl() -> None:
    """From now on an event of both models can't be rated: its prices are in two currencies."""
    load_prices([a_price("1", model="other", currency="BRL")], LATER, is_correction=True)


def test_of_two_ladders_that_were_tried_out_a_void_lowers_the_one_that_the_event_stood_on() -> None:
    """The rungs of the one are among those of the other."""
    set_up()
    for key, at in (("a", OCTOBER - 5 * DAY), ("b", OCTOBER - 5 * DAY), ("c", OCTOBER), ("d", OCTOBER)):
        used(key, 10, at)
    steps = (("10", "2"), ("20", "1.5"), (None, "1"))
    rated(a_ladder(*FALLS, scope=TENANT), a_ladder(*steps, scope=TENANT, effective_from=OCTOBER - DAY))
    assert wallet("ana") == -(30 + 35)

    void(TENANT, "a", "a mistake", LATER)

    assert wallet("ana") == -(20 + 35)


def test_a_ladder_that_is_spelled_otherwise_is_the_same_ladder() -> None:
    set_up()
    used("a", 10)
    used("b", 10)
    rated(a_ladder(("10", "2"), (None, "0.5"), scope=TENANT))
    used("c", 10)
    rated(a_ladder(("10.0", "2"), (None, "0.50"), scope=TENANT))
    assert wallet("ana") == -(20 + 10)

    void(TENANT, "a", "a mistake", LATER)
    void(TENANT, "b", "a mistake", LATER)

    assert wallet("ana") == -20


@pytest.mark.parametrize("rungs", [FALLS, RISES])
@pytest.mark.parametrize("keys", ["sm", "ms", "msm", "sms"])
def test_what_stays_keeps_its_place_on_the_ladder(keys: str, rungs: tuple[tuple[str | None, str], ...]) -> None:
    """s can't be rated any more, m can; neither costs another cent, since nothing of the ladder has changed."""
    set_up(a_ladder(*rungs), a_price("1", model="other"))
    for number, key in enumerate(keys):
        (used_both if key == "s" else used)(f"{key}{number}", 10)
    before = wallet("ana")
    other_goes_to_brl()

    result = rated()

    assert dict(result.unrated) == {"mixed_currencies": keys.count("s")}
    assert (result.changed, wallet("ana"), corrections()) == (0, before, [])


def test_what_moves_climbs_beside_what_stays() -> None:
    """Some of the ladder's usage leaves it: what is left costs what so much does, and what stays costs what it did."""
    set_up(a_ladder(*FALLS), a_price("1", model="other"))
    used_both("stays", 8)
    used("gone", 10, LATER + 10 * MINUTE, now=LATER)
    used("left", 10)
    assert wallet("ana") == -(16 + 12 + 10 + 1)
    other_goes_to_brl()
    load_prices([a_price("5", effective_from=LATER + 5 * MINUTE)], LATER)

    rated()

    assert event("stays", "cost") == (17,)
    assert wallet("ana") == -(50 + 28 + 1)
    assert rated().changed == 0


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_the_sum_is_the_ladders(seed: int) -> None:
    """Events that stay among those that are rated again, on a ladder that is corrected back and forth, and voids."""
    chance = random.Random(seed)
    set_up(a_ladder(*RISES), a_price("1", model="other"))
    stays = []
    for number in range(12):
        if chance.random() < 0.4:
            used_both(f"k{number}", chance.randrange(1, 9))
            stays.append(f"k{number}")
        else:
            used(f"k{number}", chance.randrange(1, 9))
    kept = [event(key, "cost") for key in stays]
    other_goes_to_brl()

    for rungs in (FALLS, RISES, FALLS):
        rated(a_ladder(*rungs, scope=TENANT))
        rated()
    assert [event(key, "cost") for key in stays] == kept
    for key in chance.sample([f"k{number}" for number in range(12)], 5):
        void(TENANT, key, "a mistake", LATER)
        rated()

    on_ladder, others = one("""
        SELECT coalesce(sum((line->>'quantity')::numeric) FILTER (WHERE line->>'model' = 'llama'), 0),
            count(*) FILTER (WHERE line->>'model' = 'other')
        FROM usage_events CROSS JOIN LATERAL jsonb_array_elements(items) AS line WHERE status = 'charged'
    """)
    assert wallet("ana") == -(min(on_ladder, 10) + 2 * max(on_ladder - 10, Decimal(0)) + others)
