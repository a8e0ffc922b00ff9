"""What is low, ends soon, or holds no longer: found from rows, for alerts. Nothing here locks a wallet."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

from billing.payments import AlertKind
from billing.rating import UNPRICED_SAYS
from db.session import Connection

WalletKey = tuple[str, int]
"""tenant, wallet"""


GrantKey = tuple[datetime, str, UUID]
"""when it ends, tenant, grant"""


class Belows(NamedTuple):
    """Below how much a wallet is low that has no threshold of its own: by currency, and in any other."""

    by_currency: Mapping[str, Decimal]
    other: Decimal | None


class LowWallet(NamedTuple):
    """A wallet that has less than its threshold."""

    tenant_id: str
    wallet_id: int
    customer_id: str
    currency: str
    own: Decimal
    low_below: Decimal


class EndingGrant(NamedTuple):
    """A grant that ends soon, with something left in it."""

    tenant_id: str
    grant_id: UUID
    customer_id: str
    currency: str
    source: str
    remaining: Decimal
    expires_at: datetime


#: Own, as `billing.balances.Balance` has it; a test holds the two together. A wallet into which nothing ever came is
#: not low, it is not used.
_LOW = """
SELECT w.tenant_id, w.wallet_id, w.customer_id, w.currency, own.amount, low.below
FROM wallets w
LEFT JOIN unnest(%(currencies)s::text[], %(belows)s::numeric[]) AS t(currency, below) ON t.currency = w.currency
LEFT JOIN tenant_settings s ON s.tenant_id = w.tenant_id
CROSS JOIN LATERAL (
    SELECT coalesce(
        w.low_below,
        CASE WHEN s.low_balance IS NULL THEN coalesce(t.below, %(other)s::numeric)
            ELSE coalesce(s.low_balance->>w.currency, s.low_balance->>'')::numeric
        END
    ) AS below
) low
CROSS JOIN LATERAL (
    SELECT coalesce(sum((one->>1)::numeric), 0) - w.debt - w.reserved AS amount
    FROM json_array_elements(w.open_grants::json) AS one
    WHERE coalesce((one->>2)::timestamptz, '-infinity') <= %(now)s
        AND coalesce((one->>3)::timestamptz, 'infinity') > %(now)s
) own
WHERE (w.received_total > 0 OR w.balance < 0) AND own.amount < low.below
"""

_NEWLY_LOW = f"""
{_LOW} AND (w.tenant_id, w.wallet_id) > (%(after_tenant)s, %(after_wallet)s)
    AND (w.tenant_id, w.wallet_id) <= (%(until_tenant)s, %(until_wallet)s)
    AND NOT EXISTS (
        SELECT FROM alert_causes c
        WHERE c.tenant_id = w.tenant_id AND c.kind = %(kind)s AND c.subject = w.wallet_id::text
    )
ORDER BY w.tenant_id, w.wallet_id LIMIT %(limit)s
"""

_LAST_OF_NEXT = """
SELECT tenant_id, wallet_id FROM (
    SELECT tenant_id, wallet_id FROM wallets WHERE (tenant_id, wallet_id) > (%s, %s)
    ORDER BY tenant_id, wallet_id LIMIT %s
) AS next
ORDER BY tenant_id DESC, wallet_id DESC LIMIT 1
"""

_LOW_NO_MORE = f"""
DELETE FROM alert_causes c USING unnest(%(tenants)s::text[], %(subjects)s::text[]) AS asked(tenant_id, subject)
WHERE c.kind = %(kind)s AND c.tenant_id = asked.tenant_id AND c.subject = asked.subject AND NOT EXISTS (
    {_LOW} AND w.tenant_id = c.tenant_id AND w.wallet_id = c.subject::bigint
)
"""  # noqa: S608 - a statement of ours, no input

#: What comes again with each period is left out: it ends each month, and the next one is there by then.
_CAN_END = "g.ended_at IS NULL AND g.expires_at IS NOT NULL AND g.period_start IS NULL"

_LAST_OF_ENDING = f"""
SELECT expires_at, tenant_id, grant_id FROM (
    SELECT g.expires_at, g.tenant_id, g.grant_id FROM credit_grants g
    WHERE {_CAN_END} AND (g.expires_at, g.tenant_id, g.grant_id) > (%s, %s, %s) AND g.expires_at <= %s
    ORDER BY g.expires_at, g.tenant_id, g.grant_id LIMIT %s
) AS next
ORDER BY expires_at DESC, tenant_id DESC, grant_id DESC LIMIT 1
"""  # noqa: S608 - a statement of ours, no input

_ENDING = f"""
SELECT g.tenant_id, g.grant_id, w.customer_id, w.currency, g.source, g.remaining, g.expires_at
FROM grants_remaining g JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
WHERE {_CAN_END} AND g.remaining > 0
    AND (g.expires_at, g.tenant_id, g.grant_id) > (%(after_at)s, %(after_tenant)s, %(after_grant)s)
    AND (g.expires_at, g.tenant_id, g.grant_id) <= (%(until_at)s, %(until_tenant)s, %(until_grant)s)
    AND NOT EXISTS (
        SELECT FROM alert_causes c
        WHERE c.tenant_id = g.tenant_id AND c.kind = %(kind)s AND c.subject = g.grant_id::text
    )
