"""Exact numbers. Money and quantities are `Decimal`; no float comes near them.

Importing this module makes 60 digits the default of every thread (Python's own 28 would round a large sum
in silence); quantities have at most 30 digits and prices 24, so no product or sum loses one. The cost of a
line is rounded once, half-even, to 12 places.
"""

import decimal
from decimal import ROUND_HALF_EVEN, Decimal

from billing.currencies import in_major

COST_PLACES = 12
DIGITS = 60
ZERO = Decimal(0)

decimal.DefaultContext.prec = DIGITS
decimal.DefaultContext.rounding = ROUND_HALF_EVEN
decimal.setcontext(decimal.DefaultContext.copy())

_STEP = Decimal(1).scaleb(-COST_PLACES)


def as_cost(amount: Decimal) -> Decimal:
    """The amount rounded once, half-even, to 12 places.

    >>> as_cost(Decimal("0.0000000000005"))
    Decimal('0E-12')
    >>> as_cost(Decimal("0.0000000000015"))
    Decimal('2E-12')
    """
    return amount.quantize(_STEP, ROUND_HALF_EVEN)


def written(amount: Decimal) -> str:
    """The amount without exponent or trailing zeros, as people and JSON read it.

    >>> written(Decimal("0.150000000000"))
    '0.15'
    >>> written(Decimal("1E+3"))
    '1000'
    >>> written(Decimal("-0.00"))
    '0'
    """
    text = str(amount)
    if text.isdigit():  # whole numbers, as tokens are: by far the most
        return text
    if not amount:
        return "0"
    if "E" in text:
        text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def in_minor_units(amount_minor: int, currency: str) -> str:
    """An amount of minor units as people read it, with the places that the currency has.

    >>> in_minor_units(10000, "BRL"), in_minor_units(10000, "JPY")
    ('BRL 100.00', 'JPY 10000')
    """
    return f"{currency} {in_major(amount_minor, currency):f}"
