"""Quotas, and their counters. Counters are locked last of all, in order; whoever counts holds the customers' wallets.

A counter that everybody of a tenant counts in has stripes, one for each connection: two workers don't wait for one
another, and who reads sums them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from billing.quotas import THRESHOLDS, Measure, Per, Quota, QuotaKind, Scope
from db.arrays import BigintArray, DateArray, TextArray, bigints, dates, numerics, texts
from db.session import Connection

STRIPES = 32

_COLUMNS = (
    "q.tenant_id, q.quota_id, q.name, q.kind, q.scope, q.subject, q.service_type, q.feature, q.per, q.time_zone, "
    "q.measure, q.currency, q.limit_value, q.is_hard"
)

_GENERAL = f"SELECT {_COLUMNS} FROM quotas q WHERE q.subject = '' AND q.ended_at IS NULL ORDER BY q.quota_id"  # noqa: S608

_NAMED_SCOPES = "SELECT DISTINCT tenant_id, scope FROM quotas WHERE subject <> '' ORDER BY tenant_id, scope"

_NAMED = """
SELECT q.tenant_id, q.quota_id, q.limit_value, q.is_hard
FROM unnest(%b::text[], %b::text[], %b::text[]) AS asked(tenant_id, scope, subject)
JOIN quotas q ON q.tenant_id = asked.tenant_id AND q.scope = asked.scope AND q.subject = asked.subject
WHERE q.ended_at IS NULL ORDER BY q.quota_id
"""

_LOAD = f"""
SELECT {_COLUMNS} FROM unnest(%b::text[], %b::bigint[]) AS asked(tenant_id, quota_id)
JOIN quotas q ON q.tenant_id = asked.tenant_id AND q.quota_id = asked.quota_id
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

#: Only what has reached a threshold is told, of which there is little. A tenant's counter is the sum of its stripes;
#: the others' are seen as they stood before the statement.
_COUNT = f"""
WITH counted AS (
    INSERT INTO quota_counts AS c (tenant_id, quota_id, subject, window_start, stripe, used)
    SELECT a.tenant_id, a.quota_id, a.subject, a.window_start,
        CASE WHEN a.subject = '' THEN pg_backend_pid() %% {STRIPES} ELSE 0 END, a.amount::numeric
    FROM unnest(%(tenant_ids)b::text[], %(quota_ids)b::bigint[], %(subjects)b::text[], %(windows)b::date[],
        %(amounts)b::text[]) AS a(tenant_id, quota_id, subject, window_start, amount)
    ORDER BY a.tenant_id COLLATE "C", a.quota_id, a.subject COLLATE "C", a.window_start
    ON CONFLICT (tenant_id, quota_id, subject, window_start, stripe) DO UPDATE SET used = c.used + excluded.used
    RETURNING c.tenant_id, c.quota_id, c.subject, c.window_start, c.stripe, c.used
), totals AS (
    SELECT c.tenant_id, c.quota_id, c.subject, c.window_start, l.limit_value::numeric AS limit_value,
        CASE WHEN c.subject <> '' THEN c.used ELSE c.used + (
            SELECT coalesce(sum(o.used), 0) FROM quota_counts o WHERE o.tenant_id = c.tenant_id
                AND o.quota_id = c.quota_id AND o.subject = '' AND o.window_start = c.window_start
                AND o.stripe <> c.stripe
        ) END AS used
    FROM counted c
    JOIN unnest(%(of_tenants)b::text[], %(of_quotas)b::bigint[], %(limits)b::text[])
        AS l(tenant_id, quota_id, limit_value) ON l.tenant_id = c.tenant_id AND l.quota_id = c.quota_id
)
SELECT t.tenant_id, t.quota_id, t.subject, t.window_start, t.used, (
    SELECT coalesce(max(w.percent), 0) FROM limit_warnings w WHERE w.tenant_id = t.tenant_id AND w.kind = 'quota'
        AND w.number = t.quota_id AND w.subject = t.subject AND w.window_start = t.window_start
        AND w.limit_value = t.limit_value
) FROM totals t WHERE t.used * 100 >= t.limit_value * {THRESHOLDS[0]} ORDER BY 1, 2, 3, 4
"""  # noqa: S608 - numbers of ours, no input

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


class Standing(NamedTuple):
    """What may change of a quota."""

    tenant_id: str
    quota_id: int
    limit: Decimal
    is_hard: bool


Counter = tuple[str, int, str, date]
"""tenant, quota, subject, window"""


class Total(NamedTuple):
    """A counter after an addition, and the highest threshold of this limit that was said, or 0."""

    used: Decimal
    said: int


class Additions(NamedTuple):
    """What a transaction adds to counters, and the limits of their quotas, ready to be sent."""

    tenant_ids: TextArray
    quota_ids: BigintArray
    subjects: TextArray
    windows: DateArray
    amounts: TextArray
    of_tenants: TextArray
    of_quotas: BigintArray
    limits: TextArray

    @classmethod
    def of(cls, amounts: Mapping[Counter, Decimal], quotas: Iterable[Quota]) -> "Additions":
        """Not of none; `quotas` are those of the counters, each once."""
        tenant_ids, quota_ids, subjects, windows = zip(*amounts, strict=True)
        of_tenants, of_quotas, limits = zip(*((one.tenant_id, one.quota_id, one.limit) for one in quotas), strict=True)
        return cls(
            texts(tenant_ids),
            bigints(quota_ids),
            texts(subjects),
            dates(windows),
            numerics([*amounts.values()]),
            texts(of_tenants),
            bigints(of_quotas),
            numerics(limits),
        )


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


def named(connection: Connection, asked: Iterable[tuple[str, Scope, str]]) -> list[Standing]:
    """The quotas of these (tenant, scope, subject) alone: what may have changed of each. Takes no lock."""
    columns = [texts(column) for column in zip(*asked, strict=True)]
    return [Standing._make(cast("Any", row)) for row in connection.execute(_NAMED, columns, binary=True)]


def load(connection: Connection, quota_keys: Sequence[tuple[str, int]]) -> list[Quota]:
    """Quotas by (tenant, id). Takes no lock."""
    tenant_ids, quota_ids = zip(*quota_keys, strict=True)
    return [_quota(row) for row in connection.execute(_LOAD, (texts(tenant_ids), bigints(quota_ids)), binary=True)]


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


def count(connection: Connection, additions: Additions) -> list[tuple[Counter, Total]]:
    """Add to counters; those that have reached a threshold by it. Locks the counters, in order.

    What others have not committed yet is not in the total of a tenant's counter; of any other it is, for they wait.
    """
    rows = cast("list[Any]", connection.execute(_COUNT, additions._asdict(), binary=True).fetchall())
    return [(row[:4], Total(*row[4:])) for row in rows]


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
