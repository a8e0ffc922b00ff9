"""Opening an envelope: events that can be believed, and the bytes of those that can't."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
from pydantic import ValidationError

from billing.errors import EnvelopeMalformed, EventMalformed
from billing.rating import ParkReason
from centavo import UsageEvent
from centavo.events import WIRE_VERSION

#: What a person is shown of a wrong value.
SHOWN_CHARACTERS = 200
ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed event, with the bytes it came as."""

    event: UsageEvent
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


class _Envelope(msgspec.Struct):
    v: int
    events: list[msgspec.Raw]


_envelope = msgspec.json.Decoder(_Envelope)
# Fractions become Decimal from their own digits: a float would change the 18th in silence.
_fields = msgspec.json.Decoder(float_hook=Decimal)


def open_envelope(text: str | bytes, bytes_max: int) -> Opened:
    """Every event of an envelope, or its bytes and why not. Never raises for what is in it."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        pieces = _split(raw, bytes_max)
    except EnvelopeMalformed as error:
        return Opened([], [Unusable(raw, ParkReason.ENVELOPE_MALFORMED, error.detail)])
    received, unusable = [], []
    for piece in pieces:
        try:
            received.append(Received(read_event(piece), piece))
        except EventMalformed as error:
            unusable.append(Unusable(piece, ParkReason.EVENT_MALFORMED, error.detail, **_hints(piece)))
    return Opened(received, unusable)


def read_event(raw: bytes) -> UsageEvent:
    """The event that these bytes describe. Raises `EventMalformed`, which says what is wrong with each field."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventMalformed(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise EventMalformed(f"an event is a JSON object, not {_shown(fields)}")
    try:
        return UsageEvent.from_wire(fields)
    except ValidationError as error:
        raise EventMalformed(_explained(error)) from error


def _split(raw: bytes, bytes_max: int) -> list[bytes]:
    if len(raw) > bytes_max:
        raise EnvelopeMalformed(f"the envelope has {len(raw)} bytes; at most {bytes_max} are read")
    version: object
    try:
        envelope = _envelope.decode(raw)
        version, pieces = envelope.v, [bytes(piece) for piece in envelope.events]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        version, pieces = _split_patiently(raw, error)
    if version != WIRE_VERSION:
        raise EnvelopeMalformed(f"envelope version {_shown(version)} is not known here; this worker reads 1")
    if not pieces:
        raise EnvelopeMalformed("the envelope holds no events")
    return pieces


def _split_patiently(raw: bytes, cause: Exception) -> tuple[object, list[bytes]]:
    """The same for what strict JSON refuses, such as NaN: one bad event must not cost the others."""
    try:
        envelope = json.loads(raw, parse_float=_Literal, parse_constant=_Literal, parse_int=_Literal)
    except (ValueError, RecursionError):
        raise EnvelopeMalformed(f"the envelope is not JSON: {cause}") from cause
    if not isinstance(envelope, dict):
        raise EnvelopeMalformed(f"an envelope is a JSON object, not {_shown(envelope)}") from cause
    events = envelope.get("events")
    if "v" not in envelope or not isinstance(events, list):
        raise EnvelopeMalformed('an envelope has "v" and a list of "events"') from cause
    version = envelope["v"]
    known = WIRE_VERSION if isinstance(version, _Literal) and version == str(WIRE_VERSION) else version
    return known, [_rewritten(event).encode("utf-8", "surrogatepass") for event in events]


class _Literal(str):
    """A number as it was written."""

    __slots__ = ()


def _rewritten(value: object) -> str:
    """JSON again, every number in the digits it came in."""
    if isinstance(value, _Literal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_rewritten(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_rewritten, value)) + "]"
    return json.dumps(value)


def _hints(raw: bytes) -> dict[str, str]:
    """Whose event this may be, as far as it can be read: for the list of what is parked."""
    return dict(_readable(raw, ("tenant_id", "customer_id", "key")))


def _readable(raw: bytes, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    try:
        fields: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return
    for name in names:
        value = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, str) and value and value.isprintable():
            yield name, value[:SHOWN_CHARACTERS]


def _explained(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    said = [
        f"{'.'.join(map(str, problem['loc'])) or 'event'}: {problem['msg']} (got {_shown(problem['input'])})"
        for problem in problems[:ERRORS_SHOWN]
    ]
    more = len(problems) - ERRORS_SHOWN
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    text = repr(value)
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"
    return shown.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
