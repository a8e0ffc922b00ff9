"""What lets payments through, and what holds them back: leases, pace, the switch, caps, holds, the cards' limits."""

from datetime import datetime, timedelta
from typing import NamedTuple, cast
from uuid import UUID

from billing.payments import FREEZES, PAID, WAITS_FOR_CARD
from db.schema.base import one_of
from db.session import Connection

_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT p.tenant_id, p.payment_id FROM payments p
    WHERE p.due_at <= %(now)s AND (p.leased_until IS NULL OR p.leased_until <= %(now)s)
        AND (
            p.state IN ('submitting', 'unknown', 'processing') OR p.void_wished_at IS NOT NULL
            OR (NOT %(is_paused)s AND NOT EXISTS (
                SELECT FROM customer_holds h
                WHERE h.tenant_id = p.tenant_id AND h.customer_id = p.customer_id
                    AND (p.attempts_made = 0 OR h.{one_of("reason", FREEZES)})
            ))
        )
    ORDER BY p.due_at, p.tenant_id, p.payment_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
), leased AS (
    UPDATE payments p
    SET leased_until = %(leased_until)s
    FROM due
    WHERE p.tenant_id = due.tenant_id AND p.payment_id = due.payment_id
    RETURNING p.tenant_id, p.payment_id, p.due_at
)
SELECT tenant_id, payment_id FROM leased ORDER BY due_at, tenant_id, payment_id
"""  # noqa: S608 - words of ours, no input

# By the server's clock: many workers share one pace.
_TAKE_SLOT = """
UPDATE collecting_switch
SET next_slot_at = greatest(coalesce(next_slot_at, clock_timestamp()), clock_timestamp()) + %s
RETURNING next_slot_at - %s - clock_timestamp()
"""

_COUNT = """
INSERT INTO collected_counts AS c (tenant_id, customer_id, starts_at, payments, amount_minor)
VALUES (%s, %s, %s, 1, %s)
ON CONFLICT (tenant_id, customer_id, starts_at)
    DO UPDATE SET payments = c.payments + 1, amount_minor = c.amount_minor + excluded.amount_minor
RETURNING payments, amount_minor
"""

_HOLD = """
INSERT INTO customer_holds (tenant_id, customer_id, reason, since, detail) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, customer_id, reason) DO NOTHING
"""

_HOLD_CARD = """
INSERT INTO payment_methods AS m (tenant_id, payment_method_id, customer_id, attached_at, held_at, hold_reason)
VALUES (%(tenant_id)s, %(card)s, %(customer_id)s, %(now)s, %(now)s, %(reason)s)
ON CONFLICT (tenant_id, payment_method_id) DO UPDATE
    SET held_at = coalesce(m.held_at, excluded.held_at), hold_reason = coalesce(m.hold_reason, excluded.hold_reason)
"""

_DECLINES_OF_CARD = """
SELECT finished_at FROM payment_attempts
WHERE tenant_id = %s AND payment_method_id = %s AND state = 'declined' AND finished_at > %s
ORDER BY finished_at
"""

_DECLINED_SINCE_SUCCESS = """
SELECT count(DISTINCT a.payment_id) FROM payment_attempts a
JOIN payments p ON p.tenant_id = a.tenant_id AND p.payment_id = a.payment_id
WHERE p.tenant_id = %(tenant_id)s AND p.customer_id = %(customer_id)s AND p.payment_id <> %(payment_id)s
    AND a.state = 'declined'
    AND a.finished_at > coalesce((
        SELECT max(s.succeeded_at) FROM payments s
        WHERE s.tenant_id = %(tenant_id)s AND s.customer_id = %(customer_id)s
    ), '-infinity')
"""

# The card that waited for is another than the one that was declined last. Attaching a card and looking for one can
# happen at the same moment, each before the other has committed.
_WITH_A_CARD_AFTER_ALL = """
SELECT DISTINCT c.tenant_id, c.customer_id
FROM payments p
JOIN customers c ON c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id
JOIN payment_methods m ON m.tenant_id = c.tenant_id AND m.payment_method_id = c.default_payment_method_id
LEFT JOIN payment_attempts a
    ON a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id AND a.attempt = p.attempts_made
WHERE p.state = 'needs_payment_method' AND p.void_wished_at IS NULL AND m.held_at IS NULL AND m.detached_at IS NULL
    AND a.payment_method_id IS DISTINCT FROM m.payment_method_id
