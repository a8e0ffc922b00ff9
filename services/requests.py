"""What is asked for under an idempotency key is done once, and answered the same way ever after.

Three paragraphs, as with a payment: the key is bound to the body (transaction), the work is done (its own transaction,
idempotent by the same key), the answer is kept (transaction). Whoever dies in between finds the key bound when asked
again, does the work a second time, which changes nothing, and answers. A refusal is not kept: nothing was moved, and
the same body may be accepted later. But the key stays bound: it never means another body.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from billing.access import Principal
from billing.errors import IdempotencyConflict, Rejected, TenantNotFound
from db import access as rows
from db import customers as customer_rows
from db.access import RequestRow
from db.session import Connection, in_transaction

KEY_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class Act:
    """What only administrators may ask for, as it stands in their trail."""

    action: str
    target: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, under which key: method and path, and the body in one spelling."""

    principal: Principal
    idempotency_key: str
    operation: str
    body: bytes
    act: Act | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.principal.tenant_id, self.idempotency_key

    @property
    def body_hash(self) -> bytes:
        return hashlib.sha256(self.body).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the JSON that goes with it; not new when it was given before."""

    status: int
    text: str
    is_new: bool = True


def once(asked: Request, work: Callable[[datetime], tuple[int, str]], now: datetime) -> Answer:
    """Do what is asked for, or answer as the first time. `work` is given the moment of the first time.

    It may run again, also at the same moment as itself: the key must make that harmless. Raises
    `IdempotencyConflict` for another body under the key, `TenantNotFound`, `Rejected` (no such key), and what `work`
    raises.
    """
    if not 0 < len(asked.idempotency_key) <= KEY_CHARACTERS_MAX or "\0" in asked.idempotency_key:
        raise Rejected(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters")
    first = in_transaction(lambda connection: _bind(connection, asked, now))
    if first.status is not None and first.answer is not None:
        return Answer(first.status, first.answer, is_new=False)

    status, text = work(first.made_at)

    kept = in_transaction(lambda connection: _keep(connection, asked, status, text, now))
    assert kept.status is not None
    assert kept.answer is not None
    return Answer(kept.status, kept.answer)


def note(principal: Principal, act: Act, now: datetime) -> None:
    """Write an act into the trail before it is done: one that repeats to the same end, and so needs no key.

    Raises `TenantNotFound`.
    """

    def work(connection: Connection) -> None:
        if not customer_rows.existing_tenants(connection, [principal.tenant_id]):
            raise TenantNotFound(tenant_id=principal.tenant_id)
        _write(connection, principal, act, now)

    in_transaction(work)


def _write(connection: Connection, principal: Principal, act: Act, now: datetime, key: str | None = None) -> None:
    who, what = (principal.subject, principal.through), (act.action, act.target)
    rows.add_act(connection, principal.tenant_id, who, what, now, idempotency_key=key, detail=act.detail)


def _bind(connection: Connection, asked: Request, now: datetime) -> RequestRow:
    principal = asked.principal
    if not customer_rows.existing_tenants(connection, [principal.tenant_id]):
        raise TenantNotFound(tenant_id=principal.tenant_id)
    if rows.claim(connection, asked.key, asked.operation, asked.body_hash, now) and asked.act is not None:
        _write(connection, principal, asked.act, now, asked.idempotency_key)
    first = rows.request(connection, asked.key)
    if (first.operation, first.body_hash) != (asked.operation, asked.body_hash):
        raise IdempotencyConflict(
            "this idempotency key was used before with another body, or elsewhere; the first request stands",
            idempotency_key=asked.idempotency_key,
            used_for=first.operation,
        )
    return first


def _keep(connection: Connection, asked: Request, status: int, text: str, now: datetime) -> RequestRow:
    """Two that were at it at once give one answer."""
    rows.answer(connection, asked.key, status, text, now)
    return rows.request(connection, asked.key)