ORDER BY g.expires_at, g.tenant_id, g.grant_id LIMIT %(limit)s
"""  # noqa: S608 - a statement of ours, no input

_PLACE_OF_WALLETS = "SELECT wallet_tenant_id, wallet_id FROM alert_looks WHERE wallet_id IS NOT NULL"

_KEEP_PLACE_OF_WALLETS = "UPDATE alert_looks SET wallet_tenant_id = %s, wallet_id = %s"

_PLACE_OF_GRANTS = "SELECT grant_ends_at, grant_tenant_id, grant_id FROM alert_looks WHERE grant_id IS NOT NULL"

_KEEP_PLACE_OF_GRANTS = "UPDATE alert_looks SET grant_ends_at = %s, grant_tenant_id = %s, grant_id = %s"

_ENDED = """
DELETE FROM alert_causes c USING credit_grants g
WHERE c.kind = %(kind)s AND g.tenant_id = c.tenant_id AND g.grant_id = c.subject::uuid AND g.expires_at <= %(now)s
"""

_PRICED = """
DELETE FROM alert_causes c WHERE c.kind = %(kind)s AND NOT EXISTS (
    SELECT FROM usage_events u WHERE u.tenant_id = c.tenant_id AND u.status = 'parked' AND u.park_reason = 'unpriced'
        AND substring(u.park_detail FROM strpos(u.park_detail, '] ') + 2) = c.subject || %(says)s
)
"""

_SAID = """
SELECT tenant_id, subject FROM alert_causes WHERE kind = %s AND (tenant_id, subject) > (%s, %s)
ORDER BY tenant_id, subject LIMIT %s
"""

_LET_GO = "DELETE FROM alert_causes WHERE tenant_id = %s AND kind = %s AND subject = %s"


def place_of_wallets(connection: Connection) -> WalletKey | None:
    """The wallet that the look for low ones came to; None: it saw all."""
    return cast("WalletKey | None", connection.execute(_PLACE_OF_WALLETS).fetchone())


def keep_place_of_wallets(connection: Connection, place: WalletKey | None) -> None:
    """Go on there. Locks the one row for as long as the transaction lasts."""
    connection.execute(_KEEP_PLACE_OF_WALLETS, place or (None, None))


def place_of_grants(connection: Connection) -> GrantKey | None:
    """The grant that the look for those that end came to; None: it saw all."""
    return cast("GrantKey | None", connection.execute(_PLACE_OF_GRANTS).fetchone())


def keep_place_of_grants(connection: Connection, place: GrantKey | None) -> None:
    """Go on there. Locks as `keep_place_of_wallets` does."""
    connection.execute(_KEEP_PLACE_OF_GRANTS, place or (None, None, None))


def last_of_next(connection: Connection, after: WalletKey, number: int) -> WalletKey | None:
    """The last of so many wallets that come after one, or of as many as there are; None where none comes."""
    return cast("WalletKey | None", connection.execute(_LAST_OF_NEXT, (*after, number)).fetchone())


def newly_low(
    connection: Connection, belows: Belows, after: WalletKey, until: WalletKey, now: datetime, limit: int
) -> list[LowWallet]:
    """The first wallets between these two, the second one included, that are low and of which it was not said."""
    places = ("after_tenant", "after_wallet", "until_tenant", "until_wallet")
    said = _thresholds(belows) | dict(zip(places, (*after, *until), strict=True)) | {"now": now, "limit": limit}
    return [LowWallet._make(cast("Any", row)) for row in connection.execute(_NEWLY_LOW, said)]


def let_go_of_low(connection: Connection, causes: Sequence[tuple[str, str]], belows: Belows, now: datetime) -> int:
    """Forget of those of these (tenant, wallet) that are low no more that it was said; how many."""
    tenants, subjects = (list(column) for column in zip(*causes, strict=True))
    said = _thresholds(belows) | {"now": now, "tenants": tenants, "subjects": subjects}
    return connection.execute(_LOW_NO_MORE, said).rowcount


def last_of_ending(connection: Connection, after: GrantKey, soon: datetime, number: int) -> GrantKey | None:
    """The last of so many grants that come after one and end by then, or of as many as there are; None: none does."""
    return cast("GrantKey | None", connection.execute(_LAST_OF_ENDING, (*after, soon, number)).fetchone())


def ending(connection: Connection, after: GrantKey, until: GrantKey, limit: int) -> list[EndingGrant]:
    """The first grants between these two, the second one included, of which it was not said that they end."""
    places = ("after_at", "after_tenant", "after_grant", "until_at", "until_tenant", "until_grant")
    said = dict(zip(places, (*after, *until), strict=True)) | {"kind": AlertKind.CREDITS_EXPIRING, "limit": limit}
    return [EndingGrant._make(cast("Any", row)) for row in connection.execute(_ENDING, said)]


def let_go_of_ended(connection: Connection, now: datetime) -> int:
    """Forget of what has ended that it was said; it ends once."""
    return connection.execute(_ENDED, {"kind": AlertKind.CREDITS_EXPIRING, "now": now}).rowcount


def let_go_of_priced(connection: Connection) -> int:
    """Forget of products that no event waits for any more that they had no price; how many."""
    return connection.execute(_PRICED, {"kind": AlertKind.UNPRICED, "says": UNPRICED_SAYS}).rowcount


def said(connection: Connection, kind: AlertKind, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
    """The next of what was said and still holds, as far as is known: (tenant, subject), in this order."""
    return cast("list[tuple[str, str]]", connection.execute(_SAID, (kind, *after, limit)).fetchall())


def let_go(connection: Connection, tenant_id: str, kind: AlertKind, subject: str) -> None:
    """This holds no more."""
    connection.execute(_LET_GO, (tenant_id, kind, subject))


def _thresholds(belows: Belows) -> dict[str, Any]:
    return {
        "kind": AlertKind.LOW_BALANCE,
        "currencies": list(belows.by_currency),
        "belows": list(belows.by_currency.values()),
        "other": belows.other,
    }
