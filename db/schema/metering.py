"""Tables of metering, rating and the ledger.

`tenant_id` leads every key of a tenant's data, so that it can be distributed by tenant. No column of a
unique key may be NULL: a NULL never conflicts, and something would be charged twice.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, ExcludeConstraint

from billing.events import LOGGED_STEPS
from billing.plans import GRACE_HOURS_MAX, GRACE_HOURS_MIN, Anchor, LateEvents, Proration, UnowedTiers
from billing.prices import LadderSpan
from db.schema.base import (
    Moment,
    Money,
    Text,
    belongs_to,
    ddl,
    immutable,
    lasting,
    metadata,
    one_of,
    only_one_row,
    tenant_key,
)

EVENT_STATUSES = ("charged", "pending", "parked", "voided")
ENTRY_KINDS = (
    "usage",
    "grant",
    "purchase",
    "refund",
    "subscription",
    "adjustment",
    "breakage",
    "reversal",
    "void",
    "correction",
    "checkpoint",
)

installation = Table(
    "installation",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("installation_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    only_one_row(),
    comment="Which database this is: part of every payment id, so that no other database's intents are taken.",
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("tenant_id <> ''", name="tenant_id"),
    comment="Who runs applications and bills customers.",
)

plans = Table(
    "plans",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("payment_currency", Text, nullable=False),
    Column("fixed_fee_minor", BigInteger, nullable=False),
    Column("included_tokens", BigInteger, nullable=False),
    Column("tier_size", BigInteger),
    Column("tier_fee_minor", BigInteger, nullable=False),
    Column("dunning_days", ARRAY(Integer), nullable=False, server_default=text("'{1,3,5,7}'::integer[]")),
    Column("dunning_hour", SmallInteger, nullable=False, server_default=text("9")),
    Column("open_tiers_max", Integer, nullable=False, server_default=text("5")),
    Column(
        "free_credits",
        Money,
        server_default=text("0"),
        comment="given for each period; NULL: as much as the setting free_tier_credits says",
    ),
    Column("free_credits_currency", Text, nullable=False, server_default=text("'CREDIT'")),
    Column("anchor", Text, nullable=False, server_default=text("'calendar'")),
    Column("proration", Text, nullable=False, server_default=text("'none'")),
    Column("late_events", Text, nullable=False, server_default=text("'current'")),
    Column("grace_hours", Integer, nullable=False, server_default=text("72")),
    Column("unowed_tiers", Text, nullable=False, server_default=text("'refund'")),
    Column("day_payments_max", Integer),
    Column("day_minor_max", BigInteger),
    Column("created_at", Moment, nullable=False),
    tenant_key("plan_id", "version"),
    belongs_to("tenants"),
    CheckConstraint("fixed_fee_minor >= 0 AND tier_fee_minor >= 0 AND included_tokens >= 0", name="not_negative"),
    CheckConstraint("tier_size > 0", name="tier_size"),
    CheckConstraint("tier_size IS NULL OR tier_fee_minor > 0", name="tier_fee"),
    CheckConstraint(
        "0 < ALL (dunning_days) AND 60 >= ALL (dunning_days) AND cardinality(dunning_days) <= 10"
        " AND array_position(dunning_days, NULL) IS NULL",
        name="dunning_days",
    ),
    CheckConstraint("dunning_hour BETWEEN 0 AND 23", name="dunning_hour"),
    CheckConstraint("open_tiers_max > 0", name="open_tiers_max"),
    CheckConstraint("free_credits >= 0", name="free_credits"),
    CheckConstraint(one_of("anchor", Anchor), name="anchor"),
    CheckConstraint(one_of("proration", Proration), name="proration"),
    CheckConstraint(one_of("late_events", LateEvents), name="late_events"),
    CheckConstraint(one_of("unowed_tiers", UnowedTiers), name="unowed_tiers"),
    CheckConstraint(f"grace_hours BETWEEN {GRACE_HOURS_MIN} AND {GRACE_HOURS_MAX}", name="grace_hours"),
    CheckConstraint("day_payments_max > 0 AND day_minor_max > 0", name="day_limits"),
    comment="What a customer agreed to pay; a version never changes.",
)

customers = Table(
    "customers",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("stripe_customer_id", Text),
    Column("default_payment_method_id", Text),
    Column("anchor_day", SmallInteger, nullable=False, server_default=text("1"), comment="on which months begin"),
    Column("billed_from", Moment, nullable=False, comment="since when the plan's fees are owed"),
    Column("paused_at", Moment, comment="periods that begin from then on owe no fee"),
    Column("ended_at", Moment, comment="likewise, for good; may lie ahead, at the end of a period"),
    Column("next_plan_id", Text),
    Column("next_plan_version", Integer),
    Column("next_plan_at", Moment, comment="periods that begin from then on are on the next plan"),
    Column("created_at", Moment, nullable=False),
    tenant_key("customer_id"),
    belongs_to("tenants"),
    ForeignKeyConstraint(
        ["tenant_id", "plan_id", "plan_version"], ["plans.tenant_id", "plans.plan_id", "plans.version"]
    ),
    ForeignKeyConstraint(
        ["tenant_id", "next_plan_id", "next_plan_version"],
        ["plans.tenant_id", "plans.plan_id", "plans.version"],
        name="customers_next_plan_fkey",
    ),
    CheckConstraint("anchor_day BETWEEN 1 AND 31", name="anchor_day"),
    CheckConstraint(
        "(next_plan_id IS NULL) = (next_plan_version IS NULL) AND (next_plan_id IS NULL) = (next_plan_at IS NULL)",
        name="next_plan",
    ),
    # Stripe's events name its customer alone.
    Index("customers_of_stripe", "stripe_customer_id", postgresql_where=text("stripe_customer_id IS NOT NULL")),
    comment="Who is billed.",
)

wallets = Table(
    "wallets",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("wallet_id", BigInteger, Identity(always=True), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance", Money, nullable=False, server_default=text("0")),
    Column("reserved", Money, nullable=False, server_default=text("0")),
    Column("used_total", Money, nullable=False, server_default=text("0")),
    Column("received_total", Money, nullable=False, server_default=text("0")),
    Column("debt", Money, nullable=False, server_default=text("0"), comment="used, and covered by no grant"),
    Column("last_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("overdraft", Money, nullable=False, server_default=text("0"), comment="how far below zero it may be asked"),
    Column("low_below", Money, comment="below how much it is low; NULL: as the setting low_balance says"),
    Column(
        "open_grants",
        Text,
        nullable=False,
        server_default=text("'[]'"),
        comment="JSON, in burn order: [[grant_id, remaining, valid_from, expires_at, priority, number], ...]",
    ),
    Column(
        "account_revision",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="moves when plan, zone, wallets or periods of the customer change; who keeps them compares it",
    ),
    Column("created_at", Moment, nullable=False),
    tenant_key("wallet_id"),
    UniqueConstraint("tenant_id", "customer_id", "currency"),
    belongs_to("customers", "customer_id"),
    CheckConstraint("balance = received_total - used_total", name="balance"),
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("debt >= 0", name="debt"),
    CheckConstraint("last_seq >= 0", name="last_seq"),
    CheckConstraint("overdraft >= 0", name="overdraft"),
    CheckConstraint("low_below >= 0", name="low_below"),
    # Every envelope changes balances: room on the page keeps those updates off the indexes (HOT).
    postgresql_with={"fillfactor": 60},
    comment="A customer's stored value in one currency; a negative balance is debt. Its row is the customer's lock.",
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("amount", Money, nullable=False),
    Column("balance_after", Money, nullable=False),
    Column("kind", Text, nullable=False),
    Column("contra", Text, nullable=False),
    Column("reason", Text),
    Column("event_key", Text),
    Column("payment_id", Uuid),
    Column("idempotency_key", Text),
    Column("occurred_at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("grant_id", Uuid, comment="the grant that all of it moved; NULL without parts: debt"),
    Column("parts", JSONB, comment="where it moved several grants, or a grant and debt: how much of each"),
    Column("period_start", Moment, comment="the period it is told in; of usage, its event's"),
    tenant_key("wallet_id", "seq"),
    Index(
        "ledger_entries_idempotency_key",
        "tenant_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    CheckConstraint(one_of("kind", ENTRY_KINDS), name="kind"),
    CheckConstraint("seq > 0", name="seq"),
    CheckConstraint("kind <> 'usage' OR (amount <= 0 AND event_key IS NOT NULL)", name="usage"),
    # An event says when it was charged, and that is when its entry was written: enough to find it, at no cost.
    Index(
        "ledger_entries_recorded_at", "recorded_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}
    ),
    Index(
        "ledger_entries_of_period",
        "tenant_id",
        "wallet_id",
        "period_start",
        postgresql_where=text("kind <> 'usage'"),
    ),
    comment="One movement between a wallet and a named contra account. Never changed; old usage is archived.",
)

prices = Table(
    "prices",
    metadata,
    Column("price_id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False, comment="a tenant, or '' for everybody"),
    Column("category", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("unit_price", Numeric(38, 18), nullable=False),
    Column("per", Numeric(38, 12), nullable=False),
    Column("ladder", JSONB),
    Column("ladder_span", Text, nullable=False),
    Column("is_provider_default", Boolean, nullable=False),
    Column("is_ended", Boolean, nullable=False),
    Column("effective_from", Moment, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("description", Text),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint(
        "scope", "category", "provider", "model", "unit", "effective_from", "revision", name="prices_product_key"
    ),
    CheckConstraint("unit_price >= 0 AND per > 0 AND revision >= 0", name="positive"),
    CheckConstraint(one_of("ladder_span", LadderSpan), name="ladder_span"),
    comment="The price book: only ever added to; a mistake is corrected by a higher revision.",
)

price_book = Table(
    "price_book",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    only_one_row(),
    comment="Moves with every change of prices; who keeps prices in memory compares it in each transaction.",
)

usage_events = Table(
    "usage_events",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("charged_at", Moment),
    Column("period_start", Moment),
    Column("is_late", Boolean, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", Money, nullable=False),
    Column("currency", Text),
    Column("items", JSONB, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("fingerprint_version", SmallInteger, nullable=False),
    Column("user_id", Text),
    Column("organization_id", Text),
    Column("client_id", Text),
    Column("session_id", Text),
    Column("message_id", Text),
    Column("feature", Text),
    Column("service_type", Text),
    Column("operation", Text),
    Column("reference", Text),
    Column("reason", Text),
    Column("hold_id", Text),
    Column("metadata", JSONB),
    Column("park_reason", Text),
    Column("park_detail", Text),
    Column("voided_at", Moment),
    Column("void_reason", Text),
    Column("archive_id", BigInteger, comment="where its lines and its context are, and its entry"),
    Column("quota_ids", ARRAY(BigInteger), comment="the quotas it is counted in"),
    Column("over_quota", Boolean, comment="with it, one of them was over its limit"),
    tenant_key("key"),
    # Equal keys share their space in a B-tree: this one is small, and cheap to add to.
    Index(
        "usage_events_of_period",
        "tenant_id",
        "customer_id",
        "period_start",
        postgresql_where=text("period_start IS NOT NULL"),
    ),
    Index(
        "usage_events_waiting",
        "tenant_id",
        "recorded_at",
        "key",
        postgresql_where=text("status IN ('parked', 'pending')"),
    ),
    CheckConstraint(one_of("status", EVENT_STATUSES), name="status"),
    CheckConstraint("(status = 'parked') = (park_reason IS NOT NULL)", name="parked"),
    CheckConstraint("status <> 'charged' OR (period_start IS NOT NULL AND charged_at IS NOT NULL)", name="charged"),
    CheckConstraint("cost >= 0 AND tokens >= 0", name="not_negative"),
    CheckConstraint("cost <= 0 OR currency IS NOT NULL", name="currency"),
    CheckConstraint(
        "(status = 'voided') = (voided_at IS NOT NULL) AND (voided_at IS NULL) = (void_reason IS NULL)", name="voided"
    ),
    comment="One usage event; the first payload owns the key, for ever.",
)

usage_log = Table(
    "usage_log",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("entry_id", BigInteger, Identity(always=True), nullable=False),
    Column("event_key", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", Moment, nullable=False),
    tenant_key("entry_id"),
    belongs_to("customers", "customer_id"),
    Index("usage_log_of_event", "tenant_id", "event_key"),
    CheckConstraint(one_of("step", LOGGED_STEPS), name="step"),
    comment="What happened to an event that its row does not say: most events have nothing here.",
)

parked_inputs = Table(
    "parked_inputs",
    metadata,
    Column("input_hash", LargeBinary, primary_key=True, comment="SHA-256 of the bytes"),
    Column("raw", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("tenant_id", Text),
    Column("customer_id", Text),
    Column("key", Text),
    Column("times_seen", BigInteger, nullable=False, server_default=text("1")),
    Column("first_seen_at", Moment, nullable=False),
    Column("last_seen_at", Moment, nullable=False),
    Column("replayed_at", Moment),
    CheckConstraint("times_seen > 0", name="times_seen"),
    Index("parked_inputs_waiting", "first_seen_at", postgresql_where=text("replayed_at IS NULL")),
    comment="What is not a well-formed event of a known customer: the bytes, the reason, how often.",
)

periods = Table(
    "periods",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("starts_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("time_zone", Text, nullable=False, comment="in which its days are counted"),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    Column("tiers_reached", Integer, nullable=False, server_default=text("0")),
    Column("opened_at", Moment, comment="its fee and free credits are decided"),
    Column("closed_at", Moment, comment="nothing counts in it any more"),
    Column("statement_number", BigInteger),
    Column("archive_id", BigInteger, comment="the archive that its usage goes to: nothing in it is corrected"),
    tenant_key("customer_id", "starts_at"),
    belongs_to("customers", "customer_id"),
    ForeignKeyConstraint(
        ["tenant_id", "plan_id", "plan_version"], ["plans.tenant_id", "plans.plan_id", "plans.version"]
    ),
    ExcludeConstraint(
        # A GiST index sorts itself by its first column: names are slow to sort by, a number is not.
        (text("hashtextextended(customer_id, 0)"), "="),
        ("tenant_id", "="),
        # Not the plain column: the planner would look periods up in this index, at ten times and more the cost
        # of the primary key.
        (text("(customer_id || '')"), "="),
        (func.tstzrange(text("starts_at"), text("ends_at")), "&&"),
        using="gist",
        name="periods_never_overlap",
    ),
    CheckConstraint("ends_at > starts_at", name="span"),
    CheckConstraint("tokens >= 0 AND events >= 0 AND tiers_reached >= 0", name="not_negative"),
    CheckConstraint("closed_at IS NULL OR opened_at IS NOT NULL", name="closed"),
    CheckConstraint("statement_number IS NULL OR closed_at IS NOT NULL", name="stated"),
    CheckConstraint("archive_id IS NULL OR statement_number IS NOT NULL", name="archived"),
    # What the month's ticks look for. None of these columns changes with usage.
    Index("periods_to_open", "starts_at", postgresql_where=text("opened_at IS NULL")),
    Index("periods_to_close", "ends_at", postgresql_where=text("closed_at IS NULL")),
    Index(
        "periods_to_state",
        "ends_at",
        postgresql_where=text("closed_at IS NOT NULL AND statement_number IS NULL"),
    ),
    # As wallets: the counters change with every envelope.
    postgresql_with={"fillfactor": 60},
    comment="A customer's month. Cost is read from the ledger, which keeps currencies apart.",
)

period_quantities = Table(
    "period_quantities",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("price_id", BigInteger, nullable=False),
    Column("quantity", Numeric(42, 12), nullable=False),
    tenant_key("customer_id", "period_start", "price_id"),
    ForeignKeyConstraint(
        ["tenant_id", "customer_id", "period_start"], ["periods.tenant_id", "periods.customer_id", "periods.starts_at"]
    ),
    CheckConstraint("quantity >= 0", name="not_negative"),
    comment="How far a customer has climbed a ladder that adds up over the period; each price has a climb of its own.",
)

envelope_attempts = Table(
    "envelope_attempts",
    metadata,
    Column("envelope_hash", LargeBinary, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
    comment="Redelivered envelopes that were begun and not yet finished: how often they may have killed a worker.",
)


_BUMP = ddl("""
CREATE OR REPLACE FUNCTION bump_price_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE price_book SET revision = revision + 1;
    RETURN NULL;
