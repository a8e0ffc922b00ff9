"""Tenants, plans and customers."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from billing.plans import Anchor, LateEvents, Plan, Proration, UnowedTiers
from db.session import Connection

_PLAN_COLUMNS = (
    "p.tenant_id, p.plan_id, p.version, p.name, p.payment_currency, p.fixed_fee_minor, p.included_tokens, "
    "p.tier_size, p.tier_fee_minor, p.dunning_days, p.dunning_hour, p.open_tiers_max, p.free_credits, "
    "p.free_credits_currency, p.anchor, p.proration, p.late_events, p.grace_hours, p.unowed_tiers, "
    "p.day_payments_max, p.day_minor_max"
)

_PLAN_FIELDS = [column.strip().removeprefix("p.") for column in _PLAN_COLUMNS.split(",")]

_PLANS = f"""
SELECT {_PLAN_COLUMNS} FROM unnest(%s::text[], %s::text[], %s::int[]) AS asked(tenant_id, plan_id, version)
JOIN plans p ON p.tenant_id = asked.tenant_id AND p.plan_id = asked.plan_id AND p.version = asked.version
"""  # noqa: S608 - column names of ours, no input

_PLANS_OF = f"SELECT {_PLAN_COLUMNS} FROM plans p WHERE p.tenant_id = %s ORDER BY p.plan_id, p.version"  # noqa: S608

_NEWEST_PLAN = f"""
SELECT {_PLAN_COLUMNS} FROM plans p WHERE p.tenant_id = %s AND p.plan_id = %s ORDER BY p.version DESC LIMIT 1
"""  # noqa: S608 - column names of ours, no input

_ADD_PLAN = """
INSERT INTO plans (tenant_id, plan_id, version, name, payment_currency, fixed_fee_minor, included_tokens,
    tier_size, tier_fee_minor, dunning_days, dunning_hour, open_tiers_max, free_credits, free_credits_currency, anchor,
    proration, late_events, grace_hours, unowed_tiers, day_payments_max, day_minor_max, created_at)
VALUES (%(tenant_id)s, %(plan_id)s, %(version)s, %(name)s, %(payment_currency)s, %(fixed_fee_minor)s,
    %(included_tokens)s, %(tier_size)s, %(tier_fee_minor)s, %(dunning_days)s, %(dunning_hour)s, %(open_tiers_max)s,
    %(free_credits)s, %(free_credits_currency)s, %(anchor)s, %(proration)s, %(late_events)s, %(grace_hours)s,
    %(unowed_tiers)s, %(day_payments_max)s, %(day_minor_max)s, %(now)s)
"""

_ADD_CUSTOMER = """
INSERT INTO customers (tenant_id, customer_id, plan_id, plan_version, time_zone, stripe_customer_id,
    default_payment_method_id, anchor_day, billed_from, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, customer_id) DO NOTHING
"""

_ADD_WALLET = """
INSERT INTO wallets (tenant_id, customer_id, currency, created_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant_id, customer_id, currency) DO NOTHING
"""

_CUSTOMER = """
SELECT tenant_id, customer_id, plan_id, plan_version, time_zone, stripe_customer_id, default_payment_method_id,
    anchor_day
FROM customers WHERE tenant_id = %s AND customer_id = %s
"""


class CustomerRow(NamedTuple):
    """A customer."""

    tenant_id: str
    customer_id: str
    plan_id: str
    plan_version: int
    time_zone: str
    stripe_customer_id: str | None
    default_payment_method_id: str | None
    anchor_day: int


def installation_id(connection: Connection) -> UUID:
    """Which database this is."""
    row = connection.execute("SELECT installation_id FROM installation").fetchone()
    assert row is not None
    return cast("UUID", row[0])


def add_tenant(connection: Connection, tenant_id: str, name: str, now: datetime) -> bool:
    """Add a tenant; whether it is new."""
    statement = (
        "INSERT INTO tenants (tenant_id, name, created_at) VALUES (%s, %s, %s) ON CONFLICT (tenant_id) DO NOTHING"
    )
    return connection.execute(statement, (tenant_id, name, now)).rowcount == 1


def existing_tenants(connection: Connection, tenant_ids: Sequence[str]) -> set[str]:
    """Those of the tenants that exist."""
    rows = connection.execute("SELECT tenant_id FROM tenants WHERE tenant_id = ANY(%s)", (list(tenant_ids),))
    return {str(tenant_id) for (tenant_id,) in rows}


def load_plans(connection: Connection, plan_keys: Sequence[tuple[str, str, int]]) -> list[Plan]:
    """Versions of plans by (tenant, plan, version)."""
    rows = connection.execute(_PLANS, [list(column) for column in zip(*plan_keys, strict=True)])
    return [_plan(row) for row in rows]


def plans_of(connection: Connection, tenant_id: str) -> list[Plan]:
    """Every version of every plan of a tenant."""
    return [_plan(row) for row in connection.execute(_PLANS_OF, (tenant_id,))]


def newest_plan(connection: Connection, tenant_id: str, plan_id: str) -> Plan | None:
    """The newest version of a plan, or None."""
    row = connection.execute(_NEWEST_PLAN, (tenant_id, plan_id)).fetchone()
    return _plan(row) if row else None


def _plan(row: Sequence[Any]) -> Plan:
    said = dict(zip(_PLAN_FIELDS, row, strict=True))
    words = {
        "dunning_days": tuple(said["dunning_days"]),
        "anchor": Anchor(said["anchor"]),
        "proration": Proration(said["proration"]),
        "late_events": LateEvents(said["late_events"]),
        "unowed_tiers": UnowedTiers(said["unowed_tiers"]),
    }
    return Plan(**said | words)


def add_plan(connection: Connection, plan: Plan, now: datetime) -> None:
    """Add a version of a plan."""
    connection.execute(_ADD_PLAN, asdict(plan) | {"dunning_days": list(plan.dunning_days), "now": now})


def add_customer(connection: Connection, customer: CustomerRow, now: datetime) -> bool:
    """Add a customer; whether it is new."""
    return connection.execute(_ADD_CUSTOMER, (*customer, now, now)).rowcount == 1


def add_wallet(connection: Connection, tenant_id: str, customer_id: str, currency: str, now: datetime) -> None:
    """Give a customer a wallet in a currency, if there is none."""
    connection.execute(_ADD_WALLET, (tenant_id, customer_id, currency, now))


def find_customer(connection: Connection, tenant_id: str, customer_id: str) -> CustomerRow | None:
    """A customer, or None."""
    row = connection.execute(_CUSTOMER, (tenant_id, customer_id)).fetchone()
    return CustomerRow._make(cast("Any", row)) if row else None
