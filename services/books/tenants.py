"""Tenants, and the plans they offer."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from billing.currencies import check_payable
from billing.errors import TenantNotFound
from billing.plans import Plan
from config.logging import logger
from db import customers as rows
from db.session import Connection, in_transaction
from services.books.names import check_name

log = logger(__name__)


def create_tenant(tenant_id: str, name: str, now: datetime) -> bool:
    """Make a tenant; False when it is there already. Raises `Rejected` (no such names)."""
    check_name(tenant_id, "a tenant's id")
    check_name(name, "a tenant's name")
    is_new = in_transaction(lambda connection: rows.add_tenant(connection, tenant_id, name, now))
    if is_new:
        log.info("tenant created", tenant_id=tenant_id)
    return is_new


def load_plans(tenant_id: str, plans: Sequence[Plan], now: datetime) -> list[Plan]:
    """Offer plans. One that differs from its newest version becomes the next; what is the same stays.

    Returns the versions that are new. Raises `TenantNotFound`, `Rejected` (a fee that is not collected).
    """
    for plan in plans:
        if plan.fixed_fee_minor or plan.tier_fee_minor:
            check_payable(plan.payment_currency)

    def work(connection: Connection) -> list[Plan]:
        if tenant_id not in rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        added = []
        for offered in plans:
            newest = rows.newest_plan(connection, tenant_id, offered.plan_id)
            plan = replace(offered, tenant_id=tenant_id, version=newest.version if newest else 1)
            if plan == newest:
                continue
            plan = replace(plan, version=newest.version + 1 if newest else 1)
            rows.add_plan(connection, plan, now)
            added.append(plan)
        return added

    return in_transaction(work)


def plans_of(tenant_id: str) -> list[Plan]:
    """Every version of every plan that a tenant offers."""
    return in_transaction(lambda connection: rows.plans_of(connection, tenant_id))
