"""Cutting an envelope into its events without reading them.

Plain JSON is cut by the parser. What the parser refuses as a whole (NaN, nesting too deep, a syntax error in
one event) still has brackets and strings, and those are enough to tell the events apart: one bad event costs
the others nothing.
"""

import json
import re
from collections.abc import Iterator

import msgspec

from billing.errors import EnvelopeMalformed
from centavo.envelopes import inflated
from centavo.events import WIRE_VERSION
from config import faults
from services.showing import readable, shown


class _Envelope(msgspec.Struct):
    v: int
    events: list[msgspec.Raw]


_envelope = msgspec.json.Decoder(_Envelope)

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Strings, punctuation, and, as the last choice, whatever has no business outside a string.
_TOKEN = re.compile(_STRING + rb"|[\[\]{}:,]|[^\s\w+\-.]", re.DOTALL)
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
        envelope = _envelope.decode(raw)
        version, pieces = envelope.v, [bytes(piece) for piece in envelope.events]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        version, pieces = _cut(raw, str(error))
    if raw.count(b'"events"') > 1:
        # A parser keeps the last of two lists of events, and says nothing about the first.
        version, pieces = _cut(raw, "it has two lists of events")
    if version is True or version != WIRE_VERSION:
        raise EnvelopeMalformed(f"envelope version {shown(version)} is not known here; this worker reads 1")
    if not pieces:
        raise EnvelopeMalformed("the envelope holds no events")
    return pieces


def _cut(raw: bytes, cause: str) -> tuple[object, list[bytes]]:
    """Version and events, found by brackets and strings alone; `cause` is why no parser could."""
    if raw.lstrip()[:1] != b"{":
        raise EnvelopeMalformed(f"an envelope is a JSON object, not {_beginning(raw)}")
    members: dict[str, bytes] = {}
    for part in _parts(raw, cause):
        member = _MEMBER.fullmatch(part)
        if member is None:
            raise _not_json(cause)
        name = str(_value(member[1], cause))
        if name in members and name in {"v", "events"}:
            raise EnvelopeMalformed(f'the envelope says "{name}" twice; it is not clear which one counts')
        members[name] = member[2].strip()
    if "v" not in members or members.get("events", b"")[:1] != b"[":
        raise EnvelopeMalformed('an envelope has "v" and a list of "events"')
    return _value(members["v"], cause), list(_parts(members["events"], cause))


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


def _not_json(cause: str) -> EnvelopeMalformed:
    return EnvelopeMalformed(f"the envelope is not JSON: {readable(cause)}")


def _beginning(raw: bytes) -> str:
    return shown(raw.strip()[:100].decode("utf-8", "backslashreplace"))
