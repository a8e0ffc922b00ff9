"""Grants are burned in their order, within their validity, and no value appears or is lost on any way."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import BrokenInvariant
from billing.grants import (
    DEBT,
    PRIORITIES,
    Change,
    Grant,
    Source,
    Standing,
    arrive,
    broken,
    burn,
    give_back,
    in_burn_order,
    take_back,
)
from billing.money import ZERO

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)
amounts = st.decimals("0.000000000001", 10**12, places=12)
#: Few enough that bounds and moments meet often.
moments = st.integers(0, 5).map(lambda days: BEGAN + timedelta(days=days))
bounds = st.none() | moments


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """A grant that has not arrived yet: any priority, any validity."""
    starts_at, ends_at = draw(bounds), draw(bounds)
    if starts_at is not None and ends_at is not None and starts_at >= ends_at:
        ends_at = None
    return Grant("", ZERO, starts_at, ends_at, draw(st.sampled_from([10, 20, 50])))


class Burned(NamedTuple):
    """A burn that may be given back: what of it still stands."""

    parts: dict[str, Decimal]


class Books:
    """A wallet with all grants that it ever got, moved as the services move it; each movement is checked."""

    def __init__(self) -> None:
        self.wallet = Standing(ZERO, 0)
        self.grants: dict[str, Grant] = {}
        self.burns: list[Burned] = []

    def arrive(self, grant: Grant, amount: Decimal) -> None:
        """A grant that is new gets the next number."""
        if grant.grant_id not in self.grants:
            grant.number = len(self.grants)
            grant.grant_id = f"g{grant.number}"
            self.grants[grant.grant_id] = grant
            self.wallet.grants = in_burn_order(self.grants.values())
        self._moved(amount, arrive(self.wallet, grant, amount))

    def burn(self, cost: Decimal, occurred_at: datetime) -> Change:
        change = burn(self.wallet, cost, occurred_at)
        self._moved(-cost, change)
        self.burns.append(Burned(dict(change.of(-cost))))
        return change

    def break_(self, grant: Grant) -> Decimal:
        taken = broken(self.wallet, grant)
        self._moved(-taken, Change(grant.grant_id))
        return taken

    def take_back(self, grant: Grant, amount: Decimal) -> None:
        self._moved(-amount, take_back(self.wallet, grant, amount))

    def give_back(self, burned: Burned, amount: Decimal) -> dict[str, Decimal]:
        """What was given back no longer stands: debt first, then what was burned last."""
        change = give_back(self.wallet, burned.parts, amount, self.grants)
        self._moved(amount, change)
        left = amount
        names = [DEBT, *[grant.grant_id for grant in reversed(self.wallet.grants)]]
        for name in names:
            undone = min(left, abs(burned.parts.get(name, ZERO)))
            left -= undone
            if undone:
                burned.parts[name] += -undone if name == DEBT else undone
        return change.of(amount)

    def _moved(self, amount: Decimal, change: Change) -> None:
        parts = change.of(amount)
        self.wallet.balance += amount
        assert sum(parts.values(), ZERO) - 2 * parts.get(DEBT, ZERO) == amount
        assert self.wallet.balance == remaining(self.grants.values()) - self.wallet.debt
        assert min([self.wallet.debt, *[min(one.remaining, one.paid_debt) for one in self.grants.values()]]) >= 0


def remaining(some: Iterable[Grant]) -> Decimal:
    return sum((grant.remaining for grant in some), ZERO)


class Step(NamedTuple):
    """Something that happens to a wallet; `which` picks the grant or the burn, where there are any."""

    what: str
    grant: Grant
    amount: Decimal
    moment: datetime
    which: int


steps = st.builds(
    Step,
    st.sampled_from(["burn", "burn", "arrive", "arrive", "again", "break", "take back", "give back", "reserve"]),
    grants(),
    amounts,
    moments,
    st.integers(0, 20),
)


def happen(books: Books, step: Step) -> None:
    known, burns = list(books.grants.values()), books.burns
    match step.what:
        case "burn":
            books.burn(step.amount, step.moment)
        case "arrive":
            books.arrive(step.grant, step.amount)
        case "reserve":
            books.wallet.reserved = min(step.amount, max(ZERO, books.wallet.balance))
        case "again" if known:
            books.arrive(known[step.which % len(known)], step.amount)
        case "break" if known:
            books.break_(known[step.which % len(known)])
        case "take back" if known:
            books.take_back(known[step.which % len(known)], step.amount)
        case "give back" if burns:
            burned = burns[step.which % len(burns)]
            books.give_back(burned, min(step.amount, sum(map(abs, burned.parts.values()), ZERO)))


@given(st.lists(steps, max_size=25))
def test_a_balance_is_grants_less_debt_whatever_happens(happened: list[Step]) -> None:
    """After each movement: its parts come to its amount, and nothing is below zero. `Books` looks."""
    books = Books()

    for step in happened:
        happen(books, step)


@given(st.lists(steps, max_size=15))
def test_what_changed_says_so(happened: list[Step]) -> None:
    """Only what says so is written: a grant or wallet that changed in silence would be lost."""
    books = Books()
    for step in happened:
        before = {name: (one.remaining, one.paid_debt) for name, one in books.grants.items()}
        stood = (books.wallet.debt, remaining(books.grants.values()))
        for one in books.grants.values():
            one.is_changed = False
        books.wallet.is_changed = False

        happen(books, step)

        changed = {name for name, one in books.grants.items() if before.get(name) != (one.remaining, one.paid_debt)}
        assert changed <= {name for name, one in books.grants.items() if one.is_changed}
        assert books.wallet.is_changed or stood == (books.wallet.debt, remaining(books.grants.values()))


@given(st.lists(st.tuples(grants(), amounts), max_size=8), st.lists(st.tuples(amounts, moments), min_size=1))
def test_usage_burns_what_was_valid_when_it_occurred_in_order_and_the_rest_is_debt(
    arrived: list[tuple[Grant, Decimal]], used: list[tuple[Decimal, datetime]]
) -> None:
    """The smaller priority first, then what ends earlier, then what is older: by another waterfall than the code's."""
    books = Books()
    for grant, amount in arrived:
        books.arrive(grant, amount)

    for cost, moment in used:
        left, expected = cost, {}
        order = sorted(books.grants.values(), key=lambda g: (g.priority, g.expires_at or NEVER, g.number))
        for grant in order:
            if (grant.valid_from or BEGAN) <= moment < (grant.expires_at or NEVER) and min(left, grant.remaining):
                expected[grant.grant_id] = -min(left, grant.remaining)
                left -= min(left, grant.remaining)
        if left:
            expected[DEBT] = left

        assert books.burn(cost, moment).of(-cost) == expected


