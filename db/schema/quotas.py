"""Tables of quotas: what may be used, what was, and what was said of it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Identity,
    Index,
    SmallInteger,
    Table,
    event,
    text,
)

from billing.quotas import Measure, Per, QuotaKind, Scope
from db.schema.base import Moment, Money, Text, belongs_to, ddl, lasting, metadata, one_of, only_one_row, tenant_key

#: What warns at 80 and 100 percent.
WARNED_OF = ("quota", "tier")

quotas = Table(
    "quotas",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("quota_id", BigInteger, Identity(always=True), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="which user, customer or organization; '': each, or the tenant"),
    Column("service_type", Text, comment="NULL: of all"),
    Column("feature", Text, comment="NULL: of all"),
    Column("per", Text, nullable=False),
    Column("time_zone", Text, nullable=False, comment="in which its windows begin"),
    Column("measure", Text, nullable=False),
    Column("currency", Text),
    Column("limit_value", Money, nullable=False),
    Column("is_hard", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("ended_at", Moment, comment="nothing counts in it any more"),
    tenant_key("quota_id"),
    belongs_to("tenants"),
    Index("quotas_name", "tenant_id", "name", unique=True, postgresql_where=text("ended_at IS NULL")),
    # Also what has ended: whether somebody in a scope has one of their own is asked of it.
    Index("quotas_of_subject", "tenant_id", "scope", "subject"),
    CheckConstraint("name <> ''", name="name"),
    CheckConstraint(one_of("kind", QuotaKind), name="kind"),
    CheckConstraint(one_of("scope", Scope), name="scope"),
    CheckConstraint("scope <> 'tenant' OR subject = ''", name="subject"),
    CheckConstraint(one_of("per", Per), name="per"),
    CheckConstraint(one_of("measure", Measure), name="measure"),
    CheckConstraint("(measure = 'cost') = (currency IS NOT NULL)", name="currency"),
    CheckConstraint("limit_value >= 0", name="limit"),
    CheckConstraint("kind <> 'budget' OR (feature IS NOT NULL AND NOT is_hard)", name="budget"),
    CheckConstraint("kind <> 'cap' OR (scope = 'customer' AND subject <> '' AND is_hard)", name="cap"),
    comment="How much may be used in a day or a month. Only the limit, and whether it is hard, change.",
)

quota_book = Table(
    "quota_book",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    only_one_row(),
    comment="Moves with what processes keep of quotas; each transaction compares it.",
)

quota_counts = Table(
    "quota_counts",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("quota_id", BigInteger, nullable=False),
    Column("subject", Text, nullable=False, comment="whose; '' for the tenant"),
    Column("window_start", Date, nullable=False, comment="its first day, by the quota's zone"),
    Column("stripe", SmallInteger, nullable=False, comment="0 but for the tenant's; all of them together count"),
    Column("used", Money, nullable=False, comment="of one stripe alone: what a void takes back may make it negative"),
    tenant_key("quota_id", "subject", "window_start", "stripe"),
    belongs_to("quotas", "quota_id"),
    CheckConstraint("stripe >= 0", name="stripe"),
    # As wallets: they change with every envelope.
    postgresql_with={"fillfactor": 60},
    comment="What was used of a quota in a window: the sum of the events that name it.",
)

limit_warnings = Table(
    "limit_warnings",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("number", BigInteger, nullable=False, comment="which quota, or which tier"),
    Column("subject", Text, nullable=False, comment="whose counter; of a tier, the customer"),
    Column("window_start", Date, nullable=False),
    Column("limit_value", Money, nullable=False),
    Column("percent", SmallInteger, nullable=False),
    Column("said_at", Moment, nullable=False),
    tenant_key("kind", "number", "subject", "window_start", "limit_value", "percent"),
    belongs_to("tenants"),
    CheckConstraint(one_of("kind", WARNED_OF), name="kind"),
    CheckConstraint("percent IN (80, 100)", name="percent"),
    comment="Each threshold that was reached, once in a window, whatever became of its alert.",
)

#: Who counts usage keeps the quotas that are for everybody, and in which scopes somebody has one of their own. That
#: somebody had one is never forgotten, or one who comes as another leaves could be missed.
_BUMP = ddl("""
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
""")

#: What a customer has of its own is kept with its account, and verified by what moves on its wallets.
_TOUCH = ddl("""
CREATE OR REPLACE FUNCTION touch_account_of_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets SET account_revision = account_revision + 1
    WHERE tenant_id = NEW.tenant_id AND customer_id = NEW.subject;
    RETURN NULL;
END $$
""")

event.listen(metadata, "before_create", _BUMP)
event.listen(metadata, "before_create", _TOUCH)
lasting(
    quotas,
    *("tenant_id", "quota_id", "name", "kind", "scope", "subject", "service_type", "feature", "per", "time_zone"),
    *("measure", "currency"),
)
event.listen(
    quotas,
    "after_create",
    ddl(
        "CREATE TRIGGER quotas_bump_book AFTER INSERT OR UPDATE ON quotas "
        "FOR EACH ROW EXECUTE FUNCTION bump_quota_book()"
    ),
)
event.listen(
    quotas,
    "after_create",
    ddl(
        "CREATE TRIGGER quotas_touch_account AFTER INSERT OR UPDATE ON quotas FOR EACH ROW "
        "WHEN (NEW.scope = 'customer' AND NEW.subject <> '') EXECUTE FUNCTION touch_account_of_quota()"
    ),
)
event.listen(quota_book, "after_create", ddl("INSERT INTO quota_book DEFAULT VALUES"))
