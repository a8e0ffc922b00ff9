"""Tables of the month: grants of value, what became of subscriptions, corrections, and statements."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.grants import Source
from billing.statements import AccountKind, LineKind
from db.schema.base import Moment, Money, Text, belongs_to, ddl, immutable, metadata, one_of, tenant_key

CORRECTION_KINDS = ("void", "rerate")
SUBSCRIPTION_MOVES = ("subscribed", "plan_changed", "zone_changed", "paused", "resumed", "ended")

credit_grants = Table(
    "credit_grants",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("grant_id", Uuid, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("number", BigInteger, Identity(always=True), nullable=False, comment="the older has the smaller one"),
    Column("source", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, comment="the smaller is burned first"),
    Column("amount", Money, nullable=False),
    Column("paid_debt", Money, nullable=False, server_default=text("0"), comment="what of it went to debt on arrival"),
    Column("valid_from", Moment, comment="it pays for what occurred from then on"),
    Column("expires_at", Moment, comment="and before this"),
    Column("breaks_at", Moment, comment="what remains then is gone"),
    Column("ended_at", Moment, comment="nothing remains"),
    Column("reason", Text, nullable=False),
    Column("period_start", Moment, comment="of free credits: for which period"),
    Column("payment_id", Uuid, comment="of a purchase"),
    Column("created_at", Moment, nullable=False),
    tenant_key("grant_id"),
    belongs_to("wallets", "wallet_id"),
    Index("credit_grants_open", "tenant_id", "wallet_id", postgresql_where=text("ended_at IS NULL")),
    Index("credit_grants_of_wallet", "tenant_id", "wallet_id", "number"),
    Index(
        "credit_grants_ending",
        *("expires_at", "tenant_id", "grant_id"),
        postgresql_where=text("ended_at IS NULL AND expires_at IS NOT NULL AND period_start IS NULL"),
    ),
    Index("credit_grants_to_break", "breaks_at", postgresql_where=text("ended_at IS NULL AND breaks_at IS NOT NULL")),
    CheckConstraint(one_of("source", Source), name="source"),
    CheckConstraint("amount > 0 AND paid_debt >= 0", name="amounts"),
    CheckConstraint(
        "(expires_at IS NULL) = (breaks_at IS NULL) AND breaks_at >= expires_at AND expires_at > valid_from",
        name="validity",
    ),
    comment="Value given to a wallet: from where and for when. What remains of it, its wallet keeps.",
)

event.listen(
    metadata,
    "after_create",
    ddl("""
CREATE VIEW grants_remaining WITH (security_invoker = true) AS
SELECT g.*, coalesce(kept.remaining, 0) AS remaining
FROM credit_grants g
JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
LEFT JOIN LATERAL (
    SELECT (one->>1)::numeric AS remaining FROM json_array_elements(w.open_grants::json) AS one
    WHERE one->>0 = g.grant_id::text
) kept ON true
"""),
)

month_turns = Table(
    "month_turns",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("due_at", Moment, comment="when the next period begins; NULL: none does"),
    tenant_key("customer_id"),
    belongs_to("customers", "customer_id"),
    Index("month_turns_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    # Not a column of `periods`: whoever is changed there is written into all of its indexes, at ten times the cost.
    comment="When a customer's month turns. Locked before the customer's wallets.",
)

subscription_log = Table(
    "subscription_log",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("entry_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", Moment, nullable=False),
    Column("move", Text, nullable=False),
    Column("effective_at", Moment, nullable=False),
    Column("detail", JSONB, nullable=False),
    tenant_key("customer_id", "entry_id"),
    belongs_to("customers", "customer_id"),
    CheckConstraint(one_of("move", SUBSCRIPTION_MOVES), name="move"),
    comment="What a customer's subscription went through.",
)

corrections = Table(
    "corrections",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("correction_id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("event_key", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("counted_in", Moment, nullable=False, comment="the event's period"),
    Column("told_in", Moment, nullable=False, comment="the period whose statement tells it"),
    Column("tokens", BigInteger, nullable=False, comment="added to the event's"),
    Column("cost", Money, nullable=False, comment="added to what the event costs"),
    Column("currency", Text),
    Column("wallet_id", BigInteger, comment="the entry that moved it, if it moved anything"),
    Column("seq", BigInteger),
    Column("detail", JSONB, comment="of a new rating: the event's lines by the prices given"),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    tenant_key("correction_id"),
    belongs_to("customers", "customer_id"),
    Index("corrections_of_event", "tenant_id", "event_key"),
    Index("corrections_voided", "tenant_id", "event_key", unique=True, postgresql_where=text("kind = 'void'")),
    Index("corrections_told", "tenant_id", "customer_id", "told_in"),
    CheckConstraint(one_of("kind", CORRECTION_KINDS), name="kind"),
    CheckConstraint("cost = 0 OR currency IS NOT NULL", name="currency"),
    CheckConstraint("(wallet_id IS NULL) = (seq IS NULL) AND (cost <> 0) <= (seq IS NOT NULL)", name="entry"),
    comment="What was done to an event after it was charged; the event itself stays as it was.",
)

statement_numbers = Table(
    "statement_numbers",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id"),
    belongs_to("tenants"),
    comment="The last number given to a statement of the tenant: taken and given with the statement, or not at all.",
)

statements = Table(
    "statements",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("period_end", Moment, nullable=False),
    Column("issued_at", Moment, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("plan_version", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("tiers", Integer, nullable=False),
    tenant_key("number"),
    UniqueConstraint("tenant_id", "customer_id", "period_start"),
    ForeignKeyConstraint(
        ["tenant_id", "customer_id", "period_start"], ["periods.tenant_id", "periods.customer_id", "periods.starts_at"]
    ),
    CheckConstraint("number > 0", name="number"),
    comment="What a closed period came to, as it was told; never changed. What is corrected later is told in the next.",
)

statement_balances = Table(
    "statement_balances",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("opening", Money, nullable=False),
    Column("closing", Money, nullable=False),
    tenant_key("number", "account", "currency"),
    belongs_to("statements", "number"),
    CheckConstraint(one_of("account", AccountKind), name="account"),
    comment="Each account of a statement, before and after its lines.",
)

statement_lines = Table(
    "statement_lines",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("account", Text),
    Column("currency", Text),
    Column("amount", Money, nullable=False),
    Column("quantity", Numeric(42, 12)),
    Column("unit", Text),
    Column("events", BigInteger),
    Column("about", JSONB, nullable=False),
    Column("reference", JSONB, nullable=False),
    Column("payment_id", Uuid, comment="of lines about a payment: what of it was told"),
    tenant_key("number", "line"),
    belongs_to("statements", "number"),
    Index("statement_lines_of_payment", "tenant_id", "payment_id", postgresql_where=text("payment_id IS NOT NULL")),
    CheckConstraint(one_of("kind", LineKind), name="kind"),
    CheckConstraint(f"account IS NULL OR {one_of('account', AccountKind)}", name="account"),
    CheckConstraint("account IS NOT NULL OR amount = 0", name="amount"),
    CheckConstraint("account IS NULL OR currency IS NOT NULL", name="currency"),
    comment="One line of a statement.",
)

for _table in (subscription_log, corrections, statements, statement_balances, statement_lines):
    immutable(_table)