@given(st.lists(st.tuples(grants(), amounts), max_size=6), st.lists(st.tuples(amounts, moments)), st.randoms())
def test_usage_in_any_order_leaves_the_same_balance(
    arrived: list[tuple[Grant, Decimal]], used: list[tuple[Decimal, datetime]], chance: Any
) -> None:
    """And the arrivals may come in between: what was given less what was used is what is there."""
    moves: list[tuple[Any, ...]] = [*arrived, *used]
    chance.shuffle(moves)
    books = Books()
    for move in moves:
        if isinstance(move[0], Grant):
            books.arrive(*move)
        else:
            books.burn(*move)

    assert books.wallet.balance == sum([a for _, a in arrived], ZERO) - sum([cost for cost, _ in used], ZERO)


@given(st.lists(st.tuples(grants(), amounts), min_size=1), st.lists(st.tuples(amounts, moments)), amounts)
def test_breakage_never_takes_what_is_reserved(
    arrived: list[tuple[Grant, Decimal]], used: list[tuple[Decimal, datetime]], reserved: Decimal
) -> None:
    """Of all that has expired so much goes that what is reserved is still there; a second look takes nothing.

    Where nothing is reserved all of it goes, whatever the debt: it could not have paid for that.
    """
    books = Books()
    for grant, amount in arrived:
        books.arrive(grant, amount)
    for cost, moment in used:
        books.burn(cost, moment)
    before = books.wallet.balance
    books.wallet.reserved = min(reserved, max(ZERO, before))

    taken = sum((books.break_(grant) for grant in books.grants.values()), ZERO)

    reserved = books.wallet.reserved
    free = max(ZERO, before - reserved) if reserved else remaining(books.grants.values()) + taken
    assert taken == min(free, remaining(books.grants.values()) + taken)
    assert not reserved or before - taken >= min(before, reserved)
    assert [books.break_(grant) for grant in books.grants.values()] == [0] * len(books.grants)


