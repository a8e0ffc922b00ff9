"""Opening an envelope: events that can be believed, and the bytes of those that can't."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from billing.errors import EnvelopeMalformed, EventMalformed
from billing.events import Event
from billing.rating import ParkReason
from centavo import UsageEvent
from services.metering import common_form
from services.metering.splitting import beginning, split_envelope
from services.showing import VALUE_CHARACTERS_MAX, readable, shown

ERRORS_SHOWN = 5
#: Above what an event can have, all of whose characters are escaped: 384 KB, 246 of them items, 98 metadata. What is
#: larger is not read: a list of a million empty objects is three megabytes of text, and a hundred in memory.
EVENT_BYTES_MAX = 512 * 1024


class Received(msgspec.Struct, frozen=True):
    """A well-formed event, with the bytes it came as."""

    event: Event
    raw: bytes


@dataclass(frozen=True, slots=True)
class Unusable:
    """Bytes that are no usage event, with the reason, and what can still be read of them."""

    raw: bytes
    reason: ParkReason
    detail: str
    tenant_id: str | None = None
    customer_id: str | None = None
    key: str | None = None

    @property
    def input_hash(self) -> bytes:
        return sha256(self.raw).digest()


@dataclass(frozen=True, slots=True)
class Opened:
    """What an envelope held."""

    received: list[Received]
    unusable: list[Unusable]


# Fractions become Decimal from their own digits: a float would change the 18th in silence.
_fields = msgspec.json.Decoder(float_hook=Decimal)


def open_envelope(text: str | bytes, bytes_max: int) -> Opened:
    """Every event of an envelope, or its bytes and why not. Never raises for what is in it."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        pieces = split_envelope(raw, bytes_max)
    except EnvelopeMalformed as error:
        return Opened([], [Unusable(raw, ParkReason.ENVELOPE_MALFORMED, error.detail)])
    return read_events(pieces)


def read_events(pieces: Iterable[bytes]) -> Opened:
    """The events that these bytes describe, and those bytes that describe none."""
    received, unusable = [], []
    for piece in pieces:
        try:
            received.append(Received(read_event(piece), piece))
        except EventMalformed as error:
            unusable.append(Unusable(piece, ParkReason.EVENT_MALFORMED, error.detail, **_hints(piece)))
    return Opened(received, unusable)


def read_event(raw: bytes) -> Event:
    """The event that these bytes describe. Raises `EventMalformed`, which says what is wrong with each field."""
    return common_form.read(raw) or read_by_contract(raw)


def read_by_contract(raw: bytes) -> UsageEvent:
    """The same by the SDK's own model: it reads every spelling, and explains what it refuses."""
    if len(raw) > EVENT_BYTES_MAX:
        raise EventMalformed(f"it has {len(raw)} bytes; at most {EVENT_BYTES_MAX} are read (got {beginning(raw)})")
    try:
        fields = _fields.decode(raw)
    except ArithmeticError as error:
        raise EventMalformed("it holds a number with an exponent that no number here has") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise EventMalformed(f"not JSON that can be read: {readable(str(error))}") from error
    if not isinstance(fields, dict):
        raise EventMalformed(f"an event is a JSON object, not {shown(fields)}")
    try:
        return UsageEvent.from_wire(fields)
    except ValidationError as error:
        raise EventMalformed(_explained(error)) from error


def _hints(raw: bytes) -> dict[str, str]:
    """Whose event this may be, as far as it can be read: for the list of what is parked."""
    return dict(_readable(raw, ("tenant_id", "customer_id", "key")))


def _readable(raw: bytes, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if len(raw) > EVENT_BYTES_MAX:
        return
    try:
        fields: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return
    for name in names:
        value = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, str) and value and value.isprintable():
            yield name, value[:VALUE_CHARACTERS_MAX]


def _explained(error: ValidationError) -> str:
    problems = _innermost(error.errors(include_url=False, include_context=False))
    said = [
        f"{'.'.join(map(str, problem['loc'])) or 'event'}: {problem['msg']} (got {shown(problem['input'])})"
        for problem in problems[:ERRORS_SHOWN]
    ]
    more = len(problems) - ERRORS_SHOWN
    return readable("; ".join(said) + (f"; and {more} more" if more > 0 else ""))


def _innermost(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without those that only say that something inside them is wrong: "items is too short", for a bad item."""
    inside = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["loc"] not in inside]
