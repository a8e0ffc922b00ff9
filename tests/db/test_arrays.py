"""Arrays that we build ourselves arrive as what was put in: Postgres is asked."""

import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db import arrays

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
long_text = st.integers(1020, 1030).map(lambda length: "x" * length)
moments = st.integers(-63_082_281_600_000_000, 252_455_615_999_999_999).map(
    lambda micros: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
)
exact = st.decimals(-(10**26) + 1, 10**26 - 1, places=12) | st.sampled_from(
    [Decimal(written) for written in ("0", "-0", "0E-12", "1E-12", "1E+20", "-1.50")]
)


@pytest.fixture(scope="module")
def asked(shared_database: str) -> Iterator[psycopg.Connection]:
    """A connection that only ever answers what it was given."""
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


def echoed(connection: psycopg.Connection, array: object, kind: str) -> list[Any]:
    """The elements as the server reads them, in the order it unnests them."""
    statement = f"SELECT element FROM unnest(%b::{kind}) WITH ORDINALITY AS u(element, place) ORDER BY place"
    return [element for (element,) in connection.execute(statement.encode(), (array,), binary=True)]


@settings(max_examples=50)
@given(values=st.lists(st.none() | text | long_text, max_size=20))
def test_texts(asked: psycopg.Connection, values: list[str | None]) -> None:
    assert echoed(asked, arrays.texts(values), "text[]") == values


@settings(max_examples=50)
@given(value=st.none() | text | long_text, times=st.integers(1, 1100))
def test_a_text_that_is_the_same_in_every_row(asked: psycopg.Connection, value: str | None, times: int) -> None:
    assert echoed(asked, arrays.texts([value] * times), "text[]") == [value] * times


@settings(max_examples=20)
@given(value=st.none() | moments, times=st.integers(1, 100))
def test_a_moment_that_is_the_same_in_every_row(asked: psycopg.Connection, value: datetime | None, times: int) -> None:
    assert echoed(asked, arrays.optional_moments([value] * times), "timestamptz[]") == [value] * times


@settings(max_examples=50)
@given(values=st.lists(st.binary(max_size=2000), max_size=10))
def test_bytes(asked: psycopg.Connection, values: list[bytes]) -> None:
    assert echoed(asked, arrays.byteas(values), "bytea[]") == values


@settings(max_examples=50)
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_whole_numbers(asked: psycopg.Connection, values: list[int]) -> None:
    assert echoed(asked, arrays.bigints(values), "bigint[]") == values


@settings(max_examples=50)
@given(values=st.lists(st.booleans(), max_size=20))
def test_truths(asked: psycopg.Connection, values: list[bool]) -> None:
    assert echoed(asked, arrays.booleans(values), "boolean[]") == values


@settings(max_examples=50)
@given(values=st.lists(moments, max_size=20))
def test_moments_to_the_microsecond(asked: psycopg.Connection, values: list[datetime]) -> None:
    assert echoed(asked, arrays.moments(values), "timestamptz[]") == values


@settings(max_examples=50)
@given(values=st.lists(st.none() | moments, max_size=20))
def test_moments_that_may_be_missing(asked: psycopg.Connection, values: list[datetime | None]) -> None:
    assert echoed(asked, arrays.optional_moments(values), "timestamptz[]") == values


@settings(max_examples=100)
@given(values=st.lists(exact, max_size=20))
def test_exact_numbers_keep_every_digit(asked: psycopg.Connection, values: list[Decimal]) -> None:
    assert echoed(asked, arrays.numerics(values), "text[]::numeric(38,12)[]") == values


def test_a_number_too_large_for_its_column_is_an_error_and_not_another_number(asked: psycopg.Connection) -> None:
    with pytest.raises(struct.error):
        arrays.bigints([2**63])
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        echoed(asked, arrays.numerics([Decimal(10) ** 26]), "text[]::numeric(38,12)[]")


@settings(max_examples=50)
@given(values=st.lists(st.dates(), max_size=20))
def test_dates(asked: psycopg.Connection, values: list[date]) -> None:
    assert echoed(asked, arrays.dates(values), "date[]") == values