@given(st.lists(st.tuples(amounts, st.booleans()), max_size=12), st.lists(grants(), min_size=12), st.data())
def test_giving_back_every_burn_in_any_order_makes_all_of_it_undone(
    moves: list[tuple[Decimal, bool]], arriving: list[Grant], data: st.DataObject
) -> None:
    """In slices, too: every grant has what it was given, and nobody owes, though arrivals paid debt in between."""
    books = Books()
    given: list[Decimal] = []
    for (amount, is_arrival), grant in zip(moves, arriving, strict=False):
        if is_arrival:
            books.arrive(grant, amount)
            given.append(amount)
        else:
            books.burn(amount, data.draw(moments))

    for burned in data.draw(st.permutations(books.burns)):
        cost = sum(map(abs, burned.parts.values()), ZERO)
        first = min(cost, data.draw(amounts))
        books.give_back(burned, first)
        books.give_back(burned, cost - first)

    assert [(one.remaining, one.paid_debt) for one in books.grants.values()] == [(amount, ZERO) for amount in given]
    assert (books.wallet.balance, books.wallet.debt) == (sum(given, ZERO), ZERO)


@given(st.lists(st.tuples(grants(), amounts), max_size=6), amounts, moments)
def test_a_burn_that_is_given_back_at_once_was_none(
    arrived: list[tuple[Grant, Decimal]], cost: Decimal, moment: datetime
) -> None:
    """Part for part."""
    books = Books()
    for grant, amount in arrived:
        books.arrive(grant, amount)
    burned = dict(books.burn(cost, moment).of(-cost))

    given = books.give_back(books.burns[0], cost)

    assert given == {name: -amount for name, amount in burned.items()}


def a_wallet(*given: Grant, debt: str = "0") -> Standing:
    total = sum((grant.remaining for grant in given), ZERO)
    return Standing(total - Decimal(debt), 0, Decimal(debt), in_burn_order(given))


def of(*numbers: int) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, numbers))


def test_the_order_is_priority_then_the_earliest_end_then_age() -> None:
    first, second = BEGAN, BEGAN + timedelta(days=1)
    grants = [
        Grant("paid", ZERO, priority=50, number=1),
        Grant("young", ZERO, priority=20, number=4),
        Grant("old", ZERO, priority=20, number=2),
        Grant("ends late", ZERO, expires_at=second, priority=20, number=3),
        Grant("ends early, young", ZERO, expires_at=first, priority=20, number=6),
        Grant("ends early, old", ZERO, expires_at=first, priority=20, number=5),
        Grant("free", ZERO, priority=10, number=7),
    ]

    assert [grant.grant_id for grant in in_burn_order(grants)] == [
        "free",
        "ends early, old",
        "ends early, young",
        "ends late",
        "old",
        "young",
        "paid",
    ]


def test_every_source_has_a_priority_and_what_was_paid_for_is_burned_last() -> None:
    assert PRIORITIES.keys() == set(Source)
    assert max(PRIORITIES, key=PRIORITIES.__getitem__) is Source.PURCHASE
    assert min(PRIORITIES, key=PRIORITIES.__getitem__) is Source.FREE


