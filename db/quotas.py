"""Quotas, and their counters. Counters are locked last of all, in order; whoever counts holds the customers' wallets.

A counter that everybody of a tenant counts in has stripes, one for each connection: two workers don't wait for one
another, and who reads sums them.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from billing.quotas import Measure, Per, Quota, QuotaKind, Scope
from db.session import Connection

STRIPES = 32

_COLUMNS = (
    "q.tenant_id, q.quota_id, q.name, q.kind, q.scope, q.subject, q.service_type, q.feature, q.per, q.time_zone, "
    "q.measure, q.currency, q.limit_value, q.is_hard"
)

_GENERAL = f"SELECT {_COLUMNS} FROM quotas q WHERE q.subject = '' AND q.ended_at IS NULL ORDER BY q.quota_id"  # noqa: S608

_NAMED_SCOPES = "SELECT DISTINCT tenant_id, scope FROM quotas WHERE subject <> '' ORDER BY tenant_id, scope"

_NAMED = f"""
SELECT {_COLUMNS} FROM unnest(%b::text[], %b::text[], %b::text[]) AS asked(tenant_id, scope, subject)
JOIN quotas q ON q.tenant_id = asked.tenant_id AND q.scope = asked.scope AND q.subject = asked.subject
WHERE q.ended_at IS NULL ORDER BY q.quota_id
"""  # noqa: S608 - column names of ours, no input

_ADD = """
INSERT INTO quotas (tenant_id, name, kind, scope, subject, service_type, feature, per, time_zone, measure, currency,
    limit_value, is_hard, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, name) WHERE ended_at IS NULL DO NOTHING
RETURNING quota_id
"""

_LIMIT = "UPDATE quotas SET limit_value = %s, is_hard = %s, updated_at = %s WHERE tenant_id = %s AND quota_id = %s"

_END = """
UPDATE quotas SET ended_at = %(now)s, updated_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND name = %(name)s AND ended_at IS NULL
"""

_FIND = f"""
SELECT {_COLUMNS} FROM quotas q WHERE q.tenant_id = %s AND q.name = %s AND q.ended_at IS NULL FOR NO KEY UPDATE
"""  # noqa: S608 - column names of ours, no input

_LISTED = f"""
SELECT {_COLUMNS} FROM quotas q
WHERE q.tenant_id = %(tenant_id)s AND q.ended_at IS NULL AND (%(subject)s::text IS NULL OR q.subject = %(subject)s)
    AND (%(after)s::text IS NULL OR q.name > %(after)s)
ORDER BY q.name LIMIT %(limit)s
"""  # noqa: S608 - column names of ours, no input

#: What an event of these adds to which counter; the same words count, take back and audit.
SUBJECT = """CASE q.scope WHEN 'customer' THEN u.customer_id WHEN 'user' THEN u.user_id
    WHEN 'organization' THEN u.organization_id ELSE '' END"""
WINDOW = "date_trunc(q.per, u.occurred_at AT TIME ZONE q.time_zone)::date"
AMOUNT = "CASE q.measure WHEN 'tokens' THEN u.tokens WHEN 'events' THEN 1 ELSE u.cost END"

_FOR = f"""
SELECT {_COLUMNS}, coalesce(sum(c.used), 0) AS used
FROM quotas q
LEFT JOIN quota_counts c ON c.tenant_id = q.tenant_id AND c.quota_id = q.quota_id
    AND c.subject = CASE q.scope WHEN 'customer' THEN %(customer_id)s::text WHEN 'user' THEN %(user_id)s::text
        WHEN 'organization' THEN %(organization_id)s::text ELSE '' END
    AND c.window_start = date_trunc(q.per, %(now)s::timestamptz AT TIME ZONE q.time_zone)::date
WHERE q.tenant_id = %(tenant_id)s AND q.ended_at IS NULL
    AND (q.subject = '' OR (q.scope, q.subject) IN (
        ('customer', %(customer_id)s::text), ('user', %(user_id)s::text), ('organization', %(organization_id)s::text)))
    AND (q.scope <> 'user' OR %(user_id)s::text IS NOT NULL)
    AND (q.scope <> 'organization' OR %(organization_id)s::text IS NOT NULL)
    AND (q.service_type IS NULL OR q.service_type = %(service_type)s::text)
    AND (q.feature IS NULL OR q.feature = %(feature)s::text)
GROUP BY q.tenant_id, q.quota_id ORDER BY q.quota_id
"""  # noqa: S608 - column names of ours, no input

#: The hard ones of them in one value, for a statement that asks other things as well; what is exact is written as text.
HARD_AS_JSON = f"""
SELECT json_agg(json_build_array(f.tenant_id, f.quota_id, f.name, f.kind, f.scope, f.subject, f.service_type, f.feature,
    f.per, f.time_zone, f.measure, f.currency, f.limit_value::text, f.is_hard, f.used::text) ORDER BY f.quota_id)
