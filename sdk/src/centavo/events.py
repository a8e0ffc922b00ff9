"""The wire contract: what a producer says about usage, and what the worker believes.

One definition serves both ends. Producers build `UsageEvent`; the worker validates what arrives with the
same class, so nothing is accepted there that could not have been built here. `docs/wire-format.md` says
the same in words, for producers in other languages.
"""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json, to_jsonable_python

from centavo.ids import uuid7

WIRE_VERSION = 1
ITEMS_MAX = 64
METADATA_BYTES_MAX = 16 * 1024
#: Of a number in metadata, written out without an exponent, before and after the point together. A database writes
#: numbers out, and readers take the digits: a few bytes such as 1e131071 would become a hundred thousand. 40 have room
#: for any quantity, for a number of 128 bits and for every float that people write.
METADATA_DIGITS_MAX = 40
QUANTITY_DIGITS_MAX = 30
QUANTITY_PLACES_MAX = 12
WHOLE_DIGITS_MAX = QUANTITY_DIGITS_MAX - QUANTITY_PLACES_MAX
NAME_CHARACTERS_MAX = 64
MODEL_CHARACTERS_MAX = 128
IDENTIFIER_CHARACTERS_MAX = 128
KEY_CHARACTERS_MAX = 255
TEXT_CHARACTERS_MAX = 255
_WHOLE_MAX = 10**WHOLE_DIGITS_MAX
_METADATA_WHOLE_MAX = 10**METADATA_DIGITS_MAX

_MESSAGE_NAMESPACE = uuid.UUID("6d3f0c0e-6f0a-5f6e-9a64-0c5e2f1f7a11")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NO_NUL = r"^[^\x00]*$"
_TIME_CHARACTERS_MIN = len("2026-11-20T15:04Z")
_NOT_A_TIME = PydanticCustomError("occurred_at", "a time is text such as 2026-11-20T15:04:05.123Z, with its zone")


def _exact_number(value: object, bounded: ValidatorFunctionWrapHandler) -> Decimal:
    """Floats become the decimal a person would read; text must be a plain number.

    Whole numbers, which nearly all are, are within every bound by their length: they take the short way.
    """
    if type(value) is int and 0 <= value < _WHOLE_MAX:
        return Decimal(value)
    if isinstance(value, str):
        if len(value) <= WHOLE_DIGITS_MAX and value.isdigit() and value.isascii():
            return Decimal(value)
        if not _NUMBER.fullmatch(value):
            raise PydanticCustomError("quantity", "a quantity is a plain decimal number such as 45.5")
    if isinstance(value, float):
        value = Decimal(repr(value))
    number: Decimal = bounded(value)
    return number


def _lacking(given: Mapping[str, Any]) -> list[InitErrorDetails]:
    """What no event on the wire may be without, and this one is."""
    return [
        InitErrorDetails(type="missing", loc=(name,), input=None)
        for name in ("key", "occurred_at")
        if name not in given
    ]


def _moment(value: object, aware: ValidatorFunctionWrapHandler) -> datetime:
    """A time as text, with date, time and zone; in UTC afterwards.

    Text goes to the standard library, in half of pydantic's time; what it can't read is explained by pydantic,
    which would take a number of seconds, too.
    """
    if isinstance(value, str):
        if len(value) < _TIME_CHARACTERS_MIN or value[10] not in "Tt ":
            raise _NOT_A_TIME
        try:  # noqa: SIM105 - suppress() would cost as much as the parsing
            value = datetime.fromisoformat(value)
        except ValueError:
            pass
    elif not isinstance(value, datetime):
        raise _NOT_A_TIME
    moment: datetime = value if type(value) is datetime and value.tzinfo is UTC else aware(value)
    try:
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("occurred_at", "this time has no place in the UTC calendar") from None


