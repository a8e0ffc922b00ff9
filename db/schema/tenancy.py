"""The table of what tenants set for themselves."""

from sqlalchemy import CheckConstraint, Column, Integer, Table
from sqlalchemy.dialects.postgresql import JSONB

from billing.affordability import BUFFER_MAX
from db.schema.base import Moment, Money, Text, belongs_to, metadata, tenant_key

tenant_settings = Table(
    "tenant_settings",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("free_tier_credits", Money, comment="NULL, here and below: as the installation's setting says"),
    Column("affordability_buffer", Money),
    Column("low_balance", JSONB, comment="below how much a wallet is low, by currency; '': in every other"),
    Column("audit_alert_percent", Money),
    Column("audit_alert_value_percent", Money),
    Column("low_requests_per_minute", Integer, comment="of a customer whose wallet is low; NULL: any number"),
    Column("updated_at", Moment, nullable=False),
    tenant_key(),
    belongs_to("tenants"),
    CheckConstraint(
        "free_tier_credits >= 0 AND audit_alert_percent >= 0 AND audit_alert_value_percent >= 0", name="not_negative"
    ),
    CheckConstraint(f"affordability_buffer BETWEEN 1 AND {BUFFER_MAX}", name="buffer"),
    CheckConstraint("jsonb_typeof(low_balance) = 'object'", name="low_balance"),
    CheckConstraint("low_requests_per_minute > 0", name="low_requests"),
    comment="What a tenant has otherwise than the installation.",
)
