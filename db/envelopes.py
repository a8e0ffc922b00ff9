"""Envelopes that came back: how often each was begun without being finished."""

from datetime import datetime
from typing import cast

from db.session import Connection

_BEGIN = """
INSERT INTO envelope_attempts AS a (envelope_hash, attempts, last_at) VALUES (%s, 1, %s)
ON CONFLICT (envelope_hash) DO UPDATE SET attempts = a.attempts + 1, last_at = excluded.last_at
RETURNING attempts
"""


def begin_attempt(connection: Connection, envelope_hash: bytes, now: datetime) -> int:
    """Count a beginning; how many there were, this one included."""
    row = connection.execute(_BEGIN, (envelope_hash, now)).fetchone()
    assert row is not None
    return cast("int", row[0])


def finish(connection: Connection, envelope_hash: bytes) -> None:
    """It was worked to its end: forget it."""
    connection.execute("DELETE FROM envelope_attempts WHERE envelope_hash = %s", (envelope_hash,))


def hold(connection: Connection, envelope_hash: bytes) -> bool:
    """Keep this envelope to this connection until `let_go` or its end; False when another, living one has it."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s::bigint)", (_lock_number(envelope_hash),)).fetchone()
    assert row is not None
    return bool(row[0])


def let_go(connection: Connection, envelope_hash: bytes) -> None:
    """Others may work this envelope."""
    connection.execute("SELECT pg_advisory_unlock(%s::bigint)", (_lock_number(envelope_hash),))


def _lock_number(envelope_hash: bytes) -> int:
    return int.from_bytes(envelope_hash[:8], "big", signed=True)
