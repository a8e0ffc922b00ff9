"""Envelopes: many events in one Celery message. `docs/wire-format.md` says the same in words.

Events arrive here already encoded, and are joined as bytes, never decoded again: an event is sent as it was
when it was emitted. The envelope travels as one opaque string, so that only the process that charges the
events has to parse them.
"""

import os
import socket
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
CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"

_BEFORE_EVENTS = '{"v":%d,"id":"%s","sent_at":"%s","events":['
_AFTER_EVENTS = b"]}"
_AFTER_ENVELOPE = b'],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


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


def pack(events: Sequence[bytes], *, sent_at: datetime | None = None) -> Envelope:
    """An envelope around events that `UsageEvent.to_wire()` encoded; it gets a new id."""
    envelope_id = str(uuid7())
    before = _BEFORE_EVENTS % (WIRE_VERSION, envelope_id, _rfc3339(sent_at or datetime.now(UTC)))
    return Envelope(envelope_id, len(events), b"".join((before.encode(), b",".join(events), _AFTER_EVENTS)))


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
    body = b"".join((b"[[", to_json(envelope.json.decode()), _AFTER_ENVELOPE))
    return Message(headers, properties, body)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FRAME_BYTES = len(pack(()).json)  # what an envelope weighs without its events
