"""JSON that rows keep, read back. What was kept before there was a bound on its numbers must not stop anybody."""

import json
from decimal import Decimal
from typing import Any

#: Python reads 4,300 digits as an int, and raises above that.
INT_DIGITS_MAX = 100


def read(text: str | bytes) -> Any:
    """A document of ours, with floats."""
    return json.loads(text, parse_int=_whole)


def read_exactly(text: str | bytes) -> Any:
    """A document of ours; fractions are `Decimal`, by their own digits."""
    return json.loads(text, parse_int=_whole, parse_float=Decimal)


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= INT_DIGITS_MAX else Decimal(digits)
