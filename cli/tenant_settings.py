"""What a tenant has otherwise than the installation: `tenants settings`."""

from typing import Annotated, Any

import typer

from billing.errors import Rejected
from cli.api_keys import actor
from cli.catalogue import TenantId, a_decimal
from cli.show import NOTHING, AsJson, a_table, as_json, console, plain
from config import clock
from db.tenant_settings import NAMES
from services.desk import tenant_settings as service

DECIMALS = ("free_tier_credits", "affordability_buffer", "audit_alert_percent", "audit_alert_value_percent")


def settings(
    tenant_id: TenantId,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="Such as affordability_buffer=1.5; without a value, as the installation has it."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what is set for a tenant, or set something for it."""
    wanted = dict(_change(said) for said in changes or ())
    chosen = service.change(tenant_id, wanted, actor(), clock.now()) if wanted else service.of_tenant(tenant_id)
    if json:
        as_json(chosen)
        return
    table = a_table("setting", "own", "holds")
    for name in NAMES:
        own, holds = (service.as_text(getattr(one, name)) for one in (chosen.own, chosen.in_force))
        table.add_row(name, *(NOTHING if value is None else plain(str(value)) for value in (own, holds)))
    console.print(table)


def _change(said: str) -> tuple[str, Any]:
    """One of `NAME=VALUE`."""
    name, separator, value = said.partition("=")
    if not separator or name not in NAMES:
        raise Rejected(f"{said!r} is no change; write NAME=VALUE, with one of {', '.join(NAMES)}")
    if value == "" and name != "low_balance":
        return name, None
    if name in DECIMALS:
        return name, a_decimal(value)
    if name == "low_balance":
        return name, None if value == "default" else value
    if not value.isdecimal():
        raise Rejected(f"{name} is a whole number, not {value!r}")
    return name, int(value)
