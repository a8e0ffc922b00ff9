"""Top-ups: value that a customer buys ahead, by request or by a rule. They are payments of kind `top_up`."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

from db.session import Connection

#: References of top-ups that a rule has made begin so; those of requests do not.
BY_RULE = "auto:"


class TopUpRow(NamedTuple):
    """A top-up that was asked for."""

    payment_id: UUID
    wallet_id: int
    credit_amount: Decimal
    amount_minor: int
    currency: str
    state: str


class RuleRow(NamedTuple):
    """When a wallet has less than `threshold`, `credit_amount` is bought for `amount_minor`, up to a cap a month."""

    tenant_id: str
    wallet_id: int
    threshold: Decimal
    credit_amount: Decimal
    amount_minor: int
    currency: str
    monthly_cap_minor: int
    is_active: bool
    updated_at: datetime


class LowWallet(NamedTuple):
    """A wallet below the threshold of its rule, with nothing under way; what its rule has bought this month."""

    tenant_id: str
    wallet_id: int
    customer_id: str
    wallet_currency: str
    balance: Decimal
    credit_amount: Decimal
    amount_minor: int
    currency: str
    monthly_cap_minor: int
    bought: int
    bought_minor: int


_ASKED = """
SELECT payment_id, wallet_id, credit_amount, amount_minor, currency, state FROM payments
WHERE tenant_id = %s AND customer_id = %s AND kind = 'top_up' AND reference = %s
ORDER BY generation DESC LIMIT 1
"""

_SET_RULE = """
INSERT INTO top_up_rules (tenant_id, wallet_id, threshold, credit_amount, amount_minor, currency, monthly_cap_minor,
    is_active, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, wallet_id) DO UPDATE
    SET threshold = excluded.threshold, credit_amount = excluded.credit_amount, amount_minor = excluded.amount_minor,
        currency = excluded.currency, monthly_cap_minor = excluded.monthly_cap_minor,
        is_active = excluded.is_active, updated_at = excluded.updated_at
"""

_LOW = """
    SELECT r.tenant_id, r.wallet_id FROM top_up_rules r
    JOIN wallets w ON w.tenant_id = r.tenant_id AND w.wallet_id = r.wallet_id
    WHERE r.is_active AND w.balance - w.reserved < r.threshold
        AND NOT EXISTS (
            SELECT FROM customer_holds h WHERE h.tenant_id = w.tenant_id AND h.customer_id = w.customer_id
        )
        -- Its cap was reached, and a person was told: nothing to look at before next month, or another rule.
        AND NOT EXISTS (
            SELECT FROM alerts a
            WHERE a.tenant_id = w.tenant_id AND a.kind = 'top_up_cap'
                AND a.subject = concat_ws(' ', w.customer_id, w.currency)
                AND a.last_at >= greatest(%(month)s, r.updated_at)
        )
        AND NOT EXISTS (
            SELECT FROM payments p
            WHERE p.tenant_id = w.tenant_id AND p.customer_id = w.customer_id AND p.kind = 'top_up'
                AND p.wallet_id = w.wallet_id
                AND CASE
                    -- It is under way; or it was given up this month, and trying again at once would wear out the card.
                    WHEN p.state = 'uncollectible' THEN p.period_start >= %(month)s
                    WHEN p.succeeded_at IS NULL THEN p.state <> 'voided'
                    -- A person or a bank gave it back: buying again by itself would undo that.
                    ELSE (p.state <> 'succeeded') AND p.updated_at > r.updated_at
                END
        )
"""

_LOCK_LOW = f"""
WITH low AS MATERIALIZED ({_LOW} ORDER BY r.tenant_id, r.wallet_id LIMIT %(limit)s)
SELECT r.tenant_id, r.wallet_id FROM top_up_rules r
JOIN low USING (tenant_id, wallet_id)
ORDER BY r.tenant_id, r.wallet_id
FOR NO KEY UPDATE OF r SKIP LOCKED
"""  # noqa: S608 - statements of ours, no input

_STILL_LOW = f"""
WITH low AS MATERIALIZED (
    {_LOW} AND (r.tenant_id, r.wallet_id) IN (SELECT * FROM unnest(%(tenant_ids)s::text[], %(wallet_ids)s::bigint[]))
)
SELECT r.tenant_id, r.wallet_id, w.customer_id, w.currency, w.balance, r.credit_amount, r.amount_minor, r.currency,
    r.monthly_cap_minor, b.bought, b.bought_minor
FROM low
JOIN top_up_rules r USING (tenant_id, wallet_id)
JOIN wallets w USING (tenant_id, wallet_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS bought,
        coalesce(sum(p.amount_minor) FILTER (WHERE p.state <> 'voided'), 0)::bigint AS bought_minor
    FROM payments p
    WHERE p.tenant_id = w.tenant_id AND p.customer_id = w.customer_id AND p.period_start = %(month)s
        AND p.kind = 'top_up' AND p.wallet_id = w.wallet_id AND starts_with(p.reference, %(by_rule)s)
) b
ORDER BY r.tenant_id, r.wallet_id
"""  # noqa: S608 - statements of ours, no input


def asked(connection: Connection, tenant_id: str, customer_id: str, reference: str) -> TopUpRow | None:
    """A customer's top-up of that reference, whenever it was asked for, or None."""
    row = connection.execute(_ASKED, (tenant_id, customer_id, reference)).fetchone()
    return TopUpRow._make(cast("Any", row)) if row else None


def set_rule(connection: Connection, rule: RuleRow) -> None:
    """Give a wallet a rule, in the place of the one it had."""
    connection.execute(_SET_RULE, rule)


def remove_rule(connection: Connection, tenant_id: str, wallet_id: int) -> bool:
    """Take a wallet's rule away; whether it had one."""
    statement = "DELETE FROM top_up_rules WHERE tenant_id = %s AND wallet_id = %s"
    return connection.execute(statement, (tenant_id, wallet_id)).rowcount == 1


def rules_of(connection: Connection, tenant_id: str, wallet_ids: Sequence[int]) -> list[RuleRow]:
    """The rules of these wallets."""
    statement = (
        "SELECT tenant_id, wallet_id, threshold, credit_amount, amount_minor, currency, monthly_cap_minor, is_active,"
        " updated_at FROM top_up_rules WHERE tenant_id = %s AND wallet_id = ANY(%s) ORDER BY wallet_id"
    )
    found = connection.execute(statement, (tenant_id, list(wallet_ids)))
    return [RuleRow._make(cast("Any", row)) for row in found]


def lock_low(connection: Connection, month: datetime, limit: int) -> list[tuple[str, int]]:
    """Lock the rules that are to act, in order, skipping those another sweep holds; (tenant, wallet) of each.

    The rule's lock stands for its wallet here: usage goes on while a sweep looks.
    """
    said = {"month": month, "limit": limit}
    return cast("list[tuple[str, int]]", connection.execute(_LOCK_LOW, said).fetchall())


def still_low(connection: Connection, month: datetime, keys: Sequence[tuple[str, int]]) -> list[LowWallet]:
    """Those of the (tenant, wallet) that are still low, seen after their rules were locked."""
    tenant_ids, wallet_ids = zip(*keys, strict=True)
    said = {
        "month": month,
        "tenant_ids": list(tenant_ids),
        "wallet_ids": list(wallet_ids),
        "by_rule": BY_RULE,
    }
    return [LowWallet._make(cast("Any", row)) for row in connection.execute(_STILL_LOW, said)]
