"""Keys of servers, and the trail of what administrators asked for.

A key is 256 random bits. So its SHA-256 is all that is kept, and is enough: a slow hash with salt protects what people
think up, of which there are few; nobody guesses these bits, at whatever speed, and a fast one is asked with every
request. It is found by that hash in an index: how long that takes says nothing about the key.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from billing.access import Capability, Principal, Through
from billing.errors import KeyNotFound, Rejected, TenantNotFound
from config.logging import logger
from db import access as rows
from db import customers as customer_rows
from db.access import ActRow, KeyRow
from db.session import Connection, in_transaction
from services.cursors import after, cursor
from services.desk.history import PAGE, PAGE_MAX, Page

log = logger(__name__)

#: By which a key is known for one: by people, by scanners of sources, and by us, from a token.
PREFIX = "centavo_key_"
SECRET_BYTES = 32
NAME_CHARACTERS_MAX = 128


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. It can't be read again."""

    key_id: UUID
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.key_id})"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, for the trail."""

    subject: str
    through: Through


def create_key(
    tenant_id: str,
    name: str,
    capabilities: Sequence[Capability],
    by: Actor,
    now: datetime,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key for a server; it is told once. Raises `TenantNotFound`, `Rejected` (no such name, scope or end)."""
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or "\0" in name:
        raise Rejected(f"a key's name has 1 to {NAME_CHARACTERS_MAX} characters", given=len(name))
    if not capabilities:
        raise Rejected(f"a key may do something: {', '.join(sorted(Capability))}")
    if expires_at is not None and expires_at <= now:
        raise Rejected("a key ends later than now", expires_at=expires_at.isoformat())
    new = NewKey(uuid4(), PREFIX + secrets.token_urlsafe(SECRET_BYTES))
    scopes = sorted({one.value for one in capabilities})

    def work(connection: Connection) -> None:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        row = KeyRow(tenant_id, new.key_id, name, scopes, now, by.subject, expires_at, None)
        rows.add_key(connection, row, hash_of(new.secret))
        what = ("api_key.create", str(new.key_id))
        rows.add_act(connection, tenant_id, (by.subject, by.through), what, now, detail={"capabilities": scopes})

    in_transaction(work)
    log.info("api key created", tenant_id=tenant_id, key_id=str(new.key_id), capabilities=scopes)
    return new


def revoke_key(tenant_id: str, key_id: UUID, by: Actor, now: datetime) -> None:
    """Let a key hold no longer. Raises `KeyNotFound`. Revoked before, nothing changes but the trail."""

    def work(connection: Connection) -> None:
        if not rows.revoke(connection, tenant_id, key_id, now):
            raise KeyNotFound(tenant_id=tenant_id, key_id=str(key_id))
        what = ("api_key.revoke", str(key_id))
        rows.add_act(connection, tenant_id, (by.subject, by.through), what, now)

    in_transaction(work)
    log.info("api key revoked", tenant_id=tenant_id, key_id=str(key_id))


def keys_of(tenant_id: str) -> list[KeyRow]:
    """A tenant's keys, revoked ones too. Raises `TenantNotFound`."""

    def work(connection: Connection) -> list[KeyRow]:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return rows.keys_of(connection, tenant_id)

    return in_transaction(work)


def principal_of(secret: str, now: datetime) -> tuple[Principal, datetime | None] | None:
    """Whose key this is, and when it ends; None for one that holds no more, or never was."""
    digest = hash_of(secret)
    row = in_transaction(lambda connection: rows.find_key(connection, digest, now))
    if row is None:
        return None
    capabilities = frozenset(Capability(one) for one in row.capabilities)
    return Principal(row.tenant_id, str(row.key_id), capabilities, Through.API_KEY), row.expires_at


def hash_of(secret: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def acts(tenant_id: str, *, limit: int = PAGE, at: str | None = None) -> Page[ActRow]:
    """A page of what administrators of a tenant asked for, the newest first. Raises `CursorMalformed`, `Rejected`."""
    if not 1 <= limit <= PAGE_MAX:
        raise Rejected(f"a page has 1 to {PAGE_MAX} rows, not {limit}")
    question = ("acts", tenant_id)
    before = after(at, question, (int,))[0] if at is not None else None
    found = in_transaction(lambda connection: rows.acts_of(connection, tenant_id, before, limit + 1))
    more = cursor(question, (found[limit - 1].act_id,)) if len(found) > limit else None
    return Page(tuple(found[:limit]), more)