FROM ({_FOR}) f WHERE f.is_hard
"""  # noqa: S608 - a statement of ours, no input

_COUNT = f"""
INSERT INTO quota_counts AS c (tenant_id, quota_id, subject, window_start, stripe, used)
SELECT d.tenant_id, d.quota_id, d.subject, d.window_start,
    CASE WHEN d.is_striped THEN pg_backend_pid() %% {STRIPES} ELSE 0 END, d.amount
FROM unnest(%(tenant_ids)b::text[], %(quota_ids)b::bigint[], %(subjects)b::text[], %(windows)b::date[],
    %(are_striped)b::boolean[], %(amounts)b::numeric[])
    AS d(tenant_id, quota_id, subject, window_start, is_striped, amount)
ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, quota_id, subject, window_start, stripe) DO UPDATE SET used = c.used + excluded.used
"""  # noqa: S608 - a number of ours, no input

_TOTALS = """
SELECT (SELECT sum(c.used) FROM quota_counts c WHERE c.tenant_id = d.tenant_id AND c.quota_id = d.quota_id
        AND c.subject = d.subject AND c.window_start = d.window_start),
    (SELECT coalesce(max(w.percent), 0) FROM limit_warnings w WHERE w.tenant_id = d.tenant_id AND w.kind = 'quota'
        AND w.number = d.quota_id AND w.subject = d.subject AND w.window_start = d.window_start
        AND w.limit_value = d.limit_value)
FROM unnest(%(tenant_ids)b::text[], %(quota_ids)b::bigint[], %(subjects)b::text[], %(windows)b::date[],
    %(limits)b::numeric[]) WITH ORDINALITY AS d(tenant_id, quota_id, subject, window_start, limit_value, number)
ORDER BY d.number
"""

_TAKE_BACK = f"""
INSERT INTO quota_counts AS c (tenant_id, quota_id, subject, window_start, stripe, used)
SELECT q.tenant_id, q.quota_id, {SUBJECT}, {WINDOW},
    CASE WHEN q.scope = 'tenant' THEN pg_backend_pid() %% {STRIPES} ELSE 0 END, -({AMOUNT})
FROM usage_events u
JOIN quotas q ON q.tenant_id = u.tenant_id AND q.quota_id = ANY (u.quota_ids)
WHERE u.tenant_id = %s AND u.key = %s
ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, quota_id, subject, window_start, stripe) DO UPDATE SET used = c.used + excluded.used
"""  # noqa: S608 - words of ours, no input

_MARK = """
UPDATE usage_events u SET over_quota = true FROM unnest(%b::text[], %b::text[]) AS o(tenant_id, key)
WHERE u.tenant_id = o.tenant_id AND u.key = o.key
"""

_WARN = """
INSERT INTO limit_warnings (tenant_id, kind, number, subject, window_start, limit_value, percent, said_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, kind, number, subject, window_start, limit_value, percent) DO NOTHING
"""

#: Counters with one row each are exact when they are counted; those of tenants are looked at again.
_UNSAID = f"""
SELECT {_COLUMNS}, c.window_start, c.used
FROM quotas q
CROSS JOIN LATERAL (
    SELECT window_start, sum(used) AS used FROM quota_counts c
    WHERE c.tenant_id = q.tenant_id AND c.quota_id = q.quota_id AND c.subject = '' AND c.window_start >= %s
    GROUP BY window_start
) c
WHERE q.scope = 'tenant' AND q.ended_at IS NULL AND c.used > 0 AND c.used * 100 >= q.limit_value * 80
    AND (
        SELECT coalesce(max(w.percent), 0) FROM limit_warnings w WHERE w.tenant_id = q.tenant_id AND w.kind = 'quota'
            AND w.number = q.quota_id AND w.subject = '' AND w.window_start = c.window_start
            AND w.limit_value = q.limit_value
    ) < CASE WHEN c.used >= q.limit_value THEN 100 ELSE 80 END