END $$
""")


_TOUCH = ddl("""
CREATE OR REPLACE FUNCTION touch_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets w SET account_revision = w.account_revision + 1
    FROM (SELECT DISTINCT tenant_id, customer_id FROM changed) c
    WHERE w.tenant_id = c.tenant_id AND w.customer_id = c.customer_id;
    RETURN NULL;
END $$
""")

#: Whatever changes what the usage path keeps of a customer moves the revision on the customer's wallets. In the
#: database, so that no writer can forget it. Statements that touch only counters and balances are told by columns.
ACCOUNT_TRIGGERS = tuple(
    f"CREATE TRIGGER {table}_touch_account_{name} AFTER {when} ON {table} "
    "REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_account()"
    for table, name, when in (
        ("wallets", "insert", "INSERT"),
        ("customers", "update", "UPDATE"),
        ("periods", "insert", "INSERT"),
    )
)

_TOUCH_PERIOD = ddl("""
CREATE OR REPLACE FUNCTION touch_account_of_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets SET account_revision = account_revision + 1
    WHERE tenant_id = NEW.tenant_id AND customer_id = NEW.customer_id;
    RETURN NULL;
END $$
""")

#: A transition table can't be asked for by columns; and the counters of periods change with every envelope.
PERIOD_TRIGGER = (
    "CREATE TRIGGER periods_touch_account_update AFTER UPDATE OF ends_at, closed_at, plan_id, plan_version ON periods "
    "FOR EACH ROW EXECUTE FUNCTION touch_account_of_period()"
)

#: No query chooses by what JSON holds, and to count its values is two thirds of the work of an ANALYZE.
UNCOUNTED = "ALTER TABLE usage_events ALTER COLUMN items SET STATISTICS 0, ALTER COLUMN metadata SET STATISTICS 0"

event.listen(metadata, "before_create", ddl("CREATE EXTENSION IF NOT EXISTS btree_gist"))
event.listen(metadata, "before_create", _BUMP)
lasting(tenants, "tenant_id")
lasting(customers, "tenant_id", "customer_id")
lasting(wallets, "tenant_id", "wallet_id", "customer_id", "currency")
immutable(plans)
immutable(ledger_entries, "refuse_change_of_ledger")
immutable(prices)
immutable(usage_log)
event.listen(usage_events, "after_create", ddl(UNCOUNTED))
event.listen(
    prices,
    "after_create",
    ddl("CREATE TRIGGER prices_bump_book AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION bump_price_book()"),
)
event.listen(metadata, "before_create", _TOUCH)
event.listen(metadata, "before_create", _TOUCH_PERIOD)
for _trigger in (*ACCOUNT_TRIGGERS, PERIOD_TRIGGER):
    event.listen(metadata, "after_create", ddl(_trigger))
event.listen(installation, "after_create", ddl("INSERT INTO installation DEFAULT VALUES"))
event.listen(price_book, "after_create", ddl("INSERT INTO price_book DEFAULT VALUES"))
