"""Minor units of currencies, as Stripe takes them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.currencies import IN_THOUSANDTHS, WHOLE_IN_HUNDREDTHS, WITHOUT_MINOR, check_payable, in_major, in_minor
from billing.errors import Rejected


@pytest.mark.parametrize(
    ("currency", "thousand"),
    [("BRL", "10.00"), ("JPY", "1000"), ("KRW", "1000"), ("HUF", "10.00"), ("TWD", "10.00"), ("KWD", "1.000")],
)
def test_a_thousand_minor_units_are_so_much(currency: str, thousand: str) -> None:
    assert str(in_major(1000, currency)) == thousand


CURRENCIES = ["BRL", "USD", *sorted(WITHOUT_MINOR | IN_THOUSANDTHS | WHOLE_IN_HUNDREDTHS)]


@given(st.integers(0, 10**14), st.sampled_from(CURRENCIES))
def test_there_and_back_is_the_same(minor: int, currency: str) -> None:
    assert in_minor(in_major(minor, currency), currency) == minor


@pytest.mark.parametrize("said", ["0.005", "NaN", "Infinity", "1E+15"])
def test_what_is_no_amount_of_minor_units_is_none(said: str) -> None:
    assert in_minor(Decimal(said), "BRL") is None
    assert in_minor(Decimal("0.5"), "JPY") is None


@pytest.mark.parametrize("currency", ["KWD", "BHD", "JOD", "OMR", "TND", "ISK", "UGX"])
def test_nothing_is_collected_where_stripe_takes_only_some_amounts(currency: str) -> None:
    with pytest.raises(Rejected, match=f"nothing is collected in {currency}"):
        check_payable(currency)
    for payable in ("BRL", "USD", "JPY", "HUF", "TWD"):
        check_payable(payable)
