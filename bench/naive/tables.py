"""The naive worker's tables, in a schema of their own."""

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    func,
    insert,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Engine
from sqlalchemy.schema import CreateSchema, DropSchema

from bench import workload

SCHEMA = "naive"
MONEY = Numeric(38, 12)
MOMENT = DateTime(timezone=True)

# USD per token.
PRICES = {"llm_prompt": Decimal("0.00003"), "llm_completion": Decimal("0.00006")}
STARTING_BALANCE = Decimal(1000)

metadata = MetaData(schema=SCHEMA)


def _column(name: str, kind: Any, *constraints: Any, **options: Any) -> Column[Any]:
    return Column(name, kind, *constraints, nullable=False, **options)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(), primary_key=True)


def _reference(name: str, target: str, **options: Any) -> Column[int]:
    return _column(name, BigInteger, ForeignKey(f"{SCHEMA}.{target}.id"), **options)


customers = Table(
    "customers",
    metadata,
    _id(),
    _column("tenant_id", Text),
    _column("external_id", Text),
    UniqueConstraint("tenant_id", "external_id"),
)

wallets = Table(
    "wallets",
    metadata,
    _id(),
    _reference("customer_id", "customers", unique=True),
    _column("balance", MONEY),
)

prices = Table(
    "prices",
    metadata,
    _id(),
    _column("category", Text),
    _column("provider", Text),
    _column("model", Text),
    _column("unit", Text),
    _column("amount", MONEY),
    UniqueConstraint("category", "provider", "model", "unit"),
)

# `items` is what came in, each item with its price id and cost.
usage_events = Table(
    "usage_events",
    metadata,
    _id(),
    _column("tenant_id", Text),
    _column("key", Text),
    _reference("customer_id", "customers"),
    _column("occurred_at", MOMENT),
    _column("recorded_at", MOMENT, server_default=func.now()),
    _column("items", JSONB),
    _column("tokens", BigInteger),
    _column("cost", MONEY),
    UniqueConstraint("tenant_id", "key"),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    _id(),
    _reference("wallet_id", "wallets", index=True),
    _reference("usage_event_id", "usage_events"),
    _column("amount", MONEY),
    _column("balance_after", MONEY),
)

periods = Table(
    "periods",
    metadata,
    _reference("customer_id", "customers", primary_key=True),
    _column("start_at", MOMENT, primary_key=True),
    _column("tokens", BigInteger),
    _column("events", BigInteger),
)

payments = Table(
    "payments",
    metadata,
    _id(),
    _reference("customer_id", "customers"),
    _column("period_start_at", MOMENT),
    _column("tier", BigInteger),
    _column("amount_minor", BigInteger),
    UniqueConstraint("customer_id", "period_start_at", "tier"),
)


def connect(database_url: str) -> Engine:
    """An engine for one process: one connection, kept open, through psycopg 3."""
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    return create_engine(url, pool_size=1, max_overflow=0)


def create(database_url: str, customer_count: int) -> None:
    """Drop and make the schema with both prices and, for each customer, a wallet."""
    engine = connect(database_url)
    with engine.begin() as connection:
        connection.execute(DropSchema(SCHEMA, cascade=True, if_exists=True))
        connection.execute(CreateSchema(SCHEMA))
        metadata.create_all(connection)
        connection.execute(insert(prices), [_price_row(category) for category in PRICES])
        connection.execute(_INSERT_CUSTOMERS, {"tenant": workload.TENANT, "last": customer_count - 1})
        connection.execute(_INSERT_WALLETS)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE naive.customers, naive.wallets, naive.prices"))
    engine.dispose()


# The names of `workload.customer_name`, made where a million of them cost seconds and not minutes.
_INSERT_CUSTOMERS = text(
    "INSERT INTO naive.customers (tenant_id, external_id)"
    " SELECT :tenant, 'customer-' || lpad(number::text, 7, '0') FROM generate_series(0, :last) AS number"
)
_INSERT_WALLETS = insert(wallets).from_select(
    ["customer_id", "balance"], select(customers.c.id, literal(STARTING_BALANCE))
)


def _price_row(category: str) -> dict[str, Any]:
    return {
        "category": category,
        "provider": workload.PROVIDER,
        "model": workload.MODEL,
        "unit": workload.UNIT,
        "amount": PRICES[category],
    }