ORDER BY q.tenant_id, q.quota_id, c.window_start
"""  # noqa: S608 - column names of ours, no input


class NewQuota(NamedTuple):
    """A quota to make."""

    tenant_id: str
    name: str
    kind: QuotaKind
    scope: Scope
    subject: str
    service_type: str | None
    feature: str | None
    per: Per
    time_zone: str
    measure: Measure
    currency: str | None
    limit: Decimal
    is_hard: bool


class Addition(NamedTuple):
    """What a transaction adds to one counter."""

    quota: Quota
    subject: str
    window: date
    amount: Decimal


class Total(NamedTuple):
    """A counter after an addition, and the highest threshold of this limit that was said, or 0."""

    used: Decimal
    said: int


class Warned(NamedTuple):
    """A threshold that was reached: of a quota, or of a tier, by number."""

    tenant_id: str
    kind: str
    number: int
    subject: str
    window: date
    limit: Decimal
    percent: int


def general(connection: Connection) -> list[Quota]:
    """The quotas of all tenants that are for everybody of their scope. Takes no lock."""
    return [_quota(row) for row in connection.execute(_GENERAL)]


def named_scopes(connection: Connection) -> list[tuple[str, Scope]]:
    """(tenant, scope) in which somebody has, or had, a quota of their own. Takes no lock."""
    return [(str(tenant_id), Scope(str(scope))) for tenant_id, scope in connection.execute(_NAMED_SCOPES)]


def named(connection: Connection, asked: Sequence[tuple[str, Scope, str]]) -> list[Quota]:
    """The quotas of these (tenant, scope, subject) alone. Takes no lock."""
    columns = [list(map(str, column)) for column in zip(*asked, strict=True)]
    return [_quota(row) for row in connection.execute(_NAMED, columns)]


def add(connection: Connection, new: NewQuota, now: datetime) -> int | None:
    """Add a quota; its id, or None when the name is taken."""
    row = connection.execute(_ADD, (*new, now, now)).fetchone()
    return None if row is None else cast("int", row[0])


def set_limit(connection: Connection, quota: Quota, limit: Decimal, now: datetime, *, is_hard: bool) -> None:
    """Give a quota another limit."""
    connection.execute(_LIMIT, (limit, is_hard, now, quota.tenant_id, quota.quota_id))


def end(connection: Connection, tenant_id: str, name: str, now: datetime) -> bool:
    """End a quota; whether there was one."""
    return connection.execute(_END, {"tenant_id": tenant_id, "name": name, "now": now}).rowcount == 1


def find(connection: Connection, tenant_id: str, name: str) -> Quota | None:
    """A quota by its name. Locks it."""
    row = connection.execute(_FIND, (tenant_id, name)).fetchone()
    return None if row is None else _quota(row)


def listed(
    connection: Connection, tenant_id: str, limit: int, *, subject: str | None = None, after: str | None = None
) -> list[Quota]:
    """A tenant's quotas by name, or those of a subject; after a name, if one is given."""
    said = {"tenant_id": tenant_id, "subject": subject, "after": after, "limit": limit}
    return [_quota(row) for row in connection.execute(_LISTED, said)]


def of_whom(connection: Connection, said: dict[str, Any]) -> list[tuple[Quota, Decimal]]:
    """The quotas that usage by somebody would count in, each with what is used in the window of now. Takes no lock."""
    rows = connection.execute(_FOR, said)
    return [(_quota(row[:-1]), cast("Decimal", row[-1])) for row in rows]


def count(connection: Connection, additions: Sequence[Addition]) -> list[Total]:
    """Add to counters, and their totals after it. Locks the counters, in order.

    What others have not committed yet is not in the total of a tenant's counter; of any other it is, for they wait.
    """
    said = {
        "tenant_ids": [one.quota.tenant_id for one in additions],
        "quota_ids": [one.quota.quota_id for one in additions],
        "subjects": [one.subject for one in additions],
        "windows": [one.window for one in additions],
    }
    more = {
        "are_striped": [one.quota.is_striped for one in additions],
        "amounts": [one.amount for one in additions],
    }
    limits = {"limits": [one.quota.limit for one in additions]}
    with connection.pipeline():
        connection.execute(_COUNT, said | more)
        totals = connection.execute(_TOTALS, said | limits)
    return [Total._make(cast("Any", row)) for row in totals.fetchall()]


def take_back(connection: Connection, tenant_id: str, key: str) -> None:
    """Take an event off the counters that it was counted in. Locks them, in order."""
    connection.execute(_TAKE_BACK, (tenant_id, key))


def mark_over(connection: Connection, events: Sequence[tuple[str, str]]) -> None:
    """Mark events, by tenant and key, as over a quota. The caller has inserted or locked them."""
    connection.execute(_MARK, [list(column) for column in zip(*events, strict=True)])


def warn(connection: Connection, one: Warned, now: datetime) -> bool:
    """Write down that a threshold was reached; False when it was before."""
    return connection.execute(_WARN, (*one, now)).rowcount == 1


def unsaid(connection: Connection, since: date) -> list[tuple[Quota, date, Decimal]]:
    """Tenants' counters, of windows from then on, that have reached what nobody was told of. Takes no lock."""
    rows = connection.execute(_UNSAID, (since,))
    return [(_quota(row[:-2]), *cast("tuple[date, Decimal]", row[-2:])) for row in rows]


def from_json(found: Sequence[Sequence[Any]] | None) -> tuple[tuple[Quota, Decimal], ...]:
    """What `HARD_AS_JSON` gives: quotas, each with what is used in the window of now."""
    return tuple((_quota([*row[:12], Decimal(row[12]), row[13]]), Decimal(row[14])) for row in found or ())


def _quota(row: Sequence[Any]) -> Quota:
    words = (QuotaKind(row[3]), Scope(row[4]), *row[5:8], Per(row[8]), row[9], Measure(row[10]))
    return Quota(*row[:3], *words, *row[11:])
