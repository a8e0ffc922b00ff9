"""Exact numbers, in every thread."""

import threading
from decimal import Decimal, getcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import as_cost, in_minor_units, written
from tests.billing.made import rounded


@pytest.mark.parametrize(
    ("exact", "kept"),
    [
        ("0.0000000000004999", "0"),
        ("0.0000000000005", "0"),
        ("0.0000000000005000001", "0.000000000001"),
        ("0.0000000000015", "0.000000000002"),
        ("0.0000000000025", "0.000000000002"),
        ("123456789012345678.0000000000005", "123456789012345678"),
    ],
)
def test_a_cost_is_rounded_half_to_even_at_twelve_places(exact: str, kept: str) -> None:
    assert as_cost(Decimal(exact)) == Decimal(kept)


@given(st.decimals(-(10**24), 10**24, places=20))
def test_rounding_agrees_with_fractions(amount: Decimal) -> None:
    assert as_cost(amount) == rounded(Fraction(amount))


def test_a_thread_that_starts_now_has_sixty_digits_too() -> None:
    """Python gives each new thread 28 digits unless the default is moved; a large balance would be rounded."""
    found: list[object] = []
    big, small = Decimal(10) ** 26, Decimal("0.000000000001")
    thread = threading.Thread(target=lambda: found.extend([getcontext().prec, big + small - big]))

    thread.start()
    thread.join()

    assert found == [60, small]
    assert (getcontext().prec, big + small - big) == (60, small)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**18), max_value=10**18))
def test_what_is_written_reads_back_as_the_same_number(amount: Decimal) -> None:
    text = written(amount)

    assert Decimal(text) == amount
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize("nothing", ["0", "-0", "0.000", "-0.0", "0E+3", "0E-12"])
def test_nothing_is_written_in_one_way(nothing: str) -> None:
    assert written(Decimal(nothing)) == "0"


def test_minor_units_are_shown_as_people_write_them() -> None:
    assert in_minor_units(10_000, "JPY") == "JPY 10000"
    assert [in_minor_units(n, "BRL") for n in (1, 10_000, 40_000, 99_999_999)] == [
        "BRL 0.01",
        "BRL 100.00",
        "BRL 400.00",
        "BRL 999999.99",
    ]
