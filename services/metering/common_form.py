"""Reading events in the form in which nearly all come, in a fifth of the time that the SDK's own model takes.

The SDK's `UsageEvent` stays the contract: what is read here, it would read to the very same values, and what is
not (a rarer spelling, a bound that is broken) is left to it, to read or to explain. A property test holds the
two together.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from centavo.events import (
    IDENTIFIER_CHARACTERS_MAX,
    ITEMS_MAX,
    KEY_CHARACTERS_MAX,
    METADATA_BYTES_MAX,
    METADATA_DIGITS_MAX,
    MODEL_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    QUANTITY_PLACES_MAX,
    TEXT_CHARACTERS_MAX,
    WHOLE_DIGITS_MAX,
)

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
_Model = Annotated[str, Meta(min_length=1, max_length=MODEL_CHARACTERS_MAX)]
_Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_CHARACTERS_MAX)]
_Key = Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_MAX)]
_Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]

#: Metadata that is written anew can take more bytes than it came in, but never four times as many.
_BYTES_MAX = METADATA_BYTES_MAX // 4
#: The contract refuses metadata that is nested deeper than 255.
_BRACKETS_MAX = 200
_FRACTION = re.compile(rf"\d+\.\d{{1,{QUANTITY_PLACES_MAX}}}", re.ASCII)
_WHOLE_END = 10**METADATA_DIGITS_MAX
#: A whole number is too long only where so many digits stand together.
_LONG = b"0" * (METADATA_DIGITS_MAX + 1)
_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"000000000")
_NUL = b"\\u0000"
_DATE_CHARACTERS = len("2026-11-20")
_TIME_CHARACTERS_MIN = len("2026-11-20T15:04Z")


class Item(msgspec.Struct):
    """One component of an event; see `centavo.Item`."""

    category: str
    provider: str
    model: str
    unit: str
    quantity: Decimal


class Event(msgspec.Struct):
    """A usage event; see `centavo.UsageEvent`."""

    tenant_id: str
    customer_id: str
    key: str
    occurred_at: datetime
    items: tuple[Item, ...]
    user_id: str | None
    organization_id: str | None
    client_id: str | None
    session_id: str | None
    message_id: str | None
    feature: str | None
    service_type: str | None
    operation: str | None
    reference: str | None
    reason: str | None
    hold_id: str | None
    metadata: dict[str, Any] | None


class _SaidItem(msgspec.Struct, forbid_unknown_fields=True):
    category: _Name
    provider: _Name
    model: _Model
    unit: _Name
    quantity: Annotated[str, Meta(min_length=1, max_length=WHOLE_DIGITS_MAX)]


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """An event as JSON has it: quantities and the time are text."""

    tenant_id: _Name
    customer_id: _Identifier
    key: _Key
    occurred_at: Annotated[str, Meta(min_length=_TIME_CHARACTERS_MIN)]
    items: Annotated[list[_SaidItem], Meta(min_length=1, max_length=ITEMS_MAX)]
    user_id: _Identifier | None = None
    organization_id: _Identifier | None = None
    client_id: _Identifier | None = None
    session_id: _Identifier | None = None
    message_id: _Identifier | None = None
    feature: _Identifier | None = None
    service_type: _Name | None = None
    operation: _Identifier | None = None
    reference: _Text | None = None
    reason: _Text | None = None
    hold_id: _Identifier | None = None
    metadata: dict[str, Any] | None = None


def _fraction(text: str) -> Decimal:
    """From its own digits, as for the SDK's model; whether those are too many is left to that, if they may be."""
    if len(text) > METADATA_DIGITS_MAX or "e" in text or "E" in text:
        raise ValueError
    return Decimal(text)


def _may_be_refused(metadata: dict[str, Any], raw: bytes) -> bool:
    """Whether it may be nested too deep, or hold a whole number that is too long; nearly all metadata is flat."""
    for value in metadata.values():
        kind = type(value)
        if kind is int:
            if not -_WHOLE_END < value < _WHOLE_END:
                return True
        elif kind is dict or kind is list:
            return raw.count(b"[") + raw.count(b"{") > _BRACKETS_MAX or _LONG in raw.translate(_DIGITS_AS_0)
    return False


_decode = msgspec.json.Decoder(_Said, float_hook=_fraction).decode


def read(raw: bytes) -> Event | None:
    """The event that these bytes describe, or None: then the SDK's model must look at them."""
    if len(raw) > _BYTES_MAX or _NUL in raw:
        return None
    try:
        said = _decode(raw)
        occurred_at = datetime.fromisoformat(said.occurred_at)
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError):
        return None
    if said.metadata and _may_be_refused(said.metadata, raw):
        return None
    if occurred_at.tzinfo is not UTC or said.occurred_at[_DATE_CHARACTERS] != "T":
        return None
    items = []
    for item in said.items:
        quantity = item.quantity
        if not (quantity.isdigit() and quantity.isascii()) and not _FRACTION.fullmatch(quantity):
            return None
        items.append(Item(item.category, item.provider, item.model, item.unit, Decimal(quantity)))
    return Event(
        said.tenant_id,
        said.customer_id,
        said.key,
        occurred_at,
        tuple(items),
        said.user_id,
        said.organization_id,
        said.client_id,
        said.session_id,
        said.message_id,
        said.feature,
        said.service_type,
        said.operation,
        said.reference,
        said.reason,
        said.hold_id,
        said.metadata,
    )