def test_validity_is_half_open() -> None:
    grant = Grant("g", Decimal(1), BEGAN, BEGAN + timedelta(days=1))
    tick = timedelta(microseconds=1)

    paid = [grant.pays_for(BEGAN + after) for after in (-tick, 0 * tick, timedelta(days=1) - tick, timedelta(days=1))]

    assert paid == [False, True, True, False]


def test_what_arrives_pays_debt_first() -> None:
    grant = Grant("g", ZERO)
    wallet = a_wallet(debt="3")

    change = arrive(wallet, grant, Decimal(10))

    assert change == Change("g", {"g": Decimal(7), DEBT: Decimal(-3)})
    assert (wallet.debt, grant.remaining, grant.paid_debt) == of(0, 7, 3)


def test_what_is_taken_back_and_no_longer_there_is_debt() -> None:
    """Other grants are not touched: the money of one purchase is not another's."""
    bought, other = Grant("bought", Decimal(4)), Grant("other", Decimal(9))
    wallet = a_wallet(bought, other)

    change = take_back(wallet, bought, Decimal(10))

    assert change == Change("bought", {"bought": Decimal(-4), DEBT: Decimal(6)})
    assert (wallet.debt, bought.remaining, other.remaining) == of(6, 0, 9)


def test_a_part_is_given_back_to_debt_first_and_then_to_what_was_burned_last() -> None:
    free, paid = Grant("free", ZERO, priority=10), Grant("paid", ZERO, priority=50)
    wallet = a_wallet(free, paid, debt="5")
    burned = {"free": Decimal(-2), "paid": Decimal(-3), DEBT: Decimal(5)}

    change = give_back(wallet, burned, Decimal(7), {"free": free, "paid": paid})

    assert change == Change(parts={DEBT: Decimal(-5), "paid": Decimal(2)})
    assert (wallet.debt, free.remaining, paid.remaining) == of(0, 0, 2)


def test_debt_that_was_paid_since_goes_back_to_who_paid_it_the_youngest_first() -> None:
    old = Grant("old", ZERO, number=1, paid_debt=Decimal(4))
    young = Grant("young", ZERO, number=2, paid_debt=Decimal(5))
    wallet = a_wallet(old, young, debt="1")

    change = give_back(wallet, {DEBT: Decimal(9)}, Decimal(8), {"old": old, "young": young})

    assert change == Change(parts={DEBT: Decimal(-1), "young": Decimal(5), "old": Decimal(2)})
    assert (wallet.debt, old.paid_debt, young.paid_debt) == of(0, 2, 0)


def test_a_grant_that_had_ended_and_gets_something_back_is_burned_again_at_once() -> None:
    """In its place: a wallet is read without what has ended, and a new rating gives back and takes anew in one go."""
    open_one, ended = Grant("open", Decimal(1), priority=50), Grant("ended", ZERO, priority=10)
    wallet = a_wallet(open_one)
    give_back(wallet, {"ended": Decimal(-3)}, Decimal(3), {"open": open_one, "ended": ended})

    change = burn(wallet, Decimal(2), BEGAN)

    assert change == Change("ended")
    assert (wallet.debt, ended.remaining, open_one.remaining) == of(0, 1, 1)
    assert wallet.grants == [ended, open_one]


@pytest.mark.parametrize(
    ("burned", "said"),
    [({"g": Decimal(-1)}, "1 more than were burned"), ({DEBT: Decimal(2)}, "2 of debt are to be undone")],
)
def test_more_than_there_was_is_not_given_back(burned: dict[str, Decimal], said: str) -> None:
    grant = Grant("g", ZERO)

    with pytest.raises(BrokenInvariant, match=said):
        give_back(a_wallet(grant), burned, Decimal(2), {"g": grant})
