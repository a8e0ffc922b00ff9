"""What a tenant sets for itself, and what then holds for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.errors import Rejected, TenantNotFound
from billing.money import written
from billing.tenant_settings import TenantSettings, as_said, check
from config.logging import logger
from config.settings import settings, thresholds
from db import access as access_rows
from db import customers as customer_rows
from db import tenant_settings as rows
from db.session import Connection, in_transaction
from services.desk.access import Actor

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a tenant has set, and what holds for it: its own, else the installation's."""

    own: TenantSettings
    in_force: TenantSettings


def of_tenant(tenant_id: str) -> Chosen:
    """What is set for a tenant. Raises `TenantNotFound`."""

    def work(connection: Connection) -> TenantSettings:
        _require(connection, tenant_id)
        return rows.of_tenants(connection, [tenant_id]).get(tenant_id, TenantSettings())

    return _chosen(in_transaction(work))


def change(tenant_id: str, changes: Mapping[str, Any], by: Actor, now: datetime) -> Chosen:
    """Let a tenant have these settings, by name, from now on; None: as the installation. What is not named stays.

    It stands in the trail of administrators' acts. Locks the tenant's row of settings. Raises `TenantNotFound`,
    `Rejected` (there is no such setting, or none of such a value).
    """
    if unknown := set(changes) - {field.name for field in fields(TenantSettings)}:
        raise Rejected(f"there is no setting {min(unknown)} of a tenant")
    said = _read(changes)
    check(replace(TenantSettings(), **said))

    def work(connection: Connection) -> TenantSettings:
        _require(connection, tenant_id)
        own = replace(rows.lock(connection, tenant_id, now), **said)
        rows.keep(connection, tenant_id, own, now)
        what, detail = ("settings.change", tenant_id), {name: as_text(value) for name, value in said.items()}
        access_rows.add_act(connection, tenant_id, (by.subject, by.through), what, now, detail=detail)
        return own

    own = in_transaction(work)
    log.info("tenant settings changed", tenant_id=tenant_id, changed=sorted(changes))
    return _chosen(own)


def in_force(connection: Connection, tenant_ids: Collection[str]) -> dict[str, TenantSettings]:
    """What holds for each of these tenants. Takes no lock."""
    own = rows.of_tenants(connection, tenant_ids)
    return {tenant_id: _chosen(own.get(tenant_id, TenantSettings())).in_force for tenant_id in tenant_ids}


def as_text(value: object) -> Any:
    """A setting as people write it."""
    match value:
        case Decimal():
            return written(value)
        case Mapping():
            return as_said(value)
    return value


def _read(changes: Mapping[str, Any]) -> dict[str, Any]:
    said = dict(changes)
    if isinstance(said.get("low_balance"), str):
        try:
            said["low_balance"] = thresholds(said["low_balance"])
        except ValueError as error:
            raise Rejected(f"low_balance: {error}") from error
    return said


def _chosen(own: TenantSettings) -> Chosen:
    of_all = settings()
    installation: dict[str, Any] = {
        "free_tier_credits": of_all.free_tier_credits,
        "affordability_buffer": of_all.affordability_buffer,
        "low_balance": thresholds(of_all.low_balance),
        "audit_alert_percent": of_all.audit_alert_percent,
        "audit_alert_value_percent": of_all.audit_alert_value_percent,
    }
    missing = {name: value for name, value in installation.items() if getattr(own, name) is None}
    return Chosen(own, replace(own, **missing))


def _require(connection: Connection, tenant_id: str) -> None:
    if not customer_rows.existing_tenants(connection, [tenant_id]):
        raise TenantNotFound(tenant_id=tenant_id)
