"""Debits go through wallets one after the other, and nothing is lost between them."""

from decimal import Decimal
from itertools import accumulate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from billing.charging import Charge, Tally, count, debit, debits_of
from billing.grants import Grant, Standing
from billing.periods import Period, calendar_month
from billing.rating import Rated
from tests.billing.made import BEGAN, PREPAID, an_event

PERIOD = Period(*calendar_month(BEGAN, "UTC"), "prepaid", 1)
costs = st.decimals(0, 10**12, places=12)


def a_tally(customer_id: str = "ana") -> Tally:
    return Tally("acme", customer_id, PERIOD, PREPAID)


def a_charge(
    number: int, cost: Decimal, wallet_id: int | None, *, tokens: int = 0, tally: Tally | None = None
) -> Charge:
    rated = Rated((), tokens, cost, "USD" if wallet_id else None)
    return Charge(an_event(key=str(number)), rated, tally or a_tally(), False, wallet_id, ((1, 0), (2, 0)))


@given(st.lists(st.tuples(costs, st.sampled_from([1, 2, None])), max_size=30), costs, st.integers(0, 10**9))
def test_value_is_conserved(asked: list[tuple[Decimal, int | None]], balance: Decimal, last_seq: int) -> None:
    """What left each wallet is what its charges cost, and the places tell the way of the balance."""
    wallets = {
        ("acme", 1): Standing(balance, last_seq, grants=[Grant("welcome", balance)]),
        ("acme", 2): Standing(Decimal(0), 0),
    }

    debits = debits_of([a_charge(n, cost, wallet) for n, (cost, wallet) in enumerate(asked)])
    places = debit(debits, wallets)

    entries = list(zip(debits, places, strict=True))
    for wallet_id, before, seq in ((1, balance, last_seq), (2, Decimal(0), 0)):
        wallet = wallets["acme", wallet_id]
        owed = [(str(n), cost) for n, (cost, paid_by) in enumerate(asked) if paid_by == wallet_id and cost]
        mine = [(one, place) for one, place in entries if one.wallet_id == wallet_id]
        assert [(one.event_key, one.cost) for one, _ in mine] == owed
        balances = list(accumulate([-cost for _, cost in owed], initial=before))
        assert [place[:2] for _, place in mine] == list(enumerate(balances[1:], start=seq + 1))
        assert (wallet.balance, wallet.last_seq, wallet.spent) == (balances[-1], seq + len(owed), before - balances[-1])
        assert sum(grant.remaining for grant in wallet.grants) - wallet.debt == wallet.balance


@given(st.lists(costs, max_size=12), st.randoms())
def test_the_order_of_charges_does_not_change_the_sum(asked: list[Decimal], chance: Any) -> None:
    """Usage goes into debt rather than being refused, so no order is better than another."""
    charges = [a_charge(n, cost, 1) for n, cost in enumerate(asked)]
    shuffled = list(charges)
    chance.shuffle(shuffled)
    balances = []
    for order in (charges, shuffled):
        wallet = Standing(Decimal(1), 0)
        debit(debits_of(order), {("acme", 1): wallet})
        balances.append(wallet.balance)

    assert balances[0] == balances[1] == 1 - sum(asked, Decimal(0))


def test_what_costs_nothing_is_no_debit() -> None:
    assert debits_of([a_charge(1, Decimal(0), 1), a_charge(2, Decimal(7), None)]) == []


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from(["ana", "bob", "eve"])), max_size=20))
def test_each_charge_is_counted_once_in_its_tally(used: list[tuple[int, str]]) -> None:
    """A customer whose events were all known already has a tally, too, in which nothing is counted."""
    tallies = {name: a_tally(name) for name in ("ana", "bob", "eve")}
    charges = [a_charge(n, Decimal(0), None, tokens=t, tally=tallies[name]) for n, (t, name) in enumerate(used)]

    counted = count(charges)

    assert [tally.customer_id for tally in counted] == list(dict.fromkeys(name for _, name in used))
    for tally in tallies.values():
        mine = [tokens for tokens, name in used if name == tally.customer_id]
        assert (tally.tokens, tally.events) == (sum(mine), len(mine))
