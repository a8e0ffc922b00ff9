"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together.

`tenant_id` leads every key of a tenant's data, so that it can be distributed by tenant. No column of a
unique key may be NULL: a NULL never conflicts, and something would be charged twice.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint

from billing.payments import OPEN_ATTEMPT, AttemptState, PaymentKind, PaymentState
from billing.prices import LadderSpan

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(referred_table_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

Moment = DateTime(timezone=True)
Money = Numeric(38, 12)
EVENT_STATUSES = ("charged", "pending", "parked", "voided")
ENTRY_KINDS = ("usage", "grant", "purchase", "refund", "subscription", "adjustment", "breakage", "reversal")


def one_of(column: str, values: object) -> str:
    """The CHECK that keeps a text column to the words given."""
    words = ", ".join(f"'{value}'" for value in sorted(str(value) for value in values))  # type: ignore[attr-defined]
    return f"{column} IN ({words})"


def tenant_key(*columns: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint("tenant_id", *columns)


def belongs_to(table: str, *columns: str) -> ForeignKeyConstraint:
    names = ["tenant_id", *columns]
    return ForeignKeyConstraint(names, [f"{table}.{name}" for name in names])


installation = Table(
    "installation",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("installation_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    CheckConstraint("is_only", name="only_one"),
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
    Column("created_at", Moment, nullable=False),
    tenant_key("plan_id", "version"),
    belongs_to("tenants"),
    CheckConstraint("fixed_fee_minor >= 0 AND tier_fee_minor >= 0 AND included_tokens >= 0", name="not_negative"),
    CheckConstraint("tier_size > 0", name="tier_size"),
    CheckConstraint("tier_size IS NULL OR tier_fee_minor > 0", name="tier_fee"),
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
    Column("created_at", Moment, nullable=False),
    tenant_key("customer_id"),
    belongs_to("tenants"),
    ForeignKeyConstraint(
        ["tenant_id", "plan_id", "plan_version"], ["plans.tenant_id", "plans.plan_id", "plans.version"]
    ),
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
    Column("last_seq", BigInteger, nullable=False, server_default=text("0")),
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
    CheckConstraint("last_seq >= 0", name="last_seq"),
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
    comment="One movement between a wallet and a named contra account. Never changed, never removed.",
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
    CheckConstraint("is_only", name="only_one"),
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
    tenant_key("key"),
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
    comment="One usage event; the first payload owns the key, for ever.",
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
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    Column("tiers_reached", Integer, nullable=False, server_default=text("0")),
    Column("closed_at", Moment),
    tenant_key("customer_id", "starts_at"),
    belongs_to("customers", "customer_id"),
    ForeignKeyConstraint(
        ["tenant_id", "plan_id", "plan_version"], ["plans.tenant_id", "plans.plan_id", "plans.version"]
    ),
    ExcludeConstraint(
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

payments = Table(
    "payments",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", Moment),
    Column("leased_until", Moment),
    Column("stripe_payment_intent_id", Text),
    Column("stripe_latest_charge_id", Text),
    Column("attempts_made", Integer, nullable=False, server_default=text("0")),
    Column("first_attempt_at", Moment),
    Column("last_decline_code", Text),
    Column("last_decline_message", Text),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("succeeded_at", Moment),
    tenant_key("payment_id"),
    UniqueConstraint(
        "tenant_id", "customer_id", "period_start", "kind", "tier", "generation", name="payments_natural_key"
    ),
    belongs_to("customers", "customer_id"),
    Index(
        "payments_intent",
        "tenant_id",
        "stripe_payment_intent_id",
        unique=True,
        postgresql_where=text("stripe_payment_intent_id IS NOT NULL"),
    ),
    Index("payments_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    CheckConstraint(one_of("kind", PaymentKind), name="kind"),
    CheckConstraint(one_of("state", PaymentState), name="state"),
    CheckConstraint("amount_minor > 0", name="amount"),
    CheckConstraint("(kind = 'tier') = (tier > 0) AND tier >= 0 AND generation >= 0", name="tier"),
    CheckConstraint("(state = 'succeeded') <= (succeeded_at IS NOT NULL)", name="succeeded"),
    CheckConstraint(
        "state NOT IN ('due', 'retry_scheduled', 'submitting', 'unknown', 'processing') OR due_at IS NOT NULL",
        name="due",
    ),
    comment="Money to collect.",
)

payment_attempts = Table(
    "payment_attempts",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("charge_before", Text),
    Column("charge_id", Text),
    Column("decline", JSONB),
    Column("decline_class", Text),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    tenant_key("payment_id", "attempt"),
    belongs_to("payments", "payment_id"),
    Index(
        "payment_attempts_open",
        "tenant_id",
        "payment_id",
        unique=True,
        postgresql_where=text(one_of("state", OPEN_ATTEMPT)),
    ),
    CheckConstraint(one_of("state", AttemptState), name="state"),
    CheckConstraint("attempt > 0", name="attempt"),
    comment="One try to collect a payment: its exact parameters and key, written before the call.",
)

envelope_attempts = Table(
    "envelope_attempts",
    metadata,
    Column("envelope_hash", LargeBinary, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
    comment="Redelivered envelopes that were begun and not yet finished: how often they may have killed a worker.",
)


def _ddl(statement: str) -> DDL:
    return DDL(statement.replace("%", "%%"))  # DDL takes a percent sign for a place to fill


_REFUSE = _ddl("""
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% refused: rows of % are never changed or removed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'write a correcting entry instead';
END $$
""")

_BUMP = _ddl("""
CREATE OR REPLACE FUNCTION bump_price_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE price_book SET revision = revision + 1;
    RETURN NULL;
END $$
""")


_TOUCH = _ddl("""
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

_TOUCH_PERIOD = _ddl("""
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


def _lasting(table: Table, *key: str) -> None:
    """Rows of this table keep their key and never go away: what refers to them needs no foreign key for that.

    The foreign keys of `usage_events` and `ledger_entries` cost 8 of 66 microseconds an event, and a write to
    the customer's row for each. Both insert only what they have read in the same transaction; that it can't be
    removed is what was left to guarantee. The audit looks for strays all the same.
    """
    for name, when in (("row", f"DELETE OR UPDATE OF {', '.join(key)}"), ("all", "TRUNCATE")):
        each = "FOR EACH ROW" if name == "row" else "FOR EACH STATEMENT"
        trigger = _ddl(
            f"CREATE TRIGGER {table.name}_lasting_{name} BEFORE {when} ON {table.name} "
            f"{each} EXECUTE FUNCTION refuse_change()"
        )
        event.listen(table, "after_create", trigger)


def _immutable(table: Table) -> None:
    for name, when in (("row", "UPDATE OR DELETE"), ("all", "TRUNCATE")):
        each = "FOR EACH ROW" if name == "row" else "FOR EACH STATEMENT"
        trigger = _ddl(
            f"CREATE TRIGGER {table.name}_immutable_{name} BEFORE {when} ON {table.name} "
            f"{each} EXECUTE FUNCTION refuse_change()"
        )
        event.listen(table, "after_create", trigger)


event.listen(metadata, "before_create", _ddl("CREATE EXTENSION IF NOT EXISTS btree_gist"))
event.listen(metadata, "before_create", _REFUSE)
event.listen(metadata, "before_create", _BUMP)
_lasting(tenants, "tenant_id")
_lasting(customers, "tenant_id", "customer_id")
_lasting(wallets, "tenant_id", "wallet_id", "customer_id", "currency")
_immutable(plans)
_immutable(ledger_entries)
_immutable(prices)
event.listen(
    prices,
    "after_create",
    _ddl(
        "CREATE TRIGGER prices_bump_book AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION bump_price_book()"
    ),
)
event.listen(metadata, "before_create", _TOUCH)
event.listen(metadata, "before_create", _TOUCH_PERIOD)
for _trigger in (*ACCOUNT_TRIGGERS, PERIOD_TRIGGER):
    event.listen(metadata, "after_create", _ddl(_trigger))
event.listen(installation, "after_create", _ddl("INSERT INTO installation DEFAULT VALUES"))
event.listen(price_book, "after_create", _ddl("INSERT INTO price_book DEFAULT VALUES"))
