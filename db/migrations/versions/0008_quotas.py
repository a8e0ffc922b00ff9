"""Quotas with their counters and warnings; alerts as messages to their tenants."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ALERT_KINDS = (
    "kind IN ('audit_differs', 'budget_threshold', 'cap_reached', 'cap_threshold', 'collected_twice', "
    "'collecting_fails', 'dispute_lost', 'dispute_opened', 'month_fails', 'open_tiers', 'quota_threshold', "
    "'refund_failed', 'statement_fails', 'stripe_refuses', 'tier_threshold', 'top_up_cap', 'voided_but_paid', "
    "'webhook_given_up', 'webhook_unworkable')"
)

BUMP_QUOTA_BOOK = """
CREATE OR REPLACE FUNCTION bump_quota_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.subject <> '' THEN
        PERFORM FROM quotas q WHERE q.tenant_id = NEW.tenant_id AND q.scope = NEW.scope AND q.subject <> ''
            AND q.quota_id <> NEW.quota_id;
        IF FOUND OR TG_OP = 'UPDATE' THEN
            RETURN NULL;
        END IF;
    END IF;
    UPDATE quota_book SET revision = revision + 1;
    RETURN NULL;
END $$
"""

LASTING = "tenant_id, quota_id, name, kind, scope, subject, service_type, feature, per, time_zone, measure, currency"


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("quota_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="which user, customer or organization; '': each, or the tenant",
        ),
        sa.Column("service_type", sa.Text(), nullable=True, comment="NULL: of all"),
        sa.Column("feature", sa.Text(), nullable=True, comment="NULL: of all"),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False, comment="in which its windows begin"),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("limit_value", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("is_hard", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="nothing counts in it any more"),
        sa.CheckConstraint("name <> ''", name=op.f("quotas_name_check")),
        sa.CheckConstraint("kind IN ('budget', 'cap', 'quota')", name=op.f("quotas_kind_check")),
        sa.CheckConstraint(
            "scope IN ('customer', 'organization', 'tenant', 'user')", name=op.f("quotas_scope_check")
        ),
        sa.CheckConstraint("scope <> 'tenant' OR subject = ''", name=op.f("quotas_subject_check")),
        sa.CheckConstraint("per IN ('day', 'month')", name=op.f("quotas_per_check")),
        sa.CheckConstraint("measure IN ('cost', 'events', 'tokens')", name=op.f("quotas_measure_check")),
        sa.CheckConstraint("(measure = 'cost') = (currency IS NOT NULL)", name=op.f("quotas_currency_check")),
        sa.CheckConstraint("limit_value >= 0", name=op.f("quotas_limit_check")),
        sa.CheckConstraint(
            "kind <> 'budget' OR (feature IS NOT NULL AND NOT is_hard)", name=op.f("quotas_budget_check")
        ),
        sa.CheckConstraint(
            "kind <> 'cap' OR (scope = 'customer' AND subject <> '' AND is_hard)", name=op.f("quotas_cap_check")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("quotas_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "quota_id", name=op.f("quotas_pkey")),
        comment="How much may be used in a day or a month. Only the limit, and whether it is hard, change.",
    )
    op.create_index(
        "quotas_name", "quotas", ["tenant_id", "name"], unique=True, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_index("quotas_of_subject", "quotas", ["tenant_id", "scope", "subject"])
    op.create_table(
        "quota_book",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("quota_book_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("quota_book_pkey")),
        comment="Moves with what processes keep of quotas; each transaction compares it.",
    )
    op.create_table(
        "quota_counts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("quota_id", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="whose; '' for the tenant"),
        sa.Column("window_start", sa.Date(), nullable=False, comment="its first day, by the quota's zone"),
        sa.Column(
            "stripe", sa.SmallInteger(), nullable=False, comment="0 but for the tenant's; all of them together count"
        ),
        sa.Column(
            "used",
            sa.Numeric(precision=38, scale=12),
            nullable=False,
            comment="of one stripe alone: what a void takes back may make it negative",
        ),
        sa.CheckConstraint("stripe >= 0", name=op.f("quota_counts_stripe_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "quota_id"], ["quotas.tenant_id", "quotas.quota_id"], name=op.f("quota_counts_quotas_fkey")
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "quota_id", "subject", "window_start", "stripe", name=op.f("quota_counts_pkey")
        ),
        comment="What was used of a quota in a window: the sum of the events that name it.",
        postgresql_with={"fillfactor": 60},
    )
    op.create_table(
        "limit_warnings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="which quota, or which tier"),
        sa.Column("subject", sa.Text(), nullable=False, comment="whose counter; of a tier, the customer"),
        sa.Column("window_start", sa.Date(), nullable=False),
        sa.Column("limit_value", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("percent", sa.SmallInteger(), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('quota', 'tier')", name=op.f("limit_warnings_kind_check")),
        sa.CheckConstraint("percent IN (80, 100)", name=op.f("limit_warnings_percent_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("limit_warnings_tenants_fkey")),
        sa.PrimaryKeyConstraint(
            *("tenant_id", "kind", "number", "subject", "window_start", "limit_value", "percent"),
            name=op.f("limit_warnings_pkey"),
        ),
        comment="Each threshold that was reached, once in a window, whatever became of its alert.",
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column(
            "previous_secret", sa.Text(), nullable=True, comment="signs as well, for a while after it was replaced"
        ),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="in a row"),
        sa.Column(
            "rests_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="it failed, and is left alone until then",
        ),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True, comment="a worker delivers to it"),
        sa.Column(
            "disabled_at", sa.DateTime(timezone=True), nullable=True, comment="nothing is sent until it is set again"
        ),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "starts_with(url, 'https://') OR starts_with(url, 'http://')", name=op.f("webhook_endpoints_url_check")
        ),
        sa.CheckConstraint(
            "(previous_secret IS NULL) = (previous_until IS NULL)", name=op.f("webhook_endpoints_previous_check")
        ),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name=op.f("webhook_endpoints_disabled_check")
        ),
        sa.CheckConstraint("failures >= 0", name=op.f("webhook_endpoints_failures_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("webhook_endpoints_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("webhook_endpoints_pkey")),
        comment="Where a tenant's alerts are sent.",
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("alert_id", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="as it is signed and sent, each time the same"),
        sa.Column("state", sa.Text(), server_default=sa.text("'due'"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True, comment="when it is tried next"),
        sa.Column("last_status", sa.Integer(), nullable=True, comment="what was answered last"),
        sa.Column("last_error", sa.Text(), nullable=True, comment="why nothing was"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('delivered', 'due', 'given_up')", name=op.f("alert_deliveries_state_check")),
        sa.CheckConstraint(
            "(state = 'due') = (due_at IS NOT NULL) AND (state = 'due') = (finished_at IS NULL)",
            name=op.f("alert_deliveries_due_check"),
        ),
        sa.CheckConstraint("tries >= 0", name=op.f("alert_deliveries_tries_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "alert_id"], ["alerts.tenant_id", "alerts.alert_id"], name=op.f("alert_deliveries_alerts_fkey")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "delivery_id", name=op.f("alert_deliveries_pkey")),
        sa.UniqueConstraint("tenant_id", "alert_id", name=op.f("alert_deliveries_tenant_id_alert_id_key")),
        comment="An alert as a message to its tenant: written with the alert, sent afterwards.",
    )
    op.create_index(
        "alert_deliveries_due",
        "alert_deliveries",
        ["tenant_id", "due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.add_column(
        "usage_events",
        sa.Column(
            "quota_ids", postgresql.ARRAY(sa.BigInteger()), nullable=True, comment="the quotas it is counted in"
        ),
    )
    op.add_column(
        "usage_events",
        sa.Column("over_quota", sa.Boolean(), nullable=True, comment="with it, one of them was over its limit"),
    )
    op.execute(BUMP_QUOTA_BOOK)
    op.execute(
        "CREATE TRIGGER quotas_bump_book AFTER INSERT OR UPDATE ON quotas "
        "FOR EACH ROW EXECUTE FUNCTION bump_quota_book()"
    )
    op.execute(
        f"CREATE TRIGGER quotas_lasting_row BEFORE DELETE OR UPDATE OF {LASTING} ON quotas "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER quotas_lasting_all BEFORE TRUNCATE ON quotas "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute("INSERT INTO quota_book DEFAULT VALUES")
    op.drop_constraint(op.f("alerts_kind_check"), "alerts")
    op.create_check_constraint(op.f("alerts_kind_check"), "alerts", ALERT_KINDS)
