"""Keys of servers, requests under idempotency keys, and what administrators did."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from db.session import Connection


class KeyRow(NamedTuple):
    """A server's key, as far as anybody may see it."""

    tenant_id: str
    key_id: UUID
    name: str
    capabilities: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class RequestRow(NamedTuple):
    """A request under an idempotency key; the last two once it was answered."""

    operation: str
    body_hash: bytes
    made_at: datetime
    status: int | None
    answer: str | None


class ActRow(NamedTuple):
    """What an administrator asked for."""

    act_id: int
    at: datetime
    subject: str
    through: str
    action: str
    target: str
    idempotency_key: str | None
    detail: dict[str, Any]


_KEY_COLUMNS = "tenant_id, key_id, name, capabilities, created_at, created_by, expires_at, revoked_at"

_ADD_KEY = """
INSERT INTO api_keys (tenant_id, key_id, name, secret_hash, capabilities, created_at, created_by, expires_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""

_FIND_KEY = f"""
SELECT {_KEY_COLUMNS} FROM api_keys
WHERE secret_hash = %(secret_hash)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(now)s)
"""  # noqa: S608 - column names of ours, no input

_KEYS_OF = f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE tenant_id = %s ORDER BY created_at, key_id"  # noqa: S608 - the same

_REVOKE = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, %s) WHERE tenant_id = %s AND key_id = %s"

_CLAIM = """
INSERT INTO idempotent_requests (tenant_id, idempotency_key, operation, body_hash, made_at)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
"""

_REQUEST = """
SELECT operation, body_hash, made_at, status, answer FROM idempotent_requests
WHERE tenant_id = %s AND idempotency_key = %s
"""

_ANSWER = """
UPDATE idempotent_requests SET answered_at = %s, status = %s, answer = %s
WHERE tenant_id = %s AND idempotency_key = %s AND answered_at IS NULL
"""

_ADD_ACT = """
INSERT INTO admin_acts (tenant_id, at, subject, through, action, target, idempotency_key, detail)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""

_ACTS_OF = """
SELECT act_id, at, subject, through, action, target, idempotency_key, detail FROM admin_acts
WHERE tenant_id = %(tenant_id)s AND (%(before)s::bigint IS NULL OR act_id < %(before)s)
ORDER BY act_id DESC LIMIT %(limit)s
"""


def add_key(connection: Connection, key: KeyRow, secret_hash: bytes) -> None:
    """Keep a server's key, by its hash."""
    said = (key.tenant_id, key.key_id, key.name, secret_hash, key.capabilities, key.created_at, key.created_by)
    connection.execute(_ADD_KEY, (*said, key.expires_at))


def find_key(connection: Connection, secret_hash: bytes, now: datetime) -> KeyRow | None:
    """The key of this hash that holds now; by index, and before it is known whose it is."""
    row = connection.execute(_FIND_KEY, {"secret_hash": secret_hash, "now": now}).fetchone()
    return KeyRow._make(cast("Any", row)) if row else None


def keys_of(connection: Connection, tenant_id: str) -> list[KeyRow]:
    """A tenant's keys, revoked ones too, the oldest first."""
    return [KeyRow._make(cast("Any", row)) for row in connection.execute(_KEYS_OF, (tenant_id,))]


def revoke(connection: Connection, tenant_id: str, key_id: UUID, now: datetime) -> bool:
    """Let a key hold no longer; False when there is none. Revoked before, its time stays."""
    return connection.execute(_REVOKE, (now, tenant_id, key_id)).rowcount > 0


def claim(connection: Connection, key: tuple[str, str], operation: str, body_hash: bytes, now: datetime) -> bool:
    """Let a (tenant, idempotency key) belong to this request, if it is free; waits for whoever is at it."""
    return connection.execute(_CLAIM, (*key, operation, body_hash, now)).rowcount > 0


def request(connection: Connection, key: tuple[str, str]) -> RequestRow:
    """The request that a (tenant, idempotency key) belongs to."""
    row = connection.execute(_REQUEST, key).fetchone()
    assert row is not None
    return RequestRow._make(cast("Any", row))


def answer(connection: Connection, key: tuple[str, str], status: int, text: str, now: datetime) -> None:
    """Keep what a request was answered; the first answer stays."""
    connection.execute(_ANSWER, (now, status, text, *key))


def add_act(
    connection: Connection,
    tenant_id: str,
    who: Sequence[str],
    what: tuple[str, str],
    now: datetime,
    *,
    idempotency_key: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down who (subject, through) asked for what (action, target)."""
    connection.execute(_ADD_ACT, (tenant_id, now, *who, *what, idempotency_key, Jsonb(dict(detail or {}))))


def acts_of(connection: Connection, tenant_id: str, before: int | None, limit: int) -> list[ActRow]:
    """A tenant's acts, the newest first; from before one on, if told."""
    said = {"tenant_id": tenant_id, "before": before, "limit": limit}
    return [ActRow._make(cast("Any", row)) for row in connection.execute(_ACTS_OF, said)]
