"""What the fields of requests and answers are made of."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from billing.money import COST_PLACES, written
from centavo.events import Text
from services.cursors import CURSOR_CHARACTERS_MAX
from services.desk.history import PAGE, PAGE_MAX

DIGITS_MAX = 38
_NUMBER = re.compile(r"-?\d{1,38}(\.\d{1,38})?", re.ASCII)
_PATTERN = r"^-?\d+(\.\d+)?$"


def _exact(value: object) -> Decimal:
    """A number from text, or from JSON's own digits: a body is read without floats (`api.routes`)."""
    match value:
        case Decimal():
            return value
        case str() if _NUMBER.fullmatch(value):
            return Decimal(value)
        case int() if not isinstance(value, bool):
            return Decimal(value)
    raise PydanticCustomError("decimal", 'a decimal is text such as "12.50"')


def _decimal(example: str) -> Any:
    return WithJsonSchema({"type": "string", "pattern": _PATTERN, "examples": [example]})


Number = Annotated[Decimal, PlainSerializer(written, return_type=str), _decimal("12.5")]
"""A decimal of an answer: text, without exponent or trailing zeros."""

Amount = Annotated[
    Decimal,
    BeforeValidator(_exact),
    Field(max_digits=DIGITS_MAX, decimal_places=COST_PLACES, allow_inf_nan=False),
    PlainSerializer(written, return_type=str),
    _decimal("100.00"),
]
"""A decimal of a request: text, with 12 places at most. A JSON number is taken by its digits."""

UnitPrice = Annotated[
    Decimal,
    BeforeValidator(_exact),
    Field(ge=0, max_digits=24, decimal_places=18, allow_inf_nan=False),
    PlainSerializer(written, return_type=str),
    _decimal("0.002"),
]
"""A price of a request: text, with 18 places at most."""

Currency = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Z]{3}|CREDIT)$"),
    Field(description="An ISO currency, or CREDIT.", examples=["USD"]),
]
PaymentCurrency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["BRL"])]

#: Moments of a query, with their zone; those that a calendar can't move between zones are no moments here.
Since = Annotated[
    datetime | None,
    Query(
        description="From then on, with its zone. 31 days before `until` if left out.",
        examples=["2026-11-01T00:00:00Z"],
    ),
]
Until = Annotated[
    datetime | None,
    Query(description="Before this, with its zone. If left out: now.", examples=["2026-12-01T00:00:00Z"]),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Rows of a page.")]
Cursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=CURSOR_CHARACTERS_MAX + 64,
        pattern=r"^[A-Za-z0-9_~-]*$",
        description="`next` of the page before; good for the very same question alone.",
    ),
]
PAGE_ROWS = PAGE


class Answer(BaseModel):
    """What an answer is made of. Its fields are read from values of the services."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")


class Asking(BaseModel):
    """What a request is made of: nothing but what is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Asking):
    """Nothing more is to be said."""

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{}]}}


class Why(Asking):
    """The reason, as it is written into the trail."""

    reason: Text

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"reason": "sent by mistake"}]}}
