"""Text is compared byte by byte, whatever the database's own language is.

A column changes its collation only when nothing names it: policies, triggers, views and functions that give rows of
one are taken away, and made again as they were. Indexes over text are built anew, and what was counted of it is counted
again. What is not Centavo's in the same schema stays as it is.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from billing.errors import Rejected

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = (
    "admin_acts",
    "alert_causes",
    "alert_deliveries",
    "alert_looks",
    "alerts",
    "api_keys",
    "archives",
    "audit_differences",
    "audit_turn",
    "checkpoints",
    "collected_counts",
    "collecting_switch",
    "corrections",
    "credit_captures",
    "credit_grants",
    "credit_holds",
    "customer_holds",
    "customers",
    "disputes",
    "envelope_attempts",
    "idempotent_requests",
    "installation",
    "last_seen",
    "ledger_entries",
    "limit_warnings",
    "month_turns",
    "parked_inputs",
    "payment_attempts",
    "payment_log",
    "payment_methods",
    "payments",
    "period_quantities",
    "periods",
    "plans",
    "price_book",
    "price_replays",
    "prices",
    "quota_book",
    "quota_counts",
    "quotas",
    "refunds",
    "shadow_lists",
    "shadow_periods",
    "shadow_sums",
    "statement_balances",
    "statement_lines",
    "statement_numbers",
    "statements",
    "subscription_log",
    "tenant_settings",
    "tenants",
    "top_up_rules",
    "usage_events",
    "usage_inbox",
    "usage_log",
    "wallets",
    "webhook_endpoints",
    "webhook_events",
)
OWN_VIEWS = ["grants_remaining", "token_billing_charges", "token_consumption", "token_usage_summary"]

#: Views of others over these tables, which only their owners can take away for a while.
OTHERS = """
SELECT DISTINCT format('%I.%I', n.nspname, v.relname)
FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace
JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY (:own) AND v.oid <> t.oid
    AND NOT (v.relnamespace = current_schema()::regnamespace AND v.relname = ANY (:own))
ORDER BY 1
"""

POLICIES = """
SELECT format('DROP POLICY %I ON %I', policyname, tablename),
    format('CREATE POLICY %I ON %I AS %s FOR %s TO %s%s%s', policyname, tablename, permissive, cmd,
        (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END, ', ')
            FROM unnest(roles) AS role),
        ' USING (' || qual || ')', ' WITH CHECK (' || with_check || ')')
FROM pg_policies WHERE schemaname = current_schema() AND tablename = ANY (:own) ORDER BY tablename, policyname
"""

TRIGGERS = """
SELECT format('DROP TRIGGER %I ON %I', t.tgname, c.relname), pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY (:own) AND NOT t.tgisinternal
ORDER BY t.oid
"""

#: One that stands on another is younger.
VIEWS = """
SELECT format('DROP VIEW %I', relname),
    format('CREATE VIEW %I%s AS %s', relname, ' WITH (' || array_to_string(reloptions, ', ') || ')',
        pg_get_viewdef(oid))
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relname = ANY (:own) AND relkind = 'v' ORDER BY oid
"""

#: Those that give rows of a view.
FUNCTIONS = """
SELECT format('DROP FUNCTION %s', p.oid::regprocedure), pg_get_functiondef(p.oid)
FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'v'
    AND c.relname = ANY (:own)
WHERE p.pronamespace = current_schema()::regnamespace ORDER BY p.oid
"""

#: What owners have given others of those.
RIGHTS = """
SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, o.what,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM (
    SELECT format('%I', c.relname), c.relacl, c.relowner FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'v' AND c.relname = ANY (:own)
    UNION ALL
    SELECT format('FUNCTION %s', p.oid::regprocedure), p.proacl, p.proowner
    FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'v'
        AND c.relname = ANY (:own)
    WHERE p.pronamespace = current_schema()::regnamespace
) AS o(what, acl, owner) CROSS JOIN LATERAL aclexplode(o.acl) a
WHERE a.grantee <> o.owner
"""

#: A table that nobody has counted is left so: Postgres plans as if it were not empty, which it will not be.
TEXT_COLUMNS = """
SELECT format('ALTER TABLE %I %s', c.relname, string_agg(
        format('ALTER COLUMN %I TYPE %s COLLATE "C"', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
        ORDER BY a.attnum)),
    CASE WHEN c.reltuples > 0 THEN format('ANALYZE %I', c.relname) END
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY (:own)
    AND a.attcollation = 'pg_catalog.default'::regcollation
GROUP BY c.oid ORDER BY c.relname
"""


def upgrade() -> None:
    if others := rows(OTHERS):
        names = ", ".join(str(name) for (name,) in others)
        raise Rejected(f"views of yours stand on tables of Centavo's: drop {names}, migrate, and create them again")
    policies, triggers, views, functions = rows(POLICIES), rows(TRIGGERS), rows(VIEWS), rows(FUNCTIONS)
    rights, columns = rows(RIGHTS), rows(TEXT_COLUMNS)
    for drop, _ in [*policies, *triggers, *functions, *reversed(views)]:
        run(drop)
    for alter, _ in columns:
        run(alter)
    for _, create in [*views, *functions, *triggers, *policies]:
        run(create)
    for (grant,) in rights:
        run(grant)
    for _, count in columns:
        if count is not None:
            run(count)


def rows(statement: str) -> Sequence[Sequence[Any]]:
    return op.get_bind().execute(sa.text(statement), {"own": [*TABLES, *OWN_VIEWS]}).all()


def run(statement: str) -> None:
    op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
