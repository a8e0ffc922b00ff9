"""What the wallet desk asks of a customer, in one statement: wallets, plan, period, fee, what is owed.

Nothing here takes a lock: usage never waits for a question. Each part is found by the key of its table, or by the
customer's own part of an index; so an answer is one snapshot of one moment.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, cast

from billing.payments import PAID
from billing.quotas import Quota
from db.quotas import HARD_AS_JSON, from_json
from db.schema.base import one_of
from db.session import Connection
from db.tenant_settings import from_json as thresholds_from_json


class CustomerStanding(NamedTuple):
    """A customer at a moment; the period is the last that has begun, and may be over."""

    plan_id: str
    plan_version: int
    next_plan_id: str | None
    next_plan_version: int | None
    next_plan_at: datetime | None
    time_zone: str
    anchor_day: int
    billed_from: datetime
    paused_at: datetime | None
    ended_at: datetime | None
    has_card: bool
    is_held: bool
    price_revision: int
    quota_revision: int
    period_starts_at: datetime | None
    period_ends_at: datetime | None
    period_plan_id: str | None
    period_plan_version: int | None
    period_tokens: int
    is_opened: bool
    fee_state: str | None
    open_tiers: int
    waiting_payments: int
    """Due, and not yet counted against the caps."""
    waiting_minor: int
    day_payments: int
    """Counted against the caps today."""
    day_minor: int
    free_tier_credits: Decimal | None
    """The tenant's own setting, as the three that follow; None: as the installation's says."""
    affordability_buffer: Decimal | None
    low_balance: Mapping[str, Decimal] | None
    low_requests_per_minute: int | None
    quotas: tuple[tuple[Quota, Decimal], ...]
    """The hard ones that what was asked for would count in, each with what is used of it; none where nobody asked."""


class WalletStanding(NamedTuple):
    """A wallet of that customer, in one row with what is known of its grants."""

    wallet_id: int
    currency: str
    balance: Decimal
    reserved: Decimal
    overdraft: Decimal
    low_below: Decimal | None
    """Its own; None: as the setting says."""
    debt: Decimal
    used_total: Decimal
    received_total: Decimal
    open_grants: str
    """As `db.grants.opened` reads them."""
    sources: Mapping[str, str]
    """grant: source, of its open grants"""
    purchased_total: Decimal | None
    """What was bought, less what was taken back of it; None where nobody asked."""
    refilled_at: datetime | None
    refill_amount: Decimal | None
    refill_source: str | None


_CUSTOMER_FIELDS = len(CustomerStanding._fields)

#: A tier payment that stands open: what the stop-loss counts. As `db.collecting.open_tiers` has it.
_OPEN_TIER = f"kind = 'tier' AND state <> 'voided' AND unowed_at IS NULL AND NOT {one_of('state', PAID)}"
_WAITS_FOR_CAPS = "state = 'due' AND attempts_made = 0 AND approved_at IS NULL AND void_wished_at IS NULL"

_CUSTOMER = f"""
SELECT c.tenant_id, c.customer_id, c.plan_id, c.plan_version, c.next_plan_id, c.next_plan_version, c.next_plan_at,
    c.time_zone, c.anchor_day, c.billed_from, c.paused_at, c.ended_at,
    c.default_payment_method_id IS NOT NULL AS has_card,
    EXISTS (
        SELECT FROM customer_holds h WHERE h.tenant_id = c.tenant_id AND h.customer_id = c.customer_id
    ) AS is_held,
    (SELECT revision FROM price_book) AS price_revision, (SELECT revision FROM quota_book) AS quota_revision,
    p.starts_at, p.ends_at, p.plan_id AS period_plan_id, p.plan_version AS period_plan_version,
    coalesce(p.tokens, 0) AS tokens, p.opened_at IS NOT NULL AS is_opened,
    m.fee_state, m.open_tiers, m.waiting, m.waiting_minor, coalesce(d.payments, 0) AS day_payments,
    coalesce(d.amount_minor, 0) AS day_minor, s.free_tier_credits, s.affordability_buffer, s.low_balance,
    s.low_requests_per_minute, {{quotas}} AS quotas