def _bounded_json(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    if metadata is None:
        return None
    written = to_json(metadata)
    if len(written) > METADATA_BYTES_MAX:
        raise PydanticCustomError(
            "metadata",
            "metadata takes {size} bytes as JSON; at most {limit} are kept",
            {"size": len(written), "limit": METADATA_BYTES_MAX},
        )
    if b"\\u0000" in written:
        raise PydanticCustomError("metadata", "metadata holds a NUL character, which no database text can keep")
    if holds_long_number(metadata):
        raise PydanticCustomError(
            "metadata",
            "metadata holds a number that has more than {limit} digits when it is written out; send it as text",
            {"limit": METADATA_DIGITS_MAX},
        )
    return metadata


def holds_long_number(value: object) -> bool:
    """Whether a number in it has more digits, written out, than metadata may have.

    >>> [holds_long_number({"a": [number]}) for number in (10**39, 1e-20, Decimal("1E+5000"))]
    [False, False, True]
    """
    match value:
        case None | str() | bool():
            return False
        case dict():
            return any(map(holds_long_number, value.values()))
        case list() | tuple():
            return any(map(holds_long_number, value))
        case int():
            return not -_METADATA_WHOLE_MAX < value < _METADATA_WHOLE_MAX
        case float() | Decimal():
            return _is_long(value if isinstance(value, Decimal) else Decimal(repr(value)))
    return holds_long_number(to_jsonable_python(value))


def _is_long(number: Decimal) -> bool:
    if not number.is_finite():
        return False  # it goes as null, or as text
    _, digits, exponent = number.as_tuple()
    places = -int(exponent)
    return max(len(digits) - places, 1) + max(places, 0) > METADATA_DIGITS_MAX


def _text(longest: int) -> Any:
    return Field(min_length=1, max_length=longest, pattern=_NO_NUL)


Name = Annotated[str, _text(NAME_CHARACTERS_MAX)]
Model = Annotated[str, _text(MODEL_CHARACTERS_MAX)]
Identifier = Annotated[str, _text(IDENTIFIER_CHARACTERS_MAX)]
Key = Annotated[str, _text(KEY_CHARACTERS_MAX)]
Text = Annotated[str, _text(TEXT_CHARACTERS_MAX)]
Quantity = Annotated[
    Decimal,
    Field(ge=0, max_digits=QUANTITY_DIGITS_MAX, decimal_places=QUANTITY_PLACES_MAX, allow_inf_nan=False),
    WrapValidator(_exact_number),
]
Moment = Annotated[AwareDatetime, WrapValidator(_moment)]
Metadata = Annotated[dict[str, Any] | None, AfterValidator(_bounded_json)]


class Item(BaseModel):
    """One component of an event: so much of a unit, of a model of a provider.

    `category` says what kind of work it was (`llm_prompt`, `llm_completion`, `stt`, `tts`, `telephony`, …),
    `unit` how it is counted (`token`, `second`, `character`, `minute`, `message`). A quantity is never
    negative, has at most 30 digits, 12 of them after the point.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: Name
    provider: Name
    model: Model
    unit: Name
    quantity: Quantity


class UsageEvent(BaseModel):
    """What was used, by whom, and when; charged once for its `key`, however often it is sent.

    The key and the time are fixed when the event is made, so that every retry is the same event. Raises
    `pydantic.ValidationError`, naming each wrong field, when a bound is broken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant_id: Name
    customer_id: Identifier
    key: Key = Field(default_factory=lambda: str(uuid7()))
    occurred_at: Moment = Field(default_factory=lambda: datetime.now(UTC))
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=ITEMS_MAX)]
    user_id: Identifier | None = None
    organization_id: Identifier | None = None
    client_id: Identifier | None = None
    session_id: Identifier | None = None
    message_id: Identifier | None = None
    feature: Identifier | None = None
    service_type: Name | None = None
    operation: Identifier | None = None
    reference: Text | None = None
    reason: Text | None = None
    hold_id: Identifier | None = None
    metadata: Metadata = None

    @classmethod
    def for_message(cls, *, message_id: str, customer_id: str, **fields: Any) -> Self:
        """An event whose key follows from message and customer: sent twice, it is charged once.

        Use it when the code after a model call may run again for the same message, and hand over the time of the
        message as `occurred_at`: without it the time is now, and a second run says something else under the
        same key, which is parked as a conflict (the first is charged).
        """
        key = uuid.uuid5(_MESSAGE_NAMESPACE, f"{len(customer_id)}:{customer_id}:{message_id}")
        return cls(key=str(key), message_id=message_id, customer_id=customer_id, **fields)

    def to_wire(self) -> bytes:
        """This event as the JSON object that travels in an envelope; absent fields are left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> Self:
        """The event that a decoded JSON object describes. Decode fractions to `Decimal`, never to float.

        Key and time must be there: made up here, they would be others each time the event comes, and it would
        be charged each time. Raises `pydantic.ValidationError`.
        """
        if "key" not in fields or "occurred_at" not in fields:
            raise ValidationError.from_exception_data(cls.__name__, _lacking(fields))
        event: Self = cls.__pydantic_validator__.validate_python(fields)
        return event
