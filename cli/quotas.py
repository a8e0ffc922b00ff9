"""How much may be used, by whom, of what: `quotas …`."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from billing.errors import Rejected
from billing.money import written
from billing.quotas import Measure, Per, Quota, QuotaKind, Scope
from cli.catalogue import CustomerId, TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from services.desk import quotas as service
from services.desk.quotas import Usage, Wanted

app = typer.Typer(help="How much may be used.", no_args_is_help=True)

Feature = Annotated[str | None, typer.Option(help="Of this feature alone.")]
ServiceType = Annotated[str | None, typer.Option(help="Of this type of service alone.")]
Currency = Annotated[str | None, typer.Option(help="Of cost.")]
Name = Annotated[str, typer.Argument(help="Its name.")]


@app.command("set")
def set_quota(
    tenant_id: TenantId,
    name: Name,
    limit: Annotated[str, typer.Argument(help="How much, such as 1000000 or 25.50.")],
    scope: Annotated[Scope, typer.Option(help="Whose usage is counted together.")] = Scope.TENANT,
    subject: Annotated[str, typer.Option(help="Which user, customer or organization; else each of them.")] = "",
    service_type: ServiceType = None,
    feature: Feature = None,
    per: Annotated[Per, typer.Option(help="For how long.")] = Per.MONTH,
    measure: Annotated[Measure, typer.Option(help="What is counted.")] = Measure.TOKENS,
    currency: Currency = None,
    hard: Annotated[bool, typer.Option("--hard", help="Refuse what does not fit any more.")] = False,
    kind: Annotated[QuotaKind, typer.Option(help="A budget only warns; a cap is a customer's own.")] = QuotaKind.QUOTA,
    time_zone: Annotated[str | None, typer.Option(help="Else the customer's that is named, or UTC.")] = None,
) -> None:
    """Set a quota, or another limit of the one that goes by this name."""
    about = (_decimal(limit), kind, scope, subject, service_type, feature, per, measure, currency)
    done = service.set_quota(Wanted(tenant_id, name, *about, hard or kind is QuotaKind.CAP, time_zone), clock.now())
    how = "counts from now on" if done.is_new else "was there already, and has this limit now"
    console.print(f"{done.quota.kind} {plain(name)}: {_limit(done.quota)}; it {how}", soft_wrap=True)


@app.command("list")
def list_quotas(
    tenant_id: TenantId,
    subject: Annotated[str | None, typer.Option(help="Of this user, customer or organization alone.")] = None,
    after: Annotated[str | None, typer.Option(help="Behind this name, where the last page ended.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page.")] = 100,
    json: AsJson = False,
) -> None:
    """A tenant's quotas, by name."""
    found = service.quotas_of(tenant_id, subject=subject, after=after, limit=limit)
    if json:
        as_json(found)
        return
    table = a_table("quota", "of", "limit", "for")
    for quota in found:
        whose = f"{quota.scope} {plain(quota.subject)}" if quota.subject else _everyone(quota.scope)
        what = ", ".join(plain(said) for said in (quota.service_type, quota.feature) if said) or NOTHING
        table.add_row(plain(quota.name), whose, _limit(quota), what)
    console.print(table)


@app.command()
def end(tenant_id: TenantId, name: Name) -> None:
    """Let a quota count and refuse no more."""
    service.end_quota(tenant_id, name, clock.now())
    console.print(f"quota {plain(name)} has ended")


@app.command()
def check(
    tenant_id: TenantId,
    customer_id: CustomerId,
    tokens: Annotated[int, typer.Option(help="How many tokens are asked for.")] = 0,
    cost: Annotated[str, typer.Option(help="What it would cost.")] = "0",
    currency: Currency = None,
    user: Annotated[str | None, typer.Option(help="By this user.")] = None,
    organization: Annotated[str | None, typer.Option(help="Of this organization.")] = None,
    service_type: ServiceType = None,
    feature: Feature = None,
    json: AsJson = False,
) -> None:
    """Whether quotas leave room for so much; the exit status is 1 where a hard one does not."""
    usage = Usage(
        tenant_id, customer_id, user, organization, service_type, feature, tokens, 1, _decimal(cost), currency
    )
    answer = service.check(usage, clock.now())
    if json:
        told = [
            {"name": one.quota.name, "used": one.used, "remaining": one.remaining, "refuses": one.refuses}
            for one in answer.allowances
        ]
        as_json({"is_allowed": answer.is_allowed, "quotas": told})
    else:
        table = a_table("quota", "used", "limit", "until (UTC)", numbers=("used",))
        for one in answer.allowances:
            name = plain(one.quota.name) + ("" if one.is_within else " (refuses)" if one.refuses else " (over)")
            table.add_row(name, written(one.used), _limit(one.quota), moment(one.resets_at))
        console.print(table)
        console.print("allowed" if answer.is_allowed else "refused")
    if not answer.is_allowed:
        raise typer.Exit(1)


def _everyone(scope: Scope) -> str:
    return "the tenant" if scope is Scope.TENANT else f"each {scope}"


def _limit(quota: Quota) -> str:
    unit = quota.currency if quota.measure is Measure.COST else quota.measure.value
    return f"{written(quota.limit)} {unit} a {quota.per}, {'hard' if quota.is_hard else 'soft'}"


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Rejected(f"{text!r} is not an amount; write it like 100 or 0.05") from None
