"""Void anything, after any history: two customers live the same, but for events of the one that are voided later."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from db.prices import NewPrice
from services.books.credits import Grant, break_expired, grant
from services.collecting.topups import Offer, request
from services.metering.rerating import Asked, Span, rerate
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event
from tests.looking import one, rows, wallet
from tests.services.collecting import GOOD, pays_with, taken
from tests.services.correcting import OCTOBER, a_ladder, a_price, seconds, set_up

pytestmark = pytest.mark.usefixtures("billing_database")

HOUR = timedelta(hours=1)
FALLS = a_ladder(("20", "3"), ("50", "2"), (None, "1"), per=Decimal(7))
RISES = a_ladder(("20", "1"), ("50", "2"), (None, "3"), per=Decimal(7))


@dataclass
class Life:
    """What happens to ana, and to bob but for the events in `mistakes`."""

    chance: random.Random
    at: datetime = OCTOBER
    mistakes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    grants: dict[str, Decimal] = field(default_factory=dict)

    def step(self) -> None:
        self.at += self.chance.randrange(1, 5) * HOUR
        self.chance.choice([self.use, self.use, self.use, self.give, self.expire])()

    def use(self) -> None:
        """Now, or some time ago; every third is a mistake."""
        key, occurred_at = f"k{len(self.events)}", self.at - self.chance.randrange(0, 60) * HOUR
        quantity = Decimal(self.chance.randrange(1, 2_000)).scaleb(-2)
        is_mistake = self.chance.random() < 0.34
        for customer in ("ana",) if is_mistake else ("ana", "bob"):
            event = an_event(customer, [seconds(quantity)], key=f"{customer}-{key}", occurred_at=occurred_at)
            assert record_usage(an_envelope(event), self.at).charged == 1
        self.events.append(key)
        if is_mistake:
            self.mistakes.append(key)

    def give(self) -> None:
        key, amount = f"g{len(self.grants)}", Decimal(self.chance.randrange(1, 3_000)).scaleb(-2)
        starts = self.chance.choice([None, self.at - 40 * HOUR, self.at, self.at + 10 * HOUR])
        ends = self.chance.choice([None, None, self.at + 11 * HOUR, self.at + 90 * HOUR])
        priority = self.chance.choice([None, 1, 60])
        for customer in ("ana", "bob"):
            asked = (TENANT, customer, "USD", amount, "promo", "bonus", f"{key}-{customer}")
            grant(Grant(*asked, starts, ends, priority), self.at)
        self.grants[key] = amount

    def expire(self) -> None:
        self.at += 48 * HOUR
        break_expired(self.at)


def broken(customer: str) -> Decimal:
    statement = """
        SELECT coalesce(-sum(e.amount), 0) FROM ledger_entries e JOIN wallets w USING (tenant_id, wallet_id)
        WHERE w.customer_id = %s AND e.kind = 'breakage'
    """
    amount: Decimal = one(statement, customer)[0]
    return amount


def standing() -> dict[str, Decimal]:
    """What ana's grants have left, with what was broken of them; and her debt."""
    statement = """
        SELECT g.grant_id, g.amount, g.remaining - coalesce(sum(e.amount) FILTER (WHERE e.kind = 'breakage'), 0)
        FROM grants_remaining g JOIN wallets w USING (tenant_id, wallet_id)
        LEFT JOIN ledger_entries e
            ON e.tenant_id = g.tenant_id AND e.wallet_id = g.wallet_id AND e.grant_id = g.grant_id
        WHERE w.customer_id = 'ana' GROUP BY g.tenant_id, g.grant_id, g.amount, g.remaining
    """
    missing = {str(grant_id): amount - left for grant_id, amount, left in rows(statement)}
    return missing | {"debt": one("SELECT debt FROM wallets WHERE customer_id = 'ana' AND currency = 'USD'")[0]}


def lived(seed: int, *listed: NewPrice, before: Callable[[Life], None] = lambda _: None, steps: int = 30) -> Life:
    """So many steps, and then every mistake is voided, in any order."""
    set_up(*listed)
    a_customer("bob")
    life = Life(random.Random(seed))
    for _ in range(steps):
        life.step()
    before(life)
    life.chance.shuffle(life.mistakes)
    for key in life.mistakes:
        void(TENANT, f"ana-{key}", "a mistake", life.at)
    return life


@pytest.mark.parametrize("listed", [a_price("1"), FALLS, RISES], ids=["flat", "falls", "rises"])
@pytest.mark.parametrize("seed", range(4))
def test_a_wallet_is_what_it_would_have_been(seed: int, listed: NewPrice) -> None:
    """To the last place, with what was broken of grants whose time is over: an event may have spared another grant."""
    life = lived(seed, listed)

    assert life.mistakes
    assert wallet("ana") + broken("ana") == wallet("bob") + broken("bob")
    if not broken("ana") and not broken("bob"):
        assert wallet("ana") == wallet("bob")


@pytest.mark.parametrize("listed", [a_price("1"), FALLS, RISES], ids=["flat", "falls", "rises"])
@pytest.mark.parametrize("seed", range(10, 13))
def test_with_everything_voided_every_grant_is_whole_and_nothing_is_owed(seed: int, listed: NewPrice) -> None:
    life = lived(seed, listed)
    left = [key for key in life.events if key not in life.mistakes]
    life.chance.shuffle(left)

    for key in left:
        void(TENANT, f"ana-{key}", "a mistake", life.at)

    assert set(standing().values()) == {0}
    assert one("SELECT events FROM periods WHERE customer_id = 'ana'") == (0,)


@pytest.mark.parametrize("seed", range(20, 24))
def test_rated_again_on_the_way_it_is_all_the_same(seed: int) -> None:
    """Up and down, on ladders that rise and fall, some of them in no book: then everything is voided."""
    chance = random.Random(seed)

    def again(life: Life) -> None:
        for _ in range(4):
            tried = chance.choice([(a_price("2"),), (RISES,), (a_price("0.3"),), (FALLS,), None])
            rerate(Asked(TENANT, Span.month("2026-10"), tried), life.at, is_applied=True)
            life.give()

    life = lived(seed, FALLS, before=again, steps=20)
    assert wallet("ana") + broken("ana") == wallet("bob") + broken("bob")

    for key in life.events:
        if key not in life.mistakes:
            void(TENANT, f"ana-{key}", "a mistake", life.at)
    assert set(standing().values()) == {0}


def test_a_top_up_that_went_back_leaves_the_same_debt() -> None:
    """What was bought paid the debt of a mistake, and was taken back: without the mistake, nothing would be owed."""
    set_up()
    pays_with(GOOD)
    used = an_event("ana", [seconds(30)], key="k", occurred_at=OCTOBER)
    record_usage(an_envelope(used), OCTOBER)
    bought = request(TENANT, "ana", "USD", Offer(Decimal(50), 25_000, "BRL"), "t", OCTOBER)
    taken(bought.payment_id, OCTOBER + HOUR)
    assert wallet("ana") == 20

    void(TENANT, "k", "a mistake", OCTOBER + HOUR)

    assert wallet("ana") == 50
    assert set(standing().values()) == {0}
