"""Identifiers that sort by the time they were made."""

import os
import time
import uuid

_RANDOM_BITS = (1 << 74) - 1
_LOW_BITS = (1 << 62) - 1


def uuid7() -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): milliseconds since 1970, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS
    high = (milliseconds << 16) | 0x7000 | (random >> 62)
    return uuid.UUID(int=(high << 64) | 0x8000_0000_0000_0000 | (random & _LOW_BITS))
