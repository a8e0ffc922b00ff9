"""Cursors: where a list goes on. Opaque to callers, and good for the very question they came from."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from billing.errors import CursorMalformed

CURSOR_CHARACTERS_MAX = 1024
_VERSION = 1
Place = tuple[Any, ...]
"""Where a page ended: moments, numbers and texts."""


def cursor(question: Sequence[object], place: Place) -> str:
    """Where the answer to a question goes on.

    >>> after(cursor(["usage", None], (5, "k")), ["usage", None], (int, str))
    (5, 'k')
    """
    said = [one.astimezone(UTC).isoformat() if isinstance(one, datetime) else one for one in place]
    return base64.urlsafe_b64encode(msgspec.json.encode([_VERSION, _digest(question), said])).decode().rstrip("=")


def after(text: str, question: Sequence[object], kinds: Sequence[type]) -> Place:
    """The place that a cursor means. Raises `CursorMalformed` for another question's, or none at all."""
    if len(text) > CURSOR_CHARACTERS_MAX:
        raise CursorMalformed(f"a cursor has at most {CURSOR_CHARACTERS_MAX} characters")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, digest, said = msgspec.json.decode(raw, type=tuple[int, str, list[str | int]])
        place = tuple(_read(one, kind) for one, kind in zip(said, kinds, strict=True))
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise CursorMalformed from error
    if version != _VERSION or digest != _digest(question):
        raise CursorMalformed("this cursor came from another question: ask with the same filters, or begin without one")
    return place


def _digest(question: Sequence[object]) -> str:
    return hashlib.blake2b(repr([str(one) for one in question]).encode(), digest_size=12).hexdigest()


def _read(said: str | int, kind: type) -> Any:
    match said:
        case str() if kind is datetime and (moment := datetime.fromisoformat(said)).tzinfo is not None:
            return moment
        case str() if kind is str and "\0" not in said:
            return said
        case int() if kind is int and abs(said) < 1 << 63:
            return said
    raise ValueError(said)
