"""Tables of collecting: payments and their attempts, cards, refunds, disputes, webhooks, and what holds money back."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.payments import (
    COLLECTABLE,
    FINAL,
    OPEN_ATTEMPT,
    PAID,
    RANKS,
    AlertKind,
    AttemptState,
    DisputeStatus,
    HoldReason,
    PaymentKind,
    PaymentState,
    RefundState,
)
from db.schema.base import Moment, Money, Text, belongs_to, ddl, immutable, metadata, one_of, only_one_row, tenant_key

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
    Column("reference", Text, nullable=False, server_default=text("''"), comment="which top-up of the month"),
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
    Column("approved_at", Moment, comment="a person let it through above the caps"),
    Column("void_wished_at", Moment, comment="to be canceled, or refunded should it succeed first"),
    Column("void_reason", Text),
    Column("unowed_at", Moment, comment="usage was voided, and this tier is owed no longer; begun again, it re-opens"),
    Column("refunded_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("wallet_id", BigInteger, comment="of a top-up: who gets the value"),
    Column("credit_amount", Money, comment="of a top-up: the value"),
    Column("credit_given", Money, nullable=False, server_default=text("0"), comment="what of it the wallet has now"),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("succeeded_at", Moment),
    tenant_key("payment_id"),
    UniqueConstraint(
        "tenant_id",
        "customer_id",
        "period_start",
        "kind",
        "tier",
        "generation",
        "reference",
        name="payments_natural_key",
    ),
    belongs_to("customers", "customer_id"),
    belongs_to("wallets", "wallet_id"),
    Index(
        "payments_intent",
        "tenant_id",
        "stripe_payment_intent_id",
        unique=True,
        postgresql_where=text("stripe_payment_intent_id IS NOT NULL"),
    ),
    Index(
        "payments_of_intent", "stripe_payment_intent_id", postgresql_where=text("stripe_payment_intent_id IS NOT NULL")
    ),
    Index("payments_of_tenant", "tenant_id", "created_at", "payment_id"),
    Index("payments_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        "payments_without_card",
        "tenant_id",
        "customer_id",
        postgresql_where=text("state = 'needs_payment_method'"),
    ),
    # Stripe's events name the payment alone.
    Index("payments_id", "payment_id"),
    # What is not over, to be counted by a monitor: what is over only grows.
    Index("payments_open", "state", postgresql_where=text(f"NOT ({one_of('state', FINAL)})")),
    CheckConstraint(one_of("kind", PaymentKind), name="kind"),
    CheckConstraint(one_of("state", PaymentState), name="state"),
    CheckConstraint("amount_minor > 0", name="amount"),
    CheckConstraint("unowed_at IS NULL OR kind = 'tier'", name="unowed"),
    CheckConstraint("(kind = 'tier') = (tier > 0) AND tier >= 0 AND generation >= 0", name="tier"),
    CheckConstraint(
        "CASE WHEN kind = 'top_up' THEN reference <> '' AND wallet_id IS NOT NULL AND coalesce(credit_amount, 0) > 0"
        " ELSE reference = '' AND wallet_id IS NULL AND credit_amount IS NULL END",
        name="top_up",
    ),
    CheckConstraint(f"({one_of('state', PAID)}) = (succeeded_at IS NOT NULL)", name="paid"),
    # What a sweep must find has a time, and nothing else is found by it.
    CheckConstraint(
        f"({one_of('state', COLLECTABLE)}) <= (due_at IS NOT NULL)"
        f" AND (due_at IS NOT NULL) <= ({one_of('state', COLLECTABLE)} OR void_wished_at IS NOT NULL)",
        name="due",
    ),
    CheckConstraint(
        "(state IN ('submitting', 'processing')) <= (attempts_made > 0 AND stripe_payment_intent_id IS NOT NULL)",
        name="submitted",
    ),
    CheckConstraint(
        "refunded_minor >= 0 AND refunded_minor <= amount_minor"
        " AND (state = 'refunded') <= (refunded_minor = amount_minor)"
        " AND (state = 'partially_refunded') <= (refunded_minor > 0 AND refunded_minor < amount_minor)"
        " AND (refunded_minor > 0) <= (succeeded_at IS NOT NULL)",
        name="refunded",
    ),
    CheckConstraint(
        "credit_given BETWEEN 0 AND coalesce(credit_amount, 0) AND (credit_given > 0) <= (succeeded_at IS NOT NULL)",
        name="credit",
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
    Column("payment_method_id", Text, nullable=False),
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
    Index(
        "payment_attempts_declined",
        "tenant_id",
        "payment_method_id",
        "finished_at",
        postgresql_where=text("state = 'declined'"),
    ),
    CheckConstraint(one_of("state", AttemptState), name="state"),
    CheckConstraint("attempt > 0", name="attempt"),
    CheckConstraint(f"({one_of('state', OPEN_ATTEMPT)}) = (finished_at IS NULL)", name="finished"),
    comment="One try to collect a payment: its exact parameters and key, written before the call.",
)

payment_log = Table(
    "payment_log",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("entry_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", Moment, nullable=False),
    Column("source", Text, nullable=False, comment="who moved it: answer, webhook, reconciler, sweep, person, usage"),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("detail", JSONB),
    tenant_key("payment_id", "entry_id"),
    belongs_to("payments", "payment_id"),
    comment="Each move of a payment, and why: what `centavo explain payment` tells.",
)

payment_methods = Table(
    "payment_methods",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("payment_method_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("brand", Text),
    Column("last4", Text),
    Column("exp_month", SmallInteger),
    Column("exp_year", SmallInteger),
    Column("attached_at", Moment, nullable=False),
    Column("detached_at", Moment),
    Column("held_at", Moment, comment="never to be tried again"),
    Column("hold_reason", Text),
    tenant_key("payment_method_id"),
    belongs_to("customers", "customer_id"),
    Index("payment_methods_of_customer", "tenant_id", "customer_id"),
    Index("payment_methods_id", "payment_method_id"),
    CheckConstraint("(held_at IS NULL) = (hold_reason IS NULL)", name="hold"),
    comment="A customer's card, as Stripe knows it; no number is ever here.",
)

customer_holds = Table(
    "customer_holds",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("detail", Text, nullable=False),
    tenant_key("customer_id", "reason"),
    belongs_to("customers", "customer_id"),
    CheckConstraint(one_of("reason", HoldReason), name="reason"),
    comment="Why nothing more is collected from a customer for now.",
)

refunds = Table(
    "refunds",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("refund_id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, comment="the caller's: asked twice, refunded once"),
    Column("state", Text, nullable=False),
    Column("stripe_refund_id", Text),
    Column("failure", Text),
    Column("due_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    tenant_key("refund_id"),
    UniqueConstraint("tenant_id", "idempotency_key"),
    belongs_to("payments", "payment_id"),
    Index("refunds_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("refunds_of_payment", "tenant_id", "payment_id"),
    CheckConstraint(one_of("state", RefundState), name="state"),
    CheckConstraint("amount_minor > 0", name="amount"),
    CheckConstraint("(state IN ('submitting', 'pending')) <= (due_at IS NOT NULL)", name="due"),
    comment="Money to give back, asked for here.",
)

disputes = Table(
    "disputes",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("stripe_dispute_id", Text, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("opened_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    tenant_key("stripe_dispute_id"),
    belongs_to("payments", "payment_id"),
    Index("disputes_of_payment", "tenant_id", "payment_id"),
    CheckConstraint(one_of("status", DisputeStatus), name="status"),
    CheckConstraint("amount_minor > 0", name="amount"),
    comment="A customer's bank wants a payment back.",
)

top_up_rules = Table(
    "top_up_rules",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("threshold", Money, nullable=False),
    Column("credit_amount", Money, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("monthly_cap_minor", BigInteger, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("updated_at", Moment, nullable=False),
    tenant_key("wallet_id"),
    belongs_to("wallets", "wallet_id"),
    CheckConstraint("credit_amount > 0 AND amount_minor > 0 AND monthly_cap_minor >= amount_minor", name="amounts"),
    comment="When a wallet falls below the threshold, this is bought; no more than the cap in a month.",
)

alerts = Table(
    "alerts",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("alert_id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="what it is about; said once while nobody has seen it"),
    Column("customer_id", Text),
    Column("detail", Text, nullable=False),
    Column("times", BigInteger, nullable=False, server_default=text("1")),
    Column("raised_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("seen_at", Moment),
    tenant_key("alert_id"),
    belongs_to("tenants"),
    Index("alerts_unseen", "tenant_id", "kind", "subject", unique=True, postgresql_where=text("seen_at IS NULL")),
    CheckConstraint(one_of("kind", AlertKind), name="kind"),
    comment="What a person should look at.",
)

collecting_switch = Table(
    "collecting_switch",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("paused_at", Moment),
    Column("paused_reason", Text),
    Column("next_slot_at", Moment, comment="when the pace allows the next payment to be worked"),
    only_one_row(),
    CheckConstraint("(paused_at IS NULL) = (paused_reason IS NULL)", name="paused"),
    comment="The kill switch of collecting, and its pace.",
)

collected_counts = Table(
    "collected_counts",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False, comment="'' for the whole tenant"),
    Column("starts_at", Moment, nullable=False, comment="of the day for a customer, of the hour for the tenant; UTC"),
    Column("payments", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    tenant_key("customer_id", "starts_at"),
    belongs_to("tenants"),
    CheckConstraint("payments >= 0 AND amount_minor >= 0", name="not_negative"),
    comment="How much was begun to be collected by itself: what the caps are compared with.",
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("created_at", Moment, nullable=False, comment="by Stripe's clock"),
    Column("received_at", Moment, nullable=False),
    Column("source", Text, nullable=False, comment="delivered, or fetched by us"),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Moment, comment="when it is to be worked; NULL when it has been"),
    Column("outcome", Text),
    Column("payment_id", Uuid),
    Column("worked_at", Moment),
    Index("webhook_events_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("webhook_events_of_payment", "payment_id", postgresql_where=text("payment_id IS NOT NULL")),
    CheckConstraint("source IN ('delivered', 'fetched')", name="source"),
    CheckConstraint("(due_at IS NULL) = (worked_at IS NOT NULL)", name="worked"),
    comment="Each event of Stripe, once, as it came.",
)

#: The order of a payment's life, as SQL: see `billing.payments`.
_RANKS = " ".join(f"WHEN '{state}' THEN {rank}" for state, rank in RANKS.items())
PAYMENT_RANK = f"""
CREATE OR REPLACE FUNCTION payment_rank(state text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE state {_RANKS} END $$
"""
ONLY_FORWARD = """
CREATE OR REPLACE FUNCTION payments_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.attempts_made < OLD.attempts_made
        OR (greatest(3, payment_rank(NEW.state)), NEW.attempts_made, payment_rank(NEW.state))
            < (greatest(3, payment_rank(OLD.state)), OLD.attempts_made, payment_rank(OLD.state)) THEN
        RAISE EXCEPTION 'payment % can''t go back from % (attempt %) to % (attempt %)',
            OLD.payment_id, OLD.state, OLD.attempts_made, NEW.state, NEW.attempts_made
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
FORWARD_TRIGGER = (
    "CREATE TRIGGER payments_only_forward BEFORE UPDATE OF state, attempts_made ON payments "
    "FOR EACH ROW EXECUTE FUNCTION payments_only_forward()"
)

event.listen(metadata, "before_create", ddl(PAYMENT_RANK))
event.listen(metadata, "before_create", ddl(ONLY_FORWARD))
event.listen(payments, "after_create", ddl(FORWARD_TRIGGER))
event.listen(collecting_switch, "after_create", ddl("INSERT INTO collecting_switch DEFAULT VALUES"))
immutable(payment_log)
