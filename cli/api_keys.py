"""Keys of servers: `api-keys create`, `list`, `revoke`."""

import getpass
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from billing.access import Capability, Through
from cli.catalogue import TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from db.access import KeyRow
from services.desk import access as service
from services.desk.access import Actor

app = typer.Typer(help="What servers ask the API with.", no_args_is_help=True)

KeyId = Annotated[UUID, typer.Argument(help="An id from `centavo api-keys list`.")]


@app.command()
def create(
    tenant_id: TenantId,
    name: Annotated[str, typer.Argument(help="For people: which server has it.")],
    may: Annotated[list[Capability], typer.Option(help="What it may do; may be repeated.")],
    expires_at: Annotated[datetime | None, typer.Option(help="It holds before this; UTC.")] = None,
    json: AsJson = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    until = clock.in_utc(expires_at) if expires_at else None
    made = service.create_key(tenant_id, name, may, actor(), clock.now(), until)
    if json:
        as_json({"key_id": made.key_id, "key": made.secret})
        return
    console.print(f"key {made.key_id}; it is not shown again:\n{made.secret}", soft_wrap=True)


@app.command("list")
def list_(tenant_id: TenantId, json: AsJson = False) -> None:
    """A tenant's keys, revoked ones too."""
    found = service.keys_of(tenant_id)
    if json:
        as_json([one._asdict() for one in found])
        return
    if not found:
        console.print("there are none; make one with `centavo api-keys create`")
        return
    now = clock.now()
    table = a_table("id", "name", "may", "state", whole=("id",))
    for one in found:
        may = ", ".join(capability.removeprefix("billing.") for capability in one.capabilities)
        table.add_row(str(one.key_id), plain(one.name), may, _state(one, now))
    console.print(table)


@app.command()
def revoke(tenant_id: TenantId, key_id: KeyId) -> None:
    """Let a key hold no longer: within five seconds, everywhere."""
    service.revoke_key(tenant_id, key_id, actor(), clock.now())
    console.print(f"key {key_id} is revoked")


def _state(key: KeyRow, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {moment(key.revoked_at)}"
    if key.expires_at is None:
        return "holds"
    return f"over since {moment(key.expires_at)}" if key.expires_at <= now else f"holds to {moment(key.expires_at)}"


def actor() -> Actor:
    """Who sits at the command line, as far as the machine knows."""
    try:
        return Actor(getpass.getuser(), Through.COMMAND_LINE)
    except (OSError, KeyError):  # a container's user has no name
        return Actor(NOTHING, Through.COMMAND_LINE)
