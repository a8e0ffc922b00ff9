"""What tenants set for themselves."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from psycopg.types.json import Jsonb

from billing.tenant_settings import TenantSettings
from db.session import Connection

NAMES = tuple(field.name for field in fields(TenantSettings))
_COLUMNS = ", ".join(NAMES)

_OF_TENANTS = f"SELECT tenant_id, {_COLUMNS} FROM tenant_settings WHERE tenant_id = ANY(%s)"  # noqa: S608 - names of ours

_BEGIN = """
INSERT INTO tenant_settings (tenant_id, updated_at) VALUES (%s, %s) ON CONFLICT (tenant_id) DO NOTHING
"""
_LOCK = f"SELECT {_COLUMNS} FROM tenant_settings WHERE tenant_id = %s FOR UPDATE"  # noqa: S608 - the same
_KEEP = f"""
UPDATE tenant_settings SET {", ".join(f"{name} = %({name})s" for name in NAMES)}, updated_at = %(now)s
WHERE tenant_id = %(tenant_id)s
"""  # noqa: S608 - the same


def of_tenants(connection: Connection, tenant_ids: Collection[str]) -> dict[str, TenantSettings]:
    """What each of these has set; nothing of those that have set nothing. Takes no lock."""
    found = connection.execute(_OF_TENANTS, (sorted(tenant_ids),))
    return {str(row[0]): _made(row[1:]) for row in found}


def lock(connection: Connection, tenant_id: str, now: datetime) -> TenantSettings:
    """What a tenant has set, with its row locked; it is made if there is none."""
    connection.execute(_BEGIN, (tenant_id, now))
    return _made(cast("Any", connection.execute(_LOCK, (tenant_id,)).fetchone()))


def keep(connection: Connection, tenant_id: str, own: TenantSettings, now: datetime) -> None:
    """Let a tenant have these. The caller has locked the row."""
    said = {name: getattr(own, name) for name in NAMES} | {"tenant_id": tenant_id, "now": now}
    said["low_balance"] = None if own.low_balance is None else as_json(own.low_balance)
    connection.execute(_KEEP, said)


def as_json(thresholds: Mapping[str, Decimal]) -> Jsonb:
    """Numbers as text: read as JSON's, they would become floats."""
    return Jsonb({currency: str(below) for currency, below in thresholds.items()})


def from_json(thresholds: Mapping[str, str] | None) -> dict[str, Decimal] | None:
    """Thresholds as they are kept."""
    return None if thresholds is None else {currency: Decimal(below) for currency, below in thresholds.items()}


def _made(values: Any) -> TenantSettings:
    said = dict(zip(NAMES, values, strict=True))
    return TenantSettings(**said | {"low_balance": from_json(said["low_balance"])})
