"""Envelopes: many events in one Celery message. `docs/wire-format.md` says the same in words.

Events arrive here already encoded, and are joined as bytes, never decoded again: an event is sent as it was
when it was emitted. The envelope travels as one opaque string, so that only the process that charges the
events has to parse them.
"""

import base64
import binascii
import os
import socket
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from centavo.events import WIRE_VERSION
from centavo.ids import uuid7

TASK = "centavo.record_usage"
QUEUE = "usage"
ENVELOPE_EVENTS_MAX = 500
ENVELOPE_BYTES_MAX = 256 * 1024
LINGER_SECONDS = 0.2
#: What a compressed envelope begins with; base64 of a zlib stream follows. JSON begins with a brace.
COMPRESSED = b"zlib:"
COMPRESSED_FROM_BYTES = 2048
COMPRESSION_LEVEL = 1
#: Where receipts go: a queue for each producer, named in its messages. Workers write to no other.
RECEIPTS_PREFIX = "centavo.receipts."
#: Such a queue ends when nobody has used it for so long.
RECEIPTS_SECONDS = 3600
CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"

_BEFORE_EVENTS = '{"v":%d,"id":"%s","sent_at":"%s","events":['
_AFTER_EVENTS = b"]}"
_AFTER_ENVELOPE = b'],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes an envelope itself, apart from its events."""

    envelope_id: str
    sent_at: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """A JSON object around `events` events, as it is sent."""

    id: str
    events: int
    json: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A Celery task message (protocol 2), apart from what the transport adds."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


def new_stamp(sent_at: datetime | None = None) -> Stamp:
    return Stamp(str(uuid7()), _rfc3339(sent_at or datetime.now(UTC)))


def pack(events: Sequence[bytes], stamp: Stamp | None = None) -> Envelope:
    """An envelope around events that `UsageEvent.to_wire()` encoded; with the same stamp it is the same envelope."""
    stamp = stamp or new_stamp()
    before = _BEFORE_EVENTS % (WIRE_VERSION, stamp.envelope_id, stamp.sent_at)
    return Envelope(stamp.envelope_id, len(events), b"".join((before.encode(), b",".join(events), _AFTER_EVENTS)))


def celery_message(envelope: Envelope) -> Message:
    """The task message that hands this envelope to a worker.

    Its task id is the envelope's id. The worker reads nothing but the task name and the one argument; the
    other headers are those that Celery's own producer sends, so that its tools show the message properly.
    """
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK,
        "id": envelope.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": envelope.id,
        "parent_id": None,
        "argsrepr": f"('<envelope of {envelope.events} usage events>',)",
        "kwargsrepr": "{}",
        "origin": f"{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    properties = {"correlation_id": envelope.id, "reply_to": ""}
    body = b"".join((b"[[", _as_argument(envelope.json), _AFTER_ENVELOPE))
    return Message(headers, properties, body)


def again(message: Message) -> Message:
    """The same envelope in a message with an id of its own, so that a receipt says which of the two was taken."""
    message_id = str(uuid7())
    return Message(
        {**message.headers, "id": message_id}, {**message.properties, "correlation_id": message_id}, message.body
    )


def _as_argument(json: bytes) -> bytes:
    """The envelope as one JSON string; a large one is compressed.

    An envelope of 500 events has some 170 KB, and passes through broker and worker five times, escaped or in
    base64: compressed it weighs a tenth, which more than pays for itself, and the broker holds ten times more.
    """
    if len(json) < COMPRESSED_FROM_BYTES:
        return to_json(json.decode())
    return b'"' + COMPRESSED + base64.b64encode(zlib.compress(json, COMPRESSION_LEVEL)) + b'"'


def inflated(envelope: bytes, bytes_max: int) -> bytes:
    """The JSON of an envelope that may be compressed. Raises `ValueError` when it can't be, or is larger than told."""
    if not envelope.startswith(COMPRESSED):
        return envelope
    inflater = zlib.decompressobj()
    try:
        # A few hundred bytes can inflate to gigabytes: never past the bound.
        json = inflater.decompress(base64.b64decode(envelope[len(COMPRESSED) :], validate=True), bytes_max)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the compressed envelope can't be read: {error}") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"the compressed envelope holds more than {bytes_max} bytes")
    if not inflater.eof:
        raise ValueError("the compressed envelope is cut short")
    return json


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FRAME_BYTES = len(pack(()).json)  # what an envelope weighs without its events
