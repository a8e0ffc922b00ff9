"""Cutting an envelope into its events without reading them.

Plain JSON is cut by the parser. What the parser refuses as a whole (NaN, nesting too deep, a syntax error in
one event) still has brackets and strings, and those are enough to tell the events apart: one bad event costs
the others nothing.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from billing.errors import EnvelopeMalformed
from centavo.envelopes import inflated
from centavo.events import WIRE_VERSION
from config import faults
from services.showing import readable, shown

T = TypeVar("T")

#: Of an envelope; far above what any producer packs into one.
PIECES_MAX = 100_000
#: Some bytes, compressed, may hold millions of pieces. An event has twenty commas: from so many on, what stands between
#: them is counted before it is taken apart.
_COMMAS_MAX = 20 * PIECES_MAX


#: What is longer is no number of a version, and not read.
_VERSION_BYTES_MAX = 100


class _Envelope(msgspec.Struct):
    v: int
    events: list[msgspec.Raw]


class _Closed(msgspec.Struct):
    """An envelope whose events are left in one piece."""

    v: int
    events: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)
_closed = msgspec.json.Decoder(_Closed)

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Strings, punctuation, and, as the last choice, whatever has no business outside a string.
_TOKEN = re.compile(_STRING + rb"|[\[\]{}:,]|[^\s\w+\-.]", re.DOTALL)
#: Nobody escapes a letter, but for a name that may be spelled so.
_ESCAPED_LETTER = re.compile(rb"\\u00[67]")
_MEMBER = re.compile(rb"\s*(" + _STRING + rb")\s*:(.*)", re.DOTALL)


def split_envelope(raw: bytes, bytes_max: int) -> list[bytes]:
    """The events of an envelope, as the bytes they came as. Raises `EnvelopeMalformed`."""
    faults.reached("usage.split")
    try:
        raw = inflated(raw, bytes_max)
    except ValueError as error:
        raise EnvelopeMalformed(str(error)) from error
    if len(raw) > bytes_max:
        raise EnvelopeMalformed(f"the envelope has {len(raw)} bytes; at most {bytes_max} are read")
    version: object
    try:
        version, pieces = _parsed(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        version, pieces = _cut(raw, str(error))
    if raw.count(b'"events"') > 1 or (b"\\" in raw and _ESCAPED_LETTER.search(raw)):
        # A parser keeps the last of two lists of events, however spelled, and says nothing about the first.
        version, pieces = _cut(raw, "it has two lists of events")
    if version is True or version != WIRE_VERSION:
        raise EnvelopeMalformed(f"envelope version {shown(version)} is not known here; this worker reads 1")
    if not pieces:
        raise EnvelopeMalformed("the envelope holds no events")
    return pieces


def beginning(raw: bytes) -> str:
    """How these bytes begin, for a person."""
    return shown(raw[:200].strip()[:100].decode("utf-8", "backslashreplace"))


def _parsed(raw: bytes) -> tuple[int, list[bytes]]:
    """Version and events, found by the parser."""
    if len(raw) <= _COMMAS_MAX or raw.count(b",") <= _COMMAS_MAX:
        envelope = _envelope.decode(raw)
        return envelope.v, [bytes(piece) for piece in _bounded(envelope.events)]
    closed = _closed.decode(raw)
    return closed.v, _events(bytes(closed.events), "")


def _cut(raw: bytes, cause: str) -> tuple[object, list[bytes]]:
    """Version and events, found by brackets and strings alone; `cause` is why no parser could."""
    if raw.lstrip()[:1] != b"{":
        raise EnvelopeMalformed(f"an envelope is a JSON object, not {beginning(raw)}")
    members: dict[str, bytes] = {}
    for part in _parts(raw, cause):
        member = _MEMBER.fullmatch(part)
        if member is None:
            raise _not_json(cause)
        name = str(_value(member[1], cause))
        if name in members:
            raise EnvelopeMalformed(f'the envelope says "{name}" twice; it is not clear which one counts')
        if name in {"v", "events"}:
            members[name] = member[2].strip()
    if "v" not in members:
        raise _no_envelope()
    version: object = members["v"][:_VERSION_BYTES_MAX].decode("utf-8", "backslashreplace")
    if len(members["v"]) <= _VERSION_BYTES_MAX:
        version = _value(members["v"], cause)
    return version, _events(members.get("events", b""), cause)


def _events(raw: bytes, cause: str) -> list[bytes]:
    """What is in a list of events."""
    if raw[:1] != b"[":
        raise _no_envelope()
    return _bounded(list(islice(_parts(raw, cause), PIECES_MAX + 1)))


def _bounded(pieces: list[T]) -> list[T]:
    if len(pieces) > PIECES_MAX:
        raise EnvelopeMalformed(f"the envelope holds more than {PIECES_MAX} events")
    return pieces


def _parts(raw: bytes, cause: str) -> Iterator[bytes]:
    """What stands between the commas inside the outermost brackets."""
    depth = begin = 0
    for token in _TOKEN.finditer(raw):
        mark = token[0]
        if mark in {b"[", b"{"}:
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif mark in {b"]", b"}"}:
            depth -= 1
        elif len(mark) == 1 and mark not in {b",", b":"}:
            # Outside a string nothing else stands: a quote is missing somewhere, and text would be read as events.
            raise _not_json(cause)
        if depth == 0 or (depth == 1 and mark == b","):
            if part := raw[begin : token.start()].strip():
                yield part
            begin = token.end()
        if depth == 0:
            break
    if depth or raw[begin:].strip():
        raise _not_json(cause)


def _value(raw: bytes, cause: str) -> object:
    try:
        value: object = json.loads(raw)
    except (ValueError, RecursionError):
        raise _not_json(cause) from None
    return value


def _no_envelope() -> EnvelopeMalformed:
    return EnvelopeMalformed('an envelope has "v" and a list of "events"')


def _not_json(cause: str) -> EnvelopeMalformed:
    return EnvelopeMalformed(f"the envelope is not JSON: {readable(cause)}")
