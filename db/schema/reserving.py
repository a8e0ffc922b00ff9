"""Tables of reserving: holds on wallets, and what usage took of them."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB

from billing.credit_holds import CaptureMark, HoldState
from db.schema.base import Moment, Money, Text, belongs_to, metadata, one_of, tenant_key

credit_holds = Table(
    "credit_holds",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("hold_id", Text, nullable=False, comment="as usage events name it"),
    Column("customer_id", Text, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("amount", Money, nullable=False),
    Column("captured", Money, nullable=False, server_default=text("0"), comment="an open one reserves the rest"),
    Column("state", Text, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("idempotency_key", Text, nullable=False),
    Column("asked", JSONB, nullable=False, comment="what the caller said: under the same key it must be the same"),
    tenant_key("hold_id"),
    UniqueConstraint("tenant_id", "idempotency_key", name="credit_holds_idempotency_key"),
    belongs_to("customers", "customer_id"),
    belongs_to("wallets", "wallet_id"),
    CheckConstraint(one_of("state", HoldState), name="state"),
    CheckConstraint("amount > 0 AND captured BETWEEN 0 AND amount", name="amounts"),
    CheckConstraint("(state = 'used_up') = (captured = amount)", name="used_up"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed"),
    CheckConstraint("expires_at > opened_at", name="expires"),
    Index("credit_holds_due", "expires_at", postgresql_where=text("state = 'open'")),
    Index("credit_holds_open", "tenant_id", "wallet_id", postgresql_where=text("state = 'open'")),
    Index("credit_holds_of_customer", "tenant_id", "customer_id", "opened_at"),
    comment="Value of a wallet that is kept back for usage under way. Who changes one holds its customer's wallets.",
)

# No foreign keys: usage may name a hold that never was, and it inserts only what it has read.
credit_captures = Table(
    "credit_captures",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("event_key", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("hold_id", Text, nullable=False, comment="as the event names it"),
    Column("taken", Money, nullable=False, comment="of the hold; the event's cost is debited in any case"),
    Column("mark", Text, comment="why that is less than the event's cost"),
    Column("at", Moment, nullable=False),
    tenant_key("event_key"),
    CheckConstraint("taken >= 0", name="taken"),
    CheckConstraint(one_of("mark", CaptureMark), name="mark"),
    CheckConstraint("taken = 0 OR mark IS NULL OR mark = 'beyond'", name="marked"),
    Index("credit_captures_of_hold", "tenant_id", "hold_id"),
    comment="What an event took of the hold that it names.",
)
