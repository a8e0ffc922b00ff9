"""What is parked: `parked list`, `parked show`, `parked replay`."""

from typing import Annotated

import typer
from rich.progress import Progress

from billing.errors import Rejected
from billing.rating import ParkReason
from cli.show import AsJson, as_json, console, errors, plain
from config import clock
from services.metering import parked as service

app = typer.Typer(help="What could not be charged.", no_args_is_help=True)

Reason = Annotated[ParkReason | None, typer.Option(help="Of this reason alone.", metavar="REASON")]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant alone.")]


@app.command("list")
def list_parked(
    reason: Reason = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: AsJson = False,
) -> None:
    """What is parked, oldest first."""
    found = service.waiting(reason, tenant, limit)
    if json:
        as_json([row._asdict() for row in found])
        return
    for row in found:
        # The id is what the other commands want: it stays in one piece, to be copied.
        console.print(plain(row.parked_id), style="bold", soft_wrap=True)
        seen = f", seen {row.times_seen} times" if row.times_seen > 1 else ""
        customer = f", customer {plain(row.customer_id)}" if row.customer_id else ""
        console.print(f"  {row.reason}{customer}, since {row.parked_at:%Y-%m-%d %H:%M} UTC{seen}", soft_wrap=True)
        console.print(f"  {plain(row.detail)}", soft_wrap=True)
    if not found:
        console.print("nothing is parked" + (" for that" if reason or tenant else ""))
    elif len(found) == limit:
        console.print(f"these are the oldest {limit}; --limit shows more")


@app.command("show")
def show_parked(parked_id: Annotated[str, typer.Argument(help="An id from `centavo parked list`.")]) -> None:
    """All that is kept of one parked thing, as JSON."""
    as_json(service.show(parked_id))


@app.command("replay")
def replay_parked(
    parked_id: Annotated[str | None, typer.Argument(help="One id; bounds on size and age are waived for it.")] = None,
    reason: Reason = None,
    tenant: Tenant = None,
    everything: Annotated[bool, typer.Option("--all", help="Whatever may go without a person's look at it.")] = False,
) -> None:
    """Try parked things again: what can be charged now is charged, once."""
    chosen = everything or reason or tenant
    if bool(parked_id) == bool(chosen):
        raise Rejected("say what to replay: an id, or --reason, --tenant or --all")
    result = service.replay(parked_id, clock.now()) if parked_id else _replay_all(reason, tenant)
    console.print(f"{result.tried} tried, {result.charged} charged, {result.still_parked} still parked")


def _replay_all(reason: ParkReason | None, tenant: str | None) -> service.Replayed:
    if reason in service.BY_HAND:
        raise Rejected(f"what is parked as {reason} goes by its id alone, after a look: `centavo parked replay ID`")
    if reason in service.FINAL:
        raise Rejected(f"what is parked as {reason} stays so: the first payload of its key stands")
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("replaying", total=None)
        return service.replay_all(
            clock.now(),
            reason=reason,
            tenant_id=tenant,
            on_progress=lambda so_far: progress.update(task, completed=so_far.tried),
        )
