"""Where a tenant's alerts are sent, and what became of them: `webhooks …`."""

from typing import Annotated
from uuid import UUID

import typer

from billing.errors import Rejected
from billing.outgoing import DeliveryState
from cli.catalogue import TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from services.oversight import deliveries as service

app = typer.Typer(help="Where a tenant's alerts are sent.", no_args_is_help=True)


@app.command("set")
def set_endpoint(
    tenant_id: TenantId,
    url: Annotated[str, typer.Argument(help="An https address.")],
    new_secret: Annotated[bool, typer.Option("--new-secret", help="The one before signs for a day more.")] = False,
) -> None:
    """Send a tenant's alerts there from now on; a new secret is shown, once."""
    done = service.set_endpoint(tenant_id, url, clock.now(), new_secret=new_secret)
    console.print(f"alerts of {plain(tenant_id)} go to {plain(done.url)}", soft_wrap=True)
    if done.secret is not None:
        console.print(f"they are signed with {done.secret}", soft_wrap=True)


@app.command()
def off(tenant_id: TenantId, reason: Annotated[str, typer.Option(help="Why.")] = "by hand") -> None:
    """Send nothing more, until it is set again."""
    service.disable_endpoint(tenant_id, reason, clock.now())
    console.print(f"nothing is sent to {plain(tenant_id)}")


@app.command()
def show(tenant_id: TenantId, json: AsJson = False) -> None:
    """Where a tenant's alerts go, and whether they arrive."""
    found = service.endpoint_of(tenant_id)
    if json:
        as_json(found._asdict())
        return
    console.print(f"alerts go to {plain(found.url)}", soft_wrap=True)
    if found.disabled_at is not None:
        console.print(f"off since {moment(found.disabled_at)} UTC: {plain(found.disabled_reason)}", soft_wrap=True)
    elif found.failures and found.rests_until is not None:
        console.print(f"the last {found.failures} did not arrive; tried again from {moment(found.rests_until)} UTC on")


@app.command("list")
def list_deliveries(
    tenant_id: TenantId,
    state: Annotated[DeliveryState | None, typer.Option(help="Of this state alone.")] = None,
    limit: Annotated[int, typer.Option(help="Rows at most.")] = 50,
    json: AsJson = False,
) -> None:
    """A tenant's messages, newest first."""
    found = service.deliveries_of(tenant_id, state, limit)
    if json:
        as_json([row._asdict() | {"delivery_id": str(row.delivery_id)} for row in found])
        return
    table = a_table("message", "alert", "state", "tries", "last", numbers=("tries",))
    for row in found:
        last = str(row.last_status) if row.last_status is not None else row.last_error or NOTHING
        table.add_row(str(row.delivery_id), row.kind, row.state, str(row.tries), last)
    console.print(table)


@app.command()
def again(
    tenant_id: TenantId,
    message: Annotated[str | None, typer.Argument(help="One of `centavo webhooks list`; else all.")] = None,
) -> None:
    """Try once more what was given up."""
    console.print(f"{service.deliver_again(tenant_id, clock.now(), _id(message))} messages are due again")


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Rejected(f"{text!r} is no message; `centavo webhooks list` shows them") from None
