"""Tables of price lists that are rated beside the live one: what usage would have cost by them."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Date, Table
from sqlalchemy.dialects.postgresql import JSONB

from db.schema.base import Moment, Money, Text, belongs_to, metadata, tenant_key

shadow_lists = Table(
    "shadow_lists",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("prices", JSONB, nullable=False, comment="those that come before the book's"),
    Column("started_at", Moment, nullable=False, comment="what is charged from then on is rated by it, too"),
    Column("stopped_at", Moment, comment="and before this"),
    tenant_key("name"),
    belongs_to("tenants"),
    CheckConstraint("name <> ''", name="name"),
    CheckConstraint("stopped_at >= started_at", name="span"),
    comment="A price list that is tried beside the live one.",
)

shadow_periods = Table(
    "shadow_periods",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("events", BigInteger, nullable=False, comment="of the period, when it was rated last"),
    Column("tokens", BigInteger, nullable=False),
    Column("rated_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False, comment="it is not rated again before this"),
    tenant_key("name", "customer_id", "period_start"),
    belongs_to("shadow_lists", "name"),
    comment="How far a period was rated by a list beside the live one.",
)

shadow_sums = Table(
    "shadow_sums",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("day", Date, nullable=False, comment="on which it occurred, in UTC"),
    Column("currency", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("unrated", BigInteger, nullable=False, comment="of these, which the list can't rate: they count as live"),
    Column("live", Money, nullable=False),
    Column("shadow", Money, nullable=False),
    tenant_key("name", "customer_id", "period_start", "day", "currency"),
    belongs_to("shadow_lists", "name"),
    CheckConstraint("events > 0 AND unrated BETWEEN 0 AND events", name="events"),
    comment="What a customer's usage of a day costs, and would cost by a list beside the live one.",
)