FROM customers c
LEFT JOIN LATERAL (
    SELECT * FROM periods p
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id AND p.starts_at <= %(period_at)s
    ORDER BY p.starts_at DESC LIMIT 1
) p ON true
CROSS JOIN LATERAL (
    SELECT (array_agg(state ORDER BY generation DESC) FILTER (
            WHERE kind = 'subscription' AND period_start = p.starts_at AND state <> 'voided' AND void_wished_at IS NULL
        ))[1] AS fee_state,
        count(*) FILTER (WHERE {_OPEN_TIER}) AS open_tiers,
        count(*) FILTER (WHERE {_WAITS_FOR_CAPS}) AS waiting,
        coalesce(sum(amount_minor) FILTER (WHERE {_WAITS_FOR_CAPS}), 0)::bigint AS waiting_minor
    FROM payments
    WHERE tenant_id = c.tenant_id AND customer_id = c.customer_id
) m
LEFT JOIN collected_counts d
    ON d.tenant_id = c.tenant_id AND d.customer_id = c.customer_id AND d.starts_at = %(day)s
LEFT JOIN tenant_settings s ON s.tenant_id = c.tenant_id
WHERE c.tenant_id = %(tenant_id)s AND c.customer_id = %(customer_id)s
"""  # noqa: S608 - words of ours, no input

_SOURCES = """
SELECT json_object_agg(g.grant_id, g.source) FROM credit_grants g
WHERE g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id AND g.ended_at IS NULL
"""

_PURCHASED = """
SELECT coalesce(sum(CASE WHEN g.payment_id IS NULL THEN g.amount ELSE p.credit_given END), 0)
FROM credit_grants g LEFT JOIN payments p ON p.tenant_id = g.tenant_id AND p.payment_id = g.payment_id
WHERE g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id AND g.source = 'purchase'
"""

_REFILL = """
SELECT g.created_at, g.amount, g.source FROM credit_grants g
WHERE g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id ORDER BY g.number DESC LIMIT 1
"""


@lru_cache(maxsize=8)
def _statement(*, with_sources: bool, with_past: bool, with_quotas: bool) -> bytes:
    """The statement with so much about grants and quotas: few texts are used, each is prepared once."""
    customer = _CUSTOMER.format(quotas=f"({HARD_AS_JSON})" if with_quotas else "NULL::json")
    sources = f"({_SOURCES})" if with_sources else "NULL"
    purchased = f"({_PURCHASED})" if with_past else "NULL::numeric"
    refill = _REFILL if with_past else "SELECT NULL::timestamptz, NULL::numeric, NULL::text"
    statement = f"""
        WITH c AS MATERIALIZED ({customer})
        SELECT c.*, w.wallet_id, w.currency, w.balance, w.reserved, w.overdraft, w.low_below, w.debt, w.used_total,
            w.received_total, w.open_grants, {sources}, {purchased}, last.*
        FROM c
        LEFT JOIN wallets w ON w.tenant_id = c.tenant_id AND w.customer_id = c.customer_id
        LEFT JOIN LATERAL ({refill}) AS last ON true
        ORDER BY w.currency
    """  # noqa: S608 - statements of ours, no input
    return statement.encode()


def standing(
    connection: Connection,
    tenant_id: str,
    customer_id: str,
    now: datetime,
    *,
    with_sources: bool = True,
    with_past: bool = False,
    purpose: Mapping[str, str | None] | None = None,
    used_at: datetime | None = None,
    period_at: datetime | None = None,
) -> tuple[CustomerStanding, list[WalletStanding]] | None:
    """A customer with all wallets, by currency, or None. One statement; takes no lock.

    `purpose` says user, organization, service type and feature of what is to come, each by its name: then the hard
    quotas that it would count in are read as well, in the windows of `used_at`. The period is the last that has begun
    by `period_at`. Either is now, unless it is told.
    """
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moments = {"now": used_at or now, "period_at": period_at or now, "day": day}
    said = {"tenant_id": tenant_id, "customer_id": customer_id} | moments | dict(purpose or {})
    statement = _statement(with_sources=with_sources, with_past=with_past, with_quotas=purpose is not None)
    rows = cast("list[Any]", connection.execute(statement, said).fetchall())
    if not rows:
        return None
    customer = CustomerStanding._make(rows[0][2 : 2 + _CUSTOMER_FIELDS])
    low_balance = thresholds_from_json(cast("Any", customer.low_balance))
    customer = customer._replace(quotas=from_json(cast("Any", customer.quotas)), low_balance=low_balance)
    wallets = [WalletStanding._make(row[2 + _CUSTOMER_FIELDS :]) for row in rows]
    return customer, [one._replace(sources=one.sources or {}) for one in wallets if one.currency is not None]
