"""Who pays for which plan, since when, until when: `subscriptions …`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from cli.catalogue import CustomerId, TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from db.subscriptions import PeriodRow
from services.cycle import subscriptions as service
from services.cycle.subscriptions import At

app = typer.Typer(help="Who pays for which plan, since when, until when.", no_args_is_help=True)

When = Annotated[At, typer.Option("--at", help="Now, or when the period ends.")]
Plan = Annotated[str, typer.Option(help="The plan; its newest version.")]


@app.command()
def show(tenant_id: TenantId, customer_id: CustomerId, json: AsJson = False) -> None:
    """How a subscription stands, and what it went through."""
    found, history = service.find(tenant_id, customer_id), service.history(tenant_id, customer_id)
    periods = service.periods_of(tenant_id, customer_id)
    if json:
        said = found._asdict()
        as_json(said | {"history": [one._asdict() for one in history], "periods": [one._asdict() for one in periods]})
        return
    console.print(f"plan {plain(found.plan_id)} v{found.plan_version}, billed from {moment(found.billed_from)} UTC")
    console.print(f"months begin on day {found.anchor_day} in {plain(found.time_zone)}")
    if found.paused_at:
        console.print(f"paused since {moment(found.paused_at)} UTC")
    if found.ended_at:
        console.print(f"until {moment(found.ended_at)} UTC")
    if found.next_plan_id and found.next_plan_at:
        console.print(f"from {moment(found.next_plan_at)} UTC on plan {plain(found.next_plan_id)}")
    console.print(_table(periods))
    for one in history:
        what = one.move.replace("_", " ")
        console.print(f"{moment(one.at)} UTC: {what}, from {moment(one.effective_at)} UTC on")


def _table(periods: Sequence[PeriodRow]) -> Table:
    numbers = ("tokens", "tiers", "statement")
    table = a_table("from (UTC)", "to (UTC)", "plan", *numbers, numbers=numbers)
    for period in periods:
        state = "closed" if period.closed_at else NOTHING
        number = str(period.statement_number) if period.statement_number else state
        counted = (f"{period.tokens:,}", str(period.tiers_reached), number)
        table.add_row(moment(period.starts_at), moment(period.ends_at), plain(period.plan_id), *counted)
    return table


@app.command("change-plan")
def change_plan(tenant_id: TenantId, customer_id: CustomerId, plan: Plan, at: When = At.PERIOD_END) -> None:
    """Put a customer on the newest version of a plan."""
    since = service.change_plan(tenant_id, customer_id, plan, clock.now(), at)
    console.print(f"customer {plain(customer_id)} is on {plain(plan)} from {moment(since)} UTC on")


@app.command("change-zone")
def change_zone(
    tenant_id: TenantId,
    customer_id: CustomerId,
    time_zone: Annotated[str, typer.Argument(help="Where the customer's months begin, such as Asia/Tokyo.")],
) -> None:
    """Count a customer's months in another zone, from the next one on."""
    since = service.change_zone(tenant_id, customer_id, time_zone, clock.now())
    console.print(f"months of {plain(customer_id)} are counted in {plain(time_zone)} from {moment(since)} UTC on")


@app.command()
def pause(tenant_id: TenantId, customer_id: CustomerId) -> None:
    """Let periods that begin from now on owe no fee, until it is resumed."""
    since = service.pause(tenant_id, customer_id, clock.now())
    console.print(f"customer {plain(customer_id)} is paused since {moment(since)} UTC")


@app.command()
def resume(tenant_id: TenantId, customer_id: CustomerId) -> None:
    """Go on after a pause."""
    service.resume(tenant_id, customer_id, clock.now())
    console.print(f"customer {plain(customer_id)} is billed again")


@app.command()
def end(tenant_id: TenantId, customer_id: CustomerId, at: When = At.PERIOD_END) -> None:
    """End a subscription; its period runs to its end, and no other follows."""
    until = service.end(tenant_id, customer_id, clock.now(), at)
    console.print(f"the subscription of {plain(customer_id)} ends at {moment(until)} UTC")


@app.command()
def begin(tenant_id: TenantId, customer_id: CustomerId, plan: Plan) -> None:
    """Begin again after an end."""
    service.subscribe(tenant_id, customer_id, plan, clock.now())
    console.print(f"customer {plain(customer_id)} is on {plain(plan)} from now on")