LIMIT %s
"""

_OPEN_TIERS = f"""
SELECT (
    SELECT count(*) FROM payments p
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id AND p.kind = 'tier' AND p.state <> 'voided'
        AND p.unowed_at IS NULL AND NOT p.{one_of("state", PAID)}
), l.open_tiers_max
FROM customers c
JOIN plans l ON l.tenant_id = c.tenant_id AND l.plan_id = c.plan_id AND l.version = c.plan_version
WHERE c.tenant_id = %(tenant_id)s AND c.customer_id = %(customer_id)s
"""  # noqa: S608 - words of ours, no input

_REOPEN = f"""
WITH reopened AS (
    UPDATE payments p SET state = CASE WHEN b.state = 'due' THEN 'due' ELSE 'retry_scheduled' END, due_at = %(now)s,
        leased_until = NULL, updated_at = %(now)s
    FROM (
        SELECT tenant_id, payment_id, state FROM payments
        WHERE tenant_id = %(tenant_id)s AND customer_id = %(customer_id)s
            AND ({one_of("state", WAITS_FOR_CARD)} OR (state = 'due' AND due_at > %(now)s))
            AND void_wished_at IS NULL
        ORDER BY payment_id
        FOR NO KEY UPDATE
    ) AS b
    WHERE p.tenant_id = b.tenant_id AND p.payment_id = b.payment_id
    RETURNING p.tenant_id, p.payment_id, b.state, p.state AS to_state, p.attempts_made
)
INSERT INTO payment_log (tenant_id, payment_id, at, source, from_state, to_state, attempt, why)
SELECT tenant_id, payment_id, %(now)s, %(source)s, state, to_state, attempts_made, %(why)s FROM reopened
"""  # noqa: S608 - words of ours, no input


class Switch(NamedTuple):
    """Whether collecting is paused, and why."""

    paused_at: datetime | None
    reason: str | None


def claim(
    connection: Connection, now: datetime, leased_until: datetime, limit: int, *, is_paused: bool
) -> list[tuple[str, UUID]]:
    """Lease what is due and not held back, oldest first, skipping what another sweep holds; (tenant, payment).

    What was begun is always looked after, paused or held: its money may have moved.
    """
    said = {"now": now, "leased_until": leased_until, "limit": limit, "is_paused": is_paused}
    return cast("list[tuple[str, UUID]]", connection.execute(_CLAIM, said).fetchall())


def take_slot(connection: Connection, interval: timedelta) -> timedelta:
    """Take the next place in the pace that all workers share; how long until it comes (negative: now)."""
    row = connection.execute(_TAKE_SLOT, (interval, interval)).fetchone()
    assert row is not None
    return cast("timedelta", row[0])


def switch(connection: Connection) -> Switch:
    """How the switch stands. Takes no lock."""
    row = connection.execute("SELECT paused_at, paused_reason FROM collecting_switch").fetchone()
    assert row is not None
    return Switch(*cast("tuple[datetime | None, str | None]", row))


def set_switch(connection: Connection, paused_at: datetime | None, reason: str | None) -> None:
    """Pause collecting, or let it go on."""
    connection.execute("UPDATE collecting_switch SET paused_at = %s, paused_reason = %s", (paused_at, reason))


def count(
    connection: Connection, tenant_id: str, customer_id: str, starts_at: datetime, amount_minor: int
) -> tuple[int, int]:
    """Count a payment that begins; (payments, minor units) begun by now in that window. Locks the counter."""
    row = connection.execute(_COUNT, (tenant_id, customer_id, starts_at, amount_minor)).fetchone()
    return cast("tuple[int, int]", row)


def hold(connection: Connection, tenant_id: str, customer_id: str, reason: str, detail: str, now: datetime) -> None:
    """Hold back a customer's payments."""
    connection.execute(_HOLD, (tenant_id, customer_id, reason, now, detail))


def holds(connection: Connection, tenant_id: str, customer_id: str) -> list[str]:
    """Why a customer's payments are held back."""
    statement = "SELECT reason FROM customer_holds WHERE tenant_id = %s AND customer_id = %s ORDER BY reason"
    return [cast("str", reason) for (reason,) in connection.execute(statement, (tenant_id, customer_id))]


def release(connection: Connection, tenant_id: str, customer_id: str, reasons: list[str]) -> int:
    """Hold back no more for these reasons; how many stood."""
    statement = "DELETE FROM customer_holds WHERE tenant_id = %s AND customer_id = %s AND reason = ANY(%s)"
    return connection.execute(statement, (tenant_id, customer_id, reasons)).rowcount


def hold_card(
    connection: Connection, tenant_id: str, customer_id: str, payment_method_id: str, reason: str, now: datetime
) -> None:
    """Never try this card again."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "card": payment_method_id, "reason": reason}
    connection.execute(_HOLD_CARD, said | {"now": now})


def declines_of_card(connection: Connection, tenant_id: str, payment_method_id: str, since: datetime) -> list[datetime]:
    """When a card was declined since then, oldest first, whatever it was to pay."""
    rows = connection.execute(_DECLINES_OF_CARD, (tenant_id, payment_method_id, since))
    return [cast("datetime", at) for (at,) in rows]


def others_declined_since_success(connection: Connection, tenant_id: str, customer_id: str, payment_id: UUID) -> int:
    """How many of a customer's payments, but for this one, were declined since one last succeeded."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "payment_id": payment_id}
    row = connection.execute(_DECLINED_SINCE_SUCCESS, said).fetchone()
    assert row is not None
    return cast("int", row[0])


def with_a_card_after_all(connection: Connection, limit: int) -> list[tuple[str, str]]:
    """(tenant, customer) of those who have a card that may be tried, while a payment of theirs waits for one."""
    return cast("list[tuple[str, str]]", connection.execute(_WITH_A_CARD_AFTER_ALL, (limit,)).fetchall())


def open_tiers(connection: Connection, tenant_id: str, customer_id: str) -> tuple[int, int]:
    """How many tier payments of a customer stand open, and how many the customer's plan bears."""
    row = connection.execute(_OPEN_TIERS, {"tenant_id": tenant_id, "customer_id": customer_id}).fetchone()
    return cast("tuple[int, int]", row) if row else (0, 1)


def reopen(connection: Connection, tenant_id: str, customer_id: str, now: datetime, *, source: str, why: str) -> int:
    """Make a customer's payments that wait for a card due at once; how many. Locks them in order."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "now": now, "source": source, "why": why}
    return connection.execute(_REOPEN, said).rowcount
