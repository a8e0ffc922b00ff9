"""What one message may take of memory and time, whatever is in it."""

import json
import tracemalloc
from base64 import b64encode
from typing import Any
from zlib import compress

import pytest

from centavo.events import (
    IDENTIFIER_CHARACTERS_MAX,
    ITEMS_MAX,
    KEY_CHARACTERS_MAX,
    METADATA_BYTES_MAX,
    MODEL_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
)
from db.usage import CONTEXT_COLUMNS
from services.metering.envelopes import EVENT_BYTES_MAX, open_envelope, read_event
from services.metering.splitting import PIECES_MAX
from tests.factories import an_event

BYTES_MAX = 64 * 1024 * 1024
EVENT = an_event("ana").to_wire()


def sent(*pieces: bytes) -> bytes:
    text = b'{"v":1,"events":[' + b",".join(pieces) + b"]}"
    return b"zlib:" + b64encode(compress(text, 9))


def with_metadata(more: bytes) -> bytes:
    return EVENT[:-1] + b',"metadata":{"a":' + more + b"}}"


def escaped(characters: int) -> str:
    return "\U0001f600" * characters


def test_the_largest_event_there_is_can_be_read() -> None:
    """With every field as long as it may be, and each character escaped."""
    bounds = dict.fromkeys(CONTEXT_COLUMNS, IDENTIFIER_CHARACTERS_MAX)
    bounds |= {"service_type": NAME_CHARACTERS_MAX, "reference": TEXT_CHARACTERS_MAX, "reason": TEXT_CHARACTERS_MAX}
    bounds |= {"tenant_id": NAME_CHARACTERS_MAX, "customer_id": IDENTIFIER_CHARACTERS_MAX, "key": KEY_CHARACTERS_MAX}
    of_item = dict.fromkeys(("category", "provider", "unit"), NAME_CHARACTERS_MAX) | {"model": MODEL_CHARACTERS_MAX}
    item = {name: escaped(bound) for name, bound in of_item.items()} | {"quantity": "9" * 18 + "." + "9" * 12}
    text = "".join(rf"\u{ord('x'):04x}" for _ in range(METADATA_BYTES_MAX - len('{"":""}')))
    event: dict[str, Any] = {name: escaped(bound) for name, bound in bounds.items()}
    event |= {"items": [item] * ITEMS_MAX, "occurred_at": "2026-11-20T15:04:05.123456+00:00"}
    raw = (json.dumps(event, indent=1)[:-1] + f',"metadata":{{"":"{text}"}}}}').encode()

    read = read_event(raw)

    assert read.metadata == {"": "x" * (METADATA_BYTES_MAX - 7)}
    assert 0.7 * EVENT_BYTES_MAX < len(raw) < EVENT_BYTES_MAX


OBJECTS = b"[" + b"{}," * 700_000 + b"1]"
NUMBERS = b"[" + b"1," * 2_100_000 + b"1]"
TOO_LARGE = {
    "objects": [with_metadata(OBJECTS)],
    "numbers": [with_metadata(NUMBERS)],
    "beside what no parser reads": [with_metadata(OBJECTS), b"NaN"],
    "no event": [OBJECTS],
}


@pytest.mark.parametrize("pieces", TOO_LARGE.values(), ids=TOO_LARGE)
def test_an_event_that_is_too_large_is_not_read(pieces: list[bytes]) -> None:
    """It is parked with its bytes and how it begins, and the others are read."""
    found = open_envelope(sent(EVENT, *pieces, EVENT), BYTES_MAX)

    assert [one.raw for one in found.received] == [EVENT, EVENT]
    assert [one.raw for one in found.unusable] == pieces
    assert f"bytes; at most {EVENT_BYTES_MAX} are read (got '" in found.unusable[0].detail
    assert len(found.unusable[0].detail) < 300


TOO_MANY = {
    "objects": [b"{}"] * 2_100_000,
    "numbers": [b"1"] * 2_100_000,
    "what no parser reads": [b"{}"] * PIECES_MAX + [b"NaN"],
    "one too many": [b"{}"] * (PIECES_MAX + 1),
}


@pytest.mark.parametrize("pieces", TOO_MANY.values(), ids=TOO_MANY)
def test_an_envelope_of_too_many_pieces_is_kept_whole(pieces: list[bytes]) -> None:
    envelope = sent(*pieces)

    found = open_envelope(envelope, BYTES_MAX)

    assert found.received == []
    assert [(one.reason, one.raw) for one in found.unusable] == [("envelope_malformed", envelope)]
    assert found.unusable[0].detail == f"the envelope holds more than {PIECES_MAX} events"


@pytest.mark.parametrize("pieces", [TOO_LARGE["objects"], TOO_MANY["objects"]], ids=["an event", "an envelope"])
def test_what_is_not_read_takes_no_memory(pieces: list[bytes]) -> None:
    """Beyond a few times its text: some kilobytes, compressed, would take gigabytes as objects."""
    envelope = sent(*pieces)
    tracemalloc.start()

    open_envelope(envelope, BYTES_MAX)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * len(b",".join(pieces))


def test_a_version_that_is_none_is_not_read() -> None:
    text = b'{"v":' + OBJECTS + b',"events":[' + EVENT + b"]}"

    (found,) = open_envelope(text, BYTES_MAX).unusable

    assert "envelope version '[{},{}," in found.detail
