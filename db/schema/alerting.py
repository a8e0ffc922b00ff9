"""Tables of alerts on their way out."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    Table,
    UniqueConstraint,
    Uuid,
    event,
    text,
)

from billing.outgoing import DeliveryState
from billing.payments import AlertKind
from db.schema.base import Moment, Text, belongs_to, ddl, metadata, one_of, only_one_row, tenant_key

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("previous_secret", Text, comment="signs as well, for a while after it was replaced"),
    Column("previous_until", Moment),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="in a row"),
    Column("rests_until", Moment, comment="it failed, and is left alone until then"),
    Column("leased_until", Moment, comment="a worker delivers to it"),
    Column("disabled_at", Moment, comment="nothing is sent until it is set again"),
    Column("disabled_reason", Text),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    tenant_key(),
    belongs_to("tenants"),
    CheckConstraint("starts_with(url, 'https://') OR starts_with(url, 'http://')", name="url"),
    CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    CheckConstraint("failures >= 0", name="failures"),
    comment="Where a tenant's alerts are sent.",
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("delivery_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("alert_id", BigInteger, nullable=False),
    Column("body", Text, nullable=False, comment="as it is signed and sent, each time the same"),
    Column("state", Text, nullable=False, server_default=text("'due'")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Moment, comment="when it is tried next"),
    Column("last_status", Integer, comment="what was answered last"),
    Column("last_error", Text, comment="why nothing was"),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    tenant_key("delivery_id"),
    UniqueConstraint("tenant_id", "alert_id"),
    belongs_to("alerts", "alert_id"),
    Index("alert_deliveries_due", "tenant_id", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    CheckConstraint(one_of("state", DeliveryState), name="state"),
    CheckConstraint("(state = 'due') = (due_at IS NOT NULL) AND (state = 'due') = (finished_at IS NULL)", name="due"),
    CheckConstraint("tries >= 0", name="tries"),
    comment="An alert as a message to its tenant: written with the alert, sent afterwards.",
)

alert_causes = Table(
    "alert_causes",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="which wallet, grant, product or customer, as its kind has it"),
    Column("customer_id", Text),
    Column("since", Moment, nullable=False),
    tenant_key("kind", "subject"),
    belongs_to("tenants"),
    CheckConstraint(one_of("kind", AlertKind), name="kind"),
    comment="What was said and still holds: it is not said again until it was gone.",
)

alert_looks = Table(
    "alert_looks",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("wallet_tenant_id", Text, comment="the wallet that the last look came to; NULL: it saw all"),
    Column("wallet_id", BigInteger),
    Column("grant_ends_at", Moment, comment="likewise the grant"),
    Column("grant_tenant_id", Text),
    Column("grant_id", Uuid),
    only_one_row(),
    CheckConstraint("(wallet_tenant_id IS NULL) = (wallet_id IS NULL)", name="wallet"),
    CheckConstraint(
        "(grant_ends_at IS NULL) = (grant_tenant_id IS NULL) AND (grant_ends_at IS NULL) = (grant_id IS NULL)",
        name="grant",
    ),
    comment="Where the look for what is low, and for what ends, goes on.",
)

event.listen(alert_looks, "after_create", ddl("INSERT INTO alert_looks DEFAULT VALUES"))
