"""Payments that fall due: money that is owed from now on. What becomes of them is in `db.payments`."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from db.arrays import TextArray, bigints, moments, texts
from db.session import Connection


class NewPayment(NamedTuple):
    """A payment that falls due. The last three are a top-up's: which one, and what it buys."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    period_start: datetime
    kind: str
    tier: int
    generation: int
    amount_minor: int
    currency: str
    reference: str = ""
    wallet_id: int | None = None
    credit_amount: Decimal | None = None


_FALL_DUE = """
WITH owed AS (
    INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor,
        currency, reference, wallet_id, credit_amount, state, due_at, created_at, updated_at)
    SELECT p.*, 'due', %(now)s, %(now)s, %(now)s
    FROM unnest(%(tenant_id)b::text[], %(payment_id)b::text[]::uuid[], %(customer_id)b::text[],
        %(period_start)b::timestamptz[], %(kind)b::text[], %(tier)b::bigint[]::int[], %(generation)b::bigint[]::int[],
        %(amount_minor)b::bigint[], %(currency)b::text[], %(reference)b::text[], %(wallet_id)b::text[]::bigint[],
        %(credit_amount)b::text[]::numeric[])
        AS p(tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor, currency,
            reference, wallet_id, credit_amount)
    ORDER BY p.tenant_id, p.payment_id
    ON CONFLICT (tenant_id, customer_id, period_start, kind, tier, generation, reference) DO NOTHING
    RETURNING tenant_id, payment_id
)
INSERT INTO payment_log (tenant_id, payment_id, at, source, to_state, attempt, why, detail)
SELECT o.tenant_id, o.payment_id, %(now)s, %(source)s, 'due', 0, %(why)s, w.detail
FROM owed o
LEFT JOIN unnest(%(payment_id)b::text[]::uuid[], %(detail)b::text[]::jsonb[]) AS w(payment_id, detail)
    USING (payment_id)
"""


def fall_due(
    connection: Connection,
    payments: Sequence[NewPayment],
    now: datetime,
    *,
    source: str,
    why: str,
    details: Sequence[Mapping[str, Any] | None] = (),
) -> int:
    """Insert payments that are owed from now; how many are new. Guarded by the natural key."""
    columns = {
        name: _AS_ARRAY.get(name, _as_texts)(values)
        for name, values in zip(NewPayment._fields, zip(*payments, strict=True), strict=True)
    }
    told = texts([json.dumps(one) if one else None for one in details or [None] * len(payments)])
    said = {"now": now, "source": source, "why": why, "detail": told}
    return connection.execute(_FALL_DUE, columns | said).rowcount


def _as_texts(values: Sequence[object]) -> TextArray:
    return texts([None if value is None else str(value) for value in values])


_AS_ARRAY: dict[str, Callable[[Any], object]] = {
    "period_start": moments,
    "tier": bigints,
    "generation": bigints,
    "amount_minor": bigints,
}
"""How a column of new payments that is no text becomes an array."""
