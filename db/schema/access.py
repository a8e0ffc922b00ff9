"""Tables of access: servers' keys, what was asked for under which idempotency key, who did what."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from billing.access import Capability, Through
from db.schema.base import Moment, Text, belongs_to, immutable, lasting, metadata, one_of, tenant_key

_CAPABILITIES = ", ".join(f"'{one}'" for one in sorted(Capability))

api_keys = Table(
    "api_keys",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("name", Text, nullable=False, comment="for people: which server has it"),
    Column("secret_hash", LargeBinary, nullable=False, comment="SHA-256 of the key; the key itself is nowhere"),
    Column("capabilities", ARRAY(Text), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    tenant_key("key_id"),
    belongs_to("tenants"),
    # Not unique: a key of the tenant's data leads with the tenant, which is what is looked for here. 256 random bits
    # meet no others.
    Index("api_keys_secret_hash", "secret_hash"),
    CheckConstraint("length(name) BETWEEN 1 AND 128", name="name"),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    CheckConstraint(
        f"cardinality(capabilities) > 0 AND capabilities <@ ARRAY[{_CAPABILITIES}]::text[]", name="capabilities"
    ),
    comment="What servers ask with. Revoked ones stay, so that it can be told whose they were.",
)
lasting(api_keys, "tenant_id", "key_id", "secret_hash", "capabilities")

idempotent_requests = Table(
    "idempotent_requests",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("operation", Text, nullable=False, comment="method and path"),
    Column("body_hash", LargeBinary, nullable=False, comment="SHA-256 of what was asked for"),
    Column("made_at", Moment, nullable=False, comment="when it was asked for first"),
    Column("answered_at", Moment),
    Column("status", SmallInteger),
    Column("answer", Text, comment="the JSON that was answered, letter by letter"),
    tenant_key("idempotency_key"),
    belongs_to("tenants"),
    CheckConstraint("octet_length(body_hash) = 32", name="body_hash"),
    CheckConstraint("num_nulls(answered_at, status, answer) IN (0, 3)", name="answered"),
    CheckConstraint("status BETWEEN 200 AND 299", name="status"),
    comment="Which request an idempotency key belongs to, and what it was answered.",
)

admin_acts = Table(
    "admin_acts",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("act_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", Moment, nullable=False),
    Column("subject", Text, nullable=False, comment="who: of a token its subject, of a server its key"),
    Column("through", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False, comment="to what or whom"),
    Column("idempotency_key", Text),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    tenant_key("act_id"),
    belongs_to("tenants"),
    CheckConstraint(one_of("through", Through), name="through"),
    comment="Who asked for what only administrators may, written before it is done. Never changed.",
)
immutable(admin_acts)
