"""Postgres and Python agree on the order in which grants are burned."""

import random
from collections.abc import Iterator
from datetime import UTC, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.grants import Grant, Source, in_burn_order
from db import grants
from db.grants import NewGrant
from tests.db.valid_rows import NOW, OTHER_WALLET, WALLET, another, insert, stand

WALLETS = [("acme", WALLET), ("acme", OTHER_WALLET)]
EMPTY_WALLET = 3


@pytest.fixture(scope="module")
def granted_database(shared_database: str) -> str:
    """Two wallets with grants of few priorities and ends, so that many are equal in both; a third has ended."""
    chance = random.Random(7)
    new = []
    for number in range(120):
        ends_at = chance.choice([None, *[NOW + timedelta(days=day) for day in range(3)]])
        ids = ("acme", UUID(int=chance.getrandbits(128)), chance.choice([WALLET, OTHER_WALLET]))
        kind = (chance.choice(list(Source)), chance.choice([0, 10, 20, 1000]))
        ended_at = chance.choice([None, None, NOW])
        amounts = (Decimal(2), Decimal(0))
        new.append(NewGrant(*ids, *kind, *amounts, None, ends_at, ends_at, f"number {number}", None, None, ended_at))
    with psycopg.connect(shared_database) as connection:
        stand(connection)
        insert(connection, "wallets", another("wallets", currency="EUR"))
        grants.add(connection, new, NOW)
    return shared_database


@pytest.fixture
def granted(granted_database: str) -> Iterator[psycopg.Connection]:
    """A transaction on it, rolled back with the test."""
    with psycopg.connect(granted_database) as connection:
        yield connection
        connection.rollback()


#: What the wallets keep is of no matter to the order.
KEPT = dict.fromkeys(WALLETS, grants.NONE_OPEN)


def in_order(found: dict[tuple[str, int], list[Grant]]) -> dict[tuple[str, int], list[Grant]]:
    """The same grants, shuffled, and put in order by the rule."""
    chance = random.Random(8)
    return {key: in_burn_order(chance.sample(some, len(some))) for key, some in found.items()}


@pytest.mark.parametrize("with_ended", [False, True])
def test_grants_come_in_the_order_of_the_rule(granted: psycopg.Connection, with_ended: bool) -> None:
    found = grants.read(granted, KEPT, with_ended=with_ended)

    assert found == in_order(found)
    assert list(found) == WALLETS
    assert min(len(some) for some in found.values()) > 20


def test_those_that_have_ended_are_read_when_asked_for(granted: psycopg.Connection) -> None:
    every, open_ones = (grants.read(granted, KEPT, with_ended=with_ended) for with_ended in (True, False))
    ended = {str(one) for (one,) in granted.execute("SELECT grant_id FROM credit_grants WHERE ended_at IS NOT NULL")}

    assert ended
    assert open_ones == {key: [one for one in some if one.grant_id not in ended] for key, some in every.items()}


def test_grants_written_together_are_numbered_in_their_order(granted: psycopg.Connection) -> None:
    """Their age decides between equals."""
    ids = [UUID(int=number) for number in (9, 7, 8)]
    rest = ("promo", 20, Decimal(1), Decimal(0), None, None, None, "", None, None, None)
    new = [NewGrant("acme", one, EMPTY_WALLET, *rest) for one in ids]

    numbers = grants.add(granted, new, NOW)

    [found] = grants.read(granted, {("acme", EMPTY_WALLET): grants.NONE_OPEN}, with_ended=False).values()
    assert [grant.grant_id for grant in found] == [str(one) for one in ids]
    assert numbers == {grant.grant_id: grant.number for grant in found}


VALUES = st.decimals(min_value=0, max_value=10**20, places=12, allow_nan=False, allow_infinity=False)
MOMENTS = st.none() | st.datetimes(timezones=st.just(UTC))


@given(st.lists(st.builds(Grant, st.uuids().map(str), VALUES, MOMENTS, MOMENTS, st.integers(0, 1000), st.integers(1))))
def test_what_a_wallet_keeps_is_read_as_it_was_written(some: list[Grant]) -> None:
    """Without those that have nothing left."""
    assert grants.opened(grants.as_kept(some)) == [one for one in some if one.remaining]


def test_the_view_says_what_remains(granted: psycopg.Connection) -> None:
    """For those who ask in SQL: what the wallet keeps, and nothing of what has ended."""
    every = grants.read(granted, KEPT, with_ended=True)["acme", WALLET]
    for number, grant in enumerate(every):
        grant.remaining = Decimal(number % 3) / 7
    granted.execute("UPDATE wallets SET open_grants = %s WHERE wallet_id = %s", (grants.as_kept(every), WALLET))

    shown = granted.execute("SELECT grant_id::text, remaining FROM grants_remaining WHERE wallet_id = %s", (WALLET,))

    assert dict(shown.fetchall()) == {grant.grant_id: grant.remaining for grant in every}
